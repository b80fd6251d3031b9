//! The style that rustfmt and clippy do not check: lengths of lines, functions and files, and words that should
//! not stand in the house. Exceptions are listed in `xtask/tidy.txt`, each with its reason.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const LINE: usize = 120;
const FUNCTION: usize = 80;
const FILE: usize = 600;

pub(crate) fn run() -> Result<(), String> {
    let root = crate::root();
    let exceptions = fs::read_to_string(root.join("xtask/tidy.txt")).unwrap_or_default();
    let mut found = Vec::new();
    for path in tracked(&root)? {
        let name = path.to_string_lossy().into_owned();
        if !name.ends_with(".rs") || name.ends_with("generated.rs") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root.join(&path)) else { continue };
        check(&name, &text, &mut found);
    }
    let excepted = |message: &String| {
        let mut lines = exceptions.lines().filter(|line| !line.starts_with('#'));
        lines.any(|line| {
            line.split(" : ").next().is_some_and(|key| !key.is_empty() && message.starts_with(key))
        })
    };
    found.retain(|message| !excepted(message));
    match found.is_empty() {
        true => Ok(()),
        false => Err(found.join("\n")),
    }
}

fn tracked(root: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git").args(["ls-files"]).current_dir(root).output();
    let output = output.map_err(|e| format!("git: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
}

fn check(name: &str, text: &str, found: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    let is_test = name.contains("/tests/") || name.ends_with("tests.rs");
    if lines.len() > FILE && !is_test {
        found.push(format!("{name}: {} lines, more than {FILE}", lines.len()));
    }
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    if ["utils", "util", "common", "helpers", "misc"].contains(&stem.as_ref()) {
        found.push(format!("{name}: what is used twice gets a name"));
    }
    for (index, line) in lines.iter().enumerate() {
        if line.chars().count() > LINE {
            found.push(format!("{name}:{}: longer than {LINE} columns", index + 1));
        }
    }
    if is_test {
        return;
    }
    let mut start = None;
    for (index, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        let opens =
            ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn "];
        let opens = opens.iter().any(|word| words.starts_with(word))
            || words.starts_with("pub(crate) async fn ");
        if opens && start.is_none() {
            start = Some((index, indent));
        }
        if let Some((from, depth)) = start
            && indent == depth
            && (words == "}"
                || words.ends_with(';') && index == from
                || words.ends_with("{}")
                || words.ends_with('}') && index == from)
        {
            if index - from > FUNCTION {
                let title = lines[from].trim();
                found.push(format!("{name}:{}: {} lines in {title}", from + 1, index - from));
            }
            start = None;
        }
    }
}
