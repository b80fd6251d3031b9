"""Start-up, memory, RunTask to RUNNING, 100 tasks, durable writes: beside runc and moto, in one run.

usage: bench/tasks.py NEARGATE   (needs root, runc, and moto in the environment)
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from botocore.config import Config

NEARGATE = Path(sys.argv[1]).resolve()
WORK = Path(tempfile.mkdtemp())
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def milliseconds(seconds):
    return f"{seconds * 1000:.0f} ms"


def percentiles(samples):
    ordered = sorted(samples)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def resident_mib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def private_mib(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def first_answer(start, port, pid_of):
    """Seconds from starting a server to its first HTTP answer."""
    began = time.monotonic()
    process = start()
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            time.sleep(0.001)
    return time.monotonic() - began, process


def client(service, endpoint, key, secret):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}, max_pool_connections=64),
    )


def writes(make, count, clients):
    """Writes per second of `make(i)` by so many clients."""
    def work(worker):
        for i in range(count // clients):
            make(worker, i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(clients)]
    began = time.monotonic()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return count / (time.monotonic() - began)


def image():
    """A busybox image as an OCI layout, and a registry of our own that serves it."""
    shutil.copy(shutil.which("busybox"), WORK / "busybox")
    (WORK / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "sleep", "1000"]\n')
    subprocess.run(["buildah", "bud", "--isolation", "chroot", "-q", "-t", "neargate-bench", WORK], check=True, **QUIET)
    layout = WORK / "image"
    subprocess.run(["skopeo", "copy", "-q", "containers-storage:localhost/neargate-bench", f"dir:{layout}"], check=True)

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rsplit("/", 1)[1]
            path = layout / (name.split(":")[1] if name.startswith("sha256:") else "manifest.json")
            body = path.read_bytes() if self.path.rstrip("/") != "/v2" else b"{}"
            kind = "application/vnd.oci.image.manifest.v1+json" if "manifests" in self.path else "application/octet-stream"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}/bench:latest"


def runc(times):
    """Seconds of `runc run` of the same command, without any network."""
    bundle = WORK / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    shutil.copy(WORK / "busybox", bundle / "rootfs/bin/busybox")
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = ["/bin/busybox", "true"]
    config["process"]["terminal"] = False
    (bundle / "config.json").write_text(json.dumps(config))
    samples = []
    for number in range(times):
        began = time.monotonic()
        subprocess.run(["runc", "run", f"bench-{number}"], cwd=bundle, check=True, stdin=subprocess.DEVNULL, **QUIET)
        samples.append(time.monotonic() - began)
    return percentiles(samples)


def main():
    rows = []
    command = [NEARGATE, "--data-dir", WORK / "data", "serve", "--listen", "127.0.0.1:4599"]
    subprocess.run([NEARGATE, "version"], **QUIET)
    starts = []
    for _ in range(5):
        seconds, process = first_answer(lambda: subprocess.Popen(command, **QUIET), 4599, None)
        starts.append(seconds)
        process.kill()
        process.wait()
    seconds, serve = first_answer(lambda: subprocess.Popen(command, **QUIET), 4599, None)
    env = json.loads(subprocess.run([NEARGATE, "--data-dir", WORK / "data", "--output", "json", "env"], capture_output=True, check=True).stdout)
    moto = [sys.executable, "-m", "moto.server", "-p", "4600"]
    moto_start, moto_process = first_answer(lambda: subprocess.Popen(moto, **QUIET), 4600, None)
    rows.append(("start to first answer", milliseconds(statistics.median(starts)), f"moto {milliseconds(moto_start)}", statistics.median(starts) / moto_start))
    rows.append(("idle memory of serve", f"{resident_mib(serve.pid):.1f} MiB", f"moto {resident_mib(moto_process.pid):.1f} MiB", resident_mib(serve.pid) / resident_mib(moto_process.pid)))

    ours = (env["AWS_ENDPOINT_URL"], env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
    theirs = ("http://127.0.0.1:4600", "key", "secret")
    for clients in (1, 16):
        rates = []
        for name, who in (("ours", ours), ("moto", theirs)):
            iams = [client("iam", *who) for _ in range(clients)]
            rates.append(writes(lambda w, i: iams[w].create_user(UserName=f"{name}-{clients}-{w}-{i}"), 480, clients))
        rows.append((f"CreateUser, {clients} clients (boto3 bound)", f"{rates[0]:.0f}/s durable", f"moto {rates[1]:.0f}/s in memory", rates[0] / rates[1]))

    ecs, ec2 = client("ecs", *ours), client("ec2", *ours)
    ecs.create_cluster(clusterName="bench")
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
    ecs.register_task_definition(
        family="bench", requiresCompatibilities=["FARGATE"], networkMode="awsvpc", cpu="256", memory="512",
        containerDefinitions=[{"name": "main", "image": image(), "stopTimeout": 0}],
    )
    network = {"awsvpcConfiguration": {"subnets": subnets}}

    def run(count):
        answer = ecs.run_task(cluster="bench", launchType="FARGATE", taskDefinition="bench", count=count, networkConfiguration=network)
        return [task["taskArn"] for task in answer["tasks"]]

    def wait(tasks, status):
        while True:
            found = []
            for at in range(0, len(tasks), 100):
                found += ecs.describe_tasks(cluster="bench", tasks=tasks[at:at + 100])["tasks"]
            bad = [task for task in found if task["lastStatus"] == "STOPPED" and status != "STOPPED"]
            assert not bad, bad[0]["stoppedReason"]
            if all(task["lastStatus"] == status for task in found):
                return found
            time.sleep(0.002)

    samples = []
    for number in range(52):
        found = wait(run(1), "RUNNING")[0]
        if number > 1:
            samples.append((found["startedAt"] - found["createdAt"]).total_seconds())
        ecs.stop_task(cluster="bench", task=found["taskArn"])
        wait([found["taskArn"]], "STOPPED")
    p50, p99 = percentiles(samples)
    r50, r99 = runc(50)
    rows.append(("RunTask to RUNNING p50 (own network)", milliseconds(p50), f"runc run, no network {milliseconds(r50)}", p50 / r50))
    rows.append(("RunTask to RUNNING p99", milliseconds(p99), f"runc run {milliseconds(r99)}", p99 / r99))
    began = time.monotonic()
    tasks = [task for _ in range(10) for task in run(10)]
    wait(tasks, "RUNNING")
    hundred = time.monotonic() - began
    rows.append(("100 tasks from zero", f"{hundred:.1f} s", f"100 × runc run {100 * r50:.1f} s", hundred / (100 * r50)))
    shims = subprocess.run(["pgrep", "-f", f"shim --task-dir {WORK}"], capture_output=True, text=True).stdout.split()
    shim = statistics.median(private_mib(pid) for pid in shims)
    rows.append(("a shim's private memory", f"{shim:.1f} MiB", "budget 3 MiB", shim / 3))
    rows.append(("serve with 100 tasks", f"{resident_mib(serve.pid):.1f} MiB", "", float("nan")))
    print("| what | Neargate | beside | ratio |\n| --- | --- | --- | --- |")
    for what, ours_text, beside, ratio in rows:
        print(f"| {what} | {ours_text} | {beside} | {ratio:.2f} |")
    subprocess.run([NEARGATE, "--data-dir", WORK / "data", "down"], **QUIET)
    moto_process.kill()
    subprocess.run(["buildah", "rmi", "-f", "neargate-bench"], **QUIET)
    shutil.rmtree(WORK, ignore_errors=True)


main()
