"""A Neargate of its own for the tests, and what they do over and over."""

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "neargate"
# The first of the ports that the tests use, so that two runs can go on beside each other.
PORT = int(os.environ.get("NEARGATE_TEST_PORT", 4596))
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


LOGS = set()


def eventually(look, what, seconds=30):
    """Looks until it is true; a bound, not a timing."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


class Neargate:
    """A running control plane with a data directory of its own."""

    def __init__(self, directory, port, program=BINARY):
        self.data_dir, self.program = directory, program
        self.listen = f"127.0.0.1:{port}"
        self.process = None

    def start(self, before=(), **environment):
        """Starts it, with `before` in front of its command."""
        path = self.data_dir.parent / f"{self.data_dir.name}.log"
        LOGS.add(path)
        log = open(path, "a")
        self.process = subprocess.Popen(
            [*before, self.program, "--data-dir", self.data_dir, "serve", "--listen", self.listen],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "NEARGATE_LOG": "info,served=trace", **environment},
        )
        line = self.process.stdout.readline()
        assert "ready" in line, Path(log.name).read_text()
        return self

    def kill(self):
        """`kill -9`, an everyday event."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cli(self, *words, check=True, timeout=120, **more):
        command = [self.program, "--data-dir", self.data_dir, *words]
        more["timeout"] = timeout
        return subprocess.run(command, check=check, capture_output=True, text=True, **more)

    def env(self, account=None):
        words = ["--output", "json", "env"] + (["--account", account] if account else [])
        return json.loads(self.cli(*words).stdout)

    def client(self, service, region=None, account=None, **credentials):
        env = self.env(account)
        credentials = credentials or {
            "aws_access_key_id": env["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
        }
        return boto3.client(
            service,
            endpoint_url=env["AWS_ENDPOINT_URL"],
            region_name=region or env["AWS_DEFAULT_REGION"],
            # The API has one name: no "data-" is put before it.
            config=Config(retries={"max_attempts": 0}, inject_host_prefix=False),
            **credentials,
        )

    def aws(self, *words, check=True):
        """The AWS CLI."""
        variables = {k: v for k, v in self.env().items() if k.startswith("AWS_")}
        environment = {**os.environ, **variables}
        environment.pop("AWS_CA_BUNDLE", None)
        aws = ROOT / ".venv" / "bin" / "aws"
        return subprocess.run([aws, *words], check=check, capture_output=True, text=True, env=environment)


def pytest_sessionfinish(session):
    """Writes down which operations were answered well, for `cargo xtask coverage`."""
    served = set()
    for log in LOGS:
        for line in log.read_text(errors="replace").splitlines():
            if " served: " in line:
                served.add(line.rsplit(" ", 1)[1])
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "served.txt").write_text("".join(f"{name}\n" for name in sorted(served)))


@pytest.fixture(scope="session")
def neargate(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    plane = Neargate(tmp_path_factory.mktemp("neargate") / "data", PORT).start()
    yield plane
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


class Stack:
    """Cluster, roles, log group, image: what every task needs."""

    def __init__(self, neargate):
        self.neargate = neargate
        for service in ["ecs", "ec2", "iam", "logs"]:
            setattr(self, service, neargate.client(service))
        self.ecs.create_cluster(clusterName="tests")
        role = self.iam.create_role(RoleName="execution", AssumeRolePolicyDocument=json.dumps(TRUST))
        self.role = role["Role"]["Arn"]
        managed = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
        self.iam.attach_role_policy(RoleName="execution", PolicyArn=managed)
        self.logs.create_log_group(logGroupName="/tests")
        subnets = self.ec2.describe_subnets()["Subnets"]
        self.subnet, self.vpc = subnets[0]["SubnetId"], subnets[0]["VpcId"]
        self.open_group = self.group("open", 8080)
        self.families = 0

    def group(self, name, *ports):
        group = self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)
        for port in ports:
            self.ec2.authorize_security_group_ingress(
                GroupId=group["GroupId"], IpProtocol="tcp", FromPort=port, ToPort=port, CidrIp="0.0.0.0/0"
            )
        return group["GroupId"]

    def container(self, name="main", command=None, **more):
        options = {"awslogs-group": "/tests", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "t"}
        container = {
            "name": name,
            "image": self.image,
            "stopTimeout": 2,
            "logConfiguration": {"logDriver": "awslogs", "options": options},
            **more,
        }
        if command is not None:
            container["command"] = ["/bin/busybox", "sh", "-c", command]
        return container

    def define(self, *containers, **more):
        self.families += 1
        more = {"cpu": "256", "memory": "512", "executionRoleArn": self.role, **more}
        answer = self.ecs.register_task_definition(
            family=f"family-{self.families}",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            containerDefinitions=list(containers),
            **more,
        )
        return answer["taskDefinition"]["taskDefinitionArn"]

    def run(self, *containers, groups=None, overrides=None, run=None, **more):
        definition = self.define(*containers, **more)
        network = {
            "subnets": [self.subnet],
            "securityGroups": groups or [self.open_group],
            "assignPublicIp": "ENABLED",
        }
        answer = self.ecs.run_task(
            cluster="tests",
            launchType="FARGATE",
            taskDefinition=definition,
            networkConfiguration={"awsvpcConfiguration": network},
            overrides=overrides or {},
            **(run or {}),
        )
        return answer["tasks"][0]["taskArn"]

    def describe(self, task):
        return self.ecs.describe_tasks(cluster="tests", tasks=[task])["tasks"][0]

    def status(self, task, status):
        def look():
            found = self.describe(task)
            early = found["lastStatus"] == "STOPPED" and status != "STOPPED"
            assert not early, (found.get("stoppedReason"), found["containers"])
            return found if found["lastStatus"] == status else None

        return eventually(look, f"{task} {status}", 60)

    def finish(self, *containers, **more):
        """Runs a task to its end."""
        return self.status(self.run(*containers, **more), "STOPPED")

    def address(self, task, kind="public"):
        details = {d["name"]: d["value"] for d in self.describe(task)["attachments"][0]["details"]}
        if kind == "private":
            return details["privateIPv4Address"]
        found = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[details["networkInterfaceId"]])
        return found["NetworkInterfaces"][0]["Association"]["PublicIp"]

    def lines(self, task, container="main"):
        stream = f"t/{container}/{task.rsplit('/', 1)[1]}"
        answer = self.logs.get_log_events(logGroupName="/tests", logStreamName=stream, startFromHead=True)
        return [event["message"] for event in answer["events"]]


@pytest.fixture(scope="session")
def stack(neargate, tmp_path_factory):
    stack = Stack(neargate)
    stack.image = push(neargate, tmp_path_factory.mktemp("image"), "busybox")
    yield stack
    for task in stack.ecs.list_tasks(cluster="tests")["taskArns"]:
        stack.ecs.stop_task(cluster="tests", task=task)


def build(directory, name, files=None, dockerfile=None):
    """Builds an image from static busybox (and files); answers how skopeo names it."""
    shutil.copy(shutil.which("busybox"), directory / "busybox")
    (directory / "passwd").write_text("root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n")
    for path, content in (files or {}).items():
        (directory / path).write_text(content)
    busybox = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nCOPY passwd /etc/passwd\nENV PATH=/bin\n"
    (directory / "Dockerfile").write_text(dockerfile or busybox)
    return bud(directory, name)


def bud(directory, name):
    """Builds the Dockerfile in a directory; answers how skopeo names the image."""
    tag = f"neargate-test-{name}-{os.getpid()}"
    subprocess.run(["buildah", "bud", "--isolation", "chroot", "-q", "-t", tag, directory], check=True)
    archive = directory / "image"
    run_skopeo("copy", "-q", f"containers-storage:localhost/{tag}:latest", f"oci:{archive}:latest")
    subprocess.run(["buildah", "rmi", "-f", tag], check=True, stdout=subprocess.DEVNULL)
    return f"oci:{archive}:latest"


@pytest.fixture(scope="session")
def debian(tmp_path_factory):
    """An image of Debian's nginx, redis and python3, with today's boto3 and gRPC; answers how skopeo names it."""
    directory = tmp_path_factory.mktemp("debian")
    packages = "nginx-light,redis-server,python3-minimal"
    suite = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release") if "=" in line)["VERSION_CODENAME"]
    rootfs = directory / "rootfs.tar"
    command = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={packages},python3-urllib3,python3-dateutil", suite]
    subprocess.run([*command, rootfs], check=True)
    libraries = directory / "libraries"
    installed = Path(boto3.__file__).parent.parent
    for library in ["boto3", "botocore", "s3transfer", "jmespath", "grpc", "msgpack"]:
        shutil.copytree(installed / library, libraries / library)
    shutil.copy(installed / "typing_extensions.py", libraries)
    (directory / "Dockerfile").write_text(
        "FROM scratch\nADD rootfs.tar /\nCOPY libraries /usr/lib/python3/dist-packages\nENV PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
    )
    return bud(directory, "debian")


@pytest.fixture(scope="session")
def software(stack, debian):
    """The stack, with that image at hand."""
    stack.debian = upload(stack.neargate, debian, "debian")
    return stack


def run_skopeo(*words, check=True):
    return subprocess.run(["skopeo", *words], check=check, capture_output=True, text=True)


def login(ecr):
    """The password that `docker login` would get."""
    data = ecr.get_authorization_token()["authorizationData"][0]
    name, password = base64.b64decode(data["authorizationToken"]).decode().split(":", 1)
    assert name == "AWS"
    return password


def push(neargate, directory, name, files=None, dockerfile=None):
    """Builds an image and pushes it to a new repository of ECR; answers how tasks name it."""
    return upload(neargate, build(directory, name, files, dockerfile), name)


def upload(neargate, image, name):
    """Pushes an image to a new repository of ECR; answers how tasks name it."""
    ecr = neargate.client("ecr")
    repository = ecr.create_repository(repositoryName=name)["repository"]["repositoryUri"]
    credentials = f"AWS:{login(ecr)}"
    run_skopeo("copy", "-q", "--dest-tls-verify=false", "--dest-creds", credentials, image, f"docker://{repository}:latest")
    return f"{repository}:latest"
