//! Neargate runs AWS Fargate stacks for real on one Linux machine. This is the binary: its command line, and the one
//! place that assembles everything.

mod cli;
mod control;
mod serve;

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    // A shim starts for every task and stays small: it does not pass through the command line's parser.
    match args.next() {
        Some(word) if word == SHIM => runtime::shim::main(args),
        Some(word) if word == BALANCER => data_plane(args.next(), args.next()),
        _ => cli::main(),
    }
}

/// Runs the data plane of load balancers in a directory.
fn data_plane(directory: Option<OsString>, how: Option<OsString>) -> ExitCode {
    serve::log();
    let Some(directory) = directory else { return ExitCode::FAILURE };
    let take_over = how.is_some_and(|how| how == balancer::TAKE_OVER);
    match balancer::run(directory.as_ref(), take_over) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the balancer ends");
            ExitCode::FAILURE
        }
    }
}

/// The word that makes this program a task's shim.
const SHIM: &str = "shim";
/// The word that makes this program the data plane of load balancers.
const BALANCER: &str = "balancer";
