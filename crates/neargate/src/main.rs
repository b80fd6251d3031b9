//! Neargate runs AWS Fargate stacks for real on one Linux machine. This is the binary: its command line, and the one
//! place that assembles everything.

mod cli;
mod control;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
