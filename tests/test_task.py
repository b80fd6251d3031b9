"""Tasks really run: what they serve, log, write, and how they end."""

import json
import subprocess
import urllib.request

import pytest
from botocore.exceptions import ClientError

from conftest import eventually

PAGE = "mkdir -p /tmp/w; echo {} > /tmp/w/index.html; exec /bin/busybox httpd -f -p {} -h /tmp/w"


def fetch(url):
    try:
        return urllib.request.urlopen(url, timeout=2).read().decode()
    except OSError:
        return None


def test_a_page_its_log_and_its_end(stack):
    command = "echo started; trap 'echo stopping; exit 3' TERM; " + PAGE.format("hello", 8080).replace("exec ", "") + " & wait"
    task = stack.run(stack.container(command=command, portMappings=[{"containerPort": 8080}]))
    found = stack.status(task, "RUNNING")
    assert found["startedAt"] >= found["createdAt"] and found["connectivity"] == "CONNECTED"
    url = f"http://{stack.address(task)}:8080/"
    assert eventually(lambda: fetch(url), "a page") == "hello\n"
    stack.ecs.stop_task(cluster="tests", task=task, reason="enough")
    ended = stack.status(task, "STOPPED")
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "enough")
    assert ended["containers"][0]["exitCode"] == 3
    assert eventually(lambda: stack.lines(task)[-1:] == ["stopping"] and stack.lines(task), "its last line")[0] == "started"
    assert fetch(url) is None, "nothing answers any more"
    assert ended["attachments"][0]["status"] == "DELETED"


def test_exit_codes_and_essential_containers(stack):
    ended = stack.finish(
        stack.container("main", "exit 42"), stack.container("side", "sleep 1000", essential=False)
    )
    assert (ended["stopCode"], ended["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    codes = {container["name"]: container.get("exitCode") for container in ended["containers"]}
    assert codes["main"] == 42 and codes["side"] in (143, 137)


def test_what_cannot_start_says_why(stack):
    ended = stack.finish(stack.container(entryPoint=["/no/such"]))
    assert ended["stopCode"] == "TaskFailedToStart"
    assert "CannotStartContainerError" in ended["stoppedReason"] and "/no/such" in ended["stoppedReason"]
    missing = stack.image.replace("busybox:latest", "nothing:latest")
    ended = stack.finish(stack.container(command="true", image=missing))
    assert ended["stopCode"] == "TaskFailedToStart"
    assert ended["stoppedReason"].startswith("CannotPullContainerError")
    ended = stack.finish(stack.container(command="true", image="127.0.0.1:1/x:y"))
    assert ended["stoppedReason"].startswith("CannotPullContainerError")


def test_memory_limits_kill(stack):
    hog = "x=a; while true; do x=$x$x; done"
    ended = stack.finish(stack.container(command=hog, memory=64))
    assert ended["containers"][0]["exitCode"] == 137
    assert ended["containers"][0]["reason"] == "OutOfMemoryError: Container killed due to memory usage"


def test_overrides_environment_user_and_directory(stack):
    container = stack.container(
        command="true", environment=[{"name": "A", "value": "1"}], user="web", workingDirectory="/made/up"
    )
    run = {"containerOverrides": [{
        "name": "main",
        "command": ["/bin/busybox", "sh", "-c", "echo $A $B $(id -u):$(id -g) $(pwd)"],
        "environment": [{"name": "B", "value": "2"}],
    }]}
    ended = stack.finish(container, overrides=run)
    assert ended["containers"][0]["exitCode"] == 0
    assert stack.lines(ended["taskArn"]) == ["1 2 1000:1001 /made/up"]


def test_order_health_and_shared_volumes(stack):
    volume = {"sourceVolume": "shared", "containerPath": "/shared"}
    first = stack.container("first", "sleep 1; echo ready > /shared/flag", essential=False, mountPoints=[volume])
    check = {"command": ["CMD-SHELL", "test -e /tmp/up"], "interval": 5, "retries": 2}
    second = stack.container(
        "second",
        "cat /shared/flag; mkdir -p /tmp; touch /tmp/up; sleep 1000",
        essential=False,
        healthCheck=check,
        mountPoints=[{**volume, "readOnly": True}],
        dependsOn=[{"containerName": "first", "condition": "SUCCESS"}],
    )
    main = stack.container(
        "main",
        "cat /shared/flag; touch /shared/x 2>/dev/null && echo wrote || echo refused",
        volumesFrom=[{"sourceContainer": "second", "readOnly": True}],
        dependsOn=[{"containerName": "second", "condition": "HEALTHY"}],
    )
    ended = stack.finish(main, second, first, volumes=[{"name": "shared"}])
    assert ended["containers"][0]["exitCode"] == 0, ended
    lines = stack.lines(ended["taskArn"], "main")
    assert lines == ["ready", "refused"]


def test_a_read_only_root_and_root_that_is_not_root(stack):
    command = "touch /x 2>/dev/null || echo refused; cat /proc/self/uid_map; sleep 1000"
    task = stack.run(stack.container(command=command, readonlyRootFilesystem=True))
    stack.status(task, "RUNNING")
    lines = eventually(lambda: len(stack.lines(task)) == 2 and stack.lines(task), "its lines")
    assert lines[0] == "refused"
    inside, outside, count = [int(word) for word in lines[-1].split()]
    assert inside == 0 and outside > 0 and count == 65536
    stack.ecs.stop_task(cluster="tests", task=task)


def test_a_task_has_a_disk_of_its_size(stack):
    size = "df -k / | awk 'NR==2 {print int($2 / 1024 / 1024 + 0.9)}'"
    for gib, words in ((20, {}), (25, {"ephemeralStorage": {"sizeInGiB": 25}})):
        ended = stack.finish(stack.container(command=size), **words)
        assert ended["ephemeralStorage"] == {"sizeInGiB": gib}
        assert stack.lines(ended["taskArn"]) == [str(gib)]
    with pytest.raises(ClientError) as caught:
        stack.run(stack.container(command="true"), overrides={"ephemeralStorage": {"sizeInGiB": 5}})
    assert "between 21 GiB and 200 GiB" in str(caught.value)


def test_neighbours_meet_only_as_their_groups_say(stack):
    web = stack.group("web", 9000)
    server = stack.run(stack.container(command=PAGE.format("secret", 9001)), groups=[web])
    stack.status(server, "RUNNING")
    address = stack.address(server, "private")
    look = f"for i in 1 2 3 4 5; do timeout 2 wget -q -O - http://{address}:9001/ && exit 0; sleep 0.2; done; exit 9"
    assert stack.finish(stack.container(command=look))["containers"][0]["exitCode"] == 9
    rule = {"IpProtocol": "tcp", "FromPort": 9001, "ToPort": 9001, "UserIdGroupPairs": [{"GroupId": stack.open_group}]}
    stack.ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[rule])
    ended = stack.finish(stack.container(command=look))
    assert ended["containers"][0]["exitCode"] == 0 and stack.lines(ended["taskArn"]) == ["secret"]
    assert fetch(f"http://{stack.address(server)}:9001/") is None, "the host is in no group"
    stack.ecs.stop_task(cluster="tests", task=server)


def test_metadata_credentials_and_the_api_inside(stack):
    stack.iam.create_role(RoleName="task", AssumeRolePolicyDocument=json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }))
    command = (
        "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task; echo; "
        "wget -q -O - http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; echo; "
        "wget -q -O - http://169.254.170.2/v2/credentials/00000000-0000-4000-8000-000000000000 || echo refused; "
        "nslookup ip-10-1-2-3.ec2.internal; echo $AWS_ENDPOINT_URL"
    )
    role = "arn:aws:iam::123456789012:role/task"
    ended = stack.finish(stack.container(command=command), taskRoleArn=role)
    lines = stack.lines(ended["taskArn"])
    metadata, credentials = json.loads(lines[0]), json.loads(lines[1])
    assert metadata["TaskARN"] == ended["taskArn"] and metadata["LaunchType"] == "FARGATE"
    assert credentials["RoleArn"] == role and "refused" in lines
    assert any("10.1.2.3" in line for line in lines), lines
    assert lines[-1].startswith("http://169.254.170.2")
    sts = stack.neargate.client(
        "sts",
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["Token"],
    )
    assert ":assumed-role/task/" in sts.get_caller_identity()["Arn"]


def test_secrets_come_from_the_parameter_store(stack):
    ssm = stack.neargate.client("ssm")
    ssm.put_parameter(Name="/app/password", Value="hunter2", Type="SecureString")
    secret = {"name": "PASSWORD", "valueFrom": "/app/password"}
    container = stack.container(command="echo the password has ${#PASSWORD} letters", secrets=[secret])
    refused = stack.finish(container)
    assert refused["stopCode"] == "TaskFailedToStart"
    assert "ResourceInitializationError: unable to pull secrets" in refused["stoppedReason"]
    statement = {"Effect": "Allow", "Action": "ssm:GetParameters", "Resource": "arn:aws:ssm:*:*:parameter/app/*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    stack.iam.put_role_policy(RoleName="execution", PolicyName="secrets", PolicyDocument=document)
    ended = stack.finish(container)
    assert stack.lines(ended["taskArn"]) == ["the password has 7 letters"]
    definition = stack.ecs.describe_task_definition(taskDefinition=ended["taskDefinitionArn"])
    assert "hunter2" not in json.dumps(definition, default=str)


def test_secrets_come_from_secrets_manager(stack):
    manager = stack.neargate.client("secretsmanager")
    arn = manager.create_secret(Name="db", SecretString='{"user": "ann", "password": "first"}')["ARN"]
    manager.put_secret_value(SecretId="db", SecretString='{"user": "ann", "password": "second"}')
    secrets = [
        {"name": "WHOLE", "valueFrom": arn},
        {"name": "NOW", "valueFrom": f"{arn}:password::"},
        {"name": "BEFORE", "valueFrom": f"{arn}:password:AWSPREVIOUS:"},
    ]
    container = stack.container(command="echo $NOW after $BEFORE; echo $WHOLE", secrets=secrets)
    refused = stack.finish(container)
    assert "ResourceInitializationError: unable to pull secrets" in refused["stoppedReason"]
    statement = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    stack.iam.put_role_policy(RoleName="execution", PolicyName="manager", PolicyDocument=document)
    ended = stack.finish(container)
    assert stack.lines(ended["taskArn"]) == ["second after first", '{"user": "ann", "password": "second"}']
    no_key = {"name": "NOTHING", "valueFrom": f"{arn}:nothing::"}
    refused = stack.finish(stack.container(secrets=[no_key]))
    assert "did not contain json key nothing" in refused["stoppedReason"]


def test_exec_runs_inside(stack):
    task = stack.run(stack.container(command="sleep 1000"), run={"enableExecuteCommand": True})
    stack.status(task, "RUNNING")
    done = stack.neargate.cli("exec", task, "--", "/bin/busybox", "sh", "-c", "cat; exit 5", check=False, input="typed")
    assert (done.stdout, done.returncode) == ("typed", 5)
    other = stack.run(stack.container(command="sleep 1000"))
    stack.status(other, "RUNNING")
    refused = stack.neargate.cli("exec", other, "--", "true", check=False, input="")
    assert refused.returncode == 1 and "enable-execute-command" in refused.stderr
    for each in (task, other):
        stack.ecs.stop_task(cluster="tests", task=each)


def test_multiline_events(stack):
    options = {
        "awslogs-group": "/tests", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "t",
        "awslogs-multiline-pattern": "^ERROR",
    }
    ended = stack.finish(stack.container(
        command="printf 'ERROR one\\n  at a\\n  at b\\nERROR two\\n'",
        logConfiguration={"logDriver": "awslogs", "options": options},
    ))
    assert stack.lines(ended["taskArn"]) == ["ERROR one\n  at a\n  at b", "ERROR two"]


def test_fargate_refuses_what_fargate_refuses(stack):
    def refused(container=None, **more):
        with pytest.raises(ClientError) as error:
            stack.define(container or stack.container(command="true"), **more)
        assert error.value.response["Error"]["Code"] in ("ClientException", "InvalidParameterException")
        return str(error.value)

    assert "No Fargate configuration exists" in refused(cpu="256", memory="4096")
    assert "privileged" in refused(stack.container(command="true", privileged=True))
    assert "Unknown volume" in refused(stack.container(command="true", mountPoints=[{"sourceVolume": "x", "containerPath": "/x"}]))
    itself = [{"containerName": "a", "condition": "START"}]
    assert "not another container" in refused(stack.container("a", "true", dependsOn=itself))
    files = {"fileSystemArn": "arn:aws:s3files:us-east-1:123456789012:file-system/fs-1"}
    assert "A task role is required" in refused(volumes=[{"name": "v", "s3filesVolumeConfiguration": files}])
    with pytest.raises(ClientError) as error:
        stack.ecs.run_task(cluster="tests", launchType="FARGATE", taskDefinition="family-1")
    assert "Network Configuration must be provided" in str(error.value)
    with pytest.raises(ClientError) as error:
        stack.ecs.run_task(cluster="nowhere", taskDefinition="family-1")
    assert error.value.response["Error"]["Code"] == "ClusterNotFoundException"


def test_an_idempotent_run(stack):
    container, token = stack.container(command="true"), "token-1"
    definition = stack.define(container)
    network = {"awsvpcConfiguration": {"subnets": [stack.subnet], "assignPublicIp": "ENABLED"}}

    def run(definition):
        return stack.ecs.run_task(
            cluster="tests", launchType="FARGATE", taskDefinition=definition,
            networkConfiguration=network, clientToken=token,
        )["tasks"][0]["taskArn"]

    assert run(definition) == run(definition)
    with pytest.raises(ClientError) as conflict:
        run(stack.define(container))
    assert conflict.value.response["Error"]["Code"] == "ConflictException"


def test_nothing_is_left_over(stack):
    def idle():
        return not stack.ecs.list_tasks(cluster="tests")["taskArns"] and not json.loads(
            stack.neargate.cli("--output", "json", "status").stdout
        )["tasks"]

    eventually(idle, "all tasks over", 60)
    report = json.loads(stack.neargate.cli("--output", "json", "doctor").stdout)
    assert report["leaks"] == []
    assert list((stack.neargate.data_dir / "tasks").iterdir()) == []
    mounts = subprocess.run(["cat", "/proc/self/mountinfo"], capture_output=True, text=True).stdout
    assert str(stack.neargate.data_dir / "tasks") not in mounts
