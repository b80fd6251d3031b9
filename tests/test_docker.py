"""Docker itself, where a daemon is there: log in, push, pull, and run what a task would run."""

import os
import shutil
import subprocess

import pytest

from conftest import build, run_skopeo


def daemon():
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "version"], capture_output=True, timeout=30).returncode == 0


@pytest.mark.skipif(not daemon(), reason="there is no docker daemon")
def test_docker_logs_in_pushes_and_pulls(stack, tmp_path):
    ecr = stack.neargate.client("ecr")
    uri = ecr.create_repository(repositoryName="docker")["repository"]["repositoryUri"]
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "config")}

    def docker(*words, **more):
        run = subprocess.run(["docker", *words], capture_output=True, text=True, env=environment, **more)
        assert run.returncode == 0, run.stderr
        return run.stdout

    image = build(tmp_path, "docker")
    run_skopeo("copy", "-q", image, f"docker-archive:{tmp_path / 'image.tar'}:{uri}:v1")
    docker("load", "-q", "-i", str(tmp_path / "image.tar"))
    password = stack.neargate.aws("ecr", "get-login-password").stdout
    docker("login", "--username", "AWS", "--password-stdin", uri.split("/")[0], input=password)
    try:
        docker("push", "-q", f"{uri}:v1")
        docker("rmi", "-f", f"{uri}:v1")
        assert docker("run", "--rm", f"{uri}:v1", "/bin/busybox", "echo", "by docker") == "by docker\n"
    finally:
        docker("rmi", "-f", f"{uri}:v1")
    ended = stack.finish({**stack.container(command="echo by neargate"), "image": f"{uri}:v1"})
    assert stack.lines(ended["taskArn"]) == ["by neargate"]
    docker("logout", uri.split("/")[0])
    refused = subprocess.run(["docker", "pull", f"{uri}:v1"], capture_output=True, text=True, env=environment)
    assert refused.returncode != 0 and "no basic auth credentials" in refused.stderr
