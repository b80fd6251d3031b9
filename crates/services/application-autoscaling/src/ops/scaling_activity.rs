//! What was done.

use super::{authorise, check_kind, page};
use crate::{
    AutoScaling,
    api::*,
    model::{Activity, ActivityStatus},
};
use std::sync::Arc;
use wire::{Context, Fault};

fn answer(activity: &Activity) -> ScalingActivity {
    let status = match activity.status {
        ActivityStatus::InProgress => ScalingActivityStatusCode::InProgress,
        ActivityStatus::Successful => ScalingActivityStatusCode::Successful,
        ActivityStatus::Overridden => ScalingActivityStatusCode::Overridden,
        ActivityStatus::Failed => ScalingActivityStatusCode::Failed,
    };
    ScalingActivity {
        activity_id: Some(activity.id.clone()),
        service_namespace: Some(ServiceNamespace::Ecs),
        resource_id: Some(activity.resource.clone()),
        scalable_dimension: Some(ScalableDimension::EcsServiceDesiredCount),
        description: Some(activity.description.clone()),
        cause: Some(activity.cause.clone()),
        start_time: Some(activity.started),
        end_time: activity.ended,
        status_code: Some(status),
        status_message: Some(activity.message.clone()),
        ..ScalingActivity::default()
    }
}

pub(crate) async fn describe_scaling_activities(
    scaling: &AutoScaling,
    ctx: &Context,
    input: DescribeScalingActivitiesRequest,
) -> Result<DescribeScalingActivitiesResponse, Fault> {
    authorise(ctx, "DescribeScalingActivities")?;
    check_kind(input.service_namespace, input.scalable_dimension)?;
    let snapshot = scaling.store.read();
    let wanted = |activity: &Arc<Activity>| {
        input.resource_id.as_ref().is_none_or(|id| *id == activity.resource)
    };
    let mut all: Vec<Arc<Activity>> =
        snapshot.scan_prefix::<Activity>(&format!("{}/", ctx.realm())).filter(wanted).collect();
    // Newest first; the key of a page grows with age.
    all.sort_by_cached_key(|activity| order(activity));
    let all = all.iter().map(|activity| (order(activity), answer(activity)));
    let (scaling_activities, next_token) =
        page("activities", input.next_token.as_deref(), input.max_results, all)?;
    Ok(DescribeScalingActivitiesResponse { scaling_activities, next_token })
}

/// Sorts before what is older.
fn order(activity: &Activity) -> String {
    let age = i64::MAX - activity.started.millis();
    format!("{age:020}/{:020}/{}", u64::MAX - activity.number, activity.resource)
}
