"""CloudWatch Logs by boto3 and the command line."""

import time

import pytest
from botocore.exceptions import ClientError


@pytest.fixture()
def logs(neargate):
    return neargate.client("logs")


def test_events_go_in_and_come_out(logs):
    now = int(time.time() * 1000)
    logs.create_log_group(logGroupName="/a")
    logs.create_log_stream(logGroupName="/a", logStreamName="one/two")
    events = [{"timestamp": now + i, "message": f'{{"n": {i}, "level": "{"ERROR" if i % 3 == 0 else "INFO"}"}}'} for i in range(30)]
    logs.put_log_events(logGroupName="/a", logStreamName="one/two", logEvents=events)
    page = logs.get_log_events(logGroupName="/a", logStreamName="one/two", limit=10, startFromHead=True)
    assert [event["timestamp"] - now for event in page["events"]] == list(range(10))
    page = logs.get_log_events(logGroupName="/a", logStreamName="one/two", limit=10, nextToken=page["nextForwardToken"])
    assert [event["timestamp"] - now for event in page["events"]] == list(range(10, 20))
    back = logs.get_log_events(logGroupName="/a", logStreamName="one/two", limit=10, nextToken=page["nextBackwardToken"])
    assert [event["timestamp"] - now for event in back["events"]] == list(range(10))
    last = logs.get_log_events(logGroupName="/a", logStreamName="one/two", limit=5)
    assert [event["timestamp"] - now for event in last["events"]] == list(range(25, 30))
    found = logs.filter_log_events(logGroupName="/a", filterPattern='{ $.level = "ERROR" && $.n > 10 }')
    assert [event["timestamp"] - now for event in found["events"]] == [12, 15, 18, 21, 24, 27]
    paginator = logs.get_paginator("filter_log_events")
    pages = list(paginator.paginate(logGroupName="/a", PaginationConfig={"PageSize": 7}))
    assert sum(len(page["events"]) for page in pages) == 30
    stream = logs.describe_log_streams(logGroupName="/a")["logStreams"][0]
    assert (stream["firstEventTimestamp"], stream["lastEventTimestamp"]) == (now, now + 29)
    logs.delete_log_stream(logGroupName="/a", logStreamName="one/two")
    logs.create_log_stream(logGroupName="/a", logStreamName="one/two")
    assert logs.get_log_events(logGroupName="/a", logStreamName="one/two")["events"] == []


def test_what_is_not_kept(logs):
    now = int(time.time() * 1000)
    day = 86_400_000
    logs.create_log_group(logGroupName="/b")
    logs.create_log_stream(logGroupName="/b", logStreamName="s")

    def put(*times):
        events = [{"timestamp": time, "message": "x"} for time in times]
        return logs.put_log_events(logGroupName="/b", logStreamName="s", logEvents=events)

    assert put(now - 15 * day)["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    assert put(now, now + 3 * 3_600_000)["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}
    for bad in [(now, now - 1), (now - 25 * 3_600_000, now)]:
        with pytest.raises(ClientError) as error:
            put(*bad)
        assert error.value.response["Error"]["Code"] == "InvalidParameterException"
    put(now - 5 * day)
    logs.put_retention_policy(logGroupName="/b", retentionInDays=3)
    assert [event["timestamp"] for event in logs.get_log_events(logGroupName="/b", logStreamName="s")["events"]] == [now]
    assert put(now - 5 * day)["rejectedLogEventsInfo"]["expiredLogEventEndIndex"] == 1
    with pytest.raises(ClientError):
        logs.put_retention_policy(logGroupName="/b", retentionInDays=4)
    logs.delete_retention_policy(logGroupName="/b")
    with pytest.raises(ClientError) as twice:
        logs.create_log_group(logGroupName="/b")
    assert twice.value.response["Error"]["Code"] == "ResourceAlreadyExistsException"
    logs.delete_log_group(logGroupName="/b")
    with pytest.raises(ClientError) as gone:
        logs.describe_log_streams(logGroupName="/b")
    assert gone.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_constraints_and_tags(logs):
    with pytest.raises(ClientError) as error:
        logs.create_log_group(logGroupName="no spaces")
    assert "1 validation error detected: Value 'no spaces' at 'logGroupName' failed to satisfy constraint" in str(error.value)
    logs.create_log_group(logGroupName="/tags", tags={"a": "1"})
    arn = logs.describe_log_groups(logGroupNamePrefix="/tags")["logGroups"][0]["logGroupArn"]
    logs.tag_resource(resourceArn=arn, tags={"b": "2"})
    logs.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "2"}


def test_the_command_line_prints_a_group(neargate, logs):
    logs.create_log_group(logGroupName="/cli")
    logs.create_log_stream(logGroupName="/cli", logStreamName="s")
    now = int(time.time() * 1000)
    logs.put_log_events(logGroupName="/cli", logStreamName="s", logEvents=[{"timestamp": now, "message": "a line"}])
    assert neargate.cli("logs", "/cli").stdout.endswith(" s a line\n")
    missing = neargate.cli("logs", "/nothing", check=False)
    assert missing.returncode == 1 and "no log group /nothing" in missing.stderr
