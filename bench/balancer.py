"""The data plane of load balancers beside nginx and HAProxy: the same two cores, the same backend, in one run.

usage: bench/balancer.py NEARGATE [RUN …]   (needs wrk, h2load, nginx, haproxy, openssl)

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
events {{ worker_connections 16000; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_temp_path {work}/b; proxy_temp_path {work}/p;
    fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    {http}
}}
"""
SERVE = "server {{ listen 127.0.0.1:{port} backlog=4096; root {work}/www; }}"
PASS = """
    upstream backend {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
    server {{ listen 127.0.0.1:{port} {tls} backlog=4096; ssl_certificate {work}/cert.pem; ssl_certificate_key {work}/key.pem;
        keepalive_requests 1000000000; keepalive_timeout 300s;
        location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Port {port};
            proxy_set_header X-Amzn-Trace-Id $request_id; proxy_buffering {buffering}; }} }}
"""
HAPROXY = """
global
    maxconn 9900
    nbthread {cores}
defaults
    mode http
    timeout client 300s
    timeout server 60s
    timeout connect 10s
    option http-keep-alive
    option forwardfor
    http-reuse always
frontend front
    bind 127.0.0.1:{port} {tls}
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


def config(rules=(), tls=False):
    """What the data plane is told: one load balancer on loopback, one target."""
    check = {"path": "/1k", "port": None, "interval": seconds(5), "timeout": seconds(2), "healthy": 2, "unhealthy": 2, "statuses": [[200, 200]]}
    group = {"algorithm": "round_robin", "sticky": None, "proxy_protocol": False, "check": check,
             "targets": [{"address": f"127.0.0.1:{BACKEND}", "draining": False}]}
    forward = {"forward": {"groups": [["g", 1]], "sticky": None}}
    http = {"idle_timeout": seconds(300), "keep_alive": seconds(3600), "forwarded_for": "append", "client_port": False, "drop_invalid_headers": False}
    chain, key = ((WORK / name).read_text() for name in ("cert.pem", "key.pem"))
    secured = {"certificates": [{"names": ["localhost"], "chain": chain, "key": key}], "only_13": False, "protocols": ["h2", "http/1.1"]}
    listener = {"id": "l", "port": PROXY, "tls": secured if tls else None, "does": {"http": {"rules": list(rules), "default": forward}}}
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


def proxies(rules=(), tls=False):
    cores = os.cpu_count()
    secured = f"ssl crt {WORK}/both.pem alpn h2,http/1.1" if tls else ""
    (WORK / "haproxy.cfg").write_text(HAPROXY.format(cores=cores, port=PROXY, backend=BACKEND, tls=secured))
    directory = WORK / "balancer"

    def prepare():
        directory.mkdir(exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config(rules, tls)))

    plain = PASS.format(port=PROXY, backend=BACKEND, buffering="on", work=WORK, tls="ssl http2" if tls else "")
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


def wrk(path, connections, close=False, tls=False):
    script = WORK / "report.lua"
    script.write_text(LUA)
    headers = ["-H", "Connection: close"] if close else []
    command = ["wrk", "-t", "2", "-c", str(connections), "-d", f"{SECONDS}s", *headers, "-s", script, f"http{'s' * tls}://127.0.0.1:{PROXY}{path}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures = re.search(r"@(\d+) (\d+) (\d+) (\d+) (\d+)", output)
    return [int(figure) for figure in figures.groups()]


def h2load(path, connections, streams):
    """The same over HTTP/2, several requests beside each other on each connection."""
    log = WORK / "h2load.log"
    log.unlink(missing_ok=True)
    command = ["h2load", "-D", str(SECONDS), "-t", "2", "-c", str(connections), "-m", str(streams), f"--log-file={log}"]
    output = subprocess.run([*command, f"https://127.0.0.1:{PROXY}{path}"], check=True, capture_output=True, text=True).stdout
    done = [line.split("\t") for line in log.read_text().splitlines()]
    took = sorted(int(line[2]) for line in done)
    rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", output).group(1))
    at = lambda part: took[min(int(len(took) * part), len(took) - 1)]
    return [rate, at(0.5), at(0.99), at(0.999), sum(line[1] != "200" for line in done)]


def resident(group):
    """The resident memory of a process group, in KiB."""
    total = 0
    for each in Path("/proc").iterdir():
        try:
            stat = (each / "stat").read_text().rsplit(")", 1)[1].split()
            if int(stat[2]) == group:
                total += int(re.search(r"VmRSS:\s+(\d+)", (each / "status").read_text()).group(1))
        except (OSError, AttributeError, IndexError, ValueError):
            continue
    return total


def idle(tls, count=9_500):
    """Connections that have been answered once and wait: what each takes, in KiB."""
    import ssl

    context = ssl._create_unverified_context()
    taken = {}
    for name, proxy in proxies(tls=tls).items():
        with proxy:
            wrk("/1k", 64, tls=tls)
            before, open_ones = resident(proxy.process.pid), []
            for _ in range(count):
                stream = socket.create_connection(("127.0.0.1", PROXY), timeout=20)
                stream = context.wrap_socket(stream) if tls else stream
                stream.sendall(b"GET /1k HTTP/1.1\r\nHost: a\r\n\r\n")
                heard = b""
                while not heard.endswith(b"x" * 1024):
                    heard += stream.recv(65536)
                open_ones.append(stream)
            taken[name] = (resident(proxy.process.pid) - before) / count
            for stream in open_ones:
                stream.close()
    ours = taken["neargate"]
    shown = " | ".join(f"{each:.1f} KiB" for each in taken.values())
    print(f"| {count:,} idle {'TLS ' * tls}connections, each | {shown} | {ours / taken['nginx']:.2f} | {ours / taken['haproxy']:.2f} | 0 |", flush=True)


def row(title, samples):
    """A table's row: medians of the rounds, and ratios to the peers."""
    middle = {name: [statistics.median(figure) for figure in zip(*rounds)] for name, rounds in samples.items()}
    ours = middle["neargate"]
    shown = [f"{f[0]:,.0f}/s, {f[1] / 1000:.1f} / {f[2] / 1000:.1f} / {f[3] / 1000:.1f} ms" for f in middle.values()]
    failed = sum(sample[4] for sample in samples["neargate"])
    print(f"| {title} | {' | '.join(shown)} | {ours[0] / middle['nginx'][0]:.2f} | {ours[0] / middle['haproxy'][0]:.2f} | {failed} |", flush=True)


def measure(title, *words, rules=(), load=None, tls=False, **more):
    samples = {name: [] for name in ("neargate", "nginx", "haproxy")}
    for _ in range(ROUNDS):
        for name, proxy in proxies(rules, tls).items():
            with proxy:
                wrk(words[0], 16, tls=tls)
                samples[name].append(load(*words) if load else wrk(*words, tls=tls, **more))
    row(title, samples)


def main():
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    www = WORK / "www"
    www.mkdir(mode=0o755)
    (www / "1k").write_bytes(b"x" * 1024)
    (www / "1m").write_bytes(b"x" * (1 << 20))
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", WORK / "key.pem", "-out", WORK / "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", *key, "-days", "30", "-subj", "/CN=localhost"], check=True, capture_output=True)
    (WORK / "both.pem").write_text((WORK / "cert.pem").read_text() + (WORK / "key.pem").read_text())
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
            "tls": lambda: measure("TLS 1.3, keep-alive, 1 KiB, 64 connections", "/1k", 64, tls=True),
            "handshakes": lambda: measure("TLS 1.3, a new connection each, 1 KiB, 64 at once", "/1k", 64, tls=True, close=True),
            "http2": lambda: measure("TLS 1.3, HTTP/2, 1 KiB, 16 connections with 16 requests each", "/1k", 16, 16, tls=True, load=h2load),
            "idle": lambda: idle(False),
            "idle-tls": lambda: idle(True),
            "rules": lambda: measure("keep-alive, 1 KiB, behind 1,000 rules (Neargate only)", "/1k", 64, rules=[rule(n) for n in range(1000)]),
        }
        for name, run in runs.items():
            if not wanted or name in wanted:
                run()
    finally:
        backend.terminate()
        backend.wait(timeout=20)


main()
