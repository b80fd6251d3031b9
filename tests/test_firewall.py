"""A host whose firewall drops what it forwards, as Docker's does: tasks reach the outside all the same."""

import ctypes
import os
import subprocess
from contextlib import contextmanager

import pytest

from conftest import PORT, Neargate, Stack, eventually, push

HOST, OUTSIDE = f"ng-test-host-{os.getpid()}", f"ng-test-out-{os.getpid()}"
CLONE_NEWNET = 0x40000000


def run(words):
    subprocess.run(words.split(), check=True)


@contextmanager
def inside(namespace):
    """This process, in another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as before, open(f"/run/netns/{namespace}") as wanted:
        assert libc.setns(wanted.fileno(), CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), CLONE_NEWNET) == 0


@pytest.fixture
def host(tmp_path):
    """A host with Docker's rules, and an outside that serves a page at 203.0.113.2."""
    for namespace in [HOST, OUTSIDE]:
        run(f"ip netns add {namespace}")
        run(f"ip -n {namespace} link set lo up")
    run(f"ip -n {HOST} link add out0 type veth peer name in0 netns {OUTSIDE}")
    for namespace, link, address in [(HOST, "out0", "203.0.113.1/24"), (OUTSIDE, "in0", "203.0.113.2/24")]:
        run(f"ip -n {namespace} addr add {address} dev {link}")
        run(f"ip -n {namespace} link set {link} up")
    run(f"ip -n {HOST} route add default via 203.0.113.2")
    for rule in ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER", "-P FORWARD DROP"]:
        run(f"ip netns exec {HOST} iptables {rule}")
    (tmp_path / "index.html").write_text("outside\n")
    server = subprocess.Popen(
        ["ip", "netns", "exec", OUTSIDE, "busybox", "httpd", "-f", "-p", "203.0.113.2:80", "-h", str(tmp_path)]
    )
    with inside(HOST):
        yield
    server.kill()
    server.wait()
    for namespace in [HOST, OUTSIDE]:
        run(f"ip netns del {namespace}")


def test_tasks_get_out_past_dockers_firewall(host, tmp_path_factory):
    plane = Neargate(tmp_path_factory.mktemp("firewall") / "data", PORT + 7).start()
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "firewall")
    fetch = "timeout 3 wget -q -O - http://203.0.113.2/ || echo dropped"

    def seen():
        return stack.lines(stack.finish(stack.container(command=fetch))["taskArn"])

    assert seen() == ["outside"]
    # Docker that comes after us begins with rules of its own.
    run("iptables -F DOCKER-USER")
    assert "dropped" in seen()
    doctor = plane.cli("doctor", check=False).stdout
    assert "without forwarding" in doctor
    plane.cli("doctor", "--mend")
    assert seen() == ["outside"]
    plane.cli("down")
    plane.process.wait(timeout=60)
    rules = subprocess.run(["iptables", "-S", "DOCKER-USER"], capture_output=True, text=True, check=True).stdout
    assert rules == "-N DOCKER-USER\n", "down takes ours away"
