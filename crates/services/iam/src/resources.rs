//! IAM's types of resources in stacks.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/AWS_IAM.html>

use crate::Iam;
use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, Types, text};
use serde_json::{Map, Value as Json, json};
use std::{collections::BTreeMap, sync::Arc};

/// All of them.
pub fn types(iam: &Arc<Iam>) -> Types {
    Types {
        schemas: include_str!("api/resource_types.json"),
        types: vec![
            Arc::new(Role),
            Arc::new(Policy),
            Arc::new(ManagedPolicy),
            Arc::new(User),
            Arc::new(AccessKey(iam.clone())),
            Arc::new(InstanceProfile),
        ],
    }
}

/// A document that a template may give as JSON or as text.
fn document(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn names(value: Option<&Json>) -> Vec<String> {
    value.and_then(Json::as_array).into_iter().flatten().map(text).collect()
}

/// What an answer lists.
fn listed(answer: Option<Json>, name: &str) -> Vec<Json> {
    let list = answer.and_then(|mut answer| answer.get_mut(name).map(Json::take));
    list.and_then(|list| list.as_array().cloned()).unwrap_or_default()
}

/// A kind of principal that policies are given to.
#[derive(Clone, Copy)]
enum Holder {
    Role,
    User,
}

impl Holder {
    fn word(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::User => "User",
        }
    }

    async fn call(
        self,
        request: &Request,
        operation: &str,
        name: &str,
        mut ask: Json,
    ) -> Result<(), Failure> {
        ask[format!("{}Name", self.word())] = json!(name);
        let operation = operation.replace('*', self.word());
        request.remove("iam", &operation, ask).await
    }

    /// Gives and takes away inline policies and managed ones, until it has those of `new` instead of those of `old`.
    async fn hold(
        self,
        request: &Request,
        name: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        let (before, now) =
            (names(old.get("ManagedPolicyArns")), names(new.get("ManagedPolicyArns")));
        for arn in now.iter().filter(|arn| !before.contains(arn)) {
            let ask = json!({"PolicyArn": arn, format!("{}Name", self.word()): name});
            request.call("iam", &format!("Attach{}Policy", self.word()), ask).await?;
        }
        for arn in before.iter().filter(|arn| !now.contains(arn)) {
            self.call(request, "Detach*Policy", name, json!({"PolicyArn": arn})).await?;
        }
        let inline = |properties: &Properties| -> BTreeMap<String, String> {
            let all = properties.get("Policies").and_then(Json::as_array).into_iter().flatten();
            all.map(|policy| (text(&policy["PolicyName"]), document(&policy["PolicyDocument"])))
                .collect()
        };
        let (before, now) = (inline(old), inline(new));
        for (policy, document) in
            now.iter().filter(|(policy, document)| before.get(*policy) != Some(document))
        {
            let ask = json!({
                "PolicyName": policy, "PolicyDocument": document, format!("{}Name", self.word()): name,
            });
            request.call("iam", &format!("Put{}Policy", self.word()), ask).await?;
        }
        for policy in before.keys().filter(|policy| !now.contains_key(*policy)) {
            self.call(request, "Delete*Policy", name, json!({"PolicyName": policy})).await?;
        }
        Ok(())
    }

    /// Takes all policies away, also those that were given by hand: what has policies cannot be deleted.
    async fn let_go(self, request: &Request, name: &str) -> Result<(), Failure> {
        let named = || json!({format!("{}Name", self.word()): name});
        let attached =
            request.find("iam", &format!("ListAttached{}Policies", self.word()), named()).await?;
        for policy in listed(attached, "AttachedPolicies") {
            self.call(request, "Detach*Policy", name, json!({"PolicyArn": policy["PolicyArn"]}))
                .await?;
        }
        let inline = request.find("iam", &format!("List{}Policies", self.word()), named()).await?;
        for policy in listed(inline, "PolicyNames") {
            self.call(request, "Delete*Policy", name, json!({"PolicyName": policy})).await?;
        }
        Ok(())
    }

    async fn retag(
        self,
        request: &Request,
        name: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        let (set, gone) = new.tag_changes(old);
        if !gone.is_empty() {
            self.call(request, "Untag*", name, json!({"TagKeys": gone})).await?;
        }
        if !set.is_empty() {
            let tags: Vec<Json> =
                set.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
            self.call(request, "Tag*", name, json!({"Tags": tags})).await?;
        }
        Ok(())
    }
}

/// Groups are not built; a template that needs none may say so.
fn no_groups(properties: &mut Properties) -> Result<(), Failure> {
    match names(properties.take("Groups").as_ref()).is_empty() {
        true => Ok(()),
        false => Err(Failure::unsupported("Groups")),
    }
}

struct Role;

#[async_trait]
impl ResourceType for Role {
    fn name(&self) -> &'static str {
        "AWS::IAM::Role"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("RoleName", || json!(request.name(64)));
        let name = properties.text("RoleName").unwrap_or_default();
        let held = properties.only(&["ManagedPolicyArns", "Policies"]);
        properties.take("ManagedPolicyArns");
        properties.take("Policies");
        let trust = properties.take("AssumeRolePolicyDocument").unwrap_or_default();
        properties.set("AssumeRolePolicyDocument", document(&trust));
        request.make("iam", "CreateRole", properties.request()).await?;
        Holder::Role.hold(request, &name, &Properties::default(), &held).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match request.find("iam", "GetRole", json!({"RoleName": id})).await? {
            Some(found) => State::ready(
                json!({"Arn": found["Role"]["Arn"], "RoleId": found["Role"]["RoleId"]}),
            ),
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        if new.differ(old, &["PermissionsBoundary"]) {
            return Err(Failure::not_updatable("PermissionsBoundary"));
        }
        if new.differ(old, &["AssumeRolePolicyDocument"]) {
            let trust = document(new.get("AssumeRolePolicyDocument").unwrap_or(&Json::Null));
            let ask = json!({"RoleName": id, "PolicyDocument": trust});
            request.call("iam", "UpdateAssumeRolePolicy", ask).await?;
        }
        if new.differ(old, &["Description", "MaxSessionDuration"]) {
            let mut ask = new.only(&["MaxSessionDuration"]);
            ask.set_default("MaxSessionDuration", || json!(3600));
            ask.set("Description", new.text("Description").unwrap_or_default());
            ask.set("RoleName", id);
            request.call("iam", "UpdateRole", ask.request()).await?;
        }
        Holder::Role.hold(request, id, old, &new).await?;
        Holder::Role.retag(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        Holder::Role.let_go(request, id).await?;
        request.remove("iam", "DeleteRole", json!({"RoleName": id})).await
    }
}

struct User;

#[async_trait]
impl ResourceType for User {
    fn name(&self) -> &'static str {
        "AWS::IAM::User"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("UserName", || json!(request.name(64)));
        let name = properties.text("UserName").unwrap_or_default();
        let held = properties.only(&["ManagedPolicyArns", "Policies"]);
        properties.take("ManagedPolicyArns");
        properties.take("Policies");
        no_groups(&mut properties)?;
        request.make("iam", "CreateUser", properties.request()).await?;
        Holder::User.hold(request, &name, &Properties::default(), &held).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match request.find("iam", "GetUser", json!({"UserName": id})).await? {
            Some(found) => State::ready(json!({"Arn": found["User"]["Arn"]})),
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        no_groups(&mut new)?;
        if let Some(name) = ["LoginProfile", "Path", "PermissionsBoundary"]
            .iter()
            .find(|name| new.differ(old, &[name]))
        {
            return Err(Failure::not_updatable(name));
        }
        Holder::User.hold(request, id, old, &new).await?;
        Holder::User.retag(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        Holder::User.let_go(request, id).await?;
        request.remove("iam", "DeleteUser", json!({"UserName": id})).await
    }
}

/// A key of a user. What is secret of it is known to whoever made it, and to the stack.
struct AccessKey(Arc<Iam>);

#[async_trait]
impl ResourceType for AccessKey {
    fn name(&self) -> &'static str {
        "AWS::IAM::AccessKey"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        let status = properties.take("Status");
        // It is only there to be changed, so that there is another key.
        properties.take("Serial");
        let user = properties.text("UserName").unwrap_or_default();
        let made = request.call("iam", "CreateAccessKey", properties.request()).await?;
        let id = text(&made["AccessKey"]["AccessKeyId"]);
        if let Some(status) = status {
            let ask = json!({"UserName": user, "AccessKeyId": id, "Status": status});
            request.call("iam", "UpdateAccessKey", ask).await?;
        }
        Ok(id)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match self.0.secret_access_key(request.account(), id) {
            Some(secret) => State::ready(json!({"Id": id, "SecretAccessKey": secret})),
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        if !new.differ(old, &["Status"]) {
            return Ok(());
        }
        let status = new.text("Status").unwrap_or_else(|| "Active".to_owned());
        let ask = json!({"UserName": new.text("UserName"), "AccessKeyId": id, "Status": status});
        request.call("iam", "UpdateAccessKey", ask).await.map(drop)
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let ask = json!({"UserName": properties.text("UserName"), "AccessKeyId": id});
        request.remove("iam", "DeleteAccessKey", ask).await
    }
}

struct InstanceProfile;

impl InstanceProfile {
    /// Gives it the roles of `new` in place of those of `old`.
    async fn give(
        request: &Request,
        id: &str,
        old: &[String],
        new: &[String],
    ) -> Result<(), Failure> {
        for role in old.iter().filter(|role| !new.contains(role)) {
            let ask = json!({"InstanceProfileName": id, "RoleName": role});
            request.remove("iam", "RemoveRoleFromInstanceProfile", ask).await?;
        }
        let found = request.call("iam", "GetInstanceProfile", json!({"InstanceProfileName": id}));
        let found = found.await?;
        let has: Vec<&str> = found["InstanceProfile"]["Roles"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|role| role["RoleName"].as_str())
            .collect();
        for role in new.iter().filter(|role| !has.contains(&role.as_str())) {
            let ask = json!({"InstanceProfileName": id, "RoleName": role});
            request.call("iam", "AddRoleToInstanceProfile", ask).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for InstanceProfile {
    fn name(&self) -> &'static str {
        "AWS::IAM::InstanceProfile"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("InstanceProfileName", || json!(request.name(128)));
        let name = properties.text("InstanceProfileName").unwrap_or_default();
        let roles = names(properties.take("Roles").as_ref());
        request.make("iam", "CreateInstanceProfile", properties.request()).await?;
        Self::give(request, &name, &[], &roles).await?;
        Ok(name)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let ask = json!({"InstanceProfileName": id});
        Ok(match request.find("iam", "GetInstanceProfile", ask).await? {
            Some(found) => State::ready(json!({"Arn": found["InstanceProfile"]["Arn"]})),
            None => State::Missing,
        })
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        Self::give(request, id, &names(old.get("Roles")), &names(new.get("Roles"))).await
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        for role in names(properties.get("Roles")) {
            let ask = json!({"InstanceProfileName": id, "RoleName": role});
            request.remove("iam", "RemoveRoleFromInstanceProfile", ask).await?;
        }
        request.remove("iam", "DeleteInstanceProfile", json!({"InstanceProfileName": id})).await
    }
}

/// An inline policy, given to several.
struct Policy;

impl Policy {
    async fn give(request: &Request, old: &Properties, new: &Properties) -> Result<(), Failure> {
        let (name, before) = (
            new.text("PolicyName").unwrap_or_default(),
            old.text("PolicyName").unwrap_or_default(),
        );
        let document = document(new.get("PolicyDocument").unwrap_or(&Json::Null));
        for (holder, list) in [(Holder::Role, "Roles"), (Holder::User, "Users")] {
            let holders = names(new.get(list));
            for one in &holders {
                let holder_name = format!("{}Name", holder.word());
                let ask = json!({"PolicyName": name, "PolicyDocument": document, holder_name: one});
                request.call("iam", &format!("Put{}Policy", holder.word()), ask).await?;
            }
            for one in
                names(old.get(list)).iter().filter(|one| !holders.contains(one) || before != name)
            {
                holder.call(request, "Delete*Policy", one, json!({"PolicyName": before})).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for Policy {
    fn name(&self) -> &'static str {
        "AWS::IAM::Policy"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        no_groups(&mut properties)?;
        if names(properties.get("Roles")).is_empty() && names(properties.get("Users")).is_empty() {
            return Err(Failure::invalid(
                "At least one of [Groups,Roles,Users] must be non-empty.",
            ));
        }
        Self::give(request, &Properties::default(), &properties).await?;
        Ok(request.name(64))
    }

    async fn read(&self, _: &Request, id: &str, properties: &Properties) -> Result<State, Failure> {
        // It is no resource of IAM's own: it is there as long as the stack says so.
        match properties.0.is_empty() {
            true => Ok(State::Missing),
            false => Ok(State::ready(json!({"Id": id}))),
        }
    }

    async fn update(
        &self,
        request: &Request,
        _: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        no_groups(&mut new)?;
        Self::give(request, old, &new).await
    }

    async fn delete(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let mut nobody = properties.clone();
        nobody.set("Roles", json!([]));
        nobody.set("Users", json!([]));
        Self::give(request, properties, &nobody).await?;
        Err(Failure::new("NotFound", "Nobody has the policy any more"))
    }
}

struct ManagedPolicy;

impl ManagedPolicy {
    async fn attach(
        request: &Request,
        arn: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        for (holder, list) in [(Holder::Role, "Roles"), (Holder::User, "Users")] {
            let (before, now) = (names(old.get(list)), names(new.get(list)));
            for one in now.iter().filter(|one| !before.contains(one)) {
                let ask = json!({"PolicyArn": arn, format!("{}Name", holder.word()): one});
                request.call("iam", &format!("Attach{}Policy", holder.word()), ask).await?;
            }
            for one in before.iter().filter(|one| !now.contains(one)) {
                holder.call(request, "Detach*Policy", one, json!({"PolicyArn": arn})).await?;
            }
        }
        Ok(())
    }

    /// Deletes all versions but the one that counts.
    async fn prune(request: &Request, arn: &str) -> Result<(), Failure> {
        let versions = request.find("iam", "ListPolicyVersions", json!({"PolicyArn": arn})).await?;
        for version in listed(versions, "Versions") {
            if version["IsDefaultVersion"] != json!(true) {
                let ask = json!({"PolicyArn": arn, "VersionId": version["VersionId"]});
                request.remove("iam", "DeletePolicyVersion", ask).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ResourceType for ManagedPolicy {
    fn name(&self) -> &'static str {
        "AWS::IAM::ManagedPolicy"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        no_groups(&mut properties)?;
        let name = properties
            .take("ManagedPolicyName")
            .map_or_else(|| request.name(128), |name| text(&name));
        let path = properties.text("Path").unwrap_or_else(|| "/".to_owned());
        let held = properties.only(&["Roles", "Users"]);
        properties.take("Roles");
        properties.take("Users");
        let content = properties.take("PolicyDocument").unwrap_or_default();
        properties.set("PolicyDocument", document(&content));
        properties.set("PolicyName", name.clone());
        request.make("iam", "CreatePolicy", properties.request()).await?;
        let arn = format!("arn:aws:iam::{}:policy{path}{name}", request.account());
        Self::attach(request, &arn, &Properties::default(), &held).await?;
        Ok(arn)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let Some(found) = request.find("iam", "GetPolicy", json!({"PolicyArn": id})).await? else {
            return Ok(State::Missing);
        };
        let mut all: Map<String, Json> = Properties::from(found["Policy"].clone()).0;
        all.insert("PolicyArn".to_owned(), json!(id));
        Ok(State::Ready(all))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        mut new: Properties,
    ) -> Result<(), Failure> {
        no_groups(&mut new)?;
        if new.differ(old, &["PolicyDocument"]) {
            // A policy has five versions at most.
            Self::prune(request, id).await?;
            let content = document(new.get("PolicyDocument").unwrap_or(&Json::Null));
            let ask = json!({"PolicyArn": id, "PolicyDocument": content, "SetAsDefault": true});
            request.call("iam", "CreatePolicyVersion", ask).await?;
            Self::prune(request, id).await?;
        }
        Self::attach(request, id, old, &new).await
    }

    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        Self::attach(request, id, properties, &Properties::default()).await?;
        Self::prune(request, id).await?;
        request.remove("iam", "DeletePolicy", json!({"PolicyArn": id})).await
    }
}
