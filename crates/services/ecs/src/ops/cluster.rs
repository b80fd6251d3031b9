//! Clusters.

use super::{
    answer,
    listing::page,
    named::{active_cluster, cluster_name},
    tag::checked,
};
use crate::{
    Ecs,
    api::*,
    faults,
    model::{Cluster as Record, LastStatus, Service, ServiceStatus, Tags, Task},
};
use std::sync::Arc;
use wire::{Context, Fault};

/// The capacity providers that there are.
pub(super) const PROVIDERS: [&str; 2] = ["FARGATE", "FARGATE_SPOT"];

/// Refuses capacity providers that do not exist, and strategies that name others than `providers`.
pub(super) fn check_providers(
    providers: &[String],
    strategy: &[CapacityProviderStrategyItem],
) -> Result<(), Fault> {
    if providers.iter().any(|provider| !PROVIDERS.contains(&provider.as_str())) {
        return Err(faults::invalid(
            "The specified capacity provider was not found. Specify a valid name or ARN and try again.",
        ));
    }
    let odd = strategy.iter().find(|item| !providers.contains(&item.capacity_provider));
    if odd.is_some() {
        return Err(faults::invalid(
            "The default capacity provider strategy cannot contain a capacity provider that is not \
             associated with the cluster. Associate the capacity provider with the cluster and try again.",
        ));
    }
    match strategy.iter().filter(|item| item.base.unwrap_or(0) > 0).count() > 1 {
        true => Err(faults::invalid("Only one capacity provider can have a base defined.")),
        false => Ok(()),
    }
}

pub(crate) async fn create_cluster(
    ecs: &Ecs,
    ctx: &Context,
    input: CreateClusterRequest,
) -> Result<CreateClusterResponse, Fault> {
    let name = cluster_name(ctx, input.cluster_name.as_deref())?;
    let arn = ctx.arn("ecs", format!("cluster/{name}"));
    ctx.authorise("ecs:CreateCluster", &arn)?;
    let providers = input.capacity_providers.unwrap_or_default();
    let strategy = input.default_capacity_provider_strategy.unwrap_or_default();
    check_providers(&providers, &strategy)?;
    let cluster = Record {
        realm: ctx.realm(),
        name,
        arn,
        active: true,
        tags: checked(Tags::new(), input.tags)?,
        settings: settings(input.settings, Vec::new())?,
        capacity_providers: providers,
        default_strategy: strategy,
        connect_namespace: connect_namespace(ecs, ctx, input.service_connect_defaults).await?,
    };
    // Creating what is there already answers with what is there.
    let made = ecs.store.write(move |tx| {
        match tx.get::<Record>(&Record::key_of(&cluster.realm, &cluster.name)) {
            Some(there) if there.active => Ok(there),
            _ => {
                tx.put(cluster.clone());
                Ok::<_, Fault>(Arc::new(cluster))
            }
        }
    });
    let cluster = made.await?;
    Ok(CreateClusterResponse { cluster: Some(answer::cluster(ecs, &cluster, &Shown::all())) })
}

/// The ARN of the namespace that is to be the cluster's; it is made when it is not there.
async fn connect_namespace(
    ecs: &Ecs,
    ctx: &Context,
    defaults: Option<ClusterServiceConnectDefaultsRequest>,
) -> Result<Option<String>, Fault> {
    let Some(defaults) = defaults else { return Ok(None) };
    let made = ecs.discovery.http_namespace(&ctx.realm(), &defaults.namespace).await;
    made.map(Some).map_err(|fault| match fault.is_sender() {
        true => faults::no_namespace(),
        false => fault,
    })
}

/// Which optional parts of a cluster an answer holds.
#[derive(Default)]
pub(super) struct Shown {
    pub settings: bool,
    pub statistics: bool,
    pub tags: bool,
}

impl Shown {
    pub(super) fn all() -> Self {
        Self { settings: true, statistics: false, tags: true }
    }
}

fn settings(
    given: Option<Vec<ClusterSetting>>,
    mut now: Vec<ClusterSetting>,
) -> Result<Vec<ClusterSetting>, Fault> {
    for setting in given.into_iter().flatten() {
        let value = setting.value.as_deref().unwrap_or_default();
        if !["enabled", "disabled", "enhanced"].contains(&value) {
            return Err(faults::invalid(
                "Invalid setting value. Valid values: enabled, disabled, enhanced.",
            ));
        }
        now.retain(|other| other.name != setting.name);
        now.push(setting);
    }
    if now.is_empty() {
        now.push(ClusterSetting {
            name: Some(ClusterSettingName::ContainerInsights),
            value: Some("disabled".to_owned()),
        });
    }
    Ok(now)
}

pub(crate) async fn describe_clusters(
    ecs: &Ecs,
    ctx: &Context,
    input: DescribeClustersRequest,
) -> Result<DescribeClustersResponse, Fault> {
    let named = input.clusters.filter(|named| !named.is_empty());
    let named = named.unwrap_or_else(|| vec!["default".to_owned()]);
    if named.len() > 100 {
        return Err(faults::invalid("Clusters cannot have more than 100 elements."));
    }
    let include = input.include.unwrap_or_default();
    let shown = Shown {
        settings: include.contains(&ClusterField::Settings),
        statistics: include.contains(&ClusterField::Statistics),
        tags: include.contains(&ClusterField::Tags),
    };
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for given in named {
        let name = cluster_name(ctx, Some(&given));
        let arn = match &name {
            Ok(name) => ctx.arn("ecs", format!("cluster/{name}")),
            Err(_) => given.clone(),
        };
        ctx.authorise("ecs:DescribeClusters", &arn)?;
        let key = name.ok().map(|name| Record::key_of(&ctx.realm(), &name));
        match key.and_then(|key| ecs.store.read().get::<Record>(&key)) {
            Some(cluster) => clusters.push(answer::cluster(ecs, &cluster, &shown)),
            None => failures.push(answer::missing(arn)),
        }
    }
    Ok(DescribeClustersResponse { clusters: Some(clusters), failures: Some(failures) })
}

pub(crate) async fn list_clusters(
    ecs: &Ecs,
    ctx: &Context,
    input: ListClustersRequest,
) -> Result<ListClustersResponse, Fault> {
    ctx.authorise("ecs:ListClusters", "*")?;
    let snapshot = ecs.store.read();
    let clusters = snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm()));
    let clusters = clusters.filter(|cluster| cluster.active);
    let arns = clusters.map(|cluster| (cluster.name.clone(), cluster.arn.clone()));
    let (arns, next_token) =
        page("ListClusters", input.next_token.as_deref(), input.max_results, arns)?;
    Ok(ListClustersResponse { cluster_arns: Some(arns), next_token })
}

/// Changes an active cluster.
pub(super) async fn change(
    ecs: &Ecs,
    ctx: &Context,
    name: &str,
    change: impl FnOnce(&mut Record) -> Result<(), Fault> + Send + 'static,
) -> Result<Cluster, Fault> {
    let key = Record::key_of(&ctx.realm(), name);
    let changed = ecs.store.write(move |tx| {
        let cluster = tx.get::<Record>(&key).filter(|cluster| cluster.active);
        let mut cluster = Arc::unwrap_or_clone(cluster.ok_or_else(faults::no_cluster)?);
        change(&mut cluster)?;
        tx.put(cluster.clone());
        Ok::<_, Fault>(cluster)
    });
    Ok(answer::cluster(ecs, &changed.await?, &Shown::all()))
}

pub(crate) async fn update_cluster(
    ecs: &Ecs,
    ctx: &Context,
    input: UpdateClusterRequest,
) -> Result<UpdateClusterResponse, Fault> {
    let name = cluster_name(ctx, Some(&input.cluster))?;
    ctx.authorise("ecs:UpdateCluster", &ctx.arn("ecs", format!("cluster/{name}")))?;
    active_cluster(ecs, ctx, &name)?;
    let namespace = connect_namespace(ecs, ctx, input.service_connect_defaults).await?;
    let cluster = change(ecs, ctx, &name, |cluster| {
        cluster.settings = settings(input.settings, std::mem::take(&mut cluster.settings))?;
        cluster.connect_namespace = namespace.or(cluster.connect_namespace.take());
        Ok(())
    })
    .await?;
    Ok(UpdateClusterResponse { cluster: Some(cluster) })
}

pub(crate) async fn update_cluster_settings(
    ecs: &Ecs,
    ctx: &Context,
    input: UpdateClusterSettingsRequest,
) -> Result<UpdateClusterSettingsResponse, Fault> {
    let name = cluster_name(ctx, Some(&input.cluster))?;
    ctx.authorise("ecs:UpdateClusterSettings", &ctx.arn("ecs", format!("cluster/{name}")))?;
    let cluster = change(ecs, ctx, &name, |cluster| {
        cluster.settings = settings(Some(input.settings), std::mem::take(&mut cluster.settings))?;
        Ok(())
    })
    .await?;
    Ok(UpdateClusterSettingsResponse { cluster: Some(cluster) })
}

pub(crate) async fn delete_cluster(
    ecs: &Ecs,
    ctx: &Context,
    input: DeleteClusterRequest,
) -> Result<DeleteClusterResponse, Fault> {
    let name = cluster_name(ctx, Some(&input.cluster))?;
    ctx.authorise("ecs:DeleteCluster", &ctx.arn("ecs", format!("cluster/{name}")))?;
    active_cluster(ecs, ctx, &name)?;
    let realm = ctx.realm();
    let deleted = ecs.store.write(move |tx| {
        let mut tasks = tx.scan_prefix::<Task>(&format!("{realm}/{name}/"));
        if tasks.any(|task| task.last_status != LastStatus::Stopped) {
            return Err(faults::cluster_has_tasks());
        }
        drop(tasks);
        let mut services = tx.scan_prefix::<Service>(&format!("{realm}/{name}/"));
        if services.any(|service| service.status != ServiceStatus::Inactive) {
            return Err(faults::cluster_has_services());
        }
        drop(services);
        let cluster = tx.get::<Record>(&Record::key_of(&realm, &name));
        let mut cluster = Arc::unwrap_or_clone(cluster.ok_or_else(faults::no_cluster)?);
        cluster.active = false;
        tx.put(cluster.clone());
        Ok(cluster)
    });
    let cluster = deleted.await?;
    Ok(DeleteClusterResponse { cluster: Some(answer::cluster(ecs, &cluster, &Shown::all())) })
}
