"""Real software from Debian's packages in containers: nginx, redis, python3 with boto3."""

import json
import socket
import urllib.request

import pytest

from conftest import TRUST, eventually

NGINX = (
    "mkdir -p /tmp/w; echo 'a page of nginx' > /tmp/w/index.html; exec nginx -e /dev/stderr -g "
    "'daemon off; pid /tmp/pid; error_log /dev/stderr;' -c /tmp/nginx.conf"
)
NGINX_CONF = """
events {}
http {
    access_log /dev/stdout;
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    server { listen 8080; root /tmp/w; }
}
"""


def script(text):
    return {"entryPoint": ["/bin/sh", "-c"], "command": [text]}


def python(text):
    return {"entryPoint": ["/usr/bin/python3", "-c"], "command": [text]}


def container(stack, name="main", words=None, **more):
    return {**stack.container(name, **more), "image": stack.debian, **(words or {})}


def test_nginx_serves_and_logs(software):
    write = f"cat > /tmp/nginx.conf <<'END'\n{NGINX_CONF}\nEND\n{NGINX}"
    check = {"command": ["CMD-SHELL", "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8080/\")'"]}
    more = {"interval": 5, "retries": 3, "startPeriod": 5}
    # Root of the image cannot be written, /tmp is a volume.
    volume = {"mountPoints": [{"sourceVolume": "scratch", "containerPath": "/tmp"}], "readonlyRootFilesystem": True}
    task = software.run(
        container(software, words=script(write), healthCheck={**check, **more}, **volume), volumes=[{"name": "scratch"}]
    )
    software.status(task, "RUNNING")
    url = f"http://{software.address(task)}:8080/"

    def answered():
        try:
            return urllib.request.urlopen(url, timeout=3)
        except OSError:
            return None

    answer = eventually(answered, "a page")
    assert answer.headers["Server"].startswith("nginx/") and answer.read() == b"a page of nginx\n"
    eventually(lambda: software.describe(task)["healthStatus"] == "HEALTHY", "the health check passes")
    line = eventually(lambda: [line for line in software.lines(task) if "GET / HTTP/1.1" in line], "its access log")[0]
    assert " 200 16 " in line
    software.ecs.stop_task(cluster="tests", task=task)
    ended = software.status(task, "STOPPED")
    assert ended["containers"][0]["exitCode"] == 0, "nginx ends by itself when it is told to"


def test_redis_beside_its_client(software):
    check = {"command": ["CMD", "redis-cli", "ping"], "interval": 5, "retries": 3}
    server = container(
        software, "redis", {"entryPoint": ["redis-server"], "command": ["--save", "", "--bind", "0.0.0.0"]}, healthCheck=check, essential=False
    )
    client = container(
        software,
        "client",
        script("redis-cli set greeting hello; redis-cli get greeting; redis-cli info server | grep redis_version"),
        dependsOn=[{"containerName": "redis", "condition": "HEALTHY"}],
    )
    ended = software.finish(server, client)
    lines = software.lines(ended["taskArn"], "client")
    assert lines[:2] == ["OK", "hello"] and lines[2].startswith("redis_version:")
    by_name = {c["name"]: c for c in ended["containers"]}
    assert by_name["client"]["exitCode"] == 0 and by_name["redis"]["exitCode"] in (0, 143, 137)


def test_redis_is_reached_by_another_task_where_its_group_lets_it(software):
    server = container(
        software, words={"entryPoint": ["redis-server"], "command": ["--save", "", "--protected-mode", "no"]}
    )
    inner = software.group("redis-clients")
    guarded = software.group("redis")
    rule = {"IpProtocol": "tcp", "FromPort": 6379, "ToPort": 6379, "UserIdGroupPairs": [{"GroupId": inner}]}
    software.ec2.authorize_security_group_ingress(GroupId=guarded, IpPermissions=[rule])
    task = software.run(server, groups=[guarded])
    software.status(task, "RUNNING")
    address = software.address(task, "private")
    ask = container(software, words=script(f"timeout 5 redis-cli -h {address} incr count || echo refused"))
    allowed = eventually(lambda: software.lines(software.finish(ask, groups=[inner])["taskArn"]), "an answer")
    assert allowed == ["1"]
    other = software.finish(ask, groups=[software.open_group])
    assert software.lines(other["taskArn"]) == ["refused"]
    with pytest.raises(OSError):
        socket.create_connection((software.address(task), 6379), timeout=2)
    software.ecs.stop_task(cluster="tests", task=task)
    software.status(task, "STOPPED")


def test_an_sdk_inside_a_task_finds_neargate(software):
    ssm = software.neargate.client("ssm")
    ssm.put_parameter(Name="/inside/greeting", Value="hello from the store", Type="String")
    software.iam.create_role(RoleName="inside", AssumeRolePolicyDocument=json.dumps(TRUST))
    statement = {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*:*:parameter/inside/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    software.iam.put_role_policy(RoleName="inside", PolicyName="read", PolicyDocument=document)
    text = (
        "import boto3\n"
        "print(boto3.client('sts').get_caller_identity()['Arn'])\n"
        "ssm = boto3.client('ssm')\n"
        "print(ssm.get_parameter(Name='/inside/greeting')['Parameter']['Value'])\n"
        "try:\n"
        "    ssm.put_parameter(Name='/inside/greeting', Value='x', Type='String', Overwrite=True)\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    ended = software.finish(container(software, words=python(text)), taskRoleArn="arn:aws:iam::123456789012:role/inside")
    lines = software.lines(ended["taskArn"])
    assert ":assumed-role/inside/" in lines[0], lines
    assert lines[1] == "hello from the store"
    assert "AccessDenied" in lines[2] and "ssm:PutParameter" in lines[2]
