//! Policies that AWS manages, as far as stacks of this kind name them. Documents:
//! <https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html>

/// A policy that is the same in every account.
pub(crate) struct Managed {
    /// The part of the ARN behind `policy`, `/` or `/service-role/`.
    pub path: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its document.
    pub document: &'static str,
}

impl Managed {
    pub(crate) fn arn(&self) -> String {
        format!("arn:aws:iam::aws:policy{}{}", self.path, self.name)
    }
}

/// The policy of this ARN.
pub(crate) fn find(arn: &str) -> Option<&'static Managed> {
    ALL.iter().find(|policy| policy.arn() == arn)
}

pub(crate) static ALL: &[Managed] = &[
    Managed {
        path: "/",
        name: "AdministratorAccess",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
    },
    Managed {
        path: "/",
        name: "AWSCloudFormationFullAccess",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["cloudformation:*"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/",
        name: "AWSCloudFormationReadOnlyAccess",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["cloudformation:Describe*",
"cloudformation:EstimateTemplateCost","cloudformation:Get*","cloudformation:List*","cloudformation:ValidateTemplate",
"cloudformation:Detect*"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/",
        name: "AmazonEC2ContainerRegistryFullAccess",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecr:*","cloudtrail:LookupEvents"],
"Resource":"*"},{"Effect":"Allow","Action":["iam:CreateServiceLinkedRole"],"Resource":"*","Condition":{"StringEquals":
{"iam:AWSServiceName":["replication.ecr.amazonaws.com"]}}}]}"#,
    },
    Managed {
        path: "/",
        name: "AmazonEC2ContainerRegistryReadOnly",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecr:GetAuthorizationToken",
"ecr:BatchCheckLayerAvailability","ecr:GetDownloadUrlForLayer","ecr:GetRepositoryPolicy","ecr:DescribeRepositories",
"ecr:ListImages","ecr:DescribeImages","ecr:BatchGetImage","ecr:GetLifecyclePolicy","ecr:GetLifecyclePolicyPreview",
"ecr:ListTagsForResource","ecr:DescribeImageScanFindings"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/",
        name: "AmazonSSMReadOnlyAccess",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:Describe*","ssm:Get*",
"ssm:List*"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/",
        name: "CloudWatchLogsFullAccess",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["logs:*","cloudwatch:GenerateQuery"],
"Resource":"*"}]}"#,
    },
    // Of AWS's long list, what concerns services that are here.
    Managed {
        path: "/",
        name: "ReadOnlyAccess",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["acm:Describe*","acm:Get*","acm:List*",
"application-autoscaling:Describe*","application-autoscaling:List*","cloudformation:Describe*","cloudformation:Detect*",
"cloudformation:Estimate*","cloudformation:Get*","cloudformation:List*","cloudformation:ValidateTemplate","ec2:Describe*",
"ec2:Get*","ec2:List*","ecr:BatchCheck*","ecr:BatchGet*","ecr:Describe*","ecr:Get*","ecr:List*","ecs:Describe*","ecs:Get*",
"ecs:List*","elasticloadbalancing:Describe*","iam:Generate*","iam:Get*","iam:List*","iam:Simulate*","logs:Describe*",
"logs:FilterLogEvents","logs:Get*","logs:List*","logs:StartQuery","logs:StopQuery","logs:TestMetricFilter","s3:Describe*",
"s3:Get*","s3:List*","secretsmanager:Describe*","secretsmanager:GetResourcePolicy","secretsmanager:List*",
"servicediscovery:DiscoverInstances","servicediscovery:Get*","servicediscovery:List*","ssm:Describe*","ssm:Get*","ssm:List*",
"sts:GetAccessKeyInfo","sts:GetCallerIdentity","sts:GetSessionToken"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/",
        name: "SecretsManagerReadWrite",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["secretsmanager:*"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/",
        name: "AWSCodeDeployRoleForECS",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecs:DescribeServices",
"ecs:CreateTaskSet","ecs:UpdateServicePrimaryTaskSet","ecs:DeleteTaskSet","elasticloadbalancing:DescribeTargetGroups",
"elasticloadbalancing:DescribeListeners","elasticloadbalancing:ModifyListener","elasticloadbalancing:DescribeRules",
"elasticloadbalancing:ModifyRule","lambda:InvokeFunction","cloudwatch:DescribeAlarms","sns:Publish","s3:GetObject",
"s3:GetObjectVersion"],"Resource":"*"},{"Effect":"Allow","Action":"iam:PassRole","Resource":"*","Condition":{"StringLike":
{"iam:PassedToService":["ecs-tasks.amazonaws.com"]}}}]}"#,
    },
    Managed {
        path: "/",
        name: "AmazonECSInfrastructureRolePolicyForLoadBalancers",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[
"elasticloadbalancing:DescribeListeners","elasticloadbalancing:DescribeRules","elasticloadbalancing:DescribeTargetGroups",
"elasticloadbalancing:DescribeTargetHealth","elasticloadbalancing:ModifyListener","elasticloadbalancing:ModifyRule",
"elasticloadbalancing:RegisterTargets","elasticloadbalancing:DeregisterTargets"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/service-role/",
        name: "AmazonECSInfrastructureRolePolicyForVolumes",
        document: r#"{"Version":"2012-10-17","Statement":[
{"Effect":"Allow","Action":"ec2:CreateVolume","Resource":["arn:aws:ec2:*:*:volume/*","arn:aws:ec2:*:*:snapshot/*"]},
{"Effect":"Allow","Action":"ec2:CreateTags","Resource":"arn:aws:ec2:*:*:volume/*"},
{"Effect":"Allow","Action":["ec2:DescribeVolumes","ec2:DescribeAvailabilityZones"],"Resource":"*"},
{"Effect":"Allow","Action":["ec2:AttachVolume","ec2:DetachVolume","ec2:DeleteVolume"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/service-role/",
        name: "AmazonECSTaskExecutionRolePolicy",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecr:GetAuthorizationToken",
"ecr:BatchCheckLayerAvailability","ecr:GetDownloadUrlForLayer","ecr:BatchGetImage","logs:CreateLogStream",
"logs:PutLogEvents"],"Resource":"*"}]}"#,
    },
];
