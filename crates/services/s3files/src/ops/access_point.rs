//! Access points.

use super::{access_point, file_system, id, may, owner, page, tags_in, tags_out};
use crate::{S3Files, api::*, faults, model::AccessPoint};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault};

/// Access points of a file system.
const MOST: usize = 1000;

fn name(point: &AccessPoint) -> Option<String> {
    point.tags.get("Name").cloned()
}

/// The same members, in an answer of either name.
macro_rules! described {
    ($answer:ident, $point:expr) => {
        $answer {
            access_point_arn: Some($point.arn()),
            access_point_id: Some($point.id.clone()),
            client_token: Some($point.token.clone()),
            file_system_id: Some($point.file_system.clone()),
            status: Some(LifeCycleState::Available),
            owner_id: owner(&$point.realm),
            posix_user: $point.user.clone(),
            root_directory: Some($point.root.clone()),
            tags: Some(tags_out(&$point.tags)),
            name: name(&$point),
        }
    };
}

pub(crate) async fn create_access_point(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: CreateAccessPointRequest,
) -> Result<CreateAccessPointResponse, Fault> {
    may(ctx, "CreateAccessPoint", &input.file_system_id)?;
    let given = input.root_directory.unwrap_or_default();
    let root = RootDirectory {
        path: Some(given.path.unwrap_or_else(|| "/".to_owned())),
        creation_permissions: given.creation_permissions,
    };
    let point = AccessPoint {
        realm: ctx.realm(),
        id: format!("fsap-{}", service.world.hex(17)),
        token: input.client_token.unwrap_or_else(|| service.world.uuid()),
        file_system: id(&input.file_system_id).to_owned(),
        user: input.posix_user,
        root,
        tags: tags_in(input.tags)?,
    };
    let ctx = ctx.clone();
    let made = service.store.write(move |tx| {
        file_system(tx, &ctx, &point.file_system)?;
        let all: Vec<_> = tx.scan_prefix::<AccessPoint>(&format!("{}/", point.realm)).collect();
        if let Some(other) = all.iter().find(|other| other.token == point.token) {
            let same = other.file_system == point.file_system
                && other.user == point.user
                && other.root == point.root;
            let message = "An access point with this client token has other parameters.";
            return match same {
                true => Ok(Arc::clone(other)),
                false => Err(faults::conflict(
                    "IdempotentParameterMismatch",
                    message.to_owned(),
                    &other.id,
                    "AccessPoint",
                )),
            };
        }
        if all.iter().filter(|other| other.file_system == point.file_system).count() >= MOST {
            return Err(faults::quota("The file system has as many access points as it can have."));
        }
        tx.put(point.clone());
        Ok(Arc::new(point))
    });
    let made = made.await?;
    Ok(described!(CreateAccessPointResponse, made))
}

/// Finds an access point for whoever may do `action` with it. Who may do it with none is not told which there are.
fn found(
    service: &S3Files,
    ctx: &Context,
    action: &str,
    given: &str,
) -> Result<Arc<AccessPoint>, Fault> {
    let found = access_point(&service.store.read(), ctx, given);
    let arn = found.as_ref().map_or_else(|_| "*".to_owned(), |point| point.arn());
    ctx.authorise(&format!("s3files:{action}"), &arn)?;
    found
}

pub(crate) async fn get_access_point(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: GetAccessPointRequest,
) -> Result<GetAccessPointResponse, Fault> {
    let point = found(service, ctx, "GetAccessPoint", &input.access_point_id)?;
    Ok(described!(GetAccessPointResponse, point))
}

pub(crate) async fn list_access_points(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: ListAccessPointsRequest,
) -> Result<ListAccessPointsResponse, Fault> {
    may(ctx, "ListAccessPoints", &input.file_system_id)?;
    let snapshot = service.store.read();
    let of = file_system(&snapshot, ctx, &input.file_system_id)?;
    let all = snapshot.scan_prefix::<AccessPoint>(&format!("{}/", ctx.realm()));
    let listed = all.filter(|point| point.file_system == of.id).map(|point| {
        let described = ListAccessPointsDescription {
            access_point_arn: Some(point.arn()),
            access_point_id: Some(point.id.clone()),
            file_system_id: Some(point.file_system.clone()),
            status: Some(LifeCycleState::Available),
            owner_id: owner(&point.realm),
            posix_user: point.user.clone(),
            root_directory: Some(point.root.clone()),
            name: name(&point),
        };
        (point.key(), described)
    });
    let token = input.next_token.as_deref();
    let (access_points, next_token) = page("access points", token, input.max_results, listed)?;
    Ok(ListAccessPointsResponse { next_token, access_points: Some(access_points) })
}

pub(crate) async fn delete_access_point(
    service: &Arc<S3Files>,
    ctx: &Context,
    input: DeleteAccessPointRequest,
) -> Result<(), Fault> {
    found(service, ctx, "DeleteAccessPoint", &input.access_point_id)?;
    let ctx = ctx.clone();
    let write = service.store.write(move |tx| {
        let found = access_point(tx, &ctx, &input.access_point_id)?;
        tx.delete::<AccessPoint>(&found.key());
        Ok::<_, Fault>(())
    });
    write.await
}
