"""Who may come in, and what they may."""

import datetime
import json
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from conftest import TRUST


def code(error):
    return error.value.response["Error"]["Code"]


def allow(*actions, effect="Allow", **more):
    statement = {"Effect": effect, "Action": list(actions), "Resource": "*", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_the_cli_signs_in(neargate):
    identity = json.loads(neargate.aws("sts", "get-caller-identity").stdout)
    assert identity["Account"] == "123456789012"
    assert identity["Arn"] == "arn:aws:iam::123456789012:user/admin"


def test_env_writes_a_profile(neargate, tmp_path):
    import os, subprocess

    files = {"AWS_CONFIG_FILE": tmp_path / "config", "AWS_SHARED_CREDENTIALS_FILE": tmp_path / "credentials"}
    files["AWS_CONFIG_FILE"].write_text("[default]\nregion = eu-west-1\n")
    environment = {**os.environ, **{k: str(v) for k, v in files.items()}}
    neargate.cli("env", "--profile", "near", env=environment)
    neargate.cli("env", "--profile", "near", env=environment)
    config = files["AWS_CONFIG_FILE"].read_text()
    assert config.count("[profile near]") == 1 and "eu-west-1" in config
    environment.pop("AWS_CA_BUNDLE", None)
    from conftest import ROOT

    aws = ROOT / ".venv" / "bin" / "aws"
    answer = subprocess.run(
        [aws, "--profile", "near", "sts", "get-caller-identity"], env=environment, capture_output=True, text=True
    )
    assert "user/admin" in answer.stdout, answer.stderr


def test_a_user_may_what_its_policies_say(neargate):
    iam = neargate.client("iam")
    iam.create_user(UserName="ann")
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    ann = dict(aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    ecs = neargate.client("ecs", **ann)
    with pytest.raises(ClientError) as denied:
        ecs.list_clusters()
    assert code(denied) == "AccessDeniedException"
    assert "no identity-based policy allows the ecs:ListClusters action" in str(denied.value)
    iam.put_user_policy(UserName="ann", PolicyName="p", PolicyDocument=allow("ecs:List*"))
    ecs.list_clusters()
    iam.put_user_policy(UserName="ann", PolicyName="q", PolicyDocument=allow("ecs:ListClusters", effect="Deny"))
    with pytest.raises(ClientError) as denied:
        ecs.list_clusters()
    assert "explicit deny" in str(denied.value)
    iam.update_access_key(UserName="ann", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    with pytest.raises(ClientError) as unknown:
        ecs.list_clusters()
    assert code(unknown) == "UnrecognizedClientException"
    with pytest.raises(ClientError) as conflict:
        iam.delete_user(UserName="ann")
    assert code(conflict) == "DeleteConflict"


def test_conditions_hold(neargate):
    iam = neargate.client("iam")
    iam.create_user(UserName="bob")
    key = iam.create_access_key(UserName="bob")["AccessKey"]
    bob = dict(aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    condition = {"StringEquals": {"aws:RequestedRegion": "us-east-1"}, "IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}
    iam.put_user_policy(UserName="bob", PolicyName="p", PolicyDocument=allow("ecs:*", Condition=condition))
    neargate.client("ecs", **bob).list_clusters()
    with pytest.raises(ClientError):
        neargate.client("ecs", region="eu-west-1", **bob).list_clusters()


def test_roles_are_assumed_and_narrowed(neargate):
    iam, sts = neargate.client("iam"), neargate.client("sts")
    trust = {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=allow("ecs:*", "logs:*"))

    def session(**more):
        credentials = sts.assume_role(RoleArn=arn, RoleSessionName="ss", **more)["Credentials"]
        return dict(
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        )

    whole = session()
    who = neargate.client("sts", **whole).get_caller_identity()
    assert who["Arn"] == "arn:aws:sts::123456789012:assumed-role/reader/ss"
    neargate.client("logs", **whole).describe_log_groups()
    narrow = session(Policy=allow("ecs:*"))
    neargate.client("ecs", **narrow).list_clusters()
    with pytest.raises(ClientError) as denied:
        neargate.client("logs", **narrow).describe_log_groups()
    assert "no session policy allows" in str(denied.value)
    forged = {**whole, "aws_session_token": whole["aws_session_token"][:-6] + "AAAAAA"}
    with pytest.raises(ClientError) as unknown:
        neargate.client("sts", **forged).get_caller_identity()
    assert code(unknown) == "InvalidClientTokenId"


def test_accounts_and_regions_are_separate_worlds(neargate):
    neargate.client("ecs").create_cluster(clusterName="mine")
    other = neargate.client("ecs", account="210987654321").list_clusters()["clusterArns"]
    elsewhere = neargate.client("ecs", region="eu-central-1").list_clusters()["clusterArns"]
    assert not [arn for arn in other + elsewhere if "mine" in arn]
    vpcs = [
        neargate.client("ec2", region=region, account=account).describe_vpcs()["Vpcs"][0]
        for region, account in [("us-east-1", None), ("eu-central-1", None), ("us-east-1", "210987654321")]
    ]
    assert len({vpc["VpcId"] for vpc in vpcs}) == 3
    assert {vpc["CidrBlock"] for vpc in vpcs} == {"172.31.0.0/16"}


def post(neargate, body=b"{}", **headers):
    request = urllib.request.Request(f"http://{neargate.listen}/", data=body, headers=headers, method="POST")
    try:
        return urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        return error


def test_unsigned_requests_are_refused_in_the_right_shape(neargate):
    json_type = {"Content-Type": "application/x-amz-json-1.1"}
    target = {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}
    answer = post(neargate, **json_type, **target)
    assert answer.status == 400 and answer.headers["x-amzn-RequestId"]
    assert json.loads(answer.read())["__type"] == "MissingAuthenticationTokenException"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = post(neargate, b"Action=GetCallerIdentity&Version=2011-06-15", **form)
    assert answer.status == 403 and b"<Code>MissingAuthenticationToken</Code>" in answer.read()


@pytest.mark.parametrize("minutes", [-16, 16])
def test_clocks_may_differ_by_fifteen_minutes(neargate, minutes, monkeypatch):
    import botocore.auth

    real = datetime.datetime

    class Skewed(real):
        @classmethod
        def utcnow(cls):
            return real.utcnow() + datetime.timedelta(minutes=minutes)

        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(minutes=minutes)

    ecs = neargate.client("ecs")
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: Skewed.utcnow(), raising=False)
    with pytest.raises(ClientError) as late:
        ecs.list_clusters()
    assert code(late) == "InvalidSignatureException"


def test_malformed_bodies_and_unknown_operations(neargate):
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    env = neargate.env()
    credentials = Credentials(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])

    def signed(body, target):
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
        request = AWSRequest("POST", f"http://{neargate.listen}/", headers=headers, data=body)
        SigV4Auth(credentials, "ecs", "us-east-1").add_auth(request)
        answer = post(neargate, body, **dict(request.headers))
        return answer.status, json.loads(answer.read())

    prefix = "AmazonEC2ContainerServiceV20141113."
    for body in [b"{", b"[]", b'{"maxResults": "many"}', b"\xff\xfe", b'{"a":' * 500]:
        status, answer = signed(body, prefix + "ListClusters")
        assert (status, answer["__type"]) == (400, "SerializationException"), body
    status, answer = signed(b"{}", prefix + "SubmitTaskStateChange")
    assert (status, answer["__type"]) == (400, "UnknownOperationException")
    assert "does not implement ecs:SubmitTaskStateChange" in answer["message"]


def test_instance_profiles_hold_a_role(neargate):
    iam = neargate.client("iam")
    for name in ["profiled", "other"]:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    made = iam.create_instance_profile(InstanceProfileName="profile", Path="/p/", Tags=[{"Key": "a", "Value": "b"}])["InstanceProfile"]
    assert made["Arn"].endswith(":instance-profile/p/profile") and made["InstanceProfileId"].startswith("AIPA") and made["Roles"] == []
    with pytest.raises(iam.exceptions.EntityAlreadyExistsException):
        iam.create_instance_profile(InstanceProfileName="Profile")
    iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="profiled")
    with pytest.raises(iam.exceptions.LimitExceededException):
        iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="other")
    assert [role["RoleName"] for role in iam.get_instance_profile(InstanceProfileName="profile")["InstanceProfile"]["Roles"]] == ["profiled"]
    assert [p["InstanceProfileName"] for p in iam.list_instance_profiles(PathPrefix="/p/")["InstanceProfiles"]] == ["profile"]
    of_role = lambda role: [p["InstanceProfileName"] for p in iam.list_instance_profiles_for_role(RoleName=role)["InstanceProfiles"]]
    assert of_role("profiled") == ["profile"] and of_role("other") == []
    for refused in [lambda: iam.delete_role(RoleName="profiled"), lambda: iam.delete_instance_profile(InstanceProfileName="profile")]:
        with pytest.raises(iam.exceptions.DeleteConflictException):
            refused()
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.remove_role_from_instance_profile(InstanceProfileName="profile", RoleName="other")
    iam.remove_role_from_instance_profile(InstanceProfileName="profile", RoleName="profiled")
    iam.delete_instance_profile(InstanceProfileName="profile")
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.get_instance_profile(InstanceProfileName="profile")
    for name in ["profiled", "other"]:
        iam.delete_role(RoleName=name)
