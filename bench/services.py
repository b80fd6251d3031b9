"""Services under load: ten tasks replaced at 2,000 requests/s, and 20 blue/green deployments, beside docker with nginx reloaded by a
script; from 0 to 100 tasks and back; the control plane killed.

usage: bench/services.py NEARGATE   (needs root, wrk, nginx; the peer needs a docker daemon, DOCKER_HOST says which)

The service is an nginx of one process in a container of its own. wrk keeps 50 connections and waits 25 ms after each answer.
"""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

NEARGATE = Path(sys.argv[1]).resolve()

import boto3
from botocore.config import Config

WORK = Path(tempfile.mkdtemp())
WORK.chmod(0o755)
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
API, FRONT, PEER, SHIFTED, TASKS = 4598, 18188, 18189, 18190, 10
DEPLOYMENTS, COLOURED = 20, 2
CONF = "daemon off; master_process off; pid /tmp/pid; error_log /dev/null; events {} http { access_log off; keepalive_requests 1000000; " \
    "client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; " \
    "server { listen 8080; location / { return 200 %s; } } }"
PACE = WORK / "pace.lua"
PACE.write_text("function delay() return 25 end\n")


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def image():
    """nginx with its libraries and a shell, nothing else; as an archive for docker, and in buildah's store."""
    root = WORK / "root"
    binaries = [shutil.which("nginx"), shutil.which("busybox")]
    for file in {*binaries, *re.findall(r"(/\S+) \(0x", run("ldd", binaries[0]))}:
        place = root / file.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    (root / "bin").mkdir(exist_ok=True)
    shutil.copy(binaries[1], root / "bin/sh")
    for place in ["etc", "tmp", "var/log/nginx", "var/lib/nginx"]:
        (root / place).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (WORK / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")
    run("buildah", "bud", "--isolation", "chroot", "-q", "-t", "neargate-services", WORK)


def command(version):
    return ["/bin/sh", "-c", f"echo '{CONF % version}' > /tmp/nginx.conf; exec {shutil.which('nginx')} -e /dev/null -c /tmp/nginx.conf"]


class Load:
    """wrk at 2,000 requests/s, until it is stopped."""

    def __init__(self, url):
        self.process = subprocess.Popen(
            ["wrk", "-t2", "-c50", "-d600s", "--latency", "-s", PACE, url], stdout=subprocess.PIPE, text=True
        )
        time.sleep(2)

    def stop(self):
        """Requests a second, and how many were lost."""
        self.process.send_signal(signal.SIGINT)
        out = self.process.communicate(timeout=30)[0]
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        p99 = re.search(r"99%\s+(\S+)", out).group(1)
        return rate, sum(map(int, errors.groups())) if errors else 0, int(bad.group(1)) if bad else 0, p99


def resident_mib(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) / 1024


class Ours:
    def __init__(self):
        self.data = WORK / "data"
        self.start()
        env = json.loads(run(NEARGATE, "--data-dir", self.data, "--output", "json", "env"))
        keys = {"aws_access_key_id": env["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"]}
        make = lambda service: boto3.client(
            service, endpoint_url=env["AWS_ENDPOINT_URL"], region_name="us-east-1", config=Config(retries={"max_attempts": 0}), **keys
        )
        self.ecs, self.ec2, self.elb, self.iam, self.ecr, self.deploy = map(make, ["ecs", "ec2", "elbv2", "iam", "ecr", "codedeploy"])
        self.prepare()

    def start(self):
        log = open(WORK / "serve.log", "a")
        self.serve = subprocess.Popen([NEARGATE, "--data-dir", self.data, "serve", "--listen", f"127.0.0.1:{API}"], stdout=log, stderr=log)
        while subprocess.run([NEARGATE, "--data-dir", self.data, "status"], **QUIET).returncode:
            time.sleep(0.01)

    def prepare(self):
        import base64

        self.uri = self.ecr.create_repository(repositoryName="bench")["repository"]["repositoryUri"] + ":latest"
        token = base64.b64decode(self.ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]).decode()
        source = "containers-storage:localhost/neargate-services"
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", token, source, f"docker://{self.uri}")
        trust = {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}
        self.role = self.iam.create_role(RoleName="bench", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))["Role"]["Arn"]
        self.iam.attach_role_policy(RoleName="bench", PolicyArn="arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy")
        self.ecs.create_cluster(clusterName="bench")
        subnets = self.ec2.describe_subnets()["Subnets"]
        self.subnets, vpc = [s["SubnetId"] for s in subnets], subnets[0]["VpcId"]
        self.open = self.ec2.create_security_group(GroupName="bench", Description="bench", VpcId=vpc)["GroupId"]
        rule = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 65535, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        self.ec2.authorize_security_group_ingress(GroupId=self.open, IpPermissions=[rule])
        made = self.elb.create_load_balancer(Name="bench", Subnets=self.subnets[:2], SecurityGroups=[self.open])["LoadBalancers"][0]
        check = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2}

        def group(name):
            made = self.elb.create_target_group(Name=name, Protocol="HTTP", Port=8080, VpcId=vpc, TargetType="ip", **check)
            return made["TargetGroups"][0]["TargetGroupArn"]

        def listener(port, group):
            forward = [{"Type": "forward", "TargetGroupArn": group}]
            answer = self.elb.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=port, DefaultActions=forward)
            return answer["Listeners"][0]["ListenerArn"]

        self.group, self.blue = group("bench"), group("blue")
        group("green")
        listener(FRONT, self.group)
        self.listener = listener(SHIFTED, self.blue)
        self.url, self.shifted_url = (f"http://{made['DNSName']}:{port}/" for port in (FRONT, SHIFTED))

    def define(self, version):
        container = {"name": "main", "image": self.uri, "command": command(version), "portMappings": [{"containerPort": 8080}]}
        made = self.ecs.register_task_definition(
            family="bench", requiresCompatibilities=["FARGATE"], networkMode="awsvpc", cpu="256", memory="512",
            executionRoleArn=self.role, containerDefinitions=[container],
        )
        return made["taskDefinition"]["taskDefinitionArn"]

    def create(self, count):
        network = {"awsvpcConfiguration": {"subnets": self.subnets, "securityGroups": [self.open], "assignPublicIp": "ENABLED"}}
        balancer = {"targetGroupArn": self.group, "containerName": "main", "containerPort": 8080}
        self.ecs.create_service(
            cluster="bench", serviceName="bench", taskDefinition=self.define("one"), desiredCount=count, launchType="FARGATE",
            networkConfiguration=network, loadBalancers=[balancer],
        )

    def steady(self, watch=lambda: None):
        began = time.monotonic()
        while True:
            watch()
            [found] = self.ecs.describe_services(cluster="bench", services=["bench"])["services"]
            done = len(found["deployments"]) == 1 and found["deployments"][0]["rolloutState"] == "COMPLETED"
            if done and found["runningCount"] == found["desiredCount"]:
                targets = self.elb.describe_target_health(TargetGroupArn=self.group)["TargetHealthDescriptions"]
                well = [target["TargetHealth"]["State"] for target in targets].count("healthy")
                if well == found["desiredCount"]:
                    return time.monotonic() - began
            time.sleep(0.05)

    def gone(self, watch):
        """Waits until every task is over."""
        while True:
            watch()
            # First those that run: what is told to stop in between is found among the others.
            running = self.ecs.list_tasks(cluster="bench")["taskArns"]
            arns = self.ecs.get_paginator("list_tasks").paginate(cluster="bench", desiredStatus="STOPPED").build_full_result()["taskArns"]
            some = [arns[at:at + 100] for at in range(0, len(arns), 100)]
            tasks = [task for these in some for task in self.ecs.describe_tasks(cluster="bench", tasks=these)["tasks"]]
            if not running and all(task["lastStatus"] == "STOPPED" for task in tasks):
                return
            time.sleep(0.1)

    def update(self, **more):
        self.ecs.update_service(cluster="bench", service="bench", **more)

    def colour(self):
        """A service that CodeDeploy deploys, and what deploys it: all at once, the tasks before are stopped at once."""
        network = {"awsvpcConfiguration": {"subnets": self.subnets, "securityGroups": [self.open], "assignPublicIp": "ENABLED"}}
        balancer = {"targetGroupArn": self.blue, "containerName": "main", "containerPort": 8080}
        self.ecs.create_service(
            cluster="bench", serviceName="shifted", taskDefinition=self.define("blue"), desiredCount=COLOURED, launchType="FARGATE",
            networkConfiguration=network, loadBalancers=[balancer], deploymentController={"type": "CODE_DEPLOY"},
        )
        trust = {"Effect": "Allow", "Principal": {"Service": "codedeploy.amazonaws.com"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = self.iam.create_role(RoleName="deploy", AssumeRolePolicyDocument=document)["Role"]["Arn"]
        self.iam.attach_role_policy(RoleName="deploy", PolicyArn="arn:aws:iam::aws:policy/AWSCodeDeployRoleForECS")
        self.deploy.create_application(applicationName="bench", computePlatform="ECS")
        pair = {"targetGroups": [{"name": "blue"}, {"name": "green"}], "prodTrafficRoute": {"listenerArns": [self.listener]}}
        self.deploy.create_deployment_group(
            applicationName="bench", deploymentGroupName="bench", serviceRoleArn=role, deploymentConfigName="CodeDeployDefault.ECSAllAtOnce",
            deploymentStyle={"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
            ecsServices=[{"clusterName": "bench", "serviceName": "shifted"}], loadBalancerInfo={"targetGroupPairInfoList": [pair]},
            blueGreenDeploymentConfiguration={
                "terminateBlueInstancesOnDeploymentSuccess": {"action": "TERMINATE", "terminationWaitTimeInMinutes": 0},
                "deploymentReadyOption": {"actionOnTimeout": "CONTINUE_DEPLOYMENT"},
            },
        )

    def shift(self, version):
        """One blue/green deployment; until its version serves, and until it is over."""
        began = time.monotonic()
        service = {"TaskDefinition": self.define(version), "LoadBalancerInfo": {"ContainerName": "main", "ContainerPort": 8080}}
        content = json.dumps({"version": 0.0, "Resources": [{"TargetService": {"Type": "AWS::ECS::Service", "Properties": service}}]})
        revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
        id = self.deploy.create_deployment(applicationName="bench", deploymentGroupName="bench", revision=revision)["deploymentId"]
        while urllib.request.urlopen(self.shifted_url, timeout=5).read().decode() != version:
            time.sleep(0.01)
        serving = time.monotonic() - began
        while (found := self.deploy.get_deployment(deploymentId=id)["deploymentInfo"])["status"] != "Succeeded":
            assert found["status"] not in ("Failed", "Stopped"), found
            time.sleep(0.02)
        return serving, time.monotonic() - began

    def end(self):
        subprocess.run([NEARGATE, "--data-dir", self.data, "down"], **QUIET)
        self.serve.wait(60)


class Docker:
    """What a script does: the next container is started, awaited and put before, nginx is reloaded, the old one is stopped."""

    def __init__(self):
        archive = WORK / "image.tar"
        run("skopeo", "copy", "-q", "containers-storage:localhost/neargate-services", f"docker-archive:{archive}:neargate-services:latest")
        run("docker", "load", "-q", "-i", archive)
        self.running = []
        self.conf = WORK / "front.conf"
        for number in range(TASKS):
            self.running.append(self.start(f"one-{number}", "one"))
        self.write()
        self.nginx = subprocess.Popen(["nginx", "-c", self.conf], **QUIET)
        self.url = f"http://127.0.0.1:{PEER}/"
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=1).read()
                return
            except OSError:
                time.sleep(0.05)

    def start(self, name, version):
        run("docker", "run", "-d", "--name", f"neargate-bench-{name}", "neargate-services", *command(version))
        address = run("docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", f"neargate-bench-{name}").strip()
        while True:
            try:
                urllib.request.urlopen(f"http://{address}:8080/", timeout=1).read()
                return f"neargate-bench-{name}", address
            except OSError:
                time.sleep(0.01)

    def write(self):
        servers = "".join(f"server {address}:8080;" for _, address in self.running)
        self.conf.write_text(
            f"worker_processes 2; daemon off; pid {WORK}/front.pid; error_log /dev/null; events {{}} http {{ access_log off; "
            f"upstream all {{ {servers} keepalive 64; }} server {{ listen 127.0.0.1:{PEER}; location / {{ proxy_pass http://all; "
            'proxy_http_version 1.1; proxy_set_header Connection ""; } } }'
        )

    def roll(self):
        began = time.monotonic()
        for number in range(TASKS):
            old = self.running.pop(0)
            self.running.append(self.start(f"two-{number}", "two"))
            self.write()
            self.nginx.send_signal(signal.SIGHUP)
            time.sleep(1)  # workers of before finish what they have
            run("docker", "rm", "-f", old[0])
        return time.monotonic() - began

    def shift(self, number):
        """All containers at once: until the new ones serve."""
        began = time.monotonic()
        old, self.running = self.running, [self.start(f"shifted-{number}-{index}", f"v{number}") for index in range(COLOURED)]
        self.write()
        self.nginx.send_signal(signal.SIGHUP)
        while urllib.request.urlopen(self.url, timeout=5).read().decode() != f"v{number}":
            time.sleep(0.01)
        serving = time.monotonic() - began
        time.sleep(1)  # workers of before finish what they have
        run("docker", "rm", "-f", *[name for name, _ in old])
        return serving

    def end(self):
        self.nginx.terminate()
        subprocess.run(["docker", "rm", "-f", *[name for name, _ in self.running]], **QUIET)
        subprocess.run(["docker", "rmi", "-f", "neargate-services"], **QUIET)


def told(what, took, load):
    rate, lost, bad, p99 = load
    print(f"| {what} | {took:.1f} s | {rate:.0f}/s | {lost + bad} ({lost} cut, {bad} refused) | {p99} |", flush=True)


def main():
    image()
    print("| what | took | requests | lost | p99 |\n| --- | --- | --- | --- | --- |", flush=True)
    ours = Ours()
    ours.create(TASKS)
    ours.steady()
    load = Load(ours.url)
    ours.update(taskDefinition=ours.define("two"))
    told(f"{TASKS} tasks replaced, Neargate", ours.steady(), load.stop())
    assert urllib.request.urlopen(ours.url).read() == b"two"
    load = Load(ours.url)
    began = time.monotonic()
    for _ in range(10):
        ours.serve.kill()
        ours.serve.wait()
        time.sleep(0.5)
        ours.start()
    told("control plane killed ten times", time.monotonic() - began, load.stop())
    ours.colour()
    while True:
        try:
            urllib.request.urlopen(ours.shifted_url, timeout=5).read()
            break
        except OSError:
            time.sleep(0.05)
    load = Load(ours.shifted_url)
    began = time.monotonic()
    took = [ours.shift(f"v{number}") for number in range(DEPLOYMENTS)]
    told(f"{DEPLOYMENTS} blue/green deployments of {COLOURED} tasks, Neargate", time.monotonic() - began, load.stop())
    serving, over = (statistics.median(times) for times in zip(*took))
    ours.ecs.delete_service(cluster="bench", service="shifted", force=True)
    ours.update(desiredCount=0)
    ours.gone(lambda: None)
    peak = [0.0]
    watch = lambda: peak.__setitem__(0, max(peak[0], resident_mib(ours.serve.pid)))
    ours.update(desiredCount=100)
    up = ours.steady(watch)
    began = time.monotonic()
    ours.update(desiredCount=0)
    ours.gone(watch)
    down = time.monotonic() - began
    print(f"\na blue/green deployment, medians: new version serves after {serving:.2f} s, over after {over:.2f} s")
    print(f"0 to 100 tasks, all healthy in their target group: {up:.1f} s; back to 0: {down:.1f} s; serve at its peak: {peak[0]:.1f} MiB")
    ours.end()
    if subprocess.run(["docker", "version"], **QUIET).returncode == 0:
        peer = Docker()
        load = Load(peer.url)
        told(f"{TASKS} containers replaced, docker and nginx reloaded", peer.roll(), load.stop())
        load = Load(peer.url)
        began = time.monotonic()
        serving = statistics.median(peer.shift(number) for number in range(DEPLOYMENTS))
        what = f"all containers replaced {DEPLOYMENTS} times by {COLOURED}, docker and nginx reloaded"
        told(what, time.monotonic() - began, load.stop())
        print(f"\nnew containers serve after {serving:.2f} s")
        peer.end()
    subprocess.run(["buildah", "rmi", "-f", "neargate-services"], **QUIET)
    shutil.rmtree(WORK, ignore_errors=True)


main()
