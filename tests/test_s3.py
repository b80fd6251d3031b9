"""S3: what is put is got, by real clients; nothing acknowledged is lost, nothing is left over."""

import base64
import hashlib
import json
import os
import subprocess
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from conftest import PORT, Neargate

MIB = 1 << 20


@contextmanager
def refused(code, says="", status=None):
    with pytest.raises(ClientError) as error:
        yield
    answer = error.value.response
    assert answer["Error"]["Code"] == code and says in answer["Error"].get("Message", ""), answer
    assert status in (None, answer["ResponseMetadata"]["HTTPStatusCode"])


@pytest.fixture(scope="module")
def s3(neargate):
    return neargate.client("s3")


@pytest.fixture
def bucket(s3, request):
    name = f"b-{os.urandom(6).hex()}"
    s3.create_bucket(Bucket=name)
    yield name
    for upload in s3.list_multipart_uploads(Bucket=name).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        objects = [{"Key": each["Key"]} for each in page.get("Contents", [])]
        if objects:
            assert "Errors" not in s3.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
    s3.delete_bucket(Bucket=name)


def contents(neargate):
    """How many content files there are."""
    return sum(len(files) for _, _, files in os.walk(neargate.data_dir / "s3"))


def test_buckets(neargate, s3):
    name = f"kept-{os.urandom(4).hex()}"
    assert s3.create_bucket(Bucket=name)["Location"] == f"/{name}"
    s3.create_bucket(Bucket=name)
    listed = s3.list_buckets(Prefix="kept-")["Buckets"]
    assert [each["Name"] for each in listed] == [name]
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "us-east-1"
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket=name)
    with refused("BucketAlreadyExists"):
        neargate.client("s3", account="111122223333").create_bucket(Bucket=name)
    with refused("403", status=403):
        neargate.client("s3", account="111122223333").head_bucket(Bucket=name)
    with refused("404", status=404):
        s3.head_bucket(Bucket="nothing-of-this-name")
    with refused("InvalidBucketName"):
        s3.create_bucket(Bucket="Wrong..Name")
    west = neargate.client("s3", region="eu-west-1")
    with refused("IllegalLocationConstraintException"):
        west.create_bucket(Bucket=f"{name}-west")
    west.create_bucket(Bucket=f"{name}-west", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert west.get_bucket_location(Bucket=f"{name}-west")["LocationConstraint"] == "eu-west-1"
    with refused("NotImplemented", "objects cannot be locked"):
        s3.create_bucket(Bucket=f"{name}-locked", ObjectLockEnabledForBucket=True)
    with refused("NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=name)
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.delete_bucket_tagging(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"x")
    with refused("BucketNotEmpty"):
        s3.delete_bucket(Bucket=name)
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    west.delete_bucket(Bucket=f"{name}-west")
    with refused("NoSuchBucket"):
        s3.list_objects_v2(Bucket=name)


@pytest.mark.parametrize("body", [b"", b"hello", os.urandom(3 * MIB + 1)], ids=["empty", "small", "large"])
def test_what_is_put_is_got(s3, bucket, body):
    key = "a key/with spaces/ü+&?.txt"
    put = s3.put_object(
        Bucket=bucket, Key=key, Body=body, ContentType="text/x-test", CacheControl="no-store", Metadata={"who": "me"},
        ContentDisposition="inline", ContentLanguage="de", ContentEncoding="identity", Tagging="a=1&b=two%20words",
    )
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert put["ChecksumCRC32"] == base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    got = s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    assert got["Body"].read() == body and got["ContentLength"] == len(body)
    assert (got["ContentType"], got["CacheControl"], got["Metadata"]) == ("text/x-test", "no-store", {"who": "me"})
    assert got["ContentEncoding"] == "identity" and got["TagCount"] == 2 and got["ChecksumCRC32"] == put["ChecksumCRC32"]
    head = s3.head_object(Bucket=bucket, Key=key)
    assert (head["ContentLength"], head["ETag"], head["LastModified"]) == (len(body), put["ETag"], got["LastModified"])
    tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    assert tags == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "two words"}]
    s3.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": [{"Key": "c", "Value": "3"}]})
    s3.delete_object_tagging(Bucket=bucket, Key=key)
    assert s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"] == []
    other = s3.get_object(Bucket=bucket, Key=key, ResponseContentType="text/other")
    assert other["ContentType"] == "text/other"


def test_ranges_and_conditions(s3, bucket):
    body = bytes(range(256)) * 10
    etag = s3.put_object(Bucket=bucket, Key="r", Body=body)["ETag"]

    def part(value):
        got = s3.get_object(Bucket=bucket, Key="r", Range=value)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        return got["Body"].read(), got["ContentRange"]

    assert part("bytes=0-9") == (body[:10], "bytes 0-9/2560")
    assert part("bytes=2550-") == (body[2550:], "bytes 2550-2559/2560")
    assert part("bytes=-5") == (body[-5:], "bytes 2555-2559/2560")
    assert part("bytes=2000-9999") == (body[2000:], "bytes 2000-2559/2560")
    with refused("InvalidRange", status=416):
        s3.get_object(Bucket=bucket, Key="r", Range="bytes=2560-")
    modified = s3.head_object(Bucket=bucket, Key="r")["LastModified"]
    with refused("304"):
        s3.head_object(Bucket=bucket, Key="r", IfNoneMatch=etag)
    with refused("304"):
        s3.head_object(Bucket=bucket, Key="r", IfModifiedSince=modified)
    with refused("PreconditionFailed", status=412):
        s3.get_object(Bucket=bucket, Key="r", IfMatch='"other"')
    assert s3.get_object(Bucket=bucket, Key="r", IfMatch=etag, IfUnmodifiedSince=modified)["Body"].read() == body
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="r", Body=b"x", IfNoneMatch="*")
    with refused("PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="r", Body=b"x", IfMatch='"other"')
    s3.put_object(Bucket=bucket, Key="r", Body=b"new", IfMatch=etag)
    with refused("NoSuchKey", status=404):
        s3.get_object(Bucket=bucket, Key="nothing")
    with refused("404"):
        s3.head_object(Bucket=bucket, Key="nothing")
    with ThreadPoolExecutor(8) as pool:
        def first(number):
            try:
                s3.put_object(Bucket=bucket, Key="once", Body=str(number).encode(), IfNoneMatch="*")
                return number
            except ClientError:
                return None

        winners = [number for number in pool.map(first, range(8)) if number is not None]
    assert len(winners) == 1 and s3.get_object(Bucket=bucket, Key="once")["Body"].read() == str(winners[0]).encode()


def test_a_body_that_is_not_what_it_says_is_refused(neargate, s3, bucket):
    before = contents(neargate)
    with refused("BadDigest"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5=base64.b64encode(hashlib.md5(b"y").digest()).decode())
    with refused("BadDigest"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumSHA256=base64.b64encode(hashlib.sha256(b"y").digest()).decode())
    # Of "123456789", as catalogues have them.
    known = {
        "CRC32": "cbf43926", "CRC32C": "e3069283", "CRC64NVME": "ae8b14860a799888",
        "SHA1": hashlib.sha1(b"123456789").hexdigest(), "SHA256": hashlib.sha256(b"123456789").hexdigest(),
    }
    for algorithm, digits in known.items():
        value = base64.b64encode(bytes.fromhex(digits)).decode()
        put = s3.put_object(Bucket=bucket, Key=algorithm, Body=b"123456789", **{f"Checksum{algorithm}": value})
        assert put[f"Checksum{algorithm}"] == value
        with refused("BadDigest"):
            s3.put_object(Bucket=bucket, Key="k", Body=b"987654321", **{f"Checksum{algorithm}": value})
    with refused("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="k")
    assert contents(neargate) == before + 5


def test_listings(s3, bucket):
    keys = ["a", "a/1", "a/2", "b b", "c/d/e", "c/f", "ü", "z"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())

    def listed(**more):
        answer = s3.list_objects_v2(Bucket=bucket, **more)
        prefixes = [each["Prefix"] for each in answer.get("CommonPrefixes", [])]
        return [each["Key"] for each in answer.get("Contents", [])], prefixes

    assert listed() == (sorted(keys, key=str.encode), [])
    assert listed(Delimiter="/") == (["a", "b b", "z", "ü"], ["a/", "c/"])
    assert listed(Prefix="c/", Delimiter="/") == (["c/f"], ["c/d/"])
    assert listed(StartAfter="b b") == (["c/d/e", "c/f", "z", "ü"], [])
    assert listed(Prefix="nothing") == ([], [])
    found, prefixes = [], []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}):
        assert page["KeyCount"] == 1
        found += [each["Key"] for each in page.get("Contents", [])]
        prefixes += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
    assert (found, prefixes) == (["a", "b b", "z", "ü"], ["a/", "c/"])
    old = [each["Key"] for page in s3.get_paginator("list_objects").paginate(Bucket=bucket, PaginationConfig={"PageSize": 3}) for each in page["Contents"]]
    assert old == sorted(keys, key=str.encode)
    first = s3.list_objects_v2(Bucket=bucket, MaxKeys=1, FetchOwner=True)["Contents"][0]
    assert first["Size"] == 1 and first["StorageClass"] == "STANDARD" and len(first["Owner"]["ID"]) == 64


def test_parts(neargate, s3, bucket):
    before = contents(neargate)
    parts = [os.urandom(5 * MIB), os.urandom(5 * MIB), b"the end"]
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m", ContentType="x/y", Metadata={"a": "b"}, ChecksumAlgorithm="CRC32")["UploadId"]
    done = []
    for number, body in enumerate(parts, 1):
        answer = s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32")
        done.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=9, Body=b"never used", ChecksumAlgorithm="CRC32")
    assert [part["Size"] for part in s3.list_parts(Bucket=bucket, Key="m", UploadId=upload)["Parts"]] == [5 * MIB, 5 * MIB, 7, 10]
    assert s3.list_parts(Bucket=bucket, Key="m", UploadId=upload, PartNumberMarker=2)["Parts"][0]["PartNumber"] == 3
    assert [each["Key"] for each in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["m"]
    with refused("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="m")
    complete = {"Bucket": bucket, "Key": "m", "UploadId": upload}
    with refused("InvalidPartOrder"):
        s3.complete_multipart_upload(**complete, MultipartUpload={"Parts": done[::-1]})
    with refused("InvalidPart"):
        s3.complete_multipart_upload(**complete, MultipartUpload={"Parts": [{**done[0], "ETag": '"no"'}]})
    with refused("EntityTooSmall"):
        s3.complete_multipart_upload(**complete, MultipartUpload={"Parts": [done[0], done[2], {"PartNumber": 9, "ETag": f'"{hashlib.md5(b"never used").hexdigest()}"'}]})
    made = s3.complete_multipart_upload(**complete, MultipartUpload={"Parts": done})
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    assert made["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"' and made["ChecksumCRC32"].endswith("-3")
    whole = b"".join(parts)
    got = s3.get_object(Bucket=bucket, Key="m")
    assert got["Body"].read() == whole and got["ContentType"] == "x/y" and got["Metadata"] == {"a": "b"}
    across = s3.get_object(Bucket=bucket, Key="m", Range=f"bytes={5 * MIB - 3}-{5 * MIB + 2}")["Body"].read()
    assert across == whole[5 * MIB - 3 : 5 * MIB + 3]
    third = s3.get_object(Bucket=bucket, Key="m", PartNumber=3)
    assert third["Body"].read() == b"the end" and third["PartsCount"] == 3
    with refused("NoSuchUpload"):
        s3.abort_multipart_upload(**complete)
    # Parts of an aborted upload are gone, as are those of an object that is replaced.
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    s3.upload_part_copy(Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, CopySource={"Bucket": bucket, "Key": "m"}, CopySourceRange="bytes=0-99")
    s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=upload)
    assert contents(neargate) == before + 3
    s3.put_object(Bucket=bucket, Key="m", Body=b"small")
    assert contents(neargate) == before + 1


def test_transfers_and_copies(s3, bucket, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(20 * MIB))
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB)
    s3.upload_file(str(file), bucket, "big", Config=config)
    assert s3.head_object(Bucket=bucket, Key="big")["ETag"].endswith('-3"')
    s3.download_file(bucket, "big", str(tmp_path / "back"), Config=config)
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    s3.copy({"Bucket": bucket, "Key": "big"}, bucket, "copy", Config=config)
    s3.put_object(Bucket=bucket, Key="small", Body=b"small", Metadata={"a": "1"}, Tagging="t=1")
    s3.copy_object(Bucket=bucket, Key="same", CopySource=f"{bucket}/small")
    same = s3.get_object(Bucket=bucket, Key="same")
    assert same["Body"].read() == b"small" and same["Metadata"] == {"a": "1"} and same["TagCount"] == 1
    s3.copy_object(Bucket=bucket, Key="small", CopySource=f"{bucket}/small", MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="small")["Metadata"] == {"b": "2"}
    with refused("InvalidRequest", "to itself"):
        s3.copy_object(Bucket=bucket, Key="small", CopySource=f"{bucket}/small")
    with refused("NoSuchKey"):
        s3.copy_object(Bucket=bucket, Key="x", CopySource=f"{bucket}/nothing")
    with refused("PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="x", CopySource=f"{bucket}/small", CopySourceIfMatch='"no"')


def test_the_cli_copies_lists_and_presigns(neargate, bucket, tmp_path):
    directory = tmp_path / "site"
    (directory / "sub").mkdir(parents=True)
    (directory / "index.html").write_text("<p>hello")
    (directory / "sub" / "a b.txt").write_text("nested")
    neargate.aws("s3", "sync", str(directory), f"s3://{bucket}/site")
    listed = neargate.aws("s3", "ls", "--recursive", f"s3://{bucket}").stdout
    assert "site/index.html" in listed and "site/sub/a b.txt" in listed
    back = tmp_path / "back"
    neargate.aws("s3", "cp", "--recursive", f"s3://{bucket}/site", str(back))
    assert (back / "sub" / "a b.txt").read_text() == "nested"
    url = neargate.aws("s3", "presign", f"s3://{bucket}/site/index.html").stdout.strip()
    answer = urllib.request.urlopen(url)
    assert answer.read() == b"<p>hello" and answer.headers["Content-Type"] == "text/html"
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(url.replace("index.html", "other.html"))
    assert error.value.code == 403
    neargate.aws("s3", "rm", "--recursive", f"s3://{bucket}/site")
    assert neargate.aws("s3", "ls", f"s3://{bucket}", check=False).stdout == ""


def test_presigned_puts_and_other_signatures(neargate, s3, bucket, tmp_path):
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "up"})
    (tmp_path / "file").write_bytes(b"by url")
    subprocess.run(["curl", "-sS", "--fail", "-T", tmp_path / "file", url], check=True)
    assert s3.get_object(Bucket=bucket, Key="up")["Body"].read() == b"by url"
    env = neargate.env()
    keys = {"aws_access_key_id": env["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": env["AWS_SECRET_ACCESS_KEY"]}
    port = env["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]
    hosted = boto3.client(
        "s3", endpoint_url=f"http://localhost:{port}", region_name="us-east-1", **keys,
        config=Config(s3={"addressing_style": "virtual"}, retries={"max_attempts": 0}),
    )
    # The name is made known by the test alone: *.localhost is loopback to browsers and curl, not to every resolver.
    url = hosted.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "up"})
    assert f"//{bucket}.localhost:" in url
    got = subprocess.run(["curl", "-sS", "--noproxy", "*", url], check=True, capture_output=True, text=True).stdout
    assert got == "by url"
    wrong = neargate.client("s3", aws_access_key_id=env["AWS_ACCESS_KEY_ID"], aws_secret_access_key="wrong")
    with refused("SignatureDoesNotMatch", status=403):
        wrong.list_buckets()
    nobody = neargate.client("s3", aws_access_key_id="AKIANOBODY", aws_secret_access_key="wrong")
    with refused("InvalidAccessKeyId", status=403):
        nobody.list_buckets()
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{env['AWS_ENDPOINT_URL']}/{bucket}/up")
    assert error.value.code in (400, 403)


def test_who_may(neargate, s3, bucket):
    iam, sts = neargate.client("iam"), neargate.client("sts")
    s3.put_object(Bucket=bucket, Key="open/a", Body=b"a")
    s3.put_object(Bucket=bucket, Key="shut/b", Body=b"b")
    account = sts.get_caller_identity()["Account"]
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
    name = f"reader-{bucket}"
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))
    allow = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:DeleteObject"], "Resource": f"arn:aws:s3:::{bucket}/open/*"}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    session = sts.assume_role(RoleArn=role["Role"]["Arn"], RoleSessionName="reading")["Credentials"]
    reader = neargate.client(
        "s3", aws_access_key_id=session["AccessKeyId"], aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )
    assert reader.get_object(Bucket=bucket, Key="open/a")["Body"].read() == b"a"
    with refused("AccessDenied", "is not authorized to perform: s3:GetObject", 403):
        reader.get_object(Bucket=bucket, Key="shut/b")
    with refused("AccessDenied", "s3:ListBucket"):
        reader.list_objects_v2(Bucket=bucket)
    with refused("AccessDenied", "s3:PutObject"):
        reader.put_object(Bucket=bucket, Key="open/a", Body=b"x")
    with refused("AccessDenied", "s3:PutObject"):
        reader.copy_object(Bucket=bucket, Key="open/c", CopySource=f"{bucket}/open/a")
    answer = reader.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "open/a"}, {"Key": "shut/b"}]})
    assert [each["Key"] for each in answer["Deleted"]] == ["open/a"]
    assert [(each["Key"], each["Code"]) for each in answer["Errors"]] == [("shut/b", "AccessDenied")]
    # Another account needs the bucket's policy and its own.
    stranger = neargate.client("s3", account="111122223333")
    with refused("AccessDenied"):
        stranger.get_object(Bucket=bucket, Key="shut/b")
    with refused("NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=bucket)
    statement = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert stranger.get_object(Bucket=bucket, Key="shut/b")["Body"].read() == b"b"
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == json.loads(policy)
    with refused("MalformedPolicy"):
        s3.put_bucket_policy(Bucket=bucket, Policy="{}")
    s3.delete_bucket_policy(Bucket=bucket)
    with refused("AccessDenied"):
        stranger.get_object(Bucket=bucket, Key="shut/b")
    with refused("AccessDenied"):
        s3.list_objects_v2(Bucket=bucket, ExpectedBucketOwner="111122223333")


def test_what_is_not_built_says_so(s3, bucket):
    for call, more in [
        (s3.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Enabled", "MFADelete": "Enabled"}, "MFA": "1 2"}),
        (s3.put_bucket_website, {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}}),
        (s3.put_object, {"Key": "k", "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"}),
        (s3.put_object, {"Key": "k", "StorageClass": "GLACIER"}),
    ]:
        with refused("NotImplemented", status=501):
            call(Bucket=bucket, **more)
    with refused("NotImplemented"):
        s3.create_bucket(Bucket=f"{bucket}-tagged", CreateBucketConfiguration={"Tags": [{"Key": "a", "Value": "b"}]})
    with refused("AccessControlListNotSupported"):
        s3.put_object(Bucket=bucket, Key="k", ACL="public-read")


def test_nothing_acknowledged_is_lost_and_nothing_is_left(tmp_path_factory, neargate):
    plane = Neargate(tmp_path_factory.mktemp("objects") / "data", PORT + 4).start()
    try:
        s3 = plane.client("s3")
        s3.create_bucket(Bucket="kept")
        acknowledged = {}
        for life in range(4):
            def put(number, life=life):
                key, body = f"k{number % 7}-{number}", os.urandom(200_000) + str(life).encode()
                try:
                    s3.put_object(Bucket="kept", Key=key, Body=body)
                except Exception:  # the control plane is dead by now
                    return None
                return key, hashlib.md5(body).hexdigest()

            with ThreadPoolExecutor(8) as pool:
                pending = [pool.submit(put, life * 1000 + number) for number in range(60)]
                pending[15].result()
                plane.kill()
                acknowledged.update(done.result() for done in pending if done.result())
            plane.start()
            s3 = plane.client("s3")
        assert len(acknowledged) > 40
        for key, digest in acknowledged.items():
            assert hashlib.md5(s3.get_object(Bucket="kept", Key=key)["Body"].read()).hexdigest() == digest
        listed = [each["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket="kept") for each in page["Contents"]]
        assert set(acknowledged) <= set(listed)
        assert contents(plane) == len(listed), "files that no object names are gone"
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)


def test_tasks_take_their_environment_from_files(stack, s3, bucket):
    s3.put_object(Bucket=bucket, Key="one.env", Body=b"# first\nA=from one\nB=two words\n")
    s3.put_object(Bucket=bucket, Key="two.env", Body=b"A=from two\nC=3\nD=file\n")
    files = [{"type": "s3", "value": f"arn:aws:s3:::{bucket}/{name}.env"} for name in ("one", "two")]
    container = stack.container(
        command='echo "$A|$B|$C|$D"', environmentFiles=files, environment=[{"name": "D", "value": "definition"}]
    )
    refused_task = stack.finish(container)
    assert refused_task["stopCode"] == "TaskFailedToStart"
    assert "ResourceInitializationError: failed to download env files" in refused_task["stoppedReason"]
    assert "AccessDenied" in refused_task["stoppedReason"]
    statement = [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"},
        {"Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": f"arn:aws:s3:::{bucket}"},
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    stack.iam.put_role_policy(RoleName="execution", PolicyName="files", PolicyDocument=document)
    ended = stack.finish(container)
    assert stack.lines(ended["taskArn"]) == ["from one|two words|3|definition"]
    overrides = {"containerOverrides": [{"name": "main", "environmentFiles": files[1:]}]}
    ended = stack.finish(container, overrides=overrides)
    assert stack.lines(ended["taskArn"]) == ["from two||3|definition"]
    with pytest.raises(ClientError) as error:
        stack.define(stack.container(environmentFiles=[{"type": "s3", "value": f"arn:aws:s3:::{bucket}/x.txt"}]))
    assert ".env" in str(error.value)
