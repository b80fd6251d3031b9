//! The default seccomp profile, read from `seccomp.list`.

use libcontainer::oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use std::collections::BTreeSet;

const LIST: &str = include_str!("seccomp.list");

/// The profile of a container that has `capabilities` (names without `CAP_`).
pub(crate) fn profile(capabilities: &BTreeSet<String>) -> LinuxSeccomp {
    let mut allowed = Vec::new();
    let mut calls = Vec::new();
    for line in LIST.lines().map(|l| l.split('#').next().unwrap_or_default().trim()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["allow", names @ ..] => allowed.extend(names.iter().map(|n| (*n).to_owned())),
            ["with", capability, names @ ..] => {
                if capabilities.contains(*capability) {
                    allowed.extend(names.iter().map(|n| (*n).to_owned()));
                }
            }
            ["without", capability, name, rest @ ..] => {
                if !capabilities.contains(*capability) {
                    calls.push(allow(vec![(*name).to_owned()], Some(argument(rest))));
                }
            }
            ["when", name, rest @ ..] => {
                calls.push(allow(vec![(*name).to_owned()], Some(argument(rest))));
            }
            ["errno", name, number] => {
                // What is allowed outright cannot also answer an error.
                if !allowed.iter().any(|n| n == name) {
                    calls.push(refuse(name, number_of(number) as u32));
                }
            }
            other => panic!("the profile has a line that means nothing: {other:?}"),
        }
    }
    calls.push(allow(allowed, None));
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(architectures())
        .syscalls(calls)
        .build()
        .expect("all that is required is set")
}

fn architectures() -> Vec<Arch> {
    match cfg!(target_arch = "aarch64") {
        true => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        false => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
    }
}

fn allow(names: Vec<String>, argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut call =
        LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow);
    if let Some(argument) = argument {
        call = call.args(vec![argument]);
    }
    call.build().expect("all that is required is set")
}

fn refuse(name: &str, errno: u32) -> LinuxSyscall {
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno)
        .build()
        .expect("all that is required is set")
}

/// `ARG OP VALUE`.
fn argument(words: &[&str]) -> LinuxSeccompArg {
    let [index, op, value] = words else { panic!("a comparison is ARG OP VALUE: {words:?}") };
    let (op, value, two) = match (*op, number_of(value)) {
        ("eq", value) => (LinuxSeccompOperator::ScmpCmpEq, value, None),
        ("ne", value) => (LinuxSeccompOperator::ScmpCmpNe, value, None),
        ("lt", value) => (LinuxSeccompOperator::ScmpCmpLt, value, None),
        ("gt", value) => (LinuxSeccompOperator::ScmpCmpGt, value, None),
        (op, mask) => {
            let result = op.strip_prefix("mask=").expect("the profile knows few operators");
            (LinuxSeccompOperator::ScmpCmpMaskedEq, mask, Some(number_of(result)))
        }
    };
    let argument =
        LinuxSeccompArgBuilder::default().index(number_of(index) as usize).op(op).value(value);
    let argument = match two {
        Some(two) => argument.value_two(two),
        None => argument,
    };
    argument.build().expect("all that is required is set")
}

fn number_of(text: &str) -> u64 {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.expect("the profile has numbers where they belong")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(profile: &LinuxSeccomp, name: &str) -> bool {
        let calls = profile.syscalls().as_ref().unwrap();
        calls.iter().any(|c| {
            c.action() == LinuxSeccompAction::ScmpActAllow && c.names().iter().any(|n| n == name)
        })
    }

    #[test]
    fn capabilities_open_what_they_stand_for() {
        let none = profile(&BTreeSet::new());
        let chroot = profile(&BTreeSet::from(["SYS_CHROOT".to_owned()]));
        assert!(allows(&none, "read") && !allows(&none, "chroot") && allows(&chroot, "chroot"));
        for never in
            ["mount", "bpf", "init_module", "kexec_load", "io_uring_setup", "keyctl", "reboot"]
        {
            assert!(!allows(&none, never) && !allows(&chroot, never), "{never}");
        }
    }
}
