//! Capacity providers: FARGATE and FARGATE_SPOT, which every account has.

use super::{
    answer,
    cluster::{PROVIDERS, change, check_providers},
    listing::page,
    named::cluster_name,
};
use crate::{Ecs, api::*};
use wire::{Context, Fault};

fn provider(name: &str) -> CapacityProvider {
    CapacityProvider {
        // AWS's own providers have ARNs without region and account.
        capacity_provider_arn: Some(format!("arn:aws:ecs:::capacity-provider/{name}")),
        name: Some(name.to_owned()),
        status: Some(CapacityProviderStatus::Active),
        tags: Some(Vec::new()),
        ..CapacityProvider::default()
    }
}

pub(crate) async fn describe_capacity_providers(
    _ecs: &Ecs,
    ctx: &Context,
    input: DescribeCapacityProvidersRequest,
) -> Result<DescribeCapacityProvidersResponse, Fault> {
    ctx.authorise("ecs:DescribeCapacityProviders", "*")?;
    let named = input.capacity_providers.unwrap_or_default();
    let name_of = |given: &str| given.rsplit('/').next().unwrap_or(given).to_owned();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|given| name_of(given) == name);
    let known = PROVIDERS.into_iter().filter(|name| wanted(name));
    let known = known.map(|name| (name.to_owned(), provider(name)));
    let (found, next_token) =
        page("DescribeCapacityProviders", input.next_token.as_deref(), input.max_results, known)?;
    let missing = named.iter().filter(|given| !PROVIDERS.contains(&name_of(given).as_str()));
    let failures = missing.map(|given| answer::missing(given.clone())).collect();
    Ok(DescribeCapacityProvidersResponse {
        capacity_providers: Some(found),
        failures: Some(failures),
        next_token,
    })
}

pub(crate) async fn put_cluster_capacity_providers(
    ecs: &Ecs,
    ctx: &Context,
    input: PutClusterCapacityProvidersRequest,
) -> Result<PutClusterCapacityProvidersResponse, Fault> {
    let name = cluster_name(ctx, Some(&input.cluster))?;
    let arn = ctx.arn("ecs", format!("cluster/{name}"));
    ctx.authorise("ecs:PutClusterCapacityProviders", &arn)?;
    check_providers(&input.capacity_providers, &input.default_capacity_provider_strategy)?;
    let cluster = change(ecs, ctx, &name, |cluster| {
        cluster.capacity_providers = input.capacity_providers;
        cluster.default_strategy = input.default_capacity_provider_strategy;
        Ok(())
    })
    .await?;
    Ok(PutClusterCapacityProvidersResponse { cluster: Some(cluster) })
}
