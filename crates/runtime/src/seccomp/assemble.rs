//! From tables to a program for the kernel's packet filter machine: a search tree over system call
//! numbers for each architecture.

use super::{Condition, Operation, Table, Verdict};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;

/// Where `struct seccomp_data` has what.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u16 = libc::EPERM as u16;

fn step(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn test(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn refuse(errno: u16) -> libc::sock_filter {
    step(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(errno))
}

/// The program: programs of an architecture that is not among `tables` get EPERM for everything.
pub(super) fn program(tables: &[(u32, Table)]) -> Vec<libc::sock_filter> {
    let mut program = Vec::new();
    for (architecture, table) in tables {
        let ranges = ranges(table);
        let mut body = vec![step(LOAD, NUMBER)];
        tree(&ranges, &mut body);
        program.push(step(LOAD, ARCHITECTURE));
        // A conditional jump reaches 255 steps, an unconditional one any.
        program.push(test(IF_EQUAL, *architecture, 1, 0));
        program.push(step(JUMP, length(&body)));
        program.append(&mut body);
    }
    program.push(refuse(EPERM));
    assert!(program.len() <= libc::BPF_MAXINSNS as usize, "the kernel takes 4096 steps");
    program
}

fn length(steps: &[libc::sock_filter]) -> u32 {
    u32::try_from(steps.len()).expect("a program has thousands of steps, not billions")
}

/// The first number of each stretch that is answered alike; the first stretch begins at 0, the last
/// has no end.
fn ranges(table: &Table) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |first: u32, verdict: &Verdict| {
        if ranges.last().is_none_or(|(_, last)| last != verdict) {
            ranges.push((first, verdict.clone()));
        }
    };
    let mut next = 0;
    for (number, verdict) in table {
        if *number > next {
            push(next, &Verdict::Refuse(EPERM));
        }
        push(*number, verdict);
        next = number + 1;
    }
    push(next, &Verdict::Refuse(EPERM));
    ranges
}

fn tree(ranges: &[(u32, Verdict)], program: &mut Vec<libc::sock_filter>) {
    if let [(_, verdict)] = ranges {
        return leaf(verdict, program);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let mut below = Vec::new();
    tree(left, &mut below);
    program.push(test(IF_AT_LEAST, right[0].0, 0, 1));
    program.push(step(JUMP, length(&below)));
    program.append(&mut below);
    tree(right, program);
}

fn leaf(verdict: &Verdict, program: &mut Vec<libc::sock_filter>) {
    match verdict {
        Verdict::Allow => program.push(step(RETURN, ALLOW)),
        Verdict::Refuse(errno) => program.push(refuse(*errno)),
        Verdict::When(conditions) => {
            for condition in conditions {
                compare(condition, program);
            }
            program.push(refuse(EPERM));
        }
    }
}

/// Allows if the condition holds, else goes on.
fn compare(condition: &Condition, program: &mut Vec<libc::sock_filter>) {
    // Both supported architectures are little-endian: the low half comes first.
    program.push(step(LOAD, ARGUMENTS + 8 * condition.argument));
    let value = condition.value;
    match condition.operation {
        Operation::Equal => program.push(test(IF_EQUAL, value, 0, 1)),
        Operation::Less => program.push(test(IF_AT_LEAST, value, 1, 0)),
        Operation::Greater => program.push(test(IF_GREATER, value, 0, 1)),
        Operation::Masked(result) => {
            program.push(step(AND, value));
            program.push(test(IF_EQUAL, result, 0, 1));
        }
    }
    program.push(step(RETURN, ALLOW));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// What the kernel would do with the program.
    fn run(
        program: &[libc::sock_filter],
        architecture: u32,
        number: u32,
        arguments: &[u64; 6],
    ) -> u32 {
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let mut branch = |holds: bool| at += usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                LOAD => {
                    a = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        offset => arguments[((offset - ARGUMENTS) / 8) as usize] as u32,
                    }
                }
                AND => a &= step.k,
                JUMP => at += step.k as usize,
                IF_EQUAL => branch(a == step.k),
                IF_AT_LEAST => branch(a >= step.k),
                IF_GREATER => branch(a > step.k),
                RETURN => return step.k,
                other => panic!("{other}"),
            }
        }
    }

    fn expected(table: Option<&Table>, number: u32, arguments: &[u64; 6]) -> u32 {
        let eperm = refuse(EPERM).k;
        let holds = |c: &Condition| {
            let argument = arguments[c.argument as usize] as u32;
            match c.operation {
                Operation::Equal => argument == c.value,
                Operation::Less => argument < c.value,
                Operation::Greater => argument > c.value,
                Operation::Masked(result) => argument & c.value == result,
            }
        };
        match table.and_then(|t| t.get(&number)) {
            Some(Verdict::Allow) => ALLOW,
            Some(Verdict::Refuse(errno)) => refuse(*errno).k,
            Some(Verdict::When(conditions)) if conditions.iter().any(holds) => ALLOW,
            _ => eperm,
        }
    }

    fn a_verdict() -> impl Strategy<Value = Verdict> {
        let operation = prop_oneof![
            Just(Operation::Equal),
            Just(Operation::Less),
            Just(Operation::Greater),
            (0u32..8).prop_map(Operation::Masked)
        ];
        let condition = (0u32..6, operation, 0u32..8)
            .prop_map(|(argument, operation, value)| Condition { argument, operation, value });
        prop_oneof![
            3 => Just(Verdict::Allow),
            1 => (1u16..100).prop_map(Verdict::Refuse),
            1 => proptest::collection::vec(condition, 1..4).prop_map(Verdict::When),
        ]
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_tables_do(
            one in proptest::collection::btree_map(0u32..500, a_verdict(), 0..300),
            two in proptest::collection::btree_map(0u32..500, a_verdict(), 0..300),
            calls in proptest::collection::vec((0u32..3, 0u32..520, any::<[u8; 6]>()), 1..100),
        ) {
            let tables: [(u32, BTreeMap<u32, Verdict>); 2] = [(0, one), (1, two)];
            let program = program(&tables);
            for (architecture, number, small) in calls {
                // High bits that the kernel does not look at must not matter.
                let arguments = small.map(|b| u64::from(b % 10) | 0xdead_0000_0000);
                let table = tables.get(architecture as usize).map(|(_, t)| t);
                prop_assert_eq!(
                    run(&program, architecture, number, &arguments),
                    expected(table, number, &arguments)
                );
            }
        }
    }
}
