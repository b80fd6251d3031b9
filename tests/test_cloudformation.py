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
    assert f"Export with name {export} is already exported by stack {giver}." in stacks.told(other)[-4:][0][2] or any(
        f"is already exported by stack {giver}" in (event[2] or "") for event in stacks.told(other)
    )
    for name in [other, taker, giver]:
        stacks.delete(name)
