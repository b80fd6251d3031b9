"""Access logs of load balancers, delivered to a bucket as on AWS; and what `neargate status` tells of traffic."""

import gzip
import json
import shlex

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, Stack, eventually, push
from test_service_balanced import LISTENER, Balanced, fetch

# AWS writes a file every five minutes; here that is every three seconds.
SCALE = "0.01"


@pytest.fixture(scope="module")
def balanced(tmp_path_factory, neargate):
    """A Neargate whose waiting times are short."""
    plane = Neargate(tmp_path_factory.mktemp("logged") / "data", PORT + 12).start(NEARGATE_TIME_SCALE=SCALE)
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "logged")
    yield Balanced(stack)
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


def letting(principal, bucket):
    statement = {"Effect": "Allow", "Principal": principal, "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_requests_are_in_the_bucket(balanced):
    elb, s3 = balanced.elb, balanced.stack.neargate.client("s3")
    balancer, group = balanced.balancer("logged"), balanced.group("logged")
    balanced.listener(balancer, group)
    arn, bucket = balancer["LoadBalancerArn"], "access-logs-of-tests"

    def enable(**more):
        wanted = {"enabled": "true", "bucket": bucket, "prefix": "web", **more}
        attributes = [{"Key": f"access_logs.s3.{key}", "Value": value} for key, value in wanted.items()]
        return elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=attributes)

    def refused(words, **more):
        with pytest.raises(ClientError, match=words) as error:
            enable(**more)
        assert error.value.response["Error"]["Code"] == "InvalidConfigurationRequest"

    refused("NoSuchBucket")
    s3.create_bucket(Bucket=bucket)
    refused("Please check S3bucket permission")
    s3.put_bucket_policy(Bucket=bucket, Policy=letting({"Service": "delivery.example.com"}, bucket))
    refused("AccessDenied")
    refused("must be specified", bucket="")
    refused("is not valid", prefix="a/AWSLogs")
    s3.put_bucket_policy(Bucket=bucket, Policy=letting({"AWS": "arn:aws:iam::127311923021:root"}, bucket))
    enable()
    s3.put_bucket_policy(Bucket=bucket, Policy=letting({"Service": "logdelivery.elasticloadbalancing.amazonaws.com"}, bucket))
    enable()
    told = {each["Key"]: each["Value"] for each in elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]}
    assert (told["access_logs.s3.enabled"], told["access_logs.s3.bucket"], told["access_logs.s3.prefix"]) == ("true", bucket, "web")
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Key"] == "web/AWSLogs/123456789012/ELBAccessLogTestFile"
    balanced.service("logged", balanced.page("logged"), 1, group)
    balanced.steady("logged")
    url = f"http://{balancer['DNSName']}:{LISTENER}"
    eventually(lambda: fetch(f"{url}/?first") == "logged", "it answers")

    def lines():
        found = []
        for each in s3.list_objects_v2(Bucket=bucket)["Contents"]:
            if each["Key"].endswith(".log.gz"):
                content = s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
                found += [(each["Key"], shlex.split(line)) for line in gzip.decompress(content).decode().splitlines()]
        return found

    for number in range(20):
        assert fetch(f"{url}/?number={number}") == "logged"
    # The data plane goes on while the control plane is dead.
    balanced.stack.neargate.kill()
    for number in range(20, 40):
        assert fetch(f"{url}/?number={number}") == "logged"
    balanced.stack.neargate.start(NEARGATE_TIME_SCALE=SCALE)
    numbered = lambda: sorted(int(words[12].split("number=")[1].split()[0]) for _, words in lines() if "number=" in words[12])
    assert eventually(lambda: len(numbered()) >= 40 and numbered(), "all are there") == list(range(40))
    key, words = next((key, words) for key, words in lines() if "number=7 " in words[12])
    name = "/".join(arn.split("/")[1:])
    at = "web/AWSLogs/123456789012/elasticloadbalancing/us-east-1/"
    assert key.startswith(at) and f"/123456789012_elasticloadbalancing_us-east-1_{name.replace('/', '.')}_2" in key, key
    assert words[0] == "http" and words[2] == name and words[8] == words[9] == "200" and words[16] == group, words
    assert words[12] == f"GET {url}/?number=7 HTTP/1.1" and words[13].startswith("Python-urllib/"), words
    assert words[20] == "0" and words[22] == "forward" and words[25] == words[4] and words[26] == "200", words

    status = balanced.stack.neargate.cli("status").stdout
    assert "2xx" in status and "half in" in status and "requests" in status, status
    balanced.clear("logged", balancer, group)
