//! Tags.

use super::{
    filter::passes,
    listing::{page, stop_if_dry},
};
use crate::{
    Ec2,
    api::*,
    faults,
    model::{
        self, Address, InternetGateway, NatGateway, RouteTable, SecurityGroup, Subnet, Tags,
        Volume, Vpc, VpcEndpoint,
    },
};
use store::{Record, Tx, View};
use wire::{Context, Fault};

/// The most tags of a resource.
const MOST_TAGS: usize = 50;

/// The tags that a request gives to what it makes.
pub(super) fn read(specifications: Option<Vec<TagSpecification>>) -> Result<Tags, Fault> {
    let tags = specifications.into_iter().flatten().flat_map(|s| s.tags.unwrap_or_default());
    let tags = tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())));
    let mut all = Tags::new();
    set(&mut all, tags.collect())?;
    Ok(all)
}

fn set(tags: &mut Tags, new: Tags) -> Result<(), Fault> {
    if let Some(key) = new.keys().find(|key| key.to_ascii_lowercase().starts_with("aws:")) {
        let message = format!("Tag keys starting with 'aws:' are reserved for internal use: {key}");
        return Err(faults::invalid(message));
    }
    tags.extend(new);
    match tags.len() > MOST_TAGS {
        true => Err(faults::of("TagLimitExceeded", "A resource can have at most 50 tags.")),
        false => Ok(()),
    }
}

/// Tags as answers tell them.
pub(super) fn told(tags: &Tags) -> Option<Vec<Tag>> {
    let tag = |(key, value): (&String, &String)| Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    (!tags.is_empty()).then(|| tags.iter().map(tag).collect())
}

/// Changes the tags of the resource of an id.
fn change(
    tx: &mut Tx,
    realm: &str,
    id: &str,
    change: &mut dyn FnMut(&mut Tags) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let key = format!("{realm}/{id}");
    let mut result = Ok(());
    macro_rules! on {
        ($type:ty) => {
            tx.update::<$type>(&key, |record| result = change(&mut record.tags))
        };
    }
    let there = match id.split('-').next().unwrap_or_default() {
        "vpc" => on!(Vpc),
        "subnet" => on!(Subnet),
        "igw" => on!(InternetGateway),
        "rtb" => on!(RouteTable),
        "eipalloc" => on!(Address),
        "nat" => on!(NatGateway),
        "vol" => on!(Volume),
        "vpce" => on!(VpcEndpoint),
        "sg" => on!(SecurityGroup),
        _ => false,
    };
    match there {
        true => result,
        false => Err(faults::of("InvalidID", format!("The ID '{id}' is not valid"))),
    }
}

pub(crate) async fn create_tags(
    ec2: &Ec2,
    ctx: &Context,
    input: CreateTagsRequest,
) -> Result<(), Fault> {
    for id in &input.resources {
        ctx.authorise("ec2:CreateTags", &ctx.arn("ec2", format!("*/{id}")))?;
    }
    stop_if_dry(input.dry_run)?;
    let tags = input.tags.into_iter();
    let tags: Tags =
        tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect();
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        input
            .resources
            .iter()
            .try_for_each(|id| change(tx, &realm, id, &mut |own| set(own, tags.clone())))
    });
    write.await
}

pub(crate) async fn delete_tags(
    ec2: &Ec2,
    ctx: &Context,
    input: DeleteTagsRequest,
) -> Result<(), Fault> {
    for id in &input.resources {
        ctx.authorise("ec2:DeleteTags", &ctx.arn("ec2", format!("*/{id}")))?;
    }
    stop_if_dry(input.dry_run)?;
    let realm = ctx.realm();
    let write = ec2.store.write(move |tx| {
        input.resources.iter().try_for_each(|id| {
            change(tx, &realm, id, &mut |own| {
                match &input.tags {
                    None => own.clear(),
                    // A tag that is named with a value goes only when it has that value.
                    Some(gone) => own.retain(|key, value| {
                        !gone.iter().any(|tag| {
                            let same = tag.value.as_ref().is_none_or(|wanted| wanted == value);
                            tag.key.as_ref() == Some(key) && same
                        })
                    }),
                }
                Ok(())
            })
        })
    });
    write.await
}

pub(crate) async fn describe_tags(
    ec2: &Ec2,
    ctx: &Context,
    input: DescribeTagsRequest,
) -> Result<DescribeTagsResult, Fault> {
    ctx.authorise("ec2:DescribeTags", "*")?;
    stop_if_dry(input.dry_run)?;
    let (snapshot, prefix) = (ec2.store.read(), format!("{}/", ctx.realm()));
    let mut all: Vec<(String, &'static str, Tags)> = Vec::new();
    macro_rules! of {
        ($type:ty, $kind:literal) => {
            let records = snapshot.records::<$type>(&prefix).into_iter();
            all.extend(records.map(|record| (record.id.clone(), $kind, record.tags.clone())));
        };
    }
    of!(Vpc, "vpc");
    of!(Subnet, "subnet");
    of!(InternetGateway, "internet-gateway");
    of!(Volume, "volume");
    of!(VpcEndpoint, "vpc-endpoint");
    of!(RouteTable, "route-table");
    of!(Address, "elastic-ip");
    of!(NatGateway, "natgateway");
    of!(SecurityGroup, "security-group");
    let mut found = Vec::new();
    for (id, kind, tags) in all {
        for (key, value) in tags {
            let passes = passes(input.filters.as_ref(), |name| match name {
                "key" => Some(vec![key.clone()]),
                "value" => Some(vec![value.clone()]),
                "resource-id" => Some(vec![id.clone()]),
                "resource-type" => Some(vec![kind.to_owned()]),
                _ => None,
            })?;
            if passes {
                let description = TagDescription {
                    key: Some(key.clone()),
                    resource_id: Some(id.clone()),
                    resource_type: ResourceType::parse(kind),
                    value: Some(value),
                };
                found.push((format!("{id}/{key}"), description));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (tags, next_token) =
        page("DescribeTags", input.next_token.as_deref(), input.max_results, found)?;
    Ok(DescribeTagsResult { next_token, tags })
}

/// The record of an id, or the fault that says that there is none.
pub(super) fn find<T: Record>(
    view: &impl View,
    realm: &str,
    id: &str,
    missing: (&'static str, &str),
) -> Result<std::sync::Arc<T>, Fault> {
    let found = view.record::<T>(&format!("{realm}/{id}"));
    found.ok_or_else(|| faults::not_found(missing.0, missing.1, id))
}

/// What faults say of what is not there.
pub(super) const NO_VPC: (&str, &str) = ("InvalidVpcID.NotFound", "vpc");
pub(super) const NO_SUBNET: (&str, &str) = ("InvalidSubnetID.NotFound", "subnet");
pub(super) const NO_TABLE: (&str, &str) = ("InvalidRouteTableID.NotFound", "routeTable");
pub(super) const NO_GATEWAY: (&str, &str) =
    ("InvalidInternetGatewayID.NotFound", "internetGateway");
pub(super) const NO_ADDRESS: (&str, &str) = ("InvalidAllocationID.NotFound", "allocation");
pub(super) const NO_ENDPOINT: (&str, &str) = ("InvalidVpcEndpointId.NotFound", "VpcEndpoint");
pub(super) const NO_NAT: (&str, &str) = ("NatGatewayNotFound", "NatGateway");

/// The VPC of an id.
pub(super) fn vpc(
    view: &impl View,
    realm: &str,
    id: &str,
) -> Result<std::sync::Arc<model::Vpc>, Fault> {
    find(view, realm, id, NO_VPC)
}
