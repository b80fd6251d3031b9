//! What a task gets that mounts a file system, in the words of EFS's client where it gets nothing.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/s3files-volumes.html>
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-files-prereq-policies.html>

use crate::{
    S3Files,
    model::{AccessPoint, FileSystem, MountTarget},
    synchronize::Different,
};
use ec2::model::NetworkInterface;
use efs::{Made, Mounted, NFS, Root};
use std::sync::Arc;
use wire::{Decision, Identity, Principal, ResourcePolicy};

/// What a task asks for.
pub struct Wanted<'a> {
    /// `account/region`.
    pub realm: &'a str,
    /// The file system's ARN.
    pub file_system: &'a str,
    /// The directory that is wanted; the access point's where there is one.
    pub root: &'a str,
    /// The access point's ARN.
    pub access_point: Option<&'a str>,
    /// Who asks: the task's role.
    pub principal: &'a Principal,
    /// Where it asks from.
    pub interface: &'a NetworkInterface,
}

const DENIED: &str = "mount.nfs4: access denied by server while mounting 127.0.0.1:/";

impl S3Files {
    /// What a task gets that mounts a file system, once all of the bucket that is there now is there. The error is for
    /// people.
    pub async fn mount(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Mounted, String> {
        let snapshot = self.store.read();
        let realm = wanted.realm;
        let id = wanted.file_system.rsplit('/').next().unwrap_or_default();
        let known = snapshot.get::<FileSystem>(&format!("{realm}/{id}"));
        let region = realm.split_once('/').map_or("", |(_, region)| region);
        let name = format!("{id}.s3files.{region}.on.aws");
        let unresolved = || {
            format!(
                "Failed to resolve \"{name}\" - check that your file system ID is correct, and ensure that the VPC \
                 has a mount target for this file system ID."
            )
        };
        let known = known.filter(|known| known.arn() == wanted.file_system);
        let known = known.ok_or_else(unresolved)?;
        let mut targets = snapshot.scan_prefix::<MountTarget>(&format!("{realm}/"));
        let here = |target: &Arc<MountTarget>| {
            let interface = wanted.interface;
            target.file_system == id && target.vpc == interface.vpc && target.zone == interface.zone
        };
        let target = targets.find(here).ok_or_else(unresolved)?;
        let door = self.ec2.interface(realm, &target.interface);
        if !door.is_some_and(|door| self.ec2.lets_through(wanted.interface, &door, NFS)) {
            let words = "Connection to the mount target IP address timed out. mount.nfs4: Connection timed out";
            return Err(words.to_owned());
        }
        let point = wanted.access_point.map(|arn| {
            let id = arn.rsplit('/').next().unwrap_or_default();
            let point = snapshot.get::<AccessPoint>(&format!("{realm}/{id}"));
            point.filter(|point| point.arn() == arn && point.file_system == known.id)
        });
        let point = point.map(|point| point.ok_or(DENIED)).transpose()?;
        let may = |action: &str| self.may(&known, point.as_deref(), wanted.principal, action);
        if !may("ClientMount") {
            return Err(DENIED.to_owned());
        }
        let (writable, root) = (may("ClientWrite"), may("ClientRootAccess"));
        // What cannot be had of it is told of the file system, and keeps no task from what can.
        if let Err(Different::Unseen(reason)) = self.pass(&known).await {
            return Err(reason);
        }
        let id = |id: i64| u32::try_from(id).unwrap_or(u32::MAX);
        let path = match &point {
            Some(point) => point.root.path.as_deref().unwrap_or("/").to_owned(),
            None => wanted.root.to_owned(),
        };
        let beneath = path.trim_matches('/').to_owned();
        let user = point.as_ref().and_then(|point| {
            let user = point.user.clone()?;
            let others = user.secondary_gids.unwrap_or_default().into_iter().map(id).collect();
            Some((id(user.uid), id(user.gid), others))
        });
        let made = point.as_ref().and_then(|point| point.root.creation_permissions.as_ref());
        let made = made.map(|made| Made {
            uid: id(made.owner_uid),
            gid: id(made.owner_gid),
            mode: made.permissions.clone(),
        });
        let base = self.tree(&known.id).root;
        let place = base.clone();
        let entered =
            tokio::task::spawn_blocking(move || Root { path: &path, made }.enter(&place, &name));
        entered.await.map_err(|error| error.to_string())??;
        Ok(Mounted { base, beneath, writable, squashed: !root && user.is_none(), user })
    }

    /// Whether what asks may do something: IAM always decides.
    fn may(
        &self,
        known: &FileSystem,
        point: Option<&AccessPoint>,
        principal: &Principal,
        action: &str,
    ) -> bool {
        let account = known.realm.split_once('/').map_or("", |(account, _)| account);
        // What tasks send never leaves the machine.
        let mut keys = vec![("aws:SecureTransport".to_owned(), vec!["true".to_owned()])];
        if let Some(point) = point {
            keys.push(("s3files:AccessPointArn".to_owned(), vec![point.arn()]));
        }
        let owned = ResourcePolicy { account, policy: known.policy.as_deref() };
        let action = format!("s3files:{action}");
        let decision =
            self.iam.decide_with_resource_policy(principal, &action, &known.arn(), &keys, owned);
        decision == Decision::Allow
    }
}
