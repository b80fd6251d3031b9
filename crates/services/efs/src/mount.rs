//! What a task gets that mounts a file system, with AWS's words where it gets nothing.
//! <https://docs.aws.amazon.com/efs/latest/ug/iam-access-control-nfs-efs.html>
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/efs-volumes.html>

use crate::{
    Efs, NFS,
    model::{AccessPoint, FileSystem, MountTarget},
    root::{Made, Root},
};
use ec2::model::NetworkInterface;
use std::{path::PathBuf, sync::Arc};
use wire::{Decision, Identity, Principal, ResourcePolicy};

/// What a task asks for.
pub struct Wanted<'a> {
    /// `account/region`.
    pub realm: &'a str,
    /// The file system's id.
    pub file_system: &'a str,
    /// The directory that is wanted; the access point's where there is one.
    pub root: &'a str,
    /// The access point's id.
    pub access_point: Option<&'a str>,
    /// Who asks, where IAM is to decide: the task's role.
    pub principal: Option<&'a Principal>,
    /// Where it asks from.
    pub interface: &'a NetworkInterface,
}

/// What it gets.
#[derive(Debug)]
pub struct Mounted {
    /// The file system's directory on this machine.
    pub base: PathBuf,
    /// What is seen of it, beneath. Whoever could mount it may have put a link in the way by the time that it is used.
    pub beneath: String,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether root is nobody there.
    pub squashed: bool,
    /// Who everybody is there: user, group, other groups.
    pub user: Option<(u32, u32, Vec<u32>)>,
}

impl Efs {
    /// What a task gets that mounts a file system. Blocks. The error is for people.
    pub fn mount(&self, wanted: &Wanted) -> Result<Mounted, String> {
        let snapshot = self.store.read();
        let (realm, id) = (wanted.realm, wanted.file_system);
        let key = format!("{realm}/{id}");
        let known = snapshot.get::<FileSystem>(&key);
        let region = realm.split_once('/').map_or("", |(_, region)| region);
        let unresolved = || {
            format!(
                "Failed to resolve \"{id}.efs.{region}.amazonaws.com\" - check that your file system ID is correct, \
                 and ensure that the VPC has an EFS mount target for this file system ID. See \
                 https://docs.aws.amazon.com/console/efs/mount-dns-name for more detail."
            )
        };
        let known = known.ok_or_else(unresolved)?;
        let mut targets = snapshot.scan_prefix::<MountTarget>(&format!("{realm}/"));
        // The name leads to the mount target of the availability zone that asks.
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
        let point = wanted.access_point.map(|point| {
            let point = snapshot.get::<AccessPoint>(&format!("{realm}/{point}"));
            let denied =
                || "mount.nfs4: access denied by server while mounting 127.0.0.1:/".to_owned();
            point.filter(|point| point.file_system == id).ok_or_else(denied)
        });
        let point = point.transpose()?;
        let may = |action: &str| self.may(&known, point.as_deref(), wanted.principal, action);
        if !may("ClientMount") {
            return Err("mount.nfs4: access denied by server while mounting 127.0.0.1:/".to_owned());
        }
        let (writable, root) = (may("ClientWrite"), may("ClientRootAccess"));
        let place = self.place(id);
        let unmarked = Root { path: wanted.root, made: None };
        let directory = point.as_ref().map_or(unmarked, |point| root_of(point));
        directory.enter(&place, &format!("{id}.efs.{region}.amazonaws.com"))?;
        let beneath = point.as_ref().map_or(wanted.root, |point| path(point));
        let beneath = beneath.trim_matches('/').to_owned();
        let user = point.and_then(|point| {
            let user = point.user.clone()?;
            let id = |id: i64| u32::try_from(id).unwrap_or(u32::MAX);
            let others = user.secondary_gids.unwrap_or_default().into_iter().map(id).collect();
            Some((id(user.uid), id(user.gid), others))
        });
        Ok(Mounted { base: place, beneath, writable, squashed: !root && user.is_none(), user })
    }

    /// Whether what asks may do something. Without a policy, everybody may do everything who reaches the file system.
    fn may(
        &self,
        known: &FileSystem,
        point: Option<&AccessPoint>,
        principal: Option<&Principal>,
        action: &str,
    ) -> bool {
        let Some(policy) = &known.policy else { return true };
        let account = known.realm.split_once('/').map_or("", |(account, _)| account);
        let mut keys = vec![
            ("elasticfilesystem:AccessedViaMountTarget".to_owned(), vec!["true".to_owned()]),
            // What tasks send never leaves the machine.
            ("aws:SecureTransport".to_owned(), vec!["true".to_owned()]),
        ];
        if let Some(point) = point {
            keys.push(("elasticfilesystem:AccessPointArn".to_owned(), vec![point.arn()]));
        }
        let anonymous = Principal {
            account: String::new(),
            kind: wire::PrincipalKind::User { name: String::new() },
            arn: "*".to_owned(),
            user_id: String::new(),
            session_policies: Vec::new(),
        };
        // Nobody who is known asks: what a policy says of everybody decides alone.
        let owner = if principal.is_some() { account } else { "" };
        let owned = ResourcePolicy { account: owner, policy: Some(policy) };
        let action = format!("elasticfilesystem:{action}");
        let principal = principal.unwrap_or(&anonymous);
        let decision =
            self.iam.decide_with_resource_policy(principal, &action, &known.arn(), &keys, owned);
        decision == Decision::Allow
    }
}

fn path(point: &AccessPoint) -> &str {
    point.root.path.as_deref().unwrap_or("/")
}

/// The root of an access point.
fn root_of(point: &AccessPoint) -> Root<'_> {
    let id = |id: i64| u32::try_from(id).unwrap_or(u32::MAX);
    let made = point.root.creation_info.as_ref().map(|info| Made {
        uid: id(info.owner_uid),
        gid: id(info.owner_gid),
        mode: info.permissions.clone(),
    });
    Root { path: path(point), made }
}
