"""Services: the desired count is kept, versions replace each other, bad ones are rolled back."""

import urllib.request

import pytest
from botocore.exceptions import ClientError

from conftest import eventually

PAGE = "mkdir -p /tmp/w; echo {} > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"


class Services:
    """What these tests do over and over."""

    def __init__(self, stack):
        self.stack, self.ecs = stack, stack.ecs

    def create(self, name, definition, count, **more):
        network = {"subnets": self.stack.subnets[:2], "securityGroups": [self.stack.open_group], "assignPublicIp": "ENABLED"}
        words = {
            "cluster": "tests",
            "serviceName": name,
            "taskDefinition": definition,
            "desiredCount": count,
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": network},
            **more,
        }
        if "capacityProviderStrategy" in more:
            del words["launchType"]
        return self.ecs.create_service(**words)["service"]

    def update(self, name, **more):
        return self.ecs.update_service(cluster="tests", service=name, **more)["service"]

    def describe(self, name):
        answer = self.ecs.describe_services(cluster="tests", services=[name], include=["TAGS"])
        assert not answer["failures"]
        return answer["services"][0]

    def steady(self, name):
        """What `aws ecs wait services-stable` waits for."""

        def look():
            found = self.describe(name)
            alone = len(found["deployments"]) == 1 and found["runningCount"] == found["desiredCount"]
            return found if alone and found["deployments"][0]["rolloutState"] == "COMPLETED" else None

        return eventually(look, f"{name} is steady", 90)

    def tasks(self, name):
        return self.ecs.list_tasks(cluster="tests", serviceName=name)["taskArns"]

    def events(self, name):
        return [event["message"] for event in self.describe(name)["events"]]

    def delete(self, name):
        assert self.ecs.delete_service(cluster="tests", service=name, force=True)["service"]["status"] == "DRAINING"
        self.ecs.get_waiter("services_inactive").wait(
            cluster="tests", services=[name], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


@pytest.fixture(scope="module")
def services(stack):
    stack.subnets = [subnet["SubnetId"] for subnet in stack.ec2.describe_subnets()["Subnets"]]
    return Services(stack)


def page(stack, task):
    return urllib.request.urlopen(f"http://{stack.address(task)}:8080/", timeout=3).read().decode().strip()


def test_the_desired_count_is_kept_whatever_dies(services, stack):
    definition = stack.define(stack.container(command=PAGE.format("one")))
    made = services.create("kept", definition, 2, tags=[{"key": "team", "value": "web"}], enableECSManagedTags=True)
    assert made["status"] == "ACTIVE" and made["desiredCount"] == 2
    assert made["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    services.ecs.get_waiter("services_stable").wait(
        cluster="tests", services=["kept"], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    first = services.tasks("kept")
    assert {page(stack, task) for task in first} == {"one"}
    described = services.ecs.describe_tasks(cluster="tests", tasks=first, include=["TAGS"])["tasks"]
    [deployment] = services.describe("kept")["deployments"]
    for task in described:
        assert task["group"] == "service:kept" and task["startedBy"] == deployment["id"]
        assert {"key": "aws:ecs:serviceName", "value": "kept"} in task["tags"]
    zones = {task["availabilityZone"] for task in described}
    assert len(zones) == 2, "spread over the subnets"
    assert services.events("kept")[0] == "(service kept) has reached a steady state."

    stack.ecs.stop_task(cluster="tests", task=first[0])
    eventually(lambda: first[0] not in services.tasks("kept"), "it stops")
    services.steady("kept")
    assert len(services.tasks("kept")) == 2 and first[1] in services.tasks("kept")

    services.update("kept", desiredCount=3)
    services.steady("kept")
    third = services.tasks("kept")
    stack.ecs.update_task_protection(cluster="tests", tasks=third[:2], protectionEnabled=True)
    services.update("kept", desiredCount=2)
    services.steady("kept")
    left = services.tasks("kept")
    assert set(third[:2]) == set(left), "protected tasks stay"
    [gone] = set(third) - set(left)
    ended = stack.status(gone, "STOPPED")
    assert ended["stopCode"] == "ServiceSchedulerInitiated"
    assert ended["stoppedReason"] == f"Scaling activity initiated by (deployment {deployment['id']})"

    arn = services.describe("kept")["serviceArn"]
    assert arn in services.ecs.list_services(cluster="tests")["serviceArns"]
    services.ecs.tag_resource(resourceArn=arn, tags=[{"key": "more", "value": "1"}])
    assert len(services.describe("kept")["tags"]) == 2
    clusters = services.ecs.describe_clusters(clusters=["tests"])["clusters"]
    assert clusters[0]["activeServicesCount"] >= 1
    with pytest.raises(ClientError) as caught:
        services.ecs.delete_cluster(cluster="tests")
    assert caught.value.response["Error"]["Code"] in ("ClusterContainsTasksException", "ClusterContainsServicesException")
    with pytest.raises(ClientError) as caught:
        services.ecs.delete_service(cluster="tests", service="kept")
    assert "scaled above 0" in str(caught.value)
    stack.ecs.update_task_protection(cluster="tests", tasks=left, protectionEnabled=False)
    services.delete("kept")
    assert not services.tasks("kept")


def test_a_new_version_replaces_the_old_one_without_a_gap(services, stack):
    checked = {"healthCheck": {"command": ["CMD", "/bin/busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]}}
    checked["healthCheck"].update({"interval": 5, "retries": 3})
    old = stack.define(stack.container(command=PAGE.format("old"), **checked))
    services.create("rolled", old, 2)
    services.steady("rolled")
    before = services.tasks("rolled")
    new = stack.define(stack.container(command=PAGE.format("new"), **checked))
    updated = services.update("rolled", taskDefinition=new)
    assert [d["status"] for d in updated["deployments"]] == ["PRIMARY", "ACTIVE"]
    fewest = 2

    def look():
        nonlocal fewest
        found = services.describe("rolled")
        fewest = min(fewest, found["runningCount"])
        assert found["runningCount"] + found["pendingCount"] <= 4, "never more than maximumPercent"
        return len(found["deployments"]) == 1

    eventually(look, "the deployment completes", 90)
    assert fewest >= 2, "never fewer than minimumHealthyPercent"
    after = services.tasks("rolled")
    assert not set(before) & set(after) and len(after) == 2
    assert {page(stack, task) for task in after} == {"new"}
    messages = services.events("rolled")
    [deployment] = services.describe("rolled")["deployments"]
    assert f"(service rolled) (deployment {deployment['id']}) deployment completed." in messages
    again = services.update("rolled", forceNewDeployment=True)
    assert again["deployments"][0]["id"] != deployment["id"]
    services.steady("rolled")
    assert not set(after) & set(services.tasks("rolled"))
    services.delete("rolled")


def test_a_version_that_does_not_start_is_rolled_back(services, stack):
    good = stack.define(stack.container(command=PAGE.format("good")))
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    services.create("broken", good, 1, deploymentConfiguration=breaker)
    services.steady("broken")
    tasks = services.tasks("broken")
    bad = stack.define(stack.container(image="127.0.0.1:1/nowhere:latest"))
    failing = services.update("broken", taskDefinition=bad)["deployments"][0]["id"]
    found = eventually(
        lambda: next((f for f in [services.describe("broken")] if f["taskDefinition"] == good), None), "rolled back", 90
    )
    services.steady("broken")
    assert services.tasks("broken") == tasks, "the good task has never been touched"
    back = found["deployments"][0]
    messages = services.events("broken")
    assert f"(service broken) (deployment {failing}) deployment failed: tasks failed to start." in messages
    assert f"(service broken) rolling back to deployment {back['id']}." in messages
    assert page(stack, tasks[0]) == "good"
    services.delete("broken")


def test_services_outlive_the_control_plane(services, stack):
    definition = stack.define(stack.container(command=PAGE.format("still")))
    stack.ecs.put_cluster_capacity_providers(
        cluster="tests", capacityProviders=["FARGATE", "FARGATE_SPOT"], defaultCapacityProviderStrategy=[]
    )
    spread = [{"capacityProvider": "FARGATE", "base": 1, "weight": 0}, {"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    services.create("durable", definition, 3, capacityProviderStrategy=spread)
    services.steady("durable")
    tasks = services.tasks("durable")
    described = stack.ecs.describe_tasks(cluster="tests", tasks=tasks)["tasks"]
    assert sorted(task["capacityProviderName"] for task in described) == ["FARGATE", "FARGATE_SPOT", "FARGATE_SPOT"]
    stack.neargate.kill()
    stack.neargate.start()
    services.steady("durable")
    assert sorted(services.tasks("durable")) == sorted(tasks), "none started twice, none lost"
    services.delete("durable")


def test_wishes_that_cannot_be_fulfilled(services, stack):
    definition = stack.define(stack.container(command="sleep 1000"))

    def refused(words, call, *positional, **named):
        with pytest.raises(ClientError) as caught:
            call(*positional, **named)
        assert words in str(caught.value)

    refused("TaskDefinition not found", services.create, "odd", "nothing:1", 1)
    refused("No Container Instances", services.create, "odd", definition, 1, launchType="EC2")
    refused("targetGroupArn must be specified", services.create, "odd", definition, 1, loadBalancers=[{"containerPort": 80}])
    refused("cannot be 100", services.create, "odd", definition, 1,
            deploymentConfiguration={"maximumPercent": 100, "minimumHealthyPercent": 100})
    refused("ServiceNotFoundException", services.update, "odd", desiredCount=1)
    services.create("none", definition, 0)
    services.create("none", definition, 0)  # the same wish again is the same service
    refused("not idempotent", services.create, "none", definition, 1)
    assert services.ecs.describe_services(cluster="tests", services=["odd"])["failures"][0]["reason"] == "MISSING"
    assert services.ecs.delete_service(cluster="tests", service="none")["service"]["status"] == "DRAINING"
    eventually(lambda: services.describe("none")["status"] == "INACTIVE", "it is gone")
    refused("ServiceNotActiveException", services.update, "none", desiredCount=1)


def test_spot_tasks_are_interrupted_and_replaced(services, stack):
    providers = ["FARGATE", "FARGATE_SPOT"]
    stack.ecs.put_cluster_capacity_providers(cluster="tests", capacityProviders=providers, defaultCapacityProviderStrategy=[])
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    told = "trap 'echo told; sleep 1; exit 0' TERM; while :; do sleep 0.1; done"
    services.create("spot", stack.define(stack.container(command=told)), 1, capacityProviderStrategy=strategy)
    services.steady("spot")
    [task] = services.tasks("spot")
    identity = task.rsplit("/", 1)[1]
    assert stack.neargate.cli("interrupt", identity[:8]).stdout.strip() == f"{task} is interrupted"
    ended = stack.status(task, "STOPPED")
    assert ended["stopCode"] == "SpotInterruption" and ended["stoppedReason"] == "Your Spot Task was interrupted."
    assert ended["containers"][0]["exitCode"] == 0 and stack.lines(task) == ["told"]
    services.steady("spot")
    [next_one] = services.tasks("spot")
    assert next_one != task and services.describe("spot")["deployments"][0]["failedTasks"] == 0
    services.delete("spot")
    task = stack.run(stack.container(command="exec busybox sleep 1000"))
    refused = stack.neargate.cli("interrupt", task, check=False)
    assert refused.returncode == 1 and "FARGATE_SPOT" in refused.stderr
    stack.ecs.stop_task(cluster="tests", task=task)
    assert "no running task" in stack.neargate.cli("interrupt", "ffffffff", check=False).stderr
