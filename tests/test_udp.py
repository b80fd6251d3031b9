"""Datagrams through Network Load Balancers: those of a client stay with a task, and new tasks take over from old ones."""

import re
import socket

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_service_balanced import LISTENER, Balanced

AT = LISTENER + 6

# Says who it is, and what it heard; over TCP it only takes connections, for the health checks.
SERVER = """
import os, socket, threading
tcp = socket.create_server(("0.0.0.0", 8080))
threading.Thread(target=lambda: [tcp.accept()[0].close() for _ in iter(int, 1)], daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("0.0.0.0", 8080))
while True:
    heard, who = udp.recvfrom(65536)
    udp.sendto(os.environ["NAME"].encode() + b" " + socket.gethostname().encode() + b" " + heard, who)
"""


@pytest.fixture(scope="module")
def datagrams(software):
    made = Balanced(software)
    ec2, any_where = software.ec2, [{"CidrIp": "0.0.0.0/0"}]
    for group, port in ((made.front, AT), (made.back, 8080)):
        rule = {"IpProtocol": "udp", "FromPort": port, "ToPort": port, "IpRanges": any_where}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    return made


def program(datagrams, name):
    stack = datagrams.stack
    ports = [{"containerPort": 8080, "protocol": "tcp"}, {"containerPort": 8080, "protocol": "udp"}]
    container = stack.container(environment=[{"name": "NAME", "value": name}], portMappings=ports)
    return stack.define({**container, "image": stack.debian, "entryPoint": ["/usr/bin/python3", "-c"], "command": [SERVER]})


class Client:
    def __init__(self, port=AT):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(1)
        self.socket.connect(("127.0.0.1", port))

    def ask(self, words=b"hello"):
        """Who answers, and on which host; none when nobody does."""
        try:
            self.socket.send(words)
            name, host, heard = self.socket.recv(65536).split(b" ", 2)
        except OSError:
            return None
        assert heard == words
        return name.decode(), host.decode()


@pytest.mark.parametrize("protocol", ["UDP", "TCP_UDP"])
def test_datagrams_reach_tasks_and_come_back(datagrams, protocol):
    elb, name = datagrams.elb, protocol.lower().replace("_", "-")
    group = datagrams.group(name, protocol)
    balancer = datagrams.balancer(name, Type="network")
    told = elb.describe_target_groups(TargetGroupArns=[group])["TargetGroups"][0]
    assert told["HealthCheckProtocol"] == "TCP" and told["Protocol"] == protocol
    if protocol == "UDP":
        with pytest.raises(ClientError, match="incompatible protocols"):
            datagrams.listener(balancer, group, port=AT, protocol="TCP")
        with pytest.raises(ClientError, match="QUIC is not built"):
            datagrams.listener(balancer, group, port=AT, protocol="QUIC")
    datagrams.listener(balancer, group, port=AT, protocol=protocol)
    datagrams.service(name, program(datagrams, "one"), 2, group)
    datagrams.steady(name)
    eventually(lambda: datagrams.states(group) == ["healthy"] * 2, "both are well")
    client = Client()
    first = eventually(client.ask, "an answer")
    assert first[0] == "one" and {client.ask() for _ in range(20)} == {first}, "a client stays with its task"
    assert client.ask(b"x" * 30_000) == first
    assert len({Client().ask() for _ in range(20)}) == 2, "others go to the other, too"
    if protocol == "TCP_UDP":
        socket.create_connection(("127.0.0.1", AT), timeout=5).close()
    # A new version: whoever had a task of the old one gets one of the new one.
    datagrams.update(name, taskDefinition=program(datagrams, "two"))
    eventually(lambda: (client.ask() or ("",))[0] == "two", "the new version answers", 60)
    datagrams.steady(name)
    assert all(Client().ask()[0] == "two" for _ in range(10))
    # A megabyte is no matter of rounding.
    assert all(client.ask(b"x" * 30_000) for _ in range(20))

    def passed():
        own = datagrams.stack.neargate.cli("status").stdout.split(balancer["DNSName"])[1]
        found = re.search(r"(\d+) connections .*?([\d.]+) MB", own)
        return found and int(found.group(1)) >= 10 and float(found.group(2)) > 1

    eventually(passed, "datagrams are counted")
    datagrams.clear(name, balancer, group)
