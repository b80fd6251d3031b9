//! Buildspec files, versions 0.1 and 0.2.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html>

use crate::report::Format;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_saphyr::from_str;
use std::{collections::BTreeMap, fmt};

/// The longest file, in bytes.
pub(crate) const LONGEST: usize = 256 << 10;
/// The most commands of all phases.
const MOST_COMMANDS: usize = 4096;
/// A phase that is retried without a number is run so often again, as on AWS.
const RETRIES: u32 = 3;
/// The most that a phase may be retried.
const MOST_RETRIES: u32 = 100;
/// The most reports of a build, as on AWS.
const MOST_REPORTS: usize = 5;

/// A scalar, as text: `1` and `true` are values of variables like others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text (in quotes if it has a colon)")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// A list of texts, or one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct List(pub Vec<String>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of texts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<List, E> {
                Ok(List(vec![text.to_owned()]))
            }
            fn visit_unit<E: de::Error>(self) -> Result<List, E> {
                Ok(List::default())
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<List, A::Error> {
                let mut list = Vec::new();
                while let Some(Text(text)) = items.next_element()? {
                    list.push(text);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A yes or no in the words of buildspecs, besides YAML's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Yes(pub bool);

impl<'de> Deserialize<'de> for Yes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Yes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("yes or no")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Yes, E> {
                Ok(Yes(value))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Yes, E> {
                match text.to_ascii_lowercase().as_str() {
                    "yes" | "true" => Ok(Yes(true)),
                    "no" | "false" => Ok(Yes(false)),
                    other => Err(E::custom(format!("expected yes or no, and not {other}"))),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What happens when a phase fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The build ends.
    Abort,
    /// The next phase begins.
    Continue,
    /// The phase is run again, so often at most; only if what went wrong matches the pattern, when there is one.
    Retry(u32, Option<String>),
}

impl<'de> Deserialize<'de> for OnFailure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let refused = || {
            de::Error::custom(format!(
                "on-failure is ABORT, CONTINUE, RETRY, RETRY-count, RETRY-regex or RETRY-count-regex, and not {text}"
            ))
        };
        match text.as_str() {
            "ABORT" => return Ok(Self::Abort),
            "CONTINUE" => return Ok(Self::Continue),
            "RETRY" => return Ok(Self::Retry(RETRIES, None)),
            _ => {}
        }
        let rest = text.strip_prefix("RETRY-").ok_or_else(refused)?;
        let (first, pattern) = match rest.split_once('-') {
            Some((first, pattern)) => (first, Some(pattern.to_owned())),
            None => (rest, None),
        };
        match first.parse::<u32>() {
            Ok(count) if count <= MOST_RETRIES => Ok(Self::Retry(count, pattern)),
            Ok(_) => Err(refused()),
            Err(_) => Ok(Self::Retry(RETRIES, Some(rest.to_owned()))),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct File {
    version: Option<Text>,
    #[serde(rename = "run-as")]
    run_as: Option<Text>,
    #[serde(default)]
    env: Env,
    #[serde(default)]
    phases: BTreeMap<String, Option<Phase>>,
    artifacts: Option<Output>,
    cache: Option<Cache>,
    #[serde(default)]
    reports: BTreeMap<String, Option<Report>>,
    batch: Option<de::IgnoredAny>,
}

/// Variables, and how commands are run.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Env {
    pub shell: Option<Text>,
    #[serde(default)]
    pub variables: BTreeMap<String, Text>,
    #[serde(rename = "parameter-store", default)]
    pub parameters: BTreeMap<String, Text>,
    #[serde(rename = "secrets-manager", default)]
    pub secrets: BTreeMap<String, Text>,
    #[serde(rename = "exported-variables", default)]
    pub exported: List,
    #[serde(rename = "git-credential-helper", default)]
    pub git_credential_helper: Yes,
}

/// What is run in a phase.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Phase {
    #[serde(rename = "run-as")]
    pub run_as: Option<Text>,
    #[serde(rename = "on-failure")]
    pub on_failure: Option<OnFailure>,
    #[serde(rename = "runtime-versions", default)]
    pub runtimes: BTreeMap<String, Text>,
    #[serde(default)]
    pub commands: List,
    #[serde(default)]
    pub finally: List,
}

/// What is kept of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    #[serde(default)]
    pub files: List,
    pub name: Option<Text>,
    #[serde(rename = "discard-paths", default)]
    pub discard_paths: Yes,
    #[serde(rename = "base-directory")]
    pub base_directory: Option<Text>,
    #[serde(rename = "exclude-paths", default)]
    pub exclude_paths: List,
    #[serde(rename = "enable-symlinks", default)]
    pub enable_symlinks: Yes,
    /// By identifier; at the top level only.
    #[serde(rename = "secondary-artifacts", default)]
    pub secondary: BTreeMap<String, Output>,
}

/// What of a build goes into a report group, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    #[serde(default)]
    pub files: List,
    #[serde(rename = "discard-paths", default)]
    pub discard_paths: Yes,
    #[serde(rename = "base-directory")]
    pub base_directory: Option<Text>,
    #[serde(rename = "file-format")]
    pub format: Option<Text>,
}

#[derive(Debug, Default, Deserialize)]
struct Cache {
    #[serde(default)]
    paths: List,
}

/// A file that was read.
#[derive(Debug, Default)]
pub(crate) struct Buildspec {
    /// Whether every command begins anew (version 0.1).
    pub separate: bool,
    pub run_as: Option<String>,
    pub env: Env,
    /// Those that it has, in their order.
    pub phases: Vec<(&'static str, Phase)>,
    pub artifacts: Option<Output>,
    pub secondary: BTreeMap<String, Output>,
    pub cache: Vec<String>,
    /// By the names of their groups.
    pub reports: BTreeMap<String, Report>,
    /// Sections that it has, and that nobody heeds here.
    pub unheeded: Vec<&'static str>,
}

/// The phases that commands can be in, by the file's names.
pub(crate) const PHASES: [&str; 4] = ["install", "pre_build", "build", "post_build"];

/// Whether a variable of this name can be in an environment of a shell.
pub(crate) fn is_variable(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Reads a file. What is wrong with it is told with its line.
pub(crate) fn read(text: &str) -> Result<Buildspec, String> {
    if text.len() > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let file: File = from_str(text).map_err(|error| error.to_string())?;
    let version = file.version.ok_or("it has no version; write version: 0.2")?;
    let separate = match version.0.as_str() {
        "0.1" => true,
        "0.2" => false,
        other => return Err(format!("its version is {other}; there are 0.1 and 0.2")),
    };
    let mut phases = file.phases;
    let mut found = Vec::new();
    for name in PHASES {
        let Some(phase) = phases.remove(name) else { continue };
        let phase = phase.unwrap_or_default();
        if phase.commands.0.is_empty() && phase.runtimes.is_empty() {
            return Err(format!("its phase {name} has no commands"));
        }
        found.push((name, phase));
    }
    if let Some((name, _)) = phases.pop_first() {
        return Err(format!("it has a phase {name}; phases are {}", PHASES.join(", ")));
    }
    if found.is_empty() {
        return Err("it has no phases".to_owned());
    }
    let commands = found.iter().map(|(_, phase)| phase.commands.0.len() + phase.finally.0.len());
    if commands.sum::<usize>() > MOST_COMMANDS {
        return Err(format!("it has more than {MOST_COMMANDS} commands"));
    }
    let env = &file.env;
    let names = env.variables.keys().chain(env.parameters.keys()).chain(env.secrets.keys());
    if let Some(name) = names.chain(&env.exported.0).find(|name| !is_variable(name)) {
        return Err(format!("{name} cannot be the name of a variable"));
    }
    let mut artifacts = file.artifacts.unwrap_or_default();
    let secondary = std::mem::take(&mut artifacts.secondary);
    if file.reports.len() > MOST_REPORTS {
        return Err(format!("it has more than {MOST_REPORTS} reports"));
    }
    let mut reports = BTreeMap::new();
    for (name, report) in file.reports {
        let report = report.unwrap_or_default();
        let format = report.format.as_ref().map(|format| format.0.as_str());
        if let Some(unknown) = format.filter(|format| Format::of(format).is_none()) {
            return Err(format!(
                "its report {name} has the file-format {unknown}, which there is not"
            ));
        }
        if report.files.0.is_empty() {
            return Err(format!("its report {name} has no files"));
        }
        reports.insert(name, report);
    }
    let mut unheeded = Vec::new();
    unheeded.extend(file.batch.map(|_| "batch"));
    Ok(Buildspec {
        separate,
        run_as: file.run_as.map(|user| user.0),
        env: file.env,
        phases: found,
        artifacts: (!artifacts.files.0.is_empty()).then_some(artifacts),
        secondary,
        cache: file.cache.unwrap_or_default().paths.0,
        reports,
        unheeded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = r#"version: 0.2
run-as: root
env:
  shell: bash
  variables:
    COUNT: 007
    TRUE: true
    TEXT: "a: b"
  parameter-store:
    PASSWORD: /app/password
  secrets-manager:
    KEY: app/key:api:AWSCURRENT
  exported-variables:
    - TAG
  git-credential-helper: yes
phases:
  install:
    runtime-versions:
      python: 3.11
    commands:
      - apt-get update
  build:
    on-failure: RETRY-2-exit status 7
    commands:
      - echo one
      - |
        if true; then
          echo two
        fi
    finally:
      - echo end
artifacts:
  files:
    - '**/*'
  name: out-$(date +%Y)
  discard-paths: no
  base-directory: dist
  exclude-paths: '**/*.map'
  secondary-artifacts:
    images:
      files: imagedefinitions.json
      discard-paths: yes
cache:
  paths:
    - '/root/.cache/**/*'
reports:
  unit:
    files: ['**/*']
"#;

    #[test]
    fn a_whole_file() {
        let spec = read(WHOLE).unwrap();
        let variable = |name: &str| spec.env.variables[name].0.clone();
        assert_eq!(
            (variable("COUNT"), variable("TRUE"), variable("TEXT")),
            ("007".into(), "true".into(), "a: b".into())
        );
        assert_eq!(spec.env.shell, Some(Text("bash".into())));
        assert!(spec.env.git_credential_helper.0 && !spec.separate);
        let names: Vec<_> = spec.phases.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["install", "build"]);
        let build = &spec.phases[1].1;
        assert_eq!(build.on_failure, Some(OnFailure::Retry(2, Some("exit status 7".into()))));
        assert_eq!(build.commands.0[1], "if true; then\n  echo two\nfi\n");
        let artifacts = spec.artifacts.unwrap();
        assert_eq!(artifacts.exclude_paths.0, ["**/*.map"]);
        assert!(spec.secondary["images"].discard_paths.0);
        assert_eq!(spec.cache, ["/root/.cache/**/*"]);
        let kept = serde_json::to_string(&artifacts).unwrap();
        assert_eq!(serde_json::from_str::<Output>(&kept).unwrap(), artifacts, "as records keep it");
        assert_eq!(spec.reports["unit"].files.0, ["**/*"]);
        assert!(spec.unheeded.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, says) in [
            ("", "no version"),
            ("version: 0.3\nphases: {build: {commands: [a]}}", "0.3"),
            ("version: 0.2", "no phases"),
            ("version: 0.2\nphases:\n  build:\n    commands: []", "no commands"),
            ("version: 0.2\nphases:\n  builds:\n    commands: [a]", "builds"),
            ("version: 0.2\nphases:\n  build:\n    commands:\n      - echo a: b\n", "line 5"),
            ("version: 0.2\nphases:\n  build:\n   commands:\n  - echo", "line 5"),
            ("version: 0.2\nphases:\n  build:\n    on-failure: STOP\n    commands: [a]", "line 4"),
            (
                "version: 0.2\nphases: {build: {commands: [a]}}\nreports: {r: {files: a, file-format: TAP}}",
                "TAP",
            ),
            ("version: 0.2\nphases: {build: {commands: [a]}}\nreports: {r: {}}", "no files"),
            ("version: 0.2\nenv: {variables: {A-B: 1}}\nphases: {build: {commands: [a]}}", "A-B"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(says), "{text:?}: {why}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(version: 0.2\n)?[a-z:\\[\\]{}\\-'\"&*! \n0-9]{0,200}") {
            let _ = read(&text);
        }
    }
}
