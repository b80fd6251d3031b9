"""Cloud Map: namespaces, services, instances, the names that tasks find each other by."""

import json

import pytest
from botocore.exceptions import ClientError

from conftest import TRUST, eventually
from test_service import PAGE, Services

# Asks the VPC's name service, and prints its code and what it answers: addresses, and ports with their names.
ASK = """
import socket, struct, sys
def labels(message, at):
    name = []
    while message[at]:
        if message[at] >= 192:
            return ".".join(name + [labels(message, struct.unpack(">H", message[at:at + 2])[0] & 0x3fff)[0]]), at + 2
        name.append(message[at + 1:at + 1 + message[at]].decode())
        at += 1 + message[at]
    return ".".join(name), at + 1
def ask(name, kind):
    question = b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0" + struct.pack(">HH", kind, 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
    s.sendto(struct.pack(">HHHHHH", 7, 256, 1, 0, 0, 0) + question, ("169.254.169.253", 53))
    message = s.recv(4096)
    at, found = 12 + len(question), []
    for _ in range(struct.unpack(">H", message[6:8])[0]):
        _, at = labels(message, at)
        kind, _, ttl, length = struct.unpack(">HHIH", message[at:at + 10])
        data = message[at + 10:at + 10 + length]
        at += 10 + length
        if kind == 1: found.append([socket.inet_ntoa(data), ttl])
        if kind == 33: found.append([struct.unpack(">HHH", data[:6])[2], labels(message, at - length + 6)[0]])
        if kind == 5: found.append(labels(message, at - length)[0])
    return message[3] & 15, sorted(found, key=str)
"""


class Map:
    def __init__(self, stack):
        self.stack = stack
        self.api = stack.neargate.client("servicediscovery")

    def done(self, answer):
        """The targets of an operation, which is done."""
        operation = self.api.get_operation(OperationId=answer["OperationId"])["Operation"]
        assert operation["Status"] == "SUCCESS" and operation["CreateDate"] <= operation["UpdateDate"]
        return operation["Targets"]

    def private(self, name, **more):
        return self.done(self.api.create_private_dns_namespace(Name=name, Vpc=self.stack.vpc, **more))["NAMESPACE"]

    def service(self, name, namespace, *records, policy="MULTIVALUE", **more):
        dns = {"RoutingPolicy": policy, "DnsRecords": [{"Type": kind, "TTL": ttl} for kind, ttl in records]}
        if records:
            more["DnsConfig"] = dns
        return self.api.create_service(Name=name, NamespaceId=namespace, **more)["Service"]

    def register(self, service, instance, **attributes):
        attributes = {f"AWS_INSTANCE_{k.upper()}": v for k, v in attributes.items()}
        return self.done(self.api.register_instance(ServiceId=service, InstanceId=instance, Attributes=attributes))

    def found(self, namespace, service, **more):
        answer = self.api.discover_instances(NamespaceName=namespace, ServiceName=service, **more)
        return sorted(instance["InstanceId"] for instance in answer["Instances"])


@pytest.fixture(scope="module")
def cloud_map(stack):
    return Map(stack)


@pytest.fixture(scope="module")
def ask(software):
    """Asks for names inside a task, all in one."""

    def asked(*questions):
        kinds = {"A": 1, "SRV": 33, "ANY": 255}
        text = ASK + "\n".join(f"import json; print(json.dumps(ask({n!r}, {kinds[k]})))" for n, k in questions)
        container = {**software.container(), "image": software.debian, "entryPoint": ["/usr/bin/python3", "-c"], "command": [text]}
        return [json.loads(line) for line in software.lines(software.finish(container)["taskArn"])]

    return asked


def refused(code, call, **words):
    with pytest.raises(ClientError) as error:
        call(**words)
    assert error.value.response["Error"]["Code"] == code, error.value
    return str(error.value)


def test_namespaces(cloud_map):
    api, vpc = cloud_map.api, cloud_map.stack.vpc
    tags = [{"Key": "team", "Value": "a"}]
    made = cloud_map.private("shop.test", Description="a shop", Tags=tags, CreatorRequestId="1")
    found = api.get_namespace(Id=made)["Namespace"]
    assert found["Type"] == "DNS_PRIVATE" and found["Properties"]["DnsProperties"]["HostedZoneId"].startswith("Z")
    assert found["Properties"]["HttpProperties"]["HttpName"] == "shop.test" and found["ServiceCount"] == 0
    assert found["Arn"] == f"arn:aws:servicediscovery:us-east-1:123456789012:namespace/{made}"
    assert api.list_tags_for_resource(ResourceARN=found["Arn"])["Tags"] == tags
    api.tag_resource(ResourceARN=found["Arn"], Tags=[{"Key": "more", "Value": "1"}])
    api.untag_resource(ResourceARN=found["Arn"], TagKeys=["team"])
    assert api.list_tags_for_resource(ResourceARN=found["Arn"])["Tags"] == [{"Key": "more", "Value": "1"}]
    refused("NamespaceAlreadyExists", api.create_private_dns_namespace, Name="SHOP.test", Vpc=vpc)
    refused("InvalidInput", api.create_private_dns_namespace, Name="other.test", Vpc="vpc-0")
    refused("InvalidInput", api.create_private_dns_namespace, Name="not a name", Vpc=vpc)
    refused("NamespaceNotFound", api.get_namespace, Id="ns-0")
    refused("ResourceNotFoundException", api.list_tags_for_resource, ResourceARN=found["Arn"] + "0")
    change = {"Description": "another", "Properties": {"DnsProperties": {"SOA": {"TTL": 7}}}}
    assert cloud_map.done(api.update_private_dns_namespace(Id=found["Arn"], Namespace=change)) == {"NAMESPACE": made}
    refused("InvalidInput", api.update_http_namespace, Id=made, Namespace={"Description": "x"})
    http = cloud_map.done(api.create_http_namespace(Name="shop.test"))["NAMESPACE"]
    name = api.get_namespace(Id=http)["Namespace"]["Properties"]["HttpProperties"]["HttpName"]
    assert name.startswith("shop.test-"), "the name is taken"
    api.update_http_namespace(Id=http, Namespace={"Description": "x"})
    kinds = [{"Name": "TYPE", "Values": ["HTTP"], "Condition": "EQ"}]
    assert http in [n["Id"] for n in api.list_namespaces(Filters=kinds)["Namespaces"]]
    assert made not in [n["Id"] for n in api.list_namespaces(Filters=kinds)["Namespaces"]]
    pages = api.get_paginator("list_namespaces").paginate(PaginationConfig={"PageSize": 1})
    listed = {n["Id"]: n for page in pages for n in page["Namespaces"]}
    assert listed[made]["Description"] == "another" and listed[made]["Properties"]["DnsProperties"]["SOA"]["TTL"] == 7
    cloud_map.service("inside", http)
    refused("ResourceInUse", api.delete_namespace, Id=http)
    [inside] = api.list_services(Filters=[{"Name": "NAMESPACE_ID", "Values": [http]}])["Services"]
    api.delete_service(Id=inside["Id"])
    assert cloud_map.done(api.delete_namespace(Id=http)) == {"NAMESPACE": http}
    cloud_map.done(api.delete_namespace(Id=made))
    kinds = [{"Name": "TYPE", "Values": ["DELETE_NAMESPACE"]}, {"Name": "NAMESPACE_ID", "Values": [made, http], "Condition": "IN"}]
    assert len(api.list_operations(Filters=kinds)["Operations"]) == 2


def test_services_and_instances(cloud_map):
    api = cloud_map.api
    namespace = cloud_map.private("inst.test")
    service = cloud_map.service("web", namespace, ("A", 10), ("SRV", 20), HealthCheckCustomConfig={}, Description="pages")
    assert service["Type"] == "DNS_HTTP" and service["HealthCheckCustomConfig"] == {"FailureThreshold": 1}
    identity = service["Id"]
    refused("ServiceAlreadyExists", api.create_service, Name="WEB", NamespaceId=namespace)
    refused("NamespaceNotFound", api.create_service, Name="web", NamespaceId="ns-0")
    refused("InvalidInput", api.register_instance, ServiceId=identity, InstanceId="a", Attributes={"AWS_INSTANCE_IPV4": "10.0.0.1"})
    refused("InvalidInput", api.register_instance, ServiceId=identity, InstanceId="a", Attributes={"AWS_INSTANCE_IPV4": "10.0.0", "AWS_INSTANCE_PORT": "1"})
    refused("ServiceNotFound", api.register_instance, ServiceId="srv-0", InstanceId="a", Attributes={"a": "b"})
    for i in range(1, 4):
        assert cloud_map.register(identity, f"i-{i}", ipv4=f"10.0.0.{i}", port="80") == {"SERVICE": identity, "INSTANCE": f"i-{i}"}
    assert cloud_map.found("inst.test", "web") == ["i-1", "i-2", "i-3"]
    revision = api.discover_instances_revision(NamespaceName="inst.test", ServiceName="web")["InstancesRevision"]
    api.update_instance_custom_health_status(ServiceId=identity, InstanceId="i-2", Status="UNHEALTHY")
    assert cloud_map.found("inst.test", "web") == ["i-1", "i-3"]
    assert cloud_map.found("inst.test", "web", HealthStatus="UNHEALTHY") == ["i-2"]
    assert cloud_map.found("inst.test", "web", HealthStatus="ALL", QueryParameters={"AWS_INSTANCE_IPV4": "10.0.0.2"}) == ["i-2"]
    assert cloud_map.found("inst.test", "web", OptionalParameters={"AWS_INSTANCE_IPV4": "10.9.9.9"}) == ["i-1", "i-3"]
    assert len(cloud_map.found("inst.test", "web", MaxResults=1)) == 1
    assert api.discover_instances_revision(NamespaceName="inst.test", ServiceName="web")["InstancesRevision"] == revision
    status = api.get_instances_health_status(ServiceId=identity)["Status"]
    assert status == {"i-1": "HEALTHY", "i-2": "UNHEALTHY", "i-3": "HEALTHY"}
    assert api.get_instances_health_status(ServiceId=identity, Instances=["i-2"])["Status"] == {"i-2": "UNHEALTHY"}
    refused("InstanceNotFound", api.get_instance, ServiceId=identity, InstanceId="i-9")
    refused("InstanceNotFound", api.deregister_instance, ServiceId=identity, InstanceId="i-9")
    assert api.get_instance(ServiceId=identity, InstanceId="i-1")["Instance"]["Attributes"]["AWS_INSTANCE_PORT"] == "80"
    pages = api.get_paginator("list_instances").paginate(ServiceId=identity, PaginationConfig={"PageSize": 2})
    assert [i["Id"] for page in pages for i in page["Instances"]] == ["i-1", "i-2", "i-3"]
    refused("ResourceInUse", api.delete_service, Id=identity)
    cloud_map.done(api.deregister_instance(ServiceId=service["Arn"], InstanceId="i-1"))
    assert api.get_service(Id=identity)["Service"]["InstanceCount"] == 2
    records = [{"Type": "A", "TTL": 11}, {"Type": "SRV", "TTL": 12}]
    cloud_map.done(api.update_service(Id=identity, Service={"DnsConfig": {"DnsRecords": records}}))
    assert api.get_service(Id=identity)["Service"]["DnsConfig"]["DnsRecords"] == records
    refused("InvalidInput", api.update_service, Id=identity, Service={"DnsConfig": {"DnsRecords": [{"Type": "CNAME", "TTL": 1}]}})
    api.update_service_attributes(ServiceId=identity, Attributes={"port": "80", "gone": "1"})
    api.delete_service_attributes(ServiceId=identity, Attributes=["gone"])
    assert api.get_service_attributes(ServiceId=identity)["ServiceAttributes"]["Attributes"] == {"port": "80"}
    plain = cloud_map.service("plain", namespace)
    assert plain["Type"] == "HTTP"
    cloud_map.register(plain["Id"], "x")
    refused("CustomHealthNotFound", api.update_instance_custom_health_status, ServiceId=plain["Id"], InstanceId="x", Status="HEALTHY")
    refused("InvalidInput", cloud_map.service, name="bad", namespace=namespace, **{}, policy="MULTIVALUE", DnsConfig={"DnsRecords": [{"Type": "CNAME", "TTL": 1}]})
    refused("ServiceNotFound", api.discover_instances, NamespaceName="inst.test", ServiceName="none")
    assert "public DNS" in refused("InvalidInput", api.create_service, Name="h", NamespaceId=namespace, HealthCheckConfig={"Type": "HTTP"})


def test_names_stand_for_what_is_registered_and_well(cloud_map, ask):
    api = cloud_map.api
    namespace = cloud_map.private("names.test", Properties={"DnsProperties": {"SOA": {"TTL": 3}}})
    web = cloud_map.service("web", namespace, ("A", 10), ("SRV", 20), HealthCheckCustomConfig={"FailureThreshold": 1})["Id"]
    for i in range(1, 4):
        cloud_map.register(web, f"i-{i}", ipv4=f"10.7.0.{i}", port=f"80{i}")
    api.update_instance_custom_health_status(ServiceId=web, InstanceId="i-2", Status="UNHEALTHY")
    many = cloud_map.service("many", namespace, ("A", 1))["Id"]
    for i in range(10):
        cloud_map.register(many, f"m-{i}", ipv4=f"10.7.1.{i}")
    one = cloud_map.service("one", namespace, ("A", 1), policy="WEIGHTED")["Id"]
    for i in range(3):
        cloud_map.register(one, f"o-{i}", ipv4=f"10.7.2.{i}")
    alias = cloud_map.service("alias", namespace, ("CNAME", 5), policy="WEIGHTED")["Id"]
    cloud_map.register(alias, "c", cname="elsewhere.test")
    cloud_map.service("empty", namespace, ("A", 1))
    cloud_map.service("secret", namespace)
    answers = ask(
        ("WEB.names.test", "A"),
        ("web.names.test", "SRV"),
        ("i-1.web.names.test", "A"),
        ("many.names.test", "A"),
        ("one.names.test", "A"),
        ("alias.names.test", "A"),
        ("empty.names.test", "A"),
        ("none.names.test", "A"),
        ("secret.names.test", "A"),
        ("names.test", "A"),
    )
    assert answers[0] == [0, [["10.7.0.1", 10], ["10.7.0.3", 10]]], "the one that is ill is left out"
    assert answers[1] == [0, [[801, "i-1.web.names.test"], [803, "i-3.web.names.test"]]]
    assert answers[2] == [0, [["10.7.0.1", 20]]]
    assert len(answers[3][1]) == 8 and len(answers[4][1]) == 1
    assert answers[5] == [0, ["elsewhere.test"]]
    assert answers[6] == [0, []] and answers[9] == [0, []]
    assert answers[7] == [3, []] == answers[8], "there is no such name"
    for i in (1, 3):
        api.update_instance_custom_health_status(ServiceId=web, InstanceId=f"i-{i}", Status="UNHEALTHY")
    assert len(ask(("web.names.test", "A"))[0][1]) == 3, "where none is well, all are answered"


def test_tasks_of_a_service_are_found_by_its_name(cloud_map, software, stack):
    api = cloud_map.api
    stack.subnets = [subnet["SubnetId"] for subnet in stack.ec2.describe_subnets()["Subnets"]]
    services = Services(stack)
    namespace = cloud_map.private("apps.test")
    api_service = cloud_map.service("api", namespace, ("SRV", 0), ("A", 0), HealthCheckCustomConfig={"FailureThreshold": 1})
    check = {"command": ["CMD-SHELL", "test ! -e /tmp/ill"], "interval": 5, "retries": 2, "timeout": 2}
    ports = [{"containerPort": 8080}]
    command = PAGE.format("found") + " & while sleep 1; do [ -e /tmp/w/ill ] && touch /tmp/ill; done"
    definition = stack.define(stack.container(command=command.replace("exec ", ""), portMappings=ports, healthCheck=check))
    registry = {"registryArn": api_service["Arn"], "containerName": "main", "containerPort": 8080}
    made = services.create("found", definition, 2, serviceRegistries=[registry], enableExecuteCommand=True)
    assert made["serviceRegistries"] == [registry]
    services.steady("found")
    tasks = sorted(arn.rsplit("/", 1)[1] for arn in services.tasks("found"))
    assert eventually(lambda: cloud_map.found("apps.test", "api") == tasks, "both are registered, and well")
    attributes = api.get_instance(ServiceId=api_service["Id"], InstanceId=tasks[0])["Instance"]["Attributes"]
    assert attributes["AWS_INSTANCE_IPV4"] == stack.address(tasks[0], "private") and attributes["AWS_INSTANCE_PORT"] == "8080"
    assert attributes["ECS_SERVICE_NAME"] == "found" and attributes["ECS_CLUSTER_NAME"] == "tests"
    assert attributes["AVAILABILITY_ZONE"].startswith("us-east-1")
    # Another task reaches it by name, and finds it with an SDK, which puts "data-" before the endpoint's name.
    text = (
        "import boto3, urllib.request as u; print(u.urlopen('http://api.apps.test:8080/', timeout=5).read().decode().strip()); "
        "c = boto3.client('servicediscovery'); "
        "print(len(c.discover_instances(NamespaceName='apps.test', ServiceName='api')['Instances']))"
    )
    container = {**software.container(), "image": software.debian, "entryPoint": ["/usr/bin/python3", "-c"], "command": [text]}
    role = stack.neargate.client("iam")
    arn = role.create_role(RoleName="discoverer", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    statement = {"Effect": "Allow", "Action": "servicediscovery:DiscoverInstances", "Resource": "*"}
    role.put_role_policy(RoleName="discoverer", PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    ended = software.finish(container, taskRoleArn=arn)
    assert software.lines(ended["taskArn"]) == ["found", "2"]
    # One that falls ill is no longer found, and one that dies is gone, whoever ended it.
    stack.neargate.cli("exec", tasks[0], "--", "busybox", "touch", "/tmp/w/ill")
    eventually(lambda: tasks[0] not in cloud_map.found("apps.test", "api"), "the ill one is not found")
    stack.ecs.stop_task(cluster="tests", task=tasks[1])
    gone = lambda: tasks[1] not in cloud_map.found("apps.test", "api", HealthStatus="ALL")
    eventually(gone, "the stopped one is gone")
    services.steady("found")
    eventually(lambda: len(cloud_map.found("apps.test", "api")) == 2, "others are there for them")
    services.delete("found")
    assert cloud_map.found("apps.test", "api", HealthStatus="ALL") == []
    api.delete_service(Id=api_service["Id"])


def test_registries_that_cannot_be(cloud_map, stack):
    stack.subnets = [subnet["SubnetId"] for subnet in stack.ec2.describe_subnets()["Subnets"]]
    services = Services(stack)
    namespace = cloud_map.private("never.test")
    with_srv = cloud_map.service("srv", namespace, ("SRV", 0))["Arn"]
    definition = stack.define(stack.container(portMappings=[{"containerPort": 8080}]))

    def no(words, *registries):
        with pytest.raises(ClientError) as error:
            services.create("never", definition, 1, serviceRegistries=list(registries))
        assert error.value.response["Error"]["Code"] == "InvalidParameterException" and words in str(error.value)

    no("does not exist", {"registryArn": with_srv + "0"})
    no("a port must be specified", {"registryArn": with_srv})
    no("but not both", {"registryArn": with_srv, "containerName": "main"})
    no("did not have a container port", {"registryArn": with_srv, "containerName": "main", "containerPort": 1})
    no("at most 1", {"registryArn": with_srv, "port": 80}, {"registryArn": with_srv, "port": 81})
