"""The program is replaced by another build of it: control plane and data plane change under load, and no request fails."""

import os
import shutil
import socket
import subprocess

import pytest

from conftest import BINARY, PORT, Neargate, Stack, eventually, push
from test_service_balanced import LISTENER, Balanced, Load, fetch


def answer(stream):
    """An answer with its body, a word and the end of the line."""
    heard = b""
    while not (b"\r\n\r\n" in heard and heard.endswith((b"one\n", b"two\n"))):
        some = stream.recv(65536)
        assert some, heard
        heard += some
    return heard


def balancer_processes(plane):
    """The data planes of a data directory: their ids, and which program they run."""
    found = {}
    for line in subprocess.run(["pgrep", "-af", f"balancer {plane.data_dir}"], capture_output=True, text=True).stdout.splitlines():
        process = int(line.split()[0])
        try:
            found[process] = os.stat(f"/proc/{process}/exe").st_ino
        except OSError:
            continue
    return found


@pytest.fixture
def upgraded(tmp_path_factory, neargate):
    directory = tmp_path_factory.mktemp("upgraded")
    program = directory / "neargate"
    shutil.copy(BINARY, program)
    plane = Neargate(directory / "data", PORT + 13, program).start()
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "upgraded")
    yield Balanced(stack), plane, program
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


def test_another_build_takes_over(upgraded):
    balanced, plane, program = upgraded
    balancer, group = balanced.balancer("build"), balanced.group("build")
    balanced.listener(balancer, group)
    balanced.service("build", balanced.page("one"), 2, group)
    balanced.steady("build")
    host = balancer["DNSName"]
    eventually(lambda: fetch(f"http://{host}:{LISTENER}/") == "one", "it answers")
    [(old, of_old)] = balancer_processes(plane).items()
    # One that waits for its next request, and one that is in the middle of one.
    waiting, halfway = (socket.create_connection(("127.0.0.1", LISTENER), timeout=10) for _ in range(2))
    ask = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    waiting.sendall(ask)
    assert b"200 OK" in answer(waiting)
    halfway.sendall(ask[:20])
    with Load(host, LISTENER) as kept, Load(host, LISTENER, keep_alive=False) as fresh:
        eventually(lambda: kept.answers > 100 and fresh.answers > 100, "requests are answered")
        plane.kill()
        shutil.copy(BINARY, program.with_suffix(".new"))
        os.replace(program.with_suffix(".new"), program)
        plane.start()
        new = eventually(lambda: [p for p, of in balancer_processes(plane).items() if of != of_old], "a new one runs")
        counts = kept.answers, fresh.answers
        eventually(lambda: kept.answers > counts[0] + 200 and fresh.answers > counts[1] + 200, "requests are answered")
        # What is configured reaches the new one.
        balanced.update("build", taskDefinition=balanced.page("two"))
        balanced.steady("build")
        eventually(lambda: fetch(f"http://{host}:{LISTENER}/") == "two", "the new version answers")
    assert kept.failures == fresh.failures == []
    halfway.sendall(ask[20:])
    heard = answer(halfway)
    assert b"200 OK" in heard and b"connection: close" in heard.lower(), "the old one sees it through, and lets go"
    waiting.sendall(ask)
    assert b"200 OK" in answer(waiting)
    eventually(lambda: list(balancer_processes(plane)) == new, "the old one is over", 60)
    # The lock went with the sockets: a third one keeps out.
    third = subprocess.run([program, "balancer", plane.data_dir / "balancer"], capture_output=True, text=True, timeout=20)
    assert third.returncode != 0 and "another balancer runs" in third.stderr + third.stdout
    assert fetch(f"http://{host}:{LISTENER}/") == "two"
    balanced.clear("build", balancer, group)
