"""Stacks of 200 parameters made, changed and deleted, beside moto, in one run.

usage: bench/stacks.py NEARGATE   (needs root, and moto in the environment)

moto makes a stack within CreateStack, in memory; Neargate writes each step of each resource to disk before it goes on, so that a
crash loses none, and calls the services' own operations as the caller. Both are asked until the stack says that it is complete.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3

NEARGATE = Path(sys.argv[1]).resolve()
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
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
    for chained in [False, True]:
        name = f"s{int(chained)}"
        kind = "one after the other" if chained else "side by side"
        found[f"made, {kind}"] = seconds(api, name, lambda: api.create_stack(StackName=name, TemplateBody=body("one", chained)), "CREATE_COMPLETE")
        found[f"changed, {kind}"] = seconds(api, name, lambda: api.update_stack(StackName=name, TemplateBody=body("two", chained)), "UPDATE_COMPLETE")
        stack = api.describe_stacks(StackName=name)["Stacks"][0]["StackId"]
        found[f"deleted, {kind}"] = seconds(api, stack, lambda: api.delete_stack(StackName=name), "DELETE_COMPLETE")
    return found


def main():
    work = Path(tempfile.mkdtemp())
    words = [NEARGATE, "--data-dir", work / "data", "serve", "--listen", "127.0.0.1:4610"]
    serve = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    moto = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "4611"], **QUIET)
    try:
        assert "ready" in serve.stdout.readline()
        while True:
            try:
                urllib.request.urlopen("http://127.0.0.1:4611/", timeout=5)
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.05)
        env = json.loads(subprocess.run([NEARGATE, "--data-dir", work / "data", "--output", "json", "env"], check=True, capture_output=True).stdout)
        ours = figures(4610, env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
        theirs = figures(4611, "key", "secret")
        for what, mine in ours.items():
            print(f"| a stack of {COUNT} parameters {what} | {mine:.2f} s | moto, in memory only {theirs[what]:.2f} s | {mine / theirs[what]:.2f} |")
    finally:
        subprocess.run([NEARGATE, "--data-dir", work / "data", "down"], **QUIET)
        serve.wait(timeout=60)
        moto.kill()


main()
