"""Records that clients make, read, change and delete: IAM, Parameter Store, Secrets Manager, ECS. What each does to tasks and
to who may do what is proven elsewhere; here, that they are kept as AWS keeps them."""

import json

import pytest
from botocore.exceptions import ClientError

from conftest import TRUST

ALLOW_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def code(call, **words):
    with pytest.raises(ClientError) as caught:
        call(**words)
    return caught.value.response["Error"]["Code"]


def tags(pairs):
    return {pair["Key"]: pair["Value"] for pair in pairs}


@pytest.fixture(scope="module")
def iam(neargate):
    return neargate.client("iam")


def test_users_their_keys_and_policies(neargate, iam):
    made = iam.create_user(UserName="rita", Path="/team/", Tags=[{"Key": "a", "Value": "1"}])["User"]
    assert made["Arn"] == "arn:aws:iam::123456789012:user/team/rita"
    assert code(iam.create_user, UserName="rita") == "EntityAlreadyExists"
    assert code(iam.get_user, UserName="nobody") == "NoSuchEntity"
    assert iam.get_user(UserName="rita")["User"]["UserId"] == made["UserId"]
    iam.tag_user(UserName="rita", Tags=[{"Key": "b", "Value": "2"}])
    iam.untag_user(UserName="rita", TagKeys=["a"])
    assert tags(iam.list_user_tags(UserName="rita")["Tags"]) == {"b": "2"}
    listed = iam.list_users(PathPrefix="/team/")["Users"]
    assert [user["UserName"] for user in listed] == ["rita"]
    key = iam.create_access_key(UserName="rita")["AccessKey"]
    theirs = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    assert neargate.client("sts", **theirs).get_caller_identity()["Arn"] == made["Arn"]
    assert [k["AccessKeyId"] for k in iam.list_access_keys(UserName="rita")["AccessKeyMetadata"]] == [key["AccessKeyId"]]
    iam.update_access_key(UserName="rita", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert code(neargate.client("sts", **theirs).get_caller_identity) == "InvalidClientTokenId"
    iam.update_access_key(UserName="rita", AccessKeyId=key["AccessKeyId"], Status="Active")
    iam.put_user_policy(UserName="rita", PolicyName="own", PolicyDocument=document(ALLOW_ALL))
    assert iam.list_user_policies(UserName="rita")["PolicyNames"] == ["own"]
    assert iam.get_user_policy(UserName="rita", PolicyName="own")["PolicyDocument"] == json.loads(document(ALLOW_ALL))
    session = neargate.client("sts", **theirs).get_session_token(DurationSeconds=900)["Credentials"]
    as_session = {
        "aws_access_key_id": session["AccessKeyId"],
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }
    assert neargate.client("ecs", **as_session).list_clusters()["clusterArns"] is not None
    assert code(iam.delete_user, UserName="rita") == "DeleteConflict"
    iam.delete_user_policy(UserName="rita", PolicyName="own")
    assert code(neargate.client("ecs", **theirs).list_clusters) == "AccessDeniedException"
    iam.delete_access_key(UserName="rita", AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName="rita")
    assert code(iam.get_user, UserName="rita") == "NoSuchEntity"


def test_managed_policies_and_their_versions(neargate, iam):
    arn = iam.create_policy(PolicyName="clusters", PolicyDocument=document(ALLOW_ALL))["Policy"]["Arn"]
    assert code(iam.create_policy, PolicyName="clusters", PolicyDocument=document(ALLOW_ALL)) == "EntityAlreadyExists"
    assert code(iam.create_policy, PolicyName="odd", PolicyDocument="{}") == "MalformedPolicyDocument"
    iam.create_user(UserName="ravi")
    key = iam.create_access_key(UserName="ravi")["AccessKey"]
    theirs = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    ecs = neargate.client("ecs", **theirs)
    assert code(ecs.list_clusters) == "AccessDeniedException"
    iam.attach_user_policy(UserName="ravi", PolicyArn=arn)
    ecs.list_clusters()
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    attached = iam.list_attached_user_policies(UserName="ravi")["AttachedPolicies"]
    assert attached == [{"PolicyName": "clusters", "PolicyArn": arn}]
    deny = {"Effect": "Deny", "Action": "ecs:*", "Resource": "*"}
    version = iam.create_policy_version(PolicyArn=arn, PolicyDocument=document(ALLOW_ALL, deny))["PolicyVersion"]
    assert (version["VersionId"], version["IsDefaultVersion"]) == ("v2", False)
    ecs.list_clusters()
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v2")
    assert code(ecs.list_clusters) == "AccessDeniedException"
    versions = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    assert {v["VersionId"]: v["IsDefaultVersion"] for v in versions} == {"v1": False, "v2": True}
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"] == json.loads(document(ALLOW_ALL))
    assert code(iam.delete_policy_version, PolicyArn=arn, VersionId="v2") == "DeleteConflict"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    assert code(iam.delete_policy, PolicyArn=arn) == "DeleteConflict"
    iam.detach_user_policy(UserName="ravi", PolicyArn=arn)
    assert code(ecs.list_clusters) == "AccessDeniedException"
    assert arn in [policy["Arn"] for policy in iam.list_policies(Scope="Local")["Policies"]]
    iam.delete_policy(PolicyArn=arn)
    assert code(iam.get_policy, PolicyArn=arn) == "NoSuchEntity"


def test_roles(iam):
    role = iam.create_role(RoleName="batch", AssumeRolePolicyDocument=json.dumps(TRUST), Description="d")["Role"]
    assert iam.get_role(RoleName="batch")["Role"]["RoleId"] == role["RoleId"]
    iam.update_role(RoleName="batch", Description="new", MaxSessionDuration=7200)
    changed = iam.get_role(RoleName="batch")["Role"]
    assert (changed["Description"], changed["MaxSessionDuration"]) == ("new", 7200)
    root = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "sts:AssumeRole"}
    iam.update_assume_role_policy(RoleName="batch", PolicyDocument=document(root))
    assert iam.get_role(RoleName="batch")["Role"]["AssumeRolePolicyDocument"] == json.loads(document(root))
    iam.put_role_policy(RoleName="batch", PolicyName="own", PolicyDocument=document(ALLOW_ALL))
    assert iam.list_role_policies(RoleName="batch")["PolicyNames"] == ["own"]
    assert iam.get_role_policy(RoleName="batch", PolicyName="own")["PolicyDocument"] == json.loads(document(ALLOW_ALL))
    managed = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
    iam.attach_role_policy(RoleName="batch", PolicyArn=managed)
    assert iam.list_attached_role_policies(RoleName="batch")["AttachedPolicies"][0]["PolicyArn"] == managed
    iam.tag_role(RoleName="batch", Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    iam.untag_role(RoleName="batch", TagKeys=["a"])
    assert tags(iam.list_role_tags(RoleName="batch")["Tags"]) == {"b": "2"}
    pages = iam.get_paginator("list_roles").paginate(PaginationConfig={"PageSize": 1})
    assert "batch" in [role["RoleName"] for page in pages for role in page["Roles"]]
    assert code(iam.delete_role, RoleName="batch") == "DeleteConflict"
    iam.detach_role_policy(RoleName="batch", PolicyArn=managed)
    iam.delete_role_policy(RoleName="batch", PolicyName="own")
    iam.delete_role(RoleName="batch")
    assert code(iam.get_role, RoleName="batch") == "NoSuchEntity"


def test_parameters(neargate):
    ssm = neargate.client("ssm")
    assert ssm.put_parameter(Name="/shop/db/host", Value="one", Type="String", Tags=[{"Key": "t", "Value": "1"}])["Version"] == 1
    assert code(ssm.put_parameter, Name="/shop/db/host", Value="two", Type="String") == "ParameterAlreadyExists"
    assert ssm.put_parameter(Name="/shop/db/host", Value="two", Overwrite=True)["Version"] == 2
    ssm.put_parameter(Name="/shop/db/password", Value="hunter2", Type="SecureString")
    ssm.put_parameter(Name="/shop/hosts", Value="a,b", Type="StringList")
    found = ssm.get_parameter(Name="/shop/db/host")["Parameter"]
    assert (found["Value"], found["Version"]) == ("two", 2)
    assert found["ARN"] == "arn:aws:ssm:us-east-1:123456789012:parameter/shop/db/host"
    assert ssm.get_parameter(Name="/shop/db/host:1")["Parameter"]["Value"] == "one"
    sealed = ssm.get_parameter(Name="/shop/db/password")["Parameter"]["Value"]
    assert "hunter2" not in sealed
    assert ssm.get_parameter(Name="/shop/db/password", WithDecryption=True)["Parameter"]["Value"] == "hunter2"
    several = ssm.get_parameters(Names=["/shop/hosts", "/shop/none"])
    assert several["Parameters"][0]["Value"] == "a,b" and several["InvalidParameters"] == ["/shop/none"]
    assert [p["Name"] for p in ssm.get_parameters_by_path(Path="/shop")["Parameters"]] == ["/shop/hosts"]
    below = ssm.get_parameters_by_path(Path="/shop", Recursive=True, WithDecryption=True)["Parameters"]
    assert {p["Name"]: p["Value"] for p in below} == {"/shop/db/host": "two", "/shop/db/password": "hunter2", "/shop/hosts": "a,b"}
    ssm.label_parameter_version(Name="/shop/db/host", ParameterVersion=1, Labels=["stable"])
    assert ssm.get_parameter(Name="/shop/db/host:stable")["Parameter"]["Value"] == "one"
    history = ssm.get_parameter_history(Name="/shop/db/host")["Parameters"]
    assert [(h["Version"], h["Value"], h["Labels"]) for h in history] == [(1, "one", ["stable"]), (2, "two", [])]
    gone = ssm.unlabel_parameter_version(Name="/shop/db/host", ParameterVersion=1, Labels=["stable"])
    assert gone["RemovedLabels"] == ["stable"]
    assert code(ssm.get_parameter, Name="/shop/db/host:stable") == "ParameterVersionNotFound"
    kinds = {"Key": "Type", "Values": ["SecureString"]}
    path = {"Key": "Path", "Option": "Recursive", "Values": ["/shop"]}
    described = ssm.describe_parameters(ParameterFilters=[kinds, path])["Parameters"]
    assert [p["Name"] for p in described] == ["/shop/db/password"] and "Value" not in described[0]
    resource = {"ResourceType": "Parameter", "ResourceId": "/shop/db/host"}
    ssm.add_tags_to_resource(**resource, Tags=[{"Key": "u", "Value": "2"}])
    ssm.remove_tags_from_resource(**resource, TagKeys=["t"])
    assert tags(ssm.list_tags_for_resource(**resource)["TagList"]) == {"u": "2"}
    elsewhere = neargate.client("ssm", region="eu-west-1")
    assert code(elsewhere.get_parameter, Name="/shop/hosts") == "ParameterNotFound"
    other = neargate.client("ssm", account="210987654321")
    assert code(other.get_parameter, Name="/shop/hosts") == "ParameterNotFound"
    ssm.delete_parameter(Name="/shop/hosts")
    assert code(ssm.delete_parameter, Name="/shop/hosts") == "ParameterNotFound"
    gone = ssm.delete_parameters(Names=["/shop/db/host", "/shop/db/password", "/shop/none"])
    assert sorted(gone["DeletedParameters"]) == ["/shop/db/host", "/shop/db/password"]
    assert gone["InvalidParameters"] == ["/shop/none"]


def test_secrets(neargate):
    manager = neargate.client("secretsmanager")
    arn = manager.create_secret(Name="shop/db", SecretString="first", Tags=[{"Key": "t", "Value": "1"}])["ARN"]
    assert code(manager.create_secret, Name="shop/db", SecretString="x") == "ResourceExistsException"
    first = manager.get_secret_value(SecretId="shop/db")
    assert (first["SecretString"], first["VersionStages"]) == ("first", ["AWSCURRENT"])
    second = manager.put_secret_value(SecretId=arn, SecretString="second")
    assert manager.get_secret_value(SecretId=arn)["SecretString"] == "second"
    assert manager.get_secret_value(SecretId=arn, VersionStage="AWSPREVIOUS")["SecretString"] == "first"
    manager.update_secret_version_stage(
        SecretId=arn,
        VersionStage="AWSCURRENT",
        MoveToVersionId=first["VersionId"],
        RemoveFromVersionId=second["VersionId"],
    )
    assert manager.get_secret_value(SecretId=arn)["SecretString"] == "first"
    versions = manager.list_secret_version_ids(SecretId=arn)["Versions"]
    stages = {version["VersionId"]: version["VersionStages"] for version in versions}
    assert stages == {first["VersionId"]: ["AWSCURRENT"], second["VersionId"]: ["AWSPREVIOUS"]}
    manager.update_secret(SecretId=arn, SecretBinary=b"\x00\xff", Description="bytes")
    assert manager.get_secret_value(SecretId=arn)["SecretBinary"] == b"\x00\xff"
    manager.tag_resource(SecretId=arn, Tags=[{"Key": "u", "Value": "2"}])
    manager.untag_resource(SecretId=arn, TagKeys=["t"])
    described = manager.describe_secret(SecretId="shop/db")
    assert described["Description"] == "bytes" and tags(described["Tags"]) == {"u": "2"}
    listed = manager.list_secrets(Filters=[{"Key": "name", "Values": ["shop/"]}])["SecretList"]
    assert [secret["ARN"] for secret in listed] == [arn]
    other = neargate.client("secretsmanager", account="210987654321")
    assert other.list_secrets()["SecretList"] == []
    manager.delete_secret(SecretId=arn, RecoveryWindowInDays=7)
    assert code(manager.get_secret_value, SecretId=arn) == "InvalidRequestException"
    manager.restore_secret(SecretId=arn)
    assert manager.get_secret_value(SecretId=arn)["SecretBinary"] == b"\x00\xff"
    manager.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
    assert code(manager.get_secret_value, SecretId=arn) == "ResourceNotFoundException"
    password = manager.get_random_password(PasswordLength=40, ExcludePunctuation=True)["RandomPassword"]
    assert len(password) == 40 and password.isalnum()


def test_clusters_and_settings(neargate):
    ecs = neargate.client("ecs")
    made = ecs.create_cluster(clusterName="records", tags=[{"key": "t", "value": "1"}])["cluster"]
    assert (made["status"], made["clusterArn"]) == ("ACTIVE", "arn:aws:ecs:us-east-1:123456789012:cluster/records")
    found = ecs.describe_clusters(clusters=["records", "none"], include=["TAGS", "SETTINGS"])
    assert found["clusters"][0]["tags"] == [{"key": "t", "value": "1"}]
    assert found["failures"][0]["reason"] == "MISSING"
    ecs.update_cluster_settings(cluster="records", settings=[{"name": "containerInsights", "value": "enabled"}])
    ecs.update_cluster(cluster="records", settings=[{"name": "containerInsights", "value": "disabled"}])
    settings = ecs.describe_clusters(clusters=["records"], include=["SETTINGS"])["clusters"][0]["settings"]
    assert settings == [{"name": "containerInsights", "value": "disabled"}]
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    put = {"cluster": "records", "capacityProviders": ["FARGATE", "FARGATE_SPOT"]}
    changed = ecs.put_cluster_capacity_providers(**put, defaultCapacityProviderStrategy=strategy)["cluster"]
    assert changed["defaultCapacityProviderStrategy"] == strategy
    wrong = {**put, "capacityProviders": ["mine"]}
    assert code(ecs.put_cluster_capacity_providers, **wrong, defaultCapacityProviderStrategy=[]) == "InvalidParameterException"
    names = [p["name"] for p in ecs.describe_capacity_providers()["capacityProviders"]]
    assert {"FARGATE", "FARGATE_SPOT"} <= set(names)
    arn = made["clusterArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "u", "value": "2"}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["t"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "u", "value": "2"}]
    assert ecs.delete_cluster(cluster="records")["cluster"]["status"] == "INACTIVE"
    assert code(ecs.list_tasks, cluster="records") in ("ClusterNotFoundException", "InvalidParameterException")
    ecs.put_account_setting_default(name="containerInsights", value="enabled")
    ecs.put_account_setting(name="containerInsights", value="disabled")
    shown = ecs.list_account_settings(name="containerInsights", effectiveSettings=True)["settings"]
    assert [(s["name"], s["value"]) for s in shown] == [("containerInsights", "disabled")]
    ecs.delete_account_setting(name="containerInsights")
    shown = ecs.list_account_settings(name="containerInsights", effectiveSettings=True)["settings"]
    assert [(s["name"], s["value"]) for s in shown] == [("containerInsights", "enabled")]
    ecs.put_account_setting_default(name="containerInsights", value="disabled")


def test_task_definitions_are_listed_and_retired(stack):
    ecs = stack.ecs
    arns = []
    for _ in range(3):
        containers = [{"name": "main", "image": "x"}]
        words = {"requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc", "cpu": "256", "memory": "512"}
        made = ecs.register_task_definition(family="retired", containerDefinitions=containers, **words)
        arns.append(made["taskDefinition"]["taskDefinitionArn"])
    assert ecs.list_task_definitions(familyPrefix="retired")["taskDefinitionArns"] == arns
    assert ecs.list_task_definitions(familyPrefix="retired", sort="DESC", maxResults=1)["taskDefinitionArns"] == arns[2:]
    assert "retired" in ecs.list_task_definition_families(familyPrefix="ret")["families"]
    gone = ecs.deregister_task_definition(taskDefinition=arns[0])["taskDefinition"]
    assert gone["status"] == "INACTIVE"
    assert ecs.list_task_definitions(familyPrefix="retired", status="INACTIVE")["taskDefinitionArns"] == arns[:1]
    still_active = ecs.delete_task_definitions(taskDefinitions=[arns[1]])
    assert still_active["failures"][0]["arn"] == arns[1] and still_active["taskDefinitions"] == []
    deleted = ecs.delete_task_definitions(taskDefinitions=[arns[0]])["taskDefinitions"]
    assert deleted[0]["status"] == "DELETE_IN_PROGRESS"
    assert ecs.describe_task_definition(taskDefinition="retired")["taskDefinition"]["revision"] == 3


def test_task_protection(stack):
    task = stack.run(stack.container(command="sleep 1000"))
    stack.status(task, "RUNNING")
    ecs = stack.ecs
    protected = ecs.update_task_protection(cluster="tests", tasks=[task], protectionEnabled=True, expiresInMinutes=5)
    # On AWS, too, only a service's tasks can be protected.
    assert protected["protectedTasks"] == [] and protected["failures"][0]["reason"] == "TASK_NOT_VALID"
    told = ecs.get_task_protection(cluster="tests", tasks=[task])
    assert told["protectedTasks"] == [] and told["failures"][0]["arn"] == task
    ecs.stop_task(cluster="tests", task=task)
