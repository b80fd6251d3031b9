"""FireLens: a container of the task takes the others' logs, filters them and sends them on."""

import json

import pytest
from botocore.exceptions import ClientError

from conftest import eventually

# What Fluent Bit does with the configuration that Fargate makes: a router of some forty lines, with the real msgpack.
ROUTER = r"""
import json, os, re, signal, socket, struct, sys, threading
import msgpack

sections = []
for line in open("/fluent-bit/etc/fluent-bit.conf"):
    if line.startswith("["):
        sections.append((line.strip()[1:-1], {}))
    elif line.strip():
        key, value = line.strip().split(" ", 1)
        sections[-1][1].setdefault(key, []).append(os.path.expandvars(value))

def matches(section, tag):
    return re.fullmatch(section["Match"][0].replace("*", ".*"), tag)

def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

def handle(tag, time, record):
    for kind, section in sections:
        if kind == "FILTER" and matches(section, tag):
            for wanted, key in [(True, "Regex"), (False, "Exclude")]:
                for rule in section.get(key, []):
                    field, pattern = rule.split(" ", 1)
                    if bool(re.search(pattern, record[field])) != wanted:
                        return
            for pair in section.get("Record", []):
                key, value = pair.split(" ", 1)
                record[key] = value
    for kind, section in sections:
        if kind == "OUTPUT" and matches(section, tag):
            seconds, nanoseconds = struct.unpack(">II", time.data)
            rest = {key: values[0] for key, values in section.items()}
            say(json.dumps({"tag": tag, "time": seconds, "record": record, "output": rest}))

def serve(connection):
    unpacker = msgpack.Unpacker()
    while data := connection.recv(65536):
        unpacker.feed(data)
        for tag, time, record in unpacker:
            handle(tag, time, record)

def listen(server):
    server.listen()
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
unix = socket.socket(socket.AF_UNIX)
unix.bind([section["unix_path"][0] for _, section in sections if "unix_path" in section][0])
tcp = socket.create_server(("127.0.0.1", 24224))
for server in [unix, tcp]:
    threading.Thread(target=listen, args=(server,), daemon=True).start()
say("ready")
signal.sigwait([signal.SIGTERM])
"""

FIRELENS = {"type": "fluentbit"}


def router(stack, script=ROUTER, **more):
    words = {"entryPoint": ["/usr/bin/python3", "-c"], "command": [script]}
    return {**stack.container("router", essential=False), "image": stack.debian, **words, "firelensConfiguration": FIRELENS, **more}


def sender(stack, text, name="main", secrets=(), **options):
    log = {"logDriver": "awsfirelens", "options": options, "secretOptions": list(secrets)}
    return {**stack.container(name, text), "logConfiguration": log}


def records(stack, task):
    lines = [line for line in stack.lines(task, "router") if line.startswith("{")]
    return [json.loads(line) for line in lines]


def test_logs_are_filtered_and_sent_on(software):
    software.neargate.client("ssm").put_parameter(Name="/firelens/key", Value="k-e-y", Type="SecureString")
    statement = {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": "arn:aws:ssm:*:*:parameter/firelens/key"}
    software.iam.put_role_policy(
        RoleName="execution", PolicyName="firelens", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    main = sender(
        software,
        "echo GET / 200; echo GET /health 200; echo oops >&2; echo $FLUENT_HOST:$FLUENT_PORT; sleep 600",
        secrets=[{"name": "apikey", "valueFrom": "/firelens/key"}],
        Name="datadog",
        Host="logs.example.com",
        **{"exclude-pattern": "/health"},
    )
    task = software.run(main, router(software))
    software.status(task, "RUNNING")
    found = eventually(lambda: len(records(software, task)) == 3 and records(software, task), "three lines of four", 60)
    by_log = {each["record"].pop("log"): each for each in found}
    assert set(by_log) == {"GET / 200", "oops", "127.0.0.1:24224"}
    assert by_log["oops"]["record"].pop("source") == "stderr"
    described = software.describe(task)
    one = by_log["GET / 200"]
    assert one["tag"] == f"main-firelens-{task.rsplit('/', 1)[1]}"
    assert abs(one["time"] - described["createdAt"].timestamp()) < 120
    runtime_id = next(c["runtimeId"] for c in described["containers"] if c["name"] == "main")
    assert one["record"] == {
        "container_id": runtime_id,
        "container_name": "main",
        "source": "stdout",
        "ecs_cluster": "tests",
        "ecs_task_arn": task,
        "ecs_task_definition": described["taskDefinitionArn"].rsplit("/", 1)[1],
    }
    assert one["output"] == {"Name": "datadog", "Match": "main-firelens*", "Host": "logs.example.com", "apikey": "k-e-y"}
    software.ecs.stop_task(cluster="tests", task=task)
    ended = {c["name"]: c for c in software.status(task, "STOPPED")["containers"]}
    assert ended["router"]["exitCode"] == 0


def test_logs_go_on_where_the_control_plane_was_killed(software):
    """Every line arrives; the last that were on their way may arrive twice."""
    text = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; usleep 10000; done; sleep 600"
    task = software.run(sender(software, text, Name="null"), router(software))
    software.status(task, "RUNNING")
    eventually(lambda: len(records(software, task)) > 50, "some lines", 60)
    software.neargate.kill()
    software.neargate.start()

    def all_of_them():
        logs = [each["record"]["log"] for each in records(software, task)]
        return sorted(set(logs), key=logs.index) == [f"line {i}" for i in range(1, 401)]

    eventually(all_of_them, "four hundred lines in their order", 60)
    software.ecs.stop_task(cluster="tests", task=task)
    software.status(task, "STOPPED")


def test_a_broken_router_holds_nothing_up(software):
    """A socket that leads out of the container is not followed, and the other containers' logs go on."""
    script = "import os, time; os.symlink('/run/docker.sock', '/var/run/fluent.sock'); print('made', flush=True); time.sleep(600)"
    other = software.container("other", "i=0; while true; do i=$((i+1)); echo other $i; sleep 1; done")
    task = software.run(sender(software, "yes | head -n 1000; sleep 600", Name="null"), router(software, script), other)
    software.status(task, "RUNNING")
    eventually(lambda: len(software.lines(task, "other")) > 3, "the other container's lines", 90)
    assert software.lines(task, "router") == ["made"]
    software.ecs.stop_task(cluster="tests", task=task)
    software.status(task, "STOPPED")


@pytest.mark.parametrize(
    "containers, words",
    [
        (lambda stack: [sender(stack, "true")], "requires a container with a firelensConfiguration"),
        (lambda stack: [router(stack), router(stack, name="second")], "Only one container"),
        (lambda stack: [router(stack, logConfiguration={"logDriver": "awsfirelens"})], "cannot have the log driver awsfirelens"),
        (lambda stack: [router(stack, firelensConfiguration={"type": "fluentbit", "options": {"a": "b"}})], "disallows options: a"),
        (
            lambda stack: [router(stack, firelensConfiguration={"type": "fluentbit", "options": {"config-file-type": "s3"}})],
            "config-file-type 'file'",
        ),
        (
            lambda stack: [sender(stack, "true"), router(stack, dependsOn=[{"containerName": "main", "condition": "START"}])],
            "cannot depend on it",
        ),
    ],
)
def test_what_cannot_route_is_refused(software, containers, words):
    essential = software.container("essential", "true")
    with pytest.raises(ClientError, match=words) as error:
        software.define(essential, *containers(software))
    assert error.value.response["Error"]["Code"] == "ClientException"
