"""Task sets: services whose deployments somebody else controls, blue/green by hand, and not one request lost."""

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_service_balanced import LISTENER, Balanced, Load, fetch


class Sets(Balanced):
    def make(self, service, definition, group, **more):
        network = {"subnets": self.stack.subnets[:2], "securityGroups": [self.back], "assignPublicIp": "ENABLED"}
        balancers = [{"targetGroupArn": group, "containerName": "main", "containerPort": 8080}]
        more.setdefault("loadBalancers", balancers)
        return self.ecs.create_task_set(
            cluster="tests", service=service, taskDefinition=definition, launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": network}, **more,
        )["taskSet"]

    def sets(self, service, *ids):
        found = self.ecs.describe_task_sets(cluster="tests", service=service, taskSets=list(ids))
        assert found["failures"] == []
        return found["taskSets"]

    def settled(self, service, set_id, count):
        def look():
            [found] = self.sets(service, set_id)
            return found if found["stabilityStatus"] == "STEADY_STATE" and found["runningCount"] == count else None

        return eventually(look, f"{set_id} has {count} tasks", 60)

    def weigh(self, listener, **weights):
        groups = [{"TargetGroupArn": group, "Weight": weight} for group, weight in weights.values()]
        self.elb.modify_listener(
            ListenerArn=listener, DefaultActions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}]
        )


@pytest.fixture(scope="module")
def sets(stack):
    return Sets(stack)


def refused(words, call, code="InvalidParameterException", **more):
    with pytest.raises(ClientError, match=words) as error:
        call(cluster="tests", **more)
    assert error.value.response["Error"]["Code"] == code


def test_somebody_else_deploys_blue_and_green(sets, neargate):
    ecs = sets.ecs
    balancer, blue, green = sets.balancer("sets"), sets.group("sets-blue"), sets.group("sets-green")
    listener = sets.listener(balancer, blue)
    sets.weigh(listener, blue=(blue, 1), green=(green, 0))
    external = {"serviceName": "sets", "deploymentController": {"type": "EXTERNAL"}}
    one, two = sets.page("one"), sets.page("two")
    refused("taskDefinition cannot be specified", ecs.create_service, **external, taskDefinition=one)
    refused("launchType cannot be specified", ecs.create_service, **external, launchType="FARGATE")
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    refused("circuit breaker", ecs.create_service, **external, deploymentConfiguration=breaker)
    made = ecs.create_service(cluster="tests", **external, desiredCount=2)["service"]
    assert made["deployments"] == made["taskSets"] == [] and "taskDefinition" not in made
    assert made["deploymentController"] == {"type": "EXTERNAL"}
    first = sets.make("sets", one, blue, externalId="blue", clientToken="a", tags=[{"key": "k", "value": "v"}])
    assert first["status"] == "ACTIVE" and first["stabilityStatus"] == "STABILIZING" and first["computedDesiredCount"] == 2
    assert first["scale"] == {"value": 100.0, "unit": "PERCENT"} and first["externalId"] == "blue"
    assert first["taskSetArn"].endswith(f":task-set/tests/sets/{first['id']}") and first["id"].startswith("ecs-svc/")
    assert sets.make("sets", one, blue, clientToken="a")["id"] == first["id"], "the same request"
    refused("not idempotent", lambda **_: sets.make("sets", two, blue, clientToken="a"))
    told = ecs.update_service_primary_task_set(cluster="tests", service="sets", primaryTaskSet=first["taskSetArn"])["taskSet"]
    assert told["status"] == "PRIMARY"
    sets.settled("sets", first["id"], 2)
    [known] = ecs.describe_task_sets(cluster="tests", service="sets", include=["TAGS"])["taskSets"]
    assert known["tags"] == [{"key": "k", "value": "v"}] and known["loadBalancers"][0]["targetGroupArn"] == blue
    described = sets.describe("sets")
    assert described["taskDefinition"] == one and [s["id"] for s in described["taskSets"]] == [first["id"]]
    url = f"http://{balancer['DNSName']}:{LISTENER}/"
    eventually(lambda: fetch(url) == "one", "the first answers")
    with Load(balancer["DNSName"], LISTENER) as load:
        second = sets.make("sets", two, green, scale={"value": 40, "unit": "PERCENT"})
        assert second["computedDesiredCount"] == 1
        sets.settled("sets", second["id"], 1)
        neargate.kill()
        neargate.start()
        scaled = ecs.update_task_set(cluster="tests", service="sets", taskSet=second["id"], scale={"value": 100, "unit": "PERCENT"})
        assert scaled["taskSet"]["computedDesiredCount"] == 2
        sets.settled("sets", second["id"], 2)
        assert load.bodies == {"one"}, "no traffic is shifted unless somebody does it"
        sets.weigh(listener, blue=(blue, 0), green=(green, 1))
        ecs.update_service_primary_task_set(cluster="tests", service="sets", primaryTaskSet=second["id"])
        states = {s["id"]: s["status"] for s in sets.describe("sets")["taskSets"]}
        assert states == {first["id"]: "ACTIVE", second["id"]: "PRIMARY"}
        eventually(lambda: "two" in load.bodies, "the second answers")
        refused("scaled above 0", ecs.delete_task_set, service="sets", taskSet=first["id"])
        gone = ecs.delete_task_set(cluster="tests", service="sets", taskSet=first["id"], force=True)["taskSet"]
        assert gone["status"] == "DRAINING"
        eventually(lambda: [s["id"] for s in sets.sets("sets")] == [second["id"]], "the first is gone", 60)
        sets.update("sets", desiredCount=3)
        sets.settled("sets", second["id"], 3)
        sets.update("sets", desiredCount=1)
        sets.settled("sets", second["id"], 1)
    assert load.failures == [] and load.bodies == {"one", "two"} and load.answers > 200
    # What a task set lacks is made up for.
    [task] = ecs.list_tasks(cluster="tests", serviceName="sets")["taskArns"]
    ecs.stop_task(cluster="tests", task=task)
    eventually(lambda: ecs.list_tasks(cluster="tests", serviceName="sets")["taskArns"] not in ([task], []), "another task", 60)
    failed = ecs.describe_task_sets(cluster="tests", service="sets", taskSets=[first["id"]])
    assert failed["taskSets"] == [] and failed["failures"][0]["reason"] == "MISSING"
    missing = {"service": "sets", "taskSet": "ecs-svc/1"}
    refused("not found", ecs.delete_task_set, "TaskSetNotFoundException", **missing)
    refused("between 0 and 100", ecs.update_task_set, **{**missing, "taskSet": second["id"]}, scale={"value": 101, "unit": "PERCENT"})
    for _ in range(4):
        sets.make("sets", one, blue, scale={"value": 0, "unit": "PERCENT"})
    refused("at most 5", lambda **_: sets.make("sets", one, blue))
    sets.clear("sets", balancer, blue, green)


def test_code_deploy_has_its_first_task_set_from_the_service(sets):
    ecs = sets.ecs
    balancer, group = sets.balancer("cd"), sets.group("cd")
    sets.listener(balancer, group)
    by_code_deploy = {"deploymentController": {"type": "CODE_DEPLOY"}}
    network = {"awsvpcConfiguration": {"subnets": sets.stack.subnets[:2], "securityGroups": [sets.back], "assignPublicIp": "ENABLED"}}
    refused(
        "load balancer is required", ecs.create_service, serviceName="cd", desiredCount=1, launchType="FARGATE",
        taskDefinition=sets.page("cd"), networkConfiguration=network, **by_code_deploy,
    )
    made = sets.service("cd", sets.page("cd"), 2, group, **by_code_deploy)
    [first] = made["taskSets"]
    assert made["deployments"] == [] and first["status"] == "PRIMARY" and made["taskDefinition"] == first["taskDefinition"]
    sets.settled("cd", first["id"], 2)
    eventually(lambda: fetch(f"http://{balancer['DNSName']}:{LISTENER}/") == "cd", "it answers")
    words = "Unable to update task definition on services with a CODE_DEPLOY deployment controller"
    refused(words, ecs.update_service, service="cd", taskDefinition=sets.page("other"))
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    refused("circuit breaker", ecs.update_service, service="cd", deploymentConfiguration=breaker)
    refused("force a new deployment", ecs.update_service, service="cd", forceNewDeployment=True)
    sets.update("cd", desiredCount=1)
    sets.settled("cd", first["id"], 1)
    events = [event["message"] for event in sets.describe("cd")["events"]]
    assert events[0] == "(service cd) has reached a steady state.", events
    sets.clear("cd", balancer, group)


def test_cloud_map_is_told_what_others_call_a_task_set(sets, neargate):
    discovery = neargate.client("servicediscovery")
    discovery.create_http_namespace(Name="called")
    [namespace] = [found["Id"] for found in discovery.list_namespaces()["Namespaces"] if found["Name"] == "called"]
    service = discovery.create_service(Name="called", NamespaceId=namespace)["Service"]
    sets.ecs.create_service(cluster="tests", serviceName="called", deploymentController={"type": "EXTERNAL"}, desiredCount=1)
    registries = [{"registryArn": service["Arn"]}]
    sets.make("called", sets.page("called"), None, loadBalancers=[], serviceRegistries=registries, externalId="by another name")
    [instance] = eventually(lambda: discovery.list_instances(ServiceId=service["Id"])["Instances"], "it is registered")
    assert instance["Attributes"]["ECS_TASK_SET_EXTERNAL_ID"] == "by another name"
    sets.delete("called")
    eventually(lambda: not discovery.list_instances(ServiceId=service["Id"])["Instances"], "it is gone")


def test_services_that_ecs_deploys_have_none(sets):
    group = sets.group("plain")
    balancer = sets.balancer("plain")
    sets.listener(balancer, group)
    sets.service("plain", sets.page("plain"), 0, group)
    refused("must be CODE_DEPLOY or EXTERNAL", lambda **_: sets.make("plain", sets.page("plain"), group))
    refused("must be CODE_DEPLOY or EXTERNAL", sets.ecs.describe_task_sets, service="plain")
    refused("Service not found", sets.ecs.describe_task_sets, "ServiceNotFoundException", service="nowhere")
    sets.clear("plain", balancer, group)
