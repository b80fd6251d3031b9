"""Service Connect: tasks call each other by names of their namespace, and a service is replaced without a failure."""

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_service import PAGE, Services

# Asks over one connection and over new ones, prints what it hears, in counts, when it is told to stop.
CLIENT = """
import collections, http.client, signal, sys, time
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
heard, kept = collections.Counter(), None
print("first", http.client.HTTPConnection("{host}", {port}, timeout=5).request("GET", "/"), flush=True)
while not ended:
    for fresh in (False, True):
        try:
            connection = http.client.HTTPConnection("{host}", {port}, timeout=10) if fresh or kept is None else kept
            connection.request("GET", "/")
            answer = connection.getresponse()
            heard[answer.read().decode().strip() if answer.status == 200 else answer.status] += 1
            if not fresh: kept = connection
            if sum(heard.values()) % 100 == 0: print("so many", sum(heard.values()), flush=True)
        except Exception as error:
            heard[repr(error)] += 1
            kept = None
    time.sleep(0.002)
print("heard", dict(heard), flush=True)
"""


@pytest.fixture(scope="module")
def services(software):
    software.subnets = [subnet["SubnetId"] for subnet in software.ec2.describe_subnets()["Subnets"]]
    made = Services(software)
    rule = {"IpProtocol": "tcp", "FromPort": 8081, "ToPort": 8081, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    software.ec2.authorize_security_group_ingress(GroupId=software.open_group, IpPermissions=[rule])
    software.ecs.create_cluster(clusterName="mesh", serviceConnectDefaults={"namespace": "mesh"})
    software.discovery = software.neargate.client("servicediscovery")
    return made


def serve(services, words, protocol="http", at=8080):
    port = {"containerPort": at, "name": "web"}
    if protocol:
        port["appProtocol"] = protocol
    return services.stack.define(services.stack.container(command=PAGE.format(words).replace("8080", str(at)), portMappings=[port]))


def client(services, host, port):
    text = CLIENT.replace("{host}", host).replace("{port}", str(port))
    words = {"entryPoint": ["/usr/bin/python3", "-c"], "command": [text]}
    return services.stack.define({**services.stack.container(), "image": services.stack.debian, **words})


def create(services, name, definition, count, *endpoints):
    connect = {"enabled": True, **({"services": list(endpoints)} if endpoints else {})}
    return services.create(name, definition, count, cluster="mesh", serviceConnectConfiguration=connect)


class Mesh(Services):
    """The same in another cluster."""

    def update(self, name, **more):
        return self.ecs.update_service(cluster="mesh", service=name, **more)["service"]

    def describe(self, name):
        return self.ecs.describe_services(cluster="mesh", services=[name])["services"][0]

    def tasks(self, name):
        return self.ecs.list_tasks(cluster="mesh", serviceName=name)["taskArns"]

    def delete(self, name):
        self.ecs.delete_service(cluster="mesh", service=name, force=True)
        self.ecs.get_waiter("services_inactive").wait(cluster="mesh", services=[name], WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def lines(services, task):
    return services.stack.lines(task)


def test_a_service_is_called_by_its_name_and_replaced_without_a_failure(services):
    mesh = Mesh(services.stack)
    namespace = services.ecs.describe_clusters(clusters=["mesh"])["clusters"][0]["serviceConnectDefaults"]["namespace"]
    assert ":namespace/ns-" in namespace
    alias = {"port": 80, "dnsName": "web.inner"}
    made = create(services, "web", serve(services, "one"), 2, {"portName": "web", "discoveryName": "pages", "clientAliases": [alias]})
    [resource] = made["deployments"][0]["serviceConnectResources"]
    assert resource["discoveryName"] == "pages" and made["deployments"][0]["serviceConnectConfiguration"]["enabled"]
    mesh.steady("web")
    found = services.stack.discovery.discover_instances(NamespaceName="mesh", ServiceName="pages")["Instances"]
    assert {i["InstanceId"] for i in found} == {arn.rsplit("/", 1)[1] for arn in mesh.tasks("web")}
    assert services.stack.discovery.get_service(Id=resource["discoveryArn"])["Service"]["Name"] == "pages"
    create(services, "caller", client(services, "web.inner", 80), 1)
    mesh.steady("caller")
    [caller] = mesh.tasks("caller")
    eventually(lambda: lines(services, caller), "it called at its start")
    # The last one has another port under the same name.
    for version, port in [("two", 8080), ("three", 8081)]:
        mesh.update("web", taskDefinition=serve(services, version, at=port))
        mesh.steady("web")
    mesh.update("web", desiredCount=1)
    mesh.steady("web")
    listed = services.ecs.list_services_by_namespace(namespace="mesh")["serviceArns"]
    assert sorted(arn.rsplit("/", 1)[1] for arn in listed) == ["caller", "web"]
    # Who is not in the namespace does not know the name.
    text = "import socket\ntry: print(socket.gethostbyname('web.inner'))\nexcept OSError: print('unknown')"
    words = {"entryPoint": ["/usr/bin/python3", "-c"], "command": [text]}
    stranger = services.stack.finish({**services.stack.container(), "image": services.stack.debian, **words})
    assert services.stack.lines(stranger["taskArn"]) == ["unknown"]
    services.ecs.stop_task(cluster="mesh", task=caller)
    told = eventually(lambda: [line for line in lines(services, caller) if line.startswith("heard")], "what it heard")
    heard = eval(told[0].removeprefix("heard "))
    assert set(heard) == {"one", "two", "three"} and sum(heard.values()) > 500, heard
    mesh.delete("caller")
    mesh.delete("web")
    with pytest.raises(ClientError):
        services.stack.discovery.get_service(Id=resource["discoveryArn"])


def test_connections_that_are_no_http_are_passed_on(services):
    mesh = Mesh(services.stack)
    create(services, "raw", serve(services, "raw", None), 1, {"portName": "web", "clientAliases": [{"port": 7000}]})
    mesh.steady("raw")
    create(services, "user", client(services, "web.mesh", 7000), 1)
    mesh.steady("user")
    [user] = mesh.tasks("user")
    eventually(lambda: len(lines(services, user)) > 3, "it hears answers")
    # The one that answers dies, and another takes its place.
    [answering] = mesh.tasks("raw")
    services.ecs.stop_task(cluster="mesh", task=answering)
    eventually(lambda: mesh.tasks("raw") not in ([], [answering]), "another")
    mesh.steady("raw")
    before = len(lines(services, user))
    eventually(lambda: len(lines(services, user)) > before + 2, "it hears further answers")
    services.ecs.stop_task(cluster="mesh", task=user)
    told = eventually(lambda: [line for line in lines(services, user) if line.startswith("heard")], "what it heard")
    heard = eval(told[0].removeprefix("heard "))
    assert heard["raw"] > 100, heard
    for name in ["user", "raw"]:
        mesh.delete(name)


def test_what_cannot_be_connected(services):
    definition = serve(services, "x")

    def refused(words, code="InvalidParameterException", cluster="mesh", **connect):
        with pytest.raises(ClientError) as error:
            services.create("never", definition, 1, cluster=cluster, serviceConnectConfiguration={"enabled": True, **connect})
        assert error.value.response["Error"]["Code"] == code and words in str(error.value), error.value

    web = {"portName": "web", "clientAliases": [{"port": 80}]}
    refused("namespace must be specified", cluster="tests")
    refused("not found", "NamespaceNotFoundException", namespace="nowhere")
    refused("does not refer to a named port", services=[{"portName": "other"}])
    refused("more than once", services=[web, web])
    refused("discoveryName Bad", services=[{**web, "discoveryName": "Bad"}])
    refused("at most 1", services=[{**web, "clientAliases": [{"port": 80}, {"port": 81}]}])
    refused("between 1 and 65535", services=[{**web, "clientAliases": [{"port": 0}]}])
    refused("private certificate", services=[{**web, "tls": {"issuerCertificateAuthority": {"awsPcaAuthorityArn": "arn:aws:acm-pca:us-east-1:123456789012:certificate-authority/x"}}}])
    create(services, "holder", definition, 0, {**web, "discoveryName": "held"})
    refused("already in use", services=[{**web, "discoveryName": "held"}])
    refused("already in use", services=[{"portName": "web", "discoveryName": "free", "clientAliases": [{"port": 80, "dnsName": "held.mesh"}]}])
    Mesh(services.stack).delete("holder")
    services.ecs.update_cluster(cluster="mesh", serviceConnectDefaults={"namespace": "another"})
    assert services.stack.discovery.list_namespaces(Filters=[{"Name": "NAME", "Values": ["another"]}])["Namespaces"]
