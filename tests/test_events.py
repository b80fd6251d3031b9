"""EventBridge: what happens reaches those whose rules ask for it, once, through crashes."""

import json
import os
import time

import pytest

from conftest import PORT, Neargate, eventually, push
from test_cloudformation import Stacks
from test_codecommit import Git, refused

ACCOUNT_ARN = "arn:aws:{}:us-east-1:{}:{}"


class Listening:
    """Rules whose events go to a log group, where they are read."""

    def __init__(self, plane):
        self.events, self.logs = plane.client("events"), plane.client("logs")
        self.account = plane.client("sts").get_caller_identity()["Account"]

    def arn(self, service, resource):
        return ACCOUNT_ARN.format(service, self.account, resource)

    def rule(self, pattern, **target):
        name = f"rule-{os.urandom(5).hex()}"
        group = f"/aws/events/{name}"
        self.logs.create_log_group(logGroupName=group)
        self.events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        target = {"Id": "log", "Arn": self.arn("logs", f"log-group:{group}"), **target}
        assert self.events.put_targets(Rule=name, Targets=[target])["FailedEntryCount"] == 0
        return name

    def forget(self, name):
        self.events.remove_targets(Rule=name, Ids=["log"])
        self.events.delete_rule(Name=name)
        self.logs.delete_log_group(logGroupName=f"/aws/events/{name}")

    def texts(self, name):
        answer = self.logs.filter_log_events(logGroupName=f"/aws/events/{name}")
        return [event["message"] for event in answer["events"]]

    def heard(self, name):
        return [json.loads(text) for text in self.texts(name)]

    def hear(self, name, wanted, what="the event", seconds=60):
        """The first event for which `wanted` is true."""
        return eventually(lambda: next((e for e in self.heard(name) if wanted(e)), None), what, seconds)


@pytest.fixture(scope="module")
def listening(neargate):
    return Listening(neargate)


def test_events_of_ones_own(listening):
    events = listening.events
    name = listening.rule({"source": ["my.app"], "detail": {"size": [{"numeric": [">", 5]}]}})
    entry = {"Source": "my.app", "DetailType": "Order", "Detail": json.dumps({"size": 7, "of": "ü"}), "Resources": ["arn:x"]}
    answer = events.put_events(
        Entries=[
            entry,
            {**entry, "Detail": json.dumps({"size": 3})},
            {**entry, "Detail": "no JSON"},
            {**entry, "Source": "aws.ecs"},
            {"Source": "my.app", "Detail": "{}"},
            {**entry, "EventBusName": "other"},
        ]
    )
    codes = [entry.get("ErrorCode") for entry in answer["Entries"]]
    assert codes == [None, None, "MalformedDetail", "NotAuthorizedForSourceException", "InvalidArgument", "ResourceNotFoundException"]
    assert answer["FailedEntryCount"] == 4
    event = listening.hear(name, lambda event: True)
    assert event["id"] == answer["Entries"][0]["EventId"]
    assert {k: event[k] for k in ["version", "detail-type", "source", "account", "region", "resources", "detail"]} == {
        "version": "0",
        "detail-type": "Order",
        "source": "my.app",
        "account": listening.account,
        "region": "us-east-1",
        "resources": ["arn:x"],
        "detail": {"size": 7, "of": "ü"},
    }
    time.strptime(event["time"], "%Y-%m-%dT%H:%M:%SZ")
    # Disabled, it hears nothing; the marker that comes after tells that nothing is still on its way.
    events.disable_rule(Name=name)
    assert events.describe_rule(Name=name)["State"] == "DISABLED"
    events.put_events(Entries=[{**entry, "Detail": json.dumps({"size": 8})}])
    events.enable_rule(Name=name)
    events.put_events(Entries=[{**entry, "Detail": json.dumps({"size": 9})}])
    listening.hear(name, lambda event: event["detail"]["size"] == 9)
    assert sorted(event["detail"]["size"] for event in listening.heard(name)) == [7, 9]
    with refused("ValidationException", "over the limit"):
        events.put_events(Entries=[{**entry, "Detail": json.dumps({"x": "y" * (256 << 10)})}])
    listening.forget(name)


def test_what_targets_get(listening):
    constant = listening.rule({"source": ["inputs"]}, Input=json.dumps({"hello": "there"}))
    part = listening.rule({"source": ["inputs"]}, InputPath="$.detail.list[1]")
    made = listening.rule(
        {"source": ["inputs"]},
        InputTransformer={
            "InputPathsMap": {"who": "$.detail.who", "all": "$.detail"},
            "InputTemplate": '{"text": "<who> by <aws.events.rule-name>", "all": <all>}',
        },
    )
    detail = {"who": 'a "b"', "list": [1, {"two": 2}]}
    listening.events.put_events(Entries=[{"Source": "inputs", "DetailType": "x", "Detail": json.dumps(detail)}])
    assert listening.hear(constant, lambda event: True) == {"hello": "there"}
    assert listening.hear(part, lambda event: True) == {"two": 2}
    assert listening.hear(made, lambda event: True) == {"text": f'a "b" by {made}', "all": detail}
    for name in [constant, part, made]:
        listening.forget(name)


def test_rules_and_targets(neargate, listening):
    events = listening.events
    pattern = json.dumps({"source": ["x"]})
    arn = events.put_rule(Name="kept", EventPattern=pattern, Description="one", Tags=[{"Key": "a", "Value": "b"}])["RuleArn"]
    assert arn == listening.arn("events", "rule/kept")
    found = events.describe_rule(Name="kept", EventBusName="default")
    assert (found["EventPattern"], found["State"], found["Description"], found["EventBusName"]) == (pattern, "ENABLED", "one", "default")
    assert [rule["Name"] for rule in events.list_rules(NamePrefix="kep")["Rules"]] == ["kept"]
    events.tag_resource(ResourceARN=arn, Tags=[{"Key": "c", "Value": "d"}])
    events.untag_resource(ResourceARN=arn, TagKeys=["a"])
    assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "c", "Value": "d"}]
    group = listening.arn("logs", "log-group:/aws/events/kept")
    events.put_targets(Rule="kept", Targets=[{"Id": "a", "Arn": group}, {"Id": "b", "Arn": group, "Input": "{}"}])
    assert [target["Id"] for target in events.list_targets_by_rule(Rule="kept")["Targets"]] == ["a", "b"]
    assert events.list_rule_names_by_target(TargetArn=group)["RuleNames"] == ["kept"]
    # Put anew, it keeps targets and tags.
    events.put_rule(Name="kept", EventPattern=pattern, State="DISABLED")
    assert len(events.list_targets_by_rule(Rule="kept")["Targets"]) == 2
    assert "Description" not in events.describe_rule(Name="kept")
    with refused("LimitExceededException"):
        events.put_targets(Rule="kept", Targets=[{"Id": f"t{n}", "Arn": group} for n in range(4)])
    with refused("ValidationException", "has targets"):
        events.delete_rule(Name="kept")
    gone = events.remove_targets(Rule="kept", Ids=["a", "b", "c"])
    assert [(entry["TargetId"], entry["ErrorCode"]) for entry in gone["FailedEntries"]] == [("c", "ResourceNotFoundException")]
    cluster = listening.arn("ecs", "cluster/tests")
    for says, target in [
        ("correct format", {"Arn": "nonsense"}),
        ("service sqs", {"Arn": listening.arn("sqs", "queue")}),
        ("another account or region", {"Arn": "arn:aws:logs:eu-west-1:1:log-group:/aws/events/x"}),
        ("/aws/events/", {"Arn": listening.arn("logs", "log-group:/mine")}),
        ("EcsParameters", {"Arn": cluster}),
        ("RoleArn", {"Arn": cluster, "EcsParameters": {"TaskDefinitionArn": "x"}}),
        ("JSON syntax", {"Arn": group, "Input": "{"}),
        ("InputPath", {"Arn": group, "InputPath": "detail"}),
        ("Only one of", {"Arn": group, "Input": "{}", "InputPath": "$"}),
        ("placeholder nobody", {"Arn": group, "InputTransformer": {"InputTemplate": "<nobody>"}}),
        ("SQS", {"Arn": group, "DeadLetterConfig": {"Arn": listening.arn("sqs", "queue")}}),
    ]:
        with refused("ValidationException", says):
            events.put_targets(Rule="kept", Targets=[{"Id": "a", **target}])
    events.delete_rule(Name="kept")
    events.delete_rule(Name="kept")
    with refused("ResourceNotFoundException", "Rule kept does not exist"):
        events.describe_rule(Name="kept")
    with refused("InvalidEventPatternException", "Reason: "):
        events.put_rule(Name="bad", EventPattern="{}")
    with refused("ValidationException", "must be specified"):
        events.put_rule(Name="bad")
    with refused("ValidationException", "schedules"):
        events.put_rule(Name="bad", ScheduleExpression="rate(1 minute)")
    with refused("ResourceNotFoundException", "Event bus other"):
        events.put_rule(Name="bad", EventPattern=pattern, EventBusName="other")
    event = {"id": "1", "account": "1", "source": "x", "time": "t", "region": "r", "resources": [], "detail-type": "d", "detail": {}}
    assert events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"] is True
    assert events.test_event_pattern(EventPattern=json.dumps({"source": ["y"]}), Event=json.dumps(event))["Result"] is False
    assert events.describe_event_bus()["Arn"] == listening.arn("events", "event-bus/default")
    assert [bus["Name"] for bus in events.list_event_buses()["EventBuses"]] == ["default"]
    assert neargate.aws("events", "list-rules", "--name-prefix", "kept").returncode == 0


def test_a_push_is_told(neargate, listening, tmp_path):
    codecommit = neargate.client("codecommit")
    made = codecommit.create_repository(repositoryName="told")["repositoryMetadata"]
    name = listening.rule({"source": ["aws.codecommit"], "detail": {"referenceType": ["branch"], "referenceName": ["main"]}})
    git = Git(neargate, tmp_path)
    tree = git.work(made["cloneUrlHttp"])
    first = git.commit(tree, "a", "a")
    git("push", "-q", "origin", "main", "HEAD:refs/heads/other", cwd=tree)
    event = listening.hear(name, lambda event: event["detail"]["event"] == "referenceCreated")
    arn = neargate.client("sts").get_caller_identity()["Arn"]
    assert event["detail-type"] == "CodeCommit Repository State Change" and event["resources"] == [made["Arn"]]
    assert event["detail"] == {
        "event": "referenceCreated",
        "repositoryName": "told",
        "repositoryId": made["repositoryId"],
        "referenceType": "branch",
        "referenceName": "main",
        "referenceFullName": "refs/heads/main",
        "commitId": first,
        "callerUserArn": arn,
    }
    second = codecommit.put_file(repositoryName="told", branchName="main", filePath="b", fileContent=b"b", parentCommitId=first)["commitId"]
    event = listening.hear(name, lambda event: event["detail"]["event"] == "referenceUpdated")
    assert (event["detail"]["commitId"], event["detail"]["oldCommitId"]) == (second, first)
    codecommit.update_default_branch(repositoryName="told", defaultBranchName="other")
    git("push", "-q", "origin", ":main", cwd=tree)
    event = listening.hear(name, lambda event: event["detail"]["event"] == "referenceDeleted")
    assert event["detail"]["commitId"] == second
    assert len(listening.heard(name)) == 3, "nothing of the other branch"
    listening.forget(name)
    codecommit.delete_repository(repositoryName="told")


def test_images_are_told(neargate, listening, tmp_path):
    name = listening.rule({"source": ["aws.ecr"], "detail": {"repository-name": ["told"]}})
    push(neargate, tmp_path, "told")
    event = listening.hear(name, lambda event: event["detail"]["action-type"] == "PUSH")
    digest = event["detail"]["image-digest"]
    assert event["detail-type"] == "ECR Image Action" and event["resources"] == []
    assert event["detail"] == {
        "result": "SUCCESS", "repository-name": "told", "image-digest": digest, "action-type": "PUSH", "image-tag": "latest",
    }
    ecr = neargate.client("ecr")
    ecr.batch_delete_image(repositoryName="told", imageIds=[{"imageDigest": digest}])
    event = listening.hear(name, lambda event: event["detail"]["action-type"] == "DELETE")
    assert event["detail"]["image-tag"] == "latest"
    listening.forget(name)
    ecr.delete_repository(repositoryName="told", force=True)


def test_a_task_runs_for_an_event_and_is_told(neargate, listening, stack):
    """A rule runs a task, whose states are events themselves."""
    states = listening.rule({"detail-type": ["ECS Task State Change"], "detail": {"startedBy": ["events-rule/run"]}})
    iam, events = neargate.client("iam"), listening.events
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="events-run", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    allowed = [{"Effect": "Allow", "Action": ["ecs:RunTask", "iam:PassRole"], "Resource": "*"}]
    iam.put_role_policy(RoleName="events-run", PolicyName="own", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": allowed}))
    definition = stack.define(stack.container(command="echo hello $WHO; exit 3"))
    events.put_rule(Name="run", EventPattern=json.dumps({"source": ["run.it"]}))
    network = {"Subnets": [stack.subnet], "SecurityGroups": [stack.open_group], "AssignPublicIp": "ENABLED"}
    target = {
        "Id": "task",
        "Arn": listening.arn("ecs", "cluster/tests"),
        "RoleArn": role,
        "EcsParameters": {"TaskDefinitionArn": definition, "LaunchType": "FARGATE", "NetworkConfiguration": {"awsvpcConfiguration": network}},
        "InputTransformer": {
            "InputPathsMap": {"who": "$.detail.who"},
            "InputTemplate": '{"containerOverrides": [{"name": "main", "environment": [{"name": "WHO", "value": <who>}]}]}',
        },
    }
    events.put_targets(Rule="run", Targets=[target])
    events.put_events(Entries=[{"Source": "run.it", "DetailType": "x", "Detail": json.dumps({"who": "World"})}])
    stopped = listening.hear(states, lambda event: event["detail"]["lastStatus"] == "STOPPED", seconds=90)
    task = stopped["detail"]["taskArn"]
    assert stopped["resources"] == [task] and stopped["source"] == "aws.ecs"
    detail, described = stopped["detail"], stack.describe(task)
    assert (detail["stopCode"], detail["stoppedReason"], detail["group"]) == ("EssentialContainerExited", described["stoppedReason"], described["group"])
    assert detail["containers"][0]["exitCode"] == 3 and detail["version"] == described["version"]
    assert detail["startedBy"] == "events-rule/run" and detail["clusterArn"] == target["Arn"]
    assert detail["createdAt"][:19] == described["createdAt"].strftime("%Y-%m-%dT%H:%M:%S")
    assert stack.lines(task) == ["hello World"]
    told = eventually(
        lambda: (lambda all: all if "PENDING" in [d["lastStatus"] for d in all] else None)(
            sorted((event["detail"] for event in listening.heard(states)), key=lambda detail: detail["version"])
        ),
        "all states",
    )
    states_told = [detail["lastStatus"] for detail in told]
    assert states_told[0] == "PROVISIONING" and states_told[-1] == "STOPPED" and "RUNNING" in states_told
    assert [detail["version"] for detail in told] == sorted({detail["version"] for detail in told}), "each state once"
    assert {detail["taskArn"] for detail in told} == {task}, "one event, one task"

    # Without the right to run it, nothing runs, and the event is given up at once.
    iam.delete_role_policy(RoleName="events-run", PolicyName="own")
    events.put_events(Entries=[{"Source": "run.it", "DetailType": "x", "Detail": json.dumps({"who": "nobody"})}])
    log = neargate.data_dir.parent / f"{neargate.data_dir.name}.log"
    eventually(lambda: "is given up" in log.read_text() and "ecs:RunTask" in log.read_text(), "the refusal is logged")
    events.remove_targets(Rule="run", Ids=["task"])
    events.delete_rule(Name="run")
    listening.forget(states)


def test_deployments_are_told(neargate, listening, stack):
    name = listening.rule({"source": ["aws.ecs"], "resources": [{"suffix": ":service/tests/told"}]})
    network = {"awsvpcConfiguration": {"subnets": [stack.subnet], "securityGroups": [stack.open_group], "assignPublicIp": "ENABLED"}}
    definition = stack.define(stack.container(command="trap exit TERM; sleep 1000 & wait"))
    stack.ecs.create_service(
        cluster="tests", serviceName="told", taskDefinition=definition, desiredCount=1, launchType="FARGATE", networkConfiguration=network,
        deploymentConfiguration={"deploymentCircuitBreaker": {"enable": True, "rollback": False}},
    )
    named = lambda what: lambda event: event["detail"].get("eventName") == what
    event = listening.hear(name, named("SERVICE_DEPLOYMENT_IN_PROGRESS"))
    assert event["detail-type"] == "ECS Deployment State Change" and event["detail"]["deploymentId"].startswith("ecs-svc/")
    done = listening.hear(name, named("SERVICE_DEPLOYMENT_COMPLETED"))["detail"]
    assert done["deploymentId"] == event["detail"]["deploymentId"] and done["reason"] == f"ECS deployment {done['deploymentId']} completed."
    steady = listening.hear(name, named("SERVICE_STEADY_STATE"))
    assert steady["detail-type"] == "ECS Service Action" and steady["detail"]["clusterArn"] == listening.arn("ecs", "cluster/tests")
    broken = stack.define(stack.container(image=stack.image + "-missing"))
    stack.ecs.update_service(cluster="tests", service="told", taskDefinition=broken)
    failed = listening.hear(name, named("SERVICE_DEPLOYMENT_FAILED"), seconds=120)["detail"]
    assert failed["eventType"] == "ERROR" and failed["deploymentId"] != done["deploymentId"]
    stack.ecs.delete_service(cluster="tests", service="told", force=True)
    listening.forget(name)


TEMPLATE = """
Parameters: {State: {Type: String, Default: ENABLED}, Second: {Type: String, Default: "no"}}
Conditions: {Second: !Equals [!Ref Second, "yes"]}
Resources:
  Group: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: /aws/events/stacked}}
  Rule:
    Type: AWS::Events::Rule
    Properties:
      State: !Ref State
      EventPattern: {source: [stacked], detail: {n: [{numeric: [">", 1]}]}}
      Targets:
        - {Id: one, Arn: !GetAtt Group.Arn}
        - !If [Second, {Id: two, Arn: !GetAtt Group.Arn, InputPath: $.detail}, !Ref AWS::NoValue]
Outputs: {Name: {Value: !Ref Rule}, Arn: {Value: !GetAtt Rule.Arn}}
"""


def test_in_a_stack(neargate, listening):
    stacks = Stacks(neargate)
    stacks.create("with-a-rule", TEMPLATE)
    outputs = stacks.outputs("with-a-rule")
    assert outputs["Name"].startswith("with-a-rule-Rule-") and outputs["Arn"] == listening.arn("events", f"rule/{outputs['Name']}")
    put = lambda n: listening.events.put_events(Entries=[{"Source": "stacked", "DetailType": "x", "Detail": json.dumps({"n": n})}])
    put(1)
    put(2)
    assert listening.hear("stacked", lambda event: True)["detail"] == {"n": 2}
    targets = lambda: [target["Id"] for target in listening.events.list_targets_by_rule(Rule=outputs["Name"])["Targets"]]
    assert targets() == ["one"]
    parameters = [{"ParameterKey": "State", "ParameterValue": "DISABLED"}, {"ParameterKey": "Second", "ParameterValue": "yes"}]
    stacks.update("with-a-rule", TEMPLATE, Parameters=parameters)
    assert targets() == ["one", "two"] and listening.events.describe_rule(Name=outputs["Name"])["State"] == "DISABLED"
    stacks.update("with-a-rule", TEMPLATE)
    assert targets() == ["one"]
    stacks.delete("with-a-rule")
    with refused("ResourceNotFoundException"):
        listening.events.describe_rule(Name=outputs["Name"])


def test_no_event_is_lost_in_a_crash(tmp_path):
    """`kill -9` right after the acknowledgement: every event arrives."""
    plane = Neargate(tmp_path / "data", PORT + 18).start()
    try:
        listening = Listening(plane)
        name = listening.rule({"source": ["crash"]})
        sent = []
        for round in range(3):
            for number in range(20):
                detail = json.dumps({"n": f"{round}-{number}"})
                answer = listening.events.put_events(Entries=[{"Source": "crash", "DetailType": "x", "Detail": detail}] * 3)
                sent += [entry["EventId"] for entry in answer["Entries"]]
            plane.kill()
            plane.start()
            listening = Listening(plane)
        eventually(lambda: {event["id"] for event in listening.heard(name)} == set(sent), "all have arrived", 60)
        assert len(set(sent)) == 180
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)
