"""Services behind load balancers: registered, routed to, replaced and scaled without losing a request."""

import http.client
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, Stack, eventually, push
from test_service import Services

LISTENER = PORT + 30
PAGE = "mkdir -p /tmp/w; echo {} > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"
QUICK = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2, "UnhealthyThresholdCount": 2}


class Load:
    """Requests without a pause, each counted: `with Load(host, port) as load: …`, then `load.failures`."""

    def __init__(self, host, port, threads=4, keep_alive=True):
        self.host, self.port, self.keep_alive = host, port, keep_alive
        self.answers, self.failures, self.bodies = 0, [], set()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]

    def run(self):
        connection = None
        while not self.stop.is_set():
            try:
                if connection is None or not self.keep_alive:
                    connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.failures.append((answer.status, body))
                self.answers += 1
                self.bodies.add(body.decode().strip())
            except Exception as error:
                self.failures.append(repr(error))
                connection = None
            time.sleep(0.001)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(15)


class Balanced(Services):
    """A service, a load balancer, and what these tests do over and over."""

    def __init__(self, stack):
        super().__init__(stack)
        self.elb = stack.neargate.client("elbv2")
        stack.subnets = [subnet["SubnetId"] for subnet in stack.ec2.describe_subnets()["Subnets"]]
        these = uuid.uuid4().hex[:6]
        self.front = stack.group(f"front-{these}", *range(LISTENER, LISTENER + 10))
        self.back = stack.group(f"back-{these}")
        rule = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "UserIdGroupPairs": [{"GroupId": self.front}]}
        stack.ec2.authorize_security_group_ingress(GroupId=self.back, IpPermissions=[rule])

    def balancer(self, name, **more):
        more = {"SecurityGroups": [self.front], **more}
        made = self.elb.create_load_balancer(Name=name, Subnets=self.stack.subnets[:2], **more)["LoadBalancers"][0]
        self.elb.get_waiter("load_balancer_available").wait(
            LoadBalancerArns=[made["LoadBalancerArn"]], WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        return made

    def group(self, name, protocol="HTTP", **more):
        more = {**QUICK, **more}
        made = self.elb.create_target_group(
            Name=name, Protocol=protocol, Port=8080, VpcId=self.stack.vpc, TargetType="ip", **more
        )
        return made["TargetGroups"][0]["TargetGroupArn"]

    def listener(self, balancer, group, port=LISTENER, protocol="HTTP"):
        actions = [{"Type": "forward", "TargetGroupArn": group}]
        return self.elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Port=port, Protocol=protocol, DefaultActions=actions
        )["Listeners"][0]["ListenerArn"]

    def service(self, name, definition, count, group, **more):
        network = {"subnets": self.stack.subnets[:2], "securityGroups": [self.back], "assignPublicIp": "ENABLED"}
        return self.create(
            name,
            definition,
            count,
            loadBalancers=[{"targetGroupArn": group, "containerName": "main", "containerPort": 8080}],
            networkConfiguration={"awsvpcConfiguration": network},
            **more,
        )

    def page(self, words, **more):
        container = self.stack.container(command=PAGE.format(words), portMappings=[{"containerPort": 8080}], **more)
        return self.stack.define(container)

    def states(self, group):
        found = self.elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return sorted(target["TargetHealth"]["State"] for target in found)

    def clear(self, service, balancer, *groups):
        self.delete(service)
        self.elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])
        for group in groups:
            self.elb.delete_target_group(TargetGroupArn=group)


@pytest.fixture(scope="module")
def balanced(stack):
    return Balanced(stack)


def fetch(url):
    try:
        return urllib.request.urlopen(url, timeout=3).read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_a_new_version_replaces_the_old_one_and_no_request_fails(balanced, software):
    balancer, group = balanced.balancer("roll"), balanced.group("roll")
    balanced.listener(balancer, group)
    host = balancer["DNSName"]
    assert eventually(lambda: fetch(f"http://{host}:{LISTENER}/") == 503, "503 without a target")
    made = balanced.service("roll", balanced.page("one"), 2, group)
    assert made["loadBalancers"][0]["targetGroupArn"] == group
    balanced.steady("roll")
    balanced.elb.get_waiter("target_in_service").wait(TargetGroupArn=group, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert balanced.states(group) == ["healthy", "healthy"]
    assert fetch(f"http://{host}:{LISTENER}/") == "one"
    first = balanced.tasks("roll")
    # Their security group lets only the load balancer in.
    text = f"import socket; print(socket.socket().connect_ex(('{balanced.stack.address(first[0], 'private')}', 8080)))"
    text = text.replace("socket.socket()", "(lambda s: (s.settimeout(2), s)[1])(socket.socket())")
    container = {**software.container(), "image": software.debian, "command": ["python3", "-c", text]}
    assert software.lines(software.finish(container)["taskArn"]) != ["0"], "it connected"
    with Load(host, LISTENER) as kept, Load(host, LISTENER, keep_alive=False) as fresh:
        for version in ["two", "three"]:
            balanced.update("roll", taskDefinition=balanced.page(version))
            balanced.steady("roll")
        balanced.update("roll", desiredCount=4)
        balanced.steady("roll")
        balanced.update("roll", desiredCount=1)
        balanced.steady("roll")
    assert kept.failures == [] and fresh.failures == []
    assert kept.answers > 1000 and kept.bodies == {"one", "two", "three"} == fresh.bodies
    assert fetch(f"http://{host}:{LISTENER}/") == "three"
    assert not set(first) & set(balanced.tasks("roll"))
    events = balanced.events("roll")
    for words in [
        f"(service roll) registered 1 targets in (target-group {group})",
        f"(service roll) deregistered 1 targets in (target-group {group})",
        "(service roll) has begun draining connections on 1 tasks.",
        "(service roll) has reached a steady state.",
    ]:
        assert words in events, events
    balanced.clear("roll", balancer, group)
    assert eventually(lambda: fetch(f"http://{host}:{LISTENER}/") is None, "nothing listens")


def test_a_version_that_is_never_healthy_is_rolled_back(balanced):
    balancer, group = balanced.balancer("ill"), balanced.group("ill", HealthCheckPath="/health")
    balanced.listener(balancer, group)
    good = PAGE.replace("exec", "echo ok > /tmp/w/health; exec")
    container = balanced.stack.container(command=good.format("good"), portMappings=[{"containerPort": 8080}])
    configuration = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    balanced.service("ill", balanced.stack.define(container), 1, group, deploymentConfiguration=configuration)
    balanced.steady("ill")
    with Load(balancer["DNSName"], LISTENER) as load:
        balanced.update("ill", taskDefinition=balanced.page("bad"))

        def back():
            deployments = balanced.describe("ill")["deployments"]
            return any("rolling back" in d.get("rolloutStateReason", "") for d in deployments)

        eventually(back, "it is rolled back", 120)
        balanced.steady("ill")
    assert load.failures == [] and load.bodies == {"good"}
    events = "\n".join(balanced.events("ill"))
    assert "is unhealthy in (target-group" in events and "Health checks failed with these codes: [404]" in events
    balanced.clear("ill", balancer, group)


def test_a_network_load_balancer_passes_connections_on(balanced):
    balancer = balanced.balancer("net", Type="network")
    group = balanced.group("net", "TCP", HealthCheckProtocol="TCP")
    balanced.listener(balancer, group, LISTENER + 1, "TCP")
    balanced.service("net", balanced.page("one"), 2, group)
    balanced.steady("net")
    with Load(balancer["DNSName"], LISTENER + 1, keep_alive=False) as load:
        balanced.update("net", taskDefinition=balanced.page("two"))
        balanced.steady("net")
    assert load.failures == [] and load.bodies == {"one", "two"}
    balanced.clear("net", balancer, group)


def test_a_task_reaches_a_load_balancer_by_its_name(balanced, software):
    balancer = balanced.balancer("inner", Scheme="internal")
    group = balanced.group("inner")
    balanced.listener(balancer, group, LISTENER + 2)
    balanced.service("inner", balanced.page("from inside"), 1, group)
    balanced.steady("inner")
    url = f"http://{balancer['DNSName']}:{LISTENER + 2}/"
    text = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode().strip())"
    container = {**software.container(), "image": software.debian, "command": ["python3", "-c", text]}
    ended = software.finish(container)
    assert software.lines(ended["taskArn"]) == ["from inside"]
    assert balancer["DNSName"] not in open("/etc/hosts").read(), "the host is not in its VPC"
    balanced.clear("inner", balancer, group)


def test_a_port_that_cannot_be_had_is_told(balanced):
    balancer, group = balanced.balancer("taken"), balanced.group("taken")
    with socket.create_server(("127.0.0.1", LISTENER + 5)):
        balanced.listener(balancer, group, LISTENER + 5)

        def told():
            [found] = balanced.elb.describe_load_balancers(Names=["taken"])["LoadBalancers"]
            return found["State"].get("Reason")

        reason = eventually(told, "the reason")
        assert f"Listener on port {LISTENER + 5}: cannot listen on 127.0.0.1:{LISTENER + 5}" in reason
        assert "in use" in reason and reason in balanced.stack.neargate.cli("status").stdout
        # Its own address is not taken.
        [address] = [line.split()[0] for line in open("/etc/hosts") if balancer["DNSName"] in line][:1]
        assert eventually(lambda: fetch(f"http://{address}:{LISTENER + 5}/") == 503, "it listens there")
    assert eventually(lambda: told() is None, "it listens once it can")
    balanced.elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])
    balanced.elb.delete_target_group(TargetGroupArn=group)


def test_services_that_cannot_be(balanced):
    group = balanced.group("wrong")
    definition = balanced.page("x")

    def refused(words, code="InvalidParameterException", **more):
        with pytest.raises(ClientError) as error:
            balanced.service("wrong", definition, 1, more.pop("group", group), **more)
        assert error.value.response["Error"]["Code"] == code and words in str(error.value), error.value

    refused("does not have an associated load balancer")
    refused("target group", group=group[:-4] + "0000")
    balancer = balanced.balancer("wrong")
    balanced.listener(balancer, group, LISTENER + 3)
    wrong = [{"targetGroupArn": group, "containerName": "other", "containerPort": 8080}]
    with pytest.raises(ClientError) as error:
        balanced.create("wrong", definition, 1, loadBalancers=wrong)
    assert "other" in str(error.value)
    wrong[0].update(containerName="main", containerPort=81)
    with pytest.raises(ClientError) as error:
        balanced.create("wrong", definition, 1, loadBalancers=wrong)
    assert "81" in str(error.value)
    with pytest.raises(ClientError) as error:
        balanced.create("wrong", definition, 1, healthCheckGracePeriodSeconds=5)
    assert "grace period" in str(error.value).lower()
    balanced.elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])


def test_it_routes_while_the_control_plane_is_dead(tmp_path_factory, neargate):
    plane = Neargate(tmp_path_factory.mktemp("routes") / "data", PORT + 3).start()
    try:
        stack = Stack(plane)
        stack.image = push(plane, tmp_path_factory.mktemp("image"), "routes")
        balanced = Balanced(stack)
        balancer, group = balanced.balancer("routes"), balanced.group("routes")
        balanced.listener(balancer, group, LISTENER + 4)
        balanced.service("routes", balanced.page("routed"), 2, group)
        balanced.steady("routes")
        data_plane = subprocess.run(["pgrep", "-f", f"balancer {plane.data_dir}/balancer"], capture_output=True, text=True)
        [pid] = data_plane.stdout.split()
        with Load(balancer["DNSName"], LISTENER + 4) as kept, Load(balancer["DNSName"], LISTENER + 4, 2, False) as fresh:
            for _ in range(5):
                plane.kill()
                answered = kept.answers
                eventually(lambda: kept.answers > answered + 200, "answers without a control plane")
                plane.start()
            # It deploys after its return as before, with the same data plane.
            balanced = Balanced.__new__(Balanced)
            balanced.stack, balanced.ecs = stack, plane.client("ecs")
            balanced.update("routes", taskDefinition=Balanced.page(balanced, "after"))
            balanced.steady("routes")
        assert kept.failures == [] and fresh.failures == []
        assert kept.bodies == {"routed", "after"}
        again = subprocess.run(["pgrep", "-f", f"balancer {plane.data_dir}/balancer"], capture_output=True, text=True)
        assert again.stdout.split() == [pid]
        # A data plane that dies is back with the same configuration.
        subprocess.run(["kill", "-9", pid], check=True)
        eventually(lambda: fetch(f"http://{balancer['DNSName']}:{LISTENER + 4}/") == "after", "it is started again")
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)
    hosts = open("/etc/hosts").read()
    assert balancer["DNSName"] not in hosts, "down takes names away"
    left = subprocess.run(["pgrep", "-f", f"balancer {plane.data_dir}/balancer"], capture_output=True, text=True)
    assert left.stdout == "", "and the data plane"
