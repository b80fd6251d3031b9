"""Each type of resource is made, changed and deleted by a template, and is what the template says."""

import json

import pytest
from botocore.exceptions import ClientError

from test_cloudformation import Stacks, parameter, template, trust
from test_service_balanced import LISTENER


@pytest.fixture(scope="module")
def stacks(neargate):
    return Stacks(neargate)


def ref(name):
    return {"Ref": name}


def att(name, attribute):
    return {"Fn::GetAtt": [name, attribute]}


def gone(call, **more):
    with pytest.raises(ClientError) as error:
        call(**more)
    assert any(word in error.value.response["Error"]["Code"] for word in ["NotFound", "NoSuch", "404"]), error.value


def allow(action):
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]}


def test_keys_and_profiles(neargate, stacks):
    name, iam = stacks.name("keys"), neargate.client("iam")

    def wanted(serial, status, roles):
        return template({
            "User": {"Type": "AWS::IAM::User"},
            "Key": {"Type": "AWS::IAM::AccessKey", "Properties": {"UserName": ref("User"), "Serial": serial, "Status": status}},
            "One": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust("ec2")}},
            "Two": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust("ec2")}},
            "Profile": {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [ref(role) for role in roles]}},
        }, Outputs={"Secret": {"Value": att("Key", "SecretAccessKey")}, "Arn": {"Value": att("Profile", "Arn")}})

    stacks.create(name, wanted(1, "Active", ["One"]), Capabilities=["CAPABILITY_IAM"])
    key, profile = stacks.physical(name, "Key"), stacks.physical(name, "Profile")
    secret = stacks.outputs(name)["Secret"]
    who = neargate.client("sts", aws_access_key_id=key, aws_secret_access_key=secret)
    assert who.get_caller_identity()["Arn"].endswith(f":user/{stacks.physical(name, 'User')}")
    roles = lambda: [role["RoleName"] for role in iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]]
    assert roles() == [stacks.physical(name, "One")] and stacks.outputs(name)["Arn"].endswith(f":instance-profile/{profile}")
    stacks.update(name, wanted(1, "Inactive", ["Two"]), Capabilities=["CAPABILITY_IAM"])
    assert stacks.physical(name, "Key") == key and roles() == [stacks.physical(name, "Two")]
    with pytest.raises(ClientError):
        who.get_caller_identity()
    # Another number is another key.
    stacks.update(name, wanted(2, "Active", ["Two"]), Capabilities=["CAPABILITY_IAM"])
    assert stacks.physical(name, "Key") != key and stacks.outputs(name)["Secret"] != secret
    user = stacks.physical(name, "User")
    assert [each["AccessKeyId"] for each in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]] == [stacks.physical(name, "Key")]
    stacks.delete(name)
    gone(iam.get_instance_profile, InstanceProfileName=profile)


def test_identities(neargate, stacks):
    name, iam = stacks.name("identities"), neargate.client("iam")

    def wanted(action, users, tag):
        return template({
            "Role": {"Type": "AWS::IAM::Role", "Properties": {
                "AssumeRolePolicyDocument": trust("ecs-tasks"), "Description": action, "MaxSessionDuration": 7200,
                "Policies": [{"PolicyName": "own", "PolicyDocument": allow(action)}],
                "Tags": [{"Key": "t", "Value": tag}],
            }},
            "User": {"Type": "AWS::IAM::User", "Properties": {"ManagedPolicyArns": [ref("Managed")], "Tags": [{"Key": "t", "Value": tag}]}},
            "Managed": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": allow(action), "Roles": [ref("Role")]}},
            "Inline": {"Type": "AWS::IAM::Policy", "Properties": {"PolicyName": "given", "PolicyDocument": allow(action), "Users": users, "Roles": [ref("Role")]}},
        }, Outputs={"Arn": {"Value": att("Role", "Arn")}, "User": {"Value": att("User", "Arn")}})

    stacks.create(name, wanted("s3:GetObject", [ref("User")], "one"), Capabilities=["CAPABILITY_IAM"])
    role, user, managed = (stacks.physical(name, logical) for logical in ["Role", "User", "Managed"])
    assert stacks.outputs(name) == {"Arn": f"arn:aws:iam::123456789012:role/{role}", "User": f"arn:aws:iam::123456789012:user/{user}"}

    def state():
        document = lambda found: found["PolicyDocument"]["Statement"][0]["Action"]
        version = iam.get_policy(PolicyArn=managed)["Policy"]["DefaultVersionId"]
        described = iam.get_role(RoleName=role)["Role"]
        return {
            "role": (described["Description"], described["MaxSessionDuration"]),
            "own": document(iam.get_role_policy(RoleName=role, PolicyName="own")),
            "given": document(iam.get_role_policy(RoleName=role, PolicyName="given")),
            "managed": iam.get_policy_version(PolicyArn=managed, VersionId=version)["PolicyVersion"]["Document"]["Statement"][0]["Action"],
            "attached": [one["PolicyArn"] for one in iam.list_attached_user_policies(UserName=user)["AttachedPolicies"]],
            "inline": iam.list_user_policies(UserName=user)["PolicyNames"],
            "tags": [iam.list_role_tags(RoleName=role)["Tags"], iam.list_user_tags(UserName=user)["Tags"]],
        }

    def expected(action, inline, tag):
        tags = [{"Key": "t", "Value": tag}]
        return {
            "role": (action, 7200), "own": action, "given": action, "managed": action, "attached": [managed], "inline": inline,
            "tags": [tags, tags],
        }

    assert state() == expected("s3:GetObject", ["given"], "one")
    stacks.update(name, wanted("s3:PutObject", [], "two"), Capabilities=["CAPABILITY_IAM"])
    assert state() == expected("s3:PutObject", [], "two")
    stacks.delete(name)
    gone(iam.get_role, RoleName=role)
    gone(iam.get_user, UserName=user)
    gone(iam.get_policy, PolicyArn=managed)


def test_names_and_certificates(neargate, stacks, stack):
    name = stacks.name("names")
    discovery, acm, elb, ec2 = (neargate.client(service) for service in ["servicediscovery", "acm", "elbv2", "ec2"])
    subnets = [subnet["SubnetId"] for subnet in stack.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [stack.vpc]}])["Subnets"]]

    def wanted(words, path, ttl, port):
        rule = {"Type": "AWS::ElasticLoadBalancingV2::ListenerRule", "Properties": {
            "ListenerArn": ref("Secure"), "Priority": 10 if words == "one" else 20,
            "Conditions": [{"Field": "path-pattern", "PathPatternConfig": {"Values": [path]}}],
            "Actions": [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "ContentType": "text/plain", "MessageBody": words}}],
        }}
        certificate = lambda host: {"Type": "AWS::CertificateManager::Certificate", "Properties": {
            "DomainName": host, "ValidationMethod": "DNS", "DomainValidationOptions": [{"DomainName": host, "HostedZoneId": "Z1"}],
            "Tags": [{"Key": "t", "Value": words}],
        }}
        return template({
            "Http": {"Type": "AWS::ServiceDiscovery::HttpNamespace", "Properties": {"Name": f"{name}-http", "Description": words}},
            "Private": {"Type": "AWS::ServiceDiscovery::PrivateDnsNamespace", "Properties": {"Name": f"{name}.internal", "Vpc": stack.vpc, "Description": words}},
            "Named": {"Type": "AWS::ServiceDiscovery::Service", "Properties": {
                "Name": "api", "NamespaceId": ref("Private"), "Description": words,
                "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": ttl}], "RoutingPolicy": "MULTIVALUE"},
                "HealthCheckCustomConfig": {"FailureThreshold": 1},
            }},
            "First": certificate("one.example.com"), "Second": certificate("two.example.com"),
            "Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "x", "VpcId": stack.vpc}},
            "In": {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": {"GroupId": att("Group", "GroupId"), "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "CidrIp": "0.0.0.0/0"}},
            "Out": {"Type": "AWS::EC2::SecurityGroupEgress", "Properties": {"GroupId": ref("Group"), "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "DestinationSecurityGroupId": ref("Group")}},
            "Balancer": {"Type": "AWS::ElasticLoadBalancingV2::LoadBalancer", "Properties": {
                "Subnets": subnets[:2], "SecurityGroups": [ref("Group")], "LoadBalancerAttributes": [{"Key": "idle_timeout.timeout_seconds", "Value": str(ttl)}],
            }},
            "Secure": {"Type": "AWS::ElasticLoadBalancingV2::Listener", "Properties": {
                "LoadBalancerArn": ref("Balancer"), "Port": LISTENER + 9, "Protocol": "HTTPS", "Certificates": [{"CertificateArn": ref("First")}],
                "DefaultActions": [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": 404}}],
            }},
            "Also": {"Type": "AWS::ElasticLoadBalancingV2::ListenerCertificate", "Properties": {"ListenerArn": ref("Secure"), "Certificates": [{"CertificateArn": ref("Second")}]}},
            "Rule": rule,
            "Targets": {"Type": "AWS::ElasticLoadBalancingV2::TargetGroup", "Properties": {
                "VpcId": stack.vpc, "TargetType": "ip", "Protocol": "HTTP", "Port": 8080, "HealthCheckPath": path.replace("*", ""),
                "TargetGroupAttributes": [{"Key": "deregistration_delay.timeout_seconds", "Value": str(ttl)}],
                "Targets": [{"Id": "172.31.0.77", "Port": port}],
            }},
        }, Outputs={"Full": {"Value": att("Balancer", "LoadBalancerFullName")}, "Group": {"Value": att("Targets", "TargetGroupFullName")}})

    stacks.create(name, wanted("one", "/a*", 30, 81))
    physical = lambda logical: stacks.physical(name, logical)
    ids = {logical: physical(logical) for logical in wanted("one", "/a*", 30, 81)["Resources"]}

    def state():
        service = discovery.get_service(Id=physical("Named"))["Service"]
        group = ec2.describe_security_groups(GroupIds=[physical("Group")])["SecurityGroups"][0]
        rules = elb.describe_rules(RuleArns=[physical("Rule")])["Rules"][0]
        target = elb.describe_target_groups(TargetGroupArns=[physical("Targets")])["TargetGroups"][0]
        balancer = elb.describe_load_balancer_attributes(LoadBalancerArn=physical("Balancer"))["Attributes"]
        return {
            "words": [discovery.get_namespace(Id=physical(one))["Namespace"]["Description"] for one in ["Http", "Private"]] + [service["Description"]],
            "ttl": service["DnsConfig"]["DnsRecords"][0]["TTL"],
            "tags": acm.list_tags_for_certificate(CertificateArn=physical("First"))["Tags"],
            "in": [rule.get("FromPort") for rule in group["IpPermissions"]],
            "out": sorted(rule.get("FromPort", 0) for rule in group["IpPermissionsEgress"]),
            "rule": (rules["Priority"], rules["Conditions"][0]["PathPatternConfig"]["Values"], rules["Actions"][0]["FixedResponseConfig"]["MessageBody"]),
            "idle": [one["Value"] for one in balancer if one["Key"] == "idle_timeout.timeout_seconds"],
            "check": target["HealthCheckPath"],
            "targets": [one["Target"]["Port"] for one in elb.describe_target_health(TargetGroupArn=physical("Targets"))["TargetHealthDescriptions"] if one["TargetHealth"]["State"] != "draining"],
        }

    def expected(words, path, ttl, port):
        return {
            "words": [words] * 3, "ttl": ttl, "tags": [{"Key": "t", "Value": words}], "in": [port], "out": [0, port],
            "rule": ("10" if words == "one" else "20", [path], words), "idle": [str(ttl)], "check": path.replace("*", ""), "targets": [port],
        }

    assert state() == expected("one", "/a*", 30, 81)
    served = elb.describe_listener_certificates(ListenerArn=ids["Secure"])["Certificates"]
    assert {one["CertificateArn"]: one["IsDefault"] for one in served} == {ids["First"]: True, ids["Second"]: False}
    assert stacks.outputs(name) == {"Full": ids["Balancer"].split(":loadbalancer/")[1], "Group": ids["Targets"].split(":")[-1]}
    stacks.update(name, wanted("two", "/b*", 40, 82))
    assert state() == expected("two", "/b*", 40, 82)
    changed = {logical for logical in ids if physical(logical) != ids[logical]}
    assert changed == {"In", "Out"}, "the rules of a group are replaced; all else is changed"
    stacks.delete(name)
    gone(discovery.get_namespace, Id=ids["Http"])
    gone(acm.describe_certificate, CertificateArn=ids["First"])
    gone(elb.describe_target_groups, TargetGroupArns=[ids["Targets"]])
    gone(ec2.describe_security_groups, GroupIds=[ids["Group"]])


def test_stores_and_clusters(neargate, stacks):
    name = stacks.name("stores")
    s3, logs, ecr, ecs, secrets = (neargate.client(service) for service in ["s3", "logs", "ecr", "ecs", "secretsmanager"])
    bucket = f"bucket-{stacks.these}"

    def wanted(days, status, word, providers):
        lifecycle = {"rules": [{"rulePriority": 1, "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": days}, "action": {"type": "expire"}}]}
        return template({
            "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {
                "BucketName": bucket, "VersioningConfiguration": {"Status": status}, "Tags": [{"Key": "w", "Value": word}],
                "LifecycleConfiguration": {"Rules": [{"Id": "old", "Status": "Enabled", "Prefix": "a/", "ExpirationInDays": days}]},
                "BucketEncryption": {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]},
                "PublicAccessBlockConfiguration": {"BlockPublicPolicy": word == "one", "BlockPublicAcls": True},
                "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            }},
            "BucketPolicy": {"Type": "AWS::S3::BucketPolicy", "Properties": {"Bucket": ref("Bucket"), "PolicyDocument": {
                "Version": "2012-10-17", "Statement": [{"Sid": word, "Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": {"Fn::Sub": "${Bucket.Arn}/secret/*"}}],
            }}},
            "Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": days, "Tags": [{"Key": "w", "Value": word}]}},
            "Stream": {"Type": "AWS::Logs::LogStream", "Properties": {"LogGroupName": ref("Group"), "LogStreamName": word}},
            "Repository": {"Type": "AWS::ECR::Repository", "Properties": {
                "ImageTagMutability": "IMMUTABLE" if word == "one" else "MUTABLE", "LifecyclePolicy": {"LifecyclePolicyText": json.dumps(lifecycle)},
                "Tags": [{"Key": "w", "Value": word}], "EmptyOnDelete": True,
            }},
            "Cluster": {"Type": "AWS::ECS::Cluster", "Properties": {"ClusterSettings": [{"Name": "containerInsights", "Value": "disabled"}], "Tags": [{"Key": "w", "Value": word}]}},
            "Providers": {"Type": "AWS::ECS::ClusterCapacityProviderAssociations", "Properties": {
                "Cluster": ref("Cluster"), "CapacityProviders": providers, "DefaultCapacityProviderStrategy": [{"CapacityProvider": providers[0], "Weight": 1}],
            }},
            "Secret": {"Type": "AWS::SecretsManager::Secret", "Properties": {"SecretString": word, "Description": word, "Tags": [{"Key": "w", "Value": word}]}},
            "Domain": parameter(att("Bucket", "RegionalDomainName")),
        })

    stacks.create(name, wanted(7, "Enabled", "one", ["FARGATE"]))
    physical = lambda logical: stacks.physical(name, logical)
    ids = {logical: physical(logical) for logical in wanted(7, "Enabled", "one", ["FARGATE"])["Resources"]}

    def state():
        repository = ecr.describe_repositories(repositoryNames=[physical("Repository")])["repositories"][0]
        cluster = ecs.describe_clusters(clusters=[physical("Cluster")], include=["TAGS"])["clusters"][0]
        group = logs.describe_log_groups(logGroupNamePrefix=physical("Group"))["logGroups"][0]
        return {
            "versions": s3.get_bucket_versioning(Bucket=bucket)["Status"],
            "days": s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["Expiration"]["Days"],
            "block": s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"],
            "policy": json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"][0]["Sid"],
            "retention": group["retentionInDays"],
            "streams": [one["logStreamName"] for one in logs.describe_log_streams(logGroupName=physical("Group"))["logStreams"]],
            "mutability": repository["imageTagMutability"],
            "images": json.loads(ecr.get_lifecycle_policy(repositoryName=physical("Repository"))["lifecyclePolicyText"])["rules"][0]["selection"]["countNumber"],
            "providers": cluster["capacityProviders"],
            "secret": secrets.get_secret_value(SecretId=physical("Secret"))["SecretString"],
            "tags": [
                s3.get_bucket_tagging(Bucket=bucket)["TagSet"][0]["Value"],
                logs.list_tags_for_resource(resourceArn=group["arn"].removesuffix(":*"))["tags"]["w"],
                ecr.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"][0]["Value"],
                cluster["tags"][0]["value"],
                secrets.describe_secret(SecretId=physical("Secret"))["Tags"][0]["Value"],
            ],
        }

    def expected(days, status, word, providers):
        return {
            "versions": status, "days": days, "block": word == "one", "policy": word, "retention": days, "streams": [word],
            "mutability": "IMMUTABLE" if word == "one" else "MUTABLE", "images": days, "providers": providers, "secret": word, "tags": [word] * 5,
        }

    assert state() == expected(7, "Enabled", "one", ["FARGATE"])
    assert neargate.client("ssm").get_parameter(Name=ids["Domain"])["Parameter"]["Value"] == f"{bucket}.s3.us-east-1.amazonaws.com"
    stacks.update(name, wanted(14, "Suspended", "two", ["FARGATE", "FARGATE_SPOT"]))
    assert state() == expected(14, "Suspended", "two", ["FARGATE", "FARGATE_SPOT"])
    assert {logical for logical in ids if physical(logical) != ids[logical]} == {"Stream"}
    stacks.delete(name)
    gone(s3.head_bucket, Bucket=bucket)
    gone(ecr.describe_repositories, repositoryNames=[ids["Repository"]])
    gone(secrets.get_secret_value, SecretId=ids["Secret"])
    assert logs.describe_log_groups(logGroupNamePrefix=ids["Group"])["logGroups"] == []


def test_what_is_not_carried_out_says_so(stacks):
    for kind, properties, told in [
        ("S3::Bucket", {"WebsiteConfiguration": {"IndexDocument": "i"}}, "Neargate does not support the property WebsiteConfiguration"),
        ("S3::Bucket", {"BucketEncryption": {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}}]}}, "KMSMasterKeyID"),
        ("Logs::LogGroup", {"KmsKeyId": "arn:aws:kms:us-east-1:123456789012:key/x"}, "Neargate does not support"),
        ("ECR::Repository", {"ImageScanningConfiguration": {"ScanOnPush": True}}, "Neargate does not scan images"),
        ("EC2::VPC", {"CidrBlock": "10.0.0.0/16", "InstanceTenancy": "dedicated"}, "dedicated tenancy"),
        ("IAM::User", {"Groups": ["g"]}, "Neargate does not support the property Groups"),
        ("SSM::Parameter", {"Type": "SecureString", "Value": "x"}, "does not support the Type SecureString"),
    ]:
        name = stacks.name("refused-" + kind.split(":")[-1].lower())
        body = template({"R": {"Type": f"AWS::{kind}", "Properties": properties}})
        stacks.api.create_stack(StackName=name, TemplateBody=json.dumps(body), Capabilities=["CAPABILITY_NAMED_IAM"])
        stacks.status(name, "ROLLBACK_COMPLETE")
        failed = [event[2] for event in stacks.told(name) if event[1] == "CREATE_FAILED"]
        assert failed and told in failed[0], (kind, failed)
        stacks.delete(name)


def test_a_role_may_be_named_by_its_name_alone(stacks, stack):
    """Templates in the wild pass `!Ref Role` where an ARN is documented."""
    name = stacks.name("role-name")
    body = template({
        "Role": {"Type": "AWS::IAM::Role", "Properties": {
            "AssumeRolePolicyDocument": trust("ecs-tasks"), "ManagedPolicyArns": ["arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"],
        }},
        "Definition": {"Type": "AWS::ECS::TaskDefinition", "Properties": {
            "Family": name, "RequiresCompatibilities": ["FARGATE"], "NetworkMode": "awsvpc", "Cpu": 256, "Memory": 512,
            "ExecutionRoleArn": ref("Role"), "TaskRoleArn": ref("Role"),
            "ContainerDefinitions": [stack.container(command="echo ran")],
        }},
    })
    for container in body["Resources"]["Definition"]["Properties"]["ContainerDefinitions"]:
        container["LogConfiguration"] = container.pop("logConfiguration")
        container.update({key[0].upper() + key[1:]: container.pop(key) for key in list(container) if key[0].islower()})
        options = container["LogConfiguration"]
        container["LogConfiguration"] = {"LogDriver": options["logDriver"], "Options": options["options"]}
    stacks.create(name, body, Capabilities=["CAPABILITY_IAM"])
    role = stacks.physical(name, "Role")
    described = stack.ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]
    assert described["executionRoleArn"] == described["taskRoleArn"] == f"arn:aws:iam::123456789012:role/{role}"
    network = {"awsvpcConfiguration": {"subnets": [stack.subnet], "assignPublicIp": "ENABLED"}}
    task = stack.ecs.run_task(cluster="tests", launchType="FARGATE", taskDefinition=name, networkConfiguration=network, overrides={"taskRoleArn": role})["tasks"][0]["taskArn"]
    stack.status(task, "STOPPED")
    assert stack.lines(task) == ["ran"]
    stacks.delete(name)
