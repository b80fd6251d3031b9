"""CodeDeploy: new versions of ECS services, blue and green, under load: shifted, held, brought back; none is lost."""

import json
import os
import random
import time

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, Stack, build, eventually, push, upload
from test_cloudformation import Stacks
from test_codecommit import refused
from test_events import Listening
from test_pipelines import Pipelines, approval, deploy, source, trust
from test_service_balanced import LISTENER, Balanced, Load, fetch

# A minute of AWS's is 0.6 s here.
SCALE = "0.01"


@pytest.fixture(scope="module")
def stack(tmp_path_factory, neargate):
    plane = Neargate(tmp_path_factory.mktemp("code-deployed") / "data", PORT + 20).start(NEARGATE_TIME_SCALE=SCALE)
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "deployed")
    yield stack
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


def role_for(stack):
    try:
        made = stack.iam.create_role(RoleName="code-deploy", AssumeRolePolicyDocument=trust("codedeploy.amazonaws.com"))
    except ClientError:
        return stack.iam.get_role(RoleName="code-deploy")["Role"]["Arn"]
    stack.iam.attach_role_policy(RoleName="code-deploy", PolicyArn="arn:aws:iam::aws:policy/AWSCodeDeployRoleForECS")
    return made["Role"]["Arn"]


class Deployed(Balanced):
    """A service whose deployments CodeDeploy controls, with its group."""

    def __init__(self, stack, name, words="one", count=2, wait=0, keep=0, config="CodeDeployDefault.ECSAllAtOnce", rollback=("DEPLOYMENT_FAILURE",)):
        super().__init__(stack)
        self.name, self.api = name, stack.neargate.client("codedeploy")
        self.door = self.balancer(name)
        self.host = self.door["DNSName"]
        self.blue, self.green = self.group(f"{name}-blue"), self.group(f"{name}-green")
        self.production, self.test = self.listener(self.door, self.blue), self.listener(self.door, self.blue, LISTENER + 1)
        made = self.service(name, self.page(words), count, self.blue, deploymentController={"type": "CODE_DEPLOY"})
        self.first = made["taskSets"][0]["id"]
        eventually(lambda: self.set(self.first)["stabilityStatus"] == "STEADY_STATE", "it is steady", 90)
        eventually(lambda: fetch(f"http://{self.host}:{LISTENER}/") == words, "it answers")
        self.api.create_application(applicationName=name, computePlatform="ECS")
        self.made = self.api.create_deployment_group(**self.group_of(wait, keep, config, rollback))

    def group_of(self, wait=0, keep=0, config="CodeDeployDefault.ECSAllAtOnce", rollback=()):
        ready = {"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": wait} if wait else {"actionOnTimeout": "CONTINUE_DEPLOYMENT"}
        pair = {
            "targetGroups": [{"name": f"{self.name}-blue"}, {"name": f"{self.name}-green"}],
            "prodTrafficRoute": {"listenerArns": [self.production]},
            "testTrafficRoute": {"listenerArns": [self.test]},
        }
        return dict(
            applicationName=self.name,
            deploymentGroupName="group",
            deploymentConfigName=config,
            serviceRoleArn=role_for(self.stack),
            deploymentStyle={"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
            blueGreenDeploymentConfiguration={
                "terminateBlueInstancesOnDeploymentSuccess": {"action": "TERMINATE", "terminationWaitTimeInMinutes": keep},
                "deploymentReadyOption": ready,
            },
            loadBalancerInfo={"targetGroupPairInfoList": [pair]},
            ecsServices=[{"serviceName": self.name, "clusterName": "tests"}],
            autoRollbackConfiguration={"enabled": bool(rollback), "events": list(rollback)},
        )

    def sets(self):
        return self.ecs.describe_services(cluster="tests", services=[self.name])["services"][0]["taskSets"]

    def set(self, id):
        return next((one for one in self.sets() if one["id"] == id), None)

    def spec(self, definition):
        return (
            "version: 0.0\nResources:\n  - TargetService:\n      Type: AWS::ECS::Service\n      Properties:\n"
            f'        TaskDefinition: "{definition}"\n        LoadBalancerInfo:\n          ContainerName: "main"\n          ContainerPort: 8080\n'
        )

    def begin(self, words, hooks=None, **more):
        content = self.spec(self.page(words))
        if hooks:
            content += "Hooks:\n" + "".join(f'  - {event}: "{function}"\n' for event, function in hooks.items())
        revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
        return self.api.create_deployment(applicationName=self.name, deploymentGroupName="group", revision=revision, **more)["deploymentId"]

    def get(self, id):
        return self.api.get_deployment(deploymentId=id)["deploymentInfo"]

    def reaches(self, id, status, seconds=90):
        def look():
            found = self.get(id)
            over = found["status"] in ["Succeeded", "Failed", "Stopped"]
            assert found["status"] == status or not over, (found.get("errorInformation"), self.lifecycle(id))
            return found if found["status"] == status else None

        return eventually(look, f"{id} {status}", seconds)

    def target(self, id):
        [target] = self.api.list_deployment_targets(deploymentId=id)["targetIds"]
        return self.api.get_deployment_target(deploymentId=id, targetId=target)["deploymentTarget"]["ecsTarget"]

    def lifecycle(self, id):
        return {event["lifecycleEventName"]: event["status"] for event in self.target(id)["lifecycleEvents"]}

    def weights(self):
        [rule] = [rule for rule in self.elb.describe_rules(ListenerArn=self.production)["Rules"] if rule["IsDefault"]]
        groups = rule["Actions"][0]["ForwardConfig"]["TargetGroups"]
        return {("blue" if g["TargetGroupArn"] == self.blue else "green"): g["Weight"] for g in groups}

    def page_at(self, port=LISTENER):
        return fetch(f"http://{self.host}:{port}/")

    def end(self):
        self.api.delete_application(applicationName=self.name)
        self.clear(self.name, self.door, self.blue, self.green)


def test_green_is_tested_beside_blue_and_takes_over(stack):
    # Longer than the test is: what goes on does so because it is told to.
    deployed = Deployed(stack, "switch", wait=1440, keep=2000)
    listening = Listening(stack.neargate)
    told = listening.rule({"source": ["aws.codedeploy"], "detail": {"application": ["switch"]}})
    with Load(deployed.host, LISTENER) as kept, Load(deployed.host, LISTENER, keep_alive=False) as fresh:
        id = deployed.begin("two", description="the second")
        deployed.reaches(id, "Ready")
        # Tests see green, everybody else blue.
        eventually(lambda: deployed.page_at(LISTENER + 1) == "two", "the test listener leads to green")
        assert deployed.page_at() == "one"
        with refused("DeploymentLimitExceededException", f"already has an active Deployment '{id}'"):
            deployed.begin("three")
        sets = {one["taskSetLabel"]: one for one in deployed.target(id)["taskSetsInfo"]}
        assert sets["Blue"]["trafficWeight"] == 100 and sets["Green"]["trafficWeight"] == 0
        assert sets["Blue"]["targetGroup"] == {"name": "switch-blue"} and sets["Green"]["runningCount"] == 2
        with refused("DeploymentIsNotInReadyStateException"):
            deployed.api.continue_deployment(deploymentId=id, deploymentWaitType="TERMINATION_WAIT")
        deployed.api.continue_deployment(deploymentId=id, deploymentWaitType="READY_WAIT")
        eventually(lambda: deployed.get(id)["instanceTerminationWaitTimeStarted"], "traffic is shifted")
        assert deployed.page_at() == "two" and deployed.weights() == {"blue": 0, "green": 100}
        assert [one["id"] for one in deployed.sets() if one["status"] == "PRIMARY"] == [sets["Green"]["identifer"]]
        assert deployed.set(deployed.first) is not None, "blue is kept for a while"
        deployed.api.continue_deployment(deploymentId=id, deploymentWaitType="TERMINATION_WAIT")
        done = deployed.reaches(id, "Succeeded")
    assert kept.failures == [] and fresh.failures == [] and kept.answers > 100, (kept.failures[:3], fresh.failures[:3])
    assert kept.bodies | fresh.bodies == {"one", "two"}
    eventually(lambda: deployed.set(deployed.first) is None, "blue is gone")
    assert done["creator"] == "user" and done["description"] == "the second" and done["deploymentOverview"]["Succeeded"] == 1
    assert deployed.lifecycle(id) == {
        "BeforeInstall": "Skipped", "Install": "Succeeded", "AfterInstall": "Skipped", "AllowTestTraffic": "Succeeded",
        "AfterAllowTestTraffic": "Skipped", "BeforeAllowTraffic": "Skipped", "AllowTraffic": "Succeeded", "AfterAllowTraffic": "Skipped",
    }
    group = deployed.api.get_deployment_group(applicationName="switch", deploymentGroupName="group")["deploymentGroupInfo"]
    assert group["lastSuccessfulDeployment"]["deploymentId"] == group["lastAttemptedDeployment"]["deploymentId"] == id
    states = lambda: [event["detail"]["state"] for event in listening.heard(told)]
    eventually(lambda: sorted(states()) == ["READY", "START", "SUCCESS"], "it is told")
    with refused("DeploymentAlreadyCompletedException"):
        deployed.api.stop_deployment(deploymentId=id)
    # And back again: what was green is blue now.
    again = deployed.begin("three")
    deployed.reaches(again, "Ready")
    deployed.api.continue_deployment(deploymentId=again)
    eventually(lambda: deployed.get(again)["instanceTerminationWaitTimeStarted"], "traffic is shifted")
    deployed.api.continue_deployment(deploymentId=again, deploymentWaitType="TERMINATION_WAIT")
    deployed.reaches(again, "Succeeded")
    assert deployed.page_at() == "three" and deployed.weights() == {"blue": 100, "green": 0}
    # Nobody lets it on: it stops by itself, and nothing has moved.
    deployed.api.update_deployment_group(applicationName="switch", currentDeploymentGroupName="group", blueGreenDeploymentConfiguration=deployed.group_of(wait=5)["blueGreenDeploymentConfiguration"])
    late = deployed.begin("four")
    failed = deployed.reaches(late, "Failed")
    assert failed["errorInformation"]["code"] == "TIMEOUT" and "not continued within 5 minutes" in failed["errorInformation"]["message"]
    assert deployed.page_at() == "three"
    back = deployed.reaches(failed["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert back["creator"] == "codeDeployRollback" and back["rollbackInfo"]["rollbackTriggeringDeploymentId"] == late
    listed = deployed.api.list_deployments(applicationName="switch", deploymentGroupName="group")["deployments"]
    assert listed == [back["deploymentId"], late, again, id]
    assert {one["deploymentId"] for one in deployed.api.batch_get_deployments(deploymentIds=listed)["deploymentsInfo"]} == set(listed)
    only = deployed.api.list_deployments(applicationName="switch", deploymentGroupName="group", includeOnlyStatuses=["Failed"])
    assert only["deployments"] == [late]
    listening.forget(told)
    deployed.end()


def test_a_canary_is_stopped_half_way(stack):
    deployed = Deployed(stack, "canary", keep=60, config="CodeDeployDefault.ECSLinear10PercentEvery3Minutes")
    api = deployed.api
    api.create_deployment_config(
        deploymentConfigName="a-fifth", computePlatform="ECS",
        trafficRoutingConfig={"type": "TimeBasedCanary", "timeBasedCanary": {"canaryPercentage": 20, "canaryInterval": 60}},
    )
    with Load(deployed.host, LISTENER, keep_alive=False) as load:
        id = deployed.begin("two", deploymentConfigName="a-fifth")
        eventually(lambda: deployed.lifecycle(id)["AllowTraffic"] == "InProgress" and deployed.page_at(LISTENER + 1) == "two", "the canary is out", 60)
        eventually(lambda: deployed.weights() == {"blue": 80, "green": 20}, "a fifth of the traffic")
        eventually(lambda: load.bodies == {"one", "two"}, "both answer")
        assert [one["status"] for one in deployed.sets() if one["id"] == deployed.first] == ["PRIMARY"]
        assert api.stop_deployment(deploymentId=id, autoRollbackEnabled=True)["status"] == "Pending"
        stopped = deployed.reaches(id, "Stopped")
        assert stopped["errorInformation"]["code"] == "MANUAL_STOP"
        back = stopped["rollbackInfo"]["rollbackDeploymentId"]
        deployed.reaches(back, "Succeeded")
        assert deployed.weights() == {"blue": 100, "green": 0}
        load.bodies.clear()
        eventually(lambda: load.bodies == {"one"}, "all of it is back")
    assert load.failures == [], load.failures[:3]
    eventually(lambda: [one["id"] for one in deployed.sets()] == [deployed.first], "green is gone")
    # By its own configuration it goes on in steps to the end.
    seen = set()
    with Load(deployed.host, LISTENER) as load:
        id = deployed.begin("three")

        def watched():
            seen.add(deployed.weights()["green"])
            return deployed.get(id)["instanceTerminationWaitTimeStarted"]

        eventually(watched, "it is shifted", 90)
        # Blue is kept: a stop even now brings it back.
        api.stop_deployment(deploymentId=id, autoRollbackEnabled=True)
        back = deployed.reaches(id, "Stopped")["rollbackInfo"]["rollbackDeploymentId"]
        deployed.reaches(back, "Succeeded")
        eventually(lambda: deployed.page_at() == "one", "it is back")
    assert load.failures == [], load.failures[:3]
    assert seen >= {20, 50, 90} and seen <= set(range(0, 101, 10)), seen
    assert [(one["id"], one["status"]) for one in deployed.sets() if one["status"] != "DRAINING"] == [(deployed.first, "PRIMARY")]
    deployed.end()
    api.delete_deployment_config(deploymentConfigName="a-fifth")


def test_a_version_that_never_becomes_healthy_is_rolled_back(stack):
    deployed = Deployed(stack, "broken")
    with Load(deployed.host, LISTENER) as load:
        broken = stack.define(stack.container(command="exit 1", portMappings=[{"containerPort": 8080}]))
        revision = {"revisionType": "String", "string": {"content": json.dumps({
            "version": 0.0,
            "Resources": [{"TargetService": {"Type": "AWS::ECS::Service", "Properties": {"TaskDefinition": broken, "LoadBalancerInfo": {"ContainerName": "main", "ContainerPort": 8080}}}}],
        })}}
        id = deployed.api.create_deployment(applicationName="broken", deploymentGroupName="group", revision=revision)["deploymentId"]
        failed = deployed.reaches(id, "Failed", 120)
        assert failed["errorInformation"]["code"] == "TIMEOUT" and "60 minutes" in failed["errorInformation"]["message"]
        assert deployed.lifecycle(id)["Install"] == "Failed" and deployed.lifecycle(id)["AllowTraffic"] == "Skipped"
        deployed.reaches(failed["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert load.failures == [] and load.bodies == {"one"}, load.failures[:3]
    eventually(lambda: [one["id"] for one in deployed.sets()] == [deployed.first], "green is gone")
    deployed.end()


def test_an_alarm_stops_a_deployment_and_brings_the_last_version_back(stack):
    deployed = Deployed(stack, "alarmed", keep=60, rollback=["DEPLOYMENT_STOP_ON_ALARM"])
    api, cloudwatch = deployed.api, stack.neargate.client("cloudwatch")
    for name in ["errors", "others"]:
        # It is as somebody says: nothing is measured.
        cloudwatch.put_metric_alarm(
            AlarmName=name, Namespace="Shop", MetricName=name, Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
        )

    def turn(name, state):
        cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="a drill")

    watched = {"enabled": True, "alarms": [{"name": "errors"}, {"name": "not there"}]}
    api.update_deployment_group(applicationName="alarmed", currentDeploymentGroupName="group", alarmConfiguration=watched)
    group = api.get_deployment_group(applicationName="alarmed", deploymentGroupName="group")["deploymentGroupInfo"]
    assert group["alarmConfiguration"] == watched
    turn("others", "ALARM")
    canary = {"deploymentConfigName": "CodeDeployDefault.ECSCanary10Percent15Minutes"}
    with Load(deployed.host, LISTENER, keep_alive=False) as load:
        id = deployed.begin("two", **canary)
        eventually(lambda: deployed.weights().get("green") == 10, "the canary is out", 90)
        turn("errors", "ALARM")
        stopped = deployed.reaches(id, "Stopped")
        error = stopped["errorInformation"]
        assert error["code"] == "ALARM_ACTIVE" and "Activated alarms: <errors>" in error["message"], error
        deployed.reaches(stopped["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
        assert deployed.weights() == {"blue": 100, "green": 0} and deployed.page_at() == "one"
        # With alarms of its own it does not mind the group's; theirs stop it when all has been shifted, too.
        own = {"overrideAlarmConfiguration": {"enabled": True, "alarms": [{"name": "others"}]}}
        turn("others", "OK")
        id = deployed.begin("three", **own)
        eventually(lambda: deployed.get(id)["instanceTerminationWaitTimeStarted"], "traffic is shifted", 90)
        assert deployed.get(id)["overrideAlarmConfiguration"] == own["overrideAlarmConfiguration"] and deployed.page_at() == "three"
        turn("others", "ALARM")
        stopped = deployed.reaches(id, "Stopped")
        deployed.reaches(stopped["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
        assert deployed.page_at() == "one"
    assert load.failures == [], load.failures[:3]
    # Without permission to look it does not begin, unless that is not to matter.
    may_not = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "cloudwatch:DescribeAlarms", "Resource": "*"}]})
    turn("errors", "OK")
    stack.iam.put_role_policy(RoleName="code-deploy", PolicyName="blind", PolicyDocument=may_not)
    try:
        failed = deployed.reaches(deployed.begin("four"), "Failed")
        assert failed["errorInformation"]["code"] == "IAM_ROLE_PERMISSIONS", failed["errorInformation"]
        blind = {"overrideAlarmConfiguration": {**watched, "ignorePollAlarmFailure": True}}
        id = deployed.begin("four", **blind)
        eventually(lambda: deployed.get(id)["instanceTerminationWaitTimeStarted"], "traffic is shifted", 90)
        api.continue_deployment(deploymentId=id, deploymentWaitType="TERMINATION_WAIT")
        deployed.reaches(id, "Succeeded")
    finally:
        stack.iam.delete_role_policy(RoleName="code-deploy", PolicyName="blind")
    cloudwatch.delete_alarms(AlarmNames=["errors", "others"])
    deployed.end()


def test_bad_input(stack):
    deployed = Deployed(stack, "bad", count=1)
    api, s3 = deployed.api, stack.neargate.client("s3")

    def fails(code, says, content=None, **revision):
        revision = revision or {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
        id = api.create_deployment(applicationName="bad", deploymentGroupName="group", revision=revision)["deploymentId"]
        error = deployed.reaches(id, "Failed")["errorInformation"]
        assert error["code"] == code and says in error["message"], error

    good = deployed.spec(deployed.page("x"))
    fails("INVALID_REVISION", "line 9", good.replace("8080", "many"))
    fails("INVALID_REVISION", "SHA-256", revisionType="AppSpecContent", appSpecContent={"content": good, "sha256": "0" * 64})
    fails("INVALID_REVISION", "AllowTraffic", good + 'Hooks:\n  - AllowTraffic: "f"\n')
    # This plane knows of no place where functions run.
    fails("INVALID_LAMBDA_FUNCTION", "--functions", good + 'Hooks:\n  - BeforeInstall: "f"\n')
    fails("ECS_UPDATE_ERROR", "TaskDefinition", good.replace("family-", "nothing-"))
    fails("ECS_UPDATE_ERROR", "container", good.replace('"main"', '"other"'))
    bucket = f"specs-{os.urandom(4).hex()}"
    s3.create_bucket(Bucket=bucket)
    fails("INVALID_REVISION", "NoSuchKey", revisionType="S3", s3Location={"bucket": bucket, "key": "appspec.yaml", "bundleType": "YAML"})
    s3.put_object(Bucket=bucket, Key="appspec.yaml", Body=good.encode())
    revision = {"revisionType": "S3", "s3Location": {"bucket": bucket, "key": "appspec.yaml", "bundleType": "YAML"}}
    id = api.create_deployment(applicationName="bad", deploymentGroupName="group", revision=revision)["deploymentId"]
    deployed.reaches(id, "Succeeded")
    assert deployed.page_at() == "x"
    # Without the right to it.
    stack.iam.detach_role_policy(RoleName="code-deploy", PolicyArn="arn:aws:iam::aws:policy/AWSCodeDeployRoleForECS")
    fails("IAM_ROLE_PERMISSIONS", "ecs:DescribeServices", good)
    stack.iam.attach_role_policy(RoleName="code-deploy", PolicyArn="arn:aws:iam::aws:policy/AWSCodeDeployRoleForECS")

    whole = {**deployed.group_of(), "deploymentGroupName": "other"}
    for code, says, change in [
        ("ECSServiceMappingLimitExceededException", "group", {}),
        ("InvalidDeploymentStyleException", "BLUE_GREEN", {"deploymentStyle": {"deploymentType": "IN_PLACE"}}),
        ("InvalidBlueGreenDeploymentConfigurationException", "must be specified", {"blueGreenDeploymentConfiguration": None}),
        ("InvalidLoadBalancerInfoException", "pair", {"loadBalancerInfo": {"targetGroupPairInfoList": []}}),
        ("InvalidECSServiceException", "One", {"ecsServices": []}),
        ("DeploymentConfigDoesNotExistException", "nothing", {"deploymentConfigName": "nothing"}),
        ("InvalidAlarmConfigException", "more than once", {"alarmConfiguration": {"enabled": True, "alarms": [{"name": "x"}, {"name": "x"}]}}),
        ("InvalidAlarmConfigException", "none is given", {"alarmConfiguration": {"enabled": True}}),
        ("AlarmsLimitExceededException", "10", {"alarmConfiguration": {"alarms": [{"name": str(n)} for n in range(11)]}}),
        ("ApplicationDoesNotExistException", "nowhere", {"applicationName": "nowhere"}),
    ]:
        with refused(code, says):
            api.create_deployment_group(**{k: v for k, v in {**whole, **change}.items() if v is not None})
    with refused("DeploymentGroupAlreadyExistsException"):
        api.create_deployment_group(**deployed.group_of())
    with refused("ApplicationAlreadyExistsException"):
        api.create_application(applicationName="bad", computePlatform="ECS")
    with refused("InvalidComputePlatformException"):
        api.create_application(applicationName="lambda", computePlatform="Lambda")
    with refused("InvalidAlarmConfigException", "must have between 1 and 255"):
        api.create_deployment(
            applicationName="bad", deploymentGroupName="group", revision=revision, overrideAlarmConfiguration={"alarms": [{"name": ""}]},
        )
    with refused("DeploymentGroupDoesNotExistException"):
        api.create_deployment(applicationName="bad", deploymentGroupName="nowhere", revision=revision)
    with refused("DeploymentDoesNotExistException"):
        api.get_deployment(deploymentId="d-000000000")
    with refused("DeploymentTargetDoesNotExistException"):
        api.get_deployment_target(deploymentId=id, targetId="tests:other")
    assert api.batch_get_deployment_targets(deploymentId=id, targetIds=["tests:bad"])["deploymentTargets"][0]["ecsTarget"]["status"] == "Succeeded"
    assert "CodeDeployDefault.ECSCanary10Percent5Minutes" in api.list_deployment_configs()["deploymentConfigsList"]
    canary = api.get_deployment_config(deploymentConfigName="CodeDeployDefault.ECSCanary10Percent5Minutes")["deploymentConfigInfo"]
    assert canary["trafficRoutingConfig"]["timeBasedCanary"] == {"canaryPercentage": 10, "canaryInterval": 5}
    assert api.get_application(applicationName="bad")["application"]["computePlatform"] == "ECS"
    assert "bad" in api.list_applications()["applications"] and api.list_deployment_groups(applicationName="bad")["deploymentGroups"] == ["group"]
    account = stack.neargate.client("sts").get_caller_identity()["Account"]
    arn = f"arn:aws:codedeploy:us-east-1:{account}:deploymentgroup:bad/group"
    api.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}])
    api.untag_resource(ResourceArn=arn, TagKeys=["a"])
    assert api.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "c", "Value": "d"}]
    api.delete_deployment_group(applicationName="bad", deploymentGroupName="group")
    assert stack.neargate.aws("deploy", "list-applications").returncode == 0
    deployed.end()


def test_push_to_blue_green(stack, tmp_path):
    """A push brings appspec.yaml and taskdef.json, the image comes from ECR: a pipeline registers, deploys and shifts."""
    deployed = Deployed(stack, "shipped")
    pipelines = Pipelines(stack.neargate)
    repository = pipelines.repository()
    upload(stack.neargate, build(tmp_path, "shipped"), "shipped-image")
    described = stack.ecs.describe_task_definition(taskDefinition=deployed.page("from a push"))["taskDefinition"]
    container = {**described["containerDefinitions"][0], "image": "<IMAGE1_NAME>"}
    keep = ["family", "cpu", "memory", "executionRoleArn", "networkMode", "requiresCompatibilities"]
    taskdef = {**{key: described[key] for key in keep}, "containerDefinitions": [container]}
    image = {
        "name": "Image", "outputArtifacts": [{"name": "Image"}], "configuration": {"RepositoryName": "shipped-image"},
        "actionTypeId": {"category": "Source", "owner": "AWS", "provider": "ECR", "version": "1"},
    }
    action = deploy(
        "CodeDeployToECS", "Deploy", ["SourceOutput", "Image"], ApplicationName="shipped", DeploymentGroupName="group",
        TaskDefinitionTemplateArtifact="SourceOutput", AppSpecTemplateArtifact="SourceOutput",
        Image1ArtifactName="Image", Image1ContainerName="IMAGE1_NAME",
    )
    pipelines.commit(repository, readme=b"x")
    name = pipelines.create(("Source", [source(repository, poll="true"), image]), ("Deploy", [action]))
    first = pipelines.ends(name, pipelines.executions(name)[0]["pipelineExecutionId"], "Failed")
    assert "taskdef.json in the artifact SourceOutput" in first["statusSummary"]
    with Load(deployed.host, LISTENER) as load:
        pipelines.commit(repository, taskdef__json=json.dumps(taskdef, default=str).encode(), appspec__yaml=deployed.spec("<TASK_DEFINITION>").encode())
        id = eventually(lambda: pipelines.executions(name)[1:], "the push began an execution")[0]["pipelineExecutionId"]
        pipelines.ends(name, id)
        assert deployed.page_at() == "from a push"
        # A version that does not come up: the pipeline says so, and everything is as it was.
        broken = {**container, "command": ["/bin/busybox", "false"]}
        pipelines.commit(repository, taskdef__json=json.dumps({**taskdef, "containerDefinitions": [broken]}).encode())
        id = eventually(lambda: pipelines.executions(name)[2:], "the push began an execution")[0]["pipelineExecutionId"]
        failed = pipelines.ends(name, id, "Failed")
        assert "timed out" in failed["statusSummary"] and "rolled back by the deployment d-" in failed["statusSummary"], failed
        back = failed["statusSummary"].rsplit(" ", 1)[1].rstrip(".")
        deployed.reaches(back, "Succeeded")
        assert deployed.page_at() == "from a push"
    assert load.failures == [] and load.bodies == {"one", "from a push"}, load.failures[:3]
    running = deployed.sets()[0]["taskDefinition"]
    uri = stack.ecs.describe_task_definition(taskDefinition=running)["taskDefinition"]["containerDefinitions"][0]["image"]
    assert "/shipped-image@sha256:" in uri
    pipelines.codepipeline.delete_pipeline(name=name)
    deployed.end()


def test_crashes_lose_no_request_and_no_deployment(stack):
    """`kill -9` again and again while traffic is shifted: one version is primary, and no request fails."""
    deployed = Deployed(stack, "crashes", config="CodeDeployDefault.ECSLinear10PercentEvery3Minutes")
    seed = random.randrange(1 << 30)
    print("seed", seed)
    luck = random.Random(seed)
    with Load(deployed.host, LISTENER) as load:
        for round, words in enumerate(["two", "three"]):
            id = deployed.begin(words)
            for _ in range(6):
                time.sleep(luck.random() * 2.5)
                stack.neargate.kill()
                stack.neargate.start(NEARGATE_TIME_SCALE=SCALE)
                primary = [one for one in deployed.sets() if one["status"] == "PRIMARY"]
                assert len(primary) == 1, primary
            deployed.reaches(id, "Succeeded", 120)
            assert deployed.page_at() == words
            eventually(lambda: len(deployed.sets()) == 1, "one task set is left", 60)
    assert load.failures == [], load.failures[:3]
    assert load.bodies == {"one", "two", "three"}
    deployed.end()


def test_nobody_decides(stack):
    """An approval that nobody gives ends by itself, when its time is over."""
    pipelines = Pipelines(stack.neargate)
    repository = pipelines.repository()
    pipelines.commit(repository, a=b"a")
    name = pipelines.create(("Source", [source(repository)]), ("Approval", [approval(timeoutInMinutes=5)]))
    failed = pipelines.ends(name, pipelines.executions(name)[0]["pipelineExecutionId"], "Failed")
    assert "Nobody approved or rejected within 5 minutes." in failed["statusSummary"]


TEMPLATE = """
Parameters: {Role: {Type: String}, Service: {Type: String}, Production: {Type: String}, Wait: {Type: Number, Default: 0}}
Resources:
  Application: {Type: AWS::CodeDeploy::Application, Properties: {ComputePlatform: ECS}}
  Config:
    Type: AWS::CodeDeploy::DeploymentConfig
    Properties:
      ComputePlatform: ECS
      TrafficRoutingConfig: {Type: TimeBasedLinear, TimeBasedLinear: {LinearPercentage: 50, LinearInterval: 1}}
  Group:
    Type: AWS::CodeDeploy::DeploymentGroup
    Properties:
      ApplicationName: !Ref Application
      ServiceRoleArn: !Ref Role
      DeploymentConfigName: !Ref Config
      DeploymentStyle: {DeploymentType: BLUE_GREEN, DeploymentOption: WITH_TRAFFIC_CONTROL}
      AutoRollbackConfiguration: {Enabled: true, Events: [DEPLOYMENT_FAILURE]}
      BlueGreenDeploymentConfiguration:
        DeploymentReadyOption: {ActionOnTimeout: CONTINUE_DEPLOYMENT, WaitTimeInMinutes: 0}
        TerminateBlueInstancesOnDeploymentSuccess: {Action: TERMINATE, TerminationWaitTimeInMinutes: !Ref Wait}
      ECSServices: [{ClusterName: tests, ServiceName: !Ref Service}]
      LoadBalancerInfo:
        TargetGroupPairInfoList:
          - TargetGroups: [{Name: !Sub "${Service}-blue"}, {Name: !Sub "${Service}-green"}]
            ProdTrafficRoute: {ListenerArns: [!Ref Production]}
Outputs: {Application: {Value: !Ref Application}, Group: {Value: !Ref Group}, Config: {Value: !Ref Config}}
"""


def test_in_a_stack(stack):
    stacks, api = Stacks(stack.neargate), stack.neargate.client("codedeploy")
    parameters = lambda **more: [
        {"ParameterKey": k, "ParameterValue": v}
        for k, v in {"Role": role_for(stack), "Service": "stacked", "Production": "arn:aws:elasticloadbalancing:us-east-1:1:listener/x", **more}.items()
    ]
    stacks.create("with-deployments", TEMPLATE, Parameters=parameters())
    outputs = stacks.outputs("with-deployments")
    get = lambda: api.get_deployment_group(applicationName=outputs["Application"], deploymentGroupName=outputs["Group"])["deploymentGroupInfo"]
    group = get()
    assert group["deploymentConfigName"] == outputs["Config"] and group["ecsServices"] == [{"serviceName": "stacked", "clusterName": "tests"}]
    assert group["loadBalancerInfo"]["targetGroupPairInfoList"][0]["targetGroups"] == [{"name": "stacked-blue"}, {"name": "stacked-green"}]
    stacks.update("with-deployments", TEMPLATE, Parameters=parameters(Wait="7"))
    blue = get()["blueGreenDeploymentConfiguration"]["terminateBlueInstancesOnDeploymentSuccess"]
    assert blue == {"action": "TERMINATE", "terminationWaitTimeInMinutes": 7}
    stacks.delete("with-deployments")
    with refused("ApplicationDoesNotExistException"):
        api.get_application(applicationName=outputs["Application"])
