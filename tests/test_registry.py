"""Registries that are not ours: with a login from Secrets Manager, slow, and serving what they should not."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import build, eventually
from test_codebuild import Builds, spec

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """An image's manifest and blobs by their digests."""
    directory = tmp_path_factory.mktemp("foreign")
    build(directory, "foreign")
    blobs = directory / "image" / "blobs" / "sha256"
    index = json.loads((directory / "image" / "index.json").read_text())
    content = {f"sha256:{path.name}": path.read_bytes() for path in blobs.iterdir()}
    return index["manifests"][0]["digest"], content


@contextmanager
def serving(layout, login=None, gate=None, change=None):
    """A registry that serves one image under every name."""
    digest, content = layout
    content = dict(content)
    if change:
        digest = change(digest, content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            expected = login and "Basic " + base64.b64encode(login.encode()).decode()
            if expected and self.headers.get("Authorization") != expected:
                self.answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="test"'})
                return
            name = self.path.rsplit("/", 1)[1]
            is_manifest = "/manifests/" in self.path
            body = b"{}" if self.path == "/v2/" else content.get(digest if is_manifest else name)
            if body is None:
                self.answer(404, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}', {})
                return
            if gate and not is_manifest and len(body) > 100_000:
                gate.wait(60)
            self.answer(200, body, {"Content-Type": MANIFEST if is_manifest else "application/octet-stream"})

        do_HEAD = do_GET

        def answer(self, status, body, headers):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_private_registry_with_a_login_from_secrets_manager(stack, layout):
    manager = stack.neargate.client("secretsmanager")
    secret = manager.create_secret(Name="registry", SecretString='{"username": "ann", "password": "pä:ss"}')["ARN"]
    statement = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    with serving(layout, login="ann:pä:ss") as host:
        container = {**stack.container(command="echo let in"), "image": f"{host}/private:v1"}
        without = stack.finish(container)
        assert "CannotPullContainerError" in without["stoppedReason"]
        container["repositoryCredentials"] = {"credentialsParameter": secret}
        denied = stack.finish(container)
        assert "ResourceInitializationError" in denied["stoppedReason"]
        assert "not authorized to perform: secretsmanager:GetSecretValue" in denied["stoppedReason"]
        stack.iam.put_role_policy(RoleName="execution", PolicyName="registry", PolicyDocument=document)
        ended = stack.finish(container)
        assert stack.lines(ended["taskArn"]) == ["let in"]


def test_a_build_in_an_image_of_a_private_registry(stack, layout):
    builds = Builds(stack.neargate, None)
    secret = builds.secretsmanager.create_secret(Name="registry-of-builds", SecretString='{"username": "ann", "password": "pw"}')["ARN"]
    with serving(layout, login="ann:pw") as host:
        for credential, status in [(None, "FAILED"), (secret, "SUCCEEDED"), ("registry-of-builds", "SUCCEEDED")]:
            found = builds.run(builds.project(spec("echo let in"), image=f"{host}/private:v1", credential=credential))
            assert found["buildStatus"] == status, found["phases"]


def test_status_tells_how_far_a_pull_is(stack, layout):
    gate = threading.Event()
    digest, content = layout
    with serving(layout, gate=gate, change=other_layer) as host:
        container = {**stack.container(command="echo pulled"), "image": f"{host}/slow:v1"}
        task = stack.run(container)

        def pulling():
            status = json.loads(stack.neargate.cli("--output", "json", "status").stdout)
            found = [t for t in status["tasks"] if t["arn"] == task]
            return found and found[0].get("pulling")

        told = eventually(lambda: (pulling() or {}).get("total_bytes") and pulling(), "the pull's size")
        assert told["image"] == f"{host}/slow:v1" and told["done_bytes"] < told["total_bytes"]
        assert "pulling" in stack.neargate.cli("status").stdout
        gate.set()
        ended = stack.status(task, "STOPPED")
        assert stack.lines(ended["taskArn"]) == ["pulled"]


def other_layer(digest, content):
    """The same image with a layer that nobody has yet: one more file in it, uncompressed."""
    import io
    import os
    import tarfile

    manifest = json.loads(content[digest])
    config = json.loads(content[manifest["config"]["digest"]])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("noise")
        info.size = 200_000
        tar.addfile(info, io.BytesIO(os.urandom(info.size)))

    def put(body):
        name = "sha256:" + hashlib.sha256(body).hexdigest()
        content[name] = body
        return name

    layer = put(buffer.getvalue())
    config["rootfs"]["diff_ids"].append(layer)
    described = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": len(content[layer])}
    manifest["layers"].append(described)
    body = json.dumps(config).encode()
    manifest["config"].update(digest=put(body), size=len(body))
    return put(json.dumps(manifest).encode())


def corrupt(digest, content):
    """One byte of a layer is wrong."""
    digest = other_layer(digest, content)
    layer = json.loads(content[digest])["layers"][-1]["digest"]
    content[layer] = content[layer][:-1] + b"x"
    return digest


def missing(digest, content):
    """A layer is not there."""
    digest = other_layer(digest, content)
    del content[json.loads(content[digest])["layers"][-1]["digest"]]
    return digest


def for_another_machine(digest, content):
    """The image is for another processor."""
    manifest = json.loads(content[digest])
    config = json.loads(content[manifest["config"]["digest"]])
    config["architecture"] = "s390x"
    body = json.dumps(config).encode()
    name = "sha256:" + hashlib.sha256(body).hexdigest()
    manifest["config"].update(digest=name, size=len(body))
    changed = json.dumps(manifest).encode()
    content[name] = body
    content["sha256:" + hashlib.sha256(changed).hexdigest()] = changed
    return "sha256:" + hashlib.sha256(changed).hexdigest()


@pytest.mark.parametrize(
    "change, words",
    [(corrupt, "digest"), (missing, "not found"), (for_another_machine, "platform")],
)
def test_what_a_registry_should_not_serve(stack, layout, change, words):
    with serving(layout, change=change) as host:
        container = {**stack.container(command="echo never"), "image": f"{host}/bad:v1"}
        ended = stack.finish(container)
        assert ended["stopCode"] == "TaskFailedToStart"
        assert "CannotPullContainerError" in ended["stoppedReason"] and words in ended["stoppedReason"]


def test_registries_that_are_not_there(stack):
    for image in ["127.0.0.1:1/none:v1", "registry.invalid/none:v1"]:
        ended = stack.finish({**stack.container(command="echo never"), "image": image})
        assert "CannotPullContainerError" in ended["stoppedReason"], ended
