//! `neargate new`: a pattern becomes a template of one's own.

use super::{Format, Outcome, output::Failure};
use clap::Args;
use std::{fs::OpenOptions, io::Write, path::PathBuf};

#[derive(Args)]
pub(crate) struct Options {
    /// Which pattern; without it, all are listed.
    pattern: Option<String>,
    /// Where the template is written, as PATTERN.yaml. A file that is there stays as it is.
    #[arg(default_value = ".")]
    directory: PathBuf,
}

/// A CloudFormation template that the binary carries.
struct Pattern {
    name: &'static str,
    template: &'static str,
}

macro_rules! patterns {
    ($($name:literal),* $(,)?) => {
        &[$(Pattern {
            name: $name,
            template: include_str!(concat!("../../../../patterns/", $name, ".yaml")),
        }),*]
    };
}

static PATTERNS: &[Pattern] = patterns![
    "blue-green-service",
    "internal-service",
    "network",
    "pushed-service",
    "shared-files",
    "tcp-service",
    "web-service",
];

impl Pattern {
    fn description(&self) -> &'static str {
        let line = self.template.lines().find_map(|line| line.strip_prefix("Description: "));
        line.unwrap_or_default()
    }
}

pub(crate) fn run(options: &Options, format: Format) -> Outcome {
    let Some(name) = &options.pattern else {
        list(format);
        return Ok(());
    };
    let pattern = PATTERNS.iter().find(|pattern| pattern.name == *name).ok_or_else(|| {
        Failure::new(format!("there is no pattern {name:?}")).hint("`neargate new` lists them")
    })?;
    let path = options.directory.join(format!("{name}.yaml"));
    let place = path.display();
    let failed =
        |error: std::io::Error| Failure::new(format!("{place} cannot be written: {error}"));
    std::fs::create_dir_all(&options.directory).map_err(failed)?;
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(pattern.template.as_bytes())).map_err(failed)?;
    match format {
        Format::Json => println!("{}", serde_json::json!({"template": path})),
        Format::Text => println!(
            "{place} written. On Neargate and on AWS alike:\n  aws cloudformation deploy --stack-name {name} \
             --template-file {place} --capabilities CAPABILITY_IAM --parameter-overrides …"
        ),
    }
    Ok(())
}

fn list(format: Format) {
    match format {
        Format::Json => {
            let all = PATTERNS.iter().map(|pattern| {
                serde_json::json!({"name": pattern.name, "description": pattern.description()})
            });
            println!("{}", serde_json::Value::Array(all.collect()));
        }
        Format::Text => {
            let width = PATTERNS.iter().map(|pattern| pattern.name.len()).max().unwrap_or_default();
            for pattern in PATTERNS {
                println!("{:width$}  {}", pattern.name, pattern.description());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PATTERNS;

    #[test]
    fn every_pattern_is_carried_and_says_what_it_is() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../patterns");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let carried: Vec<String> =
            PATTERNS.iter().map(|pattern| format!("{}.yaml", pattern.name)).collect();
        assert_eq!(files, carried);
        assert!(PATTERNS.iter().all(|pattern| pattern.description().starts_with("A ")));
    }
}
