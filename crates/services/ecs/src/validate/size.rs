//! Fargate's pairs of CPU and memory.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size>

use crate::faults;
use wire::Fault;

/// A task's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// 1024 are one CPU.
    pub cpu_units: u32,
    /// In MiB.
    pub memory_mib: u32,
}

const GB: u32 = 1024;

/// Reads and checks a size, in units and MiB or in words: `"1 vCPU"`, `"2 GB"`.
pub(crate) fn size(cpu: Option<&str>, memory: Option<&str>) -> Result<Size, Fault> {
    let missing = |what: &str| {
        faults::client(format!("Fargate requires that '{what}' be defined at the task level."))
    };
    let cpu = cpu.ok_or_else(|| missing("cpu"))?;
    let memory = memory.ok_or_else(|| missing("memory"))?;
    let bad = |what: &str| faults::client(format!("Invalid '{what}' setting for task."));
    let cpu_units = units(cpu, &["vcpu"]).ok_or_else(|| bad("cpu"))?;
    let memory_mib = units(memory, &["gb"]).ok_or_else(|| bad("memory"))?;
    match fits(cpu_units, memory_mib) {
        true => Ok(Size { cpu_units, memory_mib }),
        false => Err(faults::client(format!(
            "No Fargate configuration exists for given values: {cpu_units} CPU, {memory_mib} memory. \
             See the Amazon ECS documentation for the valid values."
        ))),
    }
}

fn fits(cpu_units: u32, memory_mib: u32) -> bool {
    let steps = |from: u32, to: u32, step: u32| {
        (from * GB..=to * GB).contains(&memory_mib) && memory_mib.is_multiple_of(step * GB)
    };
    match cpu_units {
        256 => [512, GB, 2 * GB].contains(&memory_mib),
        512 => steps(1, 4, 1),
        1024 => steps(2, 8, 1),
        2048 => steps(4, 16, 1),
        4096 => steps(8, 30, 1),
        8192 => steps(16, 60, 4),
        16384 => steps(32, 120, 8),
        _ => false,
    }
}

/// A plain number, or one with a word that stands for 1024 of it: `.5 vCPU`, `0.5GB`.
fn units(text: &str, words: &[&str]) -> Option<u32> {
    let lower = text.trim().to_ascii_lowercase();
    for word in words {
        if let Some(number) = lower.strip_suffix(word) {
            let number: f64 = number.trim().parse().ok()?;
            let units = number * 1024.0;
            let whole = units.fract() == 0.0 && (0.0..=1e6).contains(&units);
            return whole.then_some(units as u32);
        }
    }
    lower.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_pairs_and_no_others() {
        for (cpu, memory) in [
            ("256", "512"),
            ("256", "2048"),
            (".25 vCPU", "1 GB"),
            ("1 vcpu", "2GB"),
            ("4096", "30720"),
            ("8192", "61440"),
            ("16384", "122880"),
        ] {
            assert!(size(Some(cpu), Some(memory)).is_ok(), "{cpu} {memory}");
        }
        for (cpu, memory) in [
            ("256", "3072"),
            ("512", "512"),
            ("1024", "1024"),
            ("8192", "17408"),
            ("128", "512"),
            ("x", "512"),
            ("256", "-1"),
            ("256", ""),
        ] {
            assert!(size(Some(cpu), Some(memory)).is_err(), "{cpu} {memory}");
        }
    }

    #[test]
    fn a_missing_part_is_named() {
        let fault = size(None, Some("512")).unwrap_err();
        assert_eq!(fault.message, "Fargate requires that 'cpu' be defined at the task level.");
    }
}
