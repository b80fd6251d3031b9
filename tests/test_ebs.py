"""EBS volumes of tasks: made when a task is launched, one for each."""

import json

import pytest
from botocore.exceptions import ClientError

from conftest import eventually

MOUNT = {"mountPoints": [{"sourceVolume": "disk", "containerPath": "/disk"}]}
VOLUMES = [{"name": "disk", "configuredAtLaunch": True}]


@pytest.fixture(scope="module")
def role(stack):
    trust = {"Effect": "Allow", "Principal": {"Service": "ecs.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    arn = stack.iam.create_role(RoleName="volumes", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    policy = "arn:aws:iam::aws:policy/service-role/AmazonECSInfrastructureRolePolicyForVolumes"
    stack.iam.attach_role_policy(RoleName="volumes", PolicyArn=policy)
    return arn


def managed(role, size=2, **more):
    return [{"name": "disk", "managedEBSVolume": {"sizeInGiB": size, "roleArn": role, **more}}]


def disk_of(task):
    found = next(a for a in task["attachments"] if a["type"] == "AmazonElasticBlockStorage")
    return found["status"], {each["name"]: each["value"] for each in found["details"]}


def test_a_task_has_a_disk_of_its_own(stack, role):
    text = "df -P -T -k /disk | tail -1; echo x > /disk/x; chown 1000 /disk/x; sleep 600"
    other = "sleep 3; cat /disk/x; stat -c %u /disk/x; sleep 600"
    task = stack.run(
        stack.container("main", text, **MOUNT),
        stack.container("other", other, **MOUNT),
        volumes=VOLUMES,
        run={"volumeConfigurations": managed(role, tagSpecifications=[{"resourceType": "volume", "tags": [{"key": "a", "value": "b"}]}])},
    )
    stack.status(task, "RUNNING")
    seen = eventually(lambda: stack.lines(task), "what it sees")[0]
    _, kind, size, *_ = seen.split()
    # XFS keeps its log and its bookkeeping for itself.
    assert 1_900_000 < int(size) <= 2 * 1024 * 1024 and kind == "xfs"
    eventually(lambda: stack.lines(task, "other") == ["x", "1000"], "the other container's view")
    status, details = disk_of(stack.describe(task))
    assert (status, details["deleteOnTermination"], details["volumeName"]) == ("ATTACHED", "true", "disk")
    volume = stack.ec2.describe_volumes(VolumeIds=[details["volumeId"]])["Volumes"][0]
    assert (volume["Size"], volume["VolumeType"], volume["State"], volume["Iops"]) == (2, "gp3", "in-use", 3000)
    assert volume["Attachments"][0]["AssociatedResource"] == task
    assert {tag["Key"]: tag["Value"] for tag in volume["Tags"]} == {"a": "b", "AmazonECSCreated": "true", "AmazonECSManaged": "true"}
    with pytest.raises(ClientError, match="VolumeInUse"):
        stack.ec2.delete_volume(VolumeId=details["volumeId"])
    file = stack.neargate.data_dir / "ebs" / details["volumeId"]
    assert file.stat().st_size == 2 << 30 and file.stat().st_blocks * 512 < 200 << 20, "it takes the room that is written"
    stack.neargate.kill()
    stack.neargate.start()
    stack.ecs.stop_task(cluster="tests", task=task)
    assert disk_of(stack.status(task, "STOPPED"))[0] == "DELETED"
    with pytest.raises(ClientError, match="InvalidVolume.NotFound"):
        stack.ec2.describe_volumes(VolumeIds=[details["volumeId"]])
    assert not file.exists()


@pytest.mark.parametrize("filesystem", ["ext3", "ext4"])
def test_a_disk_can_be_kept(stack, role, filesystem):
    policy = {"terminationPolicy": {"deleteOnTermination": False}, "filesystemType": filesystem, "volumeType": "gp2"}
    task = stack.run(
        stack.container("main", "touch /disk/x; ls /disk", **MOUNT), volumes=VOLUMES, run={"volumeConfigurations": managed(role, 1, **policy)}
    )
    ended = stack.status(task, "STOPPED")
    assert ended["stopCode"] == "EssentialContainerExited", ended["stoppedReason"]
    status, details = disk_of(ended)
    assert status == "DETACHED" and sorted(stack.lines(task)) == ["lost+found", "x"]
    found = stack.ec2.describe_volumes(Filters=[{"Name": "status", "Values": ["available"]}])["Volumes"]
    assert [(v["VolumeId"], v["Attachments"], v["VolumeType"]) for v in found] == [(details["volumeId"], [], "gp2")]
    stack.ec2.create_tags(Resources=[details["volumeId"]], Tags=[{"Key": "kept", "Value": "yes"}])
    assert stack.ec2.describe_volumes(Filters=[{"Name": "tag:kept", "Values": ["yes"]}])["Volumes"]
    stack.ec2.delete_volume(VolumeId=details["volumeId"])
    assert stack.ec2.describe_volumes()["Volumes"] == []


def test_each_task_of_a_service_has_one(stack, role):
    definition = stack.define(stack.container("main", "sleep 600", **MOUNT), volumes=VOLUMES)
    network = {"awsvpcConfiguration": {"subnets": [stack.subnet], "securityGroups": [stack.open_group], "assignPublicIp": "ENABLED"}}
    more = {"cluster": "tests", "serviceName": "disks", "taskDefinition": definition, "networkConfiguration": network}
    with pytest.raises(ClientError, match="must have a managedEBSVolume"):
        stack.ecs.create_service(**more, desiredCount=2, launchType="FARGATE")
    stack.ecs.create_service(**more, desiredCount=2, launchType="FARGATE", volumeConfigurations=managed(role, 1))
    stack.ecs.get_waiter("services_stable").wait(cluster="tests", services=["disks"], WaiterConfig={"Delay": 1})

    def sizes():
        tasks = stack.ecs.list_tasks(cluster="tests", serviceName="disks")["taskArns"]
        volumes = stack.ec2.describe_volumes()["Volumes"]
        volumes = [v for v in volumes if v["Attachments"]]
        return sorted(v["Size"] for v in volumes if v["Attachments"][0]["AssociatedResource"] in tasks)

    assert sizes() == [1, 1]
    service = stack.ecs.describe_services(cluster="tests", services=["disks"])["services"][0]
    assert service["deployments"][0]["volumeConfigurations"] == managed(role, 1)
    stack.ecs.update_service(cluster="tests", service="disks", volumeConfigurations=managed(role, 2))
    eventually(lambda: sizes() == [2, 2] and len(stack.ec2.describe_volumes()["Volumes"]) == 2, "disks of the new size", 90)
    stack.ecs.delete_service(cluster="tests", service="disks", force=True)
    eventually(lambda: stack.ec2.describe_volumes()["Volumes"] == [], "no disk is left", 90)


def test_the_role_must_let_ecs_make_it(stack, role):
    stack.iam.detach_role_policy(
        RoleName="volumes", PolicyArn="arn:aws:iam::aws:policy/service-role/AmazonECSInfrastructureRolePolicyForVolumes"
    )
    task = stack.run(stack.container("main", "true", **MOUNT), volumes=VOLUMES, run={"volumeConfigurations": managed(role)})
    ended = stack.status(task, "STOPPED")
    assert "is not authorized to perform ec2:CreateVolume" in ended["stoppedReason"] and ended["stopCode"] == "TaskFailedToStart"
    assert stack.ec2.describe_volumes()["Volumes"] == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"size": 0}, "has 1 to 16384 GiB"),
        ({"size": 100, "volumeType": "st1"}, "has 125 to 16384 GiB"),
        ({"volumeType": "standard"}, "not supported on Fargate"),
        ({"size": 4, "volumeType": "io2"}, "requires iops"),
        ({"throughput": 10}, "throughput of 10"),
        ({"snapshotId": "snap-1"}, "snapshots are not built"),
    ],
)
def test_what_is_asked_for_is_checked(stack, role, change, words):
    container = stack.container("main", "true", **MOUNT)
    with pytest.raises(ClientError, match=words):
        stack.run(container, volumes=VOLUMES, run={"volumeConfigurations": managed(role, **change)})


def test_a_definition_has_one_such_volume(stack):
    volumes = [*VOLUMES, {"name": "second", "configuredAtLaunch": True}]
    with pytest.raises(ClientError, match="one volume that is configured at launch"):
        stack.define(stack.container(), volumes=volumes)
    with pytest.raises(ClientError, match="not configured at launch"):
        stack.run(stack.container("main", "true"), run={"volumeConfigurations": managed("arn:aws:iam::123456789012:role/x")})
