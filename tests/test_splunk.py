"""The log driver splunk: output goes to an HTTP Event Collector."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import ClientError

from conftest import eventually


class Collector:
    """What takes events, as Splunk's HTTP Event Collector does."""

    def __init__(self):
        self.events, self.broken, collector = [], False, self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_OPTIONS(self):
                self.answer(200)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if self.path != "/services/collector/event/1.0" or self.headers["Authorization"] != "Splunk t-o-k-e-n":
                    return self.answer(403)
                if collector.broken:
                    return self.answer(503)
                collector.events += [json.loads(line) for line in body.splitlines()]
                self.answer(200)

            def answer(self, status):
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.server.shutdown()


def writer(stack, text, secrets=(), **options):
    log = {"logDriver": "splunk", "options": {f"splunk-{key}": value for key, value in options.items()}, "secretOptions": list(secrets)}
    return {**stack.container("main", text), "logConfiguration": log}


def test_output_goes_to_a_collector(stack, collector):
    stack.neargate.client("secretsmanager").create_secret(Name="splunk", SecretString="t-o-k-e-n")
    arn = stack.neargate.client("secretsmanager").describe_secret(SecretId="splunk")["ARN"]
    statement = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn}
    stack.iam.put_role_policy(
        RoleName="execution", PolicyName="splunk", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    secret = [{"name": "splunk-token", "valueFrom": arn}]
    text = "echo '{\"a\": 1}'; echo plain >&2; sleep 600"
    task = stack.run(writer(stack, text, secret, url=collector.url, format="json", index="main", source="web", sourcetype="_json"))
    stack.status(task, "RUNNING")
    eventually(lambda: len(collector.events) == 2, "two events", 60)
    by_stream = {event["event"]["source"]: event for event in collector.events}
    assert by_stream["stdout"]["event"]["line"] == {"a": 1} and by_stream["stderr"]["event"]["line"] == "plain"
    assert {key: by_stream["stdout"][key] for key in ["index", "source", "sourcetype"]} == {"index": "main", "source": "web", "sourcetype": "_json"}
    assert abs(float(by_stream["stdout"]["time"]) - stack.describe(task)["createdAt"].timestamp()) < 120
    stack.ecs.stop_task(cluster="tests", task=task)
    stack.status(task, "STOPPED")


def test_a_collector_that_is_away_gets_what_it_missed(stack, collector):
    text = "sleep 2; i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; done; sleep 600"
    task = stack.run(writer(stack, text, token="t-o-k-e-n", url=collector.url, format="raw"))
    collector.broken = True
    stack.status(task, "RUNNING")
    stack.neargate.kill()
    stack.neargate.start()
    collector.broken = False
    words = lambda: [event["event"].split(" ", 1)[1] for event in collector.events]
    eventually(lambda: sorted(set(words()), key=words().index) == [f"line {i}" for i in range(1, 21)], "all lines", 60)
    stack.ecs.stop_task(cluster="tests", task=task)
    stack.status(task, "STOPPED")


def test_a_task_does_not_start_without_its_collector(stack):
    ended = stack.finish(writer(stack, "true", token="t", url="http://127.0.0.1:9"))
    assert ended["stopCode"] == "TaskFailedToStart"
    assert "failed to validate logger args: splunk:" in ended["stoppedReason"]


@pytest.mark.parametrize("options, words", [({"token": "t"}, "requires options: splunk-url"), ({"token": "t", "url": "u", "capath": "/x"}, "splunk-capath")])
def test_options_are_checked(stack, options, words):
    with pytest.raises(ClientError, match=words):
        stack.define(writer(stack, "true", **options))
