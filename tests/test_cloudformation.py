"""Stacks: templates carried out, changed, rolled back and deleted, through crashes too."""

import json
import subprocess
import urllib.request
import uuid

import pytest
from botocore.exceptions import ClientError, WaiterError

from conftest import PORT, ROOT, Neargate, eventually
from test_service_balanced import LISTENER, PAGE

PATTERNS = ROOT / "patterns"
QUICK = {"Delay": 1, "MaxAttempts": 180}


def refused(code, words, call, **more):
    with pytest.raises(ClientError) as error:
        call(**more)
    answer = error.value.response["Error"]
    assert answer["Code"] == code and words in answer["Message"], answer


class Stacks:
    """The API, and what these tests do over and over."""

    def __init__(self, neargate):
        self.api = neargate.client("cloudformation")
        self.these = uuid.uuid4().hex[:6]

    def name(self, what):
        return f"{what}-{self.these}"

    def wait(self, what, name):
        self.api.get_waiter(f"stack_{what}_complete").wait(StackName=name, WaiterConfig=QUICK)

    def describe(self, name):
        return self.api.describe_stacks(StackName=name)["Stacks"][0]

    def status(self, name, status):
        return eventually(lambda: self.describe(name)["StackStatus"] == status, f"{name} {status}", 120)

    def create(self, name, template, **more):
        body = template if isinstance(template, str) else json.dumps(template)
        answer = self.api.create_stack(StackName=name, TemplateBody=body, **more)["StackId"]
        try:
            self.wait("create", name)
        except WaiterError:
            raise AssertionError(self.told(answer)) from None
        return answer

    def update(self, name, template, **more):
        body = template if isinstance(template, str) else json.dumps(template)
        self.api.update_stack(StackName=name, TemplateBody=body, **more)
        try:
            self.wait("update", name)
        except WaiterError:
            raise AssertionError(self.told(name)) from None

    def delete(self, name):
        stack = self.describe(name)["StackId"]
        self.api.delete_stack(StackName=name)
        try:
            self.wait("delete", stack)
        except WaiterError:
            raise AssertionError(self.told(stack)) from None

    def events(self, name):
        """The oldest first."""
        pages = self.api.get_paginator("describe_stack_events").paginate(StackName=name)
        return [event for page in pages for event in page["StackEvents"]][::-1]

    def told(self, name):
        return [
            (event["LogicalResourceId"], event["ResourceStatus"], event.get("ResourceStatusReason"))
            for event in self.events(name)
        ]

    def outputs(self, name):
        return {output["OutputKey"]: output["OutputValue"] for output in self.describe(name).get("Outputs", [])}

    def physical(self, name, logical):
        answer = self.api.describe_stack_resource(StackName=name, LogicalResourceId=logical)
        return answer["StackResourceDetail"]["PhysicalResourceId"]


@pytest.fixture(scope="module")
def stacks(neargate):
    return Stacks(neargate)


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode().strip()


def test_a_pattern_is_deployed_changed_and_deleted(stack, stacks):
    """`aws cloudformation deploy` from nothing to a page, to another page, to nothing."""
    name, subnets = stacks.name("web"), [subnet["SubnetId"] for subnet in stack.ec2.describe_subnets()["Subnets"]]

    def deploy(words, *more):
        command = ",".join(["/bin/busybox", "sh", "-c", PAGE.format(words)])
        parameters = [
            f"Image={stack.image}", f"Vpc={stack.vpc}", f"Subnets={','.join(subnets[:2])}",
            f"ListenerPort={LISTENER}", f"Command={command}", *more,
        ]
        return stack.neargate.aws(
            "cloudformation", "deploy", "--stack-name", name, "--template-file", str(PATTERNS / "web-service.yaml"),
            "--capabilities", "CAPABILITY_IAM", "--tags", "team=tests", "--parameter-overrides", *parameters, check=False,
        )

    done = deploy("one")
    assert done.returncode == 0, (done.stderr, stacks.told(name))
    url = stacks.outputs(name)["Url"]
    assert fetch(url) == "one"
    events = stacks.told(name)
    assert events[0] == (name, "REVIEW_IN_PROGRESS", "User Initiated") and events[1] == (name, "CREATE_IN_PROGRESS", "User Initiated")
    assert events[-1] == (name, "CREATE_COMPLETE", None)
    of_the_service = [event[1:] for event in events if event[0] == "Service"]
    assert of_the_service == [("CREATE_IN_PROGRESS", None), ("CREATE_IN_PROGRESS", "Resource creation Initiated"), ("CREATE_COMPLETE", None)]

    assert "No changes to deploy" in deploy("one").stderr
    # The CLI names change sets by the second and leaves such a one behind.
    for summary in stacks.api.list_change_sets(StackName=name)["Summaries"]:
        if summary["Status"] == "FAILED":
            stacks.api.delete_change_set(StackName=name, ChangeSetName=summary["ChangeSetName"])
    before = {logical: stacks.physical(name, logical) for logical in ["Definition", "Service", "Balancer"]}
    done = deploy("two", "MaxCount=3")
    assert done.returncode == 0, (done.stderr, stacks.told(name))
    assert fetch(url) == "two"
    after = {logical: stacks.physical(name, logical) for logical in before}
    assert after["Definition"] != before["Definition"]
    assert (after["Service"], after["Balancer"]) == (before["Service"], before["Balancer"])
    touched = {event[0] for event in stacks.told(name)[len(events) :]}
    assert touched == {name, "Definition", "Service", "ScalableTarget", "ScalingPolicy"}
    old = stack.ecs.describe_task_definition(taskDefinition=before["Definition"])["taskDefinition"]
    assert old["status"] == "INACTIVE"

    stacks.delete(name)
    assert stack.neargate.client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    refused("ValidationError", f"Stack with id {name} does not exist", stacks.api.describe_stacks, StackName=name)


def parameter(value, **more):
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": value, **more}}


def template(resources, **more):
    return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources, **more}


def test_what_cannot_be_made_is_rolled_back(neargate, stacks):
    name, ssm = stacks.name("back"), neargate.client("ssm")
    ssm.put_parameter(Name=f"/{name}/taken", Type="String", Value="x")
    broken = template({
        "First": parameter("1", Name=f"/{name}/first"),
        "Second": {**parameter({"Ref": "First"}, Name=f"/{name}/taken"), "DependsOn": "First"},
        "Third": {**parameter("3"), "DependsOn": "Second"},
    })
    stack = stacks.api.create_stack(StackName=name, TemplateBody=json.dumps(broken))["StackId"]
    stacks.status(name, "ROLLBACK_COMPLETE")
    events = stacks.told(name)
    reason = next(event[2] for event in events if event[1] == "CREATE_FAILED")
    assert reason.startswith('Resource handler returned message: "The parameter already exists') and "HandlerErrorCode: AlreadyExists)" in reason, reason
    assert "(Service: Ssm, Status Code: 400, Request ID: " in reason
    assert [event[:2] for event in events] == [
        (name, "CREATE_IN_PROGRESS"),
        ("First", "CREATE_IN_PROGRESS"),
        ("First", "CREATE_IN_PROGRESS"),
        ("First", "CREATE_COMPLETE"),
        ("Second", "CREATE_IN_PROGRESS"),
        ("Second", "CREATE_FAILED"),
        (name, "ROLLBACK_IN_PROGRESS"),
        ("First", "DELETE_IN_PROGRESS"),
        ("First", "DELETE_COMPLETE"),
        (name, "ROLLBACK_COMPLETE"),
    ]
    assert events[6][2] == "The following resource(s) failed to create: [Second]. Rollback requested by user."
    assert ssm.get_parameter(Name=f"/{name}/taken")["Parameter"]["Value"] == "x"
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        ssm.get_parameter(Name=f"/{name}/first")
    refused("ValidationError", f"Stack:{stack} is in ROLLBACK_COMPLETE state and can not be updated.", stacks.api.update_stack, StackName=name, TemplateBody=json.dumps(broken))
    stacks.delete(name)
    assert stacks.describe(stack)["StackStatus"] == "DELETE_COMPLETE"


def test_a_stack_that_fails_may_go_at_once_and_a_token_makes_one(stacks):
    name = stacks.name("gone")
    bad = json.dumps(template({"Good": parameter("1"), "Bad": {**parameter("2", DataType="no such type"), "DependsOn": "Good"}}))
    stack = stacks.api.create_stack(StackName=name, TemplateBody=bad, OnFailure="DELETE")["StackId"]
    eventually(lambda: stacks.describe(stack)["StackStatus"] == "DELETE_COMPLETE", "it is deleted")
    assert (name, "DELETE_IN_PROGRESS", "The following resource(s) failed to create: [Bad]. Delete requested by user.") in stacks.told(stack)
    good = dict(StackName=name, TemplateBody=json.dumps(template({"P": parameter("1")})))
    first = stacks.api.create_stack(ClientRequestToken="once", **good)["StackId"]
    assert stacks.api.create_stack(ClientRequestToken="once", **good)["StackId"] == first != stack
    refused("AlreadyExistsException", f"Stack [{name}] already exists", stacks.api.create_stack, ClientRequestToken="twice", **good)
    stacks.wait("create", name)
    assert {event["ClientRequestToken"] for event in stacks.events(name)} == {"once"}
    stacks.delete(name)


def test_what_failed_stays_when_that_is_asked_for(stacks):
    name = stacks.name("stay")
    broken = template({"Good": parameter("1"), "Bad": {**parameter("2", DataType="no such type"), "DependsOn": "Good"}})
    stacks.api.create_stack(StackName=name, TemplateBody=json.dumps(broken), DisableRollback=True)
    stacks.status(name, "CREATE_FAILED")
    kept = stacks.physical(name, "Good")
    broken["Resources"]["Bad"]["Properties"].pop("DataType")
    stacks.update(name, broken)
    assert stacks.physical(name, "Good") == kept and stacks.physical(name, "Bad")
    stacks.delete(name)


def test_a_failed_update_is_rolled_back(neargate, stacks):
    """What was changed is changed back, what was replaced is put back, what was new is gone."""
    name, ssm = stacks.name("undo"), neargate.client("ssm")
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": f"/{name}/1", "RetentionInDays": 7}}
    first = template({
        "Changed": parameter("old"),
        "Group": group,
        "User": parameter({"Fn::GetAtt": ["Group", "Arn"]}),
        "Removed": parameter("removed"),
    })
    stacks.create(name, first)
    before = {logical: stacks.physical(name, logical) for logical in first["Resources"]}
    group = {**group, "Properties": {"LogGroupName": f"/{name}/2", "RetentionInDays": 7}}
    last = template({
        "Changed": parameter("new"),
        "Group": group,
        "User": parameter({"Fn::GetAtt": ["Group", "Arn"]}),
        "New": {**parameter("new"), "DependsOn": "User"},
        "Bad": {**parameter("x", DataType="no such type"), "DependsOn": ["New", "Changed"]},
    })
    stacks.api.update_stack(StackName=name, TemplateBody=json.dumps(last))
    stacks.status(name, "UPDATE_ROLLBACK_COMPLETE")
    assert {logical: stacks.physical(name, logical) for logical in first["Resources"]} == before
    value = lambda logical: ssm.get_parameter(Name=before[logical])["Parameter"]["Value"]
    assert value("Changed") == "old" and value("Removed") == "removed" and f"/{name}/1" in value("User")
    groups = neargate.client("logs").describe_log_groups(logGroupNamePrefix=f"/{name}/")["logGroups"]
    assert [group["logGroupName"] for group in groups] == [f"/{name}/1"]
    events = stacks.told(name)
    assert ("Group", "UPDATE_IN_PROGRESS", "Requested update requires the creation of a new physical resource; hence creating one.") in events
    assert (name, "UPDATE_ROLLBACK_IN_PROGRESS", "The following resource(s) failed to create: [Bad]. ") in events
    of_the_stack = [event[1] for event in events if event[0] == name]
    assert of_the_stack[2:] == [
        "UPDATE_IN_PROGRESS",
        "UPDATE_ROLLBACK_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE",
    ]
    refused("ValidationError", "No updates are to be performed.", stacks.api.update_stack, StackName=name, TemplateBody=json.dumps(first))
    del last["Resources"]["Bad"]
    stacks.update(name, last)
    groups = neargate.client("logs").describe_log_groups(logGroupNamePrefix=f"/{name}/")["logGroups"]
    assert [group["logGroupName"] for group in groups] == [f"/{name}/2"]
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        value("Removed")
    stacks.delete(name)


def test_a_rollback_that_fails_goes_on_when_told_to(neargate, stacks):
    name, ssm = stacks.name("stuck"), neargate.client("ssm")
    first = template({"Kept": parameter("old"), "Other": parameter("old")})
    stacks.create(name, first)
    # Somebody deletes what the stack made: what is not there cannot be changed back.
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust("ecs-tasks"), "Description": "old"}}
    first["Resources"]["Role"] = role
    stacks.update(name, first, Capabilities=["CAPABILITY_IAM"])
    neargate.client("iam").delete_role(RoleName=stacks.physical(name, "Role"))
    last = json.loads(json.dumps(first))
    last["Resources"]["Role"]["Properties"]["Description"] = "new"
    last["Resources"]["Kept"]["Properties"]["Value"] = "new"
    last["Resources"]["Role"]["DependsOn"] = "Kept"
    stacks.api.update_stack(StackName=name, TemplateBody=json.dumps(last), Capabilities=["CAPABILITY_IAM"])
    stacks.status(name, "UPDATE_ROLLBACK_FAILED")
    refused("ValidationError", "UPDATE_ROLLBACK_FAILED state and can not be updated.", stacks.api.update_stack, StackName=name, TemplateBody=json.dumps(first), Capabilities=["CAPABILITY_IAM"])
    refused("ValidationError", "must be in status UPDATE_FAILED", stacks.api.continue_update_rollback, StackName=name, ResourcesToSkip=["Other"])
    stacks.api.continue_update_rollback(StackName=name, ResourcesToSkip=["Role"])
    stacks.status(name, "UPDATE_ROLLBACK_COMPLETE")
    assert ssm.get_parameter(Name=stacks.physical(name, "Kept"))["Parameter"]["Value"] == "old"
    stacks.delete(name)


def trust(service):
    statement = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def test_an_update_is_cancelled(stack, stacks):
    """The update waits for a service whose image is not there; cancelled, the service is what it was."""
    name = stacks.name("cancel")
    network = {"AwsvpcConfiguration": {"Subnets": [stack.subnet], "SecurityGroups": [stack.open_group], "AssignPublicIp": "ENABLED"}}

    def wanted(count, image):
        return template({
            "Definition": {"Type": "AWS::ECS::TaskDefinition", "Properties": {
                "RequiresCompatibilities": ["FARGATE"], "NetworkMode": "awsvpc", "Cpu": 256, "Memory": "512", "ExecutionRoleArn": stack.role,
                "ContainerDefinitions": [{"Name": "main", "Image": image, "Command": ["/bin/busybox", "sleep", "1000"]}],
            }},
            "Service": {"Type": "AWS::ECS::Service", "Properties": {
                "Cluster": "tests", "TaskDefinition": {"Ref": "Definition"}, "LaunchType": "FARGATE", "DesiredCount": count,
                "NetworkConfiguration": network,
            }},
        })

    stacks.create(name, wanted(1, stack.image))
    definition = stacks.physical(name, "Definition")
    stacks.api.update_stack(StackName=name, TemplateBody=json.dumps(wanted(1, "no.such.registry.invalid/none:1")))
    eventually(lambda: ("Service", "UPDATE_IN_PROGRESS", None) in stacks.told(name), "the service's update")
    refused("ValidationError", "UPDATE_IN_PROGRESS state and can not be updated.", stacks.api.update_stack, StackName=name, TemplateBody=json.dumps(wanted(0, "x")))
    stacks.api.cancel_update_stack(StackName=name)
    stacks.status(name, "UPDATE_ROLLBACK_COMPLETE")
    assert stacks.physical(name, "Definition") == definition
    service = stack.ecs.describe_services(cluster="tests", services=[stacks.physical(name, "Service")])["services"][0]
    assert service["taskDefinition"] == definition and service["runningCount"] == 1
    refused("ValidationError", "CancelUpdateStack cannot be called", stacks.api.cancel_update_stack, StackName=name)
    stacks.delete(name)


def test_what_cannot_be_deleted_is_told_and_retained(neargate, stacks, tmp_path):
    name, ecr = stacks.name("keep"), neargate.client("ecr")
    resources = {
        "Repository": {"Type": "AWS::ECR::Repository"},
        "Kept": {**parameter("kept"), "DeletionPolicy": "Retain"},
        "Gone": parameter({"Ref": "Repository"}),
    }
    stack = stacks.create(name, template(resources))
    repository, kept = stacks.physical(name, "Repository"), stacks.physical(name, "Kept")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag="x")
    stacks.api.update_termination_protection(StackName=name, EnableTerminationProtection=True)
    refused("ValidationError", f"Stack [{name}] cannot be deleted while TerminationProtection is enabled", stacks.api.delete_stack, StackName=name)
    stacks.api.update_termination_protection(StackName=name, EnableTerminationProtection=False)
    refused("ValidationError", "DELETE_FAILED", stacks.api.delete_stack, StackName=name, RetainResources=["Repository"])
    stacks.api.delete_stack(StackName=name)
    stacks.status(name, "DELETE_FAILED")
    assert (name, "DELETE_FAILED", "The following resource(s) failed to delete: [Repository]. ") in stacks.told(name)
    stacks.api.delete_stack(StackName=name, RetainResources=["Repository"])
    eventually(lambda: stacks.describe(stack)["StackStatus"] == "DELETE_COMPLETE", "the stack is gone")
    assert ("Kept", "DELETE_SKIPPED", None) in stacks.told(stack)
    assert neargate.client("ssm").get_parameter(Name=kept)["Parameter"]["Value"] == "kept"
    listed = stacks.api.list_stacks(StackStatusFilter=["DELETE_COMPLETE"])["StackSummaries"]
    assert stack in [summary["StackId"] for summary in listed]
    ecr.delete_repository(repositoryName=repository, force=True)


def test_exports_are_imported_and_kept(neargate, stacks):
    giver, taker = stacks.name("giver"), stacks.name("taker")
    export = f"{giver}-value"
    outputs = {"Out": {"Value": {"Ref": "P"}, "Export": {"Name": {"Fn::Sub": "${AWS::StackName}-value"}}, "Description": "what it is"}}
    stacks.create(giver, template({"P": parameter("x")}, Outputs=outputs))
    assert stacks.outputs(giver) == {"Out": stacks.physical(giver, "P")}
    found = [one for one in stacks.api.list_exports()["Exports"] if one["Name"] == export]
    assert found == [{"ExportingStackId": stacks.describe(giver)["StackId"], "Name": export, "Value": stacks.physical(giver, "P")}]
    refused("ValidationError", f"Export '{export}' is not imported by any stack.", stacks.api.list_imports, ExportName=export)
    stacks.create(taker, template({"Q": parameter({"Fn::ImportValue": {"Fn::Sub": giver + "-value"}})}))
    assert neargate.client("ssm").get_parameter(Name=stacks.physical(taker, "Q"))["Parameter"]["Value"] == stacks.physical(giver, "P")
    assert stacks.api.list_imports(ExportName=export)["Imports"] == [taker]
    stacks.api.update_stack(StackName=giver, TemplateBody=json.dumps(template({"P": parameter("x"), "R": parameter("y")})))
    stacks.status(giver, "UPDATE_ROLLBACK_COMPLETE")
    assert any("cannot be updated as it is in use by" in (event[2] or "") for event in stacks.told(giver))
    stacks.api.delete_stack(StackName=giver)
    stacks.status(giver, "DELETE_FAILED")
    assert f"Export {export} cannot be deleted as it is in use by {taker}" in stacks.describe(giver)["StackStatusReason"]
    twice = template({"P": parameter("x")}, Outputs={"Out": {"Value": "v", "Export": {"Name": export}}})
    other = stacks.name("other")
    stacks.api.create_stack(StackName=other, TemplateBody=json.dumps(twice))
    stacks.status(other, "ROLLBACK_COMPLETE")
    reason = f"Export with name {export} is already exported by stack {giver}. Rollback requested by user."
    assert (other, "ROLLBACK_IN_PROGRESS", reason) in stacks.told(other)
    for name in [other, taker, giver]:
        stacks.delete(name)


def test_a_change_set_tells_what_would_be_done(neargate, stacks):
    name, api = stacks.name("set"), stacks.api
    first = template({
        "Same": parameter("same"),
        "Changed": parameter("old"),
        "Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": f"/{name}/1", "RetentionInDays": 7}},
        "User": parameter({"Ref": "Group"}),
        "Gone": parameter("gone"),
    })
    made = api.create_change_set(StackName=name, ChangeSetName="first", ChangeSetType="CREATE", TemplateBody=json.dumps(first), Description="all of it")
    assert stacks.describe(name)["StackStatus"] == "REVIEW_IN_PROGRESS"
    told = api.describe_change_set(ChangeSetName=made["Id"])
    assert told["Status"] == "CREATE_COMPLETE" and told["ExecutionStatus"] == "AVAILABLE" and told["Description"] == "all of it"
    assert {change["ResourceChange"]["Action"] for change in told["Changes"]} == {"Add"} and len(told["Changes"]) == 5
    api.execute_change_set(ChangeSetName=made["Id"])
    stacks.wait("create", name)
    refused("InvalidChangeSetStatus", "cannot be executed in its current status", api.execute_change_set, ChangeSetName=made["Id"])

    last = json.loads(json.dumps(first))
    last["Resources"]["Changed"]["Properties"]["Value"] = "new"
    last["Resources"]["Group"]["Properties"]["LogGroupName"] = f"/{name}/2"
    last["Resources"]["New"] = parameter("new")
    del last["Resources"]["Gone"]
    api.create_change_set(StackName=name, ChangeSetName="none", TemplateBody=json.dumps(first))
    none = api.describe_change_set(StackName=name, ChangeSetName="none")
    assert none["Status"] == "FAILED" and none["StatusReason"].startswith("The submitted information didn't contain changes.")
    api.create_change_set(StackName=name, ChangeSetName="last", TemplateBody=json.dumps(last))
    refused("AlreadyExistsException", "last", api.create_change_set, StackName=name, ChangeSetName="last", TemplateBody=json.dumps(last))
    assert [one["ChangeSetName"] for one in api.list_change_sets(StackName=name)["Summaries"]] == ["first", "last", "none"]
    changes = {
        change["ResourceChange"]["LogicalResourceId"]: change["ResourceChange"]
        for change in api.describe_change_set(StackName=name, ChangeSetName="last")["Changes"]
    }
    assert {logical: (change["Action"], change.get("Replacement")) for logical, change in changes.items()} == {
        "Changed": ("Modify", "False"), "Group": ("Modify", "True"), "User": ("Modify", "False"), "New": ("Add", None), "Gone": ("Remove", None),
    }
    target = {"Attribute": "Properties", "Name": "LogGroupName", "RequiresRecreation": "Always"}
    assert changes["Group"]["Details"] == [{"Target": target, "Evaluation": "Static", "ChangeSource": "DirectModification"}]
    assert changes["User"]["Details"][0]["Evaluation"] == "Dynamic" and changes["User"]["Scope"] == ["Properties"]
    assert neargate.client("ssm").get_parameter(Name=stacks.physical(name, "Changed"))["Parameter"]["Value"] == "old"
    api.delete_change_set(StackName=name, ChangeSetName="none")
    api.execute_change_set(StackName=name, ChangeSetName="last")
    stacks.wait("update", name)
    assert neargate.client("ssm").get_parameter(Name=stacks.physical(name, "User"))["Parameter"]["Value"] == f"/{name}/2"
    assert api.get_template(StackName=name)["TemplateBody"]["Resources"].keys() == last["Resources"].keys()
    refused("ChangeSetNotFound", "does not exist", api.describe_change_set, StackName=name, ChangeSetName="none")
    stacks.delete(name)


def test_values_come_from_where_the_template_says(neargate, stacks):
    """Parameters, mappings, conditions, Parameter Store and Secrets Manager; what is not to be shown is not shown or stored."""
    name, ssm = stacks.name("values"), neargate.client("ssm")
    ssm.put_parameter(Name=f"/{name}/stored", Type="String", Value="from the store")
    secret = neargate.client("secretsmanager").create_secret(Name=f"{name}-secret", SecretString=json.dumps({"word": "swordfish"}))
    words = f"""
AWSTemplateFormatVersion: 2010-09-09
Description: values
Parameters:
  Stored: {{Type: "AWS::SSM::Parameter::Value<String>", Default: /{name}/stored}}
  Hidden: {{Type: String, NoEcho: true}}
  List: {{Type: CommaDelimitedList, Default: "a, b,c"}}
  Size: {{Type: Number, Default: 3, MaxValue: 5, ConstraintDescription: not so big}}
  Stage: {{Type: String, Default: test, AllowedValues: [test, prod]}}
Mappings:
  Stages: {{test: {{Size: small}}, prod: {{Size: large}}}}
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
  IsTest: !Not [!Condition IsProd]
Rules:
  BigIsProd:
    RuleCondition: !Equals [!Ref Size, 5]
    Assertions: [{{Assert: !Equals [!Ref Stage, prod], AssertDescription: only prod is big}}]
Resources:
  All:
    Type: AWS::SSM::Parameter
    Condition: IsTest
    Properties:
      Type: String
      Value: !Sub
        - "${{Stored}}|${{Own}}|${{AWS::Region}}|${{!Not}}|${{Size}}"
        - Own: !Join ["-", [!Select [1, !Ref List], !FindInMap [Stages, !Ref Stage, Size], !If [IsProd, !Ref Prod, none]]]
      Tags: !If [IsProd, {{x: y}}, !Ref AWS::NoValue]
  Prod: {{Type: AWS::SSM::Parameter, Condition: IsProd, Properties: {{Type: String, Value: p}}}}
  Secret:
    Type: AWS::SSM::Parameter
    Properties:
      Type: String
      Value: "{{{{resolve:secretsmanager:{secret['ARN']}:SecretString:word}}}} {{{{resolve:ssm:/{name}/stored}}}}"
      Description: !Ref Hidden
  Generated:
    Type: AWS::SecretsManager::Secret
    Properties:
      GenerateSecretString: {{SecretStringTemplate: '{{"user": "x"}}', GenerateStringKey: password, PasswordLength: 20, ExcludePunctuation: true}}
Outputs:
  First: {{Value: !Select [0, !Split ["|", !GetAtt All.Value]], Condition: IsTest}}
  Never: {{Value: !Ref Prod, Condition: IsProd}}
  Zone: {{Value: !Select [0, !GetAZs ""]}}
  Block: {{Value: !Select [2, !Cidr [10.0.0.0/16, 4, 8]]}}
"""
    hidden = f"hidden-{uuid.uuid4().hex}"
    stacks.create(name, words, Parameters=[{"ParameterKey": "Hidden", "ParameterValue": hidden}], Tags=[{"Key": "team", "Value": "tests"}])
    value = lambda logical: ssm.get_parameter(Name=stacks.physical(name, logical))["Parameter"]["Value"]
    assert value("All") == "from the store|b-small-none|us-east-1|${Not}|3"
    assert value("Secret") == "swordfish from the store"
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=stacks.physical(name, "All"))["TagList"]
    assert tags == [{"Key": "team", "Value": "tests"}]
    generated = neargate.client("secretsmanager").get_secret_value(SecretId=stacks.physical(name, "Generated"))["SecretString"]
    assert json.loads(generated)["user"] == "x" and len(json.loads(generated)["password"]) == 20
    assert stacks.outputs(name) == {"First": "from the store", "Zone": "us-east-1a", "Block": "10.0.2.0/24"}
    parameters = {one["ParameterKey"]: one for one in stacks.describe(name)["Parameters"]}
    assert parameters["Hidden"]["ParameterValue"] == "****" and parameters["Stored"]["ResolvedValue"] == "from the store"
    assert hidden not in json.dumps(stacks.events(name), default=str)
    assert "swordfish" not in json.dumps(stacks.events(name), default=str)
    log = (neargate.data_dir.parent / f"{neargate.data_dir.name}.log").read_text()
    assert hidden not in log and "swordfish" not in log

    given = lambda key, value: [{"ParameterKey": key, "ParameterValue": value}, {"ParameterKey": "Hidden", "UsePreviousValue": True}]
    again = dict(call=stacks.api.update_stack, StackName=name, UsePreviousTemplate=True)
    refused("ValidationError", "Parameter 'Stage' must be one of AllowedValues", Parameters=given("Stage", "x"), **again)
    refused("ValidationError", "Parameter 'Size' failed to satisfy constraint: not so big", Parameters=given("Size", "9"), **again)
    refused("ValidationError", "only prod is big", Parameters=given("Size", "5"), **again)
    refused("ValidationError", "Parameters: [Nope] do not exist in the template", Parameters=given("Nope", "1"), **again)
    refused("ValidationError", "Parameters: [Hidden] must have values", Parameters=[], **again)
    stacks.api.update_stack(StackName=name, UsePreviousTemplate=True, Parameters=given("Stage", "prod"))
    stacks.wait("update", name)
    assert stacks.physical(name, "Prod") and stacks.outputs(name)["Never"] == stacks.physical(name, "Prod")
    refused("ValidationError", "Resource All does not exist for stack", stacks.api.describe_stack_resource, StackName=name, LogicalResourceId="All")
    stacks.delete(name)


def test_templates_are_looked_at_before_anything_is_done(stacks):
    api = stacks.api
    for words, told in [
        ("Resources: {}", "Template format error: At least one Resources member must be defined."),
        ("{}", "Template format error: At least one Resources member must be defined."),
        ("{", "Template format error: JSON not well-formed."),
        ("a: [", "Template format error: YAML not well-formed."),
        ("Nope: 1", "Invalid template property or properties [Nope]"),
        ("Resources: {A: {}}", "Every Resources object must contain a Type member."),
        ("Resources: {A: {Type: 'AWS::No::Such'}}", "Template format error: Unrecognized resource types: [AWS::No::Such]"),
        ("Resources: {A: {Type: 'AWS::ECS::Cluster', Nope: 1}}", "Invalid template resource property 'Nope'"),
        ("Resources: {A-b: {Type: 'AWS::ECS::Cluster'}}", "Resource name A-b is non alphanumeric."),
        ("Resources: {A: {Type: 'AWS::ECS::Cluster', Properties: {ClusterName: !Ref B}}}", "Unresolved resource dependencies [B] in the Resources block of the template"),
        ("Resources: {A: {Type: 'AWS::ECS::Cluster', DependsOn: B}}", "Unresolved resource dependencies [B] in the Resources block of the template"),
        ("Resources: {A: {Type: 'AWS::ECS::Cluster'}}\nOutputs: {O: {Value: !Ref B}}", "Unresolved resource dependencies [B] in the Outputs block of the template"),
        ("Resources: {A: {Type: 'AWS::ECS::Cluster', Properties: {ClusterName: !GetAtt B.Arn}}}", "references undefined resource B"),
        ("Resources: {A: {Type: 'AWS::ECS::Cluster'}}\nOutputs: {O: {Value: !GetAtt A.Nope}}", "does not support attribute {Nope}"),
        ("Resources: {A: {Type: 'AWS::ECS::Cluster', Properties: {ClusterName: !If [Nope, a, b]}}}", "unresolved condition dependency Nope in Fn::If"),
        ("Transform: Nope\nResources: {A: {Type: 'AWS::ECS::Cluster'}}", "No transform named Nope found."),
    ]:
        refused("ValidationError", told, api.validate_template, TemplateBody=words)
    circle = template({"A": {"Type": "AWS::ECS::Cluster", "DependsOn": "B"}, "B": {"Type": "AWS::ECS::Cluster", "DependsOn": "A"}})
    refused("ValidationError", "Circular dependency between resources: [A, B]", api.create_stack, StackName=stacks.name("bad"), TemplateBody=json.dumps(circle))
    role = {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust("ecs")}}
    refused("InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_IAM]", api.create_stack, StackName=stacks.name("bad"), TemplateBody=json.dumps(template({"R": role})))
    summary = api.get_template_summary(TemplateBody=json.dumps(template({"R": role}, Parameters={"P": {"Type": "Number", "Default": 1}})))
    assert summary["Capabilities"] == ["CAPABILITY_IAM"] and summary["ResourceTypes"] == ["AWS::IAM::Role"]
    assert summary["Parameters"][0]["ParameterType"] == "Number" and summary["Parameters"][0]["DefaultValue"] == "1"
    # What a property is called is looked at when the resource's turn comes, as on AWS.
    name = stacks.name("names")
    api.create_stack(StackName=name, TemplateBody=json.dumps(template({"C": {"Type": "AWS::ECS::Cluster", "Properties": {"Nope": 1}}})))
    stacks.status(name, "ROLLBACK_COMPLETE")
    assert any("#: extraneous key [Nope] is not permitted" in (event[2] or "") for event in stacks.told(name))
    stacks.delete(name)
    stack = (PATTERNS / "web-service.yaml").read_text()
    parameters = {one["ParameterKey"] for one in api.validate_template(TemplateBody=stack)["Parameters"]}
    assert {"Image", "Vpc", "Subnets"} <= parameters
    for bad in ["ümlaut", "a/b", "1a", "a" * 129]:
        refused("ValidationError", "at 'stackName' failed to satisfy constraint", api.create_stack, StackName=bad, TemplateBody=stack)
    refused("ValidationError", "Stack with id nope does not exist", api.describe_stack_resources, StackName="nope")
    api.delete_stack(StackName="nope")


def test_a_role_does_what_the_caller_may_not(neargate, stacks):
    """A stack acts as its role, which must trust CloudFormation, and may do what the role may."""
    name, iam = stacks.name("role"), neargate.client("iam")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust("cloudformation")))["Role"]["Arn"]
    body = json.dumps(template({"P": parameter("x")}))
    stacks.api.create_stack(StackName=name, TemplateBody=body, RoleARN=role)
    stacks.status(name, "ROLLBACK_COMPLETE")
    denied = next(event[2] for event in stacks.told(name) if event[1] == "CREATE_FAILED")
    assert f"assumed-role/{name}/AWSCloudFormation is not authorized to perform: ssm:PutParameter" in denied and "HandlerErrorCode: AccessDenied" in denied
    allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ssm:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=name, PolicyName="ssm", PolicyDocument=json.dumps(allow))
    stacks.delete(name)
    stacks.api.create_stack(StackName=name, TemplateBody=body, RoleARN=role)
    stacks.wait("create", name)
    assert stacks.describe(name)["RoleARN"] == role
    stacks.delete(name)

    # Without a role, a stack acts as whoever asks, each time: who may only speak to CloudFormation deletes nothing of others.
    iam.create_user(UserName=name)
    allow["Statement"][0]["Action"] = "cloudformation:*"
    iam.put_user_policy(UserName=name, PolicyName="stacks", PolicyDocument=json.dumps(allow))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    stacks.create(name, body)
    stranger = neargate.client("cloudformation", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    with pytest.raises(ClientError) as error:
        stranger.create_stack(StackName=f"{name}-2", TemplateBody=body, RoleARN=role)
    assert "iam:PassRole" in str(error.value)
    stranger.delete_stack(StackName=name)
    stacks.status(name, "DELETE_FAILED")
    assert any(f"user/{name} is not authorized to perform: ssm:DeleteParameter" in (event[2] or "") for event in stacks.told(name))
    stacks.delete(name)


COUNT = 12


def test_kill_9_loses_no_stack(tmp_path):
    """Killed over and over while stacks are made, changed and deleted: each comes to its end, with nothing twice and nothing left."""
    plane = Neargate(tmp_path / "data", PORT + 14).start()
    many = {f"P{index:02}": parameter(str(index)) for index in range(COUNT)}
    for index in range(1, COUNT):
        many[f"P{index:02}"]["Properties"]["Value"] = {"Fn::Sub": f"${{P{index - 1:02}}} {index}"}
    many["Cluster"] = {"Type": "AWS::ECS::Cluster"}
    many["Group"] = {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "x"}}

    def killed(stacks, statuses, name):
        """Kills the plane until the stack has come to an end."""
        kills = 0
        while True:
            end = eventually(lambda: stacks.describe(name)["StackStatus"], "an answer")
            if not end.endswith("_IN_PROGRESS"):
                assert end in statuses, stacks.told(name)
                return kills
            plane.kill()
            plane.start()
            kills += 1

    try:
        stacks = Stacks(plane)
        stack = stacks.api.create_stack(StackName="s", TemplateBody=json.dumps(template(many)))["StackId"]
        kills = killed(stacks, ["CREATE_COMPLETE"], stack)
        ssm = plane.client("ssm")
        names = lambda: [one["Name"] for page in ssm.get_paginator("describe_parameters").paginate() for one in page["Parameters"]]
        assert len(names()) == COUNT and len(plane.client("ecs").list_clusters()["clusterArns"]) == 1
        assert len(plane.client("ec2").describe_security_groups()["SecurityGroups"]) == 2
        for index in range(COUNT):
            many[f"P{index:02}"]["Properties"]["Name"] = f"/new/{index}"
        stacks.api.update_stack(StackName=stack, TemplateBody=json.dumps(template(many)))
        kills += killed(stacks, ["UPDATE_COMPLETE"], stack)
        assert sorted(names()) == sorted(f"/new/{index}" for index in range(COUNT))
        many[f"P{COUNT - 1:02}"]["Properties"]["DataType"] = "no such type"
        many["P00"]["Properties"]["Value"] = "broken"
        for index in range(COUNT):
            many[f"P{index:02}"]["Properties"]["Name"] = f"/newer/{index}"
        stacks.api.update_stack(StackName=stack, TemplateBody=json.dumps(template(many)))
        kills += killed(stacks, ["UPDATE_ROLLBACK_COMPLETE"], stack)
        assert sorted(names()) == sorted(f"/new/{index}" for index in range(COUNT))
        assert ssm.get_parameter(Name="/new/0")["Parameter"]["Value"] == "0"
        stacks.api.delete_stack(StackName=stack)
        kills += killed(stacks, ["DELETE_COMPLETE"], stack)
        assert names() == [] and plane.client("ecs").list_clusters()["clusterArns"] == []
        assert len(plane.client("ec2").describe_security_groups()["SecurityGroups"]) == 1
        assert kills >= 4, kills
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)


def test_stacks_nest_and_templates_lie_in_s3(neargate, stacks, tmp_path):
    """`package` uploads the templates; inner stacks are made, changed, rolled back and deleted with the outer one."""
    name, s3, bucket = stacks.name("outer"), neargate.client("s3"), f"templates-{stacks.these}"
    s3.create_bucket(Bucket=bucket)
    inner = template(
        {"P": parameter({"Fn::Join": ["+", {"Ref": "Words"}]}, DataType={"Ref": "Kind"})},
        Parameters={"Words": {"Type": "CommaDelimitedList"}, "Kind": {"Type": "String", "Default": "text"}},
        Outputs={"Name": {"Value": {"Ref": "P"}}},
    )
    (tmp_path / "inner.json").write_text(json.dumps(inner))

    def packaged(words, kind="text", wanted="Name", **more):
        nested = {"Type": "AWS::CloudFormation::Stack", "Properties": {
            "TemplateURL": "inner.json", "Parameters": {"Words": words, "Kind": kind}, **more,
        }}
        outer = template({"Inner": nested, "After": parameter({"Fn::GetAtt": ["Inner", f"Outputs.{wanted}"]})}, Outputs={"Inner": {"Value": {"Ref": "Inner"}}})
        (tmp_path / "outer.json").write_text(json.dumps(outer))
        neargate.aws(
            "cloudformation", "package", "--template-file", str(tmp_path / "outer.json"), "--s3-bucket", bucket,
            "--output-template-file", str(tmp_path / "packaged.json"), "--use-json",
        )
        return (tmp_path / "packaged.json").read_text()

    stacks.create(name, packaged(["a", "b"]))
    child, ssm = stacks.outputs(name)["Inner"], neargate.client("ssm")
    value = lambda: ssm.get_parameter(Name=stacks.outputs(child)["Name"])["Parameter"]["Value"]
    assert value() == "a+b" and stacks.describe(child)["ParentId"] == stacks.describe(name)["StackId"] == stacks.describe(child)["RootId"]
    after = lambda: ssm.get_parameter(Name=stacks.physical(name, "After"))["Parameter"]["Value"]
    assert after() == stacks.outputs(child)["Name"]
    stacks.update(name, packaged(["c"], Tags=[{"Key": "k", "Value": "v"}]))
    assert value() == "c" and stacks.outputs(name)["Inner"] == child
    stacks.api.update_stack(StackName=name, TemplateBody=packaged(["d"], "no such type"))
    stacks.status(name, "UPDATE_ROLLBACK_COMPLETE")
    assert value() == "c" and stacks.describe(child)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert any("was not successfully updated" in (event[2] or "") for event in stacks.told(name))
    # An output that comes with the same update that asks for it.
    inner["Outputs"]["Second"] = {"Value": "second"}
    (tmp_path / "inner.json").write_text(json.dumps(inner))
    stacks.update(name, packaged(["e"], wanted="Second"))
    assert value() == "e" and after() == "second"
    stacks.delete(name)
    assert stacks.describe(child)["StackStatus"] == "DELETE_COMPLETE"
    refused("ValidationError", "S3 error: NoSuchKey", stacks.api.create_stack, StackName=name, TemplateURL=f"https://{bucket}.s3.amazonaws.com/nope")
    refused("ValidationError", "TemplateURL must be a supported URL.", stacks.api.create_stack, StackName=name, TemplateURL="ftp://x/y")


def test_loops_make_resources(neargate, stacks):
    name = stacks.name("loop")
    looped = {
        "Transform": "AWS::LanguageExtensions",
        "Parameters": {"Names": {"Type": "CommaDelimitedList", "Default": "a,b"}},
        "Resources": {"Fn::ForEach::All": ["Name", {"Ref": "Names"}, {"P${Name}": parameter({"Fn::Sub": "is ${Name} of ${AWS::StackName}"})}]},
        "Outputs": {"Count": {"Value": {"Fn::Length": {"Ref": "Names"}}}, "Text": {"Value": {"Fn::ToJsonString": {"x": {"Ref": "Pb"}}}}},
    }
    stacks.create(name, looped, Capabilities=["CAPABILITY_AUTO_EXPAND"])
    assert neargate.client("ssm").get_parameter(Name=stacks.physical(name, "Pb"))["Parameter"]["Value"] == f"is b of {name}"
    assert stacks.outputs(name) == {"Count": "2", "Text": json.dumps({"x": stacks.physical(name, "Pb")}, separators=(",", ":"))}
    more = dict(Parameters=[{"ParameterKey": "Names", "ParameterValue": "b,c,d"}])
    refused("InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_AUTO_EXPAND]", stacks.api.update_stack, StackName=name, TemplateBody=json.dumps(looped), **more)
    stacks.update(name, looped, Capabilities=["CAPABILITY_AUTO_EXPAND"], **more)
    listed = stacks.api.list_stack_resources(StackName=name)["StackResourceSummaries"]
    assert [one["LogicalResourceId"] for one in listed] == ["Pb", "Pc", "Pd"]
    stacks.delete(name)


def test_a_stack_policy_is_kept_to(neargate, stacks):
    name, ssm = stacks.name("policy"), neargate.client("ssm")
    allow = {"Effect": "Allow", "Action": "Update:*", "Principal": "*", "Resource": "*"}
    deny = lambda action, logical: {"Effect": "Deny", "Action": action, "Principal": "*", "Resource": f"LogicalResourceId/{logical}"}
    policy = json.dumps({"Statement": [allow, deny("Update:*", "Kept"), deny("Update:Replace", "Named")]})
    first = template({"Kept": parameter("one"), "Free": parameter("one"), "Named": parameter("one", Name=f"/{name}/1")})
    refused("ValidationError", "Invalid stack policy", stacks.api.create_stack, StackName=name, TemplateBody=json.dumps(first), StackPolicyBody="{}")
    stacks.create(name, first, StackPolicyBody=policy)
    assert stacks.api.get_stack_policy(StackName=name)["StackPolicyBody"] == policy
    value = lambda logical: ssm.get_parameter(Name=stacks.physical(name, logical))["Parameter"]["Value"]

    def denied(change, told):
        body, seen = json.loads(json.dumps(first)), len(stacks.events(name))
        change(body["Resources"])
        stacks.api.update_stack(StackName=name, TemplateBody=json.dumps(body))
        stacks.status(name, "UPDATE_ROLLBACK_COMPLETE")
        assert any(told in (event[2] or "") for event in stacks.told(name)[seen:]), stacks.told(name)[seen:]

    denied(lambda resources: resources["Kept"]["Properties"].update(Value="two"), "Action denied by stack policy: Statement [#2] does not allow [Update:*] for resource [LogicalResourceId/Kept]")
    denied(lambda resources: resources["Named"]["Properties"].update(Name=f"/{name}/2"), "does not allow [Update:Replace] for resource [LogicalResourceId/Named]")
    denied(lambda resources: resources.pop("Kept"), "Statement [#2] does not allow [Update:*] for resource [LogicalResourceId/Kept]")
    assert value("Kept") == "one"
    first["Resources"]["Free"]["Properties"]["Value"] = first["Resources"]["Named"]["Properties"]["Value"] = "two"
    stacks.update(name, first)
    assert (value("Free"), value("Named")) == ("two", "two")
    first["Resources"]["Kept"]["Properties"]["Value"] = "three"
    stacks.update(name, first, StackPolicyDuringUpdateBody=json.dumps({"Statement": [allow]}))
    assert value("Kept") == "three" and stacks.api.get_stack_policy(StackName=name)["StackPolicyBody"] == policy
    stacks.api.set_stack_policy(StackName=name, StackPolicyBody=json.dumps({"Statement": [allow]}))
    first["Resources"].pop("Kept")
    stacks.update(name, first)
    stacks.delete(name)
