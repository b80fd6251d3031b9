"""The data plane of load balancers beside nginx and HAProxy: the same two cores, the same backend, in one run.

usage: bench/balancer.py NEARGATE   (needs wrk, nginx, haproxy)

Everything is on loopback. Each proxy runs alone while it is measured; the backend is an nginx of one worker. nginx and HAProxy get as
many workers as there are cores, keep-alive to the backend, no access log, and the headers that an Application Load Balancer adds.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NEARGATE = Path(sys.argv[1]).resolve()
WORK = Path(tempfile.mkdtemp())
WORK.chmod(0o755)
BACKEND, PROXY = 18180, 18181
SECONDS, ROUNDS = 4, 2

NGINX = """
worker_processes {workers}; daemon off; pid {work}/{name}.pid; error_log {work}/{name}.log; 
events {{ worker_connections 8000; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {work}/b; proxy_temp_path {work}/p;
    fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    {http}
}}
"""
SERVE = "server {{ listen 127.0.0.1:{port} backlog=4096; root {work}/www; }}"
PASS = """
    upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
    server {{ listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port {port};
            proxy_set_header X-Amzn-Trace-Id $request_id; proxy_buffering {buffering}; }} }}
"""
HAPROXY = """
global
    maxconn 9000
    nbthread {cores}
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 10s
    option http-keep-alive
    option forwardfor
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    unique-id-format %[uuid()]
    unique-id-header X-Amzn-Trace-Id
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Port {port}
    default_backend back
backend back
    server one 127.0.0.1:{backend}
"""


def seconds(count):
    return {"secs": count, "nanos": 0}


def config(rules=()):
    """What the data plane is told: one load balancer on loopback, one target."""
    check = {"path": "/1k", "port": None, "interval": seconds(5), "timeout": seconds(2), "healthy": 2, "unhealthy": 2, "statuses": [[200, 200]]}
    group = {"algorithm": "round_robin", "sticky": None, "proxy_protocol": False, "check": check,
             "targets": [{"address": f"127.0.0.1:{BACKEND}", "draining": False}]}
    forward = {"forward": {"groups": [["g", 1]], "sticky": None}}
    http = {"idle_timeout": seconds(60), "keep_alive": seconds(3600), "forwarded_for": "append", "client_port": False, "drop_invalid_headers": False}
    listener = {"id": "l", "port": PROXY, "does": {"http": {"rules": list(rules), "default": forward}}}
    balancer = {"id": "b", "names": ["b"], "nodes": [{"netns": None, "ip": "127.0.0.1"}], "on_shared": False, "listeners": [listener], "http": http}
    return {"version": 1, "secret": "bench", "shared": None, "balancers": [balancer], "groups": {"g": group}}


def listening(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on {port}")


class Proxy:
    """A proxy that runs while this is entered."""

    def __init__(self, words, prepare=None):
        self.words, self.prepare = words, prepare

    def __enter__(self):
        if self.prepare:
            self.prepare()
        log = open(WORK / "proxies.log", "a")
        self.process = subprocess.Popen(self.words, stdout=log, stderr=log, process_group=0)
        listening(PROXY)
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=20)


def nginx(name, http, workers):
    file = WORK / f"{name}.conf"
    file.write_text(NGINX.format(work=WORK, name=name, workers=workers, http=http))
    return ["nginx", "-c", str(file), "-e", str(WORK / f"{name}.log")]


def proxies(rules=()):
    cores = os.cpu_count()
    (WORK / "haproxy.cfg").write_text(HAPROXY.format(cores=cores, port=PROXY, backend=BACKEND))
    directory = WORK / "balancer"

    def prepare():
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config(rules)))

    plain = PASS.format(port=PROXY, backend=BACKEND, buffering="on")
    return {
        "neargate": Proxy([NEARGATE, "balancer", directory], prepare),
        "nginx": Proxy(nginx("proxy", plain, cores)),
        "haproxy": Proxy(["haproxy", "-db", "-f", str(WORK / "haproxy.cfg")]),
    }


LUA = """
done = function(summary, latency)
    local errors = summary.errors
    io.write(string.format("@%d %d %d %d %d\\n", summary.requests / summary.duration * 1e6, latency:percentile(50), latency:percentile(99),
        latency:percentile(99.9), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def wrk(path, connections, close=False):
    script = WORK / "report.lua"
    script.write_text(LUA)
    headers = ["-H", "Connection: close"] if close else []
    command = ["wrk", "-t", "2", "-c", str(connections), "-d", f"{SECONDS}s", *headers, "-s", script, f"http://127.0.0.1:{PROXY}{path}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = re.search(r"@(\d+) (\d+) (\d+) (\d+) (\d+)", output)
    return [int(figure) for figure in figures.groups()]


def row(title, samples):
    """A table's row: medians of the rounds, and ratios to the peers."""
    middle = {name: [statistics.median(figure) for figure in zip(*rounds)] for name, rounds in samples.items()}
    ours = middle["neargate"]
    shown = [f"{f[0]:,.0f}/s, {f[1] / 1000:.1f} / {f[2] / 1000:.1f} / {f[3] / 1000:.1f} ms" for f in middle.values()]
    failed = sum(sample[4] for sample in samples["neargate"])
    print(f"| {title} | {' | '.join(shown)} | {ours[0] / middle['nginx'][0]:.2f} | {ours[0] / middle['haproxy'][0]:.2f} | {failed} |", flush=True)


def measure(title, *words, rules=(), **more):
    samples = {name: [] for name in ("neargate", "nginx", "haproxy")}
    for _ in range(ROUNDS):
        for name, proxy in proxies(rules).items():
            with proxy:
                wrk(words[0], 16)
                samples[name].append(wrk(*words, **more))
    row(title, samples)


def main():
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    www = WORK / "www"
    www.mkdir(mode=0o755)
    (www / "1k").write_bytes(b"x" * 1024)
    (www / "1m").write_bytes(b"x" * (1 << 20))
    backend = subprocess.Popen(nginx("backend", SERVE.format(port=BACKEND, work=WORK), 1), process_group=0)
    try:
        listening(BACKEND)
        print("| what | Neargate: rate, p50 / p99 / p99.9 | nginx | HAProxy | of nginx | of HAProxy | failed |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        wanted = sys.argv[2:]
        rule = lambda number: {"conditions": [{"path": [f"/never/{number}/*"]}], "action": {"fixed": {"status": 404, "content_type": "text/plain", "body": ""}}}
        runs = {
            "keep": lambda: measure("keep-alive, 1 KiB, 64 connections", "/1k", 64),
            "many": lambda: measure("keep-alive, 1 KiB, 1,000 connections", "/1k", 1000),
            "new": lambda: measure("a new connection each, 1 KiB, 64 at once", "/1k", 64, close=True),
            "large": lambda: measure("keep-alive, 1 MiB, 16 connections", "/1m", 16),
            "rules": lambda: measure("keep-alive, 1 KiB, behind 1,000 rules (Neargate only)", "/1k", 64, rules=[rule(n) for n in range(1000)]),
        }
        for name, run in runs.items():
            if not wanted or name in wanted:
                run()
    finally:
        backend.terminate()
        backend.wait(timeout=20)


main()
