//! Developer commands.
//!
//! ```text
//! cargo xtask codegen [--check] [--missing]   shapes and dispatch from AWS's models; docs/operations.md
//! cargo xtask tidy                            lengths, and words that should not stand in the house
//! cargo xtask coverage FILE                   which operations the end-to-end tests have not proven
//! ```

mod codegen;
mod coverage;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result =
        match words[..] {
            ["codegen", ref flags @ ..] => codegen::run(flags),
            ["tidy"] => tidy::run(),
            ["coverage", served] => coverage::run(served),
            _ => Err("usage: cargo xtask codegen [--check] [--missing] | tidy | coverage FILE"
                .to_owned()),
        };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root: this package's parent.
fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask stands in the repository")
        .to_owned()
}
