"""S3's buckets over time: versions of objects, lifecycle rules, encryption and public access."""

import json
import os
from datetime import datetime, timedelta, timezone

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, eventually
from test_cloudformation import Stacks
from test_events import Listening
from test_s3 import contents, refused


@pytest.fixture(scope="module")
def s3(neargate):
    return neargate.client("s3")


@pytest.fixture
def bucket(s3):
    name = f"v-{os.urandom(6).hex()}"
    s3.create_bucket(Bucket=name)
    yield name
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
        for each in page.get("Versions", []) + page.get("DeleteMarkers", []):
            s3.delete_object(Bucket=name, Key=each["Key"], VersionId=each["VersionId"])
    s3.delete_bucket(Bucket=name)


def versions(s3, bucket, **more):
    """Keys, versions, whether they are the latest, and whether they are markers, in the order of the answer's two lists."""
    found = s3.list_object_versions(Bucket=bucket, **more)
    return [
        (each["Key"], each["VersionId"], each["IsLatest"]) for kind in ["Versions", "DeleteMarkers"] for each in found.get(kind, [])
    ]


def enable(s3, bucket, status="Enabled"):
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status


def read(s3, bucket, key, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read().decode()


def test_what_is_replaced_or_deleted_is_kept(neargate, s3, bucket):
    before = contents(neargate)
    s3.put_object(Bucket=bucket, Key="k", Body=b"zero")
    enable(s3, bucket)
    one = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["VersionId"]
    two = s3.put_object(Bucket=bucket, Key="k", Body=b"two")["VersionId"]
    assert read(s3, bucket, "k") == "two" and s3.head_object(Bucket=bucket, Key="k")["VersionId"] == two
    assert [read(s3, bucket, "k", VersionId=each) for each in [one, "null", two]] == ["one", "zero", "two"]
    assert versions(s3, bucket) == [("k", two, True), ("k", one, False), ("k", "null", False)]

    gone = s3.delete_object(Bucket=bucket, Key="k")
    assert gone["DeleteMarker"] is True
    with refused("NoSuchKey") as _:
        s3.get_object(Bucket=bucket, Key="k")
    with refused("405", status=405):
        s3.head_object(Bucket=bucket, Key="k", VersionId=gone["VersionId"])
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert versions(s3, bucket)[-1] == ("k", gone["VersionId"], True)
    with refused("BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    back = s3.delete_object(Bucket=bucket, Key="k", VersionId=gone["VersionId"])
    assert back["DeleteMarker"] is True and read(s3, bucket, "k") == "two"

    s3.delete_object(Bucket=bucket, Key="k", VersionId=two)
    assert read(s3, bucket, "k") == "one"
    with refused("NoSuchVersion"):
        s3.get_object(Bucket=bucket, Key="k", VersionId=two)
    with refused("InvalidArgument"):
        s3.get_object(Bucket=bucket, Key="k", VersionId="nonsense")
    s3.put_object_tagging(Bucket=bucket, Key="k", VersionId="null", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    assert s3.get_object_tagging(Bucket=bucket, Key="k", VersionId="null")["TagSet"] == [{"Key": "a", "Value": "b"}]
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k", "VersionId": "null"})
    assert copied["CopySourceVersionId"] == "null" and read(s3, bucket, "copy") == "zero"

    enable(s3, bucket, "Suspended")
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"three")["VersionId"] == "null"
    assert [version for _, version, _ in versions(s3, bucket, Prefix="k")] == ["null", one]
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["VersionId"] == "null" and versions(s3, bucket, Prefix="k") == [("k", one, False), ("k", "null", True)]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": each} for each in ["null", one]]})
    s3.delete_object(Bucket=bucket, Key="copy", VersionId=copied["VersionId"])
    assert versions(s3, bucket) == []
    eventually(lambda: contents(neargate) == before, "nothing is left of the versions")


def test_versions_are_listed_in_pages(s3, bucket):
    enable(s3, bucket)
    for key in ["a", "b/1", "b/2", "c"]:
        for _ in range(3):
            s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.delete_object(Bucket=bucket, Key="c")
    whole = versions(s3, bucket)
    assert len(whole) == 13
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    paged = [each["VersionId"] for page in pages for kind in ["Versions", "DeleteMarkers"] for each in page.get(kind, [])]
    assert sorted(paged) == sorted(version for _, version, _ in whole) and len(paged) == 13
    found = s3.list_object_versions(Bucket=bucket, Delimiter="/")
    assert [each["Prefix"] for each in found["CommonPrefixes"]] == ["b/"]
    assert {each["Key"] for each in found["Versions"]} == {"a", "c"}
    assert [each["Key"] for each in s3.list_object_versions(Bucket=bucket, Prefix="b/")["Versions"]] == ["b/1"] * 3 + ["b/2"] * 3


def test_what_buckets_are_told(neargate, s3, bucket):
    rule = lambda: s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert rule() == {"SSEAlgorithm": "AES256"}
    wanted = lambda **more: {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", **more}}]}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=wanted())
    assert rule() == {"SSEAlgorithm": "aws:kms"}
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "aws:kms"
    assert s3.put_object(Bucket=bucket, Key="l", Body=b"x", ServerSideEncryption="AES256")["ServerSideEncryption"] == "AES256"
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "aws:kms"
    with refused("NotImplemented", status=501):
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=wanted(KMSMasterKeyID="alias/mine"))
    s3.delete_bucket_encryption(Bucket=bucket)
    assert rule() == {"SSEAlgorithm": "AES256"}

    public = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}]}
    block = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    with refused("AccessDenied", "BlockPublicPolicy"):
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(public))
    s3.delete_public_access_block(Bucket=bucket)
    with refused("NoSuchPublicAccessBlockConfiguration"):
        s3.get_public_access_block(Bucket=bucket)
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(public))
    stranger = neargate.client("s3", account="111122223333")
    assert read(stranger, bucket, "k") == "x"
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"RestrictPublicBuckets": True})
    with refused("AccessDenied"):
        stranger.get_object(Bucket=bucket, Key="k")


def test_rules_are_followed(tmp_path):
    """A rule whose day has come is followed when the machine starts; others' objects stay."""
    plane = Neargate(tmp_path / "data", PORT + 15).start()
    try:
        s3 = plane.client("s3")
        s3.create_bucket(Bucket="aging")
        enable(s3, "aging")
        for key in ["old/a", "old/b", "tagged", "kept"]:
            s3.put_object(Bucket="aging", Key=key, Body=b"x", Tagging="go=yes" if key == "tagged" else "")
        yesterday = (datetime.now(timezone.utc) - timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        rules = [
            {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": {"Date": yesterday}},
            {"ID": "tagged", "Status": "Enabled", "Filter": {"Tag": {"Key": "go", "Value": "yes"}}, "Expiration": {"Date": yesterday}},
            {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": "kept"}, "Expiration": {"Date": yesterday}},
            {"ID": "later", "Status": "Enabled", "Filter": {"And": {"Prefix": "k", "ObjectSizeLessThan": 9}}, "Expiration": {"Days": 1},
             "NoncurrentVersionExpiration": {"NoncurrentDays": 3, "NewerNoncurrentVersions": 2}},
            {"ID": "abort", "Status": "Enabled", "Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
        ]
        s3.put_bucket_lifecycle_configuration(Bucket="aging", LifecycleConfiguration={"Rules": rules})
        assert s3.get_bucket_lifecycle_configuration(Bucket="aging")["Rules"] == rules
        for broken, code in [
            ({"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 0}}, "InvalidArgument"),
            ({"Status": "Enabled", "Filter": {}}, "InvalidRequest"),
            ({"Status": "Enabled", "Filter": {}, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, "NotImplemented"),
        ]:
            with pytest.raises(ClientError) as error:
                s3.put_bucket_lifecycle_configuration(Bucket="aging", LifecycleConfiguration={"Rules": [broken]})
            assert error.value.response["Error"]["Code"] == code, error.value
        plane.kill()
        plane.start()
        s3 = plane.client("s3")
        keys = lambda: [each["Key"] for each in s3.list_objects_v2(Bucket="aging").get("Contents", [])]
        eventually(lambda: keys() == ["kept"], "the rules are followed")
        assert len(s3.list_object_versions(Bucket="aging")["DeleteMarkers"]) == 3
        s3.delete_bucket_lifecycle(Bucket="aging")
        with refused("NoSuchLifecycleConfiguration"):
            s3.get_bucket_lifecycle_configuration(Bucket="aging")
    finally:
        plane.cli("down", check=False)
        plane.process.wait(timeout=60)


def test_events_of_objects(s3, bucket, neargate):
    """EventBridge is told of what happens to objects, once their bucket says so."""
    listening = Listening(neargate)
    name = listening.rule({"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}})
    s3.put_object(Bucket=bucket, Key="untold", Body=b"x")
    assert "EventBridgeConfiguration" not in s3.get_bucket_notification_configuration(Bucket=bucket)
    with refused("NotImplemented", status=501):
        topic = {"TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Events": ["s3:ObjectCreated:*"]}
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"TopicConfigurations": [topic]})
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    assert s3.get_bucket_notification_configuration(Bucket=bucket)["EventBridgeConfiguration"] == {}
    etag = s3.put_object(Bucket=bucket, Key="a/b c", Body=b"four")["ETag"].strip('"')
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a/b c"})
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", ChecksumAlgorithm="CRC32")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"part", ChecksumAlgorithm="CRC32")
    parts = [{"ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"], "PartNumber": 1}]
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    s3.delete_object(Bucket=bucket, Key="copy")
    s3.delete_object(Bucket=bucket, Key="never there")
    enable(s3, bucket)
    version = s3.put_object(Bucket=bucket, Key="v", Body=b"")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="v", VersionId="0" * 32)  # no such version: nothing is told
    marker = s3.delete_object(Bucket=bucket, Key="v")["VersionId"]
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "v", "VersionId": version}]})
    wanted = [
        ("Object Created", "PutObject", "a/b c", None, None),
        ("Object Created", "CopyObject", "copy", None, None),
        ("Object Created", "CompleteMultipartUpload", "parts", None, None),
        ("Object Deleted", "DeleteObject", "copy", "Permanently Deleted", None),
        ("Object Created", "PutObject", "v", None, version),
        ("Object Deleted", "DeleteObject", "v", "Delete Marker Created", marker),
        ("Object Deleted", "DeleteObject", "v", "Permanently Deleted", version),
    ]

    def told():
        events = sorted(listening.heard(name), key=lambda event: event["detail"]["object"]["sequencer"])
        return events if len(events) >= len(wanted) else None

    events = eventually(told, "the events")
    detail = [event["detail"] for event in events]
    assert [
        (e["detail-type"], d["reason"], d["object"]["key"], d.get("deletion-type"), d["object"].get("version-id")) for e, d in zip(events, detail)
    ] == wanted
    assert detail[0]["object"]["size"] == 4 and detail[0]["object"]["etag"] == etag and events[0]["resources"] == [f"arn:aws:s3:::{bucket}"]
    assert detail[0]["requester"] == "123456789012" and detail[0]["source-ip-address"] == "127.0.0.1" and detail[0]["request-id"]
    listening.forget(name)


def test_a_stacks_bucket_tells_eventbridge(s3, neargate):
    stacks, name = Stacks(neargate), f"told-{os.urandom(4).hex()}"
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}}}
    template = {"Resources": {"Bucket": bucket}, "Outputs": {"Name": {"Value": {"Ref": "Bucket"}}}}
    stacks.create(name, template)
    made = stacks.outputs(name)["Name"]
    assert "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket=made)
    del bucket["Properties"]["NotificationConfiguration"]
    stacks.update(name, template)
    assert "EventBridgeConfiguration" not in s3.get_bucket_notification_configuration(Bucket=made)
    stacks.delete(name)
