"""The CDK's command line: `bootstrap`, `deploy`, `diff` and `destroy`, with nothing but the endpoint set."""

import json
import os
import subprocess

from conftest import ROOT

ACCOUNT = "123456789012"
BUCKET = f"cdk-hnb659fds-assets-{ACCOUNT}-us-east-1"


def role(what):
    return "arn:${AWS::Partition}:iam::%s:role/cdk-hnb659fds-%s-role-%s-us-east-1" % (ACCOUNT, what, ACCOUNT)


def assembly(directory, template):
    """What `cdk synth` makes of an app with one stack and one asset."""
    out = directory / "cdk.out"
    (out / "asset").mkdir(parents=True, exist_ok=True)
    (out / "asset" / "file.txt").write_text("hello")
    version = {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/cdk-bootstrap/hnb659fds/version"}
    assertion = {"Fn::Not": [{"Fn::Contains": [["1", "2", "3", "4", "5"], {"Ref": "BootstrapVersion"}]}]}
    template = {
        **template,
        "Parameters": {"BootstrapVersion": version},
        "Rules": {"CheckBootstrapVersion": {"Assertions": [{"Assert": assertion, "AssertDescription": "run cdk bootstrap"}]}},
    }
    (out / "Demo.template.json").write_text(json.dumps(template))

    def asset(path, packaging, key):
        place = {"bucketName": BUCKET, "objectKey": key, "region": "us-east-1", "assumeRoleArn": role("file-publishing")}
        return {"source": {"path": path, "packaging": packaging}, "destinations": {"current": place}}

    files = {"aaaa": asset("asset", "zip", "aaaa.zip"), "bbbb": asset("Demo.template.json", "file", f"{hash(json.dumps(template))}.json")}
    (out / "Demo.assets.json").write_text(json.dumps({"version": "36.0.0", "files": files, "dockerImages": {}}))
    bootstrapped = {"requiresBootstrapStackVersion": 6, "bootstrapStackVersionSsmParameter": "/cdk-bootstrap/hnb659fds/version"}
    stack = {
        "type": "aws:cloudformation:stack",
        "environment": f"aws://{ACCOUNT}/us-east-1",
        "dependencies": ["Demo.assets"],
        "displayName": "Demo",
        "properties": {
            "templateFile": "Demo.template.json",
            "assumeRoleArn": role("deploy"),
            "cloudFormationExecutionRoleArn": role("cfn-exec"),
            "stackTemplateAssetObjectUrl": f"s3://{BUCKET}/{files['bbbb']['destinations']['current']['objectKey']}",
            "additionalDependencies": ["Demo.assets"],
            "lookupRole": {"arn": role("lookup"), **bootstrapped},
            **bootstrapped,
        },
    }
    assets = {"type": "cdk:asset-manifest", "properties": {"file": "Demo.assets.json", **bootstrapped}}
    (out / "manifest.json").write_text(json.dumps({"version": "36.0.0", "artifacts": {"Demo.assets": assets, "Demo": stack}}))
    return str(out)


def test_an_app_is_deployed(neargate, tmp_path):
    variables = {key: value for key, value in neargate.env().items() if key.startswith("AWS_")}
    variables.pop("AWS_CA_BUNDLE", None)
    environment = {**os.environ, **variables, "AWS_REGION": "us-east-1", "CI": "true", "HOME": str(tmp_path)}
    environment["PATH"] = f"{ROOT}/.venv/bin:{environment['PATH']}"

    def cdk(*words):
        command = [ROOT / ".venv" / "node_modules" / ".bin" / "cdk", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        told = done.stdout + done.stderr
        assert done.returncode == 0, told
        return told

    assert "bootstrapped." in cdk("bootstrap", f"aws://{ACCOUNT}/us-east-1")
    s3, stacks = neargate.client("s3"), neargate.client("cloudformation")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert "no changes" in cdk("bootstrap", f"aws://{ACCOUNT}/us-east-1")

    parameter = {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Value": "one"}}
    template = {"Resources": {"P": parameter, "M": {"Type": "AWS::CDK::Metadata", "Properties": {"Analytics": "x"}}}, "Outputs": {"Name": {"Value": {"Ref": "P"}}}}
    deploy = ["deploy", "--require-approval", "never", "--app", assembly(tmp_path, template)]
    assert "Demo.Name = CFN-Demo-P-" in cdk(*deploy)
    stack = stacks.describe_stacks(StackName="Demo")["Stacks"][0]
    assert stack["RoleARN"].endswith(f":role/cdk-hnb659fds-cfn-exec-role-{ACCOUNT}-us-east-1")
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]].count("aaaa.zip") == 1
    parameter["Properties"]["Value"] = "two"
    app = assembly(tmp_path, template)
    assert "AWS::SSM::Parameter" in cdk("diff", "--app", app)
    cdk(*deploy)
    name = stack["Outputs"][0]["OutputValue"]
    assert neargate.client("ssm").get_parameter(Name=name)["Parameter"]["Value"] == "two"
    assert "destroyed" in cdk("destroy", "--force", "--app", app)
    # What cdk leaves behind: the bucket outlives its stack, as its policy says.
    stacks.delete_stack(StackName="CDKToolkit")
    stacks.get_waiter("stack_delete_complete").wait(StackName="CDKToolkit", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert s3.head_bucket(Bucket=BUCKET)
    assert "bootstrapped." in cdk("bootstrap", f"aws://{ACCOUNT}/us-east-1")
    events = stacks.describe_stack_events(StackName="CDKToolkit")["StackEvents"]
    assert "IMPORT_COMPLETE" in [event["ResourceStatus"] for event in events if event["LogicalResourceId"] == "StagingBucket"]
