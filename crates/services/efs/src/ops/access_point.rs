//! Access points.

use super::{access_point, file_system, id, page, tags_in, tags_out};
use crate::{
    Efs,
    api::*,
    faults,
    model::{AccessPoint, FileSystem},
};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// Access points of a file system.
const MOST: usize = 1000;

fn described(point: &AccessPoint) -> AccessPointDescription {
    let (account, _) = point.realm.split_once('/').unwrap_or_default();
    AccessPointDescription {
        client_token: Some(point.token.clone()),
        name: point.tags.get("Name").cloned(),
        tags: tags_out(&point.tags),
        access_point_id: Some(point.id.clone()),
        access_point_arn: Some(point.arn()),
        file_system_id: Some(point.file_system.clone()),
        posix_user: point.user.clone(),
        root_directory: Some(point.root.clone()),
        owner_id: Some(account.to_owned()),
        life_cycle_state: Some(LifeCycleState::Available),
    }
}

pub(crate) async fn create_access_point(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: CreateAccessPointRequest,
) -> Result<AccessPointDescription, Fault> {
    let of = id(&input.file_system_id).to_owned();
    ctx.authorise("elasticfilesystem:CreateAccessPoint", &FileSystem::arn_of(&ctx.realm(), &of))?;
    let given = input.root_directory;
    let path = given.as_ref().and_then(|root| root.path.clone()).unwrap_or_else(|| "/".to_owned());
    let root = RootDirectory {
        path: Some(path),
        creation_info: given.and_then(|root| root.creation_info),
    };
    let point = AccessPoint {
        realm: ctx.realm(),
        id: format!("fsap-{}", efs.world.hex(17)),
        token: input.client_token,
        file_system: of,
        user: input.posix_user,
        root,
        tags: tags_in(input.tags)?,
    };
    let ctx = ctx.clone();
    let made = efs.store.write(move |tx| {
        file_system(tx, &ctx, &point.file_system)?;
        let all: Vec<_> = tx.scan_prefix::<AccessPoint>(&format!("{}/", point.realm)).collect();
        if let Some(other) = all.iter().find(|other| other.token == point.token) {
            let same = other.file_system == point.file_system
                && other.user == point.user
                && other.root == point.root;
            return match same {
                true => Ok(Arc::clone(other)),
                false => Err(faults::access_point_exists(&other.id)),
            };
        }
        if all.iter().filter(|other| other.file_system == point.file_system).count() >= MOST {
            return Err(faults::limit(
                "AccessPointLimitExceeded",
                "The file system has the most access points that it can have.",
            ));
        }
        tx.put(point.clone());
        Ok(Arc::new(point))
    });
    Ok(described(&*made.await?))
}

pub(crate) async fn describe_access_points(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DescribeAccessPointsRequest,
) -> Result<DescribeAccessPointsResponse, Fault> {
    let arn = match (&input.access_point_id, &input.file_system_id) {
        (Some(point), _) => AccessPoint::arn_of(&ctx.realm(), id(point)),
        (None, Some(of)) => FileSystem::arn_of(&ctx.realm(), id(of)),
        (None, None) => "*".to_owned(),
    };
    ctx.authorise("elasticfilesystem:DescribeAccessPoints", &arn)?;
    let snapshot = efs.store.read();
    let (wanted, of) = match (&input.access_point_id, &input.file_system_id) {
        (Some(_), Some(_)) => {
            return Err(faults::bad("AccessPointId and FileSystemId cannot be given together."));
        }
        (Some(point), None) => (Some(access_point(&snapshot, ctx, point)?.id.clone()), None),
        (None, Some(of)) => (None, Some(file_system(&snapshot, ctx, of)?.id.clone())),
        (None, None) => (None, None),
    };
    let all = snapshot.scan_prefix::<AccessPoint>(&format!("{}/", ctx.realm()));
    let fits = |point: &Arc<AccessPoint>| {
        wanted.as_ref().is_none_or(|id| point.id == *id)
            && of.as_ref().is_none_or(|of| point.file_system == *of)
    };
    let listed = all.filter(fits).map(|point| (point.key(), described(&point)));
    let (access_points, next_token) =
        page("access points", input.next_token.as_deref(), input.max_results, listed)?;
    Ok(DescribeAccessPointsResponse { access_points, next_token })
}

pub(crate) async fn delete_access_point(
    efs: &Arc<Efs>,
    ctx: &Context,
    input: DeleteAccessPointRequest,
) -> Result<(), Fault> {
    let arn = AccessPoint::arn_of(&ctx.realm(), id(&input.access_point_id));
    ctx.authorise("elasticfilesystem:DeleteAccessPoint", &arn)?;
    let ctx = ctx.clone();
    let write = efs.store.write(move |tx| {
        let found = access_point(tx, &ctx, &input.access_point_id)?;
        tx.delete::<AccessPoint>(&found.key());
        Ok::<_, Fault>(())
    });
    write.await
}
