"""Machines that do not suit: no root, no nft, no cgroups, a full disk. Each is told, and nothing is lost or left."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import BINARY, PORT, Neargate, Stack, eventually, push


def serve(directory, *before, **environment):
    """Tries to serve where it cannot; answers what it says."""
    words = [*before, BINARY, "--data-dir", directory / "data", "serve", "--listen", f"127.0.0.1:{PORT + 8}"]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    assert run.returncode == 1 and "ready" not in run.stdout
    return run.stderr


def left_over():
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    run = Path("/run/neargate")
    return sorted(routes.splitlines()), sorted(run.iterdir()) if run.exists() else []


def test_without_root():
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        program = shutil.copy(BINARY, directory)
        drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program]
        for command in ["serve", "up"]:
            words = [*drop, "--data-dir", f"{directory}/data", command]
            run = subprocess.run(words, capture_output=True, text=True, timeout=60)
            assert run.returncode == 1 and "needs root" in run.stderr
            assert f"sudo neargate {command}" in run.stderr


def test_without_nft(tmp_path):
    before = left_over()
    told = serve(tmp_path, PATH="/nowhere")
    assert "nft" in told and "install nftables" in told
    assert left_over() == before


def test_without_cgroups(tmp_path):
    before = left_over()
    told = serve(tmp_path, "unshare", "-m", "sh", "-c", 'umount -l /sys/fs/cgroup; exec "$@"', "sh")
    assert "cgroup" in told
    assert left_over() == before


@pytest.fixture
def overlaid(tmp_path_factory):
    """A directory on overlayfs, as in a container of Docker: overlayfs itself cannot write to such a one."""
    base = tmp_path_factory.mktemp("overlaid")
    disk, data = base / "disk", base / "data"
    for directory in (disk, data):
        directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)
    for name in ("lower", "upper", "work"):
        (disk / name).mkdir()
    options = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, data], check=True)
    yield data
    for directory in (data, disk):
        subprocess.run(["umount", "-l", directory], check=True)


def test_on_overlayfs_tasks_run_from_disks_of_their_own(overlaid, tmp_path):
    plane = Neargate(overlaid, PORT + 8).start()
    try:
        assert "MISSING" not in plane.cli("doctor").stdout
        stack = Stack(plane)
        stack.image = push(plane, tmp_path, "overlaid")
        ended = stack.finish(stack.container(command="echo here > /x && cat /x"))
        assert stack.lines(ended["taskArn"]) == ["here"], ended
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)


def test_where_overlayfs_does_not_work(overlaid, tmp_path):
    hide = "for f in /usr/sbin/mke2fs /sbin/mke2fs /usr/bin/mke2fs; do [ ! -e $f ] || mount --bind /dev/null $f; done"
    plane = Neargate(overlaid, PORT + 8)
    plane.start(before=["unshare", "-m", "sh", "-c", hide + '; exec "$@"', "sh"])
    try:
        told = plane.cli("doctor", check=False)
        assert told.returncode == 1 and "MISSING overlayfs" in told.stdout
        assert "without ephemeral storage limit" in told.stdout
        stack = Stack(plane)
        stack.image = push(plane, tmp_path, "nowhere")
        ended = stack.finish(stack.container(command="true"))
        assert ended["stopCode"] == "TaskFailedToStart"
        assert "overlay" in ended["stoppedReason"] + ended["containers"][0].get("reason", ""), ended
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)


@pytest.fixture
def small(tmp_path_factory):
    """A control plane whose data directory is a disk of 64 MB."""
    directory = tmp_path_factory.mktemp("small")
    disk = directory / "data"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
    plane = Neargate(disk, PORT + 9).start()
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "small")
    yield stack
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)
    subprocess.run(["umount", disk], check=True)


def numbers(stack, task):
    return [int(line.split()[1]) for line in stack.lines(task)]


def test_a_full_disk(small):
    plane = small.neargate
    task = small.run(small.container(command="i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done"))
    small.status(task, "RUNNING")
    eventually(lambda: len(numbers(small, task)) > 5, "lines")
    fill = os.open(plane.data_dir / "fill", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError):
        while True:
            os.write(fill, b"x" * 4096)
    # The store has room of its own for a while; then writes are refused as our fault, not the caller's.
    made = []

    def refused():
        try:
            user = small.iam.create_user(UserName=f"user-{len(made):05}" + "x" * 40)["User"]["UserName"]
            made.append(user)
        except small.iam.exceptions.ClientError as error:
            return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]

    code, status = eventually(refused, "a refusal", 60)
    assert status == 500 and code in ("InternalFailure", "ServiceFailure"), code
    assert small.describe(task)["lastStatus"] == "RUNNING"
    plane.kill()
    told = subprocess.run(
        [BINARY, "--data-dir", plane.data_dir, "serve", "--listen", plane.listen], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 1 and "No space left on device" in told.stderr
    os.close(fill)
    (plane.data_dir / "fill").unlink()
    plane.start()
    pages = small.iam.get_paginator("list_users").paginate()
    assert set(made) <= {user["UserName"] for page in pages for user in page["Users"]}, "every acknowledged write"
    small.iam.create_user(UserName="after")
    before = max(numbers(small, task))
    eventually(lambda: max(numbers(small, task)) > before + 20, "lines after the disk has room again")
    seen = numbers(small, task)
    assert seen == list(range(1, len(seen) + 1)), "each line once, none lost"
