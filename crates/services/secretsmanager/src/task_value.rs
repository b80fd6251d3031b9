//! What a task's definition says of a secret, and the value that it gets.

use crate::{SecretsManager, faults, ops::version};
use wire::{Context, Fault};

/// An ARN of a secret has so many parts.
const ARN_PARTS: usize = 7;

/// `ARN[:json-key[:version-stage[:version-id]]]`, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub arn: String,
    pub region: String,
    pub json_key: Option<String>,
    pub stage: Option<String>,
    pub version: Option<String>,
}

impl Wanted {
    pub(crate) fn read(value_from: &str) -> Result<Self, Fault> {
        let parts: Vec<&str> = value_from.split(':').collect();
        let is_secret = parts.len() >= ARN_PARTS
            && parts[..3] == ["arn", "aws", "secretsmanager"]
            && parts[5] == "secret";
        if !is_secret || parts.len() > ARN_PARTS + 3 {
            return Err(faults::parameter(format!(
                "{value_from} isn't the ARN of a secret, optionally followed by \
                 :json-key:version-stage:version-id"
            )));
        }
        let part = |index: usize| {
            let part = parts.get(ARN_PARTS + index).filter(|part| !part.is_empty());
            part.map(|part| (*part).to_owned())
        };
        Ok(Self {
            arn: parts[..ARN_PARTS].join(":"),
            region: parts[3].to_owned(),
            json_key: part(0),
            stage: part(1),
            version: part(2),
        })
    }
}

pub(crate) async fn get(
    secrets: &SecretsManager,
    ctx: &Context,
    wanted: Wanted,
) -> Result<String, Fault> {
    let Wanted { arn, json_key, stage, version, .. } = wanted;
    let read = version::read(secrets, ctx, &arn, version.as_deref(), stage.as_deref()).await?;
    let text = String::from_utf8(read.bytes).ok().filter(|_| !read.binary);
    let text = text.ok_or_else(|| {
        faults::request(format!("The secret {arn} is binary; a container needs text."))
    })?;
    let Some(key) = json_key else { return Ok(text) };
    let parsed: Option<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(&text).ok();
    let fields = parsed.ok_or_else(|| {
        faults::request(format!("The secret {arn} isn't a JSON object, so it has no key {key}."))
    })?;
    match fields.get(&key) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(other) => Ok(other.to_string()),
        None => {
            let message = format!("The secret {arn} did not contain json key {key}");
            Err(faults::not_found(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:r-1:1:secret:a/b-AbCdEf";

    #[test]
    fn all_forms() {
        let read = |rest: &str| {
            let wanted = Wanted::read(&format!("{ARN}{rest}")).unwrap();
            assert_eq!((wanted.arn.as_str(), wanted.region.as_str()), (ARN, "r-1"));
            let text = |part: Option<String>| part.unwrap_or_default();
            [text(wanted.json_key), text(wanted.stage), text(wanted.version)]
        };
        assert_eq!(read(""), ["", "", ""]);
        assert_eq!(read(":key"), ["key", "", ""]);
        assert_eq!(read(":key::"), ["key", "", ""]);
        assert_eq!(read("::AWSPREVIOUS:"), ["", "AWSPREVIOUS", ""]);
        assert_eq!(read(":::id"), ["", "", "id"]);
        assert_eq!(read(":k:s:v"), ["k", "s", "v"]);
    }

    #[test]
    fn others_are_refused() {
        for text in ["name", "arn:aws:ssm:r:1:parameter/x", &format!("{ARN}:a:b:c:d"), ""] {
            assert!(Wanted::read(text).is_err(), "{text}");
        }
    }
}
