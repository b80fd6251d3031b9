"""Networks as clients see them."""

import pytest
from botocore.exceptions import ClientError


def test_the_default_vpc(neargate):
    ec2 = neargate.client("ec2", region="ap-southeast-2")
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
    assert [subnet["AvailabilityZone"][-1] for subnet in sorted(subnets, key=lambda s: s["CidrBlock"])] == ["a", "b", "c"]
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    assert {zone["ZoneName"] for zone in zones} == {subnet["AvailabilityZone"] for subnet in subnets}
    with pytest.raises(ClientError) as missing:
        ec2.describe_subnets(SubnetIds=["subnet-0"])
    assert missing.value.response["Error"]["Code"] == "InvalidSubnetID.NotFound"


def test_security_groups_and_their_rules(neargate):
    ec2 = neargate.client("ec2", region="ap-southeast-2")
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    with pytest.raises(ClientError) as twice:
        ec2.create_security_group(GroupName="g", Description="d")
    assert twice.value.response["Error"]["Code"] == "InvalidGroup.Duplicate"
    rule = dict(IpProtocol="tcp", FromPort=80, ToPort=81, IpRanges=[{"CidrIp": "10.0.0.0/8", "Description": "in"}])
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])["SecurityGroupRules"]
    with pytest.raises(ClientError) as twice:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    assert twice.value.response["Error"]["Code"] == "InvalidPermission.Duplicate"
    found = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert found["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "10.0.0.0/8", "Description": "in"}]
    assert found["IpPermissionsEgress"][0]["IpProtocol"] == "-1"
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])["SecurityGroupRules"]
    assert {rule["IsEgress"] for rule in rules} == {True, False}
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[made[0]["SecurityGroupRuleId"]])
    ec2.authorize_security_group_egress(
        GroupId=group, IpPermissions=[dict(IpProtocol="udp", FromPort=53, ToPort=53, IpRanges=[{"CidrIp": "0.0.0.0/0"}])]
    )
    ec2.revoke_security_group_egress(
        GroupId=group, IpPermissions=[dict(IpProtocol="-1", IpRanges=[{"CidrIp": "0.0.0.0/0"}])]
    )
    found = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert found["IpPermissions"] == [] and found["IpPermissionsEgress"][0]["IpProtocol"] == "udp"
    with pytest.raises(ClientError) as bad:
        ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=1, ToPort=1, CidrIp="10.0.0.0/99")
    assert bad.value.response["Error"]["Code"] == "InvalidParameterValue"
    with pytest.raises(ClientError) as dry:
        ec2.delete_security_group(GroupId=group, DryRun=True)
    assert dry.value.response["Error"]["Code"] == "DryRunOperation"
    ec2.delete_security_group(GroupId=group)
