"""S3 Files: a bucket as files that tasks share, kept the same both ways."""

import json
import os

import pytest
from botocore.exceptions import ClientError

from conftest import PORT, Neargate, Stack, eventually, push
from test_efs import MOUNT

# What tasks write, AWS gathers for a minute; here that is a second.
SCALE = "0.02"
TRUSTED = "elasticfilesystem.amazonaws.com"


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]})


class Buckets:
    """Buckets as file systems, with a mount target in the tests' subnet."""

    def __init__(self, stack):
        self.stack, self.iam = stack, stack.iam
        self.files, self.s3 = stack.neargate.client("s3files"), stack.neargate.client("s3")
        self.group = stack.group("nfs", 2049)
        self.role("s3files", TRUSTED)
        self.everything = self.task_role("everything", "ClientMount", "ClientWrite", "ClientRootAccess")

    def role(self, name, service):
        trust = policy({"Principal": {"Service": service}, "Action": "sts:AssumeRole"})
        return self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]

    def task_role(self, name, *actions):
        made = self.role(name, "ecs-tasks.amazonaws.com")
        may = policy({"Action": [f"s3files:{action}" for action in actions], "Resource": "*"})
        self.iam.put_role_policy(RoleName=name, PolicyName="files", PolicyDocument=may)
        return made

    def let(self, bucket, *actions):
        """What S3 Files may do with a bucket."""
        objects = {"Action": [f"s3:{action}" for action in actions], "Resource": f"arn:aws:s3:::{bucket}/*"}
        listing = {"Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"}
        self.iam.put_role_policy(RoleName="s3files", PolicyName=bucket, PolicyDocument=policy(objects, listing))

    def bucket(self, name, versioned=True):
        self.s3.create_bucket(Bucket=name)
        if versioned:
            self.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        self.let(name, "GetObject", "PutObject", "DeleteObject")
        return name

    def make(self, bucket, target=True, **more):
        made = self.files.create_file_system(
            bucket=f"arn:aws:s3:::{bucket}", roleArn="arn:aws:iam::123456789012:role/s3files", **more
        )
        if target:
            self.files.create_mount_target(
                fileSystemId=made["fileSystemId"], subnetId=self.stack.subnet, securityGroups=[self.group]
            )
        return made

    def start(self, text, system, role=None, user=None, **more):
        """Runs a shell script in a task that has the file system at /shared."""
        more_of_container = {} if user is None else {"user": user}
        volume = {"fileSystemArn": system["fileSystemArn"], **more}
        return self.stack.run(
            self.stack.container("main", text, **MOUNT, **more_of_container),
            volumes=[{"name": "shared", "s3filesVolumeConfiguration": volume}],
            taskRoleArn=role or self.everything,
        )

    def run(self, *arguments, **more):
        """How it ended and what it said."""
        task = self.start(*arguments, **more)
        ended = self.stack.status(task, "STOPPED")
        lines = self.stack.lines(task) if ended["stopCode"] == "EssentialContainerExited" else []
        return ended, lines

    def content(self, bucket, key):
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()

    def objects(self, bucket):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {each["Key"] for page in pages for each in page.get("Contents", [])}

    def versions(self, bucket, key):
        told = self.s3.list_object_versions(Bucket=bucket, Prefix=key)
        return [each for each in told.get("Versions", []) if each["Key"] == key]


@pytest.fixture(scope="module")
def buckets(tmp_path_factory, neargate):
    plane = Neargate(tmp_path_factory.mktemp("s3files") / "data", PORT + 23).start(NEARGATE_TIME_SCALE=SCALE)
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "files")
    yield Buckets(stack)
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


def test_objects_are_files_and_files_become_objects(buckets):
    s3, name = buckets.s3, buckets.bucket("both-ways", versioned=False)
    s3.put_object(Bucket=name, Key="data/before", Body=b"before versions\n")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=name, Key="data/changed", Body=b"first\n", ContentType="text/plain", Metadata={"by": "hand"})
    s3.put_object(Bucket=name, Key="data/gone", Body=b"gone\n")
    owned = {"file-owner": "1000", "file-group": "1001", "file-permissions": "0100640", "file-mtime": "1600000000000000000ns"}
    s3.put_object(Bucket=name, Key="data/d/owned", Body=b"x" * 300_000, Metadata=owned)
    s3.put_object(Bucket=name, Key="data/empty/")
    s3.put_object(Bucket=name, Key="data/d//../no name", Body=b"")
    s3.put_object(Bucket=name, Key="elsewhere", Body=b"")
    system = buckets.make(name, prefix="data/", tags=[{"key": "Name", "value": "both"}])
    text = """
        cd /shared; find . | sort; stat -c '%u %g %a %s %Y' d/owned; stat -c '%u %g %a' before empty; cat before changed
        echo second > changed; rm gone; mkdir -m 700 made; echo new > made/new; chown 7:8 made/new; chmod 600 made/new
        ln -s /etc/passwd made/link; mkfifo made/pipe
        while ! [ -e later/it ]; do sleep 0.1; done; cat later/it
    """
    task = buckets.start(text, system)
    buckets.stack.status(task, "RUNNING")
    eventually(lambda: {"data/made/new", "data/made/"} <= buckets.objects(name), "what a task writes is in the bucket", 60)
    eventually(lambda: buckets.content(name, "data/changed") == "second\n", "what it changes is, too", 60)
    eventually(lambda: "data/gone" not in buckets.objects(name), "what it deletes is not", 60)
    s3.put_object(Bucket=name, Key="data/later/it", Body=b"put later\n")
    assert buckets.stack.status(task, "STOPPED")["containers"][0]["exitCode"] == 0
    found = [".", "./before", "./changed", "./d", "./d/owned", "./empty", "./gone"]
    attributes = ["1000 1001 640 300000 1600000000", "0 0 644", "0 0 755"]
    assert buckets.stack.lines(task) == [*found, *attributes, "before versions", "first", "put later"]
    metadata = s3.head_object(Bucket=name, Key="data/made/new")["Metadata"]
    assert (metadata["file-owner"], metadata["file-group"], metadata["file-permissions"]) == ("7", "8", "0100600")
    changed = s3.head_object(Bucket=name, Key="data/changed")
    assert changed["ContentType"] == "text/plain" and changed["Metadata"]["by"] == "hand"
    assert s3.head_object(Bucket=name, Key="data/made/")["Metadata"]["file-permissions"] == "040700"
    # What was replaced or deleted is a version that can be had.
    assert len(buckets.versions(name, "data/changed")) == 2 and len(buckets.versions(name, "data/gone")) == 1
    assert buckets.objects(name) == {
        "data/before", "data/changed", "data/d/owned", "data/empty/", "data/d//../no name", "elsewhere",
        "data/made/", "data/made/new", "data/later/it",
    }  # fmt: skip
    # Deleted in the bucket, it goes here, and its directory with it.
    s3.delete_object(Bucket=name, Key="data/later/it")
    text = "cd /shared; while [ -e later ]; do sleep 0.1; done; mv made moved; cat moved/new"
    assert buckets.run(text, system)[1] == ["new"]
    eventually(lambda: {"data/moved/", "data/moved/new"} <= buckets.objects(name), "it has moved", 60)
    eventually(lambda: "data/made/" not in buckets.objects(name), "and is not where it was", 60)
    told = buckets.files.get_file_system(fileSystemId=system["fileSystemId"])
    assert (told["status"], told["name"], told["bucket"]) == ("available", "both", f"arn:aws:s3:::{name}")


def test_the_bucket_is_right_where_both_were_changed(buckets):
    name = buckets.bucket("conflicts")
    buckets.s3.put_object(Bucket=name, Key="both", Body=b"at first\n")
    system = buckets.make(name)
    # What is written here cannot get there, until the bucket has something else.
    buckets.let(name, "GetObject")
    ended, _ = buckets.run("echo ours > /shared/both; echo kept > /shared/only-here", system)
    assert ended["containers"][0]["exitCode"] == 0

    def denied():
        told = buckets.files.get_file_system(fileSystemId=system["fileSystemId"])
        return told["status"] == "error" and "s3:PutObject" in told["statusMessage"]

    eventually(denied, "why the bucket does not get it is told", 60)
    with pytest.raises(buckets.files.exceptions.ConflictException, match="mount targets"):
        buckets.files.delete_file_system(fileSystemId=system["fileSystemId"])
    buckets.s3.put_object(Bucket=name, Key="both", Body=b"theirs\n")
    # A task that starts now waits until it is there; what fails does not keep it from starting.
    buckets.let(name, "GetObject", "PutObject", "DeleteObject")
    text = "cd /shared; while [ $(cat both) != theirs ]; do sleep 0.1; done; cat .s3files-lost+found-*/*_both only-here"
    assert buckets.run(text, system)[1] == ["ours", "kept"]
    eventually(lambda: buckets.objects(name) == {"both", "only-here"}, "what was written here alone is there", 60)
    assert buckets.content(name, "both") == "theirs\n"


def test_links_lead_nowhere(buckets, tmp_path):
    name = buckets.bucket("links")
    buckets.s3.put_object(Bucket=name, Key="d/first", Body=b"1")
    system = buckets.make(name)
    outside = f"{tmp_path}/outside"
    os.mkdir(outside)
    assert buckets.run(f"cd /shared; rm -r d; ln -s {outside} d; ls", system)[1] == ["d"]
    buckets.s3.put_object(Bucket=name, Key="d/second", Body=b"2")
    identifier = system["fileSystemId"]
    eventually(lambda: files_status(buckets, identifier) == "error", "what lies behind a link cannot be written", 60)
    assert os.listdir(outside) == []
    # Once the link is gone, the bucket's file is there.
    assert buckets.run("cd /shared; rm d; while ! [ -e d/second ]; do sleep 0.1; done; cat d/second", system)[1] == ["2"]
    eventually(lambda: files_status(buckets, identifier) == "available", "all is well again", 60)


def files_status(buckets, identifier):
    return buckets.files.get_file_system(fileSystemId=identifier)["status"]


def test_no_file_is_lost_or_kept_twice_in_crashes(buckets):
    name, count = buckets.bucket("crashes"), 300
    for number in range(20):
        buckets.s3.put_object(Bucket=name, Key=f"in/{number}", Body=f"in {number}".encode())
    system = buckets.make(name)
    text = f"cd /shared; mkdir out; for i in $(seq {count}); do echo $i > out/$i; done; while ! [ -e over ]; do sleep 0.1; done; ls in | wc -l"
    task = buckets.start(text, system)
    buckets.stack.status(task, "RUNNING")
    plane = buckets.stack.neargate

    def kept():
        return sum(key.startswith("out/") for key in buckets.objects(name))

    for part in range(6):
        eventually(lambda part=part: kept() >= part * count // 8, f"part {part} is kept", 60)
        plane.kill()
        plane.start(NEARGATE_TIME_SCALE=SCALE)
    eventually(lambda: kept() == count + 1, "all files are objects", 120)
    assert all(buckets.content(name, f"out/{number}") == f"{number}\n" for number in range(1, count + 1, 7))
    told = buckets.s3.get_paginator("list_object_versions").paginate(Bucket=name, Prefix="out/")
    assert sum(len(page["Versions"]) for page in told) == count + 1
    buckets.s3.put_object(Bucket=name, Key="over", Body=b"")
    buckets.stack.status(task, "STOPPED")
    assert buckets.stack.lines(task) == ["20"]


def test_who_may_do_what(buckets):
    name = buckets.bucket("permissions")
    buckets.s3.put_object(Bucket=name, Key="roots", Body=b"x", Metadata={"file-permissions": "0100600"})
    buckets.s3.put_object(Bucket=name, Key="all/", Metadata={"file-permissions": "040777"})
    system = buckets.make(name)
    reader = buckets.task_role("reader", "ClientMount")
    writer = buckets.task_role("writer", "ClientMount", "ClientWrite")
    stranger = buckets.task_role("stranger", "GetFileSystem")
    ended, _ = buckets.run("true", system, role=stranger)
    assert "access denied by server" in ended["stoppedReason"] and ended["stopCode"] == "TaskFailedToStart"
    _, lines = buckets.run("touch /shared/all/x 2>&1; cat /shared/roots 2>&1", system, role=reader)
    assert lines == ["touch: /shared/all/x: Read-only file system", "cat: can't open '/shared/roots': Permission denied"]
    _, lines = buckets.run("touch /shared/all/y; stat -c %u /shared/all/y; cat /shared/roots 2>&1", system, role=writer)
    assert lines == ["65534", "cat: can't open '/shared/roots': Permission denied"]
    # The file system's own policy lets in, and keeps out.
    files, identifier = buckets.files, system["fileSystemId"]
    mount = {"Principal": {"AWS": stranger}, "Action": "s3files:ClientMount"}
    files.put_file_system_policy(fileSystemId=identifier, policy=policy(mount))
    assert buckets.run("ls /shared", system, role=stranger)[1] == ["all", "roots"]
    assert json.loads(files.get_file_system_policy(fileSystemId=identifier)["policy"])["Statement"][0]["Action"] == "s3files:ClientMount"
    denied = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3files:ClientWrite"}]})
    files.put_file_system_policy(fileSystemId=identifier, policy=denied)
    assert "Read-only" in buckets.run("touch /shared/all/z 2>&1", system)[1][0]
    files.delete_file_system_policy(fileSystemId=identifier)
    with pytest.raises(files.exceptions.ResourceNotFoundException):
        files.get_file_system_policy(fileSystemId=identifier)
    # Behind an access point everybody is one, in a directory that it makes.
    root = {"path": "/apps/one", "creationPermissions": {"ownerUid": 1500, "ownerGid": 1500, "permissions": "750"}}
    point = files.create_access_point(fileSystemId=identifier, posixUser={"uid": 1500, "gid": 1500}, rootDirectory=root)
    text = "stat -c '%u %g %a' /shared; echo mine > /shared/mine; stat -c %u /shared/mine"
    _, lines = buckets.run(text, system, role=writer, user="1234", accessPointArn=point["accessPointArn"])
    assert lines == ["1500 1500 750", "1500"]
    eventually(lambda: "apps/one/mine" in buckets.objects(name), "it is in the bucket", 60)
    assert buckets.s3.head_object(Bucket=name, Key="apps/one/mine")["Metadata"]["file-owner"] == "1500"
    files.delete_access_point(accessPointId=point["accessPointId"])
    ended, _ = buckets.run("true", system, accessPointArn=point["accessPointArn"])
    assert "access denied by server" in ended["stoppedReason"]
    ended, _ = buckets.run("true", system, rootDirectory="/nowhere")
    assert "No such file or directory" in ended["stoppedReason"]
    # Links lead nowhere outside.
    buckets.run("ln -s / /shared/link", system)
    ended, _ = buckets.run("true", system, rootDirectory="/link/etc")
    assert ended["stopCode"] == "TaskFailedToStart"


def test_what_is_asked_for_is_checked(buckets):
    files, name = buckets.files, buckets.bucket("asked", versioned=False)

    def refused(error, words, call, **asked):
        with pytest.raises(getattr(files.exceptions, error), match=words) as told:
            call(**asked)
        return told.value.response

    arn, role = f"arn:aws:s3:::{name}", "arn:aws:iam::123456789012:role/s3files"
    create = files.create_file_system
    refused("ValidationException", "Versioning", create, bucket=arn, roleArn=role)
    buckets.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    gone = refused("ResourceNotFoundException", "does not exist", create, bucket="arn:aws:s3:::nobodys", roleArn=role)
    assert gone["errorCode"] == "BucketNotFound"
    untrusted = buckets.task_role("untrusted", "ClientMount")
    refused("ValidationException", "cannot assume", create, bucket=arn, roleArn=untrusted)
    refused("ValidationException", "KMS", create, bucket=arn, roleArn=role, kmsKeyId="alias/x")
    with pytest.raises(ClientError, match="prefix"):
        create(bucket=arn, roleArn=role, prefix="no-slash")
    system = buckets.make(name, clientToken="once", tags=[{"key": "a", "value": "b"}])
    identifier = system["fileSystemId"]
    assert create(bucket=arn, roleArn=role, clientToken="once")["fileSystemId"] == identifier
    refused("ConflictException", "other parameters", create, bucket=arn, roleArn=role, clientToken="once", prefix="p/")
    assert [each["fileSystemId"] for each in files.list_file_systems(bucket=arn)["fileSystems"]] == [identifier]
    # Mount targets.
    target = files.list_mount_targets(fileSystemId=identifier)["mountTargets"][0]["mountTargetId"]
    again = {"fileSystemId": identifier, "subnetId": buckets.stack.subnet}
    refused("ConflictException", "Availability Zone", files.create_mount_target, **again)
    refused("ValidationException", "subnet", files.create_mount_target, fileSystemId=identifier, subnetId="subnet-00000000")
    assert files.get_mount_target(mountTargetId=target)["securityGroups"] == [buckets.group]
    changed = files.update_mount_target(mountTargetId=target, securityGroups=[buckets.stack.open_group])
    assert changed["securityGroups"] == [buckets.stack.open_group]
    ended, _ = buckets.run("true", system)
    assert "timed out" in ended["stoppedReason"]
    refused("ConflictException", "has mount targets", files.delete_file_system, fileSystemId=identifier)
    files.delete_mount_target(mountTargetId=target)
    ended, _ = buckets.run("true", system)
    assert "Failed to resolve" in ended["stoppedReason"]
    # Synchronization is told in versions.
    told = files.get_synchronization_configuration(fileSystemId=identifier)
    assert told["importDataRules"][0]["sizeLessThan"] == 131072 and told["latestVersionNumber"] == 0
    rules = {
        "fileSystemId": identifier,
        "importDataRules": [{"prefix": "", "trigger": "ON_FILE_ACCESS", "sizeLessThan": 0}],
        "expirationDataRules": [{"daysAfterLastAccess": 7}],
    }
    files.put_synchronization_configuration(**rules)
    refused("ConflictException", "latest version", files.put_synchronization_configuration, **rules)
    files.put_synchronization_configuration(**rules, latestVersionNumber=1)
    assert files.get_synchronization_configuration(fileSystemId=identifier)["latestVersionNumber"] == 2
    # Access points and tags.
    point = files.create_access_point(fileSystemId=identifier, tags=[{"key": "Name", "value": "p"}])
    assert files.get_access_point(accessPointId=point["accessPointArn"])["rootDirectory"] == {"path": "/"}
    assert [each["name"] for each in files.list_access_points(fileSystemId=identifier)["accessPoints"]] == ["p"]
    files.tag_resource(resourceId=point["accessPointId"], tags=[{"key": "x", "value": "y"}])
    files.untag_resource(resourceId=identifier, tagKeys=["a"])
    assert files.list_tags_for_resource(resourceId=identifier)["tags"] == []
    assert len(files.list_tags_for_resource(resourceId=point["accessPointId"])["tags"]) == 2
    files.delete_file_system(fileSystemId=identifier)
    refused("ResourceNotFoundException", "does not exist", files.get_file_system, fileSystemId=identifier)
    refused("ResourceNotFoundException", "does not exist", files.get_access_point, accessPointId=point["accessPointId"])
    assert not list((buckets.stack.neargate.data_dir / "s3files").glob(f"{identifier}*"))


def test_what_the_bucket_does_not_have_is_not_lost_by_mistake(buckets):
    name, files = buckets.bucket("unkept"), buckets.files
    system = buckets.make(name)
    buckets.let(name, "GetObject")
    buckets.run("echo only here > /shared/file", system)
    target = files.list_mount_targets(fileSystemId=system["fileSystemId"])["mountTargets"][0]["mountTargetId"]
    files.delete_mount_target(mountTargetId=target)
    with pytest.raises(files.exceptions.ConflictException, match="does not have yet"):
        files.delete_file_system(fileSystemId=system["fileSystemId"])
    files.delete_file_system(fileSystemId=system["fileSystemId"], forceDelete=True)
    assert buckets.objects(name) == set()


def test_volumes_are_checked_when_registered(buckets):
    system = "arn:aws:s3files:us-east-1:123456789012:file-system/fs-0123456789abcdef0"

    def refused(words, role=buckets.everything, more=None, **volume):
        role = {} if role is None else {"taskRoleArn": role}
        volume = {"name": "shared", "s3filesVolumeConfiguration": {"fileSystemArn": system, **volume}, **(more or {})}
        with pytest.raises(buckets.stack.ecs.exceptions.ClientException, match=words):
            buckets.stack.define(buckets.stack.container("main", "true", **MOUNT), volumes=[volume], **role)

    refused("task role is required", role=None)
    refused("Invalid S3 Files file system ARN", fileSystemArn="fs-0123456789abcdef0")
    refused("absolute path", rootDirectory="x")
    refused("exclude each other", more={"host": {}})
    refused("Invalid S3 Files access point ARN", accessPointArn="fsap-0123456789abcdef0")
    point = f"{system}/access-point/fsap-0123456789abcdef0"
    refused("must either be omitted", accessPointArn=point, rootDirectory="/x")
