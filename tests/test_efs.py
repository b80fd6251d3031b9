"""Elastic File System: files that tasks share and that outlive them."""

import json

import pytest
from botocore.exceptions import ClientError

from conftest import eventually
from test_cloudformation import Stacks
from test_software import container, python


class Shared:
    """File systems with a mount target in the tests' subnet."""

    def __init__(self, stack):
        self.stack, self.efs = stack, stack.neargate.client("efs")
        self.group = stack.group("nfs", 2049)

    def make(self, token, target=True, **more):
        made = self.efs.create_file_system(CreationToken=token, **more)["FileSystemId"]
        if target:
            self.efs.create_mount_target(FileSystemId=made, SubnetId=self.stack.subnet, SecurityGroups=[self.group])
        return made

    def point(self, system, token, user=None, path="/", info=None):
        more = {} if user is None else {"PosixUser": {"Uid": user, "Gid": user}}
        root = {"Path": path, **({} if info is None else {"CreationInfo": info})}
        made = self.efs.create_access_point(ClientToken=token, FileSystemId=system, RootDirectory=root, **more)
        return made["AccessPointId"]


@pytest.fixture(scope="module")
def shared(software):
    return Shared(software)


def volume(system, point=None, iam=None, **more):
    authorization = {"accessPointId": point, "iam": iam}
    authorization = {key: value for key, value in authorization.items() if value}
    if authorization:
        more |= {"transitEncryption": "ENABLED", "authorizationConfig": authorization}
    return {"volumes": [{"name": "shared", "efsVolumeConfiguration": {"fileSystemId": system, **more}}]}


MOUNT = {"mountPoints": [{"sourceVolume": "shared", "containerPath": "/shared"}]}


def run(stack, text, volumes, **more):
    """Runs a shell script in a task that has the volume at /shared; answers how it ended and what it said."""
    more_of_task = {key: more.pop(key) for key in ["taskRoleArn"] if key in more}
    task = stack.run(stack.container("main", text, **MOUNT, **more), **volumes, **more_of_task)
    ended = stack.status(task, "STOPPED")
    lines = stack.lines(task) if ended["stopCode"] == "EssentialContainerExited" else []
    return ended, lines


def test_files_outlive_tasks_and_restarts(shared, stack):
    system = shared.make("outlive", Tags=[{"Key": "Name", "Value": "kept"}], Encrypted=True)
    text = "mkdir /shared/d; echo one > /shared/d/file; chown 1000:1001 /shared/d/file; chmod 640 /shared/d/file"
    assert run(stack, text, volume(system))[0]["containers"][0]["exitCode"] == 0
    stack.neargate.kill()
    stack.neargate.start()
    text = "stat -c '%u %g %a' /shared/d/file; cat /shared/d/file; dd if=/dev/zero of=/shared/big bs=1M count=8 2> /dev/null"
    assert run(stack, text, volume(system))[1] == ["1000 1001 640", "one"]
    # A part of it, by its path, as a user who owns nothing.
    _, lines = run(stack, "ls /shared; cat /shared/file 2> /dev/null || echo refused", volume(system, rootDirectory="/d"), user="1234")
    assert lines[0] == "file" and lines[-1] == "refused"
    found = shared.efs.describe_file_systems(FileSystemId=system)["FileSystems"][0]
    assert (found["Name"], found["NumberOfMountTargets"], found["Encrypted"]) == ("kept", 1, True)
    assert found["LifeCycleState"] == "available" and found["PerformanceMode"] == "generalPurpose"
    in_use = shared.efs.exceptions.FileSystemInUse
    with pytest.raises(in_use):
        shared.efs.delete_file_system(FileSystemId=system)
    for target in shared.efs.describe_mount_targets(FileSystemId=system)["MountTargets"]:
        shared.efs.delete_mount_target(MountTargetId=target["MountTargetId"])
    shared.efs.delete_file_system(FileSystemId=system)
    with pytest.raises(shared.efs.exceptions.FileSystemNotFound):
        shared.efs.describe_file_systems(FileSystemId=system)
    assert not (stack.neargate.data_dir / "efs" / system).exists()


def test_everybody_is_one_behind_an_access_point(shared, stack):
    system = shared.make("point")
    info = {"OwnerUid": 1500, "OwnerGid": 1500, "Permissions": "750"}
    point = shared.point(system, "p", 1500, "/apps/one", info)
    text = "stat -c '%u %g %a' /shared; echo $(id -u) > /shared/$(id -u); stat -c '%u %g' /shared/$(id -u); ls /shared"
    assert run(stack, text, volume(system, point))[1] == ["1500 1500 750", "1500 1500", "0"]
    assert run(stack, text, volume(system, point), user="1000")[1] == ["1500 1500 750", "1500 1500", "0", "1000"]
    _, lines = run(stack, "chown 0 /shared/0 2> /dev/null || echo refused; ls /shared/../shared/0", volume(system, point))
    assert lines == ["refused", "/shared/../shared/0"]
    # Without it, they are there with their owners.
    assert run(stack, "stat -c %u /shared/apps/one/0", volume(system))[1] == ["1500"]
    # What it would have to make, another does not.
    missing = shared.point(system, "missing", 1500, "/apps/two")
    ended, _ = run(stack, "true", volume(system, missing))
    words = "failed to invoke EFS utils commands to set up EFS volumes: stderr: mount.nfs4: mounting"
    assert words in ended["stoppedReason"] and "No such file or directory" in ended["stoppedReason"]
    shared.efs.delete_access_point(AccessPointId=point)
    ended, _ = run(stack, "true", volume(system, point))
    assert "access denied by server" in ended["stoppedReason"]


LOCK = """
import fcntl, os, sys, time
def say(text):
    print(text, flush=True)
file = open("/shared/lock", "a+")
"""


@pytest.mark.parametrize("behind", ["plain", "point"])
def test_locks_hold_between_tasks(shared, software, behind):
    system = shared.make(f"locks-{behind}")
    info = {"OwnerUid": 0, "OwnerGid": 0, "Permissions": "777"}
    point = shared.point(system, f"locks-{behind}", 1500, "/l", info) if behind == "point" else None
    volumes = volume(system, point)
    hold = "fcntl.lockf(file, fcntl.LOCK_EX); say('held')\nwhile not os.path.exists('/shared/enough'): time.sleep(0.05)"
    holder = software.run(container(software, words=python(LOCK + hold), **MOUNT), **volumes)
    software.status(holder, "RUNNING")
    eventually(lambda: software.lines(holder) == ["held"], "the lock is held")
    wait = """
import signal, subprocess
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    say(f"not at once: {error.errno}")
killed = subprocess.Popen([sys.executable, "-c", "import fcntl; fcntl.lockf(open('/shared/lock', 'a+'), fcntl.LOCK_EX)"])
time.sleep(1)
killed.kill()
say(f"whoever waits can be killed: {killed.wait()}")
say("waits")
fcntl.lockf(file, fcntl.LOCK_EX)
say("got it")
fcntl.flock(open("/shared/other", "a+"), fcntl.LOCK_EX | fcntl.LOCK_NB)
say("another")
"""
    waiting = software.run(container(software, words=python(LOCK + wait), **MOUNT), **volumes)
    software.status(waiting, "RUNNING")
    before = ["not at once: 11", "whoever waits can be killed: -9", "waits"]
    eventually(lambda: software.lines(waiting) == before, "it waits", 60)
    run(software, "touch /shared/enough", volumes)
    software.status(waiting, "STOPPED")
    assert software.lines(waiting) == [*before, "got it", "another"]


def test_policies_say_who_may_do_what(shared, stack):
    system = shared.make("policy")
    trust = {"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}
    roles = {}
    for name in ["reader", "writer"]:
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        roles[name] = stack.iam.create_role(RoleName=f"efs-{name}", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    actions = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"]
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": roles["reader"]}, "Action": actions[0]},
        {"Effect": "Allow", "Principal": {"AWS": roles["writer"]}, "Action": actions},
    ]
    shared.efs.put_file_system_policy(
        FileSystemId=system, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements})
    )
    # Root's own directory is not a nobody's to write; one for everybody is.
    assert "access denied by server" in run(stack, "true", volume(system))[0]["stoppedReason"]
    shared.efs.delete_file_system_policy(FileSystemId=system)
    with pytest.raises(shared.efs.exceptions.PolicyNotFound):
        shared.efs.describe_file_system_policy(FileSystemId=system)
    run(stack, "mkdir -m 777 /shared/all; echo r > /shared/roots; chmod 600 /shared/roots", volume(system))
    shared.efs.put_file_system_policy(
        FileSystemId=system, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements})
    )
    assert json.loads(shared.efs.describe_file_system_policy(FileSystemId=system)["Policy"])["Statement"] == statements
    text = "touch /shared/all/x; cat /shared/roots 2> /dev/null || echo not root; stat -c %u /shared/all/*"
    volumes = volume(system, iam="ENABLED")
    _, lines = run(stack, text, volumes, taskRoleArn=roles["writer"])
    assert lines == ["not root", "65534"]
    _, lines = run(stack, "touch /shared/all/other 2>&1", volumes, taskRoleArn=roles["reader"])
    assert lines == ["touch: /shared/all/other: Read-only file system"]
    ended, _ = run(stack, "true", volumes)
    assert "has no role" in ended["stoppedReason"]


def test_the_network_must_lead_there(shared, stack):
    lonely = shared.make("lonely", target=False)
    ended, _ = run(stack, "true", volume(lonely))
    assert ended["stopCode"] == "TaskFailedToStart"
    assert f'Failed to resolve "{lonely}.efs.us-east-1.amazonaws.com"' in ended["stoppedReason"]
    target = shared.efs.create_mount_target(FileSystemId=lonely, SubnetId=stack.subnet, SecurityGroups=[stack.open_group])
    ended, _ = run(stack, "true", volume(lonely))
    assert "mount.nfs4: Connection timed out" in ended["stoppedReason"]
    shared.efs.modify_mount_target_security_groups(MountTargetId=target["MountTargetId"], SecurityGroups=[shared.group])
    groups = shared.efs.describe_mount_target_security_groups(MountTargetId=target["MountTargetId"])
    assert groups["SecurityGroups"] == [shared.group]
    assert run(stack, "echo in", volume(lonely))[1] == ["in"]
    interface = stack.ec2.describe_network_interfaces(NetworkInterfaceIds=[target["NetworkInterfaceId"]])
    assert interface["NetworkInterfaces"][0]["PrivateIpAddress"] == target["IpAddress"]


def test_links_lead_nowhere_outside(shared, stack):
    """What one task put in the way does not lead the next one out of the file system."""
    system = shared.make("links")
    run(stack, "ln -s / /shared/out; mkdir /shared/d; ln -s ../../../../../etc /shared/d/etc", volume(system))
    for path in ["/out", "/d/etc", "/out/etc"]:
        ended, _ = run(stack, "cat /shared/*", volume(system, rootDirectory=path))
        assert "mount.nfs4: mounting" in ended["stoppedReason"], path
        point = shared.point(system, path, 0, path, {"OwnerUid": 0, "OwnerGid": 0, "Permissions": "755"})
        ended, _ = run(stack, "cat /shared/*", volume(system, point))
        assert "mount.nfs4: mounting" in ended["stoppedReason"], path


def test_what_is_asked_for_is_checked(shared, stack):
    efs = shared.efs
    system = shared.make("checked", ThroughputMode="provisioned", ProvisionedThroughputInMibps=8)
    with pytest.raises(efs.exceptions.FileSystemAlreadyExists) as error:
        shared.make("checked")
    assert error.value.response["FileSystemId"] == system
    with pytest.raises(efs.exceptions.MountTargetConflict):
        efs.create_mount_target(FileSystemId=system, SubnetId=stack.subnet)
    with pytest.raises(efs.exceptions.SubnetNotFound):
        efs.create_mount_target(FileSystemId=system, SubnetId="subnet-00000000000000000")
    with pytest.raises(efs.exceptions.BadRequest, match="AWS Backup"):
        efs.create_file_system(CreationToken="b", Backup=True)
    with pytest.raises(efs.exceptions.BadRequest):
        efs.create_access_point(ClientToken="up", FileSystemId=system, RootDirectory={"Path": "/a/../../etc"})
    with pytest.raises(efs.exceptions.InvalidPolicyException):
        efs.put_file_system_policy(FileSystemId=system, Policy="{")
    one = efs.create_access_point(ClientToken="same", FileSystemId=system)
    assert efs.create_access_point(ClientToken="same", FileSystemId=system)["AccessPointId"] == one["AccessPointId"]
    with pytest.raises(efs.exceptions.AccessPointAlreadyExists):
        efs.create_access_point(ClientToken="same", FileSystemId=system, PosixUser={"Uid": 1, "Gid": 1})
    found = efs.describe_access_points(FileSystemId=system)["AccessPoints"]
    assert [each["RootDirectory"]["Path"] for each in found] == ["/"]
    changed = efs.update_file_system(FileSystemId=system, ThroughputMode="elastic")
    assert changed["ThroughputMode"] == "elastic" and "ProvisionedThroughputInMibps" not in changed
    for resource in [system, one["AccessPointId"]]:
        efs.tag_resource(ResourceId=resource, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
        efs.untag_resource(ResourceId=resource, TagKeys=["a"])
        assert efs.list_tags_for_resource(ResourceId=resource)["Tags"] == [{"Key": "b", "Value": "2"}]
    policies = [{"TransitionToIA": "AFTER_30_DAYS"}]
    efs.put_lifecycle_configuration(FileSystemId=system, LifecyclePolicies=policies)
    assert efs.describe_lifecycle_configuration(FileSystemId=system)["LifecyclePolicies"] == policies
    efs.put_backup_policy(FileSystemId=system, BackupPolicy={"Status": "DISABLED"})
    assert efs.describe_backup_policy(FileSystemId=system)["BackupPolicy"] == {"Status": "DISABLED"}
    pages = efs.get_paginator("describe_file_systems").paginate(PaginationConfig={"PageSize": 1})
    assert system in [each["FileSystemId"] for page in pages for each in page["FileSystems"]]


@pytest.mark.parametrize(
    "config, words",
    [
        ({"fileSystemId": "../etc"}, "Invalid EFS file system ID"),
        ({"fileSystemId": "fs-1", "authorizationConfig": {"accessPointId": "fsap-1"}}, "transit encryption must be enabled"),
        (
            {
                "fileSystemId": "fs-1",
                "rootDirectory": "/a",
                "transitEncryption": "ENABLED",
                "authorizationConfig": {"accessPointId": "fsap-1"},
            },
            "root directory must either be omitted",
        ),
    ],
)
def test_volumes_are_checked_when_registered(stack, config, words):
    with pytest.raises(ClientError, match=words):
        stack.define(stack.container(), volumes=[{"name": "v", "efsVolumeConfiguration": config}])


TEMPLATE = """
Parameters:
  Subnet: {Type: String}
  Vpc: {Type: String}
Resources:
  Group:
    Type: AWS::EC2::SecurityGroup
    Properties:
      GroupDescription: NFS
      VpcId: !Ref Vpc
      SecurityGroupIngress: [{IpProtocol: tcp, FromPort: 2049, ToPort: 2049, CidrIp: 0.0.0.0/0}]
  Files:
    Type: AWS::EFS::FileSystem
    DeletionPolicy: Delete
    Properties:
      Encrypted: true
      ThroughputMode: elastic
      LifecyclePolicies: [{TransitionToIA: AFTER_30_DAYS}]
      FileSystemTags: [{Key: Name, Value: files}]
  Target:
    Type: AWS::EFS::MountTarget
    Properties: {FileSystemId: !Ref Files, SubnetId: !Ref Subnet, SecurityGroups: [!Ref Group]}
  Point:
    Type: AWS::EFS::AccessPoint
    Properties:
      FileSystemId: !Ref Files
      PosixUser: {Uid: "1000", Gid: "1000"}
      RootDirectory: {Path: /app, CreationInfo: {OwnerUid: "1000", OwnerGid: "1000", Permissions: "755"}}
Outputs:
  Files: {Value: !Ref Files}
  Arn: {Value: !GetAtt Files.Arn}
  Point: {Value: !Ref Point}
"""


def test_a_stack_has_files(shared, stack):
    stacks = Stacks(stack.neargate)
    name, given = stacks.name("files"), {"Subnet": stack.subnet, "Vpc": stack.vpc}
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
    stacks.create(name, TEMPLATE, Parameters=parameters, Tags=[{"Key": "team", "Value": "one"}])
    outputs = {each["OutputKey"]: each["OutputValue"] for each in stacks.describe(name)["Outputs"]}
    system = outputs["Files"]
    assert outputs["Arn"].endswith(f":file-system/{system}")
    tags = shared.efs.list_tags_for_resource(ResourceId=system)["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"Name": "files", "team": "one"}
    assert run(stack, "touch /shared/x; stat -c %u /shared/x", volume(system, outputs["Point"]))[1] == ["1000"]
    changed = TEMPLATE.replace("Value: files", "Value: other").replace("elastic", "bursting")
    stacks.update(name, changed, Parameters=parameters)
    found = shared.efs.describe_file_systems(FileSystemId=system)["FileSystems"][0]
    assert (found["Name"], found["ThroughputMode"]) == ("other", "bursting")
    stacks.delete(name)
    assert not (stack.neargate.data_dir / "efs" / system).exists()
