"""What templates bring from elsewhere: snippets of AWS::Include, and applications of SAM's, with SAM's own command line."""

import json
import os
import subprocess

import pytest

from conftest import ROOT
from test_cloudformation import Stacks, parameter, refused, template

SNIPPET = """
Included:
  Type: AWS::SSM::Parameter
  Properties:
    Type: String
    Value: !Sub "from ${AWS::StackName}"
"""


@pytest.fixture(scope="module")
def stacks(neargate):
    stacks = Stacks(neargate)
    stacks.s3 = neargate.client("s3")
    stacks.s3.create_bucket(Bucket="snippets")
    return stacks


def included(key):
    return {"Name": "AWS::Include", "Parameters": {"Location": key}}


def value(neargate, stacks, name, logical):
    return neargate.client("ssm").get_parameter(Name=stacks.physical(name, logical))["Parameter"]["Value"]


def test_snippets_are_included(neargate, stacks):
    name, api = stacks.name("include"), stacks.api
    stacks.s3.put_object(Bucket="snippets", Key="more.yaml", Body=SNIPPET)
    stacks.s3.put_object(Bucket="snippets", Key="properties.json", Body=json.dumps({"Type": "String", "Value": "of a snippet"}))
    location = {"Fn::Sub": "s3://${Bucket}/more.yaml"}
    body = template(
        {
            "Own": {"Type": "AWS::SSM::Parameter", "Properties": {"Fn::Transform": included("s3://snippets/properties.json")}},
            "Fn::Transform": included(location),
        },
        Parameters={"Bucket": {"Type": "String"}},
        Outputs={"Name": {"Value": {"Ref": "Included"}}},
    )
    given = dict(TemplateBody=json.dumps(body), Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "snippets"}])
    # What is not there yet when it is looked at does not matter.
    assert api.validate_template(TemplateBody=json.dumps(body))["Parameters"][0]["ParameterKey"] == "Bucket"
    refused("InsufficientCapabilitiesException", "CAPABILITY_AUTO_EXPAND", api.create_stack, StackName=name, **given)
    stacks.create(name, body, Parameters=given["Parameters"], Capabilities=["CAPABILITY_AUTO_EXPAND"])
    assert value(neargate, stacks, name, "Included") == f"from {name}"
    assert value(neargate, stacks, name, "Own") == "of a snippet"
    assert stacks.outputs(name) == {"Name": stacks.physical(name, "Included")}
    original = api.get_template(StackName=name)
    assert original["StagesAvailable"] == ["Original", "Processed"] and "Fn::Transform" in json.dumps(original["TemplateBody"])
    processed = api.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"]
    assert sorted(processed["Resources"]) == ["Included", "Own"] and "Transform" not in json.dumps(processed)
    # The snippet is looked at again each time, also with the template that the stack has.
    stacks.s3.put_object(Bucket="snippets", Key="more.yaml", Body=SNIPPET.replace("from", "now from"))
    api.update_stack(
        StackName=name, UsePreviousTemplate=True, Parameters=[{"ParameterKey": "Bucket", "UsePreviousValue": True}],
        Capabilities=["CAPABILITY_AUTO_EXPAND"],
    )
    stacks.wait("update", name)
    assert value(neargate, stacks, name, "Included") == f"now from {name}"
    lost = json.dumps(template({"Fn::Transform": included("s3://snippets/nothing.yaml")}))
    expand = dict(StackName=stacks.name("lost"), Capabilities=["CAPABILITY_AUTO_EXPAND"])
    refused("ValidationError", "Transform AWS::Include failed with: S3 error", api.create_stack, TemplateBody=lost, **expand)
    mine = json.dumps(template({"P": parameter("x")}, Transform="Mine"))
    refused("ValidationError", "No transform named Mine found.", api.create_stack, TemplateBody=mine, **expand)
    stacks.delete(name)


def test_sam_deploys_an_application(neargate, stacks, tmp_path):
    """`sam deploy --resolve-s3`: its own bucket is made by a stack, the application within is packaged and nested."""
    (tmp_path / "inner.yaml").write_text(json.dumps(template({"P": parameter({"Ref": "Words"})}, Parameters={"Words": {"Type": "String"}}, Outputs={"Name": {"Value": {"Ref": "P"}}})))
    application = {"Type": "AWS::Serverless::Application", "Properties": {"Location": "inner.yaml", "Parameters": {"Words": {"Ref": "Words"}}}}
    outer = template(
        {"App": application}, Transform="AWS::Serverless-2016-10-31", Parameters={"Words": {"Type": "String"}},
        Outputs={"Inner": {"Value": {"Fn::GetAtt": ["App", "Outputs.Name"]}}},
    )
    (tmp_path / "template.yaml").write_text(json.dumps(outer))
    variables = {key: value for key, value in neargate.env().items() if key.startswith("AWS_")}

    def sam(*words):
        return subprocess.run(
            [str(ROOT / ".venv" / "sam" / "bin" / "sam"), *words], cwd=tmp_path, capture_output=True, text=True, timeout=180,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "1", **variables},
        )

    def deploy(words):
        return sam(
            "deploy", "--stack-name", "sam", "--resolve-s3", "--no-confirm-changeset", "--no-progressbar",
            "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND", "--parameter-overrides", f"Words={words}",
        )

    done = deploy("one")
    assert done.returncode == 0, done.stdout + done.stderr
    ssm = neargate.client("ssm")
    read = lambda: ssm.get_parameter(Name=stacks.outputs("sam")["Inner"])["Parameter"]["Value"]
    assert read() == "one"
    nested = stacks.describe(stacks.physical("sam", "App"))
    assert nested["Tags"] == [{"Key": "lambda:createdBy", "Value": "SAM"}] and nested["RootId"] == stacks.describe("sam")["StackId"]
    assert stacks.describe("aws-sam-cli-managed-default")["StackStatus"] == "CREATE_COMPLETE"
    done = deploy("two")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read() == "two"
    function = {"F": {"Type": "AWS::Serverless::Function", "Properties": {}}}
    lambdas = json.dumps(template(function, Transform="AWS::Serverless-2016-10-31"))
    refused(
        "ValidationError", "Neargate runs no functions", stacks.api.create_change_set, StackName="functions", ChangeSetName="c",
        ChangeSetType="CREATE", TemplateBody=lambdas,
    )
    stacks.delete("sam")
