"""Neargate as a service of systemd, from the unit in examples/, with what every task needs."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from conftest import BINARY, Neargate, Stack, eventually, push  # noqa: E402, F401

UNIT = ROOT / "examples" / "neargate.service"
COUNT = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.05; done"


def systemctl(*words, check=True):
    return subprocess.run(["systemctl", *words], check=check, capture_output=True, text=True).stdout.strip()


class Service(Neargate):
    """The default data directory and address: as a user has it."""

    def __init__(self):
        super().__init__(Path("/var/lib/neargate"), 4566)

    def install(self):
        """Afresh."""
        systemctl("stop", "neargate", check=False)
        shutil.rmtree(self.data_dir, ignore_errors=True)
        shutil.copy2(BINARY, "/usr/local/bin/neargate")
        shutil.copy2(UNIT, "/etc/systemd/system/")
        systemctl("daemon-reload")
        systemctl("enable", "--now", "neargate")

    def pid(self):
        return systemctl("show", "--property=MainPID", "--value", "neargate")


def numbers(stack, task):
    """The lines of `COUNT` that are in the log."""
    stream = f"t/main/{task.rsplit('/', 1)[1]}"
    pages = stack.logs.get_paginator("filter_log_events").paginate(logGroupName="/tests", logStreamNames=[stream])
    return [int(event["message"].split()[1]) for page in pages for event in page["events"]]
