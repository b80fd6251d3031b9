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
    Managed {
        path: "/",
        name: "SecretsManagerReadWrite",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["secretsmanager:*"],"Resource":"*"}]}"#,
    },
    Managed {
        path: "/service-role/",
        name: "AmazonECSTaskExecutionRolePolicy",
        document: r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ecr:GetAuthorizationToken",
"ecr:BatchCheckLayerAvailability","ecr:GetDownloadUrlForLayer","ecr:BatchGetImage","logs:CreateLogStream",
"logs:PutLogEvents"],"Resource":"*"}]}"#,
    },
];
