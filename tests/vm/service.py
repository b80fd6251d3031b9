"""Under systemd, with cgroups version 2: what systemd does to its services and to the hierarchy leaves tasks alone."""

import subprocess
from pathlib import Path

import pytest

from unit import COUNT, Service, Stack, eventually, numbers, push, systemctl


@pytest.fixture(scope="module")
def service():
    service = Service()
    service.install()
    yield service
    service.cli("down")
    # `down` is an orderly end, so that systemd does not start it again.
    eventually(lambda: systemctl("is-active", "neargate", check=False) == "inactive", "it stays down")
    assert systemctl("show", "--property=Result", "--value", "neargate") == "success"
    assert not list(Path("/sys/fs/cgroup").glob("neargate-*")), "no cgroup is left"
    systemctl("disable", "neargate")


@pytest.fixture(scope="module")
def stack(service, tmp_path_factory):
    stack = Stack(service)
    stack.image = push(service, tmp_path_factory.mktemp("image"), "service")
    return stack


def cgroup(task):
    [found] = Path("/sys/fs/cgroup").glob(f"neargate-*/{task.rsplit('/', 1)[1]}")
    return found


def test_the_unified_hierarchy_is_what_is_used(service):
    checks = service.cli("doctor").stdout
    assert "version 2" in checks
    assert not Path("/sys/fs/cgroup/memory").is_dir()


def test_systemctl_start_returns_when_it_is_ready(service):
    assert systemctl("is-active", "neargate") == "active"
    assert service.client("sts").get_caller_identity()["Account"] == "123456789012"


def test_tasks_outlive_stop_start_and_restart(service, stack):
    task = stack.run(stack.container(command=COUNT))
    stack.status(task, "RUNNING")
    eventually(lambda: len(numbers(stack, task)) > 3, "lines")
    systemctl("restart", "neargate")
    systemctl("stop", "neargate")
    assert cgroup(task).joinpath("cgroup.events").read_text().startswith("populated 1")
    systemctl("start", "neargate")
    assert stack.describe(task)["lastStatus"] == "RUNNING"
    before = max(numbers(stack, task))
    eventually(lambda: max(numbers(stack, task)) > before + 5, "lines after the return")
    seen = numbers(stack, task)
    assert seen == list(range(1, len(seen) + 1)), "each line once, none lost"
    stack.ecs.stop_task(cluster="tests", task=task)
    stack.status(task, "STOPPED")


def test_a_crash_is_followed_by_a_start(service, stack):
    task = stack.run(stack.container(command="sleep 1000"))
    stack.status(task, "RUNNING")
    before = service.pid()
    subprocess.run(["kill", "-9", before], check=True)
    eventually(lambda: service.pid() not in ("0", before), "another serve")
    eventually(lambda: systemctl("is-active", "neargate", check=False) == "active", "it is ready")
    assert stack.describe(task)["lastStatus"] == "RUNNING"
    stack.ecs.stop_task(cluster="tests", task=task)
    stack.status(task, "STOPPED")


def test_limits_stay_when_systemd_reloads_its_units(stack):
    task = stack.run(stack.container(command="sleep 1000"), cpu="512", memory="1024")
    stack.status(task, "RUNNING")
    limits = {"memory.max": str(1 << 30), "memory.swap.max": "0", "cpu.max": "50000 100000"}
    look = lambda: {name: (cgroup(task) / name).read_text().strip() for name in limits}  # noqa: E731
    assert look() == limits
    systemctl("daemon-reexec")
    systemctl("daemon-reload")
    # A slice with no controllers of its own makes systemd look at the whole hierarchy again.
    subprocess.run(["systemd-run", "--quiet", "--wait", "--property=MemoryMax=64M", "true"], check=True)
    assert look() == limits
    stack.ecs.stop_task(cluster="tests", task=task)
    stack.status(task, "STOPPED")
