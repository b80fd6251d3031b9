//! Security groups and their rules.

use async_trait::async_trait;
use resource::{Failure, Properties, Request, ResourceType, State, text};
use serde_json::{Value as Json, json};

/// A template's rule as the operations take it. `peers` are what templates call the group and the prefix list at the
/// other end.
fn permission(rule: &Json, peers: (&str, &str)) -> Result<Json, Failure> {
    let mut rule = Properties::from(rule.clone());
    let described = |mut range: Json, description: &Option<Json>| {
        if let Some(description) = description {
            range["Description"] = description.clone();
        }
        json!([range])
    };
    let description = rule.take("Description");
    let mut made = Properties::default();
    made.set(
        "IpProtocol",
        rule.take("IpProtocol").map(|protocol| text(&protocol)).unwrap_or_default(),
    );
    for port in ["FromPort", "ToPort"] {
        if let Some(number) = rule.take(port) {
            made.set(port, number);
        }
    }
    if let Some(block) = rule.take("CidrIp") {
        made.set("IpRanges", described(json!({"CidrIp": block}), &description));
    }
    if let Some(block) = rule.take("CidrIpv6") {
        made.set("Ipv6Ranges", described(json!({"CidrIpv6": block}), &description));
    }
    if let Some(list) = rule.take(peers.1) {
        made.set("PrefixListIds", described(json!({"PrefixListId": list}), &description));
    }
    if let Some(group) = rule.take(peers.0) {
        let mut pair = json!({"GroupId": group});
        if let Some(owner) = rule.take("SourceSecurityGroupOwnerId") {
            pair["UserId"] = owner;
        }
        made.set("UserIdGroupPairs", described(pair, &description));
    }
    match rule.0.keys().next() {
        Some(left) => Err(Failure::unsupported(left)),
        None => Ok(made.request()),
    }
}

const INGRESS: (&str, &str) = ("SourceSecurityGroupId", "SourcePrefixListId");
const EGRESS: (&str, &str) = ("DestinationSecurityGroupId", "DestinationPrefixListId");

/// The rules of a property, as the operations take them.
fn permissions(
    properties: &Properties,
    list: &str,
    peers: (&str, &str),
) -> Result<Vec<Json>, Failure> {
    let rules = properties.get(list).and_then(Json::as_array).into_iter().flatten();
    rules.map(|rule| permission(rule, peers)).collect()
}

/// What lets everything out, which a group has that says nothing of it.
fn everything() -> Json {
    json!({"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]})
}

pub(super) struct SecurityGroup;

impl SecurityGroup {
    /// Authorises and revokes until the group has the rules of `new` instead of those of `old`.
    async fn rules(
        request: &Request,
        id: &str,
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        for (list, peers, word) in [
            ("SecurityGroupIngress", INGRESS, "Ingress"),
            ("SecurityGroupEgress", EGRESS, "Egress"),
        ] {
            let mut before = permissions(old, list, peers)?;
            let mut now = permissions(new, list, peers)?;
            if word == "Egress" {
                // A group that says nothing of what goes out lets everything out.
                before = if before.is_empty() { vec![everything()] } else { before };
                now = if now.is_empty() { vec![everything()] } else { now };
            }
            let come: Vec<&Json> = now.iter().filter(|rule| !before.contains(rule)).collect();
            let gone: Vec<&Json> = before.iter().filter(|rule| !now.contains(rule)).collect();
            for (verb, rules) in [("Authorize", come), ("Revoke", gone)] {
                let operation = format!("{verb}SecurityGroup{word}");
                for rule in rules {
                    let ask = json!({"GroupId": id, "IpPermissions": [rule]});
                    match request.call("ec2", &operation, ask).await {
                        Err(failure) if failure.is_duplicate() || failure.is_missing() => {}
                        result => {
                            result?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn find(request: &Request, filters: Json) -> Result<Option<Json>, Failure> {
        let answer = request.find("ec2", "DescribeSecurityGroups", filters).await?;
        Ok(answer.and_then(|answer| answer["SecurityGroups"].get(0).cloned()))
    }
}

#[async_trait]
impl ResourceType for SecurityGroup {
    fn name(&self) -> &'static str {
        "AWS::EC2::SecurityGroup"
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        properties.set_default("GroupName", || json!(request.name(255)));
        let name = properties.text("GroupName").unwrap_or_default();
        let mut ask = properties.only(&["GroupName", "VpcId"]);
        ask.set("Description", properties.text("GroupDescription").unwrap_or_default());
        let tags = properties.take("Tags");
        if let Some(tags) = tags {
            ask.set("TagSpecifications", json!([{"ResourceType": "security-group", "Tags": tags}]));
        }
        // What the rules say is looked at before the group is made.
        permissions(&properties, "SecurityGroupIngress", INGRESS)?;
        permissions(&properties, "SecurityGroupEgress", EGRESS)?;
        let made = request.make("ec2", "CreateSecurityGroup", ask.request()).await?;
        let id = match made {
            Some(answer) => text(&answer["GroupId"]),
            None => {
                let filters = json!({"Filters": [{"Name": "group-name", "Values": [name]}]});
                let found = Self::find(request, filters).await?;
                found
                    .map(|group| text(&group["GroupId"]))
                    .ok_or_else(|| Failure::new("NotFound", "The security group is gone"))?
            }
        };
        Self::rules(request, &id, &Properties::default(), &properties).await?;
        Ok(id)
    }

    async fn read(&self, request: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(match Self::find(request, json!({"GroupIds": [id]})).await? {
            Some(group) => State::ready(json!({"GroupId": id, "Id": id, "VpcId": group["VpcId"]})),
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
        super::retag(request, id, old, &new).await?;
        Self::rules(request, id, old, &new).await
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        request.remove("ec2", "DeleteSecurityGroup", json!({"GroupId": id})).await
    }
}

/// A rule on its own.
pub(super) struct Rule {
    pub(super) egress: bool,
}

impl Rule {
    fn word(&self) -> &'static str {
        if self.egress { "Egress" } else { "Ingress" }
    }

    fn peers(&self) -> (&'static str, &'static str) {
        if self.egress { EGRESS } else { INGRESS }
    }
}

#[async_trait]
impl ResourceType for Rule {
    fn name(&self) -> &'static str {
        match self.egress {
            true => "AWS::EC2::SecurityGroupEgress",
            false => "AWS::EC2::SecurityGroupIngress",
        }
    }

    async fn create(
        &self,
        request: &Request,
        mut properties: Properties,
    ) -> Result<String, Failure> {
        let group = properties.take("GroupId").map(|group| text(&group));
        let group = group.ok_or_else(|| Failure::invalid("GroupId must be specified"))?;
        let rule = permission(&properties.request(), self.peers())?;
        let operation = format!("AuthorizeSecurityGroup{}", self.word());
        let ask = json!({"GroupId": group, "IpPermissions": [rule]});
        match request.make("ec2", &operation, ask).await? {
            Some(answer) => Ok(text(&answer["SecurityGroupRules"][0]["SecurityGroupRuleId"])),
            // It was made before the machine stopped; its id is not known, its content is.
            None => Ok(format!("{group}-{}", request.suffix)),
        }
    }

    async fn read(&self, _: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        Ok(State::ready(json!({"Id": id})))
    }

    async fn update(
        &self,
        _: &Request,
        _: &str,
        _: &Properties,
        _: Properties,
    ) -> Result<(), Failure> {
        // All but its description replaces it.
        Err(Failure::not_updatable("Description"))
    }

    async fn delete(
        &self,
        request: &Request,
        _: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let mut properties = properties.clone();
        let group = properties.take("GroupId").unwrap_or_default();
        properties.take("Description");
        let rule = permission(&properties.request(), self.peers())?;
        let operation = format!("RevokeSecurityGroup{}", self.word());
        request
            .remove("ec2", &operation, json!({"GroupId": group, "IpPermissions": [rule]}))
            .await?;
        Err(Failure::new("NotFound", "The group does not have the rule any more"))
    }
}
