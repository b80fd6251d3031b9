"""A virtual machine of qemu that forgets everything when it is switched off, but not when it is reset."""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path


class Machine:
    """`directory` holds what `build-image` made; `payload` is a disk that appears at /neargate."""

    def __init__(self, directory, payload):
        self.directory, self.payload = Path(directory), Path(payload)
        self.console = self.directory / "console.log"
        self.qmp = self.directory / "qmp.sock"
        self.process = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def boot(self):
        # Emulation works everywhere; who has KVM, and wants it, says so.
        fast = os.environ.get("NEARGATE_VM_ACCEL", "tcg") == "kvm"
        self.qmp.unlink(missing_ok=True)
        words = ["-accel", "kvm", "-cpu", "host"] if fast else ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]
        words += ["-machine", "q35", "-smp", "2", "-m", "3072", "-nodefaults", "-display", "none"]
        words += ["-serial", f"file:{self.console}", "-qmp", f"unix:{self.qmp},server=on,wait=off"]
        words += ["-kernel", self.directory / "vmlinuz", "-initrd", self.directory / "initrd"]
        words += ["-append", "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0"]
        for disk in (self.directory / "disk", self.payload):
            words += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
        # Nothing inside reaches the host's network; only ssh comes in.
        words += ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        words += ["-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci"]
        self.process = subprocess.Popen(["qemu-system-x86_64", *map(str, words)])
        self.wait_up()

    def wait_up(self, seconds=900):
        """Waits until the machine has booted; a bound, not a timing."""
        end = time.monotonic() + seconds
        while self.ssh("systemctl is-system-running --wait >/dev/null; true", check=False, quiet=True).returncode != 0:
            if self.process.poll() is not None:
                raise SystemExit(f"qemu ended with {self.process.returncode}")
            if time.monotonic() > end:
                raise SystemExit(f"the machine does not come up; see {self.console}")
            time.sleep(2)

    def ssh(self, command, check=True, quiet=False, **more):
        """Runs a command of the shell in a session of its own."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=30"]
        words = ["ssh", "-i", self.directory / "key", "-p", str(self.port)]
        words += [word for option in options for word in ("-o", option)]
        if quiet:
            more["stdout"] = more["stderr"] = subprocess.DEVNULL
        return subprocess.run([*words, "root@127.0.0.1", command], check=check, **more)

    def monitor(self, command):
        with socket.socket(socket.AF_UNIX) as qmp:
            qmp.connect(str(self.qmp))
            stream = qmp.makefile("rw")
            stream.readline()
            for name in ("qmp_capabilities", command):
                stream.write(json.dumps({"execute": name}) + "\n")
                stream.flush()
                while "return" not in json.loads(stream.readline()):
                    pass  # an event

    def reset(self):
        """As if the power had failed for a moment."""
        before = self.boot_id()
        self.monitor("system_reset")
        # The old system must not be taken for the new one.
        time.sleep(5)
        self.wait_up()
        assert self.boot_id() != before, "it was not reset"

    def boot_id(self):
        words = "cat /proc/sys/kernel/random/boot_id"
        return self.ssh(words, capture_output=True, text=True).stdout.strip()

    def off(self):
        if self.process and self.process.poll() is None:
            self.monitor("quit")
            self.process.wait()


def payload(path, staging, files):
    """Makes a disk of files: `{name inside: file or directory}`."""
    shutil.rmtree(staging, ignore_errors=True)
    for name, source in files.items():
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if Path(source).is_dir() else shutil.copy2
        copy(source, target)
    path.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", staging, path, "4G"], check=True)
    shutil.rmtree(staging)
