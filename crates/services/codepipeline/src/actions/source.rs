//! Sources: a commit's files, an image, an archive in a bucket.

use super::{Done, Failed, Work, artifacts};
use crate::{api::SourceRevisionType, model::Revision};
use codeconnections::{CloneReference, Origin};
use serde_json::json;
use std::collections::BTreeMap;
use world::Timestamp;

/// What says what a source hands on, and the value for its commit instead of the files.
pub(crate) const FORMAT: &str = "OutputArtifactFormat";
pub(crate) const CLONE: &str = "CODEBUILD_CLONE_REF";

impl Work<'_> {
    /// What StartPipelineExecution said that this source is to give.
    pub(super) fn asked_revision(&self, kind: SourceRevisionType) -> Option<String> {
        let name = &self.run.declaration.name;
        let mut all = self.execution.overrides.iter();
        let found = all.find(|one| one.action_name == *name && one.revision_type == kind)?;
        Some(found.revision_value.clone())
    }

    /// Whether the source hands on its commit instead of the files.
    pub(super) fn clones(&self) -> bool {
        self.get(FORMAT) == Some(CLONE)
    }

    pub(super) fn output_name(&self) -> String {
        let outputs = self.run.declaration.output_artifacts.iter().flatten();
        outputs.map(|output| output.name.clone()).next().unwrap_or_default()
    }
}

/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CodeCommit.html>
pub(super) async fn codecommit(work: &Work<'_>) -> Result<Done, Failed> {
    let (repository, branch) = (work.need("RepositoryName")?, work.need("BranchName")?);
    let commit = match work.asked_revision(SourceRevisionType::CommitId) {
        Some(commit) => commit,
        None => {
            let asked = json!({"repositoryName": repository, "branchName": branch});
            let answer = work.call("codecommit", "GetBranch", asked).await?;
            answer["branch"]["commitId"].as_str().unwrap_or_default().to_owned()
        }
    };
    let asked = json!({"repositoryName": repository, "commitId": commit});
    let answer = work.call("codecommit", "GetCommit", asked).await?;
    let found = &answer["commit"];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let turn = work.turn().await;
    let content = match work.clones() {
        true => {
            let origin = Origin::CodeCommit(repository.to_owned());
            CloneReference { origin, commit: commit.clone() }.content()
        }
        false => work.service.codecommit.archive(&work.context(), repository, &commit).await?,
    };
    let artifacts = work.put(content).await?;
    drop(turn);
    let date = |who: &str| {
        // `1484167798 -0800`: whole seconds, and how their author's clock stood.
        let seconds = found[who]["date"].as_str().unwrap_or_default().split(' ').next();
        let seconds = seconds.and_then(|seconds| seconds.parse::<i64>().ok()).unwrap_or_default();
        Timestamp::from_millis(seconds.saturating_mul(1000))
    };
    let basic = |time: Timestamp| time.datetime().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let message = text(&found["message"]);
    let outputs = BTreeMap::from([
        ("AuthorDate".to_owned(), basic(date("author"))),
        ("BranchName".to_owned(), branch.to_owned()),
        ("CommitId".to_owned(), commit.clone()),
        ("CommitMessage".to_owned(), message.clone()),
        ("CommitterDate".to_owned(), basic(date("committer"))),
        ("RepositoryName".to_owned(), repository.to_owned()),
    ]);
    Ok(Done {
        summary: Some(message.clone()),
        external: Some(commit.clone()),
        outputs,
        artifacts,
        revision: Some(Revision {
            action: work.run.declaration.name.clone(),
            artifact: work.output_name(),
            id: commit,
            summary: message,
            created: date("committer"),
        }),
    })
}

/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-ECR.html>
pub(super) async fn ecr(work: &Work<'_>) -> Result<Done, Failed> {
    let name = work.need("RepositoryName")?;
    let tag = work.get("ImageTag").unwrap_or("latest");
    let id = match work.asked_revision(SourceRevisionType::ImageDigest) {
        Some(digest) => json!({"imageDigest": digest}),
        None => json!({"imageTag": tag}),
    };
    let asked = json!({"repositoryName": name, "imageIds": [id]});
    let answer = work.call("ecr", "DescribeImages", asked).await?;
    let image = &answer["imageDetails"][0];
    let digest = image["imageDigest"].as_str().unwrap_or_default().to_owned();
    let asked = json!({"repositoryNames": [name]});
    let answer = work.call("ecr", "DescribeRepositories", asked).await?;
    let repository = answer["repositories"][0]["repositoryUri"].as_str().unwrap_or_default();
    let registry = image["registryId"].as_str().unwrap_or_default();
    let uri = format!("{repository}@{digest}");
    let detail = json!({
        "ImageSizeInBytes": image["imageSizeInBytes"].to_string(), "ImageDigest": digest, "Version": "1.0",
        "ImagePushedAt": image["imagePushedAt"].to_string(), "RegistryId": registry, "RepositoryName": name,
        "ImageURI": uri, "ImageTags": image["imageTags"],
    });
    let artifacts = work.put(artifacts::pack("imageDetail.json", &detail.to_string())?).await?;
    let outputs = BTreeMap::from([
        ("ImageDigest".to_owned(), digest.clone()),
        ("ImageTag".to_owned(), tag.to_owned()),
        ("ImageURI".to_owned(), uri),
        ("RegistryId".to_owned(), registry.to_owned()),
        ("RepositoryName".to_owned(), name.to_owned()),
    ]);
    Ok(Done {
        summary: None,
        external: Some(digest.clone()),
        outputs,
        artifacts,
        revision: Some(Revision {
            action: work.run.declaration.name.clone(),
            artifact: work.output_name(),
            id: digest,
            summary: String::new(),
            created: work.service.world.now(),
        }),
    })
}

/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-S3.html>
pub(super) async fn s3(work: &Work<'_>) -> Result<Done, Failed> {
    let (bucket, key) = (work.need("S3Bucket")?, work.need("S3ObjectKey")?);
    let version = work.asked_revision(SourceRevisionType::S3ObjectVersionId);
    let turn = work.turn().await;
    let (s3, ctx) = (&work.service.s3, work.context());
    let read = s3.object(&ctx, (bucket, key), version.as_deref(), artifacts::MOST_BYTES).await;
    let (object, bytes) = read.map_err(|why| {
        let message = format!("s3://{bucket}/{key} cannot be read: {why}");
        match why.starts_with("AccessDenied") {
            true => Failed::permission(message),
            false => Failed::job(message),
        }
    })?;
    let version = object.version.clone().ok_or_else(|| {
        Failed::configuration(format!(
            "The object {key} of the bucket {bucket} has no version: a source's bucket has versioning enabled."
        ))
    })?;
    let artifacts = work.put(bytes).await?;
    drop(turn);
    let pairs = [
        ("BucketName", bucket),
        ("ETag", &object.etag),
        ("ObjectKey", key),
        ("VersionId", &version),
    ];
    let outputs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let summary = format!("Amazon S3 version id: {version}");
    Ok(Done {
        summary: Some(summary.clone()),
        external: Some(version.clone()),
        outputs: BTreeMap::from(outputs),
        artifacts,
        revision: Some(Revision {
            action: work.run.declaration.name.clone(),
            artifact: work.output_name(),
            id: version,
            summary,
            created: object.modified,
        }),
    })
}
