"""Stacks of parameters made, changed, deleted and planned, and the web-service pattern until its page is there, beside moto.

usage: bench/stacks.py NEARGATE   (needs root, moto in the environment, busybox, buildah and skopeo)

A service of moto's runs nothing, so the page has no peer here; docker's way to one is in bench/services.py. moto makes a stack within CreateStack, in memory; Neargate writes each step of each resource to disk before it goes on, so that a
crash loses none, and calls the services' own operations as the caller. Both are asked until the stack says that it is complete.
"""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from peer import OURS, QUIET, THEIRS, beside_moto

NEARGATE = Path(sys.argv[1]).resolve()
COUNT = 200


def body(value, chained):
    """Parameters that refer to nothing, or each to the one before."""
    # moto wants names.
    parameter = lambda index, text: {"Type": "AWS::SSM::Parameter", "Properties": {"Name": f"/{chained}/{index}", "Type": "String", "Value": text}}
    text = lambda index: {"Fn::Sub": f"${{P{index - 1}}} {value}"} if chained and index else f"{value} {index}"
    return json.dumps({"Resources": {f"P{index}": parameter(index, text(index)) for index in range(COUNT)}})


def seconds(api, name, call, end):
    """From the call until the stack has the status."""
    start = time.monotonic()
    call()
    while True:
        stacks = api.describe_stacks(StackName=name)["Stacks"]
        if stacks[0]["StackStatus"] == end:
            return time.monotonic() - start
        assert "ROLLBACK" not in stacks[0]["StackStatus"] and "FAILED" not in stacks[0]["StackStatus"], stacks
        time.sleep(0.01)


def figures(port, key, secret):
    api = boto3.client(
        "cloudformation", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
    )
    found = {}
    found["500 resources planned"] = planned(api)
    for chained in [False, True]:
        name = f"s{int(chained)}"
        kind = "one after the other" if chained else "side by side"
        found[f"{COUNT} parameters made, {kind}"] = seconds(api, name, lambda: api.create_stack(StackName=name, TemplateBody=body("one", chained)), "CREATE_COMPLETE")
        found[f"{COUNT} parameters changed, {kind}"] = seconds(api, name, lambda: api.update_stack(StackName=name, TemplateBody=body("two", chained)), "UPDATE_COMPLETE")
        stack = api.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
        found[f"{COUNT} parameters deleted, {kind}"] = seconds(api, stack, lambda: api.delete_stack(StackName=name), "DELETE_COMPLETE")
    return found


def planned(api):
    """A change set of 500 resources, from the request until it can be executed; a stack of its own is not made."""
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": {"Ref": "Days"}}}
    template = {"Parameters": {"Days": {"Type": "Number", "Default": 7}}, "Resources": {f"G{n}": group for n in range(500)}}
    text = json.dumps(template, separators=(",", ":"))
    assert len(text) <= 51200
    start = time.monotonic()
    api.create_change_set(StackName="plan", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=text)
    while api.describe_change_set(StackName="plan", ChangeSetName="c")["Status"] != "CREATE_COMPLETE":
        time.sleep(0.002)
    return time.monotonic() - start


def page(url):
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.01)


def web_service(env, work):
    """patterns/web-service.yaml: until its page is served, and until an update that changes nothing is refused."""
    client = lambda service: boto3.client(
        service, endpoint_url=env["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )
    image = push(client("ecr"), work)
    ec2, api = client("ec2"), client("cloudformation")
    subnets = ec2.describe_subnets()["Subnets"][:2]
    command = "mkdir -p /tmp/w; echo hello > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"
    parameters = {
        "Image": image, "Vpc": subnets[0]["VpcId"], "Subnets": ",".join(subnet["SubnetId"] for subnet in subnets),
        "ListenerPort": "4612", "Command": f"/bin/busybox,sh,-c,{command}",
    }
    given = dict(
        StackName="web", TemplateBody=(Path(__file__).parent.parent / "patterns" / "web-service.yaml").read_text(), Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )
    start = time.monotonic()
    seconds(api, "web", lambda: api.create_stack(**given), "CREATE_COMPLETE")
    outputs = api.describe_stacks(StackName="web")["Stacks"][0]["Outputs"]
    page(next(output["OutputValue"] for output in outputs if output["OutputKey"] == "Url"))
    served = time.monotonic() - start
    start = time.monotonic()
    try:
        api.update_stack(**given)
        raise AssertionError("there was something to update")
    except ClientError as error:
        assert "No updates are to be performed" in str(error), error
    return served, time.monotonic() - start


def push(ecr, work):
    """An image of busybox alone."""
    repository = ecr.create_repository(repositoryName="web")["repository"]["repositoryUri"]
    directory = work / "image"
    directory.mkdir()
    shutil.copy(shutil.which("busybox"), directory / "busybox")
    (directory / "Dockerfile").write_text("FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\n")
    subprocess.run(["buildah", "bud", "--isolation", "chroot", "-q", "-t", "neargate-bench-web", directory], check=True, **QUIET)
    token = base64.b64decode(ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]).decode()
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", token]
    subprocess.run([*copy, "containers-storage:localhost/neargate-bench-web:latest", f"docker://{repository}:latest"], check=True)
    subprocess.run(["buildah", "rmi", "-f", "neargate-bench-web"], check=True, **QUIET)
    return f"{repository}:latest"


def main():
    work = Path(tempfile.mkdtemp())
    with beside_moto(NEARGATE, work) as env:
        ours = figures(OURS, env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
        theirs = figures(THEIRS, "key", "secret")
        for what, mine in ours.items():
            print(f"| {what} | {mine:.3f} s | moto, in memory only {theirs[what]:.3f} s | {mine / theirs[what]:.2f} |")
        served, same = web_service(env, work)
        print(f"| web-service.yaml, from the request to its page | {served:.2f} s | | |")
        print(f"| an update of it that changes nothing | {same:.3f} s | | |")


main()
