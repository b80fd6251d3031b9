"""CodeBuild: builds in containers of their own: phases, sources, artifacts, caches, images, and what goes wrong."""

import io
import ipaddress
import json
import os
import random
import time
import urllib.parse
import zipfile

import pytest

from conftest import PORT, Neargate, build, eventually, upload
from test_codecommit import refused
from test_events import Listening
from test_pipelines import Pipelines, allow, deploy, source, trust

STANDARD = "aws/codebuild/standard:7.0"


def spec(*commands, **sections):
    """A buildspec of one phase, and other sections."""
    return json.dumps({"version": "0.2", "phases": {"build": {"commands": list(commands)}}, **sections}, indent=1)


class Builds:
    """A role, a bucket, a small image, and what these tests do over and over."""

    def __init__(self, plane, image):
        self.plane, self.image = plane, image
        for service in ["codebuild", "codecommit", "iam", "s3", "logs", "ssm", "secretsmanager", "ecr"]:
            setattr(self, service, plane.client(service))
        self.bucket = f"builds-{os.urandom(5).hex()}"
        self.s3.create_bucket(Bucket=self.bucket)
        name = f"builds-{os.urandom(4).hex()}"
        self.role = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("codebuild.amazonaws.com"))["Role"]["Arn"]
        self.role_name = name
        self.iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=allow("*"))

    def project(self, buildspec=None, image=None, variables=None, privileged=False, source=None, artifacts=None, credential=None, **more):
        name = f"project-{os.urandom(5).hex()}"
        source = dict(source or {"type": "NO_SOURCE"})
        if buildspec:
            source["buildspec"] = buildspec
        environment = {
            "type": "LINUX_CONTAINER",
            "image": image or self.image,
            "computeType": "BUILD_GENERAL1_SMALL",
            "privilegedMode": privileged,
            "environmentVariables": variables or [],
        }
        if credential:
            environment["registryCredential"] = {"credential": credential, "credentialProvider": "SECRETS_MANAGER"}
            environment["imagePullCredentialsType"] = "SERVICE_ROLE"
        artifacts = artifacts or {"type": "NO_ARTIFACTS"}
        self.codebuild.create_project(
            name=name, source=source, artifacts=artifacts, environment=environment, serviceRole=self.role, **more
        )
        return name

    def get(self, id):
        return self.codebuild.batch_get_builds(ids=[id])["builds"][0]

    def start(self, project, **more):
        return self.codebuild.start_build(projectName=project, **more)["build"]["id"]

    def over(self, id, seconds=60):
        def look():
            found = self.get(id)
            return found if found["buildComplete"] else None

        return eventually(look, f"the end of {id}", seconds)

    def run(self, project, seconds=60, **more):
        return self.over(self.start(project, **more), seconds)

    def good(self, project, seconds=60, **more):
        found = self.run(project, seconds, **more)
        assert found["buildStatus"] == "SUCCEEDED", (self.why(found), self.text(found))
        return found

    def lines(self, found):
        where = found["logs"]
        answer = self.logs.get_log_events(logGroupName=where["groupName"], logStreamName=where["streamName"], startFromHead=True)
        return [event["message"] for event in answer["events"]]

    def text(self, found):
        try:
            return "\n".join(self.lines(found)) + "\n"
        except self.logs.exceptions.ResourceNotFoundException:
            return ""

    def logged(self, found, what):
        """The log, once it has this: it is shipped beside the build."""
        return eventually(lambda: text if what in (text := self.text(found)) else None, f"{what!r} in {self.text(found)}")

    def why(self, found):
        phases = {p["phaseType"]: p for p in found["phases"] if p.get("phaseStatus") not in ("SUCCEEDED", None)}
        return {name: (p["phaseStatus"], *[(c["statusCode"], c["message"]) for c in p.get("contexts", [])]) for name, p in phases.items()}

    def files(self, key):
        body = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        archive = zipfile.ZipFile(io.BytesIO(body))
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture(scope="session")
def builds(stack):
    return Builds(stack.neargate, stack.image)


def test_phases_follow_each_other_and_are_logged(builds):
    variables = [{"name": "WORD", "value": "from the project"}, {"name": "OVER", "value": "project"}]
    buildspec = """version: 0.2
env:
  variables: {OVER: spec, OWN: own}
  exported-variables: [TAG]
phases:
  install:
    commands: [echo installing]
  pre_build:
    commands:
      - TAG=v$CODEBUILD_BUILD_NUMBER
      - mkdir sub && cd sub
  build:
    commands:
      - echo "[$WORD] [$OVER] [$OWN] [$TAG] [$(basename $PWD)]"
      - echo "$CODEBUILD_BUILD_ID $CODEBUILD_SRC_DIR $AWS_REGION"
  post_build:
    commands: [echo "succeeding $CODEBUILD_BUILD_SUCCEEDING"]
"""
    project = builds.project(buildspec, variables=variables)
    found = builds.good(project, environmentVariablesOverride=[{"name": "OVER", "value": "build"}])
    phases = [(p["phaseType"], p.get("phaseStatus")) for p in found["phases"]]
    names = ["SUBMITTED", "QUEUED", "PROVISIONING", "DOWNLOAD_SOURCE", "INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD"]
    names += ["UPLOAD_ARTIFACTS", "FINALIZING"]
    assert phases == [(name, "SUCCEEDED") for name in names] + [("COMPLETED", None)]
    assert found["exportedEnvironmentVariables"] == [{"name": "TAG", "value": "v1"}]
    assert found["currentPhase"] == "COMPLETED" and found["buildNumber"] == 1
    text = builds.logged(found, "Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED")
    assert "[from the project] [build] [own] [v1] [sub]\n" in text and "succeeding 1\n" in text
    assert f"{found['id']} /codebuild/output/src" in text
    assert found["logs"]["groupName"] == f"/aws/codebuild/{project}"
    for phase in names[4:8]:
        assert text.index(f"Entering phase {phase}") < text.index(f"Phase complete: {phase} State: SUCCEEDED")
    assert builds.good(project)["buildNumber"] == 2
    ids = builds.codebuild.list_builds_for_project(projectName=project)["ids"]
    assert len(ids) == 2 and ids[1] == found["id"] and found["id"] in builds.codebuild.list_builds()["ids"]
    assert builds.codebuild.list_builds_for_project(projectName=project, sortOrder="ASCENDING")["ids"] == ids[::-1]


def test_users_and_buildspecs_elsewhere(builds):
    """Phases as another user share variables with those before; a buildspec can lie in a bucket."""
    phases = {
        "pre_build": {"commands": ["WORD=carried", "cd /"]},
        "build": {"run-as": "web", "commands": ["echo $(id -u) $WORD $PWD", "MORE=of-web"], "finally": ["echo finally $(id -u)"]},
        "post_build": {"commands": ["echo $(id -u) $MORE"]},
    }
    builds.s3.put_object(Bucket=builds.bucket, Key="elsewhere.yml", Body=json.dumps({"version": "0.2", "phases": phases}).encode())
    found = builds.good(builds.project(f"arn:aws:s3:::{builds.bucket}/elsewhere.yml"))
    text = builds.logged(found, "Phase complete: POST_BUILD")
    assert "\n1000 carried /\n" in text and "\nfinally 1000\n" in text and "\n0 of-web\n" in text, text
    found = builds.run(builds.project(f"arn:aws:s3:::{builds.bucket}/none.yml"))
    assert builds.why(found)["DOWNLOAD_SOURCE"][1][0] == "YAML_FILE_ERROR"


def test_what_fails_says_why(builds):
    failing = spec("echo one", "exit 7", "echo never")
    found = builds.run(builds.project(failing))
    assert found["buildStatus"] == "FAILED"
    message = "Error while executing command: exit 7. Reason: exit status 7"
    assert builds.why(found) == {"BUILD": ("FAILED", ("COMMAND_EXECUTION_ERROR", message))}
    assert "\nnever\n" not in builds.logged(found, "State: FAILED")
    cases = {
        "version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b\n": ("DOWNLOAD_SOURCE", "YAML_FILE_ERROR", "line 5"),
        spec("true", env={"shell": "fish"}): ("DOWNLOAD_SOURCE", "CLIENT_ERROR", "fish"),
        spec("true", env={"parameter-store": {"SECRET": "/none"}}): ("DOWNLOAD_SOURCE", "DECRYPTED_VARIABLES_ERROR", "/none"),
    }
    for text, (phase, code, says) in cases.items():
        found = builds.run(builds.project(text))
        status, context = builds.why(found)[phase]
        assert (status, context[0]) == ("FAILED", code) and says in context[1], found
        assert says in builds.logged(found, says)
    found = builds.run(builds.project(spec("true"), image="127.0.0.1:1/none:1"))
    status, context = builds.why(found)["PROVISIONING"]
    assert (status, context[0]) == ("FAILED", "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE")


def test_secrets_reach_the_build_and_nothing_else(builds):
    word = os.urandom(8).hex()
    builds.ssm.put_parameter(Name=f"/build/{word[:6]}", Value=f"p-{word}", Type="SecureString")
    builds.secretsmanager.create_secret(Name=f"build-{word[:6]}", SecretString=json.dumps({"key": f"s-{word}"}))
    variables = [{"name": "KEY", "type": "SECRETS_MANAGER", "value": f"build-{word[:6]}:key"}]
    buildspec = spec("echo $PASSWORD | sha1sum; echo $KEY | sha1sum", "echo $PASSWORD", env={"parameter-store": {"PASSWORD": f"/build/{word[:6]}"}})
    found = builds.good(builds.project(buildspec, variables=variables))
    text = builds.logged(found, "UPLOAD_ARTIFACTS State")
    import hashlib

    for value in [f"p-{word}", f"s-{word}"]:
        assert hashlib.sha1(f"{value}\n".encode()).hexdigest() in text
    assert word not in json.dumps(found, default=str)
    assert f"p-{word}" not in text and "***" in text, "AWS masks them in logs"


def test_a_commit_becomes_artifacts(builds):
    pipelines = Pipelines(builds.plane)
    repository = pipelines.repository()
    first = pipelines.commit(repository, a__txt="one")
    buildspec = """version: 0.2
phases:
  build:
    commands:
      - cat a.txt; mkdir -p dist/js; cp a.txt dist/index.html; echo map > dist/js/a.map; echo j > dist/js/a.js
      - ln -s ../a.txt dist/link; ln -s /proc/version dist/other
      - echo $CODEBUILD_RESOLVED_SOURCE_VERSION > more.txt
artifacts:
  files: ['**/*']
  base-directory: dist
  exclude-paths: ['**/*.map']
  name: site-$CODEBUILD_BUILD_NUMBER.zip
  secondary-artifacts:
    more:
      files: [more.txt, 'dist/js/*']
      discard-paths: yes
"""
    pipelines.commit(repository, a__txt="two", buildspec__yml=buildspec)
    url = builds.codecommit.get_repository(repositoryName=repository)["repositoryMetadata"]["cloneUrlHttp"]
    s3 = {"type": "S3", "location": builds.bucket, "packaging": "ZIP", "overrideArtifactName": True, "path": "out"}
    more = {"type": "S3", "location": builds.bucket, "artifactIdentifier": "more", "name": "more", "namespaceType": "BUILD_ID"}
    source = {"type": "CODECOMMIT", "location": url}
    project = builds.project(source=source, artifacts=s3, secondaryArtifacts=[more])
    found = builds.good(project)
    tip = builds.codecommit.get_branch(repositoryName=repository, branchName="main")["branch"]["commitId"]
    assert found["resolvedSourceVersion"] == tip
    files = builds.files("out/site-1.zip")
    assert set(files) == {"index.html", "js/a.js", "link"} and files["index.html"] == "two"
    assert found["artifacts"]["location"] == f"arn:aws:s3:::{builds.bucket}/out/site-1.zip" and found["artifacts"]["sha256sum"]
    at = f"{found['id'].split(':')[1]}/more"
    keys = [o["Key"] for o in builds.s3.list_objects_v2(Bucket=builds.bucket, Prefix=at)["Contents"]]
    assert keys == [f"{at}/a.js", f"{at}/a.map", f"{at}/more.txt"]
    assert builds.s3.get_object(Bucket=builds.bucket, Key=f"{at}/more.txt")["Body"].read().decode().strip() == tip
    # An older commit has no buildspec.
    found = builds.run(project, sourceVersion=first)
    assert builds.why(found)["DOWNLOAD_SOURCE"][1][0] == "YAML_FILE_ERROR", found["phases"]
    found = builds.run(project, sourceVersion="nowhere")
    assert "nowhere" in builds.why(found)["DOWNLOAD_SOURCE"][1][1]
    nothing = buildspec.replace("['**/*']", "['none/*']")
    found = builds.run(project, buildspecOverride=nothing)
    assert builds.why(found)["UPLOAD_ARTIFACTS"] == ("FAILED", ("CLIENT_ERROR", "no matching artifact paths found"))


def test_a_git_host_is_a_source(builds):
    """Any repository over HTTP; here one that asks for a name and a password."""
    pipelines = Pipelines(builds.plane)
    repository = pipelines.repository()
    first = pipelines.commit(repository, buildspec__yml=spec("echo word: $(cat word)"), word="one")
    tip = pipelines.commit(repository, word="two")
    user = f"git-{repository}"
    builds.iam.create_user(UserName=user)
    builds.iam.put_user_policy(UserName=user, PolicyName="pull", PolicyDocument=allow("codecommit:GitPull"))
    login = builds.iam.create_service_specific_credential(UserName=user, ServiceName="codecommit.amazonaws.com")["ServiceSpecificCredential"]
    url = builds.codecommit.get_repository(repositoryName=repository)["repositoryMetadata"]["cloneUrlHttp"]
    name, password = (urllib.parse.quote(login[part], safe="") for part in ["ServiceUserName", "ServicePassword"])
    with_login = url.replace("http://", f"http://{name}:{password}@")
    project = builds.project(source={"type": "GITHUB_ENTERPRISE", "location": with_login, "gitCloneDepth": 1})
    for version, commit, word in [(None, tip, "two"), ("main", tip, "two"), (first, first, "one")]:
        found = builds.good(project, **({"sourceVersion": version} if version else {}))
        assert found["resolvedSourceVersion"] == commit
        assert f"\nword: {word}\n" in builds.logged(found, "Phase complete: BUILD")
    found = builds.run(project, sourceVersion="--upload-pack=touch /tmp/owned")
    assert builds.why(found)["DOWNLOAD_SOURCE"][1][0] == "CLIENT_ERROR" and not os.path.exists("/tmp/owned")


def test_a_build_in_a_vpc(builds, stack):
    """It has an address in the project's subnet, and the rules of its security groups."""
    subnet = stack.ec2.describe_subnets()["Subnets"][0]
    group = stack.group("builds")
    project = builds.project(
        spec("ip -4 -o addr; cat /etc/hosts"), vpcConfig={"vpcId": stack.vpc, "subnets": [subnet["SubnetId"]], "securityGroupIds": [group]}
    )
    text = builds.logged(builds.good(project), "Phase complete: BUILD")
    network = ipaddress.ip_network(subnet["CidrBlock"])
    addresses = [ipaddress.ip_address(word.split("/")[0]) for word in text.split() if word.count(".") == 3 and "/" in word and word[0].isdigit()]
    assert any(address in network for address in addresses), text
    found = builds.run(builds.project(spec("true"), vpcConfig={"vpcId": stack.vpc, "subnets": ["subnet-none"], "securityGroupIds": [group]}))
    assert "subnet-none" in str(builds.why(found)), found


def test_archives_are_sources_and_caches_are_kept(builds):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("buildspec.yml", spec(
            "cat /root/.cache/n 2>/dev/null || echo nothing cached", "mkdir -p /root/.cache; date +%s%N > /root/.cache/n; chown 7 /root/.cache/n",
            "stat -c %u /root/.cache/n", cache={"paths": ["/root/.cache/**/*"]},
        ))
        archive.writestr("run.sh", "echo run")
    builds.s3.put_object(Bucket=builds.bucket, Key="src/app.zip", Body=packed.getvalue())
    source = {"type": "S3", "location": f"{builds.bucket}/src/app.zip"}
    caches = [{"type": "S3", "location": f"{builds.bucket}/cache"}, {"type": "LOCAL", "modes": ["LOCAL_CUSTOM_CACHE"]}]
    for cache in caches:
        project = builds.project(source=source, cache=cache)
        assert "\nnothing cached\n" in builds.logged(builds.good(project), "Cached 1 file(s)")
        assert "\nnothing cached\n" not in builds.logged(builds.good(project), "Cached 1 file(s)")
        builds.codebuild.invalidate_project_cache(projectName=project)
        assert "\nnothing cached\n" in builds.logged(builds.good(project), "Cached 1 file(s)")


def test_builds_are_stopped_time_out_and_are_retried(builds):
    project = builds.project(spec("echo begun", "sleep 600"))
    id = builds.start(project)
    eventually(lambda: builds.get(id)["currentPhase"] == "BUILD", "the build")
    # It runs as tasks do, and is nobody's to name as one.
    task = f"arn:aws:ecs:us-east-1:123456789012:task/@codebuild/{id.split(':')[1].replace('-', '')}"
    with refused("InvalidParameterException"):
        builds.plane.client("ecs").list_tags_for_resource(resourceArn=task)
    builds.codebuild.stop_build(id=id)
    found = builds.over(id)
    assert (found["buildStatus"], builds.why(found)["BUILD"][0]) == ("STOPPED", "STOPPED")
    again = builds.codebuild.retry_build(id=id)["build"]["id"]
    eventually(lambda: builds.get(again)["currentPhase"] == "BUILD", "the build")
    builds.codebuild.stop_build(id=again)
    builds.over(again)
    gone = eventually(
        lambda: answer if (answer := builds.codebuild.batch_delete_builds(ids=[id]))["buildsDeleted"] else None, "its removal"
    )
    assert gone["buildsDeleted"][0].endswith(f"build/{id}") and not gone["buildsNotDeleted"]
    assert builds.codebuild.batch_get_builds(ids=[id])["buildsNotFound"] == [id]
    # A token begins one build.
    quick = builds.project(spec("true"))
    one, two = (builds.start(quick, idempotencyToken="t") for _ in range(2))
    assert one == two and builds.over(one)["buildStatus"] == "SUCCEEDED"


def test_a_build_that_means_harm_harms_itself_only(builds):
    """It forks without end, fills its memory, writes nonsense where it is followed, and looks outside."""
    fork = builds.project(spec(":() { : | : & }; : ; sleep 5; echo survived"))
    fills = builds.project(spec("tail /dev/zero"))
    lies = builds.project(spec("head -c 3000000 /dev/urandom >> /codebuild/agent/progress; echo 1 leave BUILD 0 0 >> /codebuild/agent/progress"))
    outside = {"type": "S3", "location": builds.bucket, "packaging": "ZIP", "name": "outside.zip"}
    looks = builds.project(
        spec("ln -s /proc/1/environ a; ln -s ../../../../../../../../etc/shadow b; echo c > c; mkfifo d; ln -s / e", artifacts={"files": "**/*"}),
        artifacts=outside,
    )
    ids = [builds.start(project) for project in (fork, fills, lies, looks)]
    calm = builds.good(builds.project(spec("echo calm")), seconds=120)
    assert calm["buildStatus"] == "SUCCEEDED"
    found = builds.over(ids[1], 120)
    assert found["buildStatus"] == "FAILED", found
    builds.over(ids[0], 120)
    assert "/codebuild/agent" in str(builds.why(builds.over(ids[2], 120)))
    assert builds.over(ids[3], 120)["buildStatus"] == "SUCCEEDED"
    assert builds.files("outside.zip") == {"c": "c\n"}
    # Not privileged: no mounts.
    found = builds.run(builds.project(spec("mkdir /m; mount -t tmpfs none /m")))
    assert found["buildStatus"] == "FAILED"


def test_projects_are_checked(builds):
    project = builds.project(spec("true"), description="old", tags=[{"key": "a", "value": "b"}])
    found = builds.codebuild.batch_get_projects(names=[project, "none"])
    assert found["projectsNotFound"] == ["none"] and found["projects"][0]["tags"] == [{"key": "a", "value": "b"}]
    updated = builds.codebuild.update_project(name=project, description="new", timeoutInMinutes=7)["project"]
    assert (updated["description"], updated["timeoutInMinutes"], updated["queuedTimeoutInMinutes"]) == ("new", 7, 480)
    assert project in builds.codebuild.list_projects()["projects"]
    newest = builds.codebuild.list_projects(sortBy="CREATED_TIME", sortOrder="DESCENDING")["projects"]
    assert newest[0] == project
    assert builds.codebuild.list_curated_environment_images()["platforms"]
    base = builds.codebuild.batch_get_projects(names=[project])["projects"][0]
    wrong = [
        ("ResourceAlreadyExistsException", {"name": project}),
        ("InvalidInputException", {"source": {"type": "NO_SOURCE"}}),
        ("InvalidInputException", {"source": {"type": "CODECOMMIT", "location": "https://example.com/x"}}),
        ("InvalidInputException", {"source": {"type": "CODEPIPELINE"}}),
        ("InvalidInputException", {"artifacts": {"type": "S3"}}),
        ("InvalidInputException", {"environment": {**base["environment"], "type": "WINDOWS_CONTAINER"}}),
        ("InvalidInputException", {"environment": {**base["environment"], "environmentVariables": [{"name": "A-B", "value": ""}]}}),
        ("InvalidInputException", {"serviceRole": "arn:aws:iam::123456789012:role/none"}),
        ("InvalidInputException", {"badgeEnabled": True}),
        ("InvalidInputException", {"vpcConfig": {"vpcId": "vpc-1"}}),
        ("InvalidInputException", {"fileSystemLocations": [{"type": "EFS", "location": "x", "mountPoint": "/m", "identifier": "x"}]}),
    ]
    for code, change in wrong:
        asked = {key: base[key] for key in ["source", "artifacts", "environment", "serviceRole"]}
        with refused(code):
            builds.codebuild.create_project(**{"name": f"{project}-other", **asked, **change})
    with refused("ResourceNotFoundException"):
        builds.codebuild.start_build(projectName="none")
    with refused("ResourceNotFoundException"):
        builds.codebuild.stop_build(id=f"{project}:none")
    with refused("InvalidInputException"):
        builds.codebuild.stop_build(id="none")
    builds.codebuild.delete_project(name=project)
    with refused("ResourceNotFoundException"):
        builds.codebuild.start_build(projectName=project)


def test_events_are_told(builds):
    listening = Listening(builds.plane)
    project = builds.project(spec("true"))
    rule = listening.rule({"source": ["aws.codebuild"], "detail": {"project-name": [project]}})
    found = builds.good(project)

    def look():
        heard = listening.heard(rule)
        return heard if any(e["detail"].get("build-status") == "SUCCEEDED" for e in heard) else None

    heard = eventually(look, "the events")
    states = [e["detail"]["build-status"] for e in heard if e["detail-type"] == "CodeBuild Build State Change"]
    assert sorted(states) == ["IN_PROGRESS", "SUCCEEDED"]
    phases = {e["detail"]["completed-phase"] for e in heard if e["detail-type"] == "CodeBuild Build Phase Change"}
    assert {"SUBMITTED", "PROVISIONING", "BUILD", "FINALIZING"} <= phases
    assert heard[0]["detail"]["build-id"] == found["arn"] and heard[0]["resources"] == [found["arn"]]
    listening.forget(rule)


def test_an_event_begins_a_build(builds):
    """A build that fails begins another, with a variable of the event's."""
    first, second = builds.project(spec("false")), builds.project(spec("echo after $FAILED"))
    pattern = {"source": ["aws.codebuild"], "detail": {"project-name": [first], "build-status": ["FAILED"]}}
    listening = Listening(builds.plane)
    events = listening.events
    name = f"then-{second}"
    role = builds.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("events.amazonaws.com"))["Role"]["Arn"]
    builds.iam.put_role_policy(RoleName=name, PolicyName="build", PolicyDocument=allow("codebuild:StartBuild"))
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    template = '{"environmentVariablesOverride": [{"name": "FAILED", "type": "PLAINTEXT", "value": <project>}]}'
    target = {"Id": "b", "Arn": listening.arn("codebuild", f"project/{second}"), "RoleArn": role}
    target["InputTransformer"] = {"InputPathsMap": {"project": "$.detail.project-name"}, "InputTemplate": template}
    assert events.put_targets(Rule=name, Targets=[target])["FailedEntryCount"] == 0
    builds.run(first)
    ids = eventually(lambda: builds.codebuild.list_builds_for_project(projectName=second)["ids"], "the second build")
    found = builds.over(ids[0])
    assert f"\nafter {first}\n" in builds.logged(found, "Phase complete: BUILD") and found["initiator"].startswith(name)
    events.remove_targets(Rule=name, Ids=["b"])
    events.delete_rule(Name=name)


# As AWS's documentation has it, to the letter.
# https://docs.aws.amazon.com/codebuild/latest/userguide/sample-docker.html
SAMPLE = """version: 0.2

phases:
  pre_build:
    commands:
      - echo Logging in to Amazon ECR...
      - aws ecr get-login-password --region $AWS_DEFAULT_REGION | docker login --username AWS --password-stdin $AWS_ACCOUNT_ID.dkr.ecr.$AWS_DEFAULT_REGION.amazonaws.com
  build:
    commands:
      - echo Build started on `date`
      - echo Building the Docker image...
      - docker build -t $IMAGE_REPO_NAME:$IMAGE_TAG .
      - docker tag $IMAGE_REPO_NAME:$IMAGE_TAG $AWS_ACCOUNT_ID.dkr.ecr.$AWS_DEFAULT_REGION.amazonaws.com/$IMAGE_REPO_NAME:$IMAGE_TAG
  post_build:
    commands:
      - echo Build completed on `date`
      - echo Pushing the Docker image...
      - docker push $AWS_ACCOUNT_ID.dkr.ecr.$AWS_DEFAULT_REGION.amazonaws.com/$IMAGE_REPO_NAME:$IMAGE_TAG
"""


@pytest.fixture(scope="session")
def images(builds):
    """What an image is made of: a base in ECR, a repository to push to, a source with a Dockerfile."""
    name = f"made-{os.urandom(4).hex()}"
    builds.ecr.create_repository(repositoryName=name)
    packed = io.BytesIO()
    account = builds.plane.client("sts").get_caller_identity()["Account"]
    registry = f"{account}.dkr.ecr.us-east-1.amazonaws.com"
    base = f"{registry}/{builds.image.rsplit('/', 1)[1]}"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("Dockerfile", f"FROM {base}\nRUN echo made > /made; cat /proc/self/uid_map\nCOPY word /word\nCMD cat /word\n")
        archive.writestr("buildspec.yml", SAMPLE)
        archive.writestr("word", "hello from the build")
    builds.s3.put_object(Bucket=builds.bucket, Key="images.zip", Body=packed.getvalue())
    variables = {"AWS_ACCOUNT_ID": account, "IMAGE_REPO_NAME": name, "IMAGE_TAG": "latest"}
    return {
        "source": {"type": "S3", "location": f"{builds.bucket}/images.zip"},
        "variables": [{"name": key, "value": value} for key, value in variables.items()],
        "image": STANDARD,
    }, name


def test_awss_sample_builds_an_image(builds, stack, images):
    """docker login, build, tag and push in the default image, which is made of Debian packages at first use."""
    made, name = images
    found = builds.good(builds.project(privileged=True, **made), seconds=400)
    text = builds.logged(found, "Phase complete: POST_BUILD State: SUCCEEDED")
    assert "Login Succeeded" in text
    detail = builds.ecr.describe_images(repositoryName=name)["imageDetails"][0]
    assert detail["imageTags"] == ["latest"]
    uri = builds.ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
    task = stack.finish(stack.container(image=f"{uri}:latest", command="cat /word /made"))
    assert stack.lines(task["taskArn"]) == ["hello from the buildmade"]


def test_a_build_logs_in_to_other_repositories(builds, images):
    """git-credential-helper: CodeCommit by AWS's name for it and by ours, to fetch and to push."""
    codecommit, name = builds.plane.client("codecommit"), f"other-{os.urandom(4).hex()}"
    url = codecommit.create_repository(repositoryName=name)["repositoryMetadata"]["cloneUrlHttp"]
    codecommit.create_commit(repositoryName=name, branchName="main", putFiles=[{"filePath": "word", "fileContent": b"hello from there"}])
    aws = f"https://git-codecommit.us-east-1.amazonaws.com/v1/repos/{name}"
    commands = [
        f"git clone -q {aws} theirs", "cat theirs/word", f"git clone -q {url} ours", "cd ours", "echo built > built",
        "git add -A; git -c user.name=b -c user.email=b@example.com commit -q -m built; git push -q",
    ]
    # Without it, git has no name to give.
    found = builds.run(builds.project(spec(f"git clone -q {url}"), image=STANDARD), seconds=400)
    assert "git clone" in str(builds.why(found)["BUILD"]) and "could not read Username" in builds.logged(found, "could not")
    found = builds.good(builds.project(spec(*commands, env={"git-credential-helper": "yes"}), image=STANDARD), seconds=400)
    text = builds.logged(found, "Phase complete: POST_BUILD State: SUCCEEDED")
    assert "hello from there" in text and "heed" not in text and "Unknown options" not in text
    assert codecommit.get_file(repositoryName=name, filePath="built")["fileContent"] == b"built\n"
    codecommit.delete_repository(repositoryName=name)


def test_layers_are_kept_where_the_project_says(builds, images):
    made, name = images
    uri = builds.ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
    # By the name that repositories have here, with buildx, and twice: the second time it is all there.
    login = "aws ecr get-login-password | docker login --username AWS --password-stdin"
    buildspec = spec(
        f"{login} {uri.split('/')[0]}; {login} $AWS_ACCOUNT_ID.dkr.ecr.$AWS_REGION.amazonaws.com",
        f"docker buildx build --push --progress plain -t {uri}:kept -t {uri}:other .",
        "docker images",
    )
    cache = {"type": "LOCAL", "modes": ["LOCAL_DOCKER_LAYER_CACHE"]}
    project = builds.project(buildspec, privileged=True, cache=cache, **made)
    first = builds.logged(builds.good(project, 400), "State: SUCCEEDED\n")
    assert "Using cache" not in first
    second = builds.logged(builds.good(project, 100), "Phase complete: BUILD State: SUCCEEDED")
    assert second.count("Using cache") == 3, second
    tags = {tag for image in builds.ecr.describe_images(repositoryName=name)["imageDetails"] for tag in image["imageTags"]}
    assert {"kept", "other"} <= tags
    found = builds.run(builds.project(buildspec, **made), 100)
    assert found["buildStatus"] == "FAILED" and "Cannot connect to the Docker daemon" in builds.text(found)


def test_a_pipeline_builds_what_was_pushed(builds):
    """Source, build with two outputs, and what the build says of itself in a later action's configuration."""
    pipelines = Pipelines(builds.plane)
    repository = pipelines.repository()
    buildspec = """version: 0.2
env: {exported-variables: [NAME]}
phases:
  build:
    commands:
      - NAME=stack-$(cat name.txt)
      - "[ $NAME != stack-broken ] || exit 9"
      - echo '{"Resources":{"P":{"Type":"AWS::SSM::Parameter","Properties":{"Type":"String","Value":"'$CODEBUILD_RESOLVED_SOURCE_VERSION'"}}}}' > template.json
      - echo $CODEBUILD_INITIATOR > who.txt
artifacts:
  secondary-artifacts:
    Templates: {files: template.json}
    Rest: {files: who.txt}
"""
    word = os.urandom(4).hex()
    commit = pipelines.commit(repository, name__txt=word, buildspec__yml=buildspec)
    project = builds.project(source={"type": "CODEPIPELINE"}, artifacts={"type": "CODEPIPELINE"})
    build_action = {
        "name": "Build",
        "actionTypeId": {"category": "Build", "owner": "AWS", "provider": "CodeBuild", "version": "1"},
        "configuration": {"ProjectName": project, "EnvironmentVariables": json.dumps([{"name": "X", "value": "#{source.CommitId}"}])},
        "inputArtifacts": [{"name": "SourceOutput"}],
        "outputArtifacts": [{"name": "Templates"}, {"name": "Rest"}],
        "namespace": "built",
    }
    template = {"ActionMode": "CREATE_UPDATE", "StackName": "#{built.NAME}", "TemplatePath": "Templates::template.json", "RoleArn": pipelines.role}
    stacks = deploy("CloudFormation", inputs=("Templates",), **template)
    pipelines.iam.update_assume_role_policy(
        RoleName=pipelines.role_name,
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": ["codepipeline.amazonaws.com", "cloudformation.amazonaws.com"]},
        }]}),
    )
    name = pipelines.create(("Source", [source(repository)]), ("Build", [build_action]), ("Deploy", [stacks]))

    def over(count):
        def look():
            executions = pipelines.executions(name)
            return executions if len(executions) == count and executions[-1]["status"] not in ("InProgress", "Stopping") else None

        return eventually(look, "the execution's end", 90)[-1]

    state = over(1)
    assert state["status"] == "Succeeded", pipelines.codepipeline.get_pipeline_state(name=name)
    found = builds.plane.client("cloudformation").describe_stack_resource(StackName=f"stack-{word}", LogicalResourceId="P")
    parameter = found["StackResourceDetail"]["PhysicalResourceId"]
    assert builds.ssm.get_parameter(Name=parameter)["Parameter"]["Value"] == commit
    ids = builds.codebuild.list_builds_for_project(projectName=project)["ids"]
    assert builds.get(ids[0])["initiator"] == f"codepipeline/{name}" and len(ids) == 1
    pipelines.commit(repository, name__txt="broken")
    pipelines.codepipeline.start_pipeline_execution(name=name)
    assert over(2)["status"] == "Failed"
    actions = pipelines.codepipeline.get_pipeline_state(name=name)["stageStates"][1]["actionStates"]
    message = actions[0]["latestExecution"]["errorDetails"]["message"]
    assert "Phase: BUILD, Code: COMMAND_EXECUTION_ERROR" in message and "exit status 9" in message
    builds.plane.client("cloudformation").delete_stack(StackName=f"stack-{word}")
    pipelines.codepipeline.delete_pipeline(name=name)


def test_a_project_in_a_stack(builds):
    properties = {
        "ServiceRole": builds.role,
        "Source": {"Type": "NO_SOURCE", "BuildSpec": spec("echo $A")},
        "Artifacts": {"Type": "NO_ARTIFACTS"},
        "Environment": {
            "Type": "LINUX_CONTAINER", "Image": builds.image, "ComputeType": "BUILD_GENERAL1_SMALL",
            "EnvironmentVariables": [{"Name": "A", "Value": "of the stack"}],
        },
        "Cache": {"Type": "LOCAL", "Modes": ["LOCAL_DOCKER_LAYER_CACHE"]},
        "Tags": [{"Key": "k", "Value": "v"}],
        "TimeoutInMinutes": 10,
    }
    template = {"Resources": {"Project": {"Type": "AWS::CodeBuild::Project", "Properties": properties}},
                "Outputs": {"Name": {"Value": {"Ref": "Project"}}, "Arn": {"Value": {"Fn::GetAtt": ["Project", "Arn"]}}}}
    name = f"build-{os.urandom(4).hex()}"
    cloudformation = builds.plane.client("cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    outputs = {o["OutputKey"]: o["OutputValue"] for o in cloudformation.describe_stacks(StackName=name)["Stacks"][0]["Outputs"]}
    assert outputs["Arn"].endswith(f":project/{outputs['Name']}")
    assert "of the stack\n" in builds.logged(builds.good(outputs["Name"]), "Phase complete: BUILD")
    del properties["TimeoutInMinutes"], properties["Cache"]
    properties["Environment"]["EnvironmentVariables"][0]["Value"] = "changed"
    cloudformation.update_stack(StackName=name, TemplateBody=json.dumps(template))
    cloudformation.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    found = builds.codebuild.batch_get_projects(names=[outputs["Name"]])["projects"][0]
    assert (found["timeoutInMinutes"], found["cache"]["type"]) == (60, "NO_CACHE")
    assert found["environment"]["environmentVariables"][0]["value"] == "changed"
    cloudformation.delete_stack(StackName=name)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    assert not builds.codebuild.batch_get_projects(names=[outputs["Name"]])["projects"]


@pytest.fixture
def fragile(tmp_path):
    plane = Neargate(tmp_path / "data", PORT + 21)
    plane.start()
    yield plane
    plane.cli("down")


def test_builds_survive_crashes(fragile, tmp_path):
    """`kill -9` at random moments: every build ends once, with everything that it did in its log once."""
    plane = fragile
    (tmp_path / "image").mkdir()
    builds = Builds(plane, upload(plane, build(tmp_path / "image", "crash"), "crash"))
    artifacts = {"type": "S3", "location": builds.bucket, "packaging": "ZIP", "namespaceType": "BUILD_ID", "name": "x.zip"}
    commands = [f"echo step {n}; sleep 0.3" for n in range(8)]
    project = builds.project(spec(*commands, "echo kept > kept", artifacts={"files": "kept"}), artifacts=artifacts)
    rng = random.Random(12)
    ids = []
    for round in range(10):
        ids.append(builds.start(project))
        time.sleep(rng.uniform(0.05, 1.5))
        plane.kill()
        plane.start()
    for id in ids:
        found = builds.over(id, 120)
        assert found["buildStatus"] == "SUCCEEDED", (builds.why(found), builds.text(found))
        text = builds.logged(found, "UPLOAD_ARTIFACTS State: SUCCEEDED")
        for n in range(8):
            assert text.count(f"\nstep {n}\n") == 1, text
        assert builds.files(f"{id.split(':')[1]}/x.zip") == {"kept": "kept\n"}
    numbers = [builds.get(id)["buildNumber"] for id in ids]
    assert numbers == list(range(1, len(ids) + 1))
    eventually(lambda: not list((tmp_path / "data" / "codebuild" / "builds").iterdir()), "nothing left of them")
    # Minutes are shorter now: five of a build's are six seconds.
    plane.kill()
    plane.start(NEARGATE_TIME_SCALE="0.02")
    endless = builds.project(spec("echo begun", "sleep 600"), timeoutInMinutes=5)
    found = builds.run(endless)
    assert found["buildStatus"] == "TIMED_OUT"
    assert builds.why(found) == {"BUILD": ("TIMED_OUT", ("BUILD_TIMED_OUT", "Build has timed out."))}
