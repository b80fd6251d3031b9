//! The default seccomp profile: `default.list`, turned into a filter program for the kernel.
//!
//! libseccomp, which libcontainer would use, needs about 20 ms of CPU for a list of this size, for
//! every start; this needs less than one. Of libseccomp only its table of system call numbers is
//! used.

mod assemble;
mod install;

pub(crate) use install::install;

use libseccomp::{ScmpArch, ScmpSyscall};
use std::collections::{BTreeMap, BTreeSet};

const LIST: &str = include_str!("default.list");

/// What the kernel is to answer to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(u16),
    /// Allowed when any of these holds, else refused with EPERM.
    When(Vec<Condition>),
}

/// A comparison of the low 32 bits of an argument: every argument that the list compares is an int
/// or flags of that size to the kernel, and comparing more would let a caller hide it behind high
/// bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    argument: u32,
    operation: Operation,
    value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Equal,
    Less,
    Greater,
    /// `argument & value == result`.
    Masked(u32),
}

/// System calls of one architecture by number; what is not there is refused with EPERM.
type Table = BTreeMap<u32, Verdict>;

/// The architectures whose programs run here: the kernel's number, and libseccomp's name.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [(u32, ScmpArch); 2] =
    [(0xC000_003E, ScmpArch::X8664), (0x4000_0003, ScmpArch::X86)];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [(u32, ScmpArch); 2] =
    [(0xC000_00B7, ScmpArch::Aarch64), (0x4000_0028, ScmpArch::Arm)];

/// The filter of a container that has `capabilities` (names without `CAP_`), for [`install`].
pub(crate) fn filter(capabilities: &BTreeSet<String>) -> Vec<libc::sock_filter> {
    let rules = rules(capabilities);
    let tables = ARCHITECTURES.map(|(number, arch)| (number, table(&rules, arch)));
    assemble::program(&tables)
}

/// The list for these capabilities: verdicts by name.
fn rules(capabilities: &BTreeSet<String>) -> BTreeMap<&'static str, Verdict> {
    let mut rules: BTreeMap<&'static str, Verdict> = BTreeMap::new();
    for line in LIST.lines().map(|l| l.split('#').next().unwrap_or_default()) {
        let words: Vec<&'static str> = line.split_whitespace().collect();
        let allowed = match words.as_slice() {
            [] => continue,
            ["allow", names @ ..] => names,
            ["with", capability, names @ ..] if capabilities.contains(*capability) => names,
            ["with", ..] => continue,
            ["without", capability, ..] if capabilities.contains(*capability) => continue,
            ["without", _, name, condition @ ..] | ["when", name, condition @ ..] => {
                add_condition(&mut rules, name, parse_condition(condition));
                continue;
            }
            ["errno", name, number] => {
                let number = u16::try_from(number_of(number)).expect("error numbers are small");
                // What a capability allows outright does not answer an error.
                rules.entry(name).or_insert(Verdict::Refuse(number));
                continue;
            }
            other => panic!("the profile has a line that means nothing: {other:?}"),
        };
        rules.extend(allowed.iter().map(|name| (*name, Verdict::Allow)));
    }
    rules
}

fn add_condition(
    rules: &mut BTreeMap<&'static str, Verdict>,
    name: &'static str,
    condition: Condition,
) {
    match rules.entry(name).or_insert_with(|| Verdict::When(Vec::new())) {
        Verdict::When(conditions) => conditions.push(condition),
        other => panic!("the profile both has {name} as {other:?} and compares its arguments"),
    }
}

/// `ARG OP VALUE`.
fn parse_condition(words: &[&str]) -> Condition {
    let [argument, operation, value] = words else {
        panic!("a comparison is ARG OP VALUE: {words:?}")
    };
    let operation = match *operation {
        "eq" => Operation::Equal,
        "lt" => Operation::Less,
        "gt" => Operation::Greater,
        other => {
            let result = other.strip_prefix("mask=").expect("the profile knows few operators");
            Operation::Masked(number_of(result))
        }
    };
    Condition { argument: number_of(argument), operation, value: number_of(value) }
}

fn number_of(text: &str) -> u32 {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.expect("the profile has numbers where they belong")
}

/// The rules by the numbers of `arch`. Names that it does not have are left out.
fn table(rules: &BTreeMap<&'static str, Verdict>, arch: ScmpArch) -> Table {
    let numbered = rules.iter().filter_map(|(name, verdict)| {
        let call = ScmpSyscall::from_name_by_arch(name, arch).ok()?;
        // Negative numbers are libseccomp's own, for calls that exist elsewhere.
        let number = u32::try_from(i32::from(call)).ok()?;
        Some((number, verdict.clone()))
    });
    numbered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn capabilities_open_what_they_stand_for() {
        let none = rules(&names(&[]));
        let some = rules(&names(&["SYS_CHROOT"]));
        assert_eq!(none.get("read"), Some(&Verdict::Allow));
        assert_eq!((none.get("chroot"), some.get("chroot")), (None, Some(&Verdict::Allow)));
        assert_eq!(none.get("clone3"), Some(&Verdict::Refuse(38)));
        assert!(matches!(none.get("clone"), Some(Verdict::When(_))));
        let never =
            ["mount", "bpf", "init_module", "kexec_load", "io_uring_setup", "keyctl", "reboot"];
        for name in never {
            assert_eq!((none.get(name), some.get(name)), (None, None), "{name}");
        }
        let admin = rules(&names(&["SYS_ADMIN"]));
        assert_eq!(
            (admin.get("clone"), admin.get("clone3")),
            (Some(&Verdict::Allow), Some(&Verdict::Allow))
        );
        for name in ["bpf", "perf_event_open", "syslog", "fanotify_init", "quotactl"] {
            assert_eq!(admin.get(name), None, "{name}: of use to the machine's root alone");
        }
    }

    #[test]
    fn nearly_every_name_is_known_to_the_native_architecture() {
        let rules = rules(&names(&[]));
        let known = table(&rules, ARCHITECTURES[0].1).len();
        assert!(known > 280, "{known} of {}", rules.len());
    }
}
