"""CodePipeline: a push becomes what runs, stage by stage; nothing is lost or run twice through crashes."""

import io
import json
import os
import random
import time
import urllib.request
import zipfile

import pytest

from conftest import PORT, Neargate, build, eventually, upload
from test_cloudformation import Stacks
from test_codecommit import Git, refused
from test_events import Listening


def trust(service):
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def allow(*actions):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]})


def source(repository, poll="false", branch="main", **more):
    return {
        "name": "Source",
        "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "CodeCommit", "version": "1"},
        "configuration": {"RepositoryName": repository, "BranchName": branch, "PollForSourceChanges": poll},
        "outputArtifacts": [{"name": "SourceOutput"}],
        "namespace": "source",
        **more,
    }


def approval(name="Approve", **more):
    return {"name": name, "actionTypeId": {"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "1"}, **more}


def deploy(provider, name="Deploy", inputs=("SourceOutput",), **configuration):
    action = {"name": name, "actionTypeId": {"category": "Deploy", "owner": "AWS", "provider": provider, "version": "1"}}
    return {**action, "configuration": configuration, "inputArtifacts": [{"name": one} for one in inputs]}


class Pipelines:
    """A bucket, a role, repositories, and what these tests do over and over."""

    def __init__(self, plane):
        self.plane = plane
        for service in ["codepipeline", "codecommit", "iam", "s3", "events", "ssm"]:
            setattr(self, service, plane.client(service))
        self.bucket = f"artifacts-{os.urandom(5).hex()}"
        self.s3.create_bucket(Bucket=self.bucket)
        name = f"pipelines-{os.urandom(4).hex()}"
        self.role = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust("codepipeline.amazonaws.com"))["Role"]["Arn"]
        self.role_name = name
        self.iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=allow("*"))

    def repository(self):
        name = f"app-{os.urandom(4).hex()}"
        self.codecommit.create_repository(repositoryName=name)
        return name

    def commit(self, repository, message="a change", **files):
        """Puts files (dots are written as __) on main."""
        branches = self.codecommit.list_branches(repositoryName=repository)["branches"]
        parent = {}
        if branches:
            parent["parentCommitId"] = self.codecommit.get_branch(repositoryName=repository, branchName="main")["branch"]["commitId"]
        puts = [{"filePath": path.replace("__", "."), "fileContent": content} for path, content in files.items()]
        answer = self.codecommit.create_commit(repositoryName=repository, branchName="main", putFiles=puts, commitMessage=message, **parent)
        return answer["commitId"]

    def declare(self, name, *stages, **more):
        stages = [{"name": stage, "actions": actions} for stage, actions in stages]
        store = {"type": "S3", "location": self.bucket}
        return {"name": name, "roleArn": self.role, "artifactStore": store, "stages": stages, **more}

    def create(self, *stages, **more):
        name = f"p-{os.urandom(5).hex()}"
        self.codepipeline.create_pipeline(pipeline=self.declare(name, *stages, **more))
        return name

    def executions(self, name):
        """The oldest first."""
        return self.codepipeline.list_pipeline_executions(pipelineName=name)["pipelineExecutionSummaries"][::-1]

    def start(self, name, **more):
        return self.codepipeline.start_pipeline_execution(name=name, **more)["pipelineExecutionId"]

    def get(self, name, id):
        return self.codepipeline.get_pipeline_execution(pipelineName=name, pipelineExecutionId=id)["pipelineExecution"]

    def ends(self, name, id, status="Succeeded", seconds=120):
        def look():
            found = self.get(name, id)
            over = found["status"] not in ["InProgress", "Stopping"]
            assert not over or found["status"] == status, found
            return found if over else None

        return eventually(look, f"{name} {status}", seconds)

    def action(self, name, action, execution=None):
        """The newest run of an action."""
        filter = {"filter": {"pipelineExecutionId": execution}} if execution else {}
        found = self.codepipeline.list_action_executions(pipelineName=name, **filter)["actionExecutionDetails"]
        return next((one for one in found if one["actionName"] == action), None)

    def stage(self, name, stage):
        states = self.codepipeline.get_pipeline_state(name=name)["stageStates"]
        return next(one for one in states if one["stageName"] == stage)

    def approval(self, name, execution, stage="Approval", action="Approve"):
        """The token of an approval that this execution waits for."""

        def look():
            found = self.stage(name, stage)
            latest = found.get("latestExecution", {})
            if latest.get("pipelineExecutionId") != execution:
                return None
            one = next(one for one in found["actionStates"] if one["actionName"] == action)
            return one.get("latestExecution", {}).get("token")

        return eventually(look, "an approval is asked for")

    def decide(self, name, token, status="Approved", summary="fine", stage="Approval", action="Approve"):
        self.codepipeline.put_approval_result(
            pipelineName=name, stageName=stage, actionName=action, token=token, result={"status": status, "summary": summary}
        )


@pytest.fixture(scope="module")
def pipelines(neargate):
    return Pipelines(neargate)


PARAMETER = b"""
Parameters: {Value: {Type: String, Default: none}, Name: {Type: String}}
Resources: {Parameter: {Type: AWS::SSM::Parameter, Properties: {Name: !Ref Name, Type: String, Value: !Ref Value}}}
Outputs: {Value: {Value: !GetAtt Parameter.Value}}
"""


def test_a_push_becomes_what_runs(neargate, pipelines, stack, tmp_path):
    """Push, source, approval, a new revision of the task definition, rolled out; by git, as a person would."""
    images = []
    for number in [1, 2]:
        directory = tmp_path / str(number)
        directory.mkdir()
        dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nCOPY index.html /www/index.html\nENV PATH=/bin\n"
        images.append(upload(neargate, build(directory, f"page{number}", {"index.html": f"page {number}"}, dockerfile), f"page{number}"))
    stack.image, kept = images[0], stack.image
    definition = stack.define(stack.container(command="exec /bin/busybox httpd -f -p 8080 -h /www", portMappings=[{"containerPort": 8080}]))
    stack.image = kept
    network = {"awsvpcConfiguration": {"subnets": [stack.subnet], "securityGroups": [stack.open_group], "assignPublicIp": "ENABLED"}}
    stack.ecs.create_service(
        cluster="tests", serviceName="shipped", taskDefinition=definition, desiredCount=1, launchType="FARGATE", networkConfiguration=network
    )
    stack.ecs.get_waiter("services_stable").wait(cluster="tests", services=["shipped"], WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    def page():
        tasks = stack.ecs.list_tasks(cluster="tests", serviceName="shipped", desiredStatus="RUNNING")["taskArns"]
        return {urllib.request.urlopen(f"http://{stack.address(task)}:8080/", timeout=5).read().decode() for task in tasks}

    assert page() == {"page 1"}
    repository = pipelines.repository()
    url = pipelines.codecommit.get_repository(repositoryName=repository)["repositoryMetadata"]["cloneUrlHttp"]
    # Followed by itself: PollForSourceChanges is on unless it is switched off.
    name = pipelines.create(
        ("Source", [source(repository, poll="true")]),
        ("Approval", [approval(configuration={"CustomData": "#{source.CommitMessage}", "ExternalEntityLink": "https://example.com/#{source.CommitId}"})]),
        ("Deploy", [deploy("ECS", ClusterName="tests", ServiceName="shipped")]),
    )
    first = pipelines.executions(name)[0]
    assert first["trigger"]["triggerType"] == "CreatePipeline"
    failed = pipelines.ends(name, first["pipelineExecutionId"], "Failed")
    assert "Branch main does not exist" in failed["statusSummary"] and "Source" in failed["statusSummary"]

    git = Git(neargate, tmp_path / "git")
    tree = git.work(url)
    tip = git.commit(tree, "imagedefinitions.json", json.dumps([{"name": "main", "imageUri": images[1]}]), "page two")
    git("push", "-q", "origin", "main", cwd=tree)
    execution = eventually(lambda: pipelines.executions(name)[1:], "the push began an execution")[0]["pipelineExecutionId"]
    assert pipelines.get(name, execution)["trigger"]["triggerType"] == "PollForSourceChanges"
    token = pipelines.approval(name, execution)
    asked = pipelines.action(name, "Approve", execution)
    assert asked["input"]["resolvedConfiguration"]["CustomData"] == "page two\n" and asked["status"] == "InProgress"
    state = pipelines.stage(name, "Approval")["actionStates"][0]["latestExecution"]
    assert state["externalExecutionUrl"] == f"https://example.com/{tip}"
    with refused("InvalidApprovalTokenException"):
        pipelines.decide(name, "0f1e2d3c-0000-4000-8000-000000000000")
    assert page() == {"page 1"}
    pipelines.decide(name, token, summary="ship it")
    done = pipelines.ends(name, execution)
    assert page() == {"page 2"}
    assert [(r["name"], r["revisionId"], r["revisionSummary"]) for r in done["artifactRevisions"]] == [("SourceOutput", tip, "page two\n")]
    service = stack.ecs.describe_services(cluster="tests", services=["shipped"])["services"][0]
    newest = stack.ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    assert newest["containerDefinitions"][0]["image"] == images[1] and newest["family"] in definition
    approved = pipelines.action(name, "Approve", execution)
    assert approved["output"]["executionResult"]["externalExecutionSummary"] == "ship it" and approved["updatedBy"].endswith(":user/admin")
    sourced = pipelines.action(name, "Source", execution)["output"]
    assert sourced["outputVariables"]["CommitId"] == tip and sourced["outputVariables"]["BranchName"] == "main"
    place = sourced["outputArtifacts"][0]["s3location"]
    archive = zipfile.ZipFile(io.BytesIO(pipelines.s3.get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read()))
    assert archive.namelist() == ["imagedefinitions.json"]
    with refused("ApprovalAlreadyCompletedException"):
        pipelines.decide(name, token)
    assert len(pipelines.executions(name)) == 2, "one push, one execution"

    # What cannot run is told, and the service stays as it was.
    stack.ecs.update_service(cluster="tests", service="shipped", deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": True}})
    git.commit(tree, "imagedefinitions.json", json.dumps([{"name": "main", "imageUri": images[1] + "-missing"}]), "broken")
    git("push", "-q", "origin", "main", cwd=tree)
    execution = eventually(lambda: pipelines.executions(name)[2:], "the push began an execution")[0]["pipelineExecutionId"]
    pipelines.decide(name, pipelines.approval(name, execution))
    failed = pipelines.ends(name, execution, "Failed")
    error = pipelines.action(name, "Deploy", execution)["output"]["executionResult"]["errorDetails"]
    assert error["code"] == "JobFailed" and "deployment" in error["message"], error
    assert error["message"] in failed["statusSummary"]
    eventually(lambda: page() == {"page 2"}, "the service is what it was")
    stack.ecs.delete_service(cluster="tests", service="shipped", force=True)
    pipelines.codepipeline.delete_pipeline(name=name)


def test_stacks_by_a_pipeline(neargate, pipelines):
    """CREATE_UPDATE with parameters from everywhere, change sets, outputs as variables and as an artifact."""
    cloudformation = neargate.client("cloudformation")
    repository = pipelines.repository()
    first = f"/made/{repository}"
    configuration = {"Parameters": {"Value": "from the configuration", "Name": first}, "Tags": {"team": "a"}}
    pipelines.commit(
        repository, template__yaml=PARAMETER, configuration__json=json.dumps(configuration).encode(), values__json=json.dumps({"deep": "from a file"}).encode()
    )
    of = dict(StackName=repository, TemplatePath="SourceOutput::template.yaml", TemplateConfiguration="SourceOutput::configuration.json")
    made = deploy("CloudFormation", ActionMode="CREATE_UPDATE", OutputFileName="out.json", **of)
    made |= {"namespace": "stack", "outputArtifacts": [{"name": "Outputs"}]}
    second = f"{repository}-second"
    overrides = {"Name": f"/made/{second}", "Value": {"Fn::GetParam": ["Outputs", "out.json", "Value"]}}
    of_second = dict(StackName=second, TemplatePath="SourceOutput::template.yaml", ChangeSetName="set")
    replace = deploy(
        "CloudFormation", "Replace", ["SourceOutput", "Outputs"], ActionMode="CHANGE_SET_REPLACE",
        ParameterOverrides=json.dumps(overrides), Capabilities="CAPABILITY_IAM, CAPABILITY_AUTO_EXPAND", **of_second,
    )
    execute = {**deploy("CloudFormation", "Execute", [], ActionMode="CHANGE_SET_EXECUTE", StackName=second, ChangeSetName="set"), "runOrder": 2}
    third = f"{repository}-third"
    third_overrides = {"Name": f"/made/{third}", "Value": "#{stack.Value} by #{codepipeline.PipelineExecutionId}"}
    late = {**deploy("CloudFormation", "Late", ActionMode="CREATE_UPDATE", StackName=third, TemplatePath="SourceOutput::template.yaml", ParameterOverrides=json.dumps(third_overrides)), "runOrder": 2}
    name = pipelines.create(("Source", [source(repository)]), ("First", [made]), ("Rest", [replace, execute, late]))
    execution = pipelines.executions(name)[0]["pipelineExecutionId"]
    pipelines.ends(name, execution)
    value = lambda name: pipelines.ssm.get_parameter(Name=name)["Parameter"]["Value"]
    assert value(first) == "from the configuration" and value(f"/made/{second}") == "from the configuration"
    assert value(f"/made/{third}") == f"from the configuration by {execution}"
    assert cloudformation.describe_stacks(StackName=repository)["Stacks"][0]["Tags"] == [{"Key": "team", "Value": "a"}]
    assert pipelines.action(name, "Deploy")["output"]["outputVariables"] == {"Value": "from the configuration"}
    # The same again: nothing to do is no failure.
    again = pipelines.start(name)
    pipelines.ends(name, again)
    assert value(f"/made/{third}") == f"from the configuration by {again}"
    # A template that does not work: the resource and its reason are told.
    pipelines.commit(repository, template__yaml=PARAMETER.replace(b"Type: String, Value", b"Type: Nonsense, Value"))
    failed = pipelines.ends(name, pipelines.start(name), "Failed")
    assert "Parameter: " in failed["statusSummary"] and "UPDATE_ROLLBACK" in failed["statusSummary"], failed
    # Larger than a request may be, it goes by way of the bucket.
    pipelines.commit(repository, template__yaml=PARAMETER + b"# padding\n" * 7000)
    pipelines.ends(name, pipelines.start(name))
    gone = [deploy("CloudFormation", f"Gone{n}", [], ActionMode="DELETE_ONLY", StackName=one) for n, one in enumerate([repository, second, third])]
    down = pipelines.create(("Source", [source(repository)]), ("Gone", gone))
    pipelines.ends(down, pipelines.executions(down)[0]["pipelineExecutionId"])
    for one in [repository, second, third]:
        with refused("ValidationError", "does not exist"):
            cloudformation.describe_stacks(StackName=one)


def test_failures_are_told_and_retried(pipelines, stack):
    repository = pipelines.repository()
    pipelines.commit(repository, readme=b"nothing else")
    name = pipelines.create(("Source", [source(repository)]), ("Deploy", [deploy("ECS", ClusterName="tests", ServiceName="made-later")]))
    codepipeline = pipelines.codepipeline

    def fails(says, code="ConfigurationError"):
        id = pipelines.start(name)
        failed = pipelines.ends(name, id, "Failed")
        error = pipelines.action(name, "Deploy", id)["output"]["executionResult"]["errorDetails"]
        assert error["code"] == code and says in error["message"], error
        assert failed["statusSummary"] == f"The action Deploy in the stage Deploy failed: {error['message']}"
        return id

    pipelines.ends(name, pipelines.executions(name)[0]["pipelineExecutionId"], "Failed")
    fails("imagedefinitions.json in the artifact SourceOutput")
    pipelines.commit(repository, imagedefinitions__json=b'[{"name": "main"}]')
    fails("missing field `imageUri`")
    pipelines.commit(repository, imagedefinitions__json=b'[{"name": "main",\n "imageUri": }]')
    fails("line 2")
    pipelines.commit(repository, imagedefinitions__json=b"\xff\xfe")
    fails("not UTF-8")
    pipelines.commit(repository, imagedefinitions__json=b" " * (2 << 20))
    fails("more than 1048576 bytes")
    pipelines.commit(repository, imagedefinitions__json=b'[{"name": "main", "imageUri": "x"}]')
    id = fails("The service made-later does not exist")
    network = {"awsvpcConfiguration": {"subnets": [stack.subnet], "securityGroups": [stack.open_group], "assignPublicIp": "ENABLED"}}
    definition = stack.define(stack.container("other", command="trap exit TERM; sleep 1000 & wait"))
    stack.ecs.create_service(cluster="tests", serviceName="made-later", taskDefinition=definition, desiredCount=0, launchType="FARGATE", networkConfiguration=network)
    fails("has no container main")
    with refused("NotLatestPipelineExecutionException"):
        codepipeline.retry_stage_execution(pipelineName=name, stageName="Deploy", pipelineExecutionId=id, retryMode="FAILED_ACTIONS")
    pipelines.commit(repository, imagedefinitions__json=json.dumps([{"name": "other", "imageUri": stack.image}]).encode())
    # Without the right to it; with it, the stage is tried again, and only that.
    pipelines.iam.put_role_policy(
        RoleName=pipelines.role_name, PolicyName="all", PolicyDocument=allow("codecommit:*", "s3:*", "ecs:Describe*", "ecs:RegisterTaskDefinition", "iam:PassRole")
    )
    id = fails("ecs:UpdateService", "PermissionError")
    pipelines.iam.put_role_policy(RoleName=pipelines.role_name, PolicyName="all", PolicyDocument=allow("*"))
    with refused("StageNotRetryableException"):
        codepipeline.retry_stage_execution(pipelineName=name, stageName="Source", pipelineExecutionId=id, retryMode="FAILED_ACTIONS")
    codepipeline.retry_stage_execution(pipelineName=name, stageName="Deploy", pipelineExecutionId=id, retryMode="FAILED_ACTIONS")
    pipelines.ends(name, id)
    runs = codepipeline.list_action_executions(pipelineName=name, filter={"pipelineExecutionId": id})["actionExecutionDetails"]
    assert sorted((run["actionName"], run["status"]) for run in runs) == [("Deploy", "Failed"), ("Deploy", "Succeeded"), ("Source", "Succeeded")]
    stack.ecs.delete_service(cluster="tests", service="made-later", force=True)
    codepipeline.delete_pipeline(name=name)
    with refused("PipelineNotFoundException"):
        codepipeline.get_pipeline_state(name=name)


def test_a_stage_is_rolled_back(pipelines):
    """By itself when it fails, and when somebody asks for it: to what went well in it before."""
    repository, codepipeline = pipelines.repository(), pipelines.codepipeline
    parameter = f"/rolled/{repository}"
    good = pipelines.commit(repository, template__yaml=PARAMETER)
    overrides = json.dumps({"Name": parameter, "Value": "#{source.CommitId}"})
    of = dict(ActionMode="CREATE_UPDATE", StackName=repository, TemplatePath="SourceOutput::template.yaml", ParameterOverrides=overrides)
    stages = [("Source", [source(repository, poll="true")]), ("Deploy", [deploy("CloudFormation", **of)]), ("After", [approval()])]

    def declared(**on_failure):
        declaration = pipelines.declare(name, *stages, pipelineType="V2")
        if on_failure:
            declaration["stages"][1]["onFailure"] = on_failure
        return declaration

    name = f"p-{os.urandom(5).hex()}"
    with refused("InvalidStageDeclarationException", "V2"):
        codepipeline.create_pipeline(pipeline={**declared(result="ROLLBACK"), "pipelineType": "V1"})
    with refused("InvalidStageDeclarationException", "ROLLBACK, RETRY or FAIL"):
        codepipeline.create_pipeline(pipeline=declared(result="SKIP"))
    codepipeline.create_pipeline(pipeline=declared(result="ROLLBACK"))

    def value():
        return pipelines.ssm.get_parameter(Name=parameter)["Parameter"]["Value"]

    first = pipelines.executions(name)[0]["pipelineExecutionId"]
    assert pipelines.approval(name, first, stage="After") and value() == good
    bad = pipelines.commit(repository, template__yaml=PARAMETER.replace(b"AWS::SSM::Parameter", b"AWS::SSM::None"))
    back = eventually(lambda: pipelines.executions(name)[2:], "the rollback")[0]
    failed = pipelines.executions(name)[1]
    assert failed["status"] == "Failed" and failed["sourceRevisions"][0]["revisionId"] == bad and failed["executionType"] == "STANDARD"
    assert (back["executionType"], back["rollbackMetadata"]) == ("ROLLBACK", {"rollbackTargetPipelineExecutionId": first})
    assert back["trigger"]["triggerType"] == "AutomatedRollback" and failed["pipelineExecutionId"] in back["trigger"]["triggerDetail"]
    pipelines.ends(name, back["pipelineExecutionId"])
    runs = codepipeline.list_action_executions(pipelineName=name, filter={"pipelineExecutionId": back["pipelineExecutionId"]})
    assert [run["actionName"] for run in runs["actionExecutionDetails"]] == ["Deploy"], "the stage and nothing else"
    latest = pipelines.stage(name, "Deploy")["latestExecution"]
    assert latest == {"pipelineExecutionId": back["pipelineExecutionId"], "status": "Succeeded", "type": "ROLLBACK"} and value() == good

    # A newer version, and back by hand.
    newer = pipelines.commit(repository, template__yaml=PARAMETER + b"# newer\n")
    eventually(lambda: len(pipelines.executions(name)) == 4 and pipelines.stage(name, "Deploy")["latestExecution"]["status"] == "Succeeded" and value() == newer, "the newer one")
    targets = codepipeline.list_pipeline_executions(pipelineName=name, filter={"succeededInStage": {"stageName": "Deploy"}})
    assert first in [one["pipelineExecutionId"] for one in targets["pipelineExecutionSummaries"]]
    for target, stage, code in (
        (failed["pipelineExecutionId"], "Deploy", "UnableToRollbackStageException"),
        (back["pipelineExecutionId"], "Deploy", "UnableToRollbackStageException"),
        (first, "Source", "UnableToRollbackStageException"),
        (first, "None", "StageNotFoundException"),
        ("00000000-0000-0000-0000-000000000000", "Deploy", "PipelineExecutionNotFoundException"),
    ):
        with refused(code):
            codepipeline.rollback_stage(pipelineName=name, stageName=stage, targetPipelineExecutionId=target)
    id = codepipeline.rollback_stage(pipelineName=name, stageName="Deploy", targetPipelineExecutionId=first)["pipelineExecutionId"]
    found = pipelines.ends(name, id)
    assert found["trigger"]["triggerType"] == "ManualRollback" and found["artifactRevisions"][0]["revisionId"] == good and value() == good

    # Tried again by itself, once.
    codepipeline.update_pipeline(pipeline=declared(result="RETRY", retryConfiguration={"retryMode": "FAILED_ACTIONS"}))
    with refused("UnableToRollbackStageException", "another one"):
        codepipeline.rollback_stage(pipelineName=name, stageName="Deploy", targetPipelineExecutionId=first)
    pipelines.commit(repository, template__yaml=b"Resources: {}")
    id = eventually(lambda: pipelines.executions(name)[5:], "the last")[0]["pipelineExecutionId"]
    pipelines.ends(name, id, "Failed")
    runs = codepipeline.list_action_executions(pipelineName=name, filter={"pipelineExecutionId": id})["actionExecutionDetails"]
    assert [run["status"] for run in runs if run["actionName"] == "Deploy"] == ["Failed", "Failed"]
    retried = pipelines.stage(name, "Deploy")["retryStageMetadata"]
    assert retried == {"autoStageRetryAttempt": 1, "latestRetryTrigger": "AutomatedStageRetry"}
    codepipeline.delete_pipeline(name=name)


def test_executions_among_each_other(pipelines):
    """Superseding, rejecting, stopping, and stages that nothing may enter."""
    repository, codepipeline = pipelines.repository(), pipelines.codepipeline
    tips = [pipelines.commit(repository, a=b"1")]
    name = pipelines.create(("Source", [source(repository)]), ("Approval", [approval()]), ("Last", [approval("Again")]))
    first = pipelines.executions(name)[0]["pipelineExecutionId"]
    token = pipelines.approval(name, first)
    tips += [pipelines.commit(repository, a=content) for content in [b"2", b"3"]]
    second = pipelines.start(name, sourceRevisions=[{"actionName": "Source", "revisionType": "COMMIT_ID", "revisionValue": tips[1]}])
    eventually(lambda: pipelines.stage(name, "Approval").get("inboundExecution", {}).get("pipelineExecutionId") == second, "the second waits")
    assert pipelines.get(name, second)["artifactRevisions"][0]["revisionId"] == tips[1]
    for wrong in [("Nobody", "COMMIT_ID"), ("Source", "IMAGE_DIGEST"), ("Source", "S3_OBJECT_KEY")]:
        with refused("ValidationException", "no source action"):
            pipelines.start(name, sourceRevisions=[{"actionName": wrong[0], "revisionType": wrong[1], "revisionValue": "x"}])
    third = pipelines.start(name, clientRequestToken="t" * 20)
    assert pipelines.start(name, clientRequestToken="t" * 20) == third
    pipelines.ends(name, second, "Superseded")
    pipelines.decide(name, token, "Rejected", "not today")
    failed = pipelines.ends(name, first, "Failed")
    assert "not today" in failed["statusSummary"]
    codepipeline.disable_stage_transition(pipelineName=name, stageName="Last", transitionType="Inbound", reason="frozen")
    pipelines.decide(name, pipelines.approval(name, third))
    waits = lambda: pipelines.stage(name, "Last").get("inboundExecution", {}).get("pipelineExecutionId") == third
    eventually(waits, "the third waits at what is disabled")
    transition = pipelines.stage(name, "Last")["inboundTransitionState"]
    assert transition["enabled"] is False and transition["disabledReason"] == "frozen"
    codepipeline.enable_stage_transition(pipelineName=name, stageName="Last", transitionType="Inbound")
    token = pipelines.approval(name, third, "Last", "Again")
    # Stopping waits for what is under way; abandoning does not.
    codepipeline.stop_pipeline_execution(pipelineName=name, pipelineExecutionId=third, reason="changed my mind")
    assert pipelines.get(name, third)["status"] == "Stopping"
    with refused("DuplicatedStopRequestException"):
        codepipeline.stop_pipeline_execution(pipelineName=name, pipelineExecutionId=third)
    codepipeline.stop_pipeline_execution(pipelineName=name, pipelineExecutionId=third, abandon=True, reason="at once")
    assert pipelines.ends(name, third, "Stopped")["statusSummary"] == "at once"
    assert pipelines.action(name, "Again", third)["status"] == "Abandoned"
    with refused("ApprovalAlreadyCompletedException"):
        pipelines.decide(name, token, stage="Last", action="Again")
    with refused("PipelineExecutionNotStoppableException"):
        codepipeline.stop_pipeline_execution(pipelineName=name, pipelineExecutionId=third)
    statuses = [(one["pipelineExecutionId"], one["status"]) for one in pipelines.executions(name)]
    assert statuses == [(first, "Failed"), (second, "Superseded"), (third, "Stopped")]
    succeeded = codepipeline.list_pipeline_executions(pipelineName=name, filter={"succeededInStage": {"stageName": "Approval"}})
    assert [one["pipelineExecutionId"] for one in succeeded["pipelineExecutionSummaries"]] == [third]

    # V2: executions in a queue, and variables.
    queued = pipelines.create(
        ("Source", [source(repository)]), ("Approval", [approval(configuration={"CustomData": "to #{variables.where}"})]),
        pipelineType="V2", executionMode="QUEUED", variables=[{"name": "where", "defaultValue": "here"}],
    )
    ids = [pipelines.executions(queued)[0]["pipelineExecutionId"]]
    ids += [pipelines.start(queued, variables=[{"name": "where", "value": f"place {n}"}]) for n in [1, 2]]
    with refused("ValidationException", "no variable"):
        pipelines.start(queued, variables=[{"name": "what", "value": "x"}])
    for number, id in enumerate(ids):
        token = pipelines.approval(queued, id)
        where = pipelines.action(queued, "Approve", id)["input"]["resolvedConfiguration"]["CustomData"]
        assert where == ("to here" if number == 0 else f"to place {number}")
        pipelines.decide(queued, token)
        pipelines.ends(queued, id)


def test_pipelines(neargate, pipelines):
    codepipeline, repository = pipelines.codepipeline, pipelines.repository()
    pipelines.commit(repository, a=b"a")
    stages = [("Source", [source(repository)]), ("Approval", [approval()])]
    name = f"kept-{repository}"
    made = codepipeline.create_pipeline(pipeline=pipelines.declare(name, *stages), tags=[{"key": "a", "value": "b"}])
    assert made["pipeline"]["version"] == 1 and made["tags"] == [{"key": "a", "value": "b"}]
    with refused("PipelineNameInUseException"):
        codepipeline.create_pipeline(pipeline=pipelines.declare(name, *stages))
    found = codepipeline.get_pipeline(name=name)
    arn = found["metadata"]["pipelineArn"]
    assert found["pipeline"]["pipelineType"] == "V1" and found["pipeline"]["stages"][1]["actions"][0]["runOrder"] == 1
    changed = codepipeline.update_pipeline(pipeline=pipelines.declare(name, *stages, ("More", [approval("Another")])))
    assert changed["pipeline"]["version"] == 2
    assert len(codepipeline.get_pipeline(name=name, version=1)["pipeline"]["stages"]) == 2
    with refused("PipelineVersionNotFoundException"):
        codepipeline.get_pipeline(name=name, version=7)
    assert name in [one["name"] for one in codepipeline.list_pipelines()["pipelines"]]
    codepipeline.tag_resource(resourceArn=arn, tags=[{"key": "c", "value": "d"}])
    page = codepipeline.list_tags_for_resource(resourceArn=arn, maxResults=1)
    rest = codepipeline.list_tags_for_resource(resourceArn=arn, maxResults=1, nextToken=page["nextToken"])
    assert [page["tags"], rest["tags"]] == [[{"key": "a", "value": "b"}], [{"key": "c", "value": "d"}]] and "nextToken" not in rest
    codepipeline.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert codepipeline.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "c", "value": "d"}]
    assert neargate.aws("codepipeline", "get-pipeline-state", "--name", name).returncode == 0

    bad = lambda *stages, **more: codepipeline.create_pipeline(pipeline=pipelines.declare("bad", *stages, **more))
    for code, says, wrong in [
        ("InvalidStructureException", "2 to 50 stages", [stages[0]]),
        ("InvalidStructureException", "start with a stage that only contains source", [stages[1], ("Two", [approval()])]),
        ("InvalidStructureException", "Only the first stage", [stages[0], ("Two", [source(repository)])]),
        ("InvalidStageDeclarationException", "unique", [stages[0], stages[1], stages[1]]),
        ("InvalidActionDeclarationException", "unique within a stage", [stages[0], ("Two", [approval(), approval()])]),
        ("InvalidActionDeclarationException", "missing required configuration 'ServiceName'", [stages[0], ("Two", [deploy("ECS", ClusterName="x")])]),
        ("InvalidActionDeclarationException", "unknown configuration 'Nonsense'", [stages[0], ("Two", [deploy("ECS", ClusterName="x", ServiceName="y", Nonsense="z")])]),
        ("InvalidStructureException", "Bundle Other in action Deploy is not declared", [stages[0], ("Two", [deploy("ECS", inputs=["Other"], ClusterName="x", ServiceName="y")])]),
        ("InvalidActionDeclarationException", "0 input artifacts", [stages[0], ("Two", [deploy("ECS", inputs=[], ClusterName="x", ServiceName="y")])]),
        ("InvalidActionDeclarationException", "no action of category Deploy, owner AWS and provider S3", [stages[0], ("Two", [deploy("S3")])]),
        ("InvalidActionDeclarationException", "manual approvals only", [stages[0], ("Two", [{**deploy("ECS", ClusterName="x", ServiceName="y"), "timeoutInMinutes": 5}])]),
        ("InvalidActionDeclarationException", "only version", [stages[0], ("Two", [approval(actionTypeId={"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "2"})])]),
    ]:
        with refused(code, says):
            bad(*wrong)
    with refused("InvalidStructureException", "SUPERSEDED"):
        bad(*stages, executionMode="QUEUED")
    with refused("ValidationException", "KMS"):
        declaration = pipelines.declare("bad", *stages)
        declaration["artifactStore"]["encryptionKey"] = {"id": "x", "type": "KMS"}
        codepipeline.create_pipeline(pipeline=declaration)
    codepipeline.delete_pipeline(name=name)
    codepipeline.delete_pipeline(name=name)


TEMPLATE = """
Parameters: {Bucket: {Type: String}, Role: {Type: String}, EventsRole: {Type: String}, Disabled: {Type: String, Default: "no"}}
Conditions: {Disabled: !Equals [!Ref Disabled, "yes"]}
Resources:
  Repository: {Type: AWS::CodeCommit::Repository, Properties: {RepositoryName: stacked-pipeline}}
  Pipeline:
    Type: AWS::CodePipeline::Pipeline
    Properties:
      RoleArn: !Ref Role
      ArtifactStore: {Type: S3, Location: !Ref Bucket}
      RestartExecutionOnUpdate: false
      DisableInboundStageTransitions:
        - !If [Disabled, {StageName: Deploy, Reason: frozen}, !Ref AWS::NoValue]
      Stages:
        - Name: Source
          Actions:
            - Name: Source
              ActionTypeId: {Category: Source, Owner: AWS, Provider: CodeCommit, Version: "1"}
              Configuration: {RepositoryName: !GetAtt Repository.Name, BranchName: main, PollForSourceChanges: false}
              OutputArtifacts: [{Name: App}]
        - Name: Deploy
          Actions:
            - Name: Deploy
              ActionTypeId: {Category: Deploy, Owner: AWS, Provider: CloudFormation, Version: "1"}
              Configuration:
                ActionMode: CREATE_UPDATE
                StackName: stacked-by-pipeline
                TemplatePath: App::template.yaml
                ParameterOverrides: '{"Name": "/stacked/pipeline"}'
              InputArtifacts: [{Name: App}]
  Rule:
    Type: AWS::Events::Rule
    Properties:
      EventPattern:
        source: [aws.codecommit]
        detail-type: [CodeCommit Repository State Change]
        resources: [!GetAtt Repository.Arn]
        detail: {event: [referenceCreated, referenceUpdated], referenceType: [branch], referenceName: [main]}
      Targets:
        - Arn: !Sub arn:aws:codepipeline:${AWS::Region}:${AWS::AccountId}:${Pipeline}
          RoleArn: !Ref EventsRole
          Id: pipeline
Outputs: {Name: {Value: !Ref Pipeline}, Version: {Value: !GetAtt Pipeline.Version}, Url: {Value: !GetAtt Repository.CloneUrlHttp}}
"""


def test_the_template_that_teams_have(neargate, pipelines, tmp_path):
    """Repository, pipeline and the rule that starts it in one stack; then a push, and its events."""
    role = pipelines.iam.create_role(RoleName="starts-pipelines", AssumeRolePolicyDocument=trust("events.amazonaws.com"))["Role"]["Arn"]
    pipelines.iam.put_role_policy(RoleName="starts-pipelines", PolicyName="own", PolicyDocument=allow("codepipeline:StartPipelineExecution"))
    stacks, listening = Stacks(neargate), Listening(neargate)
    told = listening.rule({"source": ["aws.codepipeline"], "detail": {"pipeline": [{"prefix": "with-a-pipeline"}]}})
    parameters = lambda **more: [
        {"ParameterKey": k, "ParameterValue": v} for k, v in {"Bucket": pipelines.bucket, "Role": pipelines.role, "EventsRole": role, **more}.items()
    ]
    stacks.create("with-a-pipeline", TEMPLATE, Parameters=parameters())
    outputs = stacks.outputs("with-a-pipeline")
    name = outputs["Name"]
    pipelines.ends(name, pipelines.executions(name)[0]["pipelineExecutionId"], "Failed")
    git = Git(neargate, tmp_path)
    tree = git.work(outputs["Url"])
    tip = git.commit(tree, "template.yaml", PARAMETER.decode())
    git("push", "-q", "origin", "main", cwd=tree)
    execution = eventually(lambda: pipelines.executions(name)[1:], "the rule began an execution")[0]
    assert execution["trigger"]["triggerType"] == "CloudWatchEvent"
    id = execution["pipelineExecutionId"]
    pipelines.ends(name, id)
    assert pipelines.ssm.get_parameter(Name="/stacked/pipeline")["Parameter"]["Value"] == "none"
    own = lambda: [event for event in listening.heard(told) if event["detail"]["execution-id"] == id]
    eventually(lambda: any(e["detail-type"].startswith("CodePipeline Pipeline") and e["detail"]["state"] == "SUCCEEDED" for e in own()), "it is told")
    states = {(e["detail-type"].split()[1], e["detail"].get("stage"), e["detail"].get("action"), e["detail"]["state"]) for e in own()}
    assert states == {
        ("Pipeline", None, None, "STARTED"), ("Pipeline", None, None, "SUCCEEDED"),
        ("Stage", "Source", None, "STARTED"), ("Stage", "Source", None, "SUCCEEDED"),
        ("Stage", "Deploy", None, "STARTED"), ("Stage", "Deploy", None, "SUCCEEDED"),
        ("Action", "Source", "Source", "STARTED"), ("Action", "Source", "Source", "SUCCEEDED"),
        ("Action", "Deploy", "Deploy", "STARTED"), ("Action", "Deploy", "Deploy", "SUCCEEDED"),
    }
    sourced = next(e for e in own() if e["detail"].get("action") == "Source" and e["detail"]["state"] == "SUCCEEDED")
    assert sourced["detail"]["execution-result"]["external-execution-id"] == tip
    assert sourced["detail"]["type"] == {"owner": "AWS", "category": "Source", "provider": "CodeCommit", "version": "1"}

    stacks.update("with-a-pipeline", TEMPLATE, Parameters=parameters(Disabled="yes"))
    assert stacks.outputs("with-a-pipeline")["Version"] == "2"
    assert pipelines.stage(name, "Deploy")["inboundTransitionState"]["enabled"] is False
    stacks.update("with-a-pipeline", TEMPLATE, Parameters=parameters())
    assert pipelines.stage(name, "Deploy")["inboundTransitionState"]["enabled"] is True
    stacks.delete("with-a-pipeline")
    with refused("PipelineNotFoundException"):
        pipelines.codepipeline.get_pipeline(name=name)
    stacks.delete("stacked-by-pipeline")
    listening.forget(told)


def test_images_as_a_source(neargate, pipelines, stack):
    """ECR as a source, and an action with a role of its own."""
    trusts = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}
    own = pipelines.iam.create_role(RoleName="reads-images", AssumeRolePolicyDocument=json.dumps(trusts))["Role"]["Arn"]
    pipelines.iam.put_role_policy(RoleName="reads-images", PolicyName="own", PolicyDocument=allow("ecr:Describe*"))
    image = {
        "name": "Image", "namespace": "image", "roleArn": own, "outputArtifacts": [{"name": "Image"}],
        "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "ECR", "version": "1"},
        "configuration": {"RepositoryName": "busybox", "ImageTag": "latest"},
    }
    name = pipelines.create(("Source", [image]), ("Approval", [approval(configuration={"CustomData": "#{image.ImageURI}"})]))
    first = pipelines.executions(name)[0]["pipelineExecutionId"]
    failed = pipelines.ends(name, first, "Failed")
    assert "s3:PutObject" in failed["statusSummary"] or "AccessDenied" in failed["statusSummary"], failed
    pipelines.iam.put_role_policy(RoleName="reads-images", PolicyName="own", PolicyDocument=allow("ecr:Describe*", "s3:*"))
    id = pipelines.start(name)
    token = pipelines.approval(name, id)
    found = pipelines.action(name, "Image", id)["output"]
    digest = found["outputVariables"]["ImageDigest"]
    assert found["outputVariables"]["ImageURI"] == stack.image.replace(":latest", f"@{digest}")
    place = found["outputArtifacts"][0]["s3location"]
    archive = zipfile.ZipFile(io.BytesIO(pipelines.s3.get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read()))
    assert json.loads(archive.read("imageDetail.json"))["ImageURI"] == found["outputVariables"]["ImageURI"]
    assert pipelines.action(name, "Approve", id)["input"]["resolvedConfiguration"]["CustomData"] == found["outputVariables"]["ImageURI"]
    pipelines.decide(name, token)
    pipelines.ends(name, id)


def test_an_object_as_a_source(pipelines):
    """S3 as a source; EventBridge, which the bucket tells, starts the pipeline as AWS's own rule does."""
    bucket, s3, events = f"source-{os.urandom(4).hex()}", pipelines.s3, pipelines.events
    s3.create_bucket(Bucket=bucket)
    archive = {"name": "Archive", "namespace": "archive", "outputArtifacts": [{"name": "Archive"}]}
    archive["actionTypeId"] = {"category": "Source", "owner": "AWS", "provider": "S3", "version": "1"}
    archive["configuration"] = {"S3Bucket": bucket, "S3ObjectKey": "app.zip", "PollForSourceChanges": "false"}
    s3.put_object(Bucket=bucket, Key="app.zip", Body=b"zero")
    name = pipelines.create(("Source", [archive]), ("Approval", [approval(configuration={"CustomData": "#{archive.ETag}"})]))

    def fails(says):
        failed = pipelines.ends(name, pipelines.executions(name)[-1]["pipelineExecutionId"], "Failed")
        assert says in failed["statusSummary"], failed

    fails("versioning")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    pipelines.codepipeline.update_pipeline(pipeline=pipelines.declare(name, ("Source", [{**archive, "configuration": {**archive["configuration"], "S3ObjectKey": "none"}}]), ("Approval", [approval()])))
    pipelines.start(name)
    fails("NoSuchKey")
    pipelines.codepipeline.update_pipeline(pipeline=pipelines.declare(name, ("Source", [archive]), ("Approval", [approval(configuration={"CustomData": "#{archive.ETag}"})])))
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [bucket]}, "object": {"key": ["app.zip"]}}}
    role = f"start-{bucket}"
    arn = pipelines.iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust("events.amazonaws.com"))["Role"]["Arn"]
    pipelines.iam.put_role_policy(RoleName=role, PolicyName="start", PolicyDocument=allow("codepipeline:StartPipelineExecution"))
    pipeline = pipelines.codepipeline.get_pipeline(name=name)["metadata"]["pipelineArn"]
    events.put_rule(Name=bucket, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=bucket, Targets=[{"Id": "pipeline", "Arn": pipeline, "RoleArn": arn}])
    before = len(pipelines.executions(name))
    s3.put_object(Bucket=bucket, Key="other.zip", Body=b"no source")
    version = s3.put_object(Bucket=bucket, Key="app.zip", Body=b"one")["VersionId"]
    begun = eventually(lambda: pipelines.executions(name)[before:], "an execution for the object")[0]
    assert pipelines.approval(name, begun["pipelineExecutionId"])
    found = pipelines.action(name, "Archive", begun["pipelineExecutionId"])["output"]
    assert (found["outputVariables"]["VersionId"], found["outputVariables"]["BucketName"]) == (version, bucket)
    place = found["outputArtifacts"][0]["s3location"]
    assert s3.get_object(Bucket=place["bucket"], Key=place["key"])["Body"].read() == b"one"
    s3.put_object(Bucket=bucket, Key="app.zip", Body=b"two")
    eventually(lambda: pipelines.executions(name)[before + 1 :], "an execution for the newer object")
    # A version that is asked for.
    id = pipelines.start(name, sourceRevisions=[{"actionName": "Archive", "revisionType": "S3_OBJECT_VERSION_ID", "revisionValue": version}])
    eventually(lambda: (pipelines.action(name, "Archive", id) or {}).get("status") == "Succeeded", "the source")
    assert pipelines.action(name, "Archive", id)["output"]["outputVariables"]["VersionId"] == version
    events.remove_targets(Rule=bucket, Ids=["pipeline"])
    events.delete_rule(Name=bucket)
    pipelines.codepipeline.delete_pipeline(name=name)


def test_no_execution_is_lost_or_run_twice_in_crashes(tmp_path):
    """`kill -9` again and again while pushes go through a pipeline: each is one execution, and the last one wins."""
    plane = Neargate(tmp_path / "data", PORT + 19).start()
    seed = random.randrange(1 << 30)
    print("seed", seed)
    luck = random.Random(seed)
    try:
        pipelines = Pipelines(plane)
        repository = pipelines.repository()
        pipelines.commit(repository, template__yaml=PARAMETER)
        of = dict(ActionMode="CREATE_UPDATE", StackName="crashes", TemplatePath="SourceOutput::template.yaml")
        overrides = json.dumps({"Name": "/crashes", "Value": "#{source.CommitId}"})
        name = pipelines.create(("Source", [source(repository, poll="true")]), ("Deploy", [deploy("CloudFormation", ParameterOverrides=overrides, **of)]))
        pipelines.ends(name, pipelines.executions(name)[0]["pipelineExecutionId"])
        bucket, role = pipelines.bucket, pipelines.role
        tips = []
        for turn in range(12):
            tips.append(pipelines.commit(repository, **{f"file{turn}": b"x"}))
            time.sleep(luck.random() * 0.4)
            plane.kill()
            plane.start()
            pipelines.__dict__.update({service: plane.client(service) for service in ["codepipeline", "codecommit", "ssm"]})

        def settled():
            found = pipelines.executions(name)
            return found if all(one["status"] not in ["InProgress", "Stopping"] for one in found) else None

        def last():
            found = settled()
            revisions = [one["sourceRevisions"][0]["revisionId"] for one in found or [] if one["sourceRevisions"]]
            return found if revisions and revisions[-1] == tips[-1] else None

        found = eventually(last, "all executions are over", 120)
        assert all(one["status"] in ["Succeeded", "Superseded"] for one in found), found
        assert found[-1]["status"] == "Succeeded"
        assert pipelines.ssm.get_parameter(Name="/crashes")["Parameter"]["Value"] == tips[-1]
        # One execution for the creation, and at most one for each push: what came while the plane was down or busy was
        # seen together.
        assert len(found) <= 1 + len(tips)
        begun = [one["sourceRevisions"][0]["revisionId"] for one in found[1:] if one["sourceRevisions"]]
        assert begun == sorted(begun, key=tips.index), "in the order of the pushes"
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)
