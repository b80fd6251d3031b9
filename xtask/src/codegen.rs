//! From AWS's published models to Rust: for each service, `operations.toml` lists the operations that are built and
//! says of every request member whether it is honoured or refused; this writes `src/api/generated.rs` beside it,
//! and `docs/operations.md` and `docs/resource-types.md` for all.
//!
//! A service's `resource_types` become `src/api/resource_types.json`, which templates' properties are held against.
//!
//! The models are botocore's data files, the resource types cfn-lint's (both from PyPI). An operation that the model
//! does not have, a member without a mark, or a mark without a member is an error: the lists cannot go stale in
//! silence.

mod docs;
mod model;
mod plan;
mod resource_types;
mod rust;

use plan::{Plan, Service};
use std::{fs, path::Path};

pub(crate) fn run(flags: &[&str]) -> Result<(), String> {
    let check = flags.contains(&"--check");
    let missing = flags.contains(&"--missing");
    let root = crate::root();
    let models = models_dir(&root)?;
    let mut plans = Vec::new();
    let mut unmarked = String::new();
    for directory in service_crates(&root)? {
        let service = Service::read(&directory)?;
        let model = model::read(&models, &service.model)?;
        let plan = Plan::make(service, model, directory)?;
        unmarked.push_str(&plan.unmarked());
        plans.push(plan);
    }
    if !unmarked.is_empty() {
        if missing {
            println!("{unmarked}");
            return Ok(());
        }
        return Err(format!(
            "members that are neither honoured nor refused (cargo xtask codegen --missing):\n{unmarked}"
        ));
    }
    let mut stale = Vec::new();
    for plan in plans.iter().filter(|plan| plan.service.adapter.is_none()) {
        let path = plan.directory.join("src/api/generated.rs");
        write(&path, &rustfmt(&rust::file(plan)?)?, check, &mut stale)?;
    }
    for plan in plans.iter().filter(|plan| !plan.service.resource_types.is_empty()) {
        let schemas = models.join("../../cfnlint/data/schemas/providers/us_east_1");
        let text = resource_types::file(&schemas, &plan.service.resource_types)?;
        write(&plan.directory.join("src/api/resource_types.json"), &text, check, &mut stale)?;
    }
    write(&root.join("docs/operations.md"), &docs::file(&plans), check, &mut stale)?;
    let types = docs::resource_types(&plans);
    write(&root.join("docs/resource-types.md"), &types, check, &mut stale)?;
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("not fresh, run `cargo xtask codegen`:\n{}", stale.join("\n")))
}

/// Where botocore's data files are: `NEARGATE_MODELS`, or the virtual environment that `make` makes.
fn models_dir(root: &Path) -> Result<std::path::PathBuf, String> {
    if let Ok(given) = std::env::var("NEARGATE_MODELS") {
        return Ok(given.into());
    }
    let lib = root.join(".venv/lib");
    let pythons =
        fs::read_dir(&lib).map_err(|e| format!("{}: {e}; run `make venv`", lib.display()))?;
    let found = pythons
        .flatten()
        .map(|python| python.path().join("site-packages/botocore/data"))
        .find(|data| data.is_dir());
    found.ok_or_else(|| "botocore is not in .venv; run `make venv`".to_owned())
}

fn service_crates(root: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let services = root.join("crates/services");
    let entries = fs::read_dir(&services).map_err(|e| format!("{}: {e}", services.display()))?;
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("operations.toml").is_file())
        .collect();
    found.sort();
    Ok(found)
}

fn write(path: &Path, text: &str, check: bool, stale: &mut Vec<String>) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    if check {
        stale.push(path.display().to_string());
        return Ok(());
    }
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(path.parent().expect("the path has a directory")).map_err(told)?;
    fs::write(path, text).map_err(told)
}

fn rustfmt(code: &str) -> Result<String, String> {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config", "max_width=100,use_small_heuristics=Max"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("rustfmt: {e}"))?;
    let mut input = child.stdin.take().expect("stdin is piped");
    let code = code.to_owned();
    let writer = std::thread::spawn(move || input.write_all(code.as_bytes()));
    let output = child.wait_with_output().map_err(|e| format!("rustfmt: {e}"))?;
    writer.join().expect("the writer does not panic").map_err(|e| format!("rustfmt: {e}"))?;
    if !output.status.success() {
        return Err("rustfmt refused the generated code".to_owned());
    }
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}
