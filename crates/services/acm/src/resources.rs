//! Certificate Manager's type of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-certificatemanager-certificate.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types { schemas: include_str!("api/resource_types.json"), types: vec![Arc::new(Certificate)] }
}

struct Certificate;

#[async_trait]
impl ResourceType for Certificate {
    fn name(&self) -> &'static str {
        "AWS::CertificateManager::Certificate"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        // They say in which zone to prove whose the domain is; certificates are issued here without a proof.
        properties.take("DomainValidationOptions");
        properties.set("IdempotencyToken", request.token.replace('-', ""));
        let answer = request.call("acm", "RequestCertificate", properties.request()).await?;
        Ok(text(&answer["CertificateArn"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let ask = json!({"CertificateArn": id});
        let found = request.find("acm", "DescribeCertificate", ask).await?;
        Ok(found.map_or(State::Missing, |_| State::ready(json!({"Id": id}))))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        let others = ["CertificateExport", "CertificateTransparencyLoggingPreference"];
        if let Some(name) = others.iter().find(|name| new.differ(old, &[name])) {
            return Err(Failure::not_updatable(name));
        }
        let (set, gone) = new.tag_changes(old);
        let tags = |list: Vec<(String, Option<String>)>| -> Json {
            list.into_iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
        };
        if !gone.is_empty() {
            let gone = tags(gone.into_iter().map(|key| (key, None)).collect());
            request
                .call(
                    "acm",
                    "RemoveTagsFromCertificate",
                    json!({"CertificateArn": id, "Tags": gone}),
                )
                .await?;
        }
        if !set.is_empty() {
            let set = tags(set.into_iter().map(|(key, value)| (key, Some(value))).collect());
            request
                .call("acm", "AddTagsToCertificate", json!({"CertificateArn": id, "Tags": set}))
                .await?;
        }
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove("acm", "DeleteCertificate", json!({"CertificateArn": id})).await
    }
}
