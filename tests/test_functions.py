"""Functions that run elsewhere: invoked by clients, asked by deployments and by pipelines, through crashes of either side."""

import io
import json
import threading
import traceback
import urllib.error
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest

from conftest import PORT, Neargate, Stack, eventually, push
from test_cloudformation import Stacks
from test_codecommit import Git, refused
from test_codedeploy import Deployed
from test_deployment_strategies import Shifted
from test_pipelines import Pipelines, source
from test_service_balanced import LISTENER, fetch

# A minute of AWS's is 0.3 s here: what nobody answers is over in 18 s, in which green must be up.
SCALE = "0.005"
HOOKS = ["BeforeInstall", "AfterInstall", "AfterAllowTestTraffic", "BeforeAllowTraffic", "AfterAllowTraffic"]


class Functions:
    """What answers Lambda's Invoke: Python functions of the event, by name."""

    def __init__(self):
        self.known, self.asked, self.server, self.port = {}, [], None, 0

    def start(self):
        functions = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                name = self.path.split("?")[0].split("/")[3]
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                functions.asked.append((name, self.path, event))
                function = functions.known.get(name)
                if function is None:
                    return self.answer(404, {"Message": f"Function not found: {name}"})
                try:
                    self.answer(200, function(event))
                except Exception as error:
                    traceback.print_exc()
                    self.answer(200, {"errorMessage": str(error)}, {"X-Amz-Function-Error": "Unhandled"})

            def answer(self, status, body, headers=()):
                body = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**dict(headers), "Content-Length": len(body)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def calls(self, name):
        return [event for asked, _, event in self.asked if asked == name]


@pytest.fixture(scope="module")
def functions():
    functions = Functions()
    functions.start()
    yield functions
    functions.stop()


@pytest.fixture(scope="module")
def settings(functions):
    return {"NEARGATE_TIME_SCALE": SCALE, "NEARGATE_FUNCTIONS": f"http://127.0.0.1:{functions.port}"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory, neargate, settings):
    plane = Neargate(tmp_path_factory.mktemp("functions") / "data", PORT + 22).start(**settings)
    stack = Stack(plane)
    stack.image = push(plane, tmp_path_factory.mktemp("image"), "hooked")
    yield stack
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


def test_a_function_is_invoked(stack, functions):
    plane, api = stack.neargate, stack.neargate.client("lambda")
    functions.known["echo"] = lambda event: {"got": event}

    def broken(_):
        raise ValueError("it does not work")

    functions.known["broken"] = broken
    answer = api.invoke(FunctionName="echo", Payload=b'{"a": 1}')
    assert (answer["StatusCode"], json.load(answer["Payload"]), "FunctionError" in answer) == (200, {"got": {"a": 1}}, False)
    assert json.load(api.invoke(FunctionName="echo")["Payload"]) == {"got": {}}
    arn = "arn:aws:lambda:us-east-1:123456789012:function:echo"
    api.invoke(FunctionName=f"{arn}:live", Payload=b"1")
    assert functions.asked[-1][1].endswith("/functions/echo/invocations?Qualifier=live")
    answer = api.invoke(FunctionName="broken", Payload=b"[]")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.load(answer["Payload"])["errorMessage"] == "it does not work"
    count = len(functions.asked)
    assert api.invoke(FunctionName="echo", InvocationType="DryRun")["StatusCode"] == 204
    with refused("ResourceNotFoundException", "function:nothing"):
        api.invoke(FunctionName="nothing")
    with refused("ResourceNotFoundException"):
        api.invoke(FunctionName="arn:aws:lambda:eu-west-1:123456789012:function:echo")
    with refused("InvalidRequestContentException"):
        api.invoke(FunctionName="echo", Payload=b"{")
    with refused("RequestTooLargeException", "1048577"):
        api.invoke(FunctionName="echo", InvocationType="Event", Payload=b'"' + b"x" * 1048575 + b'"')
    with refused("InvalidParameterValueException", "durable"):
        api.invoke(FunctionName="echo", DurableExecutionName="x")
    assert [name for name, _, _ in functions.asked[count:]] == ["nothing"]
    # The command line puts the answer into a file.
    out = plane.data_dir.parent / "answer"
    said = plane.aws("lambda", "invoke", "--function-name", "echo", "--payload", '{"b": 2}', "--cli-binary-format", "raw-in-base64-out", str(out), check=False)
    if said.returncode:
        # Version 1 of it takes the payload as it is.
        said = plane.aws("lambda", "invoke", "--function-name", "echo", "--payload", '{"b": 2}', str(out))
    assert json.loads(out.read_text()) == {"got": {"b": 2}}, said.stderr

    stack.iam.create_user(UserName="caller")
    key = stack.iam.create_access_key(UserName="caller")["AccessKey"]
    caller = plane.client("lambda", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    only = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn}]}
    with refused("AccessDeniedException"):
        caller.invoke(FunctionName="echo")
    stack.iam.put_user_policy(UserName="caller", PolicyName="echo", PolicyDocument=json.dumps(only))
    assert caller.invoke(FunctionName="echo")["StatusCode"] == 200
    with refused("AccessDeniedException"):
        caller.invoke(FunctionName="broken")


def test_what_is_asked_asynchronously_arrives(stack, functions, settings):
    plane, api = stack.neargate, stack.neargate.client("lambda")
    failed = []

    def third(event):
        failed.append(event)
        if len(failed) < 3:
            raise ValueError("not yet")

    functions.known["third"], functions.known["later"] = third, lambda event: None
    assert api.invoke(FunctionName="third", InvocationType="Event", Payload=b'"x"')["StatusCode"] == 202
    eventually(lambda: len(failed) == 3, "it is tried three times")
    functions.stop()
    try:
        for number in range(5):
            assert api.invoke(FunctionName="later", InvocationType="Event", Payload=str(number).encode())["StatusCode"] == 202
        with refused("ServiceException"):
            api.invoke(FunctionName="later")
        plane.kill()
        plane.start(**settings)
    finally:
        functions.start()
    eventually(lambda: sorted(functions.calls("later")) == [0, 1, 2, 3, 4], "all five arrive, each once")
    assert failed == ["x"] * 3


def test_functions_decide_of_a_deployment(stack, functions, settings):
    deployed = Deployed(stack, "hooked", count=1)
    plane, heard = stack.neargate, []

    def hook(event):
        """What a deployment looks like from within its hook; it says no more than that all is well."""
        id = event["DeploymentId"]
        running = [name for name, status in deployed.lifecycle(id).items() if status == "InProgress"]
        heard.append((running, deployed.page_at(), deployed.page_at(LISTENER + 1)))
        say(event, "Succeeded")

    def say(event, status):
        return plane.client("codedeploy").put_lifecycle_event_hook_execution_status(
            deploymentId=event["DeploymentId"], lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"], status=status
        )

    functions.known["validate"] = hook
    id = deployed.begin("two", hooks={event: "validate" for event in HOOKS})
    deployed.reaches(id, "Succeeded")
    assert heard == [
        (["BeforeInstall"], "one", "one"),
        (["AfterInstall"], "one", "one"),
        (["AfterAllowTestTraffic"], "one", "two"),
        (["BeforeAllowTraffic"], "one", "two"),
        (["AfterAllowTraffic"], "two", "two"),
    ]
    assert set(deployed.lifecycle(id).values()) == {"Succeeded"}
    with refused("LifecycleEventAlreadyCompletedException"):
        say(functions.calls("validate")[0], "Failed")

    # Without functions, their events are passed over.
    id = deployed.begin("three")
    deployed.reaches(id, "Succeeded")
    lifecycle = deployed.lifecycle(id)
    assert {name for name, status in lifecycle.items() if status == "Skipped"} == set(HOOKS), lifecycle

    # One that says no: production never sees the new version, and all is as it was.
    functions.known["refuse"] = lambda event: say(event, "Failed")
    id = deployed.begin("four", hooks={"AfterAllowTestTraffic": "refuse"})
    found = deployed.reaches(id, "Failed")
    assert found["errorInformation"]["code"] == "HOOK_EXECUTION_FAILURE" and "refuse" in found["errorInformation"]["message"]
    events = {event["lifecycleEventName"]: event for event in deployed.target(id)["lifecycleEvents"]}
    assert (events["AfterAllowTestTraffic"]["status"], events["AllowTraffic"]["status"]) == ("Failed", "Skipped")
    assert (events["AfterAllowTestTraffic"]["diagnostics"]["errorCode"], events["AfterAllowTestTraffic"]["diagnostics"]["scriptName"]) == ("ScriptFailed", "refuse")
    deployed.reaches(found["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert (deployed.page_at(), deployed.page_at(LISTENER + 1)) == ("three", "three")

    # One that says no when all traffic is there already: it comes back.
    id = deployed.begin("five", hooks={"AfterAllowTraffic": "refuse"})
    found = deployed.reaches(id, "Failed")
    deployed.reaches(found["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert deployed.page_at() == "three"

    # One that is not there, and one that never says anything.
    id = deployed.begin("six", hooks={"BeforeInstall": "unknown"})
    found = deployed.reaches(id, "Failed")
    assert found["errorInformation"]["code"] == "HOOK_EXECUTION_FAILURE" and "did not say" in found["errorInformation"]["message"]
    if back := found.get("rollbackInfo", {}).get("rollbackDeploymentId"):
        deployed.reaches(back, "Succeeded")

    # One that is slow, while the control plane is killed and comes back.
    slow = threading.Event()
    functions.known["slow"] = lambda _: slow.set()
    id = deployed.begin("seven", hooks={"AfterInstall": "slow"})
    assert slow.wait(60)
    plane.kill()
    plane.start(**settings)
    api = plane.client("codedeploy")
    event = functions.calls("slow")[0]
    for code, change in [
        ("InvalidLifecycleEventHookExecutionIdException", {"lifecycleEventHookExecutionId": "nothing"}),
        ("InvalidLifecycleEventHookExecutionStatusException", {"status": "Skipped"}),
        ("DeploymentDoesNotExistException", {"deploymentId": "d-NOTHING12"}),
    ]:
        given = dict(deploymentId=id, lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"], status="Succeeded")
        with refused(code):
            api.put_lifecycle_event_hook_execution_status(**{**given, **change})
    say(event, "Succeeded")
    deployed.reaches(id, "Succeeded")
    assert deployed.page_at() == "seven"
    assert len({one["LifecycleEventHookExecutionId"] for one in functions.calls("slow")}) == 1
    deployed.end()


def invoke(function, inputs=(), outputs=(), **more):
    action = {"name": "Invoke", "actionTypeId": {"category": "Invoke", "owner": "AWS", "provider": "Lambda", "version": "1"}}
    action["inputArtifacts"], action["outputArtifacts"] = [{"name": one} for one in inputs], [{"name": one} for one in outputs]
    return {**action, "configuration": {"FunctionName": function, "UserParameters": "some"}, **more}


def test_functions_are_actions_of_pipelines(stack, functions, settings):
    plane = stack.neargate
    pipelines = Pipelines(plane)
    repository = pipelines.repository()
    pipelines.commit(repository, template__yaml=b"hello")
    api = pipelines.codepipeline
    denied = []

    def transform(event):
        """Reads what comes in, writes what goes out, as nobody else but the job, in two turns."""
        job = event["CodePipeline.job"]
        data, keys = job["data"], job["data"]["artifactCredentials"]
        assert data["actionConfiguration"]["configuration"] == {"FunctionName": "transform", "UserParameters": "some"}
        s3 = boto3.client(
            "s3", endpoint_url=f"http://{plane.listen}", region_name="us-east-1", aws_access_key_id=keys["accessKeyId"],
            aws_secret_access_key=keys["secretAccessKey"], aws_session_token=keys["sessionToken"],
        )
        [given], [made] = [[one["location"]["s3Location"] for one in data[side]] for side in ["inputArtifacts", "outputArtifacts"]]
        content = s3.get_object(Bucket=given["bucketName"], Key=given["objectKey"])["Body"].read()
        if "continuationToken" not in data:
            try:
                s3.list_objects_v2(Bucket=given["bucketName"])
            except s3.exceptions.ClientError as error:
                denied.append(error.response["Error"]["Code"])
            return api.put_job_success_result(jobId=job["id"], continuationToken="more", executionDetails={"percentComplete": 50})
        assert data["continuationToken"] == "more"
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            archive.writestr("shout.txt", zipfile.ZipFile(io.BytesIO(content)).read("template.yaml").upper())
        s3.put_object(Bucket=made["bucketName"], Key=made["objectKey"], Body=body.getvalue())
        api.put_job_success_result(
            jobId=job["id"], executionDetails={"summary": "shouted", "externalExecutionId": "e-1"}, outputVariables={"Loud": "yes"}
        )

    def said(event):
        """The second action: it is told what the first one made."""
        job = event["CodePipeline.job"]
        assert job["data"]["actionConfiguration"]["configuration"]["UserParameters"] == "yes"
        api.put_job_failure_result(jobId=job["id"], failureDetails={"type": "JobFailed", "message": "too loud", "externalExecutionId": "e-2"})

    functions.known["transform"], functions.known["said"] = transform, said
    first = invoke("transform", ["SourceOutput"], ["Loud"], namespace="loud")
    second = invoke("said", ["Loud"], name="Check", configuration={"FunctionName": "said", "UserParameters": "#{loud.Loud}"})
    name = pipelines.create(("Source", [source(repository)]), ("Transform", [first]), ("Check", [second]))
    [execution] = eventually(lambda: pipelines.executions(name), "it begins by itself")
    pipelines.ends(name, execution["pipelineExecutionId"], "Failed")
    assert denied == ["AccessDenied"]
    done = pipelines.action(name, "Invoke")
    assert (done["status"], done["output"]["executionResult"]["externalExecutionId"], done["output"]["outputVariables"]) == ("Succeeded", "e-1", {"Loud": "yes"})
    [artifact] = [one["s3location"] for one in done["output"]["outputArtifacts"]]
    body = pipelines.s3.get_object(Bucket=artifact["bucket"], Key=artifact["key"])["Body"].read()
    assert zipfile.ZipFile(io.BytesIO(body)).read("shout.txt") == b"HELLO"
    error = pipelines.stage(name, "Check")["actionStates"][0]["latestExecution"]["errorDetails"]
    assert error == {"code": "JobFailed", "message": "too loud"}
    jobs = [event["CodePipeline.job"]["id"] for event in functions.calls("transform")]
    assert len(jobs) == 2 and jobs[0] != jobs[1]
    for job in jobs[1:]:
        with refused("InvalidJobStateException"):
            api.put_job_success_result(jobId=job)
    with refused("JobNotFoundException"):
        api.put_job_failure_result(jobId="11111111-2222-3333-4444-555555555555", failureDetails={"type": "JobFailed", "message": "x"})

    # One that takes its time, while the control plane is killed; and one that is not there.
    taken = threading.Event()
    functions.known["said"] = lambda _: taken.set()
    again = api.retry_stage_execution(
        pipelineName=name, stageName="Check", pipelineExecutionId=execution["pipelineExecutionId"], retryMode="FAILED_ACTIONS"
    )["pipelineExecutionId"]
    assert taken.wait(30)
    plane.kill()
    plane.start(**settings)
    job = functions.calls("said")[-1]["CodePipeline.job"]["id"]
    plane.client("codepipeline").put_job_success_result(jobId=job)
    pipelines.ends(name, again)
    nothing = pipelines.create(("Source", [source(repository)]), ("Nothing", [invoke("nothing")]))
    [execution] = eventually(lambda: pipelines.executions(nothing), "it begins by itself")
    pipelines.ends(nothing, execution["pipelineExecutionId"], "Failed")
    error = pipelines.stage(nothing, "Nothing")["actionStates"][0]["latestExecution"]["errorDetails"]
    assert "did not say" in error["message"], error


def test_repositories_tell_functions_of_pushes(stack, functions, settings, tmp_path):
    plane = stack.neargate
    api, name = plane.client("codecommit"), "told"
    api.create_repository(repositoryName=name)
    functions.known["told"] = functions.known["main"] = lambda event: None
    arn = "arn:aws:lambda:us-east-1:123456789012:function:"
    triggers = [
        {"name": "all", "destinationArn": f"{arn}told", "customData": "some", "branches": [], "events": ["all"]},
        {"name": "main", "destinationArn": f"{arn}main", "branches": ["main"], "events": ["updateReference", "deleteReference"]},
    ]
    configured = api.put_repository_triggers(repositoryName=name, triggers=triggers)["configurationId"]
    found = api.get_repository_triggers(repositoryName=name)
    assert (found["configurationId"], found["triggers"]) == (configured, triggers)

    git = Git(plane, tmp_path)
    url = api.get_repository(repositoryName=name)["repositoryMetadata"]["cloneUrlHttp"]
    tree = git.work(url)
    first = git.commit(tree, "a", "1")
    git("tag", "v1", cwd=tree)
    git("push", "-q", "origin", "HEAD:main", "v1", cwd=tree)
    [event] = eventually(lambda: functions.calls("told"), "the first push")
    record = event["Records"][0]
    assert record["codecommit"] == {
        "customData": "some",
        "references": [{"commit": first, "created": True, "ref": "refs/heads/main"}, {"commit": first, "created": True, "ref": "refs/tags/v1"}],
    }
    assert (record["eventSourceARN"], record["eventTriggerName"], record["eventTriggerConfigId"]) == (
        "arn:aws:codecommit:us-east-1:123456789012:told", "all", configured,
    )
    assert record["userIdentityARN"] == "arn:aws:iam::123456789012:user/admin" and functions.calls("main") == []

    # While functions are away and the control plane dies, nothing is lost.
    functions.stop()
    try:
        second = git.commit(tree, "a", "2")
        git("push", "-q", "origin", "HEAD:main", cwd=tree)
        api.create_branch(repositoryName=name, branchName="other", commitId=second)
        plane.kill()
        plane.start(**settings)
    finally:
        functions.start()
    [event] = eventually(lambda: functions.calls("main"), "the second push", 60)
    assert event["Records"][0]["codecommit"]["references"] == [{"commit": second, "ref": "refs/heads/main"}]
    eventually(lambda: len(functions.calls("told")) == 3, "the others", 60)
    api = plane.client("codecommit")
    api.delete_branch(repositoryName=name, branchName="other")
    eventually(lambda: functions.calls("told")[-1]["Records"][0]["codecommit"]["references"] == [{"commit": second, "deleted": True, "ref": "refs/heads/other"}], "a deletion")

    tried = [triggers[0], {**triggers[1], "destinationArn": f"{arn}unknown"}]
    answer = api.test_repository_triggers(repositoryName=name, triggers=tried)
    assert answer["successfulExecutions"] == ["all"] and answer["failedExecutions"][0]["trigger"] == "main"
    assert "unknown" in answer["failedExecutions"][0]["failureMessage"]
    record = functions.calls("told")[-1]["Records"][0]
    assert (record["eventName"], record["codecommit"]["references"]) == ("TriggerEventTest", [{"commit": second, "created": True, "ref": "refs/heads/main"}])
    one = triggers[0]
    for code, bad in [
        ("MaximumRepositoryTriggersExceededException", [{**one, "name": str(number)} for number in range(11)]),
        ("InvalidRepositoryTriggerNameException", [one, one]),
        ("InvalidRepositoryTriggerDestinationArnException", [{**one, "destinationArn": "arn:aws:sns:eu-west-1:123456789012:topic"}]),
        ("InvalidRepositoryTriggerDestinationArnException", [{**one, "destinationArn": "arn:aws:lambda:eu-west-1:123456789012:function:f"}]),
        ("RepositoryTriggerEventsListRequiredException", [{**one, "events": []}]),
        ("InvalidRepositoryTriggerCustomDataException", [{**one, "customData": "x" * 1001}]),
        ("InvalidRepositoryTriggerBranchNameException", [{**one, "branches": ["a b"]}]),
    ]:
        with refused(code):
            api.put_repository_triggers(repositoryName=name, triggers=bad)
    # As templates have them; and away they go.
    stacks = Stacks(plane)
    properties = {"RepositoryName": "stacked", "Triggers": [{"Name": "t", "DestinationArn": f"{arn}told", "Events": ["all"]}]}
    template = {"Resources": {"R": {"Type": "AWS::CodeCommit::Repository", "Properties": properties}}}
    stacks.create("repositories", template)
    assert [one["name"] for one in api.get_repository_triggers(repositoryName="stacked")["triggers"]] == ["t"]
    del properties["Triggers"]
    stacks.update("repositories", template)
    assert api.get_repository_triggers(repositoryName="stacked")["triggers"] == []
    stacks.delete("repositories")


def test_a_function_lets_a_services_deployment_go_on(stack, functions, settings):
    """ECS asks the hook of a blue/green deployment, again where it is not done, through a death of the control plane."""
    trust = {"Effect": "Allow", "Principal": {"Service": "ecs.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = stack.iam.create_role(RoleName="hooks", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    arn = "arn:aws:lambda:us-east-1:123456789012:function:gate"
    stages = ["PRE_SCALE_UP", "POST_TEST_TRAFFIC_SHIFT"]
    hooks = [{"targetType": "AWS_LAMBDA", "hookTargetArn": arn, "roleArn": role, "lifecycleStages": stages}]
    functions.known["gate"] = lambda event: {"hookStatus": "SUCCEEDED"}
    shifted = Shifted(stack, "gated")
    # Whoever asks must be allowed to: the role is not yet.
    shifted.begin("blue", 1, strategy="BLUE_GREEN", lifecycleHooks=hooks)

    def reason():
        found = shifted.latest()
        failed = [hook for hook in found["lifecycleHookDetails"] if hook["status"] == "FAILED"]
        return (found, failed[0]) if failed else None

    found, hook = eventually(reason, "the role may not invoke it", 60)
    assert (hook["targetType"], hook["targetArn"]) == ("AWS_LAMBDA", arn) and functions.calls("gate") == []
    statement = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    stack.iam.put_role_policy(RoleName="hooks", PolicyName="invoke", PolicyDocument=policy)
    shifted.update("gated", forceNewDeployment=True)
    shifted.reaches("SUCCESSFUL")
    told = functions.calls("gate")
    assert [event["lifecycleStage"] for event in told] == stages
    assert told[0]["resourceArn"] == shifted.latest()["serviceDeploymentArn"] and told[0]["executionId"] != told[1]["executionId"]
    details = told[1]["executionDetails"]
    revision = shifted.latest()["targetServiceRevision"]["arn"]
    assert details["targetServiceRevisionArn"] == revision and details["testTrafficWeights"] == {revision: 100.0}
    # Not done yet, whatever happens meanwhile.
    done = threading.Event()
    functions.known["gate"] = lambda event: (
        {"hookStatus": "SUCCEEDED"} if done.is_set() or event["lifecycleStage"] == stages[0] else {"hookStatus": "IN_PROGRESS", "callBackDelay": 20}
    )
    before = len(told)
    shifted.update("gated", taskDefinition=shifted.page("green"))
    eventually(lambda: len(functions.calls("gate")) > before + 4, "it is asked again and again", 90)
    stack.neargate.kill()
    stack.neargate.start(**settings)
    count = len(functions.calls("gate"))
    eventually(lambda: len(functions.calls("gate")) > count + 1, "it is asked on", 60)
    assert fetch(f"http://{shifted.host}:{LISTENER}/") == "blue" and fetch(f"http://{shifted.host}:{LISTENER + 1}/") == "green"
    done.set()
    shifted.reaches("SUCCESSFUL")
    assert fetch(f"http://{shifted.host}:{LISTENER}/") == "green"
    # What says no sends it back.
    functions.known["gate"] = lambda event: {"hookStatus": "FAILED" if event["lifecycleStage"] == stages[1] else "SUCCEEDED"}
    shifted.update("gated", taskDefinition=shifted.page("worse"))
    back = shifted.reaches("ROLLBACK_SUCCESSFUL")
    assert f"the lifecycle hook {arn} failed at POST_TEST_TRAFFIC_SHIFT: it said so" in back["rollback"]["reason"]
    assert fetch(f"http://{shifted.host}:{LISTENER}/") == "green"
    with refused("InvalidParameterException", "hookTargetArn"):
        shifted.update("gated", deploymentConfiguration={"lifecycleHooks": [{"lifecycleStages": stages}]})
    shifted.end()


TEMPLATE = """
Parameters:
  Size: {Type: Number}
Resources:
  Thing:
    Type: Custom::Thing
    Properties:
      ServiceToken: arn:aws:lambda:us-east-1:123456789012:function:maker
      Size: !Ref Size
      Deep: {On: true, List: [1, two]}
  After:
    Type: AWS::SSM::Parameter
    Properties: {Name: !Sub "/${AWS::StackName}", Type: String, Value: !GetAtt Thing.Color}
Outputs:
  Thing: {Value: !Ref Thing}
  Color: {Value: !GetAtt Thing.Color}
  Deep: {Value: !GetAtt Thing.Deep.Down}
"""


def put(url, body, status=200):
    """Answers at an address, as cfn-response does."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": ""}, method="PUT")
    try:
        assert urllib.request.urlopen(request, timeout=10).status == status
    except urllib.error.HTTPError as error:
        assert error.code == status, error


def answer(event, **more):
    said = {"Status": "SUCCESS", "PhysicalResourceId": f"thing-{event['ResourceProperties']['Size']}", **more}
    put(event["ResponseURL"], {**{key: event[key] for key in ["StackId", "RequestId", "LogicalResourceId"]}, **said})
    return {}


def size(value):
    return {"Parameters": [{"ParameterKey": "Size", "ParameterValue": str(value)}]}


def outputs(stacks, name):
    return {each["OutputKey"]: each["OutputValue"] for each in stacks.describe(name)["Outputs"]}


def test_a_function_makes_a_resource_of_a_stack(stack, functions):
    stacks, name = Stacks(stack.neargate), "custom"
    functions.known["maker"] = lambda event: answer(event, Data={"Color": "red", "Deep": {"Down": "x"}})
    stacks.create(name, TEMPLATE, **size(1))
    assert outputs(stacks, name) == {"Thing": "thing-1", "Color": "red", "Deep": "x"}
    [created] = functions.calls("maker")
    properties = {"Size": "1", "Deep": {"On": "true", "List": ["1", "two"]}, "ServiceToken": created["ServiceToken"]}
    assert created["RequestType"] == "Create" and created["ResourceProperties"] == properties
    assert (created["ResourceType"], created["LogicalResourceId"]) == ("Custom::Thing", "Thing")
    assert created["StackId"] == stacks.describe(name)["StackId"] and "PhysicalResourceId" not in created
    # What was answered once is over.
    put(created["ResponseURL"], {"Status": "FAILED"}, 403)
    # An update that names another is a replacement: what was there goes when all is well.
    stacks.update(name, TEMPLATE, **size(2))
    assert outputs(stacks, name)["Thing"] == "thing-2"
    kinds = lambda: [(event["RequestType"], event.get("PhysicalResourceId"), event["ResourceProperties"]["Size"]) for event in functions.calls("maker")]
    assert kinds()[1:] == [("Update", "thing-1", "2"), ("Delete", "thing-1", "1")]
    assert functions.calls("maker")[1]["OldResourceProperties"] == properties
    # One that fails is told of, and what it did is undone.
    functions.known["maker"] = lambda event: (
        answer(event, Status="FAILED", Reason="no room", PhysicalResourceId="thing-2") if event["ResourceProperties"]["Size"] == "3" else answer(event, Data={"Color": "blue", "Deep": {"Down": "y"}})
    )
    stacks.api.update_stack(StackName=name, TemplateBody=TEMPLATE, **size(3))
    stacks.status(name, "UPDATE_ROLLBACK_COMPLETE")
    reasons = [event.get("ResourceStatusReason", "") for event in stacks.events(name)]
    assert any("Received response status [FAILED] from custom resource. Message returned: no room" in reason for reason in reasons)
    stacks.delete(name)
    assert kinds()[-1] == ("Delete", "thing-2", "2")


def test_a_custom_resource_that_cannot_be_made(stack, functions):
    stacks, name = Stacks(stack.neargate), "uncustom"
    functions.known["maker"] = lambda event: answer(event, **({"Status": "FAILED", "Reason": "never"} if event["RequestType"] == "Create" else {}))
    before = len(functions.calls("maker"))
    made = stacks.api.create_stack(StackName=name, TemplateBody=TEMPLATE, **size(1))["StackId"]
    stacks.status(made, "ROLLBACK_COMPLETE")
    assert [event["RequestType"] for event in functions.calls("maker")[before:]] == ["Create", "Delete"]
    with refused("ValidationError", "Unrecognized resource types"):
        stacks.api.create_stack(StackName="no", TemplateBody=json.dumps({"Resources": {"A": {"Type": "Custom::a b"}}}))
    stacks.delete(name)


def test_an_answer_is_waited_for_through_a_crash(stack, functions, settings):
    stacks, name = Stacks(stack.neargate), "patient"
    told = []
    functions.known["maker"] = lambda event: told.append(event) or ({} if event["RequestType"] == "Create" else answer(event))
    made = stacks.api.create_stack(StackName=name, TemplateBody=TEMPLATE, **size(7))["StackId"]
    eventually(lambda: told, "it is asked", 60)
    stack.neargate.kill()
    stack.neargate.start(**settings)
    stacks = Stacks(stack.neargate)
    assert stacks.describe(made)["StackStatus"] == "CREATE_IN_PROGRESS"
    answer(told[0], Data={"Color": "green", "Deep": {"Down": 1}})
    stacks.status(made, "CREATE_COMPLETE")
    assert outputs(stacks, name)["Color"] == "green" and [event["RequestType"] for event in told] == ["Create"]
    stacks.delete(name)
    assert [event["RequestType"] for event in told] == ["Create", "Delete"]


WAITING = """
Resources:
  Handle: {Type: "AWS::CloudFormation::WaitConditionHandle"}
  Told:
    Type: AWS::SSM::Parameter
    Properties: {Name: !Sub "/${AWS::StackName}", Type: String, Value: !Ref Handle}
  Ready:
    Type: AWS::CloudFormation::WaitCondition
    DependsOn: Told
    Properties: {Handle: !Ref Handle, Timeout: "3600", Count: 2}
Outputs:
  Data: {Value: !GetAtt Ready.Data}
"""


def test_a_stack_waits_until_it_is_told(stack, settings):
    stacks, name = Stacks(stack.neargate), "waits"
    ssm = stack.neargate.client("ssm")

    def address(name):
        try:
            return ssm.get_parameter(Name=f"/{name}")["Parameter"]["Value"]
        except ssm.exceptions.ParameterNotFound:
            return None

    made = stacks.api.create_stack(StackName=name, TemplateBody=WAITING)["StackId"]
    url = eventually(lambda: address(name), "the handle's address", 60)
    put(url[:-1] + ("0" if url[-1] != "0" else "1"), {}, 403)
    put(url, {"Status": "SUCCESS", "UniqueId": "a", "Data": "first", "Reason": "up"})
    stack.neargate.kill()
    stack.neargate.start(**settings)
    # The same one twice counts once, and what is no signal counts nothing.
    put(url, {"Status": "SUCCESS", "UniqueId": "a", "Data": "again", "Reason": "up"})
    put(url, ["nothing"])
    assert stacks.describe(made)["StackStatus"] == "CREATE_IN_PROGRESS"
    put(url, {"Status": "SUCCESS", "UniqueId": "b", "Data": "second", "Reason": "up"})
    stacks.status(made, "CREATE_COMPLETE")
    assert json.loads(outputs(stacks, name)["Data"]) == {"a": "again", "b": "second"}
    stacks.delete(name)
    # One that is not well fails the stack, and so does silence.
    made = stacks.api.create_stack(StackName=name, TemplateBody=WAITING)["StackId"]
    put(eventually(lambda: address(name), "the handle's address", 60), {"Status": "FAILURE", "UniqueId": "a", "Reason": "broken"})
    stacks.status(made, "ROLLBACK_COMPLETE")
    reasons = [event.get("ResourceStatusReason", "") for event in stacks.events(made)]
    assert any("WaitCondition received failed message: 'broken' for uniqueId: a" in reason for reason in reasons)
    stacks.delete(made)
    made = stacks.api.create_stack(StackName=name, TemplateBody=WAITING.replace("3600", "200"))["StackId"]
    stacks.status(made, "ROLLBACK_COMPLETE")
    reasons = [event.get("ResourceStatusReason", "") for event in stacks.events(made)]
    assert any("WaitCondition timed out. Received 0 conditions when expecting 2" in reason for reason in reasons)
    stacks.delete(made)
