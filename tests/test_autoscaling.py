"""Application Auto Scaling: services grow and shrink by what they use, by requests, and by the clock."""

import datetime
import json
import time

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, Stack, eventually, push
from test_service_balanced import LISTENER, Balanced, Load, fetch

# A minute of AWS's is 0.6 s here.
SCALE = "0.01"


@pytest.fixture(scope="module")
def scaled(tmp_path_factory, neargate):
    """A Neargate whose waiting times are short, with a service."""
    plane = Neargate(tmp_path_factory.mktemp("scaled") / "data", PORT + 10).start(NEARGATE_TIME_SCALE=SCALE)
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "scaled")
    balanced = Balanced(stack)
    balanced.scaling = plane.client("application-autoscaling")
    yield balanced
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


def kind(name):
    return {"ServiceNamespace": "ecs", "ResourceId": f"service/tests/{name}", "ScalableDimension": "ecs:service:DesiredCount"}


def activities(scaled, name):
    given = {key: value for key, value in kind(name).items()}
    pages = scaled.scaling.get_paginator("describe_scaling_activities").paginate(**given)
    return [activity for page in pages for activity in page["ScalingActivities"]]


def desired(scaled, name):
    return scaled.describe(name)["desiredCount"]


BUSY = "while [ ! -e /tmp/stop ]; do :; done & mkdir -p /tmp/w; echo busy > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"


def test_from_zero_by_the_clock_and_back(scaled):
    scaled.create("clock", scaled.page("clock"), 0)
    scaling = scaled.scaling
    arn = scaling.register_scalable_target(**kind("clock"), MinCapacity=0, MaxCapacity=4, Tags={"team": "a"})["ScalableTargetARN"]
    assert arn.startswith("arn:aws:application-autoscaling:us-east-1:123456789012:scalable-target/")
    soon = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%S")
    action = {"ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 3}}
    scaling.put_scheduled_action(**kind("clock"), ScheduledActionName="morning", Schedule=f"at({soon})", **action)
    found = scaling.describe_scheduled_actions(ServiceNamespace="ecs")["ScheduledActions"]
    assert found[0]["Schedule"] == f"at({soon})" and found[0]["ScheduledActionARN"].endswith("scheduledActionName/morning")
    eventually(lambda: scaled.describe("clock")["runningCount"] == 2, "two tasks in the morning")
    [target] = scaling.describe_scalable_targets(ServiceNamespace="ecs", ResourceIds=["service/tests/clock"])["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 3)
    done = eventually(lambda: [a for a in activities(scaled, "clock") if a["StatusCode"] == "Successful" and "desired" in a["Description"]], "it is told")
    assert done[0]["Description"] == "Setting desired count to 2." and done[0]["Cause"] == "minimum capacity was set to 2"
    assert done[0]["StatusMessage"] == "Successfully set desired count to 2. Change successfully fulfilled by ecs."
    assert any(a["Cause"] == "scheduled action name morning was triggered" for a in activities(scaled, "clock"))
    assert scaling.describe_scheduled_actions(ServiceNamespace="ecs")["ScheduledActions"] == [], "once is once"
    scaling.register_scalable_target(**kind("clock"), MinCapacity=0, MaxCapacity=3, SuspendedState={"ScheduledScalingSuspended": True})
    start = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
    night = {"Schedule": "rate(1 day)", "StartTime": start, "ScalableTargetAction": {"MinCapacity": 0, "MaxCapacity": 0}}
    scaling.put_scheduled_action(**kind("clock"), ScheduledActionName="night", **night)
    first = scaling.describe_scheduled_actions(ServiceNamespace="ecs")["ScheduledActions"]
    time.sleep(2)
    assert desired(scaled, "clock") == 2, "schedules are suspended"
    scaling.register_scalable_target(**kind("clock"), SuspendedState={"ScheduledScalingSuspended": False})
    night["StartTime"] = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1)
    scaling.put_scheduled_action(**kind("clock"), ScheduledActionName="night", **night)
    eventually(lambda: scaled.describe("clock")["runningCount"] == 0 == desired(scaled, "clock"), "none at night")
    assert scaling.describe_scheduled_actions(ServiceNamespace="ecs")["ScheduledActions"][0]["CreationTime"] == first[0]["CreationTime"]
    scaling.delete_scheduled_action(**kind("clock"), ScheduledActionName="night")
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"team": "a"}
    scaling.tag_resource(ResourceARN=arn, Tags={"more": "1"})
    scaling.untag_resource(ResourceARN=arn, TagKeys=["team"])
    assert scaling.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"more": "1"}
    scaling.deregister_scalable_target(**kind("clock"))
    assert scaling.describe_scalable_targets(ServiceNamespace="ecs", ResourceIds=["service/tests/clock"])["ScalableTargets"] == []
    scaled.delete("clock")


def test_a_service_grows_with_the_cpu_it_uses(scaled):
    scaled.create("cpu", scaled.stack.define(scaled.stack.container(command=BUSY)), 1)
    scaled.steady("cpu")
    scaled.scaling.register_scalable_target(**kind("cpu"), MinCapacity=1, MaxCapacity=3)
    tracking = {"TargetValue": 40.0, "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"}}
    put = scaled.scaling.put_scaling_policy(
        **kind("cpu"), PolicyName="busy", PolicyType="TargetTrackingScaling", TargetTrackingScalingPolicyConfiguration=tracking
    )
    assert ":resource/ecs/service/tests/cpu:policyName/busy" in put["PolicyARN"]
    eventually(lambda: desired(scaled, "cpu") == 3, "as many as it may", 60)
    scaled.steady("cpu")
    assert max(a["Description"] for a in activities(scaled, "cpu")) == "Setting desired count to 3."
    [policy] = scaled.scaling.describe_scaling_policies(ServiceNamespace="ecs", PolicyNames=["busy"])["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"] == tracking
    for task in scaled.tasks("cpu"):
        # What is busy ends; the task goes on.
        scaled.stack.neargate.cli("exec", "--force", task, "--", "/bin/busybox", "touch", "/tmp/stop", input="")
    eventually(lambda: desired(scaled, "cpu") == 1, "as few as it may", 90)
    scaled.steady("cpu")
    scaled.scaling.delete_scaling_policy(**kind("cpu"), PolicyName="busy")
    scaled.delete("cpu")


def test_a_service_grows_with_its_requests_and_none_fails(scaled):
    balancer, group = scaled.balancer("wanted"), scaled.group("wanted")
    scaled.listener(balancer, group, LISTENER + 6)
    scaled.service("wanted", scaled.page("wanted"), 1, group)
    scaled.steady("wanted")
    scaled.scaling.register_scalable_target(**kind("wanted"), MinCapacity=1, MaxCapacity=4)
    label = balancer["LoadBalancerArn"].split(":loadbalancer/")[1] + "/" + group.rsplit(":", 1)[1]
    tracking = {
        "TargetValue": 20.0,
        "ScaleInCooldown": 60,
        "PredefinedMetricSpecification": {"PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": label},
    }
    policy = {"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": tracking}
    scaled.scaling.put_scaling_policy(**kind("wanted"), PolicyName="requests", **policy)
    with Load(balancer["DNSName"], LISTENER + 6) as load:
        eventually(lambda: scaled.describe("wanted")["runningCount"] == 4, "as many as it may", 60)
        eventually(lambda: scaled.states(group) == ["healthy"] * 4, "and all get requests")
    eventually(lambda: desired(scaled, "wanted") == 1, "as few as it may", 90)
    scaled.steady("wanted")
    assert load.failures == [] and load.answers > 500
    assert fetch(f"http://{balancer['DNSName']}:{LISTENER + 6}/") == "wanted"
    scaled.clear("wanted", balancer, group)


def measure(cloudwatch, name, value, seconds):
    at = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)
    cloudwatch.put_metric_data(Namespace="Queue", MetricData=[{"MetricName": name, "Value": value, "Timestamp": at}])


def test_steps_follow_alarms(scaled):
    scaled.create("steps", scaled.page("steps"), 1)
    scaled.scaling.register_scalable_target(**kind("steps"), MinCapacity=1, MaxCapacity=6)
    cloudwatch = scaled.stack.neargate.client("cloudwatch")
    steps = [
        {"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 50.0, "ScalingAdjustment": 1},
        {"MetricIntervalLowerBound": 50.0, "ScalingAdjustment": 3},
    ]
    out = {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps, "Cooldown": 1200, "MetricAggregationType": "Maximum"}
    added = scaled.scaling.put_scaling_policy(**kind("steps"), PolicyName="more", PolicyType="StepScaling", StepScalingPolicyConfiguration=out)
    less = {"AdjustmentType": "ExactCapacity", "StepAdjustments": [{"MetricIntervalUpperBound": 0.0, "ScalingAdjustment": 1}], "Cooldown": 0}
    taken = scaled.scaling.put_scaling_policy(**kind("steps"), PolicyName="less", PolicyType="StepScaling", StepScalingPolicyConfiguration=less)
    alarm = {
        "Namespace": "Queue", "MetricName": "Waiting", "Statistic": "Maximum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 10.0,
        "ComparisonOperator": "GreaterThanThreshold",
    }
    cloudwatch.put_metric_alarm(AlarmName="waiting", AlarmActions=[added["PolicyARN"]], OKActions=[taken["PolicyARN"]], **alarm)
    measure(cloudwatch, "Waiting", 20.0, 150)
    eventually(lambda: desired(scaled, "steps") == 2, "one more")
    [activity] = eventually(lambda: activities(scaled, "steps"), "it is told")
    assert activity["Cause"] == "monitor alarm waiting in state ALARM triggered policy more"
    # The alarm lasts, and is told again; the policy rests, and adds only what is more.
    measure(cloudwatch, "Waiting", 70.0, 80)
    eventually(lambda: desired(scaled, "steps") == 4, "three more than before, not than now")
    eventually(lambda: desired(scaled, "steps") == 6, "it has rested", 60)
    [policy] = scaled.scaling.describe_scaling_policies(ServiceNamespace="ecs", PolicyNames=["more"])["ScalingPolicies"]
    assert policy["PolicyType"] == "StepScaling" and policy["StepScalingPolicyConfiguration"] == out
    # All is well: there is one again.
    cloudwatch.put_metric_alarm(AlarmName="waiting", AlarmActions=[added["PolicyARN"]], OKActions=[taken["PolicyARN"]], **{**alarm, "Threshold": 100.0})
    eventually(lambda: desired(scaled, "steps") == 1, "as few as it says")
    cloudwatch.delete_alarms(AlarmNames=["waiting"])
    scaled.delete("steps")


def test_a_metric_of_ones_own_is_tracked(scaled):
    scaled.create("own", scaled.page("own"), 1)
    scaled.scaling.register_scalable_target(**kind("own"), MinCapacity=1, MaxCapacity=3)
    cloudwatch = scaled.stack.neargate.client("cloudwatch")
    tracking = {"TargetValue": 10.0, "CustomizedMetricSpecification": {"MetricName": "Depth", "Namespace": "Queue", "Statistic": "Maximum"}}
    policy = {"PolicyType": "TargetTrackingScaling", "TargetTrackingScalingPolicyConfiguration": tracking}
    scaled.scaling.put_scaling_policy(**kind("own"), PolicyName="depth", **policy)

    def look():
        # The last whole minute counts, whichever that is by now.
        measure(cloudwatch, "Depth", 30.0, 60)
        return desired(scaled, "own") == 3

    eventually(look, "three times what there is", 60)
    [found] = scaled.scaling.describe_scaling_policies(ServiceNamespace="ecs", PolicyNames=["depth"])["ScalingPolicies"]
    assert found["TargetTrackingScalingPolicyConfiguration"] == tracking
    scaled.delete("own")


def test_what_cannot_be(scaled):
    scaling = scaled.scaling
    scaled.create("none", scaled.page("x"), 0)

    def refused(code, words, call, **more):
        with pytest.raises(ClientError) as error:
            call(**more)
        answer = error.value.response["Error"]
        assert answer["Code"] == code and words in answer["Message"], answer

    register = scaling.register_scalable_target
    refused("ValidationException", "ECS service doesn't exist", register, **kind("nothing"), MinCapacity=0, MaxCapacity=1)
    refused("ValidationException", "are required", register, **kind("none"), MinCapacity=0)
    refused("ValidationException", "Minimum capacity", register, **kind("none"), MinCapacity=3, MaxCapacity=1)
    refused("ValidationException", "Unsupported resource ID", register, **{**kind("none"), "ResourceId": "none"}, MinCapacity=0, MaxCapacity=1)
    refused("ValidationException", "ECS services only", register, **{**kind("none"), "ServiceNamespace": "rds", "ScalableDimension": "rds:cluster:ReadReplicaCount"}, MinCapacity=0, MaxCapacity=1)
    action = {"ScheduledActionName": "a", "ScalableTargetAction": {"MinCapacity": 1}}
    refused("ObjectNotFoundException", "No scalable target", scaling.put_scheduled_action, **kind("none"), Schedule="rate(1 day)", **action)
    register(**kind("none"), MinCapacity=0, MaxCapacity=1)
    put = scaling.put_scheduled_action
    refused("ValidationException", "6 fields", put, **kind("none"), Schedule="cron(* * * *)", **action)
    refused("ValidationException", "in the past", put, **kind("none"), Schedule="at(2020-01-01T00:00:00)", **action)
    refused("ValidationException", "Unknown timezone", put, **kind("none"), Schedule="cron(0 9 * * ? *)", Timezone="Mars/One", **action)
    refused("ValidationException", "scheduledActionName", put, **kind("none"), Schedule="rate(1 day)", **{**action, "ScheduledActionName": "a/b"})
    policy = {"PolicyName": "p", "PolicyType": "TargetTrackingScaling"}
    alb = {"TargetValue": 1.0, "PredefinedMetricSpecification": {"PredefinedMetricType": "ALBRequestCountPerTarget", "ResourceLabel": "app/x/1/targetgroup/y/2"}}
    refused("ValidationException", "names no target group", scaling.put_scaling_policy, **kind("none"), **policy, TargetTrackingScalingPolicyConfiguration=alb)
    custom = {"TargetValue": 1.0, "CustomizedMetricSpecification": {"MetricName": "m", "Namespace": "n"}}
    refused("ValidationException", "a Statistic", scaling.put_scaling_policy, **kind("none"), **policy, TargetTrackingScalingPolicyConfiguration=custom)
    for words, steps in [
        ("overlap", [{"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 9.0, "ScalingAdjustment": 1}, {"MetricIntervalLowerBound": 5.0, "ScalingAdjustment": 1}]),
        ("gap", [{"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 4.0, "ScalingAdjustment": 1}, {"MetricIntervalLowerBound": 5.0, "ScalingAdjustment": 1}]),
        ("unspecified upper bound", [{"MetricIntervalLowerBound": 0.0, "MetricIntervalUpperBound": 4.0, "ScalingAdjustment": 1}]),
        ("between 1 and 20", []),
    ]:
        step = {"AdjustmentType": "ChangeInCapacity", "StepAdjustments": steps}
        refused("ValidationException", words, scaling.put_scaling_policy, **kind("none"), PolicyName="p", PolicyType="StepScaling", StepScalingPolicyConfiguration=step)
    refused("ValidationException", "type StepScaling must", scaling.put_scaling_policy, **kind("none"), PolicyName="p")
    refused("ObjectNotFoundException", "No scaling policy", scaling.delete_scaling_policy, **kind("none"), PolicyName="p")
    status = json.loads(scaled.stack.neargate.cli("--output", "json", "status").stdout)
    assert status["time_scale"] == float(SCALE), "nothing is shortened in silence"
    assert "multiplied with 0.01" in scaled.stack.neargate.cli("status").stdout
    scaled.delete("none")
