"""The patterns of `neargate new`: each is deployed, changed, broken, rolled back and deleted, and leaves nothing."""

import json
import os
import shutil

import pytest

from conftest import eventually
from test_cloudformation import PAGE, PATTERNS, Stacks, fetch
from test_codecommit import Git
from test_service_balanced import LISTENER, Load

APPSPEC = """
version: 0.0
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: <TASK_DEFINITION>
        LoadBalancerInfo: {ContainerName: web, ContainerPort: 8080}
"""

# Beside the account's own; what is deleted with a stack and told of as INACTIVE is not among them.
KINDS = {
    "ec2": [
        ("describe_security_groups", "SecurityGroups", "GroupId"),
        ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    ],
    "ecs": [("list_clusters", "clusterArns", None), ("list_task_definitions", "taskDefinitionArns", None)],
    "elbv2": [
        ("describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
        ("describe_target_groups", "TargetGroups", "TargetGroupArn"),
    ],
    "iam": [("list_roles", "Roles", "RoleName")],
    "logs": [("describe_log_groups", "logGroups", "logGroupName")],
    "servicediscovery": [("list_namespaces", "Namespaces", "Id")],
}


@pytest.fixture
def pattern(stack, tmp_path):
    return Pattern(stack, tmp_path)


class Pattern:
    """A stack of a pattern's."""

    def __init__(self, stack, directory):
        self.stack, self.neargate, self.directory = stack, stack.neargate, directory
        self.stacks = Stacks(stack.neargate)
        # The session's own tasks may be ending, and their interfaces with them.
        self.stack.ecs.list_tasks(cluster="tests")
        self.before = self.everything()

    def everything(self):
        found = {}
        for service, calls in KINDS.items():
            client = self.neargate.client(service)
            for call, list_, key in calls:
                all_ = client.get_paginator(call).paginate() if client.can_paginate(call) else [getattr(client, call)()]
                found[call] = {one[key] if key else one for page in all_ for one in page[list_]}
        return found

    def given(self, pattern, **parameters):
        """A template of `neargate new`, and its parameters."""
        path = self.directory / f"{pattern}.yaml"
        if not path.exists():
            self.neargate.cli("new", pattern, str(self.directory))
            self.name = self.stacks.name(pattern)
        parameters = [{"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()]
        return dict(name=self.name, template=path.read_text(), Parameters=parameters, Capabilities=["CAPABILITY_IAM"])

    def says(self, words):
        # A shell that leaves when it is told to; the first process of a container would not by itself.
        return ",".join(["/bin/busybox", "sh", "-c", f"trap exit TERM; ({PAGE.format(words)}) & wait"])

    def live(self, pattern, look, **parameters):
        subnets = ",".join([subnet["SubnetId"] for subnet in self.stack.ec2.describe_subnets()["Subnets"]][:2])
        common = {"Image": self.stack.image, "Vpc": self.stack.vpc, "Subnets": subnets, **parameters}
        self.stacks.create(**self.given(pattern, Command=self.says("one"), **common))
        assert look() == "one"
        self.stacks.update(**self.given(pattern, Command=self.says("two"), **common))
        assert look() == "two"
        # A version that cannot start: the circuit breaker ends it, the stack goes back, and the old one still serves.
        with pytest.raises(AssertionError):
            self.stacks.update(**self.given(pattern, Command="/bin/no-such-command", **common))
        assert self.stacks.describe(self.name)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE", self.stacks.told(self.name)
        failed = [event for event in self.stacks.told(self.name) if event[1] == "UPDATE_FAILED"]
        assert [event[0] for event in failed] == ["Service"] and "ECS Deployment Circuit Breaker was triggered" in failed[0][2]
        assert look() == "two"
        self.stacks.delete(self.name)
        self.nothing_is_left()

    def nothing_is_left(self):
        after = self.everything()
        # The tests' own clients.
        after["list_task_definitions"] = {arn for arn in after["list_task_definitions"] if "task-definition/family-" not in arn}
        assert {kind: names - self.before[kind] for kind, names in after.items() if names - self.before[kind]} == {}


def test_a_web_service(pattern):
    pattern.live("web-service", lambda: fetch(pattern.stacks.outputs(pattern.name)["Url"]), ListenerPort=LISTENER)


def test_a_blue_green_service(pattern):
    def look():
        page = fetch(pattern.stacks.outputs(pattern.name)["Url"])
        assert fetch(pattern.stacks.outputs(pattern.name)["TestUrl"]) == page
        return page

    pattern.live("blue-green-service", look, ListenerPort=LISTENER, TestPort=LISTENER + 1, BakeTimeInMinutes=0)


def test_a_tcp_service(pattern):
    def look():
        host, port = pattern.stacks.outputs(pattern.name)["Address"].split(":")
        return fetch(f"http://{host}:{port}/")

    pattern.live("tcp-service", look, ListenerPort=LISTENER)


def test_an_internal_service(pattern):
    stack = pattern.stack

    def look():
        outputs = pattern.stacks.outputs(pattern.name)
        command = f"timeout 3 wget -q -O - {outputs['Url']} || echo nothing"
        client = stack.run(stack.container(command=command), groups=[outputs["ClientGroup"]])
        stack.status(client, "STOPPED")
        stranger = stack.run(stack.container(command=command))
        stack.status(stranger, "STOPPED")
        assert [line for line in stack.lines(stranger) if line != "Terminated"] == ["nothing"]
        [page] = [line for line in stack.lines(client) if line != "Terminated"]
        return page

    pattern.live("internal-service", look, Namespace="patterns", PublicAddresses="ENABLED")


class Shipping:
    """The stack of pushed-service, a working tree of its repository, and what is pushed."""

    def __init__(self, pattern, directory, repository, **parameters):
        self.pattern, stack, plane = pattern, pattern.stack, pattern.neargate
        self.codepipeline = plane.client("codepipeline")
        bucket = f"{repository}-{os.urandom(4).hex()}"
        plane.client("s3").create_bucket(Bucket=bucket)
        subnets = ",".join([subnet["SubnetId"] for subnet in stack.ec2.describe_subnets()["Subnets"]][:2])
        ports = dict(ListenerPort=LISTENER, TestPort=LISTENER + 1, RepositoryName=repository, ArtifactBucket=bucket, TerminationWait=0)
        common = {"Image": stack.image, "Vpc": stack.vpc, "Subnets": subnets, "Command": pattern.says("one"), **ports}
        pattern.stacks.create(**pattern.given("pushed-service", **common, **parameters))
        self.outputs = pattern.stacks.outputs(pattern.name)
        described = stack.ecs.describe_task_definition(taskDefinition=self.outputs["Definition"])["taskDefinition"]
        keep = ["family", "cpu", "memory", "executionRoleArn", "networkMode", "requiresCompatibilities", "containerDefinitions"]
        self.taskdef = {key: described[key] for key in keep}
        self.git = Git(plane, directory / "git")
        self.tree = self.git.work(self.outputs["CloneUrl"])
        self.write(appspec__yaml=APPSPEC)

    def load(self):
        host, port = self.outputs["Url"].removeprefix("http://").rstrip("/").split(":")
        return Load(host, int(port))

    def write(self, **files):
        for path, text in files.items():
            (self.tree / path.replace("__", ".")).write_text(text)

    def executions(self):
        found = self.codepipeline.list_pipeline_executions(pipelineName=self.outputs["Pipeline"])
        return found["pipelineExecutionSummaries"][::-1]

    def push(self, **files):
        """Pushes, and waits for the end of the execution that this begins."""
        before = len(self.executions())
        self.write(**files)
        self.git("add", "-A", cwd=self.tree)
        self.git("commit", "-q", "-m", "a change", cwd=self.tree)
        self.git("push", "-q", "origin", "main", cwd=self.tree)

        def over():
            found = self.executions()[before:]
            return found[0] if found and found[0]["status"] not in ["InProgress", "Stopping"] else None

        return eventually(over, "the push is shipped", 300)

    def end(self):
        self.pattern.stacks.delete(self.pattern.name)
        # What a pipeline has registered stays, as on AWS.
        ecs = self.pattern.stack.ecs
        for arn in ecs.list_task_definitions(familyPrefix=self.taskdef["family"])["taskDefinitionArns"]:
            ecs.deregister_task_definition(taskDefinition=arn)
        self.pattern.nothing_is_left()


def test_a_service_with_shared_files(pattern):
    stack, efs = pattern.stack, pattern.neargate.client("efs")
    before = {each["FileSystemId"] for each in efs.describe_file_systems()["FileSystems"]}
    subnets = ",".join([subnet["SubnetId"] for subnet in stack.ec2.describe_subnets()["Subnets"]][:2])
    common = {"Image": stack.image, "Vpc": stack.vpc, "Subnets": subnets, "PublicAddresses": "ENABLED"}

    def given(words, count):
        # Each task writes its name down, and goes on.
        script = f"echo {words} $(hostname) >> /files/told; trap exit TERM; sleep 600 & wait"
        return pattern.given("shared-files", Command=",".join(["/bin/busybox", "sh", "-c", script]), DesiredCount=count, **common)

    def told(words):
        lines = file.read_text().splitlines() if file.exists() else []
        return {line for line in lines if line.startswith(words + " ")}

    pattern.stacks.create(**given("one", 2))
    system = pattern.stacks.outputs(pattern.name)["Files"]
    file = pattern.neargate.data_dir / "efs" / system / "service" / "told"
    eventually(lambda: len(told("one")) == 2, "both tasks wrote into one file", 60)
    assert file.stat().st_uid == 1000
    pattern.stacks.update(**given("two", 1))
    eventually(lambda: told("two") and len(told("one")) == 2, "what the tasks before wrote is still there", 60)
    # Nobody else gets in: not without the role, and not from elsewhere.
    volume = {"fileSystemId": system, "transitEncryption": "ENABLED"}
    mount = {"mountPoints": [{"sourceVolume": "files", "containerPath": "/files"}]}
    stranger = stack.finish(stack.container("main", "true", **mount), volumes=[{"name": "files", "efsVolumeConfiguration": volume}])
    assert "mount.nfs4" in stranger["stoppedReason"]
    pattern.stacks.delete(pattern.name)
    pattern.nothing_is_left()
    assert {each["FileSystemId"] for each in efs.describe_file_systems()["FileSystems"]} == before


def test_a_pushed_service(pattern, tmp_path):
    """A push of taskdef.json and appspec.yaml replaces what runs, under load; a version that does not start does not."""
    shipping = Shipping(pattern, tmp_path, "pushed")
    outputs, taskdef = shipping.outputs, shipping.taskdef
    assert fetch(outputs["Url"]) == "one" == fetch(outputs["TestUrl"])
    with shipping.load() as load:
        taskdef["containerDefinitions"][0]["command"] = pattern.says("two").split(",")
        shipped = shipping.push(taskdef__json=json.dumps(taskdef))
        assert shipped["status"] == "Succeeded", shipped
        assert fetch(outputs["Url"]) == "two"
        failed = shipping.push(taskdef__json="{")
        assert failed["status"] == "Failed" and "taskdef.json" in failed["statusSummary"], failed
    assert load.failures == [] and load.bodies == {"one", "two"}, load.failures[:3]
    shipping.end()


BUILDSPEC = """version: 0.2
phases:
  pre_build:
    commands:
      - aws ecr get-login-password --region $AWS_DEFAULT_REGION | docker login --username AWS --password-stdin ${REPOSITORY_URI%%/*}
      - IMAGE=$REPOSITORY_URI:$(echo $CODEBUILD_RESOLVED_SOURCE_VERSION | cut -c 1-7)
  build:
    commands:
      - docker build -t $IMAGE .
      - docker push $IMAGE
  post_build:
    commands:
      - printf '{"ImageURI":"%s"}' $IMAGE > imageDetail.json
artifacts:
  files: [imageDetail.json, appspec.yaml, taskdef.json]
"""


def test_a_push_becomes_an_image_and_is_serving(pattern, tmp_path):
    """git push, and the image that is built of it is serving, under load: source, build, blue/green, all of it."""
    shipping = Shipping(pattern, tmp_path, "built", Build="yes")
    [container] = shipping.taskdef["containerDefinitions"]
    del container["command"]
    container["image"] = "<IMAGE1_NAME>"
    dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nRUN mkdir /www\nCOPY page /www/index.html\n"
    # A shell that leaves when it is told to.
    dockerfile += 'CMD ["/bin/busybox", "sh", "-c", "trap exit TERM; busybox httpd -f -p 8080 -h /www & wait"]\n'
    shutil.copy(shutil.which("busybox"), shipping.tree / "busybox")
    shipping.write(Dockerfile=dockerfile, buildspec__yml=BUILDSPEC, taskdef__json=json.dumps(shipping.taskdef))
    with shipping.load() as load:
        for page in ["two", "three"]:
            shipped = shipping.push(page=page)
            assert shipped["status"] == "Succeeded", shipped
            assert fetch(shipping.outputs["Url"]) == page
    assert load.failures == [] and load.bodies == {"one", "two", "three"}, load.failures[:3]
    shipping.end()


def test_patterns_are_listed_and_nothing_is_overwritten(neargate, tmp_path):
    listed = neargate.cli("new").stdout
    for path in PATTERNS.glob("*.yaml"):
        assert f"\n{path.stem} " in f"\n{listed}"
    assert {one["name"] for one in json.loads(neargate.cli("--output", "json", "new").stdout)} == {p.stem for p in PATTERNS.glob("*.yaml")}
    neargate.cli("new", "network", str(tmp_path / "mine"))
    copied = tmp_path / "mine" / "network.yaml"
    assert copied.read_text() == (PATTERNS / "network.yaml").read_text()
    copied.write_text("mine")
    again = neargate.cli("new", "network", str(tmp_path / "mine"), check=False)
    assert again.returncode == 1 and "File exists" in again.stderr and copied.read_text() == "mine"
    assert "there is no pattern" in neargate.cli("new", "nope", check=False).stderr
