//! Which operations the end-to-end tests have proven. The tests let Neargate write each operation that it answered well
//! into a file; `tests/unproven.txt` lists those that are built and were never seen there. The list may only shrink.

use std::{collections::BTreeSet, fs};

pub(crate) fn run(served: &str) -> Result<(), String> {
    let root = crate::root();
    let read = |path: &std::path::Path| {
        fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let lines = |text: String| -> BTreeSet<String> {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let built = built(&read(&root.join("docs/operations.md"))?);
    let served = lines(read(served.as_ref())?);
    let listed = lines(read(&root.join("tests/unproven.txt"))?);
    let unproven: BTreeSet<String> = built.difference(&served).cloned().collect();
    println!("{} of {} operations proven end to end", built.len() - unproven.len(), built.len());
    let fresh: Vec<&String> = unproven.difference(&listed).collect();
    let stale: Vec<&String> = listed.difference(&unproven).collect();
    match (fresh.is_empty(), stale.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("built but proven by no end-to-end test: {fresh:?}")),
        (true, false) => Err(format!("proven now, take them off tests/unproven.txt: {stale:?}")),
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
