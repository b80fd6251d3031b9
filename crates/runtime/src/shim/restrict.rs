//! What a command gives up before it runs: other users' identity, capabilities, system calls,
//! resources. One order for a container's own command and for those run in it later.

use super::identity::Identity;
use crate::{
    journal::StartFailure,
    seccomp,
    spec::{ContainerSpec, DEFAULT_CAPABILITIES, PRIVILEGED_CAPABILITIES, ULIMITS},
    sys,
};
use libcontainer::{
    capabilities::{drop_privileges, reset_effective},
    oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder},
    syscall::syscall::create_syscall,
};
use std::{collections::BTreeSet, io};

/// What a command gives up.
#[derive(Clone, Debug)]
pub(crate) struct Restrictions {
    identity: Identity,
    capabilities: BTreeSet<String>,
    no_new_privileges: bool,
    filter: Vec<libc::sock_filter>,
    /// The kernel's number, soft, hard.
    rlimits: Vec<(u32, u64, u64)>,
}

/// The capabilities of a container (names without `CAP_`).
fn capabilities(spec: &ContainerSpec, has_userns: bool) -> BTreeSet<String> {
    let dropped = |name: &str| spec.capabilities.drop.iter().any(|d| d == name || d == "ALL");
    let mut names: BTreeSet<String> =
        DEFAULT_CAPABILITIES.iter().filter(|n| !dropped(n)).map(|n| (*n).to_owned()).collect();
    names.extend(spec.capabilities.add.iter().cloned());
    if spec.privileged {
        names.extend(PRIVILEGED_CAPABILITIES.map(str::to_owned));
    }
    if !has_userns {
        // In a user namespace the kernel refuses device nodes. Without one nothing else would:
        // there is no device filter here.
        names.remove("MKNOD");
    }
    names
}

/// The resource limits of a container, for the kernel.
fn rlimits(container: &ContainerSpec) -> Vec<(u32, u64, u64)> {
    let number = |name: &str| ULIMITS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number);
    let limits = container.ulimits.iter();
    limits.filter_map(|l| Some((number(&l.name)?, l.soft, l.hard))).collect()
}

/// Raises this process's hard limits where the container's go beyond: once inside, it may not.
pub(crate) fn raise_hard_limits(container: &ContainerSpec) -> Result<(), StartFailure> {
    for (resource, _, hard) in rlimits(container) {
        let (now_soft, now_hard) = sys::rlimit(resource).map_err(limit_failure)?;
        if now_hard < hard {
            sys::set_rlimit(resource, now_soft, hard).map_err(limit_failure)?;
        }
    }
    Ok(())
}

fn limit_failure(error: io::Error) -> StartFailure {
    StartFailure::Limits { message: format!("resource limit: {error}") }
}

fn step(name: &str) -> impl Fn(io::Error) -> StartFailure + '_ {
    move |e| StartFailure::Runtime { message: format!("{name}: {e}") }
}

impl Restrictions {
    /// Those of the commands of `container`, run as `identity`.
    pub(crate) fn of(container: &ContainerSpec, identity: &Identity, has_userns: bool) -> Self {
        let capabilities = capabilities(container, has_userns);
        Self {
            identity: identity.clone(),
            filter: seccomp::filter(&capabilities),
            capabilities,
            no_new_privileges: container.no_new_privileges,
            rlimits: rlimits(container),
        }
    }

    /// Gives all of it up. Must be called as root of the container, with all capabilities there.
    pub(super) fn apply(&self) -> Result<(), StartFailure> {
        sys::set_groups(&self.identity.groups).map_err(step("groups"))?;
        if self.no_new_privileges {
            sys::no_new_privileges().map_err(step("no new privileges"))?;
        }
        // While it is still allowed to.
        seccomp::install(&self.filter).map_err(step("seccomp"))?;
        self.change_user()?;
        for (resource, soft, hard) in &self.rlimits {
            sys::set_rlimit(*resource, *soft, *hard).map_err(limit_failure)?;
        }
        // Forgotten when the user changes, so only now.
        sys::die_with_parent().map_err(step("parent"))
    }

    fn change_user(&self) -> Result<(), StartFailure> {
        let caps = |e: &dyn std::error::Error| StartFailure::Runtime {
            message: format!("capabilities: {}", crate::chain(e)),
        };
        sys::keep_capabilities(true).map_err(step("capabilities"))?;
        sys::set_ids(self.identity.uid, self.identity.gid).map_err(step("user"))?;
        sys::keep_capabilities(false).map_err(step("capabilities"))?;
        let syscall = create_syscall();
        // Permitted survived the change of user, effective did not.
        reset_effective(syscall.as_ref()).map_err(|e| caps(&e))?;
        let sets = self.sets().map_err(|e| caps(&e))?;
        // Inheritable and ambient are empty: another user than root loses the rest at exec.
        drop_privileges(&sets, syscall.as_ref()).map_err(|e| caps(&e))
    }

    fn sets(&self) -> Result<LinuxCapabilities, libcontainer::oci_spec::OciSpecError> {
        let parse = |n: &String| Capability::try_from(n.as_str()).expect("validated with the spec");
        let set: Capabilities = self.capabilities.iter().map(parse).collect();
        LinuxCapabilitiesBuilder::default()
            .bounding(set.clone())
            .effective(set.clone())
            .permitted(set)
            .inheritable(Capabilities::new())
            .ambient(Capabilities::new())
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::container;

    #[test]
    fn capabilities_are_added_and_dropped() {
        let mut spec = container("a");
        assert!(capabilities(&spec, true).contains("MKNOD"));
        assert!(!capabilities(&spec, false).contains("MKNOD"));
        spec.capabilities.drop = vec!["ALL".into()];
        spec.capabilities.add = vec!["SYS_PTRACE".into()];
        assert_eq!(capabilities(&spec, true), BTreeSet::from(["SYS_PTRACE".to_owned()]));
    }
}
