"""Simple Notification Service: topics, and who is told of what is published to them."""

import base64
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from conftest import PORT, Neargate, eventually
from test_cloudformation import Stacks, template
from test_functions import Functions
from test_pipelines import Pipelines, approval, source

# AWS tries again after twenty seconds; here that is a fifth of one.
SCALE = "0.01"


class Endpoint:
    """An HTTP endpoint that keeps what it is sent."""

    def __init__(self):
        self.got, self.statuses = [], []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status = endpoint.statuses.pop(0) if endpoint.statuses else 200
                endpoint.got.append((self.path, dict(self.headers), body, status))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def sent(self, path, kind="Notification"):
        kinds = [(headers, body) for at, headers, body, status in self.got if at == path and status == 200]
        return [(headers, body) for headers, body in kinds if headers["x-amz-sns-message-type"] == kind]

    def messages(self, path):
        return [json.loads(body)["Message"] for _, body in self.sent(path)]


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()


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
def plane(tmp_path_factory, neargate, settings):
    plane = Neargate(tmp_path_factory.mktemp("sns") / "data", PORT + 24).start(**settings)
    yield plane
    plane.cli("down", check=False)
    plane.process.wait(timeout=60)


@pytest.fixture(scope="module")
def sns(plane):
    return plane.client("sns")


def get(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


def subscribed(sns, endpoint, topic, path, **attributes):
    """Subscribes the endpoint and confirms it by the link that it is sent."""
    url = endpoint.url(path)
    asked = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=url, Attributes=attributes, ReturnSubscriptionArn=True)
    eventually(lambda: endpoint.sent(path, "SubscriptionConfirmation"), "it is asked")
    _, body = endpoint.sent(path, "SubscriptionConfirmation")[-1]
    assert asked["SubscriptionArn"] in get(json.loads(body)["SubscribeURL"])
    return asked["SubscriptionArn"]


SIGNED = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]


def verify(message):
    """As AWS describes it, with the certificate that the message names."""
    assert message["SignatureVersion"] == "2"
    text = "".join(f"{name}\n{message[name]}\n" for name in SIGNED if name in message)
    key = x509.load_pem_x509_certificate(get(message["SigningCertURL"]).encode()).public_key()
    key.verify(base64.b64decode(message["Signature"]), text.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_who_listens_is_told(sns, endpoint):
    topic = sns.create_topic(Name="told")["TopicArn"]
    assert topic == "arn:aws:sns:us-east-1:123456789012:told" and sns.create_topic(Name="told")["TopicArn"] == topic
    url = endpoint.url("/told")
    assert sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=url)["SubscriptionArn"] == "pending confirmation"
    sns.publish(TopicArn=topic, Message="nobody is told before they said yes")
    [(headers, body)] = eventually(lambda: endpoint.sent("/told", "SubscriptionConfirmation"), "it is asked")
    asked = json.loads(body)
    verify(asked)
    assert asked["Token"] in asked["SubscribeURL"] and headers["x-amz-sns-topic-arn"] == topic
    [pending] = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert pending["SubscriptionArn"] == "PendingConfirmation"
    with pytest.raises(sns.exceptions.InvalidParameterException, match="Token"):
        sns.confirm_subscription(TopicArn=topic, Token="made up")
    arn = sns.confirm_subscription(TopicArn=topic, Token=asked["Token"])["SubscriptionArn"]
    attribute = {"DataType": "String", "StringValue": "blue"}
    published = sns.publish(TopicArn=topic, Message="hello", Subject="A greeting", MessageAttributes={"colour": attribute})
    [(headers, body)] = eventually(lambda: endpoint.sent("/told"), "it is told")
    told = json.loads(body)
    verify(told)
    assert headers["x-amz-sns-subscription-arn"] == arn and headers["x-amz-sns-message-id"] == published["MessageId"]
    assert (told["Type"], told["Subject"], told["Message"]) == ("Notification", "A greeting", "hello")
    assert told["MessageAttributes"] == {"colour": {"Type": "String", "Value": "blue"}}
    with pytest.raises(InvalidSignature):
        verify({**told, "Message": "what somebody else says"})
    # Whoever has the link may end it, and take that back.
    get(told["UnsubscribeURL"])
    [(_, body)] = eventually(lambda: endpoint.sent("/told", "UnsubscribeConfirmation"), "it is told that it is over")
    sns.publish(TopicArn=topic, Message="not heard")
    get(json.loads(body)["SubscribeURL"])
    sns.publish(TopicArn=topic, Message="heard again")
    eventually(lambda: "heard again" in endpoint.messages("/told"), "it is told again")
    assert "not heard" not in endpoint.messages("/told") and len(endpoint.messages("/told")) == 2
    attributes = sns.get_topic_attributes(TopicArn=topic)["Attributes"]
    assert (attributes["SubscriptionsConfirmed"], attributes["SubscriptionsPending"]) == ("1", "0")
    assert [one["Endpoint"] for one in sns.list_subscriptions()["Subscriptions"] if one["TopicArn"] == topic] == [url]
    sns.unsubscribe(SubscriptionArn=arn)
    sns.unsubscribe(SubscriptionArn=arn)
    assert sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []
    sns.delete_topic(TopicArn=topic)
    sns.delete_topic(TopicArn=topic)
    with pytest.raises(sns.exceptions.NotFoundException):
        sns.publish(TopicArn=topic, Message="x")


def test_a_stranger_does_not_end_a_guarded_subscription(sns, endpoint):
    topic = sns.create_topic(Name="guarded")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint.url("/guarded"))
    [(_, body)] = eventually(lambda: endpoint.sent("/guarded", "SubscriptionConfirmation"), "it is asked")
    token = json.loads(body)["Token"]
    arn = sns.confirm_subscription(TopicArn=topic, Token=token, AuthenticateOnUnsubscribe="true")["SubscriptionArn"]
    sns.publish(TopicArn=topic, Message="first")
    [(_, body)] = eventually(lambda: endpoint.sent("/guarded"), "it is told")
    with pytest.raises(urllib.error.HTTPError) as error:
        get(json.loads(body)["UnsubscribeURL"])
    assert error.value.code == 403
    assert sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]["ConfirmationWasAuthenticated"] == "true"
    with pytest.raises(urllib.error.HTTPError):
        get(json.loads(body)["UnsubscribeURL"].replace(arn.rsplit(":")[-1], "00000000-0000-0000-0000-000000000000"))


def test_only_what_is_asked_for_is_told(sns, endpoint):
    topic = sns.create_topic(Name="filtered")["TopicArn"]
    by_attribute = json.dumps({"price": [{"numeric": [">=", 100]}], "store": ["mine", {"prefix": "our-"}]})
    subscribed(sns, endpoint, topic, "/attributes", FilterPolicy=by_attribute)
    by_body = json.dumps({"detail": {"state": ["ALARM"]}})
    body = subscribed(sns, endpoint, topic, "/body", FilterPolicy=by_body, FilterPolicyScope="MessageBody")
    subscribed(sns, endpoint, topic, "/raw", RawMessageDelivery="true")

    def publish(message, **attributes):
        kind = lambda value: "Number" if value[0].isdigit() else "String"
        told = {name: {"DataType": kind(value), "StringValue": value} for name, value in attributes.items()}
        sns.publish(TopicArn=topic, Message=message, MessageAttributes=told)

    publish("cheap", price="99.5", store="mine")
    publish("elsewhere", price="100", store="theirs")
    publish("dear", price="1e3", store="our-own")
    publish(json.dumps({"detail": {"state": "OK"}}))
    publish(alarm := json.dumps({"detail": {"state": "ALARM"}}))
    eventually(lambda: len(endpoint.sent("/raw")) == 5, "who asks for everything is told everything")
    eventually(lambda: (endpoint.messages("/attributes"), endpoint.messages("/body")) == (["dear"], [alarm]), "others are not")
    assert "dear" in [body for _, body in endpoint.sent("/raw")]
    assert endpoint.sent("/raw")[0][0]["x-amz-sns-rawdelivery"] == "true"
    sns.set_subscription_attributes(SubscriptionArn=body, AttributeName="FilterPolicy", AttributeValue="{}")
    assert "FilterPolicy" not in sns.get_subscription_attributes(SubscriptionArn=body)["Attributes"]
    # Each protocol its own words.
    structured = json.dumps({"default": "for all", "http": "for http", "email": "for mail"})
    sns.publish(TopicArn=topic, Message=structured, MessageStructure="json")
    eventually(lambda: "for http" in endpoint.messages("/body"), "it is told its own words")


def test_functions_and_batches(sns, functions):
    topic = sns.create_topic(Name="functions")["TopicArn"]
    functions.known["listener"] = lambda event: {}
    arn = "arn:aws:lambda:us-east-1:123456789012:function:listener"
    subscription = sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)["SubscriptionArn"]
    assert subscription.startswith(topic)
    entries = [{"Id": str(number), "Message": f"m{number}", "Subject": "s"} for number in range(9)]
    entries.append({"Id": "bad", "Message": "x", "MessageStructure": "json"})
    answer = sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    assert len(answer["Successful"]) == 9 and [one["Id"] for one in answer["Failed"]] == ["bad"]
    eventually(lambda: len(functions.calls("listener")) == 9, "the function is invoked for each")
    records = [event["Records"][0] for event in functions.calls("listener")]
    assert sorted(record["Sns"]["Message"] for record in records) == [f"m{number}" for number in range(9)]
    assert records[0]["EventSource"] == "aws:sns" and records[0]["EventSubscriptionArn"] == subscription
    for entries, code in [([], "EmptyBatchRequest"), (entries + entries, "TooManyEntriesInBatchRequest"), (entries[:1] * 2, "BatchEntryIdsNotDistinct")]:
        with pytest.raises(ClientError) as error:
            sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
        assert error.value.response["Error"]["Code"] == code


def test_what_does_not_arrive_is_sent_again(plane, sns, endpoint, settings):
    topic = sns.create_topic(Name="again")["TopicArn"]
    subscribed(sns, endpoint, topic, "/again")
    endpoint.statuses = [500, 429]
    sns.publish(TopicArn=topic, Message="third time")
    eventually(lambda: endpoint.messages("/again") == ["third time"], "it arrives")
    # Who says that it is wrong is not asked again; who never answers well is given up after three more times.
    endpoint.statuses = [404]
    sns.publish(TopicArn=topic, Message="wrong")
    eventually(lambda: [one for one in endpoint.got if one[0] == "/again" and one[3] == 404], "it is refused")
    endpoint.statuses = [503] * 4
    sns.publish(TopicArn=topic, Message="down")
    eventually(lambda: len([one for one in endpoint.got if one[0] == "/again" and one[3] == 503]) == 4, "it is tried four times")
    sns.publish(TopicArn=topic, Message="up")
    eventually(lambda: "up" in endpoint.messages("/again"), "the next one arrives")
    assert not {"wrong", "down"} & set(endpoint.messages("/again"))
    # What was acknowledged arrives, whatever happens to the control plane.
    for number in range(60):
        sns.publish(TopicArn=topic, Message=f"crash {number}")
        if number % 20 == 10:
            plane.kill()
            plane.start(**settings)
    eventually(lambda: {f"crash {number}" for number in range(60)} <= set(endpoint.messages("/again")), "all arrive", 60)


def test_policies_decide(plane, sns, endpoint):
    topic = sns.create_topic(Name="policies")["TopicArn"]
    iam = plane.client("iam")
    iam.create_user(UserName="publisher")
    key = iam.create_access_key(UserName="publisher")["AccessKey"]
    theirs = plane.client("sns", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
    with pytest.raises(ClientError) as error:
        theirs.publish(TopicArn=topic, Message="x")
    assert error.value.response["Error"]["Code"] == "AccessDenied"
    allowed = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:user/publisher"}, "Action": "sns:Publish", "Resource": topic}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    theirs.publish(TopicArn=topic, Message="x")
    with pytest.raises(ClientError):
        theirs.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint.url("/x"))
    sns.add_permission(TopicArn=topic, Label="other", AWSAccountId=["210987654321"], ActionName=["Subscribe"])
    statements = json.loads(sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])["Statement"]
    assert statements[1]["Principal"] == {"AWS": ["arn:aws:iam::210987654321:root"]}
    with pytest.raises(sns.exceptions.InvalidParameterException):
        sns.add_permission(TopicArn=topic, Label="other", AWSAccountId=["210987654321"], ActionName=["Subscribe"])
    sns.remove_permission(TopicArn=topic, Label="other")
    assert len(json.loads(sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])["Statement"]) == 1


def test_what_cannot_be(sns, endpoint):
    topic = sns.create_topic(Name="odd", Attributes={"DisplayName": "Odd"}, Tags=[{"Key": "a", "Value": "b"}])["TopicArn"]
    invalid = sns.exceptions.InvalidParameterException

    def refused(words, call, error=invalid, **asked):
        with pytest.raises(error, match=words):
            call(**asked)

    subscribe = {"TopicArn": topic, "Protocol": "http", "Endpoint": endpoint.url("/odd")}
    refused("Topic Name", sns.create_topic, Name="no spaces")
    refused("does not do this yet", sns.create_topic, Name="ordered", Attributes={"FifoTopic": "true"})
    refused("different attributes", sns.create_topic, Name="odd", Tags=[{"Key": "a", "Value": "b"}])
    refused("different tags", sns.create_topic, Name="odd", Attributes={"DisplayName": "Odd"})
    refused("has no sqs yet", sns.subscribe, **{**subscribe, "Protocol": "sqs"})
    refused("does not support this protocol", sns.subscribe, **{**subscribe, "Protocol": "smoke"})
    refused("must match", sns.subscribe, **{**subscribe, "Protocol": "https"})
    refused("must match", sns.subscribe, **{**subscribe, "Endpoint": "http://"})
    refused("FilterPolicy", sns.subscribe, **subscribe, Attributes={"FilterPolicy": json.dumps({"a": "b"})})
    refused("Invalid value", sns.subscribe, **subscribe, Attributes={"RawMessageDelivery": "perhaps"})
    refused("RedrivePolicy", sns.subscribe, **subscribe, Attributes={"RedrivePolicy": "{}"})
    refused("Topic does not exist", sns.publish, sns.exceptions.NotFoundException, TopicArn=f"{topic}s", Message="x")
    refused("Empty message", sns.publish, TopicArn=topic, Message="")
    refused("too long", sns.publish, TopicArn=topic, Message="x" * 262145)
    refused("Subject", sns.publish, TopicArn=topic, Message="x", Subject="two\nlines")
    refused("No default entry", sns.publish, TopicArn=topic, Message="{}", MessageStructure="json")
    refused("text messages", sns.publish, PhoneNumber="+10000000000", Message="x")
    refused("Policy", sns.set_topic_attributes, TopicArn=topic, AttributeName="Policy", AttributeValue="{")
    with pytest.raises(sns.exceptions.InvalidParameterValueException):
        sns.publish(TopicArn=topic, Message="x", MessageAttributes={"n": {"DataType": "Number", "StringValue": "many"}})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="DisplayName", AttributeValue="Odder")
    assert sns.get_topic_attributes(TopicArn=topic)["Attributes"]["DisplayName"] == "Odder"
    sns.tag_resource(ResourceArn=topic, Tags=[{"Key": "c", "Value": "d"}])
    sns.untag_resource(ResourceArn=topic, TagKeys=["a"])
    assert sns.list_tags_for_resource(ResourceArn=topic)["Tags"] == [{"Key": "c", "Value": "d"}]
    for number in range(120):
        sns.create_topic(Name=f"many-{number:03}")
    pages = sns.get_paginator("list_topics").paginate()
    assert len([one for page in pages for one in page["Topics"] if ":many-" in one["TopicArn"]]) == 120


def test_events_are_published(plane, sns, endpoint):
    topic = sns.create_topic(Name="events")["TopicArn"]
    subscribed(sns, endpoint, topic, "/events")
    events = plane.client("events")
    rule = events.put_rule(Name="to-topic", EventPattern=json.dumps({"source": ["tests"]}))["RuleArn"]
    transformed = {"InputPathsMap": {"what": "$.detail.what"}, "InputTemplate": '"It is <what>."'}
    # A service is nobody of this account: each topic has to let it in, and this one does not.
    closed = sns.create_topic(Name="closed")["TopicArn"]
    subscribed(sns, endpoint, closed, "/closed")
    targets = [{"Id": "closed", "Arn": closed}, {"Id": "topic", "Arn": topic, "InputTransformer": transformed}]
    events.put_targets(Rule="to-topic", Targets=targets)
    tell = lambda what: events.put_events(Entries=[{"Source": "tests", "DetailType": "t", "Detail": json.dumps({"what": what})}])
    allowed = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sns:Publish", "Resource": topic}
    allowed["Condition"] = {"ArnEquals": {"aws:SourceArn": rule}, "StringEquals": {"aws:SourceAccount": "123456789012"}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    sns.set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)
    tell("now")
    eventually(lambda: '"It is now."' in endpoint.messages("/events"), "the event is published")
    tell("later")
    eventually(lambda: '"It is later."' in endpoint.messages("/events"), "so is the next one")
    assert endpoint.messages("/closed") == []


def test_in_a_stack(plane, sns, endpoint):
    stacks = Stacks(plane)
    allowed = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sns:Publish", "Resource": {"Ref": "Topic"}}
    inline = [{"Protocol": "http", "Endpoint": endpoint.url("/inline")}]
    resources = {
        "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "One", "Subscription": inline, "Tags": [{"Key": "a", "Value": "b"}]}},
        "Policy": {"Type": "AWS::SNS::TopicPolicy", "Properties": {"Topics": [{"Ref": "Topic"}], "PolicyDocument": {"Version": "2012-10-17", "Statement": [allowed]}}},
        "More": {"Type": "AWS::SNS::Subscription", "Properties": {"TopicArn": {"Ref": "Topic"}, "Protocol": "http", "Endpoint": endpoint.url("/more"), "FilterPolicy": {"a": ["b"]}}},
    }
    outputs = {"Arn": {"Value": {"Ref": "Topic"}}, "Name": {"Value": {"Fn::GetAtt": ["Topic", "TopicName"]}}}
    name = stacks.name("sns")
    document = {**template(resources), "Outputs": outputs}
    notices = sns.create_topic(Name="notices")["TopicArn"]
    subscribed(sns, endpoint, notices, "/notices")
    with pytest.raises(ClientError, match="not the ARN of a topic"):
        stacks.api.create_stack(StackName=name, TemplateBody=json.dumps(document), NotificationARNs=["notices"])
    stacks.api.create_stack(StackName=name, TemplateBody=json.dumps(document), NotificationARNs=[notices])
    stacks.api.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    # Each event is told, in the order in which they happened.
    happened = stacks.api.describe_stack_events(StackName=name)["StackEvents"][::-1]
    eventually(lambda: len(endpoint.messages("/notices")) == len(happened), "the topic is told of all events")
    fields = [dict(line.split("=", 1) for line in text.splitlines()) for text in endpoint.messages("/notices")]
    own = [one["ResourceStatus"] for one in fields if one["LogicalResourceId"] == f"'{name}'"]
    assert own == ["'CREATE_IN_PROGRESS'", "'CREATE_COMPLETE'"] and fields[0]["StackName"] == f"'{name}'"
    assert sorted(one["EventId"] for one in fields) == sorted(f"'{one['EventId']}'" for one in happened)
    assert stacks.describe(name)["NotificationARNs"] == [notices]
    told = {one["OutputKey"]: one["OutputValue"] for one in stacks.describe(name)["Outputs"]}
    assert told["Arn"].endswith(told["Name"])
    attributes = sns.get_topic_attributes(TopicArn=told["Arn"])["Attributes"]
    assert attributes["DisplayName"] == "One" and "events.amazonaws.com" in attributes["Policy"]
    assert len(sns.list_subscriptions_by_topic(TopicArn=told["Arn"])["Subscriptions"]) == 2
    resources["Topic"]["Properties"] |= {"DisplayName": "Two", "Tags": [{"Key": "c", "Value": "d"}]}
    del resources["Policy"]
    stacks.api.update_stack(StackName=name, TemplateBody=json.dumps(document | template(resources)))
    stacks.api.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    attributes = sns.get_topic_attributes(TopicArn=told["Arn"])["Attributes"]
    assert attributes["DisplayName"] == "Two" and "events.amazonaws.com" not in attributes["Policy"]
    assert sns.list_tags_for_resource(ResourceArn=told["Arn"])["Tags"] == [{"Key": "c", "Value": "d"}]
    stacks.api.delete_stack(StackName=name)
    stacks.api.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    assert told["Arn"] not in [one["TopicArn"] for page in sns.get_paginator("list_topics").paginate() for one in page["Topics"]]


def test_repositories_tell_topics_of_pushes(plane, sns, endpoint):
    topic = sns.create_topic(Name="pushes")["TopicArn"]
    subscribed(sns, endpoint, topic, "/pushes")
    pipelines = Pipelines(plane)
    name = pipelines.repository()
    trigger = {"name": "told", "destinationArn": topic, "events": ["all"], "branches": [], "customData": "mine"}
    pipelines.codecommit.put_repository_triggers(repositoryName=name, triggers=[trigger])
    commit = pipelines.commit(name, page="one")
    [text] = eventually(lambda: endpoint.messages("/pushes"), "the topic is told")
    [record] = json.loads(text)["Records"]
    assert record["codecommit"]["references"][0]["commit"] == commit and record["customData"] == "mine"
    answer = pipelines.codecommit.test_repository_triggers(repositoryName=name, triggers=[trigger])
    assert answer["successfulExecutions"] == ["told"]
    eventually(lambda: len(endpoint.messages("/pushes")) == 2, "the topic is told of the test")
    with pytest.raises(pipelines.codecommit.exceptions.InvalidRepositoryTriggerDestinationArnException, match="not a topic of this account"):
        elsewhere = {**trigger, "destinationArn": topic.replace("us-east-1", "eu-west-1")}
        pipelines.codecommit.put_repository_triggers(repositoryName=name, triggers=[elsewhere])


def test_approvals_are_asked_for(plane, sns, endpoint):
    topic = sns.create_topic(Name="approvals")["TopicArn"]
    subscribed(sns, endpoint, topic, "/approvals")
    pipelines = Pipelines(plane)
    repository = pipelines.repository()
    pipelines.commit(repository, "for review", page="new")
    asked = {"NotificationArn": topic, "CustomData": "#{source.CommitMessage}", "ExternalEntityLink": "https://example.com/review"}
    name = pipelines.create(("Source", [source(repository)]), ("Approval", [approval(configuration=asked)]))
    execution = eventually(lambda: pipelines.executions(name), "it begins when it is made")[0]["pipelineExecutionId"]
    [(_, body)] = eventually(lambda: endpoint.sent("/approvals"), "whoever decides is told", 60)
    told = json.loads(body)
    assert told["Subject"] == f"APPROVAL NEEDED: AWS CodePipeline {name} for action Approve"
    notice = json.loads(told["Message"])["approval"]
    assert (notice["pipelineName"], notice["stageName"], notice["actionName"]) == (name, "Approval", "Approve")
    assert (notice["customData"], notice["externalEntityLink"]) == ("for review", "https://example.com/review")
    pipelines.decide(name, notice["token"])
    pipelines.ends(name, execution)
    # A topic that the pipeline's role may not publish to is told of the action.
    missing = {"NotificationArn": f"{topic}-missing"}
    name = pipelines.create(("Source", [source(repository)]), ("Approval", [approval(configuration=missing)]))
    execution = eventually(lambda: pipelines.executions(name), "it begins when it is made")[0]["pipelineExecutionId"]
    pipelines.ends(name, execution, "Failed")
    error = pipelines.stage(name, "Approval")["actionStates"][0]["latestExecution"]["errorDetails"]
    assert "Topic does not exist" in error["message"]
