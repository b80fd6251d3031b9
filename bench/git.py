"""Git over HTTP: a repository of 200 MB pushed and cloned, beside git's own http-backend behind lighttpd, in one run.

usage: bench/git.py NEARGATE   (needs root, git and lighttpd)

Both run the same git. lighttpd takes a whole body in before it passes it on, as its CGI needs the length; it asks for no
login, and its repository is made durable as git does unless told otherwise, Neargate's with core.fsync=all.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

import boto3

NEARGATE = Path(sys.argv[1]).resolve()
PORT, PEER = 4590, 4591
FILES, SIZE, ROUNDS = 200, 1 << 20, 3
LIGHTTPD = """
server.modules = ("mod_alias", "mod_cgi", "mod_setenv")
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.stream-response-body = 2
alias.url = ("/git/" => "{backend}/")
$HTTP["url"] =~ "^/git/" {{
  cgi.assign = ("" => "")
  setenv.add-environment = ("GIT_PROJECT_ROOT" => "{root}", "GIT_HTTP_EXPORT_ALL" => "1", "REMOTE_USER" => "bench")
}}
"""


def git(*words, cwd=None):
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    subprocess.run(["git", *words], cwd=cwd, env=environment, check=True, capture_output=True)


def took(call):
    start = time.monotonic()
    call()
    return time.monotonic() - start


def measured(url, new, work, directory):
    """Medians of pushing to a new repository and of cloning it."""
    pushes, clones = [], []
    for round in range(ROUNDS):
        name = new(f"bench-{round}")
        pushes.append(took(lambda: git("push", "-q", f"{url}/{name}", "main", cwd=work)))
        target = directory / "clone"
        clones.append(took(lambda: git("clone", "-q", f"{url}/{name}", str(target))))
        shutil.rmtree(target)
    return statistics.median(pushes), statistics.median(clones)


def neargate(directory, work):
    command = [str(NEARGATE), "--data-dir", str(directory / "data")]
    process = subprocess.Popen([*command, "serve", "--listen", f"127.0.0.1:{PORT}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert "ready" in process.stdout.readline()
        env = json.loads(subprocess.run([*command, "--output", "json", "env"], capture_output=True, check=True, text=True).stdout)
        of = dict(
            endpoint_url=env["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        )
        login = boto3.client("iam", **of).create_service_specific_credential(UserName="admin", ServiceName="codecommit.amazonaws.com")
        login = login["ServiceSpecificCredential"]
        quoted = [urllib.parse.quote(login[part], safe="") for part in ["ServiceUserName", "ServicePassword"]]
        codecommit = boto3.client("codecommit", **of)

        def new(name):
            codecommit.create_repository(repositoryName=name)
            return name

        return measured(f"http://{':'.join(quoted)}@git-codecommit.us-east-1.localhost:{PORT}/v1/repos", new, work, directory)
    finally:
        subprocess.run([*command, "down"], capture_output=True)
        process.wait()


def http_backend(directory, work):
    root = directory / "peer"
    root.mkdir()
    backend = subprocess.run(["git", "--exec-path"], capture_output=True, check=True, text=True).stdout.strip() + "/git-http-backend"
    (directory / "lighttpd.conf").write_text(LIGHTTPD.format(root=root, port=PEER, backend=backend))
    process = subprocess.Popen(["lighttpd", "-D", "-f", str(directory / "lighttpd.conf")], stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)

        def new(name):
            git("init", "-q", "--bare", "--initial-branch=main", str(root / name))
            return name

        return measured(f"http://127.0.0.1:{PEER}/git", new, work, directory)
    finally:
        process.terminate()
        process.wait()


with tempfile.TemporaryDirectory(prefix="bench-git-") as directory:
    directory = Path(directory)
    work = directory / "work"
    git("init", "-q", "--initial-branch=main", str(work))
    for number in range(FILES):
        (work / f"file-{number}").write_bytes(os.urandom(SIZE))
    git("add", "-A", cwd=work)
    git("-c", "user.name=b", "-c", "user.email=b@example.com", "commit", "-q", "-m", "all", cwd=work)
    version = subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.strip()
    ours, theirs = neargate(directory, work), http_backend(directory, work)
    print(f"{version}; {FILES * SIZE >> 20} MiB, medians of {ROUNDS}")
    for what, one, other in zip(["push", "clone"], ours, theirs):
        print(f"git {what:6} neargate {one:6.2f} s   http-backend behind lighttpd {other:6.2f} s   ratio {one / other:.2f}")
