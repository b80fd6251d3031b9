//! The images that builds can name without a registry.

use crate::{CodeBuild, api::*};
use wire::{Context, Fault};

/// A name that AWS has, which leads to the default image here as all of them do.
const STANDARD: &str = "aws/codebuild/standard";

pub(crate) async fn list_curated_environment_images(
    _: &CodeBuild,
    ctx: &Context,
    _: ListCuratedEnvironmentImagesInput,
) -> Result<ListCuratedEnvironmentImagesOutput, Fault> {
    ctx.authorise("codebuild:ListCuratedEnvironmentImages", "*")?;
    let image = EnvironmentImage {
        name: Some(format!("{STANDARD}:7.0")),
        description: Some(
            "Debian with git, curl, jq, Python, Node.js, the AWS CLI and docker; every aws/codebuild image is this one"
                .to_owned(),
        ),
        versions: Some(vec![format!("{STANDARD}:7.0")]),
    };
    let languages =
        [LanguageType::Python, LanguageType::NodeJs, LanguageType::Docker].map(|language| {
            EnvironmentLanguage { language: Some(language), images: Some(vec![image.clone()]) }
        });
    let platform = EnvironmentPlatform {
        platform: Some(PlatformType::Debian),
        languages: Some(languages.to_vec()),
    };
    Ok(ListCuratedEnvironmentImagesOutput { platforms: Some(vec![platform]) })
}
