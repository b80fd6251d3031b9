"""HTTP/2, gRPC and TLS all the way to the targets, with gRPC's own server and client, nginx and curl."""

import collections
import subprocess
import threading

import grpc
import pytest

from conftest import eventually
from test_acm import acm, authority  # noqa: F401
from test_service_balanced import LISTENER, Balanced

SECURE = LISTENER + 7

# Says who it is, counts, talks back, and fails when it is asked to.
SERVER = """
import concurrent.futures, grpc, os, signal, threading
class Calls(grpc.GenericRpcHandler):
    def service(self, call):
        return {
            "/pkg.Echo/Say": grpc.unary_unary_rpc_method_handler(lambda given, _: os.environ["NAME"].encode() + b" " + given),
            "/pkg.Echo/Count": grpc.unary_stream_rpc_method_handler(lambda given, _: (b"%d" % at for at in range(int(given)))),
            "/pkg.Echo/Talk": grpc.stream_stream_rpc_method_handler(lambda given, _: (b"you said " + word for word in given)),
            "/pkg.Echo/Fail": grpc.unary_unary_rpc_method_handler(lambda _, call: call.abort(grpc.StatusCode.NOT_FOUND, "no such thing")),
        }.get(call.method)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers([Calls()])
server.add_insecure_port("0.0.0.0:8080")
server.start()
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
ended.wait()
server.stop(10).wait()
"""

NGINX = """
cat > /tmp/cert.pem <<'END'
{chain}END
cat > /tmp/key.pem <<'END'
{key}END
cat > /tmp/nginx.conf <<'END'
events {}
http {
    access_log off;
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    server {
        listen 8080 ssl http2; ssl_certificate /tmp/cert.pem; ssl_certificate_key /tmp/key.pem;
        location / { return 200 "$server_protocol $ssl_protocol $http_x_forwarded_proto\\n"; }
    }
}
END
exec nginx -e /dev/stderr -g 'daemon off; pid /tmp/pid; error_log /dev/stderr;' -c /tmp/nginx.conf
"""


@pytest.fixture(scope="module")
def secured(software, acm, authority):  # noqa: F811
    """Load balancers whose listener speaks TLS, and clients that trust it."""
    made = Secured(software)
    made.acm, made.authority = acm, authority
    return made


class Secured(Balanced):
    def secure(self, balancer, group, protocol="HTTPS", **more):
        issued = self.authority.issue(balancer["DNSName"])
        certificate = self.acm.import_certificate(**issued)["CertificateArn"]
        return self.elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancerArn"], Protocol=protocol, Port=SECURE,
            Certificates=[{"CertificateArn": certificate}], DefaultActions=[{"Type": "forward", "TargetGroupArn": group}], **more,
        )["Listeners"][0]["ListenerArn"]

    def program(self, text, name):
        port = {"containerPort": 8080, "name": "calls", "appProtocol": "grpc"}
        container = self.stack.container(environment=[{"name": "NAME", "value": name}], portMappings=[port])
        return self.stack.define({**container, "image": self.stack.debian, "entryPoint": ["/usr/bin/python3", "-c"], "command": [text]})

    def channel(self, balancer):
        trust = grpc.ssl_channel_credentials(open(self.authority.file, "rb").read())
        options = [("grpc.ssl_target_name_override", balancer["DNSName"]), ("grpc.enable_http_proxy", 0)]
        return grpc.secure_channel(f"127.0.0.1:{SECURE}", trust, options)

    def curl(self, balancer, *more):
        host = balancer["DNSName"]
        command = ["curl", "-sS", "--max-time", "10", "--cacert", self.authority.file, "--noproxy", "*", *more]
        command += ["--resolve", f"{host}:{SECURE}:127.0.0.1", f"https://{host}:{SECURE}/"]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr}"


class Calls:
    """Calls without a pause, each counted."""

    def __init__(self, channel, threads=4):
        self.say, self.heard, self.ended = channel.unary_unary("/pkg.Echo/Say"), collections.Counter(), threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]

    def run(self):
        while not self.ended.is_set():
            try:
                self.heard[self.say(b"hello", timeout=20).decode()] += 1
            except grpc.RpcError as error:
                self.heard[f"{error.code()} {error.details()}"] += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(25)


def test_grpc_calls_are_balanced_one_by_one(secured):
    elb = secured.elb
    with pytest.raises(elb.exceptions.ClientError, match="GrpcCode"):
        secured.group("calls", ProtocolVersion="GRPC", Matcher={"HttpCode": "200"})
    balancer, group = secured.balancer("calls"), secured.group("calls", ProtocolVersion="GRPC")
    told = elb.describe_target_groups(TargetGroupArns=[group])["TargetGroups"][0]
    assert (told["ProtocolVersion"], told["HealthCheckPath"], told["Matcher"]) == ("GRPC", "/AWS.ALB/healthcheck", {"GrpcCode": "12"})
    with pytest.raises(elb.exceptions.ClientError, match="protocol-version 'GRPC'"):
        secured.listener(balancer, group)
    secured.secure(balancer, group)
    secured.service("calls", secured.program(SERVER, "one"), 2, group)
    secured.steady("calls")
    eventually(lambda: secured.states(group) == ["healthy"] * 2, "both are well")
    with secured.channel(balancer) as channel:
        assert channel.unary_unary("/pkg.Echo/Say")(b"hello", timeout=10) == b"one hello"
        assert list(channel.unary_stream("/pkg.Echo/Count")(b"2000", timeout=30)) == [b"%d" % at for at in range(2000)]
        words, answers = [b"a", b"b" * 100_000, b"c"], []
        asked = threading.Semaphore(0)

        def talk():
            for word in words:
                yield word
                asked.acquire()

        for answer in channel.stream_stream("/pkg.Echo/Talk")(talk(), timeout=30):
            answers.append(answer)
            asked.release()
        assert answers == [b"you said " + word for word in words]
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary("/pkg.Echo/Fail")(b"", timeout=10)
        assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
        assert secured.curl(balancer, "--http1.1", "-o", "/dev/null", "-w", "%{http_code}") == "464"
        assert secured.curl(balancer, "--http2", "-o", "/dev/null", "-w", "%{http_code}") == "464"
        # A new version under calls: each is answered, by the old or by the new.
        with Calls(channel) as calls:
            eventually(lambda: calls.heard["one hello"] > 100, "calls are answered")
            secured.update("calls", taskDefinition=secured.program(SERVER, "two"))
            secured.steady("calls")
            before = calls.heard["two hello"]
            eventually(lambda: calls.heard["two hello"] > before + 100, "the new one answers")
        assert set(calls.heard) == {"one hello", "two hello"}, calls.heard
    # ECS is to leave them alone.
    secured.update("calls", healthCheckGracePeriodSeconds=600)
    # The answer that a server without the method gives is the good one, unless another is said.
    elb.modify_target_group(TargetGroupArn=group, Matcher={"GrpcCode": "0"})

    def ill():
        told = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return [target["TargetHealth"] for target in told if target["TargetHealth"]["State"] == "unhealthy"]

    health = eventually(ill, "12 is not 0")[0]
    assert health["Reason"] == "Target.ResponseCodeMismatch" and "[12]" in health["Description"], health
    secured.clear("calls", balancer, group)


def nginx(secured):
    issued = secured.authority.issue("inside.example")
    text = NGINX.replace("{chain}", issued["Certificate"].decode()).replace("{key}", issued["PrivateKey"].decode())
    container = secured.stack.container(portMappings=[{"containerPort": 8080}])
    return secured.stack.define({**container, "image": secured.stack.debian, "entryPoint": ["/bin/sh", "-c"], "command": [text]})


@pytest.mark.parametrize(("version", "spoken"), [("HTTP1", "HTTP/1.1"), ("HTTP2", "HTTP/2.0")])
def test_targets_behind_tls(secured, version, spoken):
    name = f"inner-{version.lower()}"
    group = secured.group(name, "HTTPS", ProtocolVersion=version, HealthCheckProtocol="HTTPS")
    balancer = secured.balancer(name)
    secured.secure(balancer, group)
    secured.service(name, nginx(secured), 1, group)
    secured.steady(name)
    eventually(lambda: secured.states(group) == ["healthy"], "a certificate that nobody vouches for is good")
    assert secured.curl(balancer, "--http2") == f"{spoken} TLSv1.2 https"
    plain = secured.curl(balancer, "--http1.1", "-w", " %{http_code}")
    assert plain.endswith(" 464" if version == "HTTP2" else "HTTP/1.1 TLSv1.2 https\n 200"), plain
    secured.clear(name, balancer, group)


def test_a_network_load_balancer_speaks_tls_with_targets(secured):
    group = secured.group("inner-tls", "TLS", HealthCheckProtocol="HTTPS")
    balancer = secured.balancer("inner-tls", Type="network")
    with pytest.raises(secured.elb.exceptions.ClientError, match="incompatible protocols"):
        secured.listener(balancer, group, protocol="TCP")
    secured.secure(balancer, group, "TLS")
    secured.service("inner-tls", nginx(secured), 1, group)
    secured.steady("inner-tls")
    eventually(lambda: secured.states(group) == ["healthy"], "it answers over TLS")
    assert secured.curl(balancer) == "HTTP/1.1 TLSv1.2"
    secured.clear("inner-tls", balancer, group)


# Calls by name, and prints who answered how often.
CALLER = """
import collections, grpc, time
heard = collections.Counter()
with grpc.insecure_channel("calls.calls:8080") as channel:
    say = channel.unary_unary("/pkg.Echo/Say")
    for at in range(200):
        try:
            heard[say(b"%d" % (at % 2), timeout=20).decode()] += 1
        except grpc.RpcError as error:
            heard[f"{error.code()} {error.details()}"] += 1
print("heard", sorted(heard.items()), flush=True)
time.sleep(600)
"""


def test_service_connect_carries_grpc(secured):
    stack = secured.stack
    secured.ecs.create_cluster(clusterName="calls", serviceConnectDefaults={"namespace": "calls"})
    network = {"awsvpcConfiguration": {"subnets": stack.subnets[:2], "securityGroups": [stack.open_group], "assignPublicIp": "ENABLED"}}
    for name, text, endpoints in [("served", SERVER, [{"portName": "calls", "clientAliases": [{"port": 8080}]}]), ("caller", CALLER, [])]:
        connect = {"enabled": True, "services": endpoints}
        secured.ecs.create_service(
            cluster="calls", serviceName=name, taskDefinition=secured.program(text, name), desiredCount=2 if endpoints else 1,
            launchType="FARGATE", networkConfiguration=network, serviceConnectConfiguration=connect,
        )
        secured.ecs.get_waiter("services_stable").wait(cluster="calls", services=[name], WaiterConfig={"Delay": 1, "MaxAttempts": 90})
    [task] = secured.ecs.list_tasks(cluster="calls", serviceName="caller")["taskArns"]
    [line] = eventually(lambda: [line for line in stack.lines(task) if line.startswith("heard")], "it has called")
    assert line == "heard [('served 0', 100), ('served 1', 100)]"
    for name in ("caller", "served"):
        secured.ecs.delete_service(cluster="calls", service=name, force=True)
    secured.ecs.get_waiter("services_inactive").wait(cluster="calls", services=["caller", "served"], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
