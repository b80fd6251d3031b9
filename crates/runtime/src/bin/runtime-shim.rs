//! The shim as a program of its own, for this crate's tests and measurements.
fn main() -> std::process::ExitCode {
    runtime::shim::main(std::env::args_os().skip(1))
}
