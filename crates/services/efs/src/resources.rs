//! EFS's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_EFS.html>

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Value as Json, json};
use std::sync::Arc;

/// All of them.
pub fn types() -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![Arc::new(FileSystem), Arc::new(MountTarget), Arc::new(AccessPoint)],
    }
}

const EFS: &str = "elasticfilesystem";

/// EFS's types have names of their own for tags.
async fn retag(
    request: &Request,
    id: &str,
    property: &str,
    old: &Properties,
    new: &Properties,
) -> Result<(), Failure> {
    let [old, new] = [old, new].map(|properties| {
        let mut properties = properties.clone();
        properties.rename(property, "Tags");
        properties
    });
    request.retag(EFS, ("ResourceId", id), &old, &new).await
}

/// What is asked for after a file system was made, and what of it can change.
const LATER: [&str; 4] =
    ["FileSystemPolicy", "LifecyclePolicies", "BackupPolicy", "BypassPolicyLockoutSafetyCheck"];

struct FileSystem;

impl FileSystem {
    /// Gives a file system what `new` says and `old` does not.
    async fn settle(
        request: &Request,
        id: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        if new.differ(old, &["LifecyclePolicies"]) {
            let policies = new.get("LifecyclePolicies").cloned().unwrap_or_else(|| json!([]));
            let ask = json!({"FileSystemId": id, "LifecyclePolicies": policies});
            request.call(EFS, "PutLifecycleConfiguration", ask).await?;
        }
        if new.differ(old, &["FileSystemPolicy"]) {
            match new.get("FileSystemPolicy") {
                Some(policy) => {
                    let policy = match policy {
                        Json::String(text) => text.clone(),
                        document => document.to_string(),
                    };
                    let ask = json!({"FileSystemId": id, "Policy": policy});
                    request.call(EFS, "PutFileSystemPolicy", ask).await?;
                }
                None => {
                    let ask = json!({"FileSystemId": id});
                    request.call(EFS, "DeleteFileSystemPolicy", ask).await?;
                }
            }
        }
        if let Some(policy) = new.get("BackupPolicy") {
            let ask = json!({"FileSystemId": id, "BackupPolicy": policy});
            request.call(EFS, "PutBackupPolicy", ask).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for FileSystem {
    fn name(&self) -> &'static str {
        "AWS::EFS::FileSystem"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        for property in ["ReplicationConfiguration", "FileSystemProtection"] {
            if properties.get(property).is_some() {
                return Err(Failure::unsupported(property));
            }
        }
        let mut ask = properties.clone();
        ask.rename("FileSystemTags", "Tags");
        ask.set("CreationToken", request.token.clone());
        for property in LATER {
            ask.take(property);
        }
        let id = match request.make(EFS, "CreateFileSystem", ask.request()).await? {
            Some(made) => text(&made["FileSystemId"]),
            None => {
                let find = json!({"CreationToken": request.token});
                let known = request.call(EFS, "DescribeFileSystems", find).await?;
                text(&known["FileSystems"][0]["FileSystemId"])
            }
        };
        Self::settle(request, &id, &Properties::default(), &properties).await?;
        Ok(id)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let find = json!({"FileSystemId": id});
        let Some(found) = request.find(EFS, "DescribeFileSystems", find).await? else {
            return Ok(State::Missing);
        };
        let arn = &found["FileSystems"][0]["FileSystemArn"];
        Ok(State::ready(json!({"FileSystemId": id, "Arn": arn})))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, "FileSystemTags", old, &new).await?;
        let throughput = ["ThroughputMode", "ProvisionedThroughputInMibps"];
        if new.differ(old, &throughput) {
            let mut change = new.only(&throughput);
            change.set_default("ThroughputMode", || json!("bursting"));
            change.set("FileSystemId", id);
            request.call(EFS, "UpdateFileSystem", change.request()).await?;
        }
        Self::settle(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EFS, "DeleteFileSystem", json!({"FileSystemId": id})).await
    }
}

struct MountTarget;

#[async_trait]
impl ResourceType for MountTarget {
    fn name(&self) -> &'static str {
        "AWS::EFS::MountTarget"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        let subnet = properties.text("SubnetId");
        let answer = request.call(EFS, "CreateMountTarget", properties.clone().request()).await;
        match answer {
            Ok(made) => Ok(text(&made["MountTargetId"])),
            Err(failure) => {
                // It may have been made before a crash.
                let find = json!({"FileSystemId": properties.text("FileSystemId")});
                let known = request.call(EFS, "DescribeMountTargets", find).await?;
                let mut known = known["MountTargets"].as_array().into_iter().flatten();
                let same = |target: &&Json| target["SubnetId"].as_str() == subnet.as_deref();
                match known.find(same).filter(|_| request.repeated) {
                    Some(target) => Ok(text(&target["MountTargetId"])),
                    None => Err(failure),
                }
            }
        }
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let find = json!({"MountTargetId": id});
        let Some(found) = request.find(EFS, "DescribeMountTargets", find).await? else {
            return Ok(State::Missing);
        };
        let ip = &found["MountTargets"][0]["IpAddress"];
        Ok(State::ready(json!({"Id": id, "IpAddress": ip})))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        if !new.differ(old, &["SecurityGroups"]) {
            return Ok(());
        }
        let ask = json!({"MountTargetId": id, "SecurityGroups": new.get("SecurityGroups")});
        request.call(EFS, "ModifyMountTargetSecurityGroups", ask).await.map(|_| ())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EFS, "DeleteMountTarget", json!({"MountTargetId": id})).await
    }
}

struct AccessPoint;

#[async_trait]
impl ResourceType for AccessPoint {
    fn name(&self) -> &'static str {
        "AWS::EFS::AccessPoint"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.rename("AccessPointTags", "Tags");
        properties.set_default("ClientToken", || json!(request.token));
        let answer = request.call(EFS, "CreateAccessPoint", properties.request()).await?;
        Ok(text(&answer["AccessPointId"]))
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let find = json!({"AccessPointId": id});
        let Some(found) = request.find(EFS, "DescribeAccessPoints", find).await? else {
            return Ok(State::Missing);
        };
        let arn = &found["AccessPoints"][0]["AccessPointArn"];
        Ok(State::ready(json!({"AccessPointId": id, "Arn": arn})))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        retag(request, id, "AccessPointTags", old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove(EFS, "DeleteAccessPoint", json!({"AccessPointId": id})).await
    }
}
