"""Networks of one's own: what is not routed does not get out, and what is, does; also after `kill -9`."""

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, Stack, eventually, push
from test_cloudformation import PATTERNS, Stacks, refused
from test_firewall import host  # noqa: F401  (a host with an outside at 203.0.113.2)

OUTSIDE = "timeout 3 wget -q -O - http://203.0.113.2/ 2> /dev/null || echo nothing"


def test_tasks_go_the_ways_of_their_subnets(host, tmp_path_factory):  # noqa: F811
    plane = Neargate(tmp_path_factory.mktemp("vpc") / "data", PORT + 16).start()
    stack, stacks, ec2 = Stack(plane), Stacks(plane), plane.client("ec2")
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "vpc")
    try:
        stacks.create("net", (PATTERNS / "network.yaml").read_text())
        outputs = stacks.outputs("net")
        public, private = outputs["PublicSubnets"].split(",")[0], outputs["PrivateSubnets"].split(",")[0]
        made = ec2.create_security_group(GroupName="open", Description="x", VpcId=outputs["Vpc"])["GroupId"]
        ec2.authorize_security_group_ingress(GroupId=made, IpProtocol="tcp", FromPort=8080, ToPort=8080, CidrIp="0.0.0.0/0")

        def run(subnet, command, address="DISABLED"):
            network = {"subnets": [subnet], "securityGroups": [made], "assignPublicIp": address}
            answer = stack.ecs.run_task(
                cluster="tests", launchType="FARGATE", taskDefinition=stack.define(stack.container(command=command)),
                networkConfiguration={"awsvpcConfiguration": network},
            )
            return answer["tasks"][0]["taskArn"]

        def seen(subnet, command=OUTSIDE, address="DISABLED"):
            task = run(subnet, command, address)
            stack.status(task, "STOPPED")
            # The shell says `Terminated` of what took too long.
            return [line for line in stack.lines(task) if line != "Terminated"]

        assert seen(public, address="ENABLED") == ["outside"]
        # Without an address of its own, the internet gateway is no way out, not even for the image.
        lost = run(public, OUTSIDE)
        stack.status(lost, "STOPPED")
        told = stack.ecs.describe_tasks(cluster="tests", tasks=[lost])["tasks"][0]
        assert told["stopCode"] == "TaskFailedToStart" and "The task cannot pull registry auth from Amazon ECR" in told["stoppedReason"]
        assert seen(private) == ["outside"]
        tables = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [private]}])["RouteTables"]
        routes = {route["DestinationCidrBlock"]: route["State"] for route in tables[0]["Routes"] if "DestinationCidrBlock" in route}
        assert routes == {"10.0.0.0/16": "active", "0.0.0.0/0": "active"}
        plane.kill()
        plane.start()
        stack.__dict__.update({name: plane.client(name) for name in ["ecs", "ec2", "logs"]})
        ec2 = stack.ec2
        assert seen(private) == ["outside"]

        # Subnets of one VPC reach each other without any route.
        serve = "mkdir -p /tmp/w; echo inside > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"
        server = run(public, serve, "ENABLED")
        stack.status(server, "RUNNING")
        page = f"timeout 3 wget -q -O - http://{stack.address(server, 'private')}:8080/ || echo nothing"
        assert seen(private, page) == ["inside"]

        # The ways of interfaces that are there change with their routes.
        looks = f"while true; do {OUTSIDE}; sleep 0.2; done"
        looker = run(private, looks)
        stack.status(looker, "RUNNING")
        said = lambda: [line for line in stack.lines(looker) if line != "Terminated"]
        last = lambda word: eventually(lambda: said()[-1:] == [word], word)
        last("outside")
        table = stacks_physical(plane, "PrivateRoutes")
        ec2.delete_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0")
        last("nothing")
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=stacks_physical(plane, "Nat"))
        last("outside")
        for task in [looker, server]:
            stack.ecs.stop_task(cluster="tests", task=task)
            stack.status(task, "STOPPED")
        ec2.delete_security_group(GroupId=made)
        Stacks(plane).delete("net")
        assert [vpc["IsDefault"] for vpc in ec2.describe_vpcs()["Vpcs"]] == [True]
        assert ec2.describe_addresses()["Addresses"] == []
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)


def test_what_fargate_needs_of_aws_is_reached_by_private_link(neargate, stack):
    """Subnets without a way out start tasks when the endpoints are there, and tell as on AWS which is not."""
    stacks, ec2 = Stacks(neargate), neargate.client("ec2")
    by = lambda way: [{"ParameterKey": "PrivateWay", "ParameterValue": way}]
    stacks.create("linked", (PATTERNS / "network.yaml").read_text(), Parameters=by("PrivateLink"))
    outputs = stacks.outputs("linked")
    physical = lambda logical: stacks.physical("linked", logical)
    subnet = outputs["PrivateSubnets"].split(",")[0]
    group = ec2.describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [outputs["Vpc"]]}, {"Name": "group-name", "Values": ["default"]}]
    )["SecurityGroups"][0]["GroupId"]

    def stopped(**container):
        network = {"subnets": [subnet], "securityGroups": [group], "assignPublicIp": "DISABLED"}
        task = stack.ecs.run_task(
            cluster="tests", launchType="FARGATE", networkConfiguration={"awsvpcConfiguration": network},
            taskDefinition=stack.define(stack.container(command="echo runs", **container)),
        )["tasks"][0]["taskArn"]
        stack.status(task, "STOPPED")
        told = stack.ecs.describe_tasks(cluster="tests", tasks=[task])["tasks"][0]
        return told["stoppedReason"] if told["stopCode"] == "TaskFailedToStart" else stack.lines(task)

    assert stopped() == ["runs"]
    endpoints = {one["ServiceName"].split(".", 3)[3]: one for one in ec2.describe_vpc_endpoints()["VpcEndpoints"]}
    assert sorted(endpoints) == ["ecr.api", "ecr.dkr", "logs", "s3", "secretsmanager", "ssm"]
    assert {one["State"] for one in endpoints.values()} == {"available"}
    logs = endpoints["logs"]
    assert logs["PrivateDnsEnabled"] and len(logs["NetworkInterfaceIds"]) == 2
    inside = ec2.describe_network_interfaces(NetworkInterfaceIds=logs["NetworkInterfaceIds"])["NetworkInterfaces"]
    assert {one["SubnetId"] for one in inside} == set(outputs["PrivateSubnets"].split(","))
    routes = ec2.describe_route_tables(RouteTableIds=[physical("PrivateRoutes")])["RouteTables"][0]["Routes"]
    assert [route.get("GatewayId") for route in routes] == ["local", endpoints["s3"]["VpcEndpointId"]]
    # An image from elsewhere is out of reach.
    assert stopped(image="example.com/some/image:1").startswith("CannotPullContainerError: The task cannot pull example.com/some/image:1")

    # The endpoints' own group decides who reaches them.
    doors = physical("EndpointGroup")
    ingress = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}
    ec2.revoke_security_group_ingress(GroupId=doors, IpPermissions=[ingress])
    assert "The task cannot pull registry auth from Amazon ECR" in stopped()
    by_group = {**ingress, "IpRanges": [], "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=doors, IpPermissions=[by_group])
    assert stopped() == ["runs"]

    ec2.modify_vpc_endpoint(VpcEndpointId=endpoints["s3"]["VpcEndpointId"], RemoveRouteTableIds=[physical("PrivateRoutes")])
    assert "starport-layer-bucket" in stopped()
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoints["s3"]["VpcEndpointId"], AddRouteTableIds=[physical("PrivateRoutes")])
    refused("DependencyViolation", "has a dependent object", ec2.delete_security_group, GroupId=doors)
    # Without its private name, an endpoint is not what the agent finds.
    ec2.modify_vpc_endpoint(VpcEndpointId=logs["VpcEndpointId"], PrivateDnsEnabled=False)
    assert stopped().startswith("ResourceInitializationError: failed to validate logger args")
    ec2.modify_vpc_endpoint(VpcEndpointId=logs["VpcEndpointId"], PrivateDnsEnabled=True)
    secret = {"name": "A", "valueFrom": "arn:aws:secretsmanager:us-east-1:000000000000:secret:x"}
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoints["secretsmanager"]["VpcEndpointId"], PrivateDnsEnabled=False)
    assert "unable to retrieve secret from asm" in stopped(secrets=[secret])
    ec2.modify_vpc_endpoint(VpcEndpointId=endpoints["secretsmanager"]["VpcEndpointId"], PrivateDnsEnabled=True)

    # The same stack by NAT: endpoints go, and the gateway comes.
    stacks.update("linked", (PATTERNS / "network.yaml").read_text(), Parameters=by("NAT"))
    assert [one["ServiceName"] for one in ec2.describe_vpc_endpoints()["VpcEndpoints"]] == ["com.amazonaws.us-east-1.s3"]
    assert stopped() == ["runs"]
    # What an endpoint cannot become is told, not passed over.
    changed = (PATTERNS / "network.yaml").read_text().replace("VpcEndpointType: Gateway", "VpcEndpointType: Gateway\n      IpAddressType: ipv4")
    with pytest.raises(AssertionError):
        stacks.update("linked", changed, Parameters=by("NAT"))
    assert any("cannot change the property IpAddressType" in (event[2] or "") for event in stacks.told("linked"))
    stacks.delete("linked")
    assert ec2.describe_vpc_endpoints()["VpcEndpoints"] == []


def test_endpoints_are_checked(neargate):
    ec2 = neargate.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.4.0.0/16")["Vpc"]["VpcId"]
    first, second = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.4.{n}.0/24", AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"] for n in (1, 2)
    ]
    name = "com.amazonaws.us-east-1"
    interface = dict(VpcId=vpc, VpcEndpointType="Interface", ServiceName=f"{name}.logs", SubnetIds=[first])
    refused("InvalidServiceName", "does not exist", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName=f"{name}.nothing")
    refused("InvalidServiceName", "does not exist", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName="com.amazonaws.eu-west-1.s3")
    refused("InvalidParameterValue", "of type Gateway", ec2.create_vpc_endpoint, VpcId=vpc, ServiceName=f"{name}.logs")
    refused("InvalidParameter", "enableDnsHostnames", ec2.create_vpc_endpoint, **interface)
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    refused("DuplicateSubnetsInSameZone", "availability zone of subnet-", ec2.create_vpc_endpoint, **{**interface, "SubnetIds": [first, second]})
    refused("InvalidSubnetID.NotFound", "does not exist", ec2.create_vpc_endpoint, **{**interface, "SubnetIds": ["subnet-1"]})
    refused("InvalidGroup.NotFound", "does not exist", ec2.create_vpc_endpoint, SecurityGroupIds=["sg-1"], **interface)
    closed = '{"Statement":[{"Effect":"Allow","Principal":"*","Action":"logs:*","Resource":"*"}]}'
    for policy in [closed, '{"Statement":[]}', closed.replace("logs:*", "*").replace('"Resource"', '"Condition":{},"Resource"')]:
        refused("UnsupportedOperation", "policies of VPC endpoints", ec2.create_vpc_endpoint, PolicyDocument=policy, **interface)
    refused("InvalidPolicyDocument", "Invalid policy", ec2.create_vpc_endpoint, PolicyDocument="nothing", **interface)
    made = ec2.create_vpc_endpoint(
        ClientToken="once", TagSpecifications=[{"ResourceType": "vpc-endpoint", "Tags": [{"Key": "a", "Value": "b"}]}], **interface
    )["VpcEndpoint"]
    assert ec2.create_vpc_endpoint(ClientToken="once", **interface)["VpcEndpoint"]["VpcEndpointId"] == made["VpcEndpointId"]
    assert made["Groups"][0]["GroupName"] == "default" and made["Tags"] == [{"Key": "a", "Value": "b"}]
    refused("InvalidParameter", "conflicting DNS domain", ec2.create_vpc_endpoint, **interface)
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    route = dict(VpcId=vpc, ServiceName=f"{name}.s3", RouteTableIds=[table])
    gateway = ec2.create_vpc_endpoint(**route)["VpcEndpoint"]["VpcEndpointId"]
    refused("RouteAlreadyExists", table, ec2.create_vpc_endpoint, **route)
    refused("DependencyViolation", "dependencies", ec2.delete_route_table, RouteTableId=table)
    refused("DependencyViolation", "dependencies", ec2.delete_subnet, SubnetId=first)
    found = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-endpoint-type", "Values": ["Gateway"]}, {"Name": "vpc-id", "Values": [vpc]}])
    assert [one["VpcEndpointId"] for one in found["VpcEndpoints"]] == [gateway]
    answer = ec2.delete_vpc_endpoints(VpcEndpointIds=[made["VpcEndpointId"], gateway, "vpce-1"])["Unsuccessful"]
    assert [(one["ResourceId"], one["Error"]["Code"]) for one in answer] == [("vpce-1", "InvalidVpcEndpointId.NotFound")]
    ec2.delete_route_table(RouteTableId=table)
    for subnet in (first, second):
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)


def stacks_physical(plane, logical):
    return Stacks(plane).physical("net", logical)


def test_networks_are_made_and_deleted_by_the_api(neargate):
    ec2 = neargate.client("ec2")
    refused("InvalidVpc.Range", "invalid", ec2.create_vpc, CidrBlock="10.0.0.0/8")
    refused("InvalidParameterValue", "not a valid CIDR", ec2.create_vpc, CidrBlock="10.0.0.0")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": [{"Key": "Name", "Value": "mine"}]}])["Vpc"]
    assert vpc["CidrBlock"] == "10.1.0.0/16" and vpc["Tags"] == [{"Key": "Name", "Value": "mine"}] and not vpc["IsDefault"]
    vpc = vpc["VpcId"]
    ec2.get_waiter("vpc_available").wait(VpcIds=[vpc])
    assert [one["VpcId"] for one in ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["mine"]}])["Vpcs"]] == [vpc]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    assert ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsHostnames")["EnableDnsHostnames"] == {"Value": True}
    refused("UnsupportedOperation", "name service", ec2.modify_vpc_attribute, VpcId=vpc, EnableDnsSupport={"Value": False})

    refused("InvalidSubnet.Range", "invalid", ec2.create_subnet, VpcId=vpc, CidrBlock="10.2.0.0/24")
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.1.0/24", AvailabilityZone="us-east-1b")["Subnet"]
    assert subnet["AvailableIpAddressCount"] == 251 and subnet["AvailabilityZone"] == "us-east-1b" and not subnet["MapPublicIpOnLaunch"]
    subnet = subnet["SubnetId"]
    refused("InvalidSubnet.Conflict", "conflicts", ec2.create_subnet, VpcId=vpc, CidrBlock="10.1.1.128/25")
    refused("InvalidParameterValue", "availabilityZone", ec2.create_subnet, VpcId=vpc, CidrBlock="10.1.2.0/24", AvailabilityZone="eu-west-1a")
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    assert ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["MapPublicIpOnLaunch"]

    other = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.3.0/24", AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"]
    elb = neargate.client("elbv2")
    refused("InvalidSubnet", f"VPC {vpc} has no internet gateway", elb.create_load_balancer, Name="nowhere", Subnets=[subnet, other])
    ec2.delete_subnet(SubnetId=other)
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    route = dict(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0")
    refused("InvalidParameterValue", "different networks", ec2.create_route, GatewayId=gateway, **route)
    address = ec2.allocate_address(Domain="vpc")
    refused("Gateway.NotAttached", "no Internet gateway", ec2.create_nat_gateway, SubnetId=subnet, AllocationId=address["AllocationId"])
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    refused("Resource.AlreadyAssociated", "already attached", ec2.attach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
    ec2.create_route(GatewayId=gateway, **route)
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address["AllocationId"], ClientToken="once")["NatGateway"]
    again = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address["AllocationId"], ClientToken="once")["NatGateway"]
    assert again["NatGatewayId"] == nat["NatGatewayId"] and nat["NatGatewayAddresses"][0]["PublicIp"] == address["PublicIp"]
    nat = nat["NatGatewayId"]
    ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat])
    refused("InvalidIPAddress.InUse", "in use", ec2.release_address, AllocationId=address["AllocationId"])
    refused("DependencyViolation", "mapped public address", ec2.detach_internet_gateway, InternetGatewayId=gateway, VpcId=vpc)
    refused("DependencyViolation", "dependencies", ec2.delete_subnet, SubnetId=subnet)
    refused("DependencyViolation", "dependencies", ec2.delete_vpc, VpcId=vpc)
    refused("RouteAlreadyExists", "already exists", ec2.create_route, NatGatewayId=nat, **route)
    ec2.replace_route(NatGatewayId=nat, **route)
    refused("UnsupportedOperation", "0.0.0.0/0", ec2.create_route, RouteTableId=table, DestinationCidrBlock="8.8.8.0/24", GatewayId=gateway)
    main = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}])["RouteTables"][0]
    association = ec2.replace_route_table_association(AssociationId=association, RouteTableId=main["RouteTableId"])["NewAssociationId"]
    ec2.create_tags(Resources=[table, subnet], Tags=[{"Key": "a", "Value": "b"}])
    tagged = ec2.describe_tags(Filters=[{"Name": "key", "Values": ["a"]}])["Tags"]
    assert [(tag["ResourceId"], tag["ResourceType"]) for tag in tagged] == [(table, "route-table"), (subnet, "subnet")]
    ec2.delete_tags(Resources=[table], Tags=[{"Key": "a", "Value": "other"}])
    ec2.delete_tags(Resources=[subnet], Tags=[{"Key": "a"}])
    assert len(ec2.describe_tags(Filters=[{"Name": "key", "Values": ["a"]}])["Tags"]) == 1
    refused("InvalidParameterValue", "reserved", ec2.create_tags, Resources=[table], Tags=[{"Key": "aws:x", "Value": "b"}])

    ec2.delete_nat_gateway(NatGatewayId=nat)
    ec2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[nat])
    assert ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"][1]["State"] == "blackhole"
    ec2.release_address(AllocationId=address["AllocationId"])
    ec2.delete_route(**route)
    ec2.disassociate_route_table(AssociationId=association)
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    assert ec2.describe_internet_gateways(InternetGatewayIds=[gateway])["InternetGateways"][0]["Attachments"] == []
    ec2.delete_internet_gateway(InternetGatewayId=gateway)
    ec2.delete_route_table(RouteTableId=table)
    ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)
    with pytest.raises(ClientError):
        ec2.describe_vpcs(VpcIds=[vpc])
    default = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    refused("OperationNotPermitted", "default VPC", ec2.delete_vpc, VpcId=default)
