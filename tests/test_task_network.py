"""What happens to connections inside a task: its proxy takes them, or faults that it asked for befall them."""

import json
import urllib.request

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_software import container, python

# A proxy like App Mesh's Envoy: it takes connections and answers whom they were for.
PROXY = """
import socket, struct, threading
SO_ORIGINAL_DST = 80

def serve(port, name):
    server = socket.create_server(("0.0.0.0", port))
    while True:
        connection, _ = server.accept()
        place = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port_, address = struct.unpack("!2xH4s", place[:8])
        body = f"{name} {socket.inet_ntoa(address)}:{port_}"
        connection.recv(65536)
        connection.sendall(f"HTTP/1.0 200 OK\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n{body}".encode())
        connection.close()

threading.Thread(target=serve, args=(15000, "ingress"), daemon=True).start()
threading.Thread(target=serve, args=(15001, "egress"), daemon=True).start()
import time, urllib.request
time.sleep(1)
try:
    urllib.request.urlopen("http://10.250.0.1:15001/", timeout=2)
    print("its own connections come back to it", flush=True)
except OSError:
    print("its own connections are let be", flush=True)
threading.Event().wait()
"""

APP = """
import time, urllib.request
time.sleep(2)
for place in ["10.250.0.1:80", "10.250.0.1:8081", "10.251.0.1:80"]:
    try:
        print(place, urllib.request.urlopen(f"http://{place}/", timeout=2).read().decode(), flush=True)
    except OSError as error:
        print(place, "is let be", flush=True)
import os
print(len(urllib.request.urlopen(os.environ["ECS_CONTAINER_METADATA_URI_V4"]).read()) > 100, flush=True)
import http.server
http.server.HTTPServer(("0.0.0.0", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def properties(**more):
    values = {
        "IgnoredUID": "1337",
        "ProxyIngressPort": "15000",
        "ProxyEgressPort": "15001",
        "AppPorts": "8080",
        "EgressIgnoredPorts": "8081",
        "EgressIgnoredIPs": "169.254.170.2,10.251.0.0/16",
        **more,
    }
    return [{"name": name, "value": value} for name, value in values.items() if value is not None]


def test_a_proxy_takes_a_tasks_connections(software):
    proxy = container(software, "envoy", python(PROXY), user="1337")
    task = software.run(
        container(software, "app", python(APP)),
        proxy,
        proxyConfiguration={"type": "APPMESH", "containerName": "envoy", "properties": properties()},
    )
    software.status(task, "RUNNING")
    expected = ["10.250.0.1:80 egress 10.250.0.1:80", "10.250.0.1:8081 is let be", "10.251.0.1:80 is let be", "True"]
    eventually(lambda: software.lines(task, "app") == expected, "the proxy's answers", 60)
    eventually(lambda: software.lines(task, "envoy") == ["its own connections are let be"], "the proxy's own")
    url = f"http://{software.address(task)}:8080/"
    assert urllib.request.urlopen(url, timeout=5).read().decode() == f"ingress {software.address(task, 'private')}:8080"
    found = software.ecs.describe_task_definition(taskDefinition=software.describe(task)["taskDefinitionArn"])
    assert found["taskDefinition"]["proxyConfiguration"]["properties"] == properties()
    software.ecs.stop_task(cluster="tests", task=task)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"properties": properties(IgnoredUID=None)}, "IgnoredUID or IgnoredGID"),
        ({"properties": properties(AppPorts="http")}, "Invalid value 'http'"),
        ({"properties": properties(ProxyEgressPort="70000")}, "Invalid value '70000'"),
        ({"properties": properties(EgressIgnoredIPs="10.0.0.0/33; drop")}, "Invalid value"),
        ({"properties": properties(Other="1")}, "no property Other"),
        ({"containerName": "nobody"}, "'nobody' is not in the task definition"),
    ],
)
def test_a_proxy_is_checked(stack, change, words):
    configuration = {"type": "APPMESH", "containerName": "main", "properties": properties(), **change}
    with pytest.raises(ClientError, match=words):
        stack.define(stack.container(), proxyConfiguration=configuration)


# Asks for faults and says what came of them. SERVER is the other task's address.
FAULTS = """
import json, os, socket, sys, time, urllib.error, urllib.request

def ask(what, **body):
    url = os.environ["ECS_AGENT_URI"] + "/fault/v1/" + what
    try:
        return urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), method="POST")).read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"

def reaches(seconds=3):
    begin = time.monotonic()
    try:
        socket.create_connection((SERVER, 8080), seconds).close()
        return True
    except OSError:
        return False

def say(*words):
    print(*words, flush=True)
"""

PORT = dict(Port=8080, Protocol="tcp", TrafficType="egress")


def faulty(software, script, enabled=True, **more):
    task = software.run(container(software, words=python(FAULTS + script), **more), enableFaultInjection=enabled)
    software.status(task, "STOPPED")
    return software.lines(task)


@pytest.fixture(scope="module")
def server(software):
    script = "import http.server as h; h.HTTPServer(('0.0.0.0', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
    task = software.run(container(software, words=python(script)))
    software.status(task, "RUNNING")
    yield software.address(task, "private")
    software.ecs.stop_task(cluster="tests", task=task)


def test_faults_befall_who_asks_for_them(software, server):
    script = f"""
SERVER = {server!r}
while not reaches(): time.sleep(0.1)
hole = {PORT!r}
say(ask("network-blackhole-port/status", **hole), ask("network-blackhole-port/start", **hole), reaches())
say(ask("network-blackhole-port/status", **hole), ask("network-blackhole-port/stop", **hole), reaches())
spared = dict(hole, SourcesToFilter=[SERVER])
say(ask("network-blackhole-port/start", **spared), reaches(), ask("network-blackhole-port/stop", **spared))
loss = dict(LossPercent=100, Sources=[SERVER])
say(ask("network-packet-loss/start", **loss), reaches(), ask("network-packet-loss/start", **loss))
say(ask("network-packet-loss/status"), ask("network-packet-loss/stop"), reaches())
say(ask("network-packet-loss/status"))
"""
    assert faulty(software, script) == [
        '{"Status":"not-running"} {"Status":"running"} False',
        '{"Status":"running"} {"Status":"stopped"} True',
        '{"Status":"running"} True {"Status":"stopped"}',
        '{"Status":"running"} False 409 {"Error":"There is already one network packet loss fault running"}',
        '{"Status":"running"} {"Status":"stopped"} True',
        '{"Status":"not-running"}',
    ]


def test_packets_are_late_where_the_kernel_can(software, server):
    script = f"""
SERVER = {server!r}
while not reaches(): time.sleep(0.1)
say(ask("network-latency/start", DelayMilliseconds=500, JitterMilliseconds=0, Sources=[SERVER]))
begin = time.monotonic()
reaches()
say(time.monotonic() - begin > 0.45, ask("network-latency/status"))
say(ask("network-latency/stop"), reaches())
"""
    started, during, after = faulty(software, script)
    if "netem" in started:
        assert started.startswith("500 ") and during == 'False {"Status":"not-running"}'
    else:
        assert (started, during) == ('{"Status":"running"}', 'True {"Status":"running"}')
    assert after == '{"Status":"stopped"} True'


def test_faults_are_checked(software, server):
    script = f"""
SERVER = {server!r}
say(ask("network-blackhole-port/start", Protocol="tcp", TrafficType="egress"))
say(ask("network-blackhole-port/start", Port=1, Protocol="icmp", TrafficType="egress"))
say(ask("network-packet-loss/start", LossPercent=101, Sources=["10.0.0.1"]))
say(ask("network-packet-loss/start", LossPercent=1, Sources=["10.0.0.1; flush ruleset"]))
say(ask("network-latency/start", DelayMilliseconds=1, JitterMilliseconds=1))
say(ask("network-other/start"))
"""
    assert faulty(software, script) == [
        '400 {"Error":"required parameter Port is missing"}',
        '400 {"Error":"invalid value icmp for parameter Protocol"}',
        '400 {"Error":"invalid value 101 for parameter LossPercent"}',
        '400 {"Error":"invalid value 10.0.0.1; flush ruleset for parameter Sources"}',
        '400 {"Error":"required parameter Sources is missing"}',
        '404 {"Error":"404 page not found"}',
    ]
    refused = faulty(software, f"say(ask('network-blackhole-port/start', **{PORT!r}))", enabled=False)
    assert len(refused) == 1 and refused[0].startswith('400 {"Error":"enableFaultInjection is not enabled for task: arn:')
