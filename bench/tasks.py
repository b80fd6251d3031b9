"""Start-up, memory, RunTask to RUNNING, 100 tasks, durable writes: beside runc, docker and moto, in one run.

usage: bench/tasks.py NEARGATE   (needs root, runc, and moto in the environment; docker where a daemon answers)
"""

import base64
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


def image(ecr):
    """A busybox image, pushed to ECR (and given to docker, if it is there); answers how tasks name it."""
    shutil.copy(shutil.which("busybox"), WORK / "busybox")
    (WORK / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "sleep", "1000"]\n')
    subprocess.run(["buildah", "bud", "--isolation", "chroot", "-q", "-t", "neargate-bench", WORK], check=True, **QUIET)
    uri = ecr.create_repository(repositoryName="bench")["repository"]["repositoryUri"] + ":latest"
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    credentials = base64.b64decode(token).decode()
    source = "containers-storage:localhost/neargate-bench"
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", credentials, source, f"docker://{uri}"]
    subprocess.run(copy, check=True)
    if docker_version():
        archive = WORK / "image.tar"
        subprocess.run(["skopeo", "copy", "-q", source, f"docker-archive:{archive}:neargate-bench:latest"], check=True)
        subprocess.run(["docker", "load", "-q", "-i", archive], check=True, **QUIET)
    return uri


def docker_version():
    if not shutil.which("docker"):
        return None
    run = subprocess.run(["docker", "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


def docker(times, hundred):
    """Seconds of `docker run` until it answers (a bridge network of its own), and of a hundred, two at a time."""
    samples, names = [], []
    for number in range(times):
        began = time.monotonic()
        name = f"neargate-bench-{number}"
        subprocess.run(["docker", "run", "-d", "--name", name, "neargate-bench"], check=True, **QUIET)
        samples.append(time.monotonic() - began)
        names.append(name)
    began = time.monotonic()

    def some(worker):
        for number in range(hundred // 2):
            name = f"neargate-bench-{worker}-{number}"
            subprocess.run(["docker", "run", "-d", "--name", name, "neargate-bench"], check=True, **QUIET)

    threads = [threading.Thread(target=some, args=(worker,)) for worker in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    total = time.monotonic() - began
    pids = subprocess.run(["pgrep", "-f", "containerd-shim"], capture_output=True, text=True).stdout.split()
    shim = statistics.median(private_mib(pid) for pid in pids)
    names += [f"neargate-bench-{worker}-{number}" for worker in range(2) for number in range(hundred // 2)]
    subprocess.run(["docker", "rm", "-f", *names], **QUIET)
    subprocess.run(["docker", "rmi", "-f", "neargate-bench"], **QUIET)
    return percentiles(samples), total, shim


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
    time.sleep(5)  # idle is what follows the start
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
    trust = {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam = client("iam", *ours)
    role = iam.create_role(RoleName="bench", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    managed = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
    iam.attach_role_policy(RoleName="bench", PolicyArn=managed)
    uri = image(client("ecr", *ours))
    ecs.register_task_definition(
        executionRoleArn=role, family="bench", requiresCompatibilities=["FARGATE"], networkMode="awsvpc", cpu="256", memory="512",
        containerDefinitions=[{"name": "main", "image": uri, "stopTimeout": 0}],
    )
    network = {"awsvpcConfiguration": {"subnets": subnets, "assignPublicIp": "ENABLED"}}

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
    peer = docker(20, 100) if docker_version() else None
    if peer:
        (d50, d99), docker_hundred, docker_shim = peer
        what = f"docker run {docker_version()}"
        rows.append(("RunTask to RUNNING p50", milliseconds(p50), f"{what} {milliseconds(d50)}", p50 / d50))
        rows.append(("RunTask to RUNNING p99", milliseconds(p99), f"{what} {milliseconds(d99)}", p99 / d99))
    began = time.monotonic()
    tasks = [task for _ in range(10) for task in run(10)]
    wait(tasks, "RUNNING")
    hundred = time.monotonic() - began
    rows.append(("100 tasks from zero", f"{hundred:.1f} s", f"100 × runc run {100 * r50:.1f} s", hundred / (100 * r50)))
    shims = subprocess.run(["pgrep", "-f", f"shim --task-dir {WORK}"], capture_output=True, text=True).stdout.split()
    shim = statistics.median(private_mib(pid) for pid in shims)
    if peer:
        rows.append(("100 tasks from zero", f"{hundred:.1f} s", f"100 × docker run, two at a time {docker_hundred:.1f} s", hundred / docker_hundred))
        rows.append(("a shim's private memory", f"{shim:.1f} MiB", f"containerd-shim {docker_shim:.1f} MiB", shim / docker_shim))
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
