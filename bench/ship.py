"""From `git push` to all traffic on the new version, by stage, and a build with what is cached beside docker's, in one run.

usage: bench/ship.py NEARGATE   (needs root, git, busybox-static and docker)

Neargate's side is patterns/pushed-service.yaml with Build=yes: an image of busybox and one page, built and pushed, deployed
blue/green all at once. The peer's is what of it docker does: `docker build` and `docker push` of the same files to a
registry on this machine, by a daemon of its own that already runs; no container is made for it, and nothing is deployed.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import boto3

NEARGATE = Path(sys.argv[1]).resolve()
ROOT = Path(__file__).resolve().parent.parent
PORT, LISTENER, REGISTRY = 4590, 4620, 4591
ROUNDS = 5
DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
RUN mkdir /www
COPY page /www/index.html
CMD ["/bin/busybox", "sh", "-c", "trap exit TERM; busybox httpd -f -p 8080 -h /www & wait"]
"""
BUILDSPEC = """version: 0.2
phases:
  pre_build:
    commands:
      - aws ecr get-login-password | docker login --username AWS --password-stdin ${REPOSITORY_URI%%/*}
      - IMAGE=$REPOSITORY_URI:$CODEBUILD_BUILD_NUMBER
  build:
    commands:
      - docker build -t $IMAGE .
  post_build:
    commands:
      - docker push $IMAGE
      - printf '{"ImageURI":"%s"}' $IMAGE > imageDetail.json
artifacts:
  files: [imageDetail.json, appspec.yaml, taskdef.json]
"""
APPSPEC = """version: 0.0
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: <TASK_DEFINITION>
        LoadBalancerInfo: {ContainerName: web, ContainerPort: 8080}
"""


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def until(look, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except OSError:
            pass
        time.sleep(0.01)
    raise SystemExit(f"never; the last was {found!r}")


def seconds(later, earlier):
    return (later - earlier).total_seconds()


def neargate(directory):
    """The stages' times of every round but the first, in which the build image is made."""
    command = [str(NEARGATE), "--data-dir", str(directory / "data")]
    process = subprocess.Popen([*command, "serve", "--listen", f"127.0.0.1:{PORT}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert "ready" in process.stdout.readline()
        env = json.loads(subprocess.run([*command, "--output", "json", "env"], capture_output=True, check=True, text=True).stdout)
        session = dict(
            endpoint_url=env["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        )
        aws = {name: boto3.client(name, **session) for name in ["s3", "ec2", "ecs", "ecr", "cloudformation", "codepipeline", "codebuild", "iam"]}
        return ship(aws, directory)
    finally:
        subprocess.run([*command, "down"], capture_output=True)
        process.wait()


def ship(aws, directory):
    aws["s3"].create_bucket(Bucket="ship")
    subnets = aws["ec2"].describe_subnets()["Subnets"]
    first = "/bin/busybox,sh,-c,trap exit TERM; busybox httpd -f -p 8080 -h /www & wait"
    given = {
        "Image": seed(aws["ecr"], directory), "Command": first, "Vpc": subnets[0]["VpcId"], "Build": "yes", "RepositoryName": "ship",
        "Subnets": ",".join(one["SubnetId"] for one in subnets[:2]), "ListenerPort": str(LISTENER), "TestPort": str(LISTENER + 1),
        "ArtifactBucket": "ship", "TerminationWait": "0",
    }
    formation = aws["cloudformation"]
    formation.create_stack(
        StackName="ship", TemplateBody=(ROOT / "patterns/pushed-service.yaml").read_text(), Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
    )
    formation.get_waiter("stack_create_complete").wait(StackName="ship", WaiterConfig={"Delay": 1})
    outputs = {o["OutputKey"]: o["OutputValue"] for o in formation.describe_stacks(StackName="ship")["Stacks"][0]["Outputs"]}
    definition = aws["ecs"].describe_task_definition(taskDefinition=outputs["Definition"])["taskDefinition"]
    keep = ["family", "cpu", "memory", "executionRoleArn", "networkMode", "requiresCompatibilities", "containerDefinitions"]
    definition = {key: definition[key] for key in keep}
    del definition["containerDefinitions"][0]["command"]
    definition["containerDefinitions"][0]["image"] = "<IMAGE1_NAME>"
    login = aws["iam"].create_service_specific_credential(UserName="admin", ServiceName="codecommit.amazonaws.com")["ServiceSpecificCredential"]
    helper = f"!f() {{ echo username={login['ServiceUserName']}; echo password={login['ServicePassword']}; }}; f"
    tree = directory / "tree"
    tree.mkdir()

    def git(*words):
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
        settings = ["-c", "user.name=b", "-c", "user.email=b@example.com", "-c", f"credential.helper={helper}"]
        subprocess.run(["git", *settings, *words], cwd=tree, env=environment, check=True, capture_output=True)

    git("init", "-q", "--initial-branch=main")
    shutil.copy(shutil.which("busybox"), tree / "busybox")
    for name, text in {"Dockerfile": DOCKERFILE, "buildspec.yml": BUILDSPEC, "appspec.yaml": APPSPEC, "taskdef.json": json.dumps(definition)}.items():
        (tree / name).write_text(text)
    rounds = []
    for number in range(ROUNDS + 1):
        page = f"version {number}"
        (tree / "page").write_text(page)
        git("add", "-A")
        git("commit", "-q", "-m", page)
        before = time.time()
        git("push", "-q", outputs["CloneUrl"], "main")
        pushed = time.time()
        until(lambda: fetch(outputs["Url"]).strip() == page)
        serving = time.time()

        def over():
            found = aws["codepipeline"].list_pipeline_executions(pipelineName=outputs["Pipeline"])["pipelineExecutionSummaries"][0]
            return found if found["status"] == "Succeeded" else None

        id = until(over)["pipelineExecutionId"]
        details = aws["codepipeline"].list_action_executions(pipelineName=outputs["Pipeline"], filter={"pipelineExecutionId": id})
        actions = {one["actionName"]: one for one in details["actionExecutionDetails"]}
        build = aws["codebuild"].batch_get_builds(ids=[actions["Build"]["output"]["executionResult"]["externalExecutionId"]])["builds"][0]
        phases = {one["phaseType"]: one for one in build["phases"]}
        took = {name: seconds(one["lastUpdateTime"], one["startTime"]) for name, one in actions.items()}
        prepared = seconds(phases["INSTALL"]["startTime"], build["startTime"])
        login = seconds(phases["PRE_BUILD"]["endTime"], phases["INSTALL"]["startTime"])
        making = seconds(phases["BUILD"]["endTime"], phases["BUILD"]["startTime"])
        pushing = seconds(phases["POST_BUILD"]["endTime"], phases["POST_BUILD"]["startTime"])
        rounds.append({
            "git push": pushed - before,
            "push to Source": actions["Source"]["startTime"].timestamp() - pushed,
            "Source": took["Source"],
            "build: container": prepared,
            "build: login": login,
            "build: image": making,
            "build: image's push": pushing,
            "build: the rest": took["Build"] - prepared - login - making - pushing,
            "Deploy until serving": serving - actions["Deploy"]["startTime"].timestamp(),
            "push to serving": serving - before,
        })
    return {name: statistics.median(one[name] for one in rounds[1:]) for name in rounds[0]}


def seed(ecr, directory):
    """The image that runs at first."""
    uri = ecr.create_repository(repositoryName="seed")["repository"]["repositoryUri"]
    import base64

    token = base64.b64decode(ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]).decode()
    place = directory / "seed"
    place.mkdir()
    shutil.copy(shutil.which("busybox"), place / "busybox")
    (place / "page").write_text("none")
    (place / "Dockerfile").write_text(DOCKERFILE)
    subprocess.run(["buildah", "bud", "-q", "--isolation", "chroot", "-t", "neargate-bench-seed", place], check=True, capture_output=True)
    subprocess.run(["buildah", "push", "-q", "--tls-verify=false", "--creds", token, "neargate-bench-seed", f"docker://{uri}:latest"], check=True)
    subprocess.run(["buildah", "rmi", "-f", "neargate-bench-seed"], check=True, capture_output=True)
    return f"{uri}:latest"


def docker(directory):
    """The median of `docker build` and `docker push` when all layers but the page's are cached."""
    socket, data = directory / "docker.sock", directory / "docker"
    config = directory / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {directory / 'registry'}}}}}\nhttp: {{addr: 127.0.0.1:{REGISTRY}}}\n")
    daemon = ["dockerd", "--host", f"unix://{socket}", "--data-root", str(data), "--exec-root", str(directory / "exec"), "--pidfile", str(directory / "pid")]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes = [subprocess.Popen(["docker-registry", "serve", str(config)], **quiet), subprocess.Popen([*daemon, "--iptables=false", "--bridge=none"], **quiet)]
    try:
        call = ["docker", "--host", f"unix://{socket}"]
        until(lambda: subprocess.run([*call, "info"], **quiet).returncode == 0, 60)
        place, image, times = directory / "context", f"127.0.0.1:{REGISTRY}/bench", []
        place.mkdir()
        shutil.copy(shutil.which("busybox"), place / "busybox")
        (place / "Dockerfile").write_text(DOCKERFILE)
        for number in range(ROUNDS + 1):
            (place / "page").write_text(f"version {number}")
            start = time.monotonic()
            subprocess.run([*call, "build", "-q", "--network", "none", "-t", image, str(place)], check=True, **quiet)
            subprocess.run([*call, "push", "-q", image], check=True, **quiet)
            times.append(time.monotonic() - start)
        return statistics.median(times[1:])
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def main():
    with tempfile.TemporaryDirectory() as directory:
        stages = neargate(Path(directory))
    with tempfile.TemporaryDirectory() as directory:
        peer = docker(Path(directory))
    for name, took in stages.items():
        print(f"{name:<24} {took:6.2f} s")
    ours = stages["build: image"] + stages["build: image's push"]
    print(f"\nimage built and pushed with what is cached: Neargate {ours:.2f} s, docker {peer:.2f} s, ratio {ours / peer:.2f}")


main()
