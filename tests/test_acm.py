"""Certificates: imported, served by name, replaced; and listeners that speak TLS."""

import json
import subprocess

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_service_balanced import LISTENER, Balanced

SECURE, PLAIN = LISTENER + 7, LISTENER + 8


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, directory):
        self.directory = directory
        self.key, self.file = directory / "ca.key", directory / "ca.pem"
        self.count = 0
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", self.file, "-days", "30", "-subj", "/CN=Tests")

    def issue(self, *names, kind=("rsa:2048",), days="10"):
        """A certificate for names; answers its PEM, its key and the authority's."""
        self.count += 1
        key, request, file = (self.directory / f"{self.count}.{end}" for end in ("key", "csr", "pem"))
        extension = self.directory / f"{self.count}.ext"
        extension.write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names))
        openssl("req", "-newkey", *kind, "-nodes", "-keyout", key, "-out", request, "-subj", f"/CN={names[0]}")
        openssl("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self.key, "-CAcreateserial", "-out", file, "-days", days, "-extfile", extension)
        return {"Certificate": file.read_bytes(), "PrivateKey": key.read_bytes(), "CertificateChain": self.file.read_bytes()}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def balanced(stack):
    return Balanced(stack)


@pytest.fixture(scope="module")
def acm(neargate):
    return neargate.client("acm")


def refused(code, words, call, **more):
    with pytest.raises(ClientError) as error:
        call(**more)
    answer = error.value.response["Error"]
    assert answer["Code"] == code and words in answer["Message"], answer


def test_certificates_are_kept_and_told(acm, authority):
    given = authority.issue("one.example", "*.one.example")
    arn = acm.import_certificate(**given, Tags=[{"Key": "a", "Value": "1"}])["CertificateArn"]
    assert arn.startswith("arn:aws:acm:us-east-1:123456789012:certificate/")
    told = acm.describe_certificate(CertificateArn=arn)["Certificate"]
    assert told["DomainName"] == "one.example" and told["SubjectAlternativeNames"] == ["one.example", "*.one.example"]
    assert (told["Status"], told["Type"], told["KeyAlgorithm"]) == ("ISSUED", "IMPORTED", "RSA_2048")
    assert told["Issuer"] == "CN=Tests" and told["NotBefore"] < told["NotAfter"] and told["InUseBy"] == []
    got = acm.get_certificate(CertificateArn=arn)
    assert got["Certificate"].encode() == given["Certificate"] and got["CertificateChain"].encode() == given["CertificateChain"]
    elliptic = acm.import_certificate(**authority.issue("two.example", kind=("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")))["CertificateArn"]
    listed = {c["CertificateArn"] for c in acm.list_certificates()["CertificateSummaryList"]}
    assert arn in listed and elliptic not in listed, "without a filter only RSA up to 2048, as on AWS"
    listed = acm.list_certificates(Includes={"keyTypes": ["EC_prime256v1"]})["CertificateSummaryList"]
    assert [c["CertificateArn"] for c in listed] == [elliptic]
    acm.add_tags_to_certificate(CertificateArn=arn, Tags=[{"Key": "b", "Value": "2"}])
    acm.remove_tags_from_certificate(CertificateArn=arn, Tags=[{"Key": "a"}, {"Key": "b", "Value": "other"}])
    assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    other = authority.issue("else.example")
    refused("ValidationException", "does not match", acm.import_certificate, **{**given, "PrivateKey": other["PrivateKey"]})
    refused("ValidationException", "Could not parse certificate", acm.import_certificate, **{**given, "Certificate": b"nonsense"})
    refused("ValidationException", "private key is not supported", acm.import_certificate, **{**given, "PrivateKey": b"nonsense"})
    refused("ValidationException", "more than one", acm.import_certificate, **{**given, "Certificate": given["Certificate"] * 2})
    refused("ValidationException", "issuer", acm.import_certificate, **{**given, "CertificateChain": other["Certificate"]})
    refused("ValidationException", "same domain", acm.import_certificate, CertificateArn=arn, **other)
    for certificate in (arn, elliptic):
        acm.delete_certificate(CertificateArn=certificate)
    refused("ResourceNotFoundException", "Could not find", acm.describe_certificate, CertificateArn=arn)
    refused("InvalidArnException", "", acm.get_certificate, CertificateArn="arn:aws:acm:us-east-1:123456789012:nothing/x")


def test_certificates_are_issued(acm, authority, tmp_path):
    asked = {"DomainName": "Www.Shop.example", "SubjectAlternativeNames": ["*.shop.example", "www.shop.example"],
             "ValidationMethod": "DNS", "IdempotencyToken": "once", "Tags": [{"Key": "a", "Value": "1"}]}
    arn = acm.request_certificate(**asked)["CertificateArn"]
    assert acm.request_certificate(**asked)["CertificateArn"] == arn
    told = acm.describe_certificate(CertificateArn=arn)["Certificate"]
    assert told["Status"] == "ISSUED" and told["Type"] == "AMAZON_ISSUED" and told["RenewalEligibility"] == "ELIGIBLE"
    assert told["DomainName"] == "www.shop.example" and told["SubjectAlternativeNames"] == ["www.shop.example", "*.shop.example"]
    assert (told["NotAfter"] - told["IssuedAt"]).days in (394, 395) and "ImportedAt" not in told
    assert [option["ValidationStatus"] for option in told["DomainValidationOptions"]] == ["SUCCESS", "SUCCESS"]
    assert acm.list_tags_for_certificate(CertificateArn=arn)["Tags"] == asked["Tags"]
    acm.get_waiter("certificate_validated").wait(CertificateArn=arn)
    assert arn in {one["CertificateArn"] for one in acm.list_certificates()["CertificateSummaryList"]}
    # Whoever trusts the chain trusts the certificate, for its names and for no others.
    got = acm.get_certificate(CertificateArn=arn)
    chain, file = tmp_path / "chain.pem", tmp_path / "own.pem"
    chain.write_text(got["CertificateChain"])
    file.write_text(got["Certificate"])
    for name, well in (("www.shop.example", True), ("a.shop.example", True), ("other.example", False)):
        words = ["openssl", "verify", "-x509_strict", "-CAfile", chain, "-purpose", "sslserver", "-verify_hostname", name, file]
        assert (subprocess.run(words, capture_output=True).returncode == 0) == well, name
    another = acm.request_certificate(DomainName="other.example", KeyAlgorithm="EC_prime256v1")["CertificateArn"]
    assert acm.get_certificate(CertificateArn=another)["CertificateChain"] == got["CertificateChain"], "there is one authority"
    refused("ValidationException", "KeyAlgorithm", acm.request_certificate, DomainName="other.example", KeyAlgorithm="RSA_2048")
    refused("ValidationException", "DomainName", acm.request_certificate, DomainName="-no.example")
    refused("ValidationException", "64", acm.request_certificate, DomainName=f"{'a' * 60}.example")
    names = [f"n{number}.example" for number in range(10)]
    refused("LimitExceededException", "at most 10", acm.request_certificate, DomainName="www.example", SubjectAlternativeNames=names)
    refused("ValidationException", "issued here", acm.import_certificate, CertificateArn=arn, **authority.issue("www.shop.example"))
    for certificate in (arn, another):
        acm.delete_certificate(CertificateArn=certificate)


def test_a_network_load_balancer_takes_tls_off(balanced, acm, authority):
    elb, port = balanced.elb, LISTENER + 9
    balancer, group = balanced.balancer("inside", Type="network"), balanced.group("inside", "TCP", HealthCheckProtocol="TCP")
    certificate = acm.import_certificate(**authority.issue(balancer["DNSName"]))["CertificateArn"]
    given = {"Protocol": "TLS", "Port": port, "DefaultActions": [{"Type": "forward", "TargetGroupArn": group}]}
    given.update(LoadBalancerArn=balancer["LoadBalancerArn"], Certificates=[{"CertificateArn": certificate}])
    refused("ValidationError", "must be one of 'HTTP1Only", elb.create_listener, **given, AlpnPolicy=["h2"])
    made = elb.create_listener(**given, AlpnPolicy=["HTTP2Optional"])["Listeners"][0]
    assert made["AlpnPolicy"] == ["HTTP2Optional"] and made["Protocol"] == "TLS" and made["SslPolicy"]
    balanced.service("inside", balanced.page("inside of TLS"), 1, group)
    balanced.steady("inside")

    def curl(*more):
        command = ["curl", "-sS", "--max-time", "10", "--cacert", authority.file, "--noproxy", "*", *more]
        command += ["--resolve", f"{balancer['DNSName']}:{port}:127.0.0.1", f"https://{balancer['DNSName']}:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr}"

    assert eventually(lambda: curl() == "inside of TLS", "it answers")
    told = curl("-v", "--http2", "-o", "/dev/null", "--stderr", "-")
    assert "http/1.1" in [line for line in told.splitlines() if "ALPN" in line][-1], told
    elb.modify_listener(ListenerArn=made["ListenerArn"], AlpnPolicy=["None"])
    silent = lambda: "No ALPN" in (said := curl("-v", "-o", "/dev/null", "--stderr", "-")) or "no ALPN" in said.lower() or "did not agree" in said
    assert eventually(silent, "nothing is negotiated") and curl() == "inside of TLS"
    balanced.clear("inside", balancer, group)
    acm.delete_certificate(CertificateArn=certificate)


def test_a_listener_speaks_tls_by_name(balanced, acm, authority, neargate, tmp_path):
    elb, stack = balanced.elb, balanced.stack
    balanced.front = stack.group("secure-front", SECURE, PLAIN)
    rule = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "UserIdGroupPairs": [{"GroupId": balanced.front}]}
    stack.ec2.authorize_security_group_ingress(GroupId=balanced.back, IpPermissions=[rule])
    balancer, group = balanced.balancer("secure"), balanced.group("secure")
    arn = balancer["LoadBalancerArn"]
    first = acm.import_certificate(**authority.issue(balancer["DNSName"]))["CertificateArn"]
    second = acm.import_certificate(**authority.issue("www.example", "*.shop.example"))["CertificateArn"]
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    secure = {"LoadBalancerArn": arn, "Protocol": "HTTPS", "Port": SECURE, "DefaultActions": forward}
    refused("ValidationError", "certificate must be specified", elb.create_listener, **secure)
    refused("CertificateNotFound", "is not valid", elb.create_listener, **secure, Certificates=[{"CertificateArn": first + "0"}])
    refused("SSLPolicyNotFound", "not found", elb.create_listener, **secure, Certificates=[{"CertificateArn": first}], SslPolicy="mine")
    made = elb.create_listener(**secure, Certificates=[{"CertificateArn": first}])["Listeners"][0]
    listener = made["ListenerArn"]
    assert made["Certificates"] == [{"CertificateArn": first}] and made["Protocol"] == "HTTPS"
    [policy] = elb.describe_ssl_policies(Names=[made["SslPolicy"]])["SslPolicies"]
    assert policy["SslProtocols"] == ["TLSv1.2", "TLSv1.3"]
    names = [policy["Name"] for policy in elb.describe_ssl_policies()["SslPolicies"]]
    # The names that templates have: CDK's recommendation, and AWS's default.
    for name in ("ELBSecurityPolicy-TLS13-1-2-2021-06", "ELBSecurityPolicy-2016-08"):
        assert name in names and elb.modify_listener(ListenerArn=listener, SslPolicy=name)["Listeners"][0]["SslPolicy"] == name
    elb.add_listener_certificates(ListenerArn=listener, Certificates=[{"CertificateArn": second}])
    told = elb.describe_listener_certificates(ListenerArn=listener)["Certificates"]
    assert told == [{"CertificateArn": first, "IsDefault": True}, {"CertificateArn": second, "IsDefault": False}]
    redirect = {"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "Port": str(SECURE), "StatusCode": "HTTP_301"}}
    elb.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=PLAIN, DefaultActions=[redirect])
    echo = "mkdir -p /tmp/w/cgi-bin; printf '#!/bin/sh\\necho; env' > /tmp/w/cgi-bin/env; chmod +x /tmp/w/cgi-bin/env; " \
        "echo secured > /tmp/w/index.html; exec busybox httpd -f -p 8080 -h /tmp/w"
    definition = stack.define(stack.container(command=echo, portMappings=[{"containerPort": 8080}]))
    balanced.service("secure", definition, 1, group)
    balanced.steady("secure")

    def curl(host, path="/", *more, port=SECURE, authority=authority.file):
        command = ["curl", "-sS", "--max-time", "10", "--cacert", authority, "--noproxy", "*", "--resolve", f"{host}:{port}:127.0.0.1", *more]
        done = subprocess.run([*command, f"https://{host}:{port}{path}"], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr}"

    assert curl(balancer["DNSName"]) == "secured"
    assert curl("www.example") == "secured" and curl("a.shop.example") == "secured"
    assert "no alternative certificate subject name matches" in curl("other.example")
    assert curl("www.example", "/", "--tlsv1.3") == "secured" and curl("www.example", "/", "--tls-max", "1.2") == "secured"
    assert "failed" in curl("www.example", "/", "--tls-max", "1.1")
    issued = tmp_path / "issued.pem"
    third = acm.request_certificate(DomainName="www.issued.example", ValidationMethod="DNS")["CertificateArn"]
    issued.write_text(acm.get_certificate(CertificateArn=third)["CertificateChain"])
    elb.add_listener_certificates(ListenerArn=listener, Certificates=[{"CertificateArn": third}])
    eventually(lambda: curl("www.issued.example", authority=issued) == "secured", "the issued certificate is served and trusted")
    elb.remove_listener_certificates(ListenerArn=listener, Certificates=[{"CertificateArn": third}])
    acm.delete_certificate(CertificateArn=third)
    seen = curl("www.example", "/cgi-bin/env")
    assert "HTTP_X_FORWARDED_PROTO=https" in seen and f"HTTP_X_FORWARDED_PORT={SECURE}" in seen, seen
    assert curl("www.example", "/", "--http2", "-o", "/dev/null", "-w", "%{http_version}") == "2"
    seen = curl("www.example", "/cgi-bin/env", "--http2", "-H", "Cookie: a=1; b=2", "-H", "X-Mine: yes")
    assert f"HTTP_HOST=www.example:{SECURE}" in seen and "HTTP_COOKIE=a=1; b=2" in seen, seen
    assert curl("www.example", "/", "--http1.1", "-o", "/dev/null", "-w", "%{http_version}") == "1.1"
    many = [f"https://www.example:{SECURE}/" for _ in range(50)]
    at_once = curl("www.example", "/", "--http2", "--parallel", *many)
    assert at_once.split() == ["secured"] * 51, at_once
    off = [{"Key": "routing.http2.enabled", "Value": "false"}]
    elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=off)
    eventually(lambda: curl("www.example", "/", "--http2", "-o", "/dev/null", "-w", "%{http_version}") == "1.1", "no HTTP/2 any more")
    moved = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", f"http://{balancer['DNSName']}:{PLAIN}/a?b=c"],
        capture_output=True, text=True, check=True,
    ).stdout
    assert moved == f"301 https://{balancer['DNSName']}:{SECURE}/a?b=c"
    # Plain HTTP on it ends without harm, and its keys are nobody else's to read.
    assert "failed" in curl("www.example", authority="/etc/ssl/certs/ca-certificates.crt")
    config = neargate.data_dir / "balancer" / "config.json"
    assert config.stat().st_mode & 0o777 == 0o600 and config.parent.stat().st_mode & 0o777 == 0o700
    log = (neargate.data_dir / "balancer" / "log").read_text() + (neargate.data_dir.parent / f"{neargate.data_dir.name}.log").read_text()
    assert "PRIVATE KEY" not in log
    for file in neargate.data_dir.glob("*.redb"):
        assert b"PRIVATE KEY" not in file.read_bytes(), "keys lie sealed"

    elb.modify_listener(ListenerArn=listener, SslPolicy="ELBSecurityPolicy-TLS13-1-3-2021-06")
    eventually(lambda: "failed" in curl("www.example", "/", "--tls-max", "1.2"), "only TLS 1.3")
    assert curl("www.example") == "secured"
    assert acm.describe_certificate(CertificateArn=second)["Certificate"]["InUseBy"] == [arn]
    refused("ResourceInUseException", "in use", acm.delete_certificate, CertificateArn=second)
    refused("OperationNotPermitted", "default", elb.remove_listener_certificates, ListenerArn=listener, Certificates=[{"CertificateArn": first}])
    # A certificate that is imported anew is served anew.
    renewed = authority.issue("www.example", "new.example")
    acm.import_certificate(CertificateArn=second, **renewed)
    eventually(lambda: curl("new.example") == "secured", "the new certificate is served")
    elb.remove_listener_certificates(ListenerArn=listener, Certificates=[{"CertificateArn": second}])
    eventually(lambda: "failed" in curl("new.example"), "it is not served any more")
    acm.delete_certificate(CertificateArn=second)
    balanced.clear("secure", balancer, group)
    eventually(lambda: acm.describe_certificate(CertificateArn=first)["Certificate"]["InUseBy"] == [], "nobody uses it")
    acm.delete_certificate(CertificateArn=first)
    assert json.dumps(acm.list_certificates()["CertificateSummaryList"], default=str).count(balancer["DNSName"]) == 0
