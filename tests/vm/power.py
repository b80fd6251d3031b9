"""The power fails while tasks run; afterwards every acknowledged write is there and nothing else is left over.
usage: power.py before|after"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from unit import COUNT, ROOT, Service, Stack, eventually, numbers, push, systemctl

NOTES = ROOT / "power.json"


def before():
    service = Service()
    service.install()
    stack = Stack(service)
    with tempfile.TemporaryDirectory() as directory:
        stack.image = push(service, Path(directory), "power")
    task = stack.run(stack.container(command=COUNT))
    stack.status(task, "RUNNING")
    over = stack.finish(stack.container(command="echo over; exit 3"))
    pending = stack.run(stack.container(image="127.0.0.1:1/nowhere:latest"))
    eventually(lambda: len(numbers(stack, task)) > 50, "lines")
    ssm = service.client("ssm")
    words = {"image": stack.image, "task": task, "over": over["taskArn"], "pending": pending, "written": 0, "line": 0}
    words["stack"] = {name: getattr(stack, name) for name in ("role", "subnet", "vpc", "open_group")}
    # Each round is acknowledged before it is noted, and the note is on the disk before the next one begins.
    for number in range(1, 40):
        ssm.put_parameter(Name=f"/power/{number}", Value=str(number), Type="SecureString")
        words["written"], words["line"] = number, max(numbers(stack, task))
        with open(NOTES, "w") as notes:
            json.dump(words, notes)
        subprocess.run(["sync", "-d", NOTES, NOTES.parent], check=True)
    # No orderly end: whoever started this resets the machine now.


def after():
    words = json.loads(NOTES.read_text())
    service = Service()
    assert systemctl("is-active", "neargate") == "active", systemctl("status", "neargate", check=False)
    stack = Stack.__new__(Stack)
    stack.neargate, stack.image, stack.families = service, words["image"], 0
    stack.__dict__.update(words["stack"])
    for name in ("ecs", "ec2", "iam", "logs"):
        setattr(stack, name, service.client(name))
    ssm = service.client("ssm")
    for number in range(1, words["written"] + 1):
        found = ssm.get_parameter(Name=f"/power/{number}", WithDecryption=True)["Parameter"]["Value"]
        assert found == str(number), "an acknowledged write is lost"

    ended = stack.status(words["task"], "STOPPED")
    print("the task that ran:", ended["stopCode"], "-", ended["stoppedReason"])
    assert ended["stoppedReason"]
    seen = numbers(stack, words["task"])
    assert seen == list(range(1, len(seen) + 1)), "a hole in the log"
    assert len(seen) >= words["line"], "a line that was read is lost"
    over = stack.describe(words["over"])
    assert over["containers"][0]["exitCode"] == 3
    assert stack.lines(words["over"]) == ["over"]
    assert stack.status(words["pending"], "STOPPED")["stoppedReason"]

    print(service.cli("doctor").stdout)
    data = service.data_dir
    eventually(lambda: not list((data / "tasks").iterdir()), "no task directory is left")
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if f"{data}/tasks" in line]
    assert not list(Path("/sys/fs/cgroup").glob("neargate-*/*"))

    page = "mkdir -p /tmp/w; echo again > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"
    task = stack.run(stack.container(command=page))
    stack.status(task, "RUNNING")
    url = f"http://{stack.address(task)}:8080/"
    fetch = ["python3", "-c", f"import urllib.request as u; print(u.urlopen('{url}', timeout=2).read())"]
    eventually(lambda: "again" in subprocess.run(fetch, capture_output=True, text=True).stdout, "a page")
    service.cli("down")
    print("after the power failed: well")


if __name__ == "__main__":
    {"before": before, "after": after}[sys.argv[1]]()
