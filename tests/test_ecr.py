"""The registry: what docker's protocol and ECR's API do to the same repositories, and tasks that run from them."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, TRUST, Neargate, build, eventually, login, run_skopeo

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """A repository by bare HTTP, as a client's author would try it."""

    def __init__(self, uri, password):
        host, self.name = uri.split("/", 1)
        self.base = f"http://{host}"
        self.credentials = base64.b64encode(f"AWS:{password}".encode()).decode()

    def __call__(self, method, path, body=None, **headers):
        url = path if path.startswith("http") else self.base + (path if path.startswith("/") else f"/v2/{self.name}/{path}")
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.credentials:
            headers["Authorization"] = f"Basic {self.credentials}"
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def refused(self, *words, **headers):
        status, _, body = self(*words, **headers)
        return status, json.loads(body)["errors"][0]["code"]

    def blob(self, content):
        status, headers, _ = self("POST", f"blobs/uploads/?digest={digest(content)}", content)
        assert status == 201 and headers["Docker-Content-Digest"] == digest(content)
        return {"mediaType": "application/octet-stream", "digest": digest(content), "size": len(content)}

    def manifest(self, reference=None, **fields):
        """Puts an image of one made-up layer; answers its descriptor."""
        config = {**self.blob(EMPTY), "mediaType": "application/vnd.oci.empty.v1+json"}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [config], **fields}
        content = json.dumps(document).encode()
        status, _, body = self("PUT", f"manifests/{reference or digest(content)}", content, Content_Type=OCI_MANIFEST)
        assert status == 201, body
        return {"mediaType": OCI_MANIFEST, "digest": digest(content), "size": len(content)}


@pytest.fixture(scope="module")
def ecr(neargate):
    return neargate.client("ecr")


@pytest.fixture
def repository(ecr, request):
    """A repository of the test's own, by bare HTTP."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")
    uri = ecr.create_repository(repositoryName=name)["repository"]["repositoryUri"]
    registry = Registry(uri, login(ecr))
    registry.uri, registry.repository = uri, name
    return registry


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return build(tmp_path_factory.mktemp("image"), "ecr")


def code(call, **words):
    with pytest.raises(ClientError) as caught:
        call(**words)
    return caught.value.response["Error"]["Code"]


def copy(repository, source, *more, password=None, tag="v1", check=True):
    credentials = f"AWS:{password or login_of(repository)}"
    words = ["copy", "-q", "--dest-tls-verify=false", "--dest-creds", credentials, *more, source]
    return run_skopeo(*words, f"docker://{repository.uri}:{tag}", check=check)


def login_of(repository):
    return base64.b64decode(repository.credentials).decode().split(":", 1)[1]


def test_repositories_come_and_go(neargate, ecr):
    made = ecr.create_repository(repositoryName="team/app", tags=[{"Key": "team", "Value": "a"}])["repository"]
    assert made["repositoryArn"] == "arn:aws:ecr:us-east-1:123456789012:repository/team/app"
    assert made["repositoryUri"].endswith("/123456789012/us-east-1/team/app")
    assert code(ecr.create_repository, repositoryName="team/app") == "RepositoryAlreadyExistsException"
    assert code(ecr.create_repository, repositoryName="Team") == "InvalidParameterException"
    scan = {"scanOnPush": True}
    assert code(ecr.create_repository, repositoryName="x1", imageScanningConfiguration=scan) == "InvalidParameterException"
    found = ecr.describe_repositories(repositoryNames=["team/app"])["repositories"]
    assert [r["repositoryName"] for r in found] == ["team/app"]
    assert code(ecr.describe_repositories, repositoryNames=["none"]) == "RepositoryNotFoundException"
    arn = made["repositoryArn"]
    ecr.tag_resource(resourceArn=arn, tags=[{"Key": "stage", "Value": "dev"}])
    ecr.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert ecr.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "stage", "Value": "dev"}]
    for number in range(5):
        ecr.create_repository(repositoryName=f"page/{number}")
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 2})
    names = [r["repositoryName"] for page in pages for r in page["repositories"]]
    assert names == sorted(names) and {f"page/{n}" for n in range(5)} <= set(names)
    elsewhere = neargate.client("ecr", region="eu-west-1")
    assert elsewhere.describe_repositories()["repositories"] == []
    ecr.delete_repository(repositoryName="team/app")
    assert code(ecr.delete_repository, repositoryName="team/app") == "RepositoryNotFoundException"


def test_the_cli_logs_in_and_real_tools_push_and_pull(neargate, ecr, repository, image, tmp_path):
    host = repository.uri.split("/")[0]
    password = neargate.aws("ecr", "get-login-password").stdout
    authfile = tmp_path / "auth.json"
    words = ["skopeo", "login", "--tls-verify=false", "--authfile", authfile, "--username", "AWS", "--password-stdin", host]
    subprocess.run(words, input=password, check=True, capture_output=True, text=True)
    own = ["--authfile", str(authfile)]
    run_skopeo("copy", "-q", *own, "--dest-tls-verify=false", image, f"docker://{repository.uri}:v1")
    # Again: everything is there already.
    run_skopeo("copy", "-q", *own, "--dest-tls-verify=false", image, f"docker://{repository.uri}:v2")
    run_skopeo("copy", "-q", *own, "--src-tls-verify=false", f"docker://{repository.uri}:v1", f"dir:{tmp_path / 'back'}")
    manifest = json.loads((tmp_path / "back" / "manifest.json").read_text())
    layer = tmp_path / "back" / manifest["layers"][0]["digest"].split(":")[1]
    assert digest(layer.read_bytes()) == manifest["layers"][0]["digest"]
    listed = run_skopeo("list-tags", *own, "--tls-verify=false", f"docker://{repository.uri}")
    assert json.loads(listed.stdout)["Tags"] == ["v1", "v2"]
    described = ecr.describe_images(repositoryName=repository.repository)["imageDetails"]
    assert len(described) == 1 and described[0]["imageTags"] == ["v1", "v2"]
    size = manifest["config"]["size"] + sum(layer["size"] for layer in manifest["layers"])
    assert described[0]["imageSizeInBytes"] == size
    assert described[0]["lastRecordedPullTime"] >= described[0]["imagePushedAt"]
    for tool in [tool for tool in ["buildah", "podman"] if shutil.which(tool)]:
        # Podman bears no long paths here.
        short = tempfile.mkdtemp(dir="/tmp")
        words = [tool, "--storage-driver", "vfs", "--root", str(tmp_path / tool), "--runroot", short]
        pulled = [*words, "pull", "-q", *own, "--tls-verify=false", f"{repository.uri}:v2"]
        subprocess.run(pulled, check=True, capture_output=True)
        pushed = [*words, "push", "-q", *own, "--tls-verify=false", f"{repository.uri}:v2", f"docker://{repository.uri}:{tool}"]
        subprocess.run(pushed, check=True, capture_output=True)
        shutil.rmtree(short)
        assert tool in [i.get("imageTag") for i in ecr.list_images(repositoryName=repository.repository)["imageIds"]]


def test_logins(neargate, ecr, repository, image):
    nobody = Registry(repository.uri, "")
    nobody.credentials = None
    status, headers, _ = nobody("GET", "/v2/")
    assert status == 401 and headers["WWW-Authenticate"].startswith("Basic realm=")
    assert Registry(repository.uri, "made-up").refused("GET", "/v2/") == (401, "UNAUTHORIZED")
    assert repository("GET", "/v2/")[0] == 200
    assert repository.refused("GET", "/v2/123456789012/us-east-1/none/tags/list") == (404, "NAME_UNKNOWN")
    # A user who may log in and pull, but not push.
    iam = neargate.client("iam")
    iam.create_user(UserName="puller")
    pull = ["ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": pull, "Resource": "*"}]}
    iam.put_user_policy(UserName="puller", PolicyName="pull", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName="puller")["AccessKey"]
    theirs = neargate.client("ecr", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    copy(repository, image)
    puller = Registry(repository.uri, login(theirs))
    assert puller("GET", "manifests/v1")[0] == 200
    assert puller.refused("POST", "blobs/uploads/") == (403, "DENIED")
    assert puller.refused("DELETE", "manifests/v1") == (403, "DENIED")
    # The login says who; what they may is asked each time.
    iam.delete_user_policy(UserName="puller", PolicyName="pull")
    assert puller.refused("GET", "manifests/v1") == (403, "DENIED")


def test_another_account_needs_both_sides(neargate, ecr, repository):
    theirs = neargate.client("ecr", account="210987654321")
    abroad = Registry(repository.uri, login(theirs))
    assert abroad.refused("GET", "tags/list") == (403, "DENIED")
    account = "arn:aws:iam::210987654321:root"
    statement = {"Sid": "theirs", "Effect": "Allow", "Principal": {"AWS": account}, "Action": ["ecr:ListImages"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    name = {"repositoryName": repository.repository}
    assert code(ecr.get_repository_policy, **name) == "RepositoryPolicyNotFoundException"
    assert code(ecr.set_repository_policy, **name, policyText="{}") == "InvalidParameterException"
    ecr.set_repository_policy(**name, policyText=policy)
    assert json.loads(ecr.get_repository_policy(**name)["policyText"]) == json.loads(policy)
    assert abroad("GET", "tags/list")[0] == 200
    assert theirs.list_images(registryId="123456789012", **name)["imageIds"] == []
    assert abroad.refused("POST", "blobs/uploads/") == (403, "DENIED")
    ecr.delete_repository_policy(**name)
    assert abroad.refused("GET", "tags/list") == (403, "DENIED")


def test_uploads_in_chunks_resumed_across_a_crash_and_mounted(tmp_path_factory, ecr, neargate):
    plane = Neargate(tmp_path_factory.mktemp("uploads") / "data", PORT + 5).start()
    ecr = plane.client("ecr")
    uri = ecr.create_repository(repositoryName="chunks")["repository"]["repositoryUri"]
    registry = Registry(uri, login(ecr))
    content = os.urandom(300_000)
    status, headers, _ = registry("POST", "blobs/uploads/")
    assert status == 202
    upload = headers["Location"]
    first, second = content[:100_000], content[100_000:]
    status, headers, _ = registry("PATCH", upload, first, Content_Range="0-99999")
    assert (status, headers["Range"]) == (202, "0-99999")
    assert registry.refused("PATCH", upload, second, Content_Range="5-200004") == (416, "BLOB_UPLOAD_INVALID")
    plane.kill()
    plane.start()
    status, headers, _ = registry("GET", upload)
    assert (status, headers["Range"]) == (204, "0-99999")
    assert registry("PATCH", headers["Location"], second)[0] == 202
    assert registry.refused("PUT", f"{upload}?digest={digest(b'other')}", b"") == (400, "DIGEST_INVALID")
    # Bytes that were not what was said are gone.
    assert registry.refused("GET", upload) == (404, "BLOB_UPLOAD_UNKNOWN")
    registry.blob(content)
    status, headers, body = registry("GET", f"blobs/{digest(content)}", Range="bytes=100000-100009")
    assert (status, body, headers["Content-Range"]) == (206, content[100_000:100_010], "bytes 100000-100009/300000")
    assert registry("GET", f"blobs/{digest(content)}", Range="bytes=300000-")[0] == 416
    status, headers, _ = registry("HEAD", f"blobs/{digest(content)}")
    assert (status, headers["Content-Length"]) == (200, "300000")
    # What one repository has, another has not, until it is mounted.
    other = Registry(ecr.create_repository(repositoryName="other")["repository"]["repositoryUri"], login(ecr))
    assert other("HEAD", f"blobs/{digest(content)}")[0] == 404
    status, _, _ = other("POST", f"blobs/uploads/?mount={digest(content)}&from={registry.name}")
    assert status == 201 and other("GET", f"blobs/{digest(content)}")[2] == content
    status, headers, _ = other("POST", f"blobs/uploads/?mount={digest(b'missing')}&from={registry.name}")
    assert status == 202 and other("DELETE", headers["Location"])[0] == 204
    assert other("DELETE", f"blobs/{digest(content)}")[0] == 202
    assert other("HEAD", f"blobs/{digest(content)}")[0] == 404
    plane.cli("down")
    plane.process.wait(timeout=60)


def test_manifests_indexes_and_referrers(ecr, repository):
    name = {"repositoryName": repository.repository}
    broken = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
    assert repository.refused("PUT", "manifests/v1", broken, Content_Type=OCI_MANIFEST) == (400, "MANIFEST_INVALID")
    missing = {"mediaType": "x", "digest": digest(b"missing"), "size": 7}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": missing, "layers": []}
    content = json.dumps(document).encode()
    refused = repository.refused("PUT", "manifests/v1", content, Content_Type=OCI_MANIFEST)
    assert refused == (400, "MANIFEST_BLOB_UNKNOWN")
    refused = repository.refused("PUT", f"manifests/{digest(b'x')}", content, Content_Type=OCI_MANIFEST)
    assert refused == (400, "DIGEST_INVALID")
    amd = repository.manifest(annotations={"for": "amd64"})
    arm = repository.manifest(annotations={"for": "arm64"})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [amd, arm]}
    content = json.dumps(index).encode()
    assert repository("PUT", "manifests/multi", content, Content_Type=OCI_INDEX)[0] == 201
    status, headers, body = repository("GET", "manifests/multi")
    assert (status, headers["Content-Type"], body) == (200, OCI_INDEX, content)
    # What an index holds stays until the index is gone.
    gone = ecr.batch_delete_image(**name, imageIds=[{"imageDigest": amd["digest"]}])
    assert gone["failures"][0]["failureCode"] == "ImageReferencedByManifestList"
    signature = repository.manifest(subject=amd, artifactType="example/signature")
    status, headers, body = repository("GET", f"referrers/{amd['digest']}?artifactType=example/signature")
    assert status == 200 and headers["OCI-Filters-Applied"] == "artifactType"
    assert [m["digest"] for m in json.loads(body)["manifests"]] == [signature["digest"]]
    assert json.loads(repository("GET", f"referrers/{arm['digest']}")[2])["manifests"] == []
    untagged = ecr.list_images(**name, filter={"tagStatus": "UNTAGGED"})["imageIds"]
    assert {i["imageDigest"] for i in untagged} == {amd["digest"], arm["digest"], signature["digest"]}
    assert repository("DELETE", "manifests/multi")[0] == 202
    assert repository.refused("GET", "manifests/multi") == (404, "MANIFEST_UNKNOWN")
    gone = ecr.batch_delete_image(**name, imageIds=[{"imageDigest": amd["digest"]}, {"imageTag": "none"}])
    assert gone["imageIds"] == [{"imageDigest": amd["digest"]}]
    assert gone["failures"][0]["failureCode"] == "ImageNotFound"
    assert code(ecr.describe_images, **name, imageIds=[{"imageTag": "none"}]) == "ImageNotFoundException"
    assert code(ecr.delete_repository, **name) == "RepositoryNotEmptyException"
    ecr.delete_repository(**name, force=True)
    assert repository.refused("GET", "tags/list") == (404, "NAME_UNKNOWN")


def test_the_api_uploads_and_downloads(ecr, repository):
    name = {"repositoryName": repository.repository}
    layer = os.urandom(100_000)
    upload = ecr.initiate_layer_upload(**name)
    assert upload["partSize"] == 10 * 1024 * 1024
    part = {**name, "uploadId": upload["uploadId"]}
    half = len(layer) // 2
    ecr.upload_layer_part(**part, partFirstByte=0, partLastByte=half - 1, layerPartBlob=layer[:half])
    wrong = {"partFirstByte": 5, "partLastByte": 9, "layerPartBlob": b"12345"}
    assert code(ecr.upload_layer_part, **part, **wrong) == "InvalidLayerPartException"
    ecr.upload_layer_part(**part, partFirstByte=half, partLastByte=len(layer) - 1, layerPartBlob=layer[half:])
    assert ecr.complete_layer_upload(**part, layerDigests=[digest(layer)])["layerDigest"] == digest(layer)
    unknown = {**name, "uploadId": "00000000-0000-0000-0000-000000000000"}
    assert code(ecr.complete_layer_upload, **unknown, layerDigests=[digest(layer)]) == "UploadNotFoundException"
    checked = ecr.batch_check_layer_availability(**name, layerDigests=[digest(layer), digest(b"no"), "odd"])
    assert [found["layerAvailability"] for found in checked["layers"]] == ["AVAILABLE", "UNAVAILABLE"]
    assert checked["failures"][0]["failureCode"] == "InvalidLayerDigest"
    url = ecr.get_download_url_for_layer(**name, layerDigest=digest(layer))["downloadUrl"]
    assert urllib.request.urlopen(url, timeout=10).read() == layer
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url[:-8], timeout=10)
    assert refused.value.code == 401
    config = repository.blob(EMPTY)
    described = {"mediaType": "application/octet-stream", "digest": digest(layer), "size": len(layer)}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [described]}
    text = json.dumps(manifest)
    put = {**name, "imageManifest": text, "imageTag": "v1"}
    assert ecr.put_image(**put)["image"]["imageId"]["imageDigest"] == digest(text.encode())
    assert code(ecr.put_image, **put) == "ImageAlreadyExistsException"
    other = {**put, "imageManifest": json.dumps({**manifest, "annotations": {"x": "y"}})}
    ecr.put_image_tag_mutability(**name, imageTagMutability="IMMUTABLE")
    assert code(ecr.put_image, **other) == "ImageTagAlreadyExistsException"
    refused = repository.refused("PUT", "manifests/v1", other["imageManifest"].encode(), Content_Type=OCI_MANIFEST)
    assert refused == (400, "TAG_INVALID")
    got = ecr.batch_get_image(**name, imageIds=[{"imageTag": "v1"}, {"imageTag": "v9"}])
    assert got["images"][0]["imageManifest"] == text and got["failures"][0]["failureCode"] == "ImageNotFound"


def test_lifecycle_policies_expire_images(ecr, repository):
    name = {"repositoryName": repository.repository}
    for number in range(4):
        repository.manifest(f"v{number}", annotations={"number": str(number)})
    repository.manifest(annotations={"tag": "none"})
    selection = {"tagStatus": "tagged", "tagPatternList": ["v*"], "countType": "imageCountMoreThan", "countNumber": 2}
    rule = {"rulePriority": 1, "description": "two versions", "selection": selection, "action": {"type": "expire"}}
    assert code(ecr.get_lifecycle_policy, **name) == "LifecyclePolicyNotFoundException"
    wrong = json.dumps({"rules": [{**rule, "rulePriority": 0}]})
    assert code(ecr.put_lifecycle_policy, **name, lifecyclePolicyText=wrong) == "InvalidParameterException"
    ecr.put_lifecycle_policy(**name, lifecyclePolicyText=json.dumps({"rules": [rule]}))

    def left():
        return sorted(i.get("imageTag", "") for i in ecr.list_images(**name)["imageIds"])

    eventually(lambda: left() == ["", "v2", "v3"], "the older two expire")
    assert "lastEvaluatedAt" in ecr.get_lifecycle_policy(**name)
    ecr.delete_lifecycle_policy(**name)
    assert code(ecr.delete_lifecycle_policy, **name) == "LifecyclePolicyNotFoundException"


def test_tasks_run_from_it_with_their_roles_permissions(stack, ecr, repository, image):
    copy(repository, image)
    for uri in [repository.uri, f"123456789012.dkr.ecr.us-east-1.amazonaws.com/{repository.repository}"]:
        container = {**stack.container(command="echo from ecr"), "image": f"{uri}:v1"}
        ended = stack.finish(container)
        assert stack.lines(ended["taskArn"]) == ["from ecr"]
    by_digest = ecr.describe_images(repositoryName=repository.repository)["imageDetails"][0]["imageDigest"]
    ended = stack.finish({**stack.container(command="true"), "image": f"{repository.uri}@{by_digest}"})
    assert ended["containers"][0]["imageDigest"] == by_digest
    missing = stack.finish({**stack.container(command="true"), "image": f"{repository.uri}:v9"})
    assert missing["stopCode"] == "TaskFailedToStart"
    assert "CannotPullContainerError" in missing["stoppedReason"] and "not found" in missing["stoppedReason"]
    stack.iam.create_role(RoleName="no-pull", AssumeRolePolicyDocument=json.dumps(TRUST))
    role = {"executionRoleArn": "arn:aws:iam::123456789012:role/no-pull"}
    container = {"name": "main", "image": f"{repository.uri}:v1"}
    refused = stack.finish(container, **role)
    assert "CannotPullContainerError" in refused["stoppedReason"]
    assert "not authorized to perform: ecr:GetAuthorizationToken" in refused["stoppedReason"]


def test_any_other_registry_works_too(stack, image, tmp_path):
    registry = shutil.which("docker-registry")
    assert registry, "install-deps brings it"
    address = f"127.0.0.1:{PORT + 6}"
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    (tmp_path / "config.yml").write_text(json.dumps(config))
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([registry, "serve", tmp_path / "config.yml"], stdout=log, stderr=log)
    try:
        target = f"docker://{address}/elsewhere:v1"
        words = ["copy", "-q", "--dest-tls-verify=false", image, target]
        eventually(lambda: run_skopeo(*words, check=False).returncode == 0, "the registry")
        container = {**stack.container(command="echo from elsewhere"), "image": f"{address}/elsewhere:v1"}
        assert stack.lines(stack.finish(container)["taskArn"]) == ["from elsewhere"]
    finally:
        process.kill()
        process.wait()
