"""Sources of git hosts elsewhere: a pipeline follows a repository that nothing here tells of."""

import asyncio
import json
import os
import shlex
import subprocess
import threading
import time
import urllib.request

import asyncssh
import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, eventually
from test_cloudformation import Stacks
from test_codebuild import Builds
from test_codecommit import Git, refused
from test_pipelines import Pipelines, allow, approval, deploy, source

HOOK = f"http://127.0.0.1:{PORT}/webhooks/connections"


def elsewhere(connection, repository, **more):
    configuration = {"ConnectionArn": connection, "FullRepositoryId": repository, "BranchName": "main", **more}
    return {
        "name": "Source",
        "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "CodeStarSourceConnection", "version": "1"},
        "configuration": configuration,
        "outputArtifacts": [{"name": "SourceOutput"}],
        "namespace": "source",
    }


def pushed():
    """What a host's webhook asks for."""
    with urllib.request.urlopen(urllib.request.Request(HOOK, method="POST", data=b"{}"), timeout=10) as answer:
        assert answer.status == 202


class Elsewhere:
    """A git host that asks for a name and a password: this machine's own repositories, by HTTP like anybody's."""

    def __init__(self, plane):
        self.pipelines = Pipelines(plane)
        self.connections, self.secrets = plane.client("codeconnections"), plane.client("secretsmanager")
        self.repository = self.pipelines.repository()
        url = self.pipelines.codecommit.get_repository(repositoryName=self.repository)["repositoryMetadata"]["cloneUrlHttp"]
        self.endpoint = url.rsplit("/", 1)[0]
        user, iam = f"git-{self.repository}", self.pipelines.iam
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="pull", PolicyDocument=allow("codecommit:GitPull"))
        login = iam.create_service_specific_credential(UserName=user, ServiceName="codecommit.amazonaws.com")["ServiceSpecificCredential"]
        pair = {"username": login["ServiceUserName"], "password": login["ServicePassword"]}
        self.secret = self.secrets.create_secret(Name=user, SecretString=json.dumps(pair))["ARN"]
        self.host = self.connections.create_host(Name="git", ProviderType="GitLabSelfManaged", ProviderEndpoint=self.endpoint)["HostArn"]

    def connect(self, secret=True):
        tags = [{"Key": "neargate:credentials", "Value": self.secret}] if secret else []
        return self.connections.create_connection(ConnectionName="git", HostArn=self.host, Tags=tags)["ConnectionArn"]

    def commit(self, message, **files):
        return self.pipelines.commit(self.repository, message, **files)


@pytest.fixture(scope="module")
def host(neargate):
    return Elsewhere(neargate)


def test_connections_and_hosts(host):
    api = host.connections
    arn = host.connect()
    found = api.get_connection(ConnectionArn=arn)["Connection"]
    assert (found["ProviderType"], found["ConnectionStatus"], found["HostArn"]) == ("GitLabSelfManaged", "AVAILABLE", host.host)
    assert arn in [one["ConnectionArn"] for one in api.list_connections(HostArnFilter=host.host)["Connections"]]
    assert arn not in [one["ConnectionArn"] for one in api.list_connections(ProviderTypeFilter="GitHub")["Connections"]]
    api.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
    api.untag_resource(ResourceArn=arn, TagKeys=["neargate:credentials"])
    assert api.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]
    public = api.create_connection(ConnectionName="public", ProviderType="GitHub")["ConnectionArn"]
    assert "HostArn" not in api.get_connection(ConnectionArn=public)["Connection"]
    for bad, code in (
        ({"ProviderType": "GitLabSelfManaged"}, "ValidationException"),
        ({"ProviderType": "GitHub", "HostArn": host.host}, "ValidationException"),
        ({"HostArn": host.host + "0"}, "ResourceNotFoundException"),
    ):
        with refused(code):
            api.create_connection(ConnectionName="bad", **bad)
    for bad, says in [
        *((bad, "URL of a host") for bad in ("ftp://host", "http://name:word@host/", "http://host/?a", "/srv/git", "ssh://host", "ssh://a:b@host", "ssh://-o@h", "ssh://u@-oProxyCommand=x")),
        ("file:///srv/git", "--git-directory"),
    ]:
        with refused("ValidationException", says):
            api.create_host(Name="bad", ProviderType="GitLabSelfManaged", ProviderEndpoint=bad)
    other = api.create_host(Name="other", ProviderType="GitHubEnterpriseServer", ProviderEndpoint="https://git.example.com")["HostArn"]
    api.update_host(HostArn=other, ProviderEndpoint="https://git.example.org/x")
    assert api.get_host(HostArn=other)["ProviderEndpoint"] == "https://git.example.org/x"
    assert {host.host, other} <= {one["HostArn"] for one in api.list_hosts()["Hosts"]}
    with refused("ResourceUnavailableException"):
        api.delete_host(HostArn=host.host)
    api.delete_host(HostArn=other)
    for one in (arn, public):
        api.delete_connection(ConnectionArn=one)
        with refused("ResourceNotFoundException"):
            api.get_connection(ConnectionArn=one)


def test_a_pipeline_follows_a_repository_elsewhere(host):
    pipelines = host.pipelines
    first = host.commit("the first\n\nwith a body", word="one")
    arn = host.connect()
    name = pipelines.create(("Source", [elsewhere(arn, host.repository)]), ("Approval", [approval()]))
    begun = pipelines.executions(name)[0]["pipelineExecutionId"]
    token = pipelines.approval(name, begun)
    assert token
    outputs = pipelines.action(name, "Source", begun)["output"]["outputVariables"]
    assert (outputs["CommitId"], outputs["BranchName"], outputs["FullRepositoryName"]) == (first, "main", host.repository)
    assert outputs["CommitMessage"] == "the first\n\nwith a body" and outputs["ConnectionArn"] == arn
    # What was there is not new, whether it was looked at by now or not.
    second = host.commit("the second", word="two")

    def news():
        pushed()
        executions = pipelines.executions(name)
        return executions[-1] if len(executions) > 1 else None

    found = eventually(news, "an execution for what was pushed", 60)
    assert found["trigger"] == {"triggerType": "WebhookV2", "triggerDetail": arn}
    eventually(lambda: (pipelines.action(name, "Source", found["pipelineExecutionId"]) or {}).get("status") == "Succeeded", "the source")
    assert pipelines.action(name, "Source", found["pipelineExecutionId"])["output"]["outputVariables"]["CommitId"] == second
    assert len(pipelines.executions(name)) == 2, "one for each push"
    # A version that is asked for.
    again = pipelines.start(name, sourceRevisions=[{"actionName": "Source", "revisionType": "COMMIT_ID", "revisionValue": first}])
    eventually(lambda: (pipelines.action(name, "Source", again) or {}).get("status") == "Succeeded", "the source")
    assert pipelines.action(name, "Source", again)["output"]["outputVariables"]["CommitId"] == first
    pipelines.codepipeline.delete_pipeline(name=name)


def test_triggers_choose_what_begins(host, neargate, tmp_path):
    pipelines, repository = host.pipelines, host.pipelines.repository()
    git = Git(neargate, tmp_path)
    url = f"{host.endpoint}/{repository}"
    tree = git.work(url)

    def push(branch, message, **files):
        """One commit more on a branch, which begins at main."""
        if git.try_("checkout", "-q", branch, cwd=tree).returncode:
            git("checkout", "-q", "-b", branch, *(["main"] if branch != "main" else []), cwd=tree)
        for path, content in files.items():
            git.commit(tree, path.replace("__", "/"), content, message)
        git("push", "-q", "--force", "origin", branch, cwd=tree)
        return git("rev-parse", "HEAD", cwd=tree)

    push("main", "the first", word="one")
    arn = host.connect()

    def create(*push):
        trigger = {"providerType": "CodeStarSourceConnection", "gitConfiguration": {"sourceActionName": "Source", "push": list(push)}}
        return pipelines.create(("Source", [elsewhere(arn, repository)]), ("Approval", [approval()]), pipelineType="V2", executionMode="PARALLEL", triggers=[trigger])

    branches = {"branches": {"includes": ["main", "release/**"], "excludes": ["release/old"]}}
    name = create(branches, {"tags": {"includes": ["v*"]}})
    docs = create({"filePaths": {"includes": ["docs/**"], "excludes": ["**.tmp"]}})

    def begun(name, count):
        """The commits and branches of all executions that triggers began, but for those that were to be the first."""

        def look():
            pushed()
            found = [one for one in pipelines.executions(name) if one["trigger"]["triggerType"] == "WebhookV2"]
            outputs = [(pipelines.action(name, "Source", one["pipelineExecutionId"]) or {}).get("output", {}).get("outputVariables") for one in found]
            if not all(outputs):
                return None
            found = [(one["CommitId"], one["BranchName"]) for one in outputs]
            assert all(known[branch] == commit for commit, branch in found if branch in known)
            found = [one for one in found if one[1] not in known]
            return found if len(found) >= count else None

        return eventually(look, f"{count} executions", 60)

    # Until it was looked at for the first time, what is pushed is what was there.
    known = {}
    for number in range(60):
        known[f"release/{number}"] = push(f"release/{number}", "is anybody there?", docs__there=str(number))
        pushed()
        if all(any(one["trigger"]["triggerType"] == "WebhookV2" for one in pipelines.executions(one)) for one in [name, docs]):
            break
        time.sleep(0.5)

    push("release/old", "excluded", word="two")
    push("feature", "not included", **{"docs__x.tmp": "x"})
    feature = push("feature", "now it is about docs", docs__b="y")
    git("tag", "-a", "-m", "a tag", "v1", cwd=tree)
    git("tag", "other", cwd=tree)
    git("push", "-q", "origin", "v1", "other", cwd=tree)
    main = push("main", "and main", word="four")
    # The tag's commit; its branch is the source's own.
    assert sorted(begun(name, 2)) == sorted([(feature, "main"), (main, "main")])
    # A forced push has the files of its own commits, and a branch of known commits has none that are new.
    git("checkout", "-q", "-B", "main", f"{main}~1", cwd=tree)
    forced = push("main", "instead", docs__c="z")
    begun(docs, 2)
    git("push", "-q", "origin", "main:refs/heads/copy", cwd=tree)
    last = push("last", "and the last", docs__d="d")
    assert begun(docs, 3) == [(feature, "feature"), (forced, "main"), (last, "last")]
    kept = pipelines.codepipeline.get_pipeline(name=docs)["pipeline"]["triggers"]
    assert kept[0]["gitConfiguration"]["push"] == [{"filePaths": {"includes": ["docs/**"], "excludes": ["**.tmp"]}}]
    for bad, says in [
        ({"push": [{"tags": {"includes": ["v*"]}, "branches": {"includes": ["a"]}}]}, "no branches"),
        ({"push": [{}]}, "by tags, branches or file paths"),
        ({"push": [{"branches": {}}]}, "includes or excludes"),
        ({"sourceActionName": "Other"}, "no source of the provider"),
    ]:
        declared = pipelines.codepipeline.get_pipeline(name=name)["pipeline"]
        declared["triggers"][0]["gitConfiguration"] |= bad
        with refused("InvalidStructureException", says):
            pipelines.codepipeline.update_pipeline(pipeline=declared)
    declared["triggers"][0]["gitConfiguration"] = {"sourceActionName": "Source", "push": [{"branches": {"includes": ["["]}}]}
    with refused("ValidationException", "pattern"):
        pipelines.codepipeline.update_pipeline(pipeline=declared)
    for one in [name, docs]:
        pipelines.codepipeline.delete_pipeline(name=one)


def test_what_cannot_be_fetched_says_why(host):
    pipelines = host.pipelines
    host.commit("one more", word="three")
    for action, says in (
        (elsewhere(host.connect(secret=False), host.repository), "could not read Username"),
        (elsewhere(host.connect(), host.repository + "x"), "not found"),
        (elsewhere(host.connect(), host.repository, BranchName="none"), "refs/heads/none"),
        (elsewhere(host.connect(), "../" + host.repository), "not the name of a repository"),
        (elsewhere(host.connections.create_connection(ConnectionName="n", HostArn=host.host)["ConnectionArn"] + "0", "a/b"), "not found"),
    ):
        name = pipelines.create(("Source", [action]), ("Approval", [approval()]))
        begun = pipelines.executions(name)[0]["pipelineExecutionId"]
        pipelines.ends(name, begun, "Failed")
        found = pipelines.action(name, "Source", begun)["output"]["executionResult"]
        assert says in found["errorDetails"]["message"], found
        assert "ServicePassword" not in str(found)
        pipelines.codepipeline.delete_pipeline(name=name)
    # Whose role may not use the connection.
    pipelines.iam.put_role_policy(RoleName=pipelines.role_name, PolicyName="all", PolicyDocument=allow("s3:*"))
    name = pipelines.create(("Source", [elsewhere(host.connect(), host.repository)]), ("Approval", [approval()]))
    begun = pipelines.executions(name)[0]["pipelineExecutionId"]
    pipelines.ends(name, begun, "Failed")
    found = pipelines.action(name, "Source", begun)["output"]["executionResult"]
    assert "UseConnection" in found["errorDetails"]["message"], found
    pipelines.codepipeline.delete_pipeline(name=name)
    pipelines.iam.put_role_policy(RoleName=pipelines.role_name, PolicyName="all", PolicyDocument=allow("*"))
    for format, deploys, says in [("CODE_TAR", False, "CODE_ZIP"), ("CODEBUILD_CLONE_REF", True, "CodeBuild alone")]:
        action = elsewhere(host.connect(), host.repository, OutputArtifactFormat=format)
        template = {"ActionMode": "CREATE_UPDATE", "StackName": "s", "TemplatePath": "SourceOutput::t", "RoleArn": pipelines.role}
        with refused("InvalidActionDeclarationException", says):
            pipelines.create(("Source", [action]), ("Last", [deploy("CloudFormation", **template) if deploys else approval()]))


def test_pull_requests_begin_what_they_are_to(host, neargate, tmp_path):
    pipelines, repository = host.pipelines, host.pipelines.repository()
    git = Git(neargate, tmp_path)
    tree = git.work(f"{host.endpoint}/{repository}")

    def push(branch, **files):
        git("checkout", "-q", "-B", branch, *(["main"] if branch != "main" else []), cwd=tree)
        for path, content in files.items():
            git.commit(tree, path.replace("__", "/"), content)
        git("push", "-q", "--force", "origin", branch, cwd=tree)
        return git("rev-parse", "HEAD", cwd=tree)

    push("main", word="one")
    arn = host.connect()

    def create(**request):
        configuration = {"sourceActionName": "Source", "pullRequest": [request]}
        trigger = {"providerType": "CodeStarSourceConnection", "gitConfiguration": configuration}
        return pipelines.create(("Source", [elsewhere(arn, repository)]), ("Approval", [approval()]), pipelineType="V2", executionMode="PARALLEL", triggers=[trigger])

    opened = create(events=["OPEN", "UPDATED"], branches={"includes": ["main"]})
    closed = create(events=["CLOSED"])
    docs = create(events=["OPEN"], filePaths={"includes": ["docs/**"]})

    def tell(action, number, branch, commit, base="main", status=202):
        request = {"number": number, "base": {"ref": base}, "head": {"ref": branch, "sha": commit}}
        body = json.dumps({"action": action, "repository": {"full_name": repository.upper()}, "pull_request": request}).encode()
        with urllib.request.urlopen(urllib.request.Request(HOOK, method="POST", data=body), timeout=10) as answer:
            assert answer.status == status

    def begun(name, count):
        def look():
            pushed()
            found = [one for one in pipelines.executions(name) if one["trigger"]["triggerType"] == "WebhookV2"]
            outputs = [(pipelines.action(name, "Source", one["pipelineExecutionId"]) or {}).get("output", {}).get("outputVariables") for one in found]
            return [(one["CommitId"], one["BranchName"]) for one in outputs] if len(found) >= count and all(outputs) else None

        return eventually(look, f"{count} executions", 60)

    topic = push("topic", word="two")
    tell("opened", 1, "topic", topic)
    assert begun(opened, 1) == [(topic, "topic")]
    # Nobody is believed who tells of what is not there, nor is what is for another branch.
    tell("opened", 2, "topic", "0" * 40)
    tell("opened", 3, "topic", topic, base="other")
    written = push("written", docs__a="a")
    tell("opened", 4, "written", written)
    assert begun(docs, 1) == [(written, "written")]
    again = push("topic", word="three")
    tell("synchronize", 1, "topic", again)
    assert sorted(begun(opened, 3)) == sorted([(topic, "topic"), (written, "written"), (again, "topic")])
    tell("closed", 1, "topic", again)
    assert begun(closed, 1) == [(again, "topic")]
    assert len(begun(opened, 3)) == 3 and len(begun(docs, 1)) == 1
    for one in [opened, closed, docs]:
        pipelines.codepipeline.delete_pipeline(name=one)


def test_builds_clone_what_pipelines_hand_on(host, neargate, stack):
    """With all of its history, whoever has the repository."""
    pipelines, builds = host.pipelines, Builds(neargate, stack.image)
    own, more = pipelines.repository(), {"OutputArtifactFormat": "CODEBUILD_CLONE_REF"}
    for number in range(3):
        commit, elsewhere_commit = pipelines.commit(own, word=str(number)), host.commit("again", word=os.urandom(4).hex())
    look = "cat .git/HEAD; ls .git/shallow && exit 1; cat word; echo VERSION $CODEBUILD_RESOLVED_SOURCE_VERSION"
    buildspec = json.dumps({"version": "0.2", "phases": {"build": {"commands": [look]}}})
    project = builds.project(source={"type": "CODEPIPELINE", "buildspec": buildspec}, artifacts={"type": "CODEPIPELINE"})
    build = {
        "name": "Build",
        "actionTypeId": {"category": "Build", "owner": "AWS", "provider": "CodeBuild", "version": "1"},
        "configuration": {"ProjectName": project},
        "inputArtifacts": [{"name": "SourceOutput"}],
    }
    here = source(own)
    here["configuration"] |= more
    for action, expected in [(here, commit), (elsewhere(host.connect(), host.repository, **more), elsewhere_commit)]:
        name = pipelines.create(("Source", [action]), ("Build", [build]))
        begun = pipelines.executions(name)[0]["pipelineExecutionId"]
        pipelines.ends(name, begun)
        found = builds.get(pipelines.action(name, "Build", begun)["output"]["executionResult"]["externalExecutionId"])
        assert found["resolvedSourceVersion"] == expected
        builds.logged(found, f"VERSION {expected}")
        assert expected in [line.strip() for line in builds.lines(found)]
        pipelines.codepipeline.delete_pipeline(name=name)
    # Whose role may not clone it.
    builds.iam.put_role_policy(RoleName=builds.role_name, PolicyName="all", PolicyDocument=allow("logs:*", "ecr:*", "s3:*"))
    name = pipelines.create(("Source", [here]), ("Build", [build]))
    begun = pipelines.executions(name)[0]["pipelineExecutionId"]
    pipelines.ends(name, begun, "Failed")
    assert "codecommit:GitPull" in pipelines.action(name, "Build", begun)["output"]["executionResult"]["errorDetails"]["message"]
    pipelines.codepipeline.delete_pipeline(name=name)


def test_a_connection_in_a_stack(host, neargate):
    stacks = Stacks(neargate)
    template = {
        "Resources": {
            "New": {"Type": "AWS::CodeConnections::Connection", "Properties": {"ConnectionName": "n", "ProviderType": "GitHub"}},
            "Old": {
                "Type": "AWS::CodeStarConnections::Connection",
                "Properties": {"ConnectionName": "o", "HostArn": host.host, "Tags": [{"Key": "k", "Value": "1"}]},
            },
        },
        "Outputs": {
            "New": {"Value": {"Ref": "New"}},
            "Old": {"Value": {"Fn::GetAtt": ["Old", "ConnectionArn"]}},
            "Status": {"Value": {"Fn::GetAtt": ["Old", "ConnectionStatus"]}},
        },
    }
    name = f"connections-{os.urandom(4).hex()}"
    stacks.create(name, template)
    outputs = stacks.outputs(name)
    assert outputs["Status"] == "AVAILABLE"
    assert host.connections.get_connection(ConnectionArn=outputs["New"])["Connection"]["ProviderType"] == "GitHub"
    template["Resources"]["Old"]["Properties"]["Tags"][0]["Value"] = "2"
    stacks.update(name, template)
    assert host.connections.list_tags_for_resource(ResourceArn=outputs["Old"])["Tags"] == [{"Key": "k", "Value": "2"}]
    stacks.delete(name)
    for arn in (outputs["New"], outputs["Old"]):
        with pytest.raises(ClientError):
            host.connections.get_connection(ConnectionArn=arn)


@pytest.fixture
def secluded(tmp_path, neargate):
    """A plane that knows a directory of repositories, one of which belongs to somebody else; a server that has them by SSH."""
    directory = tmp_path / "repositories"
    git = Git(neargate, tmp_path / "git")
    for name in ["team/app", "../outside"]:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        git("init", "-q", "--bare", str(directory / f"{name}.git"))
    (directory / "link.git").symlink_to(tmp_path / "outside.git")
    plane = Neargate(tmp_path / "data", PORT + 22).start(NEARGATE_GIT_DIRECTORY=str(directory))
    yield plane, directory, Git(plane, tmp_path / "work")
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


@pytest.fixture
def ssh(tmp_path):
    """An SSH server of our own, its port, a key that it lets in, and what it is known by."""
    for name in ["host", "user", "stranger"]:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)

    async def pump(source, target):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()

    async def run(process):
        command = shlex.split(process.command)
        git = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        asked = asyncio.create_task(pump(process.stdin, git.stdin))
        await pump(git.stdout, process.stdout)
        process.exit(await git.wait())
        asked.cancel()

    async def serve():
        keys = dict(server_host_keys=[str(tmp_path / "host")], authorized_client_keys=str(tmp_path / "user.pub"))
        return await asyncssh.listen("127.0.0.1", 0, process_factory=run, encoding=None, **keys)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(serve(), loop).result(30)
    yield server.get_port(), tmp_path
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_repositories_of_this_machine_and_by_ssh(secluded, ssh):
    plane, directory, git = secluded
    port, keys = ssh
    pipelines = Pipelines(plane)
    api, secrets = plane.client("codeconnections"), plane.client("secretsmanager")
    tree = git.work(f"{directory}/team/app.git")

    def publish(word):
        """A commit of ours in a repository that belongs to somebody else."""
        git.commit(tree, "word", word)
        subprocess.run(["chown", "-R", "root", directory / "team"], check=True)
        git("push", "-q", "origin", "HEAD:main", cwd=tree)
        subprocess.run(["chown", "-R", "nobody", directory / "team"], check=True)
        return git("rev-parse", "HEAD", cwd=tree)

    commit = publish("one")

    def connect(endpoint, secret=None):
        host = api.create_host(Name="here", ProviderType="GitLabSelfManaged", ProviderEndpoint=endpoint)["HostArn"]
        tags = [{"Key": "neargate:credentials", "Value": secret}] if secret else []
        return api.create_connection(ConnectionName="here", HostArn=host, Tags=tags)["ConnectionArn"]

    def runs(action, seconds=60):
        name = pipelines.create(("Source", [action]), ("Approval", [approval()]))
        begun = pipelines.executions(name)[0]["pipelineExecutionId"]
        look = lambda: (found := pipelines.action(name, "Source", begun)) and found["status"] in ["Succeeded", "Failed"] and found
        return name, eventually(look, "the source", seconds)["output"]

    def ssh_secret(name, key, known):
        pair = {"privateKey": (keys / key).read_text(), "knownHosts": known}
        return secrets.create_secret(Name=name, SecretString=json.dumps(pair))["ARN"]

    here = connect(f"file://{directory}")
    name, output = runs(elsewhere(here, "team/app.git"))
    assert output["outputVariables"]["CommitId"] == commit, output
    # What is pushed is seen, without anybody's telling.
    again = publish("two")
    eventually(lambda: len(pipelines.executions(name)) > 1, "an execution for what was pushed", 60)
    # By SSH it is the other side's git that looks whose it is.
    subprocess.run(["chown", "-R", "root", directory / "team"], check=True)
    known = f"[127.0.0.1]:{port} {(keys / 'host.pub').read_text()}"
    endpoint = f"ssh://root@127.0.0.1:{port}{directory}"
    _, output = runs(elsewhere(connect(endpoint, ssh_secret("good", "user", known)), "team/app.git"))
    assert output["outputVariables"]["CommitId"] == again, output

    for connection, repository, says in [
        (connect(endpoint, ssh_secret("unknown", "user", "")), "team/app.git", "fetched"),
        (connect(endpoint, ssh_secret("stranger", "stranger", known)), "team/app.git", "fetched"),
        (connect(endpoint), "team/app.git", "fetched"),
        (here, "link.git", "not in the directory"),
        (here, "team/none.git", "not in the directory"),
    ]:
        _, output = runs(elsewhere(connection, repository))
        why = output["executionResult"]["errorDetails"]["message"]
        assert says in why and "PRIVATE" not in why, why
    for bad in [directory.parent, f"{directory}/../outside.git", "/", directory / "none"]:
        with refused("ValidationException", "not in the directory"):
            connect(f"file://{bad}")
