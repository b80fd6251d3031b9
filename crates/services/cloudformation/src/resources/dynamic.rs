//! Dynamic references: values that live in Parameter Store and Secrets Manager, looked up just before they are used.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references.html>

use resource::{Properties, Request, text};
use serde_json::{Value as Json, json};
use std::{future::Future, pin::Pin};

/// The most references of a resource.
const MOST: usize = 60;

/// The properties with the values that their references stand for.
pub(crate) async fn resolve(
    request: &Request,
    properties: &Properties,
) -> Result<Properties, String> {
    let mut left = MOST;
    let mut map = properties.0.clone();
    for value in map.values_mut() {
        walk(request, value, &mut left).await?;
    }
    Ok(Properties(map))
}

type Walked<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

fn walk<'a>(request: &'a Request, value: &'a mut Json, left: &'a mut usize) -> Walked<'a> {
    Box::pin(async move {
        match value {
            Json::String(text) if text.contains("{{resolve:") => {
                *text = replaced(request, text, left).await?;
            }
            Json::Array(items) => {
                for item in items {
                    walk(request, item, left).await?;
                }
            }
            Json::Object(map) => {
                for item in map.values_mut() {
                    walk(request, item, left).await?;
                }
            }
            _ => {}
        }
        Ok(())
    })
}

async fn replaced(request: &Request, text: &str, left: &mut usize) -> Result<String, String> {
    let (mut made, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{resolve:") {
        let Some((reference, after)) = after.split_once("}}") else { break };
        *left = left.checked_sub(1).ok_or("There are too many dynamic references in a resource")?;
        made.push_str(before);
        made.push_str(&lookup(request, reference).await?);
        rest = after;
    }
    made.push_str(rest);
    Ok(made)
}

async fn lookup(request: &Request, reference: &str) -> Result<String, String> {
    let wrong = || {
        format!("Incorrect format is used in the dynamic reference: {{{{resolve:{reference}}}}}")
    };
    let (service, key) = reference.split_once(':').ok_or_else(wrong)?;
    match service {
        "ssm" | "ssm-secure" => {
            let answer = request
                .call("ssm", "GetParameter", json!({"Name": key, "WithDecryption": true}))
                .await;
            let answer = answer.map_err(|failure| failure.message)?;
            let parameter = &answer["Parameter"];
            if (parameter["Type"] == "SecureString") != (service == "ssm-secure") {
                return Err(wrong());
            }
            Ok(text(&parameter["Value"]))
        }
        "secretsmanager" => secret(request, key).await.map_err(|error| error.unwrap_or_else(wrong)),
        _ => Err(wrong()),
    }
}

/// The error is none when the reference is not well formed.
async fn secret(request: &Request, key: &str) -> Result<String, Option<String>> {
    let parts: Vec<&str> = key.split(':').collect();
    let named = if parts[0] == "arn" { 7 } else { 1 };
    if parts.len() < named {
        return Err(None);
    }
    let part = |index: usize| parts.get(named + index).copied().filter(|part| !part.is_empty());
    if part(0).is_some_and(|kind| kind != "SecretString") || parts.len() > named + 4 {
        return Err(None);
    }
    let mut ask = json!({"SecretId": parts[..named].join(":")});
    if let Some(stage) = part(2) {
        ask["VersionStage"] = json!(stage);
    }
    if let Some(version) = part(3) {
        ask["VersionId"] = json!(version);
    }
    let answer = request.call("secretsmanager", "GetSecretValue", ask).await;
    let answer = answer.map_err(|failure| Some(failure.message))?;
    let value = answer.get("SecretString").map(text);
    let value = value.ok_or_else(|| Some("The secret has no SecretString".to_owned()))?;
    let Some(member) = part(1) else { return Ok(value) };
    let json: Json = serde_json::from_str(&value).unwrap_or_default();
    let found = json.get(member).map(text);
    found.ok_or_else(|| {
        Some(format!("Could not find a value associated with JSONKey {member} in SecretString"))
    })
}
