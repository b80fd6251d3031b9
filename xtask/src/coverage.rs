//! Which operations the end-to-end tests have proven. The tests let Neargate write each operation that it answered well
//! into a file; what docs/operations.md calls built must be there.

use std::{collections::BTreeSet, fs, path::Path};

pub(crate) fn run(served: &str) -> Result<(), String> {
    let read =
        |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let built = built(&read(&crate::root().join("docs/operations.md"))?);
    let served: BTreeSet<String> = read(served.as_ref())?.lines().map(str::to_owned).collect();
    let unproven: Vec<&String> = built.difference(&served).collect();
    println!("{} of {} operations proven end to end", built.len() - unproven.len(), built.len());
    match unproven.is_empty() {
        true => Ok(()),
        false => Err(format!("built but proven by no end-to-end test: {unproven:?}")),
    }
}

/// `service:Operation` for every row of the tables in docs/operations.md.
fn built(text: &str) -> BTreeSet<String> {
    let mut built = BTreeSet::new();
    let (mut service, mut in_table) = ("", false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            service = name;
        } else if line.starts_with("| resource |") {
            in_table = true;
        } else if line.is_empty() {
            in_table = false;
        } else if in_table && !line.starts_with("| ---") {
            let operations = line.trim_matches('|').split('|').nth(1).unwrap_or("");
            built.extend(operations.split(',').map(|name| format!("{service}:{}", name.trim())));
        }
    }
    built
}
