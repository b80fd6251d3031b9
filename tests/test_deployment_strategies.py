"""ECS's blue/green, linear and canary deployments: traffic is shifted, tested, baked, held, brought back; none is lost."""

import http.client
import time

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, Stack, eventually, push
from test_service_balanced import LISTENER, Balanced, Load, fetch

# A minute of AWS's is 1.2 s here.
SCALE = "0.02"
ROLE = "arn:aws:iam::123456789012:role/ecs-load-balancers"


class Shifted(Balanced):
    """A service with two target groups, a production and a test listener."""

    def __init__(self, stack, name):
        super().__init__(stack)
        self.name = name
        self.front_door = self.balancer(name)
        self.host = self.front_door["DNSName"]
        self.blue, self.green = self.group(f"{name}-blue"), self.group(f"{name}-green")
        self.production, self.test = self.rule(LISTENER), self.rule(LISTENER + 1)

    def rule(self, port):
        listener = self.listener(self.front_door, self.blue, port)
        groups = [{"TargetGroupArn": self.blue, "Weight": 1}, {"TargetGroupArn": self.green, "Weight": 0}]
        return self.elb.create_rule(
            ListenerArn=listener,
            Priority=1,
            Conditions=[{"Field": "path-pattern", "Values": ["/*"]}],
            Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
        )["Rules"][0]["RuleArn"]

    def balancers(self, **more):
        advanced = {
            "alternateTargetGroupArn": self.green,
            "productionListenerRule": self.production,
            "testListenerRule": self.test,
            "roleArn": ROLE,
            **more,
        }
        return [
            {
                "targetGroupArn": self.blue,
                "containerName": "main",
                "containerPort": 8080,
                "advancedConfiguration": advanced,
            }
        ]

    def begin(self, words, count, **configuration):
        network = {"subnets": self.stack.subnets[:2], "securityGroups": [self.back], "assignPublicIp": "ENABLED"}
        return self.create(
            self.name,
            self.page(words),
            count,
            loadBalancers=self.balancers(),
            networkConfiguration={"awsvpcConfiguration": network},
            deploymentConfiguration=configuration,
        )

    def weights(self, rule):
        [found] = self.elb.describe_rules(RuleArns=[rule])["Rules"]
        groups = found["Actions"][0]["ForwardConfig"]["TargetGroups"]
        return {("blue" if g["TargetGroupArn"] == self.blue else "green"): g["Weight"] for g in groups}

    def latest(self):
        found = self.ecs.list_service_deployments(cluster="tests", service=self.name)["serviceDeployments"]
        arn = found[0]["serviceDeploymentArn"]
        return self.ecs.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"][0]

    def reaches(self, status, stage=None):
        def look():
            found = self.latest()
            return found if found["status"] == status and stage in (None, found.get("lifecycleStage")) else None

        return eventually(look, f"{self.name} is {status} {stage or ''}", 90)

    def held(self, stage):
        """The hook at which the deployment waits."""

        def look():
            found = self.latest()
            waiting = [h for h in found["lifecycleHookDetails"] if h["status"] == "AWAITING_ACTION"]
            return (found, waiting[0]) if waiting and found["lifecycleStage"] == stage else None

        return eventually(look, f"{self.name} waits at {stage}", 90)

    def let_on(self, found, hook, action="CONTINUE"):
        arn = found["serviceDeploymentArn"]
        answer = self.ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"], action=action)
        assert answer["serviceDeploymentArn"] == arn

    def end(self):
        self.clear(self.name, self.front_door, self.blue, self.green)


def pause(*stages, minutes=1440, action="ROLLBACK"):
    timeout = {"timeoutInMinutes": minutes, "action": action}
    return {"targetType": "PAUSE", "lifecycleStages": list(stages), "timeoutConfiguration": timeout}


@pytest.fixture(scope="module")
def stack(tmp_path_factory, neargate):
    plane = Neargate(tmp_path_factory.mktemp("shifted") / "data", PORT + 11).start(NEARGATE_TIME_SCALE=SCALE)
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "shifted")
    yield stack
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


def test_green_is_tested_beside_blue_and_takes_over_at_once(stack):
    shifted = Shifted(stack, "switch")
    made = shifted.begin("blue", 2, strategy="BLUE_GREEN", bakeTimeInMinutes=3, lifecycleHooks=[pause("POST_TEST_TRAFFIC_SHIFT")])
    assert made["deploymentConfiguration"]["bakeTimeInMinutes"] == 3
    first = shifted.held("POST_TEST_TRAFFIC_SHIFT")
    assert first[0]["status"] == "IN_PROGRESS" and first[0]["sourceServiceRevisions"] == []
    shifted.let_on(*first)
    shifted.reaches("SUCCESSFUL")
    assert shifted.weights(shifted.production) == {"blue": 100, "green": 0}
    host = shifted.host
    with Load(host, LISTENER) as kept, Load(host, LISTENER, keep_alive=False) as fresh:
        shifted.update("switch", taskDefinition=shifted.page("green"))
        found, hook = shifted.held("POST_TEST_TRAFFIC_SHIFT")
        assert hook["targetType"] == "PAUSE" and hook["timeoutAction"] == "ROLLBACK" and hook["hookId"]
        [source], target = found["sourceServiceRevisions"], found["targetServiceRevision"]
        assert (source["requestedProductionTrafficWeight"], target["requestedProductionTrafficWeight"]) == (100, 0)
        assert (source["requestedTestTrafficWeight"], target["requestedTestTrafficWeight"]) == (0, 100)
        assert source["runningTaskCount"] == 2 == target["runningTaskCount"] == target["requestedTaskCount"]
        assert eventually(lambda: fetch(f"http://{host}:{LISTENER + 1}/") == "green", "test traffic")
        assert kept.bodies == {"blue"}
        service = shifted.describe("switch")
        assert [d["status"] for d in service["deployments"]] == ["PRIMARY", "ACTIVE"]
        shifted.let_on(found, hook)
        baking = shifted.reaches("IN_PROGRESS", "BAKE_TIME")
        assert baking["targetServiceRevision"]["requestedProductionTrafficWeight"] == 100
        assert baking["sourceServiceRevisions"][0]["runningTaskCount"] == 2, "blue stays while green bakes"
        eventually(lambda: fetch(f"http://{host}:{LISTENER}/") == "green", "production traffic")
        done = shifted.reaches("SUCCESSFUL")
        shifted.steady("switch")
    assert kept.failures == [] and fresh.failures == []
    assert kept.bodies == {"blue", "green"} == fresh.bodies
    assert done["lifecycleStage"] == "CLEAN_UP" and done["finishedAt"] > done["startedAt"] >= done["createdAt"]
    assert done["deploymentConfiguration"]["strategy"] == "BLUE_GREEN"
    assert shifted.weights(shifted.production) == {"blue": 0, "green": 100} == shifted.weights(shifted.test)
    assert eventually(lambda: shifted.states(shifted.blue) == [], "blue is empty")
    assert shifted.states(shifted.green) == ["healthy", "healthy"]
    revisions = shifted.ecs.describe_service_revisions(
        serviceRevisionArns=[done["targetServiceRevision"]["arn"], done["sourceServiceRevisions"][0]["arn"]]
    )["serviceRevisions"]
    assert [r["resolvedConfiguration"]["loadBalancers"][0]["targetGroupArn"] for r in revisions] == [shifted.green, shifted.blue]
    assert revisions[0]["taskDefinition"] != revisions[1]["taskDefinition"]
    assert revisions[0]["containerImages"][0]["imageDigest"].startswith("sha256:")
    listed = shifted.ecs.list_service_deployments(cluster="tests", service="switch", maxResults=1)
    assert listed["serviceDeployments"][0]["serviceDeploymentArn"] == done["serviceDeploymentArn"] and listed["nextToken"]
    rest = shifted.ecs.list_service_deployments(cluster="tests", service="switch", nextToken=listed["nextToken"])
    assert [d["status"] for d in rest["serviceDeployments"]] == ["SUCCESSFUL"]
    # The next one goes back into the first group.
    shifted.update(
        "switch", taskDefinition=shifted.page("third"), deploymentConfiguration={"lifecycleHooks": [], "bakeTimeInMinutes": 0}
    )
    shifted.reaches("SUCCESSFUL")
    assert shifted.weights(shifted.production) == {"blue": 100, "green": 0}
    assert eventually(lambda: fetch(f"http://{host}:{LISTENER}/") == "third", "the third")
    history = [done["serviceDeploymentArn"], done["targetServiceRevision"]["arn"]]
    shifted.end()
    gone = shifted.ecs.describe_service_deployments(serviceDeploymentArns=history[:1])
    assert gone["serviceDeployments"] == [] and gone["failures"][0]["reason"] == "MISSING"
    assert shifted.ecs.describe_service_revisions(serviceRevisionArns=history[1:])["failures"][0]["reason"] == "MISSING"


def test_traffic_goes_back_when_it_is_asked_for_and_when_a_hook_is_over(stack):
    shifted = Shifted(stack, "back")
    shifted.begin("good", 1, strategy="BLUE_GREEN", bakeTimeInMinutes=1000)
    shifted.reaches("SUCCESSFUL")
    with Load(shifted.host, LISTENER) as load:
        shifted.update("back", taskDefinition=shifted.page("bad"))
        baking = shifted.reaches("IN_PROGRESS", "BAKE_TIME")
        eventually(lambda: "bad" in load.bodies, "it has the traffic")
        arn = baking["serviceDeploymentArn"]
        assert shifted.ecs.stop_service_deployment(serviceDeploymentArn=arn)["serviceDeploymentArn"] == arn
        back = shifted.reaches("ROLLBACK_SUCCESSFUL")
        assert back["rollback"]["serviceRevisionArn"] == back["sourceServiceRevisions"][0]["arn"]
        assert back["rollback"]["reason"] == back["statusReason"]
        assert shifted.weights(shifted.production) == {"blue": 100, "green": 0} == shifted.weights(shifted.test)
        shifted.steady("back")
        with pytest.raises(ClientError) as error:
            shifted.ecs.stop_service_deployment(serviceDeploymentArn=arn)
        assert error.value.response["Error"]["Code"] == "ConflictException"
        with pytest.raises(ClientError) as error:
            shifted.ecs.stop_service_deployment(serviceDeploymentArn=arn[:-3] + "abc")
        assert error.value.response["Error"]["Code"] == "ServiceDeploymentNotFoundException"
        # A hook whose time is over sends it back, and so does whoever is asked.
        hooks = [pause("POST_SCALE_UP", minutes=1)]
        shifted.update("back", taskDefinition=shifted.page("late"), deploymentConfiguration={"lifecycleHooks": hooks})
        late = shifted.reaches("ROLLBACK_SUCCESSFUL")
        assert late["serviceDeploymentArn"] != arn and late["lifecycleHookDetails"][0]["status"] == "TIMED_OUT"
        hooks = [pause("PRE_SCALE_UP")]
        shifted.update("back", taskDefinition=shifted.page("no"), deploymentConfiguration={"lifecycleHooks": hooks})
        found, hook = shifted.held("PRE_SCALE_UP")
        assert found["targetServiceRevision"]["runningTaskCount"] == 0
        with pytest.raises(ClientError) as error:
            shifted.let_on(found, {"hookId": "ecs-pause-other"})
        assert "not awaiting" in str(error.value)
        shifted.let_on(found, hook, "ROLLBACK")
        refused = shifted.reaches("ROLLBACK_SUCCESSFUL")
        assert refused["lifecycleHookDetails"][0]["status"] == "FAILED"
    assert load.failures == [] and load.bodies == {"good", "bad"}
    shifted.end()


def test_traffic_is_shifted_in_steps(stack):
    shifted = Shifted(stack, "steps")
    linear = {"stepPercent": 40.0, "stepBakeTimeInMinutes": 2}
    shifted.begin("one", 1, strategy="LINEAR", bakeTimeInMinutes=0, linearConfiguration=linear)
    shifted.reaches("SUCCESSFUL")
    seen = []
    with Load(shifted.host, LISTENER) as load:
        shifted.update("steps", taskDefinition=shifted.page("two"))
        deadline = time.monotonic() + 60
        while shifted.latest()["status"] != "SUCCESSFUL" and time.monotonic() < deadline:
            green = shifted.weights(shifted.production)["green"]
            if seen[-1:] != [green]:
                seen.append(green)
        assert seen == [0, 40, 80, 100]
        canary = {"canaryPercent": 0.5, "canaryBakeTimeInMinutes": 1440}
        configuration = {"strategy": "CANARY", "canaryConfiguration": canary}
        shifted.update("steps", taskDefinition=shifted.page("three"), deploymentConfiguration=configuration)
        eventually(lambda: shifted.weights(shifted.production) == {"blue": 5, "green": 995}, "a canary")
        found = shifted.latest()
        assert found["targetServiceRevision"]["requestedProductionTrafficWeight"] == 0.5
        # Another version is wanted before it is through: all goes back to what was there, and on to that one.
        configuration["canaryConfiguration"] = {"canaryPercent": 50.0, "canaryBakeTimeInMinutes": 1}
        shifted.update("steps", taskDefinition=shifted.page("four"), deploymentConfiguration=configuration)
        shifted.reaches("SUCCESSFUL")
        before = shifted.ecs.describe_service_deployments(serviceDeploymentArns=[found["serviceDeploymentArn"]])
        assert before["serviceDeployments"][0]["status"] == "STOPPED"
    assert load.failures == [] and {"one", "two", "four"} <= load.bodies
    assert shifted.weights(shifted.production) == {"blue": 100, "green": 0}
    shifted.end()


def test_a_version_that_cannot_run_is_never_sent_requests(stack):
    shifted = Shifted(stack, "broken")
    breaker = {"enable": True, "rollback": True}
    shifted.begin("fine", 1, strategy="BLUE_GREEN", bakeTimeInMinutes=0, deploymentCircuitBreaker=breaker)
    shifted.reaches("SUCCESSFUL")
    broken = stack.define(stack.container(image="localhost/no-such", portMappings=[{"containerPort": 8080}]))
    with Load(shifted.host, LISTENER) as load:
        shifted.update("broken", taskDefinition=broken)
        found = shifted.reaches("ROLLBACK_SUCCESSFUL")
        assert found["deploymentCircuitBreaker"] == {"status": "TRIGGERED", "failureCount": 3, "threshold": 3}
        assert found["lifecycleStage"] == "SCALE_UP"
        # A rule that is deleted under a deployment's hands sends it back, and is told.
        shifted.elb.delete_rule(RuleArn=shifted.test)
        shifted.update("broken", taskDefinition=shifted.page("next"))
        found = shifted.reaches("ROLLBACK_FAILED")
        assert "unable to shift traffic" in found["statusReason"] and shifted.test in found["statusReason"]
    assert load.failures == [] and load.bodies == {"fine"}
    shifted.end()


def test_rolling_deployments_have_a_history_too(stack):
    services = Balanced(stack)
    made = services.create("rolled", services.page("one"), 1)
    services.steady("rolled")
    services.update("rolled", taskDefinition=services.page("two"))
    services.steady("rolled")
    found = services.ecs.list_service_deployments(cluster="tests", service=made["serviceArn"], status=["SUCCESSFUL"])
    newest, first = found["serviceDeployments"]
    assert newest["createdAt"] > first["createdAt"]
    arns = [newest["serviceDeploymentArn"]]
    [described] = services.ecs.describe_service_deployments(serviceDeploymentArns=arns)["serviceDeployments"]
    assert described["sourceServiceRevisions"][0]["arn"] == first["targetServiceRevisionArn"]
    assert "lifecycleStage" not in described and described["targetServiceRevision"]["runningTaskCount"] == 1
    assert described["deploymentCircuitBreaker"]["status"] == "DISABLED"
    # A way that leads nowhere is given up by hand.
    services.update("rolled", taskDefinition=stack.define(stack.container(image="localhost/no-such")))
    [ongoing] = eventually(
        lambda: services.ecs.list_service_deployments(cluster="tests", service="rolled", status=["IN_PROGRESS"])["serviceDeployments"],
        "it is under way",
    )
    services.ecs.stop_service_deployment(serviceDeploymentArn=ongoing["serviceDeploymentArn"], stopType="ROLLBACK")
    services.steady("rolled")
    found = services.ecs.list_service_deployments(cluster="tests", service="rolled", status=["ROLLBACK_SUCCESSFUL"])
    assert found["serviceDeployments"][0]["serviceDeploymentArn"] == ongoing["serviceDeploymentArn"]
    before = {"before": first["createdAt"]}
    assert services.ecs.list_service_deployments(cluster="tests", service="rolled", createdAt=before)["serviceDeployments"] == []
    services.delete("rolled")


def trouble(cloudwatch):
    """An alarm that is as somebody says: nothing is measured. It takes an hour to see something, a minute and some here."""
    cloudwatch.put_metric_alarm(
        AlarmName="trouble", Namespace="Shop", MetricName="Trouble", Statistic="Sum", Period=300, EvaluationPeriods=12, Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )

    def turn(state):
        cloudwatch.set_alarm_state(AlarmName="trouble", StateValue=state, StateReason="a drill")

    return turn


ALARMS = {"alarmNames": ["trouble"], "enable": True, "rollback": True}


def test_an_alarm_brings_traffic_back(stack):
    shifted, turn = Shifted(stack, "alarmed"), trouble(stack.neargate.client("cloudwatch"))
    canary = {"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 10.0, "canaryBakeTimeInMinutes": 1440}}
    shifted.begin("one", 2, **canary, alarms=ALARMS)
    shifted.reaches("SUCCESSFUL")
    with Load(shifted.host, LISTENER, keep_alive=False) as load:
        shifted.update("alarmed", taskDefinition=shifted.page("two"))
        eventually(lambda: load.bodies == {"one", "two"}, "the canary is out", 90)
        assert shifted.latest()["alarms"] == {"status": "MONITORING", "alarmNames": ["trouble"]}
        turn("ALARM")
        back = shifted.reaches("ROLLBACK_SUCCESSFUL")
        assert back["alarms"] == {"status": "TRIGGERED", "alarmNames": ["trouble"], "triggeredAlarmNames": ["trouble"]}
        assert "alarm" in back["statusReason"] and "alarm" in back["rollback"]["reason"]
        eventually(lambda: fetch(f"http://{shifted.host}:{LISTENER}/") == "one", "all of it is back")
        told = [event["message"] for event in shifted.describe("alarmed")["events"]]
        assert any("deployment failed: alarm detected." in text for text in told), told
    assert load.failures == [], load.failures[:3]
    with pytest.raises(ClientError, match="alarmNames is empty"):
        shifted.update("alarmed", deploymentConfiguration={"alarms": {"alarmNames": [], "enable": True, "rollback": True}})
    shifted.end()


def test_a_rolling_deployment_waits_for_its_alarms(stack):
    rolled, turn = Shifted(stack, "rolled"), trouble(stack.neargate.client("cloudwatch"))

    def in_place(words):
        pages = lambda: {fetch(f"http://{rolled.host}:{LISTENER}/") for _ in range(8)}
        eventually(lambda: pages() == {words} and rolled.describe("rolled")["runningCount"] == 2, f"{words} is in place", 90)
        found = rolled.latest()
        assert found["status"] == "IN_PROGRESS" and found["alarms"]["status"] == "MONITORING"

    # What is on already may be what is to be mended: it is not looked at.
    turn("ALARM")
    rolled.service("rolled", rolled.page("one"), 2, rolled.blue, deploymentConfiguration={"alarms": ALARMS})
    assert rolled.reaches("SUCCESSFUL")["alarms"]["status"] == "DISABLED"
    turn("OK")
    with Load(rolled.host, LISTENER, keep_alive=False) as load:
        rolled.update("rolled", taskDefinition=rolled.page("two"))
        in_place("two")
        turn("ALARM")
        rolled.reaches("ROLLBACK_SUCCESSFUL")
        eventually(lambda: fetch(f"http://{rolled.host}:{LISTENER}/") == "one", "the last good one is back")
        # Without rollback it ends where it is.
        turn("OK")
        rolled.update("rolled", taskDefinition=rolled.page("three"), deploymentConfiguration={"alarms": {**ALARMS, "rollback": False}})
        in_place("three")
        turn("ALARM")
        stopped = rolled.reaches("STOPPED")
        [deployment] = [one for one in rolled.describe("rolled")["deployments"] if one["status"] == "PRIMARY"]
        assert "ALARM" in stopped["statusReason"] and deployment["rolloutState"] == "FAILED"
        assert "alarm detected" in deployment["rolloutStateReason"]
    assert load.failures == [], load.failures[:3]
    # What is well for as long as the alarm would have taken is in place.
    turn("OK")
    stack.neargate.client("cloudwatch").put_metric_alarm(
        AlarmName="trouble", Namespace="Shop", MetricName="Trouble", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold", TreatMissingData="ignore",
    )
    rolled.update("rolled", taskDefinition=rolled.page("four"), deploymentConfiguration={"alarms": ALARMS})
    assert rolled.reaches("SUCCESSFUL")["alarms"]["status"] == "MONITORING_COMPLETE"
    rolled.end()


def test_strategies_that_cannot_be(stack):
    shifted = Shifted(stack, "never")
    definition = shifted.page("x")

    def refused(words, balancers=None, **configuration):
        balancers = shifted.balancers() if balancers is None else balancers
        with pytest.raises(ClientError) as error:
            shifted.create("never", definition, 1, loadBalancers=balancers, deploymentConfiguration=configuration)
        assert error.value.response["Error"]["Code"] == "InvalidParameterException", error.value
        assert words in str(error.value)

    green = {"strategy": "BLUE_GREEN"}
    refused("bakeTimeInMinutes is not valid", bakeTimeInMinutes=5)
    refused("bakeTimeInMinutes must be between 0 and 1440", **green, bakeTimeInMinutes=1441)
    refused("canaryConfiguration is not valid", **green, canaryConfiguration={"canaryPercent": 5})
    refused("stepPercent must be a multiple of 0.1", strategy="LINEAR", linearConfiguration={"stepPercent": 2.0})
    refused("stepPercent must be a multiple of 0.1", strategy="LINEAR", linearConfiguration={"stepPercent": 5.05})
    refused("canaryBakeTimeInMinutes", strategy="CANARY", canaryConfiguration={"canaryBakeTimeInMinutes": -1})
    refused("Lambda", **green, lifecycleHooks=[{"lifecycleStages": ["POST_SCALE_UP"]}])
    refused("lifecycleStages", **green, lifecycleHooks=[{"targetType": "PAUSE"}])
    refused("advancedConfiguration must be specified", balancers=[{k: v for k, v in shifted.balancers()[0].items() if k != "advancedConfiguration"}], **green)
    refused("must not be the same", balancers=shifted.balancers(alternateTargetGroupArn=shifted.blue), **green)
    refused("must not be the same", balancers=shifted.balancers(testListenerRule=shifted.production), **green)
    refused("cannot be used", balancers=shifted.balancers(productionListenerRule=shifted.production[:-4] + "0000"), **green)
    unused = shifted.group("never-unused")
    refused("does not have an associated load balancer", balancers=shifted.balancers(alternateTargetGroupArn=unused), **green)
    shifted.elb.delete_target_group(TargetGroupArn=unused)
    shifted.elb.delete_load_balancer(LoadBalancerArn=shifted.front_door["LoadBalancerArn"])


def test_a_deployment_goes_on_after_every_death_of_the_control_plane(stack):
    shifted = Shifted(stack, "deaths")
    linear = {"stepPercent": 20.0, "stepBakeTimeInMinutes": 1}
    shifted.begin("before", 2, strategy="LINEAR", bakeTimeInMinutes=2, linearConfiguration=linear)
    shifted.reaches("SUCCESSFUL")
    plane = stack.neargate
    with Load(shifted.host, LISTENER) as load:
        shifted.update("deaths", taskDefinition=shifted.page("after"))
        for stage in ["SCALE_UP", "PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME"]:
            shifted.reaches("IN_PROGRESS", stage)
            plane.kill()
            plane.start(NEARGATE_TIME_SCALE=SCALE)
        shifted.reaches("SUCCESSFUL")
        shifted.steady("deaths")
    assert load.failures == [] and load.bodies == {"before", "after"}
    shifted.end()
