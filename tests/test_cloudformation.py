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
