//! Neargate runs AWS Fargate stacks for real on one Linux machine. This is the binary: its command line, and the one
//! place that assembles everything.

mod cli;
mod control;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // A shim starts for every task and stays small: it does not pass through the command line's parser.
    if args.next().is_some_and(|word| word == SHIM) {
        return runtime::shim::main(args);
    }
    cli::main()
}

/// The word that makes this program a task's shim.
const SHIM: &str = "shim";
