"""The control plane dies at any moment, and shims do: tasks go on, or end with an honest reason."""

import subprocess
import urllib.request

import pytest

from conftest import PORT, Neargate, Stack, eventually, push


@pytest.fixture(scope="module")
def mortal(tmp_path_factory, neargate):
    """A Neargate beside the other one, with everything in it."""
    directory = tmp_path_factory.mktemp("mortal")
    plane = Neargate(directory / "data", PORT + 1).start()
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "mortal")
    yield stack
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


COUNT = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done"


def numbers(stack, task):
    return [int(line.split()[1]) for line in stack.lines(task)]


def test_tasks_outlive_the_control_plane(mortal):
    plane = mortal.neargate
    page = "mkdir -p /tmp/w; echo alive > /tmp/w/index.html; /bin/busybox httpd -p 8080 -h /tmp/w; " + COUNT
    task = mortal.run(mortal.container(command=page))
    short = mortal.run(mortal.container(command="sleep 2; echo over; exit 7"))
    mortal.status(task, "RUNNING")
    mortal.status(short, "RUNNING")
    url = f"http://{mortal.address(task)}:8080/"
    eventually(lambda: len(numbers(mortal, task)) > 3, "lines")
    for _ in range(3):
        plane.kill()
        assert urllib.request.urlopen(url, timeout=3).read() == b"alive\n", "it serves without a control plane"
        plane.start()
        assert mortal.describe(task)["lastStatus"] == "RUNNING"
    before = max(numbers(mortal, task))
    eventually(lambda: max(numbers(mortal, task)) > before + 5, "lines after the return")
    seen = numbers(mortal, task)
    assert seen == list(range(1, len(seen) + 1)), "each line once, none lost"
    ended = mortal.status(short, "STOPPED")
    assert ended["containers"][0]["exitCode"] == 7
    eventually(lambda: mortal.lines(short) == ["over"], "the last line of a task that ended meanwhile")
    mortal.ecs.stop_task(cluster="tests", task=task)
    mortal.status(task, "STOPPED")


def test_a_killed_shim_ends_its_task_honestly(mortal):
    task = mortal.run(mortal.container(command="sleep 1000"))
    mortal.status(task, "RUNNING")
    directory = mortal.neargate.data_dir / "tasks" / task.rsplit("/", 1)[1]
    found = subprocess.run(["pgrep", "-f", f"shim.*{directory}"], capture_output=True, text=True).stdout.split()
    assert found, "its shim"
    subprocess.run(["kill", "-9", *found], check=True)
    ended = mortal.status(task, "STOPPED")
    assert "killed" in ended["stoppedReason"]
    assert not directory.exists()


def test_a_second_engine_and_a_taken_port(mortal):
    plane = mortal.neargate
    second = plane.cli("serve", "--listen", f"127.0.0.1:{PORT + 2}", check=False)
    assert second.returncode == 1 and "in use" in second.stderr
    other = plane.data_dir.parent / "other"
    words = ["--data-dir", other, "serve", "--listen", plane.listen]
    from conftest import BINARY

    taken = subprocess.run([BINARY, *words], capture_output=True, text=True)
    assert taken.returncode == 1 and "cannot listen" in taken.stderr
