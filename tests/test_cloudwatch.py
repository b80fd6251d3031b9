"""CloudWatch: metrics, and alarms that watch them and tell others."""

import base64
import datetime
import gzip
import json
import urllib.error
import urllib.request

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, eventually
from test_cloudformation import Stacks, template
from test_codecommit import refused
from test_events import Listening
from test_functions import Functions
from test_service_balanced import LISTENER, Balanced, Load
from test_sns import Endpoint, subscribed

# AWS looks at alarms every ten seconds; here that is a tenth of one. Periods are as long as they are.
SCALE = "0.01"


@pytest.fixture(scope="module")
def functions():
    functions = Functions()
    functions.start()
    yield functions
    functions.stop()


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


@pytest.fixture(scope="module")
def settings(functions):
    return {"NEARGATE_TIME_SCALE": SCALE, "NEARGATE_FUNCTIONS": f"http://127.0.0.1:{functions.port}"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory, neargate, settings):
    plane = Neargate(tmp_path_factory.mktemp("cloudwatch") / "data", PORT + 23).start(**settings)
    yield plane
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


@pytest.fixture(scope="module")
def cloudwatch(plane):
    return plane.client("cloudwatch")


def ago(seconds):
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)


def minute(seconds):
    return ago(seconds).replace(second=0, microsecond=0)


def named(**dimensions):
    return [{"Name": name, "Value": value} for name, value in dimensions.items()]


def put(cloudwatch, name, value, seconds=90, **more):
    cloudwatch.put_metric_data(Namespace="Shop", MetricData=[{"MetricName": name, "Value": value, "Timestamp": ago(seconds), **more}])


def statistics(cloudwatch, name, period=60, since=600, **more):
    asked = {"Statistics": ["SampleCount", "Average", "Sum", "Minimum", "Maximum"], **more}
    found = cloudwatch.get_metric_statistics(
        Namespace="Shop", MetricName=name, StartTime=ago(since), EndTime=ago(-60), Period=period, **asked
    )["Datapoints"]
    return sorted(found, key=lambda point: point["Timestamp"])


def test_what_is_put_is_read(plane, cloudwatch):
    at = minute(300)
    data = [
        {"MetricName": "Price", "Value": 2.0, "Unit": "Count", "Timestamp": at},
        {"MetricName": "Price", "Values": [4.0, 10.0], "Counts": [3.0, 1.0], "Unit": "Count", "Timestamp": at},
        {"MetricName": "Price", "StatisticValues": {"SampleCount": 2.0, "Sum": 6.0, "Minimum": 1.0, "Maximum": 5.0}, "Unit": "Count", "Timestamp": at + datetime.timedelta(minutes=1)},
        {"MetricName": "Price", "Value": 1.0, "Unit": "Seconds", "Timestamp": at, "Dimensions": named(Of="apples", Kind="red")},
    ]
    cloudwatch.put_metric_data(Namespace="Shop", MetricData=data)
    first, second = statistics(cloudwatch, "Price")
    assert first == {"Timestamp": at, "SampleCount": 5.0, "Average": 4.8, "Sum": 24.0, "Minimum": 2.0, "Maximum": 10.0, "Unit": "Count"}
    assert (second["SampleCount"], second["Average"], second["Minimum"], second["Maximum"]) == (2.0, 3.0, 1.0, 5.0)
    [percentiles, none] = statistics(cloudwatch, "Price", Statistics=["Sum"], ExtendedStatistics=["p50", "p99.9"])
    assert percentiles["ExtendedStatistics"] == {"p50": 4.0, "p99.9": 10.0} and "Average" not in percentiles
    assert "ExtendedStatistics" not in none, "a set of statistics does not tell them"
    [whole] = statistics(cloudwatch, "Price", period=3600, since=3600)
    assert (whole["SampleCount"], whole["Sum"]) == (7.0, 30.0)
    [apples] = statistics(cloudwatch, "Price", Dimensions=named(Kind="red", Of="apples"))
    assert apples["Unit"] == "Seconds" and apples["Sum"] == 1.0
    assert statistics(cloudwatch, "Price", Unit="Seconds") == [] == statistics(cloudwatch, "Price", Dimensions=named(Of="apples"))
    # Seconds are told apart for those who ask for it.
    for place, value in [(20, 1.0), (21, 2.0), (29, 3.0)]:
        put(cloudwatch, "Fine", value, 60 - place, StorageResolution=1)
    [fine] = statistics(cloudwatch, "Fine", period=3600, since=3600)
    assert fine["Sum"] == 6.0
    assert len(statistics(cloudwatch, "Fine", period=1, since=120)) == 3
    # What was acknowledged is there after a crash.
    plane.kill()
    plane.start(NEARGATE_TIME_SCALE=SCALE)
    assert statistics(cloudwatch, "Price") == [first, second]


def test_many_metrics_are_read_at_once(cloudwatch):
    times = [minute(60 * n) for n in range(2, 12)]
    for kind, base in [("a", 0.0), ("b", 100.0)]:
        data = [{"MetricName": "Load", "Dimensions": named(Kind=kind), "Timestamp": at, "Value": base + n} for n, at in enumerate(times)]
        cloudwatch.put_metric_data(Namespace="Shop", MetricData=data)

    def query(id, kind, period=60, stat="Average", **more):
        metric = {"Namespace": "Shop", "MetricName": "Load", "Dimensions": named(Kind=kind)}
        return {"Id": id, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, **more}

    queries = [query("first", "a"), query("hidden", "a", ReturnData=False), query("second", "b", Label="of b"), query("top", "b", 3600, "p100")]
    asked = {"MetricDataQueries": queries, "StartTime": times[-1], "EndTime": times[0] + datetime.timedelta(minutes=1)}
    one, two, top = cloudwatch.get_metric_data(**asked)["MetricDataResults"]
    assert (one["Id"], one["Label"], one["StatusCode"]) == ("first", "Load", "Complete")
    assert one["Timestamps"] == times and one["Values"] == [float(n) for n in range(10)], "the newest first"
    assert two["Label"] == "of b" and two["Values"] == [100.0 + n for n in range(10)]
    assert max(top["Values"]) == 109.0 and all(at.minute == 0 for at in top["Timestamps"])
    pages = cloudwatch.get_paginator("get_metric_data").paginate(**asked, ScanBy="TimestampAscending", MaxDatapoints=7)
    found = {}
    for page in pages:
        assert sum(len(result["Values"]) for result in page["MetricDataResults"]) <= 7
        for result in page["MetricDataResults"]:
            found.setdefault(result["Id"], []).extend(result["Values"])
    assert found["first"] == [float(n) for n in range(10)][::-1] and len(found["second"]) == 10
    listed = cloudwatch.list_metrics(Namespace="Shop", MetricName="Load", RecentlyActive="PT3H")["Metrics"]
    assert listed == [{"Namespace": "Shop", "MetricName": "Load", "Dimensions": named(Kind=kind)} for kind in "ab"]
    assert cloudwatch.list_metrics(Dimensions=[{"Name": "Kind", "Value": "b"}])["Metrics"] == listed[1:]
    assert listed[0] in cloudwatch.list_metrics(Dimensions=[{"Name": "Kind"}])["Metrics"]
    assert cloudwatch.list_metrics(Namespace="Sho")["Metrics"] == []


def test_older_clients_speak_query(plane, cloudwatch):
    put(cloudwatch, "Old", 4.0, 120)
    env = plane.env()

    def ask(**form):
        body = "&".join(f"{key}={value}" for key, value in {"Version": "2010-08-01", **form}.items())
        request = AWSRequest("POST", env["AWS_ENDPOINT_URL"] + "/", data=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
        SigV4Auth(Credentials(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]), "monitoring", "us-east-1").add_auth(request)
        request = urllib.request.Request(request.url, body.encode(), dict(request.headers))
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    times = {"StartTime": ago(600).strftime("%Y-%m-%dT%H:%M:%SZ"), "EndTime": ago(0).strftime("%Y-%m-%dT%H:%M:%SZ")}
    times = {name: value.replace(":", "%3A") for name, value in times.items()}
    read = {"Action": "GetMetricStatistics", "Namespace": "Shop", "MetricName": "Old", "Period": 60, "Statistics.member.1": "Sum", **times}
    status, body = ask(**read)
    assert status == 200 and "<Sum>4" in body and "<GetMetricStatisticsResult>" in body, body
    status, body = ask(**{**read, "Period": 7})
    assert status == 400 and "<Code>InvalidParameterValue</Code>" in body and "<Type>Sender</Type>" in body, body
    # Today's clients are told the shape's name, and the code that they knew.
    with pytest.raises(cloudwatch.exceptions.InvalidParameterValueException) as error:
        statistics(cloudwatch, "Old", period=7)
    assert error.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert error.value.response["Error"]["Type"] == "Sender"
    assert "Datapoints" in plane.aws("cloudwatch", "get-metric-statistics", "--namespace", "Shop", "--metric-name", "Old", "--period", "60", "--statistics", "Sum", "--start-time", ago(600).isoformat(), "--end-time", ago(0).isoformat()).stdout


def alarm(name, metric, **more):
    return {
        "AlarmName": name, "Namespace": "Shop", "MetricName": metric, "Statistic": "Maximum", "Period": 60, "EvaluationPeriods": 1,
        "Threshold": 5.0, "ComparisonOperator": "GreaterThanThreshold", **more,
    }


def state(cloudwatch, name):
    [found] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return found


def becomes(cloudwatch, name, value):
    return eventually(lambda: (found := state(cloudwatch, name))["StateValue"] == value and found, f"{name} {value}")


def history(cloudwatch, name, kind):
    items = cloudwatch.describe_alarm_history(AlarmName=name, HistoryItemType=kind, ScanBy="TimestampAscending")["AlarmHistoryItems"]
    return [item["HistorySummary"] for item in items]


def test_an_alarm_tells_topics_functions_and_rules(plane, cloudwatch, endpoint, functions, settings):
    plane.kill()
    plane.start(**settings)
    sns = plane.client("sns")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    subscribed(sns, endpoint, topic, "/alarms")
    functions.known["alarmed"] = lambda event: {}
    function = "arn:aws:lambda:us-east-1:123456789012:function:alarmed"
    listening = Listening(plane)
    rule = listening.rule({"source": ["aws.cloudwatch"], "detail-type": ["CloudWatch Alarm State Change"]})
    actions = {"AlarmActions": [topic, function], "OKActions": [topic], "InsufficientDataActions": [topic]}
    cloudwatch.put_metric_alarm(**alarm("high", "Heat", AlarmDescription="It is hot", Tags=[{"Key": "team", "Value": "a"}], **actions))
    made = state(cloudwatch, "high")
    assert made["StateValue"] == "INSUFFICIENT_DATA" and made["AlarmArn"] == "arn:aws:cloudwatch:us-east-1:123456789012:alarm:high"
    assert (made["Statistic"], made["Period"], made["ActionsEnabled"], made["AlarmActions"]) == ("Maximum", 60, True, [topic, function])
    put(cloudwatch, "Heat", 7.5, 150)
    high = becomes(cloudwatch, "high", "ALARM")
    assert high["StateReason"].startswith("Threshold Crossed: 1 out of the last 1 datapoints [7.5 (")
    assert high["StateReason"].endswith("was greater than the threshold (5.0) (minimum 1 datapoint for OK -> ALARM transition).")
    reasons = json.loads(high["StateReasonData"])
    assert reasons["recentDatapoints"] == [7.5] and reasons["threshold"] == 5.0 and reasons["evaluatedDatapoints"][0]["sampleCount"] == 1.0
    [(_, body)] = eventually(lambda: endpoint.sent("/alarms"), "the topic is told")
    letter = json.loads(body)
    told = json.loads(letter["Message"])
    assert letter["Subject"] == 'ALARM: "high" in US East (N. Virginia)'
    assert (told["AlarmName"], told["AlarmDescription"], told["NewStateValue"], told["OldStateValue"]) == ("high", "It is hot", "ALARM", "INSUFFICIENT_DATA")
    assert told["NewStateReason"] == high["StateReason"] and told["Trigger"]["MetricName"] == "Heat" and told["Trigger"]["Statistic"] == "MAXIMUM"
    eventually(lambda: [event for name, _, event in functions.asked if name == "alarmed"], "the function is asked")
    [event] = [event for name, _, event in functions.asked if name == "alarmed"]
    assert event["source"] == "aws.cloudwatch" and event["alarmData"]["state"]["value"] == "ALARM" and event["alarmData"]["alarmName"] == "high"
    heard = listening.hear(rule, lambda event: event["detail"]["state"]["value"] == "ALARM")
    assert heard["resources"] == [high["AlarmArn"]] and heard["detail"]["previousState"]["value"] == "INSUFFICIENT_DATA"
    assert heard["detail"]["configuration"]["metrics"][0]["metricStat"]["metric"]["name"] == "Heat"
    # A newer minute is well.
    put(cloudwatch, "Heat", 1.0, 80)
    well = becomes(cloudwatch, "high", "OK")
    assert "[1.0 (" in well["StateReason"] and "was not greater than the threshold (5.0)" in well["StateReason"]
    eventually(lambda: [json.loads(text)["NewStateValue"] for text in endpoint.messages("/alarms")] == ["ALARM", "OK"], "and that is told")
    assert history(cloudwatch, "high", "StateUpdate") == ["Alarm updated from INSUFFICIENT_DATA to ALARM", "Alarm updated from ALARM to OK"]
    assert history(cloudwatch, "high", "Action") == [f"Successfully executed action {one}" for one in [topic, function, topic]]
    assert history(cloudwatch, "high", "ConfigurationUpdate") == ['Alarm "high" created']
    # Nobody is told while actions are off.
    cloudwatch.disable_alarm_actions(AlarmNames=["high"])
    cloudwatch.put_metric_alarm(**alarm("high", "Heat", Threshold=0.5, ActionsEnabled=False, **actions))
    becomes(cloudwatch, "high", "ALARM")
    assert state(cloudwatch, "high")["StateUpdatedTimestamp"] > well["StateUpdatedTimestamp"]
    cloudwatch.enable_alarm_actions(AlarmNames=["high"])
    assert state(cloudwatch, "high")["ActionsEnabled"] is True and len(endpoint.sent("/alarms")) == 2
    arn = high["AlarmArn"]
    cloudwatch.tag_resource(ResourceARN=arn, Tags=[{"Key": "more", "Value": "1"}])
    cloudwatch.untag_resource(ResourceARN=arn, TagKeys=["team"])
    assert cloudwatch.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "more", "Value": "1"}]
    assert [one["AlarmName"] for one in cloudwatch.describe_alarms_for_metric(Namespace="Shop", MetricName="Heat")["MetricAlarms"]] == ["high"]
    cloudwatch.delete_alarms(AlarmNames=["high"])
    assert cloudwatch.describe_alarms(AlarmNames=["high"])["MetricAlarms"] == []
    assert history(cloudwatch, "high", "ConfigurationUpdate")[-1] == 'Alarm "high" deleted'
    listening.forget(rule)


def test_what_is_missing(plane, cloudwatch):
    treated = {"missing": "INSUFFICIENT_DATA", "breaching": "ALARM", "notBreaching": "OK"}
    for how, wanted in treated.items():
        cloudwatch.put_metric_alarm(**alarm(f"missing-{how}", "Never", TreatMissingData=how))
    for how, wanted in treated.items():
        becomes(cloudwatch, f"missing-{how}", wanted)
    assert state(cloudwatch, "missing-breaching")["StateReason"] == (
        "Threshold Crossed: no datapoints were received for 1 period and 1 missing datapoint was treated as [Breaching]."
    )
    # What somebody says stays as long as nothing speaks against it.
    cloudwatch.put_metric_alarm(**alarm("said", "Never", TreatMissingData="ignore"))
    cloudwatch.set_alarm_state(AlarmName="said", StateValue="ALARM", StateReason="a drill", StateReasonData='{"drill": true}')
    said = state(cloudwatch, "said")
    assert (said["StateValue"], said["StateReason"], said["StateReasonData"]) == ("ALARM", "a drill", '{"drill": true}')
    put(cloudwatch, "Never", 1.0)
    becomes(cloudwatch, "said", "OK")
    becomes(cloudwatch, "missing-breaching", "OK")
    # An alarm survives a crash, and goes on.
    cloudwatch.put_metric_alarm(**alarm("survives", "Crash", EvaluationPeriods=2, DatapointsToAlarm=1))
    plane.kill()
    plane.start(NEARGATE_TIME_SCALE=SCALE)
    put(cloudwatch, "Crash", 9.0)
    becomes(cloudwatch, "survives", "ALARM")
    listed = cloudwatch.describe_alarms(StateValue="ALARM", AlarmNamePrefix="surv")["MetricAlarms"]
    assert [one["AlarmName"] for one in listed] == ["survives"]
    pages = cloudwatch.get_paginator("describe_alarms").paginate(PaginationConfig={"PageSize": 2})
    names = [one["AlarmName"] for page in pages for one in page["MetricAlarms"]]
    assert names == sorted(names) and {"said", "survives", "missing-missing"} <= set(names)
    percentile = {**alarm("percentile", "Crash"), "ExtendedStatistic": "p90"}
    del percentile["Statistic"]
    cloudwatch.put_metric_alarm(**percentile)
    assert becomes(cloudwatch, "percentile", "ALARM")["ExtendedStatistic"] == "p90"
    cloudwatch.delete_alarms(AlarmNames=names + ["percentile"])


def test_an_action_that_fails_is_told(cloudwatch):
    gone = "arn:aws:sns:us-east-1:123456789012:gone"
    policy = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:1:resource/ecs/service/c/s:policyName/p"
    cloudwatch.put_metric_alarm(**alarm("fails", "Fails", TreatMissingData="breaching", AlarmActions=[gone, policy]))
    becomes(cloudwatch, "fails", "ALARM")
    told = eventually(lambda: (found := history(cloudwatch, "fails", "Action")) and len(found) > 1 and found, "both are told")
    assert any(text.startswith(f"Failed to execute action {gone}. ") for text in told)
    assert f"Failed to execute action {policy}. The scaling policy does not exist" in told
    cloudwatch.delete_alarms(AlarmNames=["fails"])


def test_bad_input(cloudwatch):
    def put_one(**datum):
        cloudwatch.put_metric_data(Namespace="Bad", MetricData=[{"MetricName": "m", **datum}])

    for code, words, datum in [
        ("InvalidParameterValue", "two weeks", {"Value": 1.0, "Timestamp": ago(15 * 86400)}),
        ("InvalidParameterValue", "two hours", {"Value": 1.0, "Timestamp": ago(-3 * 3600)}),
        ("SerializationException", "Double", {"Value": float("nan")}),
        ("InvalidParameterValue", "must be a number", {"Value": 1e300}),
        ("MissingParameter", "At least one", {}),
        ("InvalidParameterCombination", "mutually exclusive", {"Value": 1.0, "Values": [1.0]}),
        ("InvalidParameterValue", "same size", {"Values": [1.0], "Counts": [1.0, 2.0]}),
        ("InvalidParameterValue", "SampleCount above 0", {"StatisticValues": {"SampleCount": 0.0, "Sum": 1.0, "Minimum": 1.0, "Maximum": 1.0}}),
        ("InvalidParameterValue", "more than once", {"Value": 1.0, "Dimensions": named(a="1") + named(a="2")}),
        ("InvalidParameterValue", "no control characters", {"Value": 1.0, "Dimensions": named(a="x\x1fy")}),
        ("InvalidParameterValue", "1 or 60", {"Value": 1.0, "StorageResolution": 30}),
    ]:
        with refused(code, words):
            put_one(**datum)
    with refused("InvalidParameterValue", "Namespace is invalid"):
        cloudwatch.put_metric_data(Namespace="AWS/ECS", MetricData=[{"MetricName": "m", "Value": 1.0}])
    with refused("ValidationError", "1000"):
        cloudwatch.put_metric_data(Namespace="Bad", MetricData=[{"MetricName": "m", "Value": 1.0}] * 1001)
    assert cloudwatch.list_metrics(Namespace="Bad")["Metrics"] == []
    with refused("InvalidParameterCombination", "exceeds the limit of 1440"):
        statistics(cloudwatch, "m", period=1, since=7200)
    with refused("ValidationError", "must be less than"):
        statistics(cloudwatch, "m", since=-3600)
    with refused("MissingParameter", "Statistics"):
        cloudwatch.get_metric_statistics(Namespace="Shop", MetricName="m", StartTime=ago(60), EndTime=ago(0), Period=60)
    with refused("ValidationError", "metric math is not built"):
        cloudwatch.get_metric_data(MetricDataQueries=[{"Id": "a", "Expression": "1"}], StartTime=ago(60), EndTime=ago(0))
    with refused("InvalidNextToken"):
        cloudwatch.list_metrics(NextToken="made up")
    for code, words, more in [
        ("InvalidParameterValue", "multiple of 60", {"Period": 45}),
        ("ValidationError", "more than a day", {"EvaluationPeriods": 1441}),
        ("ValidationError", "DatapointsToAlarm", {"DatapointsToAlarm": 2}),
        ("ValidationError", "enum value set", {"TreatMissingData": "whatever"}),
        ("ValidationError", "Invalid arn syntax", {"AlarmActions": ["topic"]}),
        ("ValidationError", "Invalid action", {"AlarmActions": ["arn:aws:automate:us-east-1:ec2:stop"]}),
        ("ValidationError", "anomaly detectors", {"ComparisonOperator": "GreaterThanUpperThreshold"}),
        ("InvalidParameterCombination", "cannot be given together", {"ExtendedStatistic": "p90"}),
    ]:
        with refused(code, words):
            cloudwatch.put_metric_alarm(**alarm("bad", "m", **more))
    with refused("MissingParameter", "Threshold"):
        cloudwatch.put_metric_alarm(**{name: value for name, value in alarm("bad", "m").items() if name != "Threshold"})
    for call in [cloudwatch.delete_alarms, cloudwatch.enable_alarm_actions]:
        with refused("ResourceNotFound"):
            call(AlarmNames=["nothing"])
    with refused("ResourceNotFound"):
        cloudwatch.set_alarm_state(AlarmName="nothing", StateValue="OK", StateReason="r")
    with refused("ResourceNotFoundException"):
        cloudwatch.list_tags_for_resource(ResourceARN="arn:aws:cloudwatch:us-east-1:123456789012:alarm:nothing")


def test_who_may(plane, cloudwatch):
    iam = plane.client("iam")
    iam.create_user(UserName="watcher")
    key = iam.create_access_key(UserName="watcher")["AccessKey"]
    allowed = {"Effect": "Allow", "Action": ["cloudwatch:PutMetricAlarm"], "Resource": "arn:aws:cloudwatch:*:*:alarm:theirs-*"}
    iam.put_user_policy(UserName="watcher", PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    watcher = plane.client("cloudwatch", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    watcher.put_metric_alarm(**alarm("theirs-1", "m"))
    for call, more in [
        (watcher.put_metric_alarm, alarm("ours", "m")),
        (watcher.delete_alarms, {"AlarmNames": ["theirs-1"]}),
        (watcher.describe_alarms, {}),
        (watcher.put_metric_data, {"Namespace": "N", "MetricData": [{"MetricName": "m", "Value": 1.0}]}),
    ]:
        with pytest.raises(ClientError) as error:
            call(**more)
        assert error.value.response["Error"]["Code"] in ["AccessDenied", "AccessDeniedException"]
    # Another region is another world.
    assert plane.client("cloudwatch", region="eu-west-1").describe_alarms()["MetricAlarms"] == []
    cloudwatch.delete_alarms(AlarmNames=["theirs-1"])


def test_log_lines_are_counted(plane, cloudwatch):
    logs, now = plane.client("logs"), int(minute(120).timestamp() * 1000)
    logs.create_log_group(logGroupName="/shop")
    logs.create_log_stream(logGroupName="/shop", logStreamName="a")

    def put_filter(name, pattern, metric, value="1", **more):
        made = {"metricName": metric, "metricNamespace": "Shop", "metricValue": value, **more}
        logs.put_metric_filter(logGroupName="/shop", filterName=name, filterPattern=pattern, metricTransformations=[made])

    put_filter("errors", "ERROR", "Errors", defaultValue=0.0, unit="Count")
    put_filter("slow", "{ $.ms > 100 }", "Slow", "$.ms", unit="Milliseconds", dimensions={"Path": "$.path"})
    lines = ["ERROR: no apples", '{"ms": 120, "path": "/a"}', '{"ms": 80, "path": "/a"}', '{"ms": 300, "path": "/b"}', "ERROR again"]
    events = [{"timestamp": now + n, "message": line} for n, line in enumerate(lines)]
    logs.put_log_events(logGroupName="/shop", logStreamName="a", logEvents=events)
    logs.put_log_events(logGroupName="/shop", logStreamName="a", logEvents=[{"timestamp": now + 60_000, "message": "all is well"}])
    first, second = statistics(cloudwatch, "Errors")
    assert (first["Sum"], first["SampleCount"], first["Unit"]) == (2.0, 2.0, "Count")
    assert (second["Sum"], second["SampleCount"]) == (0.0, 1.0), "nothing is counted as what was said"
    [a], [b] = (statistics(cloudwatch, "Slow", Dimensions=named(Path=path)) for path in ["/a", "/b"])
    assert (a["Sum"], b["Sum"], b["Unit"]) == (120.0, 300.0, "Milliseconds")
    found = logs.describe_metric_filters(logGroupName="/shop")["metricFilters"]
    assert [one["filterName"] for one in found] == ["errors", "slow"]
    assert found[0]["metricTransformations"] == [{"metricName": "Errors", "metricNamespace": "Shop", "metricValue": "1", "defaultValue": 0.0, "unit": "Count"}]
    assert logs.describe_metric_filters(metricName="Slow", metricNamespace="Shop")["metricFilters"] == found[1:]
    [group] = logs.describe_log_groups(logGroupNamePrefix="/shop")["logGroups"]
    assert group["metricFilterCount"] == 2
    tested = logs.test_metric_filter(filterPattern="[code, size > 5]", logEventMessages=["200 7", "200 3", "404 9"])["matches"]
    assert [(one["eventNumber"], one["extractedValues"]) for one in tested] == [(1, {"$code": "200", "$size": "7"}), (3, {"$code": "404", "$size": "9"})]
    for words, more in [
        ("Invalid filter pattern", {"pattern": "[a"}),
        ("JSON and space-delimited", {"pattern": "ERROR", "value": "$.a"}),
        ("neither a number nor", {"pattern": "ERROR", "value": "many"}),
        ("mutually exclusive", {"pattern": "{ $.a = 1 }", "dimensions": {"A": "$.a"}, "defaultValue": 1.0}),
        ("3 dimensions at most", {"pattern": "{ $.a = 1 }", "dimensions": {str(n): "$.a" for n in range(4)}}),
    ]:
        with refused("InvalidParameterException", words):
            put_filter("bad", metric="m", **more)
    with refused("ResourceNotFoundException"):
        logs.delete_metric_filter(logGroupName="/shop", filterName="bad")
    logs.delete_metric_filter(logGroupName="/shop", filterName="slow")
    logs.put_log_events(logGroupName="/shop", logStreamName="a", logEvents=[{"timestamp": now, "message": lines[1]}])
    assert statistics(cloudwatch, "Slow", Dimensions=named(Path="/a")) == [a]
    logs.delete_log_group(logGroupName="/shop")
    assert logs.describe_metric_filters()["metricFilters"] == []


def test_what_tasks_log_is_counted(neargate, stack):
    logs, cloudwatch, stacks = neargate.client("logs"), neargate.client("cloudwatch"), Stacks(neargate)
    name = stacks.name("counted")
    made = {"MetricName": "Words", "MetricNamespace": "Tasks", "MetricValue": "$size", "Dimensions": [{"Key": "Word", "Value": "$word"}]}
    properties = {"LogGroupName": {"Ref": "Group"}, "FilterPattern": "[word, size]", "MetricTransformations": [made]}
    resources = {"Group": {"Type": "AWS::Logs::LogGroup"}, "Filter": {"Type": "AWS::Logs::MetricFilter", "Properties": properties}}
    stacks.create(name, template(resources, Outputs={"Group": {"Value": {"Ref": "Group"}}}))
    [group] = [one["OutputValue"] for one in stacks.describe(name)["Outputs"]]
    options = {"awslogs-group": group, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "t"}
    counting = stack.container(command="echo apples 3; echo pears 4; echo apples 5", logConfiguration={"logDriver": "awslogs", "options": options})
    stack.finish(counting)

    def sum_of(word):
        points = cloudwatch.get_metric_statistics(
            Namespace="Tasks", MetricName="Words", Dimensions=named(Word=word), StartTime=ago(900), EndTime=ago(-60), Period=60, Statistics=["Sum"]
        )["Datapoints"]
        return sum(point["Sum"] for point in points)

    eventually(lambda: (sum_of("apples"), sum_of("pears")) == (8.0, 4.0), "each line counts once")
    resources["Filter"]["Properties"]["FilterPattern"] = "[word, size > 4]"
    stacks.update(name, template(resources, Outputs={"Group": {"Value": {"Ref": "Group"}}}))
    [found] = logs.describe_metric_filters(logGroupName=group)["metricFilters"]
    assert found["filterPattern"] == "[word, size > 4]"
    stack.finish(counting)
    eventually(lambda: (sum_of("apples"), sum_of("pears")) == (13.0, 4.0), "what matches now counts")
    stacks.delete(name)


def test_log_lines_are_handed_on(plane, functions, settings):
    plane.kill()
    plane.start(**settings)
    logs, stacks, now = plane.client("logs"), Stacks(plane), int(ago(60).timestamp() * 1000)
    name = stacks.name("handed")
    function = "arn:aws:lambda:us-east-1:123456789012:function:sorted"
    properties = {"LogGroupName": {"Ref": "Group"}, "FilterPattern": "ERROR", "DestinationArn": function}
    resources = {"Group": {"Type": "AWS::Logs::LogGroup"}, "Filter": {"Type": "AWS::Logs::SubscriptionFilter", "Properties": properties}}
    stacks.create(name, template(resources, Outputs={"Group": {"Value": {"Ref": "Group"}}}))
    [group] = [one["OutputValue"] for one in stacks.describe(name)["Outputs"]]
    [filter] = logs.describe_subscription_filters(logGroupName=group)["subscriptionFilters"]
    assert (filter["destinationArn"], filter["distribution"], filter["filterPattern"]) == (function, "ByLogStream", "ERROR")
    logs.create_log_stream(logGroupName=group, logStreamName="a")

    def say(*lines):
        events = [{"timestamp": now + n, "message": line} for n, line in enumerate(lines)]
        logs.put_log_events(logGroupName=group, logStreamName="a", logEvents=events)

    def handed():
        packed = [event["awslogs"]["data"] for asked, _, event in functions.asked if asked == "sorted"]
        return [json.loads(gzip.decompress(base64.b64decode(data))) for data in packed]

    # The function is not there yet: it is asked again, through a crash.
    say("well", "ERROR 1", "well", "ERROR 2")
    eventually(handed, "the function is asked")
    plane.kill()
    plane.start(**settings)
    functions.known["sorted"] = lambda event: {}
    say("ERROR 3")
    messages = lambda: {event["message"] for told in handed() for event in told["logEvents"]}
    eventually(lambda: messages() == {"ERROR 1", "ERROR 2", "ERROR 3"}, "all that matches is handed on")
    told = handed()[0]
    assert (told["messageType"], told["owner"], told["logGroup"], told["logStream"]) == ("DATA_MESSAGE", "123456789012", group, "a")
    assert told["subscriptionFilters"] == [filter["filterName"]]
    seen = {event["eventId"]: event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]}
    assert [seen[event["id"]] for event in told["logEvents"]] == ["ERROR 1", "ERROR 2"], "events have their ids"
    with refused("InvalidParameterException", "Lambda functions only"):
        logs.put_subscription_filter(logGroupName=group, filterName="x", filterPattern="", destinationArn="arn:aws:kinesis:us-east-1:123456789012:stream/s")
    logs.put_subscription_filter(logGroupName=group, filterName="second", filterPattern="", destinationArn=function)
    with refused("LimitExceededException"):
        logs.put_subscription_filter(logGroupName=group, filterName="third", filterPattern="", destinationArn=function)
    logs.delete_subscription_filter(logGroupName=group, filterName="second")
    with refused("ResourceNotFoundException"):
        logs.delete_subscription_filter(logGroupName=group, filterName="second")
    stacks.delete(name)


def test_in_a_stack(plane, cloudwatch):
    stacks = Stacks(plane)
    name = stacks.name("alarms")
    properties = {
        "Namespace": "Shop", "MetricName": "Stacked", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 3,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold", "AlarmActions": [{"Ref": "Topic"}], "Dimensions": [{"Name": "Of", "Value": "us"}],
        "TreatMissingData": "notBreaching",
    }

    def body(**more):
        resources = {"Topic": {"Type": "AWS::SNS::Topic"}, "Alarm": {"Type": "AWS::CloudWatch::Alarm", "Properties": {**properties, **more}}}
        return template(resources, Outputs={"Name": {"Value": {"Ref": "Alarm"}}, "Arn": {"Value": {"Fn::GetAtt": "Alarm.Arn"}}})

    stacks.create(name, body())
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stacks.describe(name)["Outputs"]}
    found = state(cloudwatch, outputs["Name"])
    assert found["AlarmArn"] == outputs["Arn"] and found["Threshold"] == 3.0 and ":sns:" in found["AlarmActions"][0]
    assert outputs["Name"].startswith(f"{name}-Alarm-")
    stacks.update(name, body(Threshold=4, AlarmDescription="more", Tags=[{"Key": "a", "Value": "b"}]))
    found = state(cloudwatch, outputs["Name"])
    assert (found["Threshold"], found["AlarmDescription"]) == (4.0, "more")
    assert {"Key": "a", "Value": "b"} in cloudwatch.list_tags_for_resource(ResourceARN=outputs["Arn"])["Tags"]
    stacks.delete(name)
    assert cloudwatch.describe_alarms(AlarmNames=[outputs["Name"]])["MetricAlarms"] == []


def test_services_and_balancers_are_measured(neargate, stack):
    balanced, cloudwatch = Balanced(stack), neargate.client("cloudwatch")
    balancer, group = balanced.balancer("measured"), balanced.group("measured")
    balanced.listener(balancer, group, LISTENER + 8)
    balanced.service("measured", balanced.page("measured"), 2, group)
    balanced.steady("measured")
    path = balancer["LoadBalancerArn"].split(":loadbalancer/")[1]
    of_balancer, of_group = named(LoadBalancer=path), named(LoadBalancer=path, TargetGroup=group.rsplit(":", 1)[1])
    of_service = named(ClusterName="tests", ServiceName="measured")

    def read(namespace, name, dimensions, statistic):
        more = {"ExtendedStatistics": [statistic]} if statistic.startswith("p") else {"Statistics": [statistic]}
        points = cloudwatch.get_metric_statistics(
            Namespace=namespace, MetricName=name, Dimensions=dimensions, StartTime=ago(900), EndTime=ago(-60), Period=60, **more
        )["Datapoints"]
        return [point.get(statistic, point.get("ExtendedStatistics", {}).get(statistic)) for point in sorted(points, key=lambda point: point["Timestamp"])]

    elb = "AWS/ApplicationELB"
    eventually(lambda: read(elb, "HealthyHostCount", of_group, "Maximum"), "it is measured", 150)
    with Load(balancer["DNSName"], LISTENER + 8) as load:
        eventually(lambda: read(elb, "RequestCount", of_balancer, "Sum"), "requests are counted", 150)
    assert load.failures == []
    eventually(lambda: sum(read(elb, "RequestCount", of_group, "Sum")) >= load.answers, "all of them", 150)
    answers = sum(read(elb, "HTTPCode_Target_2XX_Count", of_balancer, "Sum"))
    assert answers == sum(read(elb, "RequestCount", of_balancer, "Sum")) >= load.answers
    assert read(elb, "HTTPCode_Target_5XX_Count", of_balancer, "Sum") == []
    assert read(elb, "HealthyHostCount", of_group, "Maximum")[-1] == 2.0
    assert 0 < read(elb, "TargetResponseTime", of_balancer, "p99")[-1] < 30
    for name in ["CPUUtilization", "MemoryUtilization"]:
        shares = eventually(lambda: read("AWS/ECS", name, of_service, "Average"), name, 150)
        assert all(0 <= share <= 200 for share in shares)
    assert read("AWS/ECS", "CPUUtilization", of_service, "SampleCount")[-1] == 2.0, "one of each task"
    listed = cloudwatch.list_metrics(Namespace=elb, Dimensions=[{"Name": "LoadBalancer", "Value": path}])["Metrics"]
    assert "ProcessedBytes" in [metric["MetricName"] for metric in listed]
    balanced.clear("measured", balancer, group)
