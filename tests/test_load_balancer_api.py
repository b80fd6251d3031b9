"""What Elastic Load Balancing's operations keep and refuse; the traffic has tests of its own."""

import json
import uuid
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError


@contextmanager
def refused(code, says=""):
    with pytest.raises(ClientError) as error:
        yield
    answer = error.value.response["Error"]
    assert answer["Code"] == code and says in answer["Message"], answer


def fresh(prefix="t"):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def plain(pairs):
    return {pair["Key"]: pair["Value"] for pair in pairs}


class Balancing:
    """A client, the default VPC, and what tests make over and over."""

    def __init__(self, neargate):
        self.elb = neargate.client("elbv2")
        self.ec2 = neargate.client("ec2")
        subnets = sorted(self.ec2.describe_subnets()["Subnets"], key=lambda s: s["AvailabilityZone"])
        self.subnets = [subnet["SubnetId"] for subnet in subnets]
        self.zones = [subnet["AvailabilityZone"] for subnet in subnets]
        self.vpc = subnets[0]["VpcId"]
        self.balancers = []

    def balancer(self, name=None, **more):
        given = {"Subnets": self.subnets[:2]} | more
        made = self.elb.create_load_balancer(Name=name or fresh("lb"), **given)["LoadBalancers"][0]
        self.balancers.append(made["LoadBalancerArn"])
        return made

    def group(self, name=None, **more):
        given = {"Protocol": "HTTP", "Port": 80, "VpcId": self.vpc, "TargetType": "ip"} | more
        return self.elb.create_target_group(Name=name or fresh("tg"), **given)["TargetGroups"][0]

    def listener(self, balancer, actions, port=80, protocol="HTTP", **more):
        made = self.elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Port=port, Protocol=protocol, DefaultActions=actions, **more
        )
        return made["Listeners"][0]

    def forward(self, group):
        return [{"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}]

    def health(self, group, *targets):
        more = {"Targets": list(targets)} if targets else {}
        answer = self.elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"], **more)
        return answer["TargetHealthDescriptions"]


@pytest.fixture
def lb(neargate):
    balancing = Balancing(neargate)
    yield balancing
    for arn in balancing.balancers:
        balancing.elb.delete_load_balancer(LoadBalancerArn=arn)


FIXED = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}]


def path(*values):
    return [{"Field": "path-pattern", "Values": list(values)}]


def test_a_load_balancer_is_made_found_and_deleted(lb):
    name = fresh("web")
    made = lb.balancer(name, Tags=[{"Key": "team", "Value": "a"}])
    arn = made["LoadBalancerArn"]
    assert f":loadbalancer/app/{name}/" in arn
    assert made["Type"] == "application" and made["Scheme"] == "internet-facing" and made["VpcId"] == lb.vpc
    assert made["DNSName"].startswith(name) and made["IpAddressType"] == "ipv4"
    assert made["State"]["Code"] in ("provisioning", "active")
    assert [zone["SubnetId"] for zone in made["AvailabilityZones"]] == lb.subnets[:2]
    default = lb.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])
    assert made["SecurityGroups"] == [default["SecurityGroups"][0]["GroupId"]]
    # The same again is the same; with other settings it is a conflict.
    assert lb.balancer(name, Tags=[{"Key": "team", "Value": "a"}])["LoadBalancerArn"] == arn
    with refused("DuplicateLoadBalancerName", f"'{name}' exists, but with different settings"):
        lb.balancer(name, Scheme="internal")
    assert lb.elb.describe_load_balancers(Names=[name])["LoadBalancers"][0]["LoadBalancerArn"] == arn
    assert lb.elb.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]["DNSName"] == made["DNSName"]
    lb.balancer()
    pages = lb.elb.get_paginator("describe_load_balancers").paginate(PaginationConfig={"PageSize": 1})
    pages = [[b["LoadBalancerArn"] for b in page["LoadBalancers"]] for page in pages]
    assert all(len(page) == 1 for page in pages) and [arn] in pages
    listener = lb.listener(made, FIXED)["ListenerArn"]
    rule = lb.elb.create_rule(ListenerArn=listener, Priority=1, Conditions=path("/a"), Actions=FIXED)["Rules"][0]
    lb.elb.delete_load_balancer(LoadBalancerArn=arn)
    lb.elb.delete_load_balancer(LoadBalancerArn=arn)
    with refused("LoadBalancerNotFound", "One or more load balancers not found"):
        lb.elb.describe_load_balancers(LoadBalancerArns=[arn])
    with refused("LoadBalancerNotFound"):
        lb.elb.describe_load_balancers(Names=[name])
    with refused("ListenerNotFound", "One or more listeners not found"):
        lb.elb.describe_listeners(ListenerArns=[listener])
    with refused("RuleNotFound", "One or more rules not found"):
        lb.elb.describe_rules(RuleArns=[rule["RuleArn"]])


def test_load_balancers_that_cannot_be(lb):
    with refused("ValidationError", "At least two subnets in two different Availability Zones"):
        lb.balancer(Subnets=lb.subnets[:1])
    with refused("InvalidConfigurationRequest", "multiple subnets in the same Availability Zone"):
        lb.balancer(Subnets=[lb.subnets[0]] * 2)
    with refused("SubnetNotFound", "subnet-nothing"):
        lb.balancer(Subnets=[lb.subnets[0], "subnet-nothing"])
    with refused("InvalidSecurityGroup"):
        lb.balancer(SecurityGroups=["sg-nothing"])
    with refused("ValidationError", "internal-"):
        lb.balancer("internal-x")
    with refused("ValidationError", "hyphens"):
        lb.balancer("a_b")
    with refused("ValidationError", "'32' characters"):
        lb.balancer("x" * 33)
    with refused("ValidationError", "either subnets or subnet mappings"):
        lb.elb.create_load_balancer(Name="x")
    with refused("ValidationError", "Gateway Load Balancers are not built"):
        lb.balancer(Type="gateway")
    with refused("ValidationError", "IPv6 is not built"):
        lb.balancer(IpAddressType="dualstack")
    with refused("ValidationError", "Elastic IP addresses are not built"):
        mapping = {"SubnetId": lb.subnets[0], "AllocationId": "eipalloc-1"}
        lb.elb.create_load_balancer(Name="x", Type="network", SubnetMappings=[mapping])
    with refused("ValidationError", "is not a valid load balancer ARN"):
        lb.elb.delete_load_balancer(LoadBalancerArn="nonsense")


def test_security_groups_are_set(lb):
    group = lb.ec2.create_security_group(GroupName=fresh(), Description="d", VpcId=lb.vpc)["GroupId"]
    arn = lb.balancer(SecurityGroups=[group])["LoadBalancerArn"]
    default = lb.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])
    default = default["SecurityGroups"][0]["GroupId"]
    answer = lb.elb.set_security_groups(LoadBalancerArn=arn, SecurityGroups=[default, group])
    assert answer["SecurityGroupIds"] == [default, group]
    found = lb.elb.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]
    assert found["SecurityGroups"] == [default, group]
    with refused("InvalidSecurityGroup"):
        lb.elb.set_security_groups(LoadBalancerArn=arn, SecurityGroups=["sg-nothing"])
    network = lb.balancer(Type="network", Subnets=lb.subnets[:1])
    assert not network.get("SecurityGroups")
    with refused("InvalidConfigurationRequest"):
        lb.elb.set_security_groups(LoadBalancerArn=network["LoadBalancerArn"], SecurityGroups=[default])


def test_attributes_of_load_balancers(lb):
    arn = lb.balancer()["LoadBalancerArn"]

    def modify(**values):
        pairs = [{"Key": key.replace("__", "."), "Value": value} for key, value in values.items()]
        return plain(lb.elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=pairs)["Attributes"])

    def described():
        return plain(lb.elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"])

    before = described()
    assert before["idle_timeout.timeout_seconds"] == "60" and before["access_logs.s3.enabled"] == "false"
    assert before["load_balancing.cross_zone.enabled"] == "true" and before["routing.http2.enabled"] == "true"
    changed = modify(idle_timeout__timeout_seconds="10", deletion_protection__enabled="true")
    assert modify(access_logs__s3__enabled="false") == changed, "the default is taken"
    wanted = {"idle_timeout.timeout_seconds": "10", "deletion_protection.enabled": "true"}
    assert changed == before | wanted == described()
    with refused("OperationNotPermitted", "deletion protection is enabled"):
        lb.elb.delete_load_balancer(LoadBalancerArn=arn)
    with refused("ValidationError", "Load balancer attribute key 'x' is not recognized"):
        modify(x="1")
    with refused("ValidationError", "'idle_timeout.timeout_seconds' must be between"):
        modify(idle_timeout__timeout_seconds="4001")
    with refused("ValidationError", "must be 'true' or 'false'"):
        modify(deletion_protection__enabled="maybe")
    with refused("ValidationError", "Neargate does not support"):
        modify(connection_logs__s3__enabled="true", idle_timeout__timeout_seconds="20")
    with refused("InvalidConfigurationRequest", "'access_logs.s3.bucket' must be specified"):
        modify(access_logs__s3__enabled="true", idle_timeout__timeout_seconds="20")
    with refused("ValidationError"):
        modify(load_balancing__cross_zone__enabled="false")
    assert described()["idle_timeout.timeout_seconds"] == "10", "a refused call changes nothing"
    modify(deletion_protection__enabled="false")


def test_a_target_group_is_made_found_changed_and_deleted(lb):
    name = fresh("tg")
    made = lb.group(name)
    arn = made["TargetGroupArn"]
    assert f":targetgroup/{name}/" in arn
    wanted = {
        "Protocol": "HTTP", "ProtocolVersion": "HTTP1", "Port": 80, "VpcId": lb.vpc, "TargetType": "ip",
        "IpAddressType": "ipv4", "LoadBalancerArns": [], "HealthCheckEnabled": True, "HealthCheckProtocol": "HTTP",
        "HealthCheckPort": "traffic-port", "HealthCheckPath": "/", "HealthCheckIntervalSeconds": 30,
        "HealthCheckTimeoutSeconds": 5, "HealthyThresholdCount": 5, "UnhealthyThresholdCount": 2,
        "Matcher": {"HttpCode": "200"},
    }  # fmt: skip
    assert wanted.items() <= made.items()
    assert lb.group(name)["TargetGroupArn"] == arn
    with refused("DuplicateTargetGroupName", f"'{name}' exists, but with different settings"):
        lb.group(name, Port=81)
    changes = {"HealthCheckPath": "/up", "Matcher": {"HttpCode": "200-299,404"}, "HealthCheckIntervalSeconds": 10}
    changed = lb.elb.modify_target_group(TargetGroupArn=arn, **changes)["TargetGroups"][0]
    assert (wanted | changes).items() <= changed.items()
    assert lb.elb.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"] == [changed]
    assert lb.elb.describe_target_groups(Names=[name])["TargetGroups"] == [changed]
    lb.group()
    pages = lb.elb.get_paginator("describe_target_groups").paginate(PaginationConfig={"PageSize": 1})
    assert [changed] in [page["TargetGroups"] for page in pages]
    balancer = lb.balancer()
    listener = lb.listener(balancer, lb.forward(made))
    of_balancer = lb.elb.describe_target_groups(LoadBalancerArn=balancer["LoadBalancerArn"])["TargetGroups"]
    assert [g["TargetGroupArn"] for g in of_balancer] == [arn]
    assert of_balancer[0]["LoadBalancerArns"] == [balancer["LoadBalancerArn"]]
    with refused("ResourceInUse", "is currently in use by a listener or a rule"):
        lb.elb.delete_target_group(TargetGroupArn=arn)
    lb.elb.delete_listener(ListenerArn=listener["ListenerArn"])
    lb.elb.delete_target_group(TargetGroupArn=arn)
    lb.elb.delete_target_group(TargetGroupArn=arn)
    with refused("TargetGroupNotFound", "One or more target groups not found"):
        lb.elb.describe_target_groups(TargetGroupArns=[arn])
    with refused("TargetGroupNotFound"):
        lb.elb.describe_target_groups(Names=[name])


def test_target_groups_that_cannot_be(lb):
    with refused("ValidationError", "set TargetType to ip"):
        lb.elb.create_target_group(Name=fresh(), Protocol="HTTP", Port=80, VpcId=lb.vpc)
    for more, says in [
        ({"TargetType": "instance"}, "there are no instances on Fargate"),
        ({"TargetType": "lambda"}, "use ip"),
        ({"Protocol": "GENEVE"}, "only HTTP, HTTPS, TCP, TLS, UDP and TCP_UDP are built"),
        ({"ProtocolVersion": "HTTP3"}, "must be one of 'GRPC, HTTP1, HTTP2'"),
        ({"VpcId": "vpc-nothing"}, "The VPC ID 'vpc-nothing' is not found"),
        ({"HealthCheckEnabled": False}, "Health check enabled must be true for target groups with target type 'ip'"),
        ({"HealthCheckIntervalSeconds": 5}, "Health check interval must be greater than the timeout."),
        ({"HealthCheckIntervalSeconds": 301}, "less than or equal to 300"),
        ({"HealthCheckPath": "up"}, "begins with '/'"),
        ({"HealthCheckProtocol": "TCP"}, "must be one of 'HTTP, HTTPS'"),
        ({"Matcher": {"HttpCode": "500"}}, "must be within '200-499' inclusive"),
        ({"Matcher": {"GrpcCode": "0"}}, "protocol version 'GRPC' only"),
        ({"IpAddressType": "ipv6"}, "IPv6 is not built"),
    ]:
        with refused("ValidationError", says):
            lb.group(**more)


def test_attributes_of_target_groups(lb):
    arn = lb.group()["TargetGroupArn"]

    def modify(arn, key, value):
        pairs = [{"Key": key, "Value": value}]
        return plain(lb.elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=pairs)["Attributes"])

    before = plain(lb.elb.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"])
    assert before["deregistration_delay.timeout_seconds"] == "300" and before["stickiness.type"] == "lb_cookie"
    for key, value in [
        ("deregistration_delay.timeout_seconds", "0"),
        ("stickiness.enabled", "true"),
        ("stickiness.lb_cookie.duration_seconds", "60"),
        ("load_balancing.algorithm.type", "least_outstanding_requests"),
        ("slow_start.duration_seconds", "0"),
    ]:
        before[key] = value
        assert modify(arn, key, value) == before
    for key, value, says in [
        ("stickiness.type", "app_cookie", "not built yet"),
        ("load_balancing.algorithm.type", "weighted_random", "not built yet"),
        ("slow_start.duration_seconds", "29", "must be '0' or between '30' and '900'"),
        ("deregistration_delay.timeout_seconds", "3601", "between '0' and '3600'"),
        ("proxy_protocol_v2.enabled", "true", "is not recognized"),
    ]:
        with refused("ValidationError", says):
            modify(arn, key, value)
    with refused("InvalidConfigurationRequest", "Slow start"):
        modify(arn, "slow_start.duration_seconds", "30")
    modify(arn, "load_balancing.algorithm.type", "round_robin")
    assert modify(arn, "slow_start.duration_seconds", "900")["slow_start.duration_seconds"] == "900"
    arn = lb.group(Protocol="TCP")["TargetGroupArn"]
    assert modify(arn, "proxy_protocol_v2.enabled", "true")["stickiness.type"] == "source_ip"
    with refused("ValidationError", "Neargate does not support"):
        modify(arn, "preserve_client_ip.enabled", "true")


def test_listeners(lb):
    balancer, group = lb.balancer(), lb.group()
    arn = group["TargetGroupArn"]
    made = lb.listener(balancer, lb.forward(group))
    assert made["LoadBalancerArn"] == balancer["LoadBalancerArn"] and made["Port"] == 80
    wanted = {
        "TargetGroups": [{"TargetGroupArn": arn, "Weight": 1}],
        "TargetGroupStickinessConfig": {"Enabled": False},
    }
    assert made["DefaultActions"] == [{"Type": "forward", "TargetGroupArn": arn, "ForwardConfig": wanted}]
    assert lb.listener(balancer, lb.forward(group)) == made
    with refused("DuplicateListener", "A listener already exists on this port for this load balancer"):
        lb.listener(balancer, FIXED)
    second = lb.listener(balancer, FIXED, port=81)
    of_balancer = lb.elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    assert of_balancer == [made, second]
    page = lb.elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"], PageSize=1)
    rest = lb.elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"], Marker=page["NextMarker"])
    assert page["Listeners"] + rest["Listeners"] == of_balancer and "NextMarker" not in rest
    with refused("DuplicateListener"):
        lb.elb.modify_listener(ListenerArn=second["ListenerArn"], Port=80)
    redirect = [{"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}}]
    changes = {"Port": 82, "DefaultActions": redirect}
    changed = lb.elb.modify_listener(ListenerArn=second["ListenerArn"], **changes)["Listeners"][0]
    config = changed["DefaultActions"][0]["RedirectConfig"]
    assert changed["Port"] == 82 and config["Path"] == "/#{path}" and config["Host"] == "#{host}"
    assert lb.elb.describe_listeners(ListenerArns=[second["ListenerArn"]])["Listeners"] == [changed]
    here = [{"Type": "redirect", "RedirectConfig": {"Port": "83", "StatusCode": "HTTP_301"}}]
    lb.elb.modify_listener(ListenerArn=second["ListenerArn"], DefaultActions=here)
    with refused("InvalidLoadBalancerAction", "loop"):
        lb.elb.modify_listener(ListenerArn=second["ListenerArn"], Port=83)
    lb.elb.delete_listener(ListenerArn=second["ListenerArn"])
    with refused("ListenerNotFound"):
        lb.elb.delete_listener(ListenerArn=second["ListenerArn"])
    with refused("ValidationError", "You must specify either listener ARNs or a load balancer ARN"):
        lb.elb.describe_listeners()


def test_listeners_that_cannot_be(lb):
    balancer, group = lb.balancer(), lb.group()
    loop = [{"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_302"}}]
    oidc = {"Issuer": "i", "AuthorizationEndpoint": "a", "TokenEndpoint": "t", "UserInfoEndpoint": "u", "ClientId": "c"}
    nothing = group["TargetGroupArn"][:-4] + "zzzz"
    html = {"StatusCode": "200", "ContentType": "text/markdown"}
    for actions, code, says in [
        (loop, "InvalidLoadBalancerAction", "loop"),
        (FIXED * 2, "InvalidLoadBalancerAction", "Only one"),
        ([{"Type": "forward"}], "ValidationError", ""),
        ([{"Type": "authenticate-oidc", "AuthenticateOidcConfig": oidc}] + FIXED, "ValidationError", "not built yet"),
        ([{"Type": "forward", "TargetGroupArn": nothing}], "TargetGroupNotFound", "Target groups '"),
        ([{"Type": "fixed-response", "FixedResponseConfig": html}], "ValidationError", "text/markdown"),
        ([{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "302"}}], "ValidationError", ""),
        (lb.forward(lb.group(Protocol="TCP")), "IncompatibleProtocols", "protocols: 'HTTP' and 'TCP'"),
    ]:
        with refused(code, says):
            lb.listener(balancer, actions)
    with refused("ValidationError", "A certificate must be specified for HTTPS listeners"):
        lb.listener(balancer, FIXED, port=443, protocol="HTTPS")
    with refused("ValidationError", "Listener protocol 'TCP' must be one of 'HTTPS, HTTP'"):
        lb.listener(balancer, FIXED, protocol="TCP")
    with refused("LoadBalancerNotFound"):
        lb.listener({"LoadBalancerArn": balancer["LoadBalancerArn"][:-4] + "zzzz"}, FIXED)
    lb.listener(balancer, lb.forward(group))
    with refused("TargetGroupAssociationLimit", "cannot be associated with more than one load balancer"):
        lb.listener(lb.balancer(), lb.forward(group))


def test_network_load_balancers(lb):
    mappings = [{"SubnetId": lb.subnets[0]}]
    balancer = lb.elb.create_load_balancer(
        Name=fresh("net"), Type="network", Scheme="internal", SubnetMappings=mappings
    )["LoadBalancers"][0]
    lb.balancers.append(balancer["LoadBalancerArn"])
    assert ":loadbalancer/net/" in balancer["LoadBalancerArn"] and balancer["DNSName"].startswith("internal-net-")
    attributes = lb.elb.describe_load_balancer_attributes(LoadBalancerArn=balancer["LoadBalancerArn"])["Attributes"]
    assert plain(attributes)["load_balancing.cross_zone.enabled"] == "false"
    assert "idle_timeout.timeout_seconds" not in plain(attributes)
    group = lb.group(Protocol="TCP", Port=5432)
    assert group["HealthCheckProtocol"] == "TCP" and group["HealthCheckTimeoutSeconds"] == 10
    assert "HealthCheckPath" not in group and "Matcher" not in group and "ProtocolVersion" not in group
    listener = lb.listener(balancer, lb.forward(group), port=5432, protocol="TCP")
    with refused("InvalidLoadBalancerAction"):
        lb.listener(balancer, FIXED, port=81, protocol="TCP")
    with refused("ValidationError", "A certificate must be specified for TLS listeners"):
        lb.listener(balancer, lb.forward(group), port=81, protocol="TLS")
    with refused("ValidationError", "QUIC is not built"):
        lb.listener(balancer, lb.forward(group), port=81, protocol="QUIC")
    with refused("IncompatibleProtocols", "'UDP' and 'TCP'"):
        lb.listener(balancer, lb.forward(group), port=81, protocol="UDP")
    with refused("UnsupportedProtocol"):
        lb.elb.create_rule(ListenerArn=listener["ListenerArn"], Priority=1, Conditions=path("/"), Actions=FIXED)


def test_rules(lb):
    balancer, group = lb.balancer(), lb.group()
    listener = lb.listener(balancer, FIXED)["ListenerArn"]

    def create(priority, conditions, actions=FIXED):
        given = {"ListenerArn": listener, "Priority": priority, "Conditions": conditions, "Actions": actions}
        return lb.elb.create_rule(**given)["Rules"][0]

    def described():
        return lb.elb.describe_rules(ListenerArn=listener)["Rules"]

    [default] = described()
    assert default["IsDefault"] and default["Priority"] == "default" and default["Conditions"] == []
    assert default["Actions"] == FIXED and ":listener-rule/app/" in default["RuleArn"]
    every = [
        {"Field": "host-header", "HostHeaderConfig": {"Values": ["*.example.com"]}},
        {"Field": "http-header", "HttpHeaderConfig": {"HttpHeaderName": "X-A", "Values": ["a*"]}},
        {"Field": "http-request-method", "HttpRequestMethodConfig": {"Values": ["POST"]}},
        {"Field": "query-string", "QueryStringConfig": {"Values": [{"Key": "k", "Value": "v"}]}},
        {"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.0/8"]}},
    ]
    first = create(10, path("/a/*"), lb.forward(group))
    second = create(20, every)
    both = {"Field": "path-pattern", "Values": ["/a/*"], "PathPatternConfig": {"Values": ["/a/*"]}}
    assert first["Conditions"] == [both] and first["Priority"] == "10" and not first["IsDefault"]
    assert second["Conditions"] == [{**every[0], "Values": ["*.example.com"]}, *every[1:]]
    assert described() == [first, second, default]
    page = lb.elb.describe_rules(ListenerArn=listener, PageSize=2)
    rest = lb.elb.describe_rules(ListenerArn=listener, Marker=page["NextMarker"])
    assert page["Rules"] + rest["Rules"] == [first, second, default]
    of_group = lb.elb.describe_target_groups(TargetGroupArns=[group["TargetGroupArn"]])["TargetGroups"][0]
    assert of_group["LoadBalancerArns"] == [balancer["LoadBalancerArn"]]
    with refused("PriorityInUse", "Priority '10' is currently in use"):
        create(10, path("/b"))
    # Rules change places in one step.
    pairs = [
        {"RuleArn": first["RuleArn"], "Priority": 20},
        {"RuleArn": second["RuleArn"], "Priority": 10},
    ]
    answer = lb.elb.set_rule_priorities(RulePriorities=pairs)["Rules"]
    assert {r["RuleArn"]: r["Priority"] for r in answer} == {first["RuleArn"]: "20", second["RuleArn"]: "10"}
    assert [r["RuleArn"] for r in described()] == [second["RuleArn"], first["RuleArn"], default["RuleArn"]]
    with refused("PriorityInUse"):
        lb.elb.set_rule_priorities(RulePriorities=[{"RuleArn": first["RuleArn"], "Priority": 10}])
    with refused("OperationNotPermitted"):
        lb.elb.set_rule_priorities(RulePriorities=[{"RuleArn": default["RuleArn"], "Priority": 1}])
    changed = lb.elb.modify_rule(RuleArn=first["RuleArn"], Conditions=path("/c"), Actions=FIXED)["Rules"][0]
    assert changed["Conditions"][0]["Values"] == ["/c"] and changed["Actions"] == FIXED
    assert lb.elb.describe_rules(RuleArns=[first["RuleArn"]])["Rules"] == [changed]
    lb.elb.modify_rule(RuleArn=default["RuleArn"], Actions=lb.forward(group))
    [now] = lb.elb.describe_rules(RuleArns=[default["RuleArn"]])["Rules"]
    assert now["Actions"][0]["TargetGroupArn"] == group["TargetGroupArn"] and now["IsDefault"]
    with refused("OperationNotPermitted", "cannot be deleted"):
        lb.elb.delete_rule(RuleArn=default["RuleArn"])
    lb.elb.delete_rule(RuleArn=first["RuleArn"])
    with refused("RuleNotFound"):
        lb.elb.delete_rule(RuleArn=first["RuleArn"])


def test_rules_that_cannot_be(lb):
    listener = lb.listener(lb.balancer(), FIXED)["ListenerArn"]
    twice = path("/a") + path("/b")
    regex = [{"Field": "path-pattern", "RegexValues": ["^/a"]}]
    for conditions, says in [
        ([], "condition"),
        ([{"Values": ["/a"]}], "A condition field must be specified"),
        ([{"Field": "cookie", "Values": ["a"]}], "Condition field 'cookie' must be one of"),
        (path("/a", "/b", "/c", "/d", "/e", "/f"), "A rule can only have '5' condition values"),
        (twice, "only once"),
        (path("/" + "x" * 128), "'128' characters"),
        (regex, "regular expressions are not built yet"),
        ([{"Field": "source-ip", "SourceIpConfig": {"Values": ["10.0.0.1"]}}], "CIDR"),
    ]:
        with refused("ValidationError", says):
            lb.elb.create_rule(ListenerArn=listener, Priority=1, Conditions=conditions, Actions=FIXED)
    with refused("ValidationError", "transforms are not built yet"):
        lb.elb.create_rule(
            ListenerArn=listener,
            Priority=1,
            Conditions=path("/a"),
            Actions=FIXED,
            Transforms=[{"Type": "url-rewrite", "UrlRewriteConfig": {"Rewrites": [{"Regex": "a", "Replace": "b"}]}}],
        )
    with refused("ValidationError", "50000"):
        lb.elb.create_rule(ListenerArn=listener, Priority=50001, Conditions=path("/a"), Actions=FIXED)


def test_targets(lb):
    group = lb.group()
    arn = group["TargetGroupArn"]
    ip = "172.31.0.200"
    lb.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": ip}, {"Id": ip, "Port": 8080}])
    [first, second] = lb.health(group)
    assert first["Target"] == {"Id": ip, "Port": 80, "AvailabilityZone": lb.zones[0]}
    assert (first["HealthCheckPort"], second["HealthCheckPort"]) == ("80", "8080")
    unused = {"State": "unused", "Reason": "Target.NotInUse"}
    assert unused.items() <= first["TargetHealth"].items()
    [absent] = lb.health(group, {"Id": "172.31.0.201"})
    assert {"State": "unused", "Reason": "Target.NotRegistered"}.items() <= absent["TargetHealth"].items()
    # While no load balancer sends to the group there is nothing to drain.
    lb.elb.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": ip, "Port": 8080}])
    assert [d["Target"]["Port"] for d in lb.health(group)] == [80]
    lb.elb.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": "172.31.0.250"}])
    lb.listener(lb.balancer(), lb.forward(group))
    assert lb.health(group)[0]["TargetHealth"]["State"] in ("initial", "unhealthy")
    lb.elb.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": ip}])
    draining = {"State": "draining", "Reason": "Target.DeregistrationInProgress"}
    # It may be gone before it is looked at: nothing is in flight.
    if left := lb.health(group):
        assert draining.items() <= left[0]["TargetHealth"].items()
    lb.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": ip, "AvailabilityZone": lb.zones[0]}])
    assert lb.health(group)[0]["TargetHealth"]["State"] in ("initial", "unhealthy")


def test_targets_that_cannot_be(lb):
    group = lb.group()
    arn = group["TargetGroupArn"]

    def register(**target):
        lb.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": "172.31.0.200"}, target])

    with refused("ValidationError", "'10.9.9.9' because it is not in the VPC"):
        register(Id="10.9.9.9")
    with refused("InvalidTarget", "10.9.9.9"):
        register(Id="10.9.9.9", AvailabilityZone="all")
    with refused("ValidationError", "overridden to 'all'"):
        register(Id="172.31.0.201", AvailabilityZone="all")
    with refused("ValidationError", "is not a valid IPv4 address"):
        register(Id="i-0123456789")
    with refused("ValidationError", "65535"):
        register(Id="172.31.0.201", Port=65536)
    with refused("TargetGroupNotFound"):
        lb.elb.register_targets(TargetGroupArn=arn[:-4] + "zzzz", Targets=[{"Id": "172.31.0.200"}])
    assert lb.health(group) == [], "a refused call registers nothing"


def test_tags(lb):
    balancer, group = lb.balancer(Tags=[{"Key": "a", "Value": "1"}]), lb.group()
    listener = lb.listener(balancer, FIXED)["ListenerArn"]
    rule = lb.elb.create_rule(ListenerArn=listener, Priority=1, Conditions=path("/a"), Actions=FIXED)["Rules"][0]
    arns = [balancer["LoadBalancerArn"], group["TargetGroupArn"], listener, rule["RuleArn"]]
    lb.elb.add_tags(ResourceArns=arns, Tags=[{"Key": "b", "Value": "2"}, {"Key": "c"}])

    def described():
        answer = lb.elb.describe_tags(ResourceArns=arns)["TagDescriptions"]
        return {d["ResourceArn"]: {tag["Key"]: tag.get("Value", "") for tag in d["Tags"]} for d in answer}

    added = {"b": "2", "c": ""}
    assert described() == {arns[0]: {"a": "1"} | added} | {arn: added for arn in arns[1:]}
    lb.elb.remove_tags(ResourceArns=arns, TagKeys=["b", "c", "d"])
    assert described() == {arns[0]: {"a": "1"}} | {arn: {} for arn in arns[1:]}
    with refused("ValidationError", "aws:"):
        lb.elb.add_tags(ResourceArns=arns, Tags=[{"Key": "aws:x"}])
    with refused("DuplicateTagKeys"):
        lb.elb.add_tags(ResourceArns=arns, Tags=[{"Key": "x"}, {"Key": "x"}])
    with refused("TooManyTags"):
        lb.elb.add_tags(ResourceArns=arns, Tags=[{"Key": str(n)} for n in range(51)])
    with refused("LoadBalancerNotFound"):
        lb.elb.describe_tags(ResourceArns=[arns[0][:-4] + "zzzz"])
    with refused("ValidationError"):
        lb.elb.describe_tags(ResourceArns=["nonsense"])


def test_policies_decide(neargate, lb):
    iam, name = neargate.client("iam"), fresh("eve")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    eve = neargate.client(
        "elbv2", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
    )
    arn = lb.balancer()["LoadBalancerArn"]
    with refused("AccessDenied", "elasticloadbalancing:DeleteLoadBalancer"):
        eve.delete_load_balancer(LoadBalancerArn=arn)
    statement = {"Effect": "Allow", "Action": "elasticloadbalancing:Describe*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    assert eve.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
    with refused("AccessDenied"):
        eve.delete_load_balancer(LoadBalancerArn=arn)
