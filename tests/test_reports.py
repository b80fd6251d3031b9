"""Reports of builds: what tests and coverage tools wrote is read, kept, and told, whatever came of the build."""

import os
import textwrap

import pytest

from test_cloudformation import Stacks
from test_codebuild import Builds, spec
from test_codecommit import refused
from test_pipelines import allow

JUNIT = """<testsuites><testsuite name="unit">
<testcase classname="shop.Cart" name="adds" time="0.25"/>
<testcase classname="shop.Cart" name="removes" time="0.5">{}</testcase>
<testcase classname="shop.Order" name="later"><skipped/></testcase>
</testsuite></testsuites>"""
COBERTURA = """<coverage><packages><package name="p"><classes>
<class filename="cart.py"><lines><line number="1" hits="3"/><line number="2" hits="0"/></lines></class>
<class filename="order.py"><lines><line number="1" hits="1" branch="true" condition-coverage="50% (1/2)"/></lines></class>
</classes></package></packages></coverage>"""


@pytest.fixture(scope="module")
def builds(stack):
    return Builds(stack.neargate, stack.image)


def write(path, text):
    return f"mkdir -p $(dirname {path}) && cat > {path} <<'EOF'\n{textwrap.dedent(text)}\nEOF"


def test_a_build_reports(builds):
    api = builds.codebuild
    reports = {
        "unit": {"files": ["**/*.xml"], "base-directory": "out/unit", "discard-paths": "yes"},
        "coverage": {"files": "coverage.xml", "file-format": "COBERTURAXML"},
    }
    good = spec(write("out/unit/a/cart.xml", JUNIT.format("")), write("coverage.xml", COBERTURA), reports=reports)
    project = builds.project(good)
    found = builds.good(project)
    assert sorted(arn.rsplit("/", 1)[1] for arn in found["reportArns"]) == sorted(
        f"{project}-{name}:{found['id'].split(':')[1]}" for name in reports
    )
    told = {one["type"]: one for one in api.batch_get_reports(reportArns=found["reportArns"])["reports"]}
    test, coverage = told["TEST"], told["CODE_COVERAGE"]
    assert (test["status"], test["executionId"], test["truncated"]) == ("SUCCEEDED", found["arn"], False)
    assert test["testSummary"] == {
        "total": 3,
        "statusCounts": {"SUCCEEDED": 2, "FAILED": 0, "ERROR": 0, "SKIPPED": 1, "UNKNOWN": 0},
        "durationInNanoSeconds": 750_000_000,
    }
    assert (test["expired"] - test["created"]).days == 30
    cases = api.describe_test_cases(reportArn=test["arn"])["testCases"]
    assert [(one["prefix"], one["name"], one["status"], one["testSuiteName"], one["testRawDataPath"]) for one in cases] == [
        ("shop.Cart", "adds", "SUCCEEDED", "unit", "cart.xml"),
        ("shop.Cart", "removes", "SUCCEEDED", "unit", "cart.xml"),
        ("shop.Order", "later", "SKIPPED", "unit", "cart.xml"),
    ]
    one = api.describe_test_cases(reportArn=test["arn"], maxResults=1, filter={"keyword": "Cart"})
    two = api.describe_test_cases(reportArn=test["arn"], maxResults=1, filter={"keyword": "Cart"}, nextToken=one["nextToken"])
    assert [page["testCases"][0]["name"] for page in (one, two)] == ["adds", "removes"] and "nextToken" not in two
    summary = coverage["codeCoverageSummary"]
    assert (summary["linesCovered"], summary["linesMissed"], summary["branchesCovered"], summary["branchesMissed"]) == (2, 1, 1, 1)
    assert round(summary["lineCoveragePercentage"], 2) == 66.67 and summary["branchCoveragePercentage"] == 50
    files = api.describe_code_coverages(reportArn=coverage["arn"], sortBy="LINE_COVERAGE_PERCENTAGE", sortOrder="DESCENDING")["codeCoverages"]
    assert [(one["filePath"], one["lineCoveragePercentage"]) for one in files] == [("order.py", 100.0), ("cart.py", 50.0)]
    files = api.describe_code_coverages(reportArn=coverage["arn"], maxLineCoveragePercentage=60)["codeCoverages"]
    assert [(one["filePath"], one["linesMissed"]) for one in files] == [("cart.py", 1)]

    # Tests that fail fail the build, and are reported all the same.
    bad = spec(write("out/unit/cart.xml", JUNIT.format('<failure message="1 is not 2">trace</failure>')), "exit 1", reports={"unit": reports["unit"]})
    api.update_project(name=project, source={"type": "NO_SOURCE", "buildspec": bad})
    found = builds.run(project)
    assert found["buildStatus"] == "FAILED", builds.text(found)
    [failed] = api.batch_get_reports(reportArns=found["reportArns"])["reports"]
    assert (failed["status"], failed["testSummary"]["statusCounts"]["FAILED"]) == ("FAILED", 1)
    [case] = api.describe_test_cases(reportArn=failed["arn"], filter={"status": "FAILED"})["testCases"]
    assert (case["name"], case["message"], case["durationInNanoSeconds"]) == ("removes", "1 is not 2", 500_000_000)

    group = test["reportGroupArn"]
    assert api.list_reports_for_report_group(reportGroupArn=group)["reports"] == [test["arn"], failed["arn"]]
    assert api.list_reports_for_report_group(reportGroupArn=group, sortOrder="DESCENDING", maxResults=1)["reports"] == [failed["arn"]]
    assert api.list_reports_for_report_group(reportGroupArn=group, filter={"status": "FAILED"})["reports"] == [failed["arn"]]
    assert {test["arn"], failed["arn"]} <= set(api.list_reports()["reports"])
    api.delete_report(arn=failed["arn"])
    assert api.batch_get_reports(reportArns=[failed["arn"], test["arn"]])["reportsNotFound"] == [failed["arn"]]
    with refused("InvalidInputException", "not empty"):
        api.delete_report_group(arn=group)
    api.delete_report_group(arn=group, deleteReports=True)
    assert api.batch_get_report_groups(reportGroupArns=[group])["reportGroupsNotFound"] == [group]
    with refused("ResourceNotFoundException"):
        api.describe_test_cases(reportArn=test["arn"])


def test_what_is_wrong_with_a_report_is_told(builds):
    """None of it matters to the build."""
    api, name = builds.codebuild, f"group-{os.urandom(4).hex()}"
    own = api.create_report_group(name=name, type="TEST", exportConfig={"exportConfigType": "NO_EXPORT"})["reportGroup"]["arn"]
    reports = {
        "none": {"files": "nothing.xml"},
        "broken": {"files": "*.xml"},
        own: {"files": "good.xml"},
        own + "-not": {"files": "good.xml"},
        "a/b": {"files": "good.xml"},
    }
    buildspec = spec(write("broken.xml", "<testsuite><testcase>"), write("good.xml", JUNIT.format("")), reports=reports)
    project = builds.project(buildspec)
    found = builds.good(project)
    told = {one["reportGroupArn"].rsplit("/", 1)[1]: one for one in api.batch_get_reports(reportArns=found["reportArns"])["reports"]}
    assert {group: (one["status"], one["testSummary"]["total"]) for group, one in told.items()} == {
        name: ("SUCCEEDED", 3),
        f"{project}-broken": ("INCOMPLETE", 3),
    }
    for says in ["report none: no matching report files found", "broken.xml cannot be read", "there is no report group", "cannot be a report group's name"]:
        builds.logged(found, says)
    # A role that may not.
    builds.iam.put_role_policy(RoleName=builds.role_name, PolicyName="all", PolicyDocument=allow("logs:*", "ecr:*"))
    found = builds.good(project)
    builds.logged(found, "codebuild:CreateReport")
    assert found["reportArns"] == []
    builds.iam.put_role_policy(RoleName=builds.role_name, PolicyName="all", PolicyDocument=allow("*"))

    with refused("ResourceAlreadyExistsException"):
        api.create_report_group(name=name, type="TEST", exportConfig={"exportConfigType": "NO_EXPORT"})
    with refused("InvalidInputException", "S3"):
        api.create_report_group(name="xx", type="TEST", exportConfig={"exportConfigType": "S3", "s3Destination": {"bucket": "b"}})
    for arn in ["x", "arn:aws:codebuild:us-east-1:123456789012:report-group/", own + ":"]:
        with refused("InvalidInputException"):
            api.list_reports_for_report_group(reportGroupArn=arn)
    for kind, says in [("TAP", "TAP"), ("", "")]:
        broken = spec("true", reports={"r": {"files": "x", "file-format": kind}}) if kind else spec("true", reports={"r": {}})
        found = builds.run(builds.project(broken))
        assert "report r" in str(builds.why(found)["DOWNLOAD_SOURCE"]) and says in str(builds.why(found)), builds.why(found)


def test_groups_in_stacks_and_lists(builds):
    stacks, api = Stacks(builds.plane), builds.codebuild
    name = f"reports-{os.urandom(4).hex()}"
    group = {"Type": "TEST", "ExportConfig": {"ExportConfigType": "NO_EXPORT"}, "Tags": [{"Key": "a", "Value": "1"}], "DeleteReports": True}
    template = {
        "Resources": {"Group": {"Type": "AWS::CodeBuild::ReportGroup", "Properties": group}},
        "Outputs": {"Arn": {"Value": {"Ref": "Group"}}, "Same": {"Value": {"Fn::GetAtt": ["Group", "Arn"]}}},
    }
    stacks.create(name, template)
    outputs = stacks.outputs(name)
    arn = outputs["Arn"]
    assert outputs["Same"] == arn
    [found] = api.batch_get_report_groups(reportGroupArns=[arn])["reportGroups"]
    assert (found["type"], found["tags"], found["status"]) == ("TEST", [{"key": "a", "value": "1"}], "ACTIVE")
    project = builds.project(spec(write("a.xml", JUNIT.format("")), reports={arn: {"files": "a.xml"}}))
    assert builds.good(project)["reportArns"][0].startswith(arn + ":")
    template["Resources"]["Group"]["Properties"]["Tags"] = [{"Key": "b", "Value": "2"}]
    stacks.update(name, template)
    changed = api.batch_get_report_groups(reportGroupArns=[arn])["reportGroups"][0]
    assert changed["tags"] == [{"key": "b", "value": "2"}] and changed["lastModified"] > changed["created"]
    listed = api.list_report_groups(sortBy="LAST_MODIFIED_TIME", sortOrder="DESCENDING")["reportGroups"]
    named = api.list_report_groups()["reportGroups"]
    assert listed[0] == arn and sorted(listed) == named and api.list_report_groups(sortOrder="DESCENDING")["reportGroups"] == named[::-1]
    api.update_report_group(arn=arn, tags=[])
    stacks.delete(name)
    assert arn not in api.list_report_groups()["reportGroups"]
