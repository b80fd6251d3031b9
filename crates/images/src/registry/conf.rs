//! `registries.conf`, version 2, with its drop-in directories: mirrors, rewriting, blocked and
//! insecure registries, short names. As containers-registries.conf(5) and
//! containers-registries.conf.d(5) say.

use crate::blobs::read_bounded;
use crate::reference::is_host;
use crate::{Reference, SourceError};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_DROP_INS: usize = 1000;

/// A configuration file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Larger than any sensible one.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Too many drop-ins.
    #[error("{} holds more than {MAX_DROP_INS} files", .0.display())]
    TooMany(PathBuf),
    /// Not TOML of the right form.
    #[error("{} is not valid", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The old format.
    #[error("{} is in the version 1 format; only version 2 is supported", .0.display())]
    Version1(PathBuf),
    /// A value that means nothing.
    #[error("{}: {what} {value:?} is not valid: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        why: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    credential_helpers: Option<Vec<String>>,
    short_name_mode: Option<String>,
    #[serde(default)]
    registry: Vec<RegistryTable>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Only the version 1 format has this.
    registries: Option<toml::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    prefix: String,
    /// Empty: the name stays as it is.
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    by_tag: bool,
    by_digest: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ShortNames {
    #[default]
    Permissive,
    Enforcing,
}

/// One place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The image as that place calls it.
    pub reference: Reference,
    /// Plain HTTP and untrusted certificates are allowed.
    pub insecure: bool,
}

/// The merged configuration.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    rules: BTreeMap<String, Rule>,
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
    short_names: ShortNames,
    warnings: Vec<String>,
}

impl Registries {
    /// What this machine's administrator and the user have configured: the file named by
    /// `CONTAINERS_REGISTRIES_CONF`, or else the user's, or else the system's; then the drop-ins of
    /// the system and the user. Missing files are no error.
    pub fn of_this_machine() -> Result<Self, ConfError> {
        let system = Path::new("/etc/containers");
        let user =
            std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/containers"));
        let chosen = std::env::var_os("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
        let users = user.as_ref().map(|dir| dir.join("registries.conf")).filter(|p| p.exists());
        let main = chosen.or(users).unwrap_or_else(|| system.join("registries.conf"));
        let mut drop_ins = vec![system.join("registries.conf.d")];
        drop_ins.extend(user.map(|dir| dir.join("registries.conf.d")));
        Self::load(&main, &drop_ins)
    }

    /// Reads `main` and then, in the order of their names, the `*.conf` files of each directory.
    pub fn load(main: &Path, drop_in_dirs: &[PathBuf]) -> Result<Self, ConfError> {
        let mut files = vec![main.to_path_buf()];
        for dir in drop_in_dirs {
            let read = |source| ConfError::Read { path: dir.clone(), source };
            let entries = match std::fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(read(source)),
            };
            let mut found = Vec::new();
            for entry in entries {
                let path = entry.map_err(read)?.path();
                if path.extension().is_some_and(|extension| extension == "conf") {
                    found.push(path);
                }
                if found.len() > MAX_DROP_INS {
                    return Err(ConfError::TooMany(dir.clone()));
                }
            }
            found.sort();
            files.extend(found);
        }
        let mut merged = Registries::default();
        for path in files {
            match read_bounded(&path, MAX_FILE_BYTES) {
                Ok(Some(bytes)) => merged.add(&String::from_utf8_lossy(&bytes), &path)?,
                Ok(None) => return Err(ConfError::TooLarge(path)),
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ConfError::Read { path, source }),
            }
        }
        Ok(merged)
    }

    /// Merges one file's text in; later files overrule earlier ones. `path` is for messages.
    pub fn add(&mut self, text: &str, path: &Path) -> Result<(), ConfError> {
        let toml = |source| ConfError::Toml { path: path.into(), source: Box::new(source) };
        let document: Document = toml::from_str(text).map_err(toml)?;
        if document.registries.is_some() {
            return Err(ConfError::Version1(path.into()));
        }
        if let Some(search) = document.unqualified_search_registries {
            for host in &search {
                check_host(host, path)?;
            }
            self.search = search;
        }
        let helpers = document.credential_helpers.unwrap_or_default();
        for helper in helpers.iter().filter(|helper| *helper != "containers-auth.json") {
            let place = path.display();
            self.warnings.push(format!("{place}: credential helper {helper:?} is not supported"));
        }
        match document.short_name_mode.as_deref() {
            None => {}
            Some("enforcing") => self.short_names = ShortNames::Enforcing,
            // Without a terminal to ask at, which we never are, these two do the same.
            Some("" | "permissive" | "disabled") => self.short_names = ShortNames::Permissive,
            Some(other) => {
                let why = "it is enforcing, permissive or disabled";
                return Err(value(path, "short-name-mode", other, why));
            }
        }
        for table in document.registry {
            let rule = rule(table, path)?;
            self.rules.insert(rule.prefix.clone(), rule);
        }
        for (name, target) in document.aliases {
            if target.is_empty() {
                self.aliases.remove(&name);
                continue;
            }
            check_alias(&name, &target, path)?;
            self.aliases.insert(name, target);
        }
        Ok(())
    }

    /// Allows plain HTTP and untrusted certificates for `host[:port]`, whatever the files say.
    pub fn allow_insecure(&mut self, host: &str) {
        let rule = self.rules.entry(host.to_string()).or_insert_with(|| Rule {
            prefix: host.to_string(),
            location: host.to_string(),
            insecure: true,
            blocked: false,
            mirrors: Vec::new(),
        });
        rule.insecure = true;
    }

    /// What is configured but not supported, in words.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where to ask for an image, in order.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, SourceError> {
        let mut endpoints = Vec::new();
        for reference in self.full_names(reference)? {
            self.places(&reference, &mut endpoints)?;
        }
        Ok(endpoints)
    }

    fn full_names(&self, reference: &Reference) -> Result<Vec<Reference>, SourceError> {
        let Some(short) = reference.short_name() else { return Ok(vec![reference.clone()]) };
        let rename = |name: String| {
            let renamed = reference.renamed(&name);
            renamed.map_err(|source| SourceError::Rewritten { name, source })
        };
        if let Some(target) = self.aliases.get(short) {
            return Ok(vec![rename(target.clone())?]);
        }
        match self.search.len() {
            0 => Ok(vec![reference.clone()]),
            n if n > 1 && self.short_names == ShortNames::Enforcing => {
                Err(SourceError::Ambiguous(short.to_string()))
            }
            _ => self.search.iter().map(|host| rename(format!("{host}/{short}"))).collect(),
        }
    }

    fn places(&self, reference: &Reference, into: &mut Vec<Endpoint>) -> Result<(), SourceError> {
        let name = reference.name();
        let matches = self.rules.values().filter_map(|rule| Some((matched(&name, rule)?, rule)));
        let Some((length, rule)) = matches.max_by_key(|(_, rule)| rule.prefix.len()) else {
            into.push(Endpoint { reference: reference.clone(), insecure: false });
            return Ok(());
        };
        if rule.blocked {
            return Err(SourceError::Blocked(name));
        }
        let rewrite = |location: &str| {
            let name = format!("{location}{}", &name[length..]);
            let renamed = reference.renamed(&name);
            renamed.map_err(|source| SourceError::Rewritten { name, source })
        };
        for mirror in &rule.mirrors {
            let by_digest = reference.digest().is_some();
            if (by_digest && mirror.by_digest) || (!by_digest && mirror.by_tag) {
                let (reference, insecure) = (rewrite(&mirror.location)?, mirror.insecure);
                into.push(Endpoint { reference, insecure });
            }
        }
        let reference = match rule.location.is_empty() {
            true => reference.clone(),
            false => rewrite(&rule.location)?,
        };
        into.push(Endpoint { reference, insecure: rule.insecure });
        Ok(())
    }
}

/// How many bytes of `name` the rule's prefix stands for, if it does.
fn matched(name: &str, rule: &Rule) -> Option<usize> {
    let host_end = name.find('/').unwrap_or(name.len());
    if let Some(suffix) = rule.prefix.strip_prefix('*') {
        return name[..host_end].ends_with(suffix).then_some(host_end);
    }
    let rest = name.strip_prefix(rule.prefix.as_str())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rule.prefix.len())
}

fn rule(table: RegistryTable, path: &Path) -> Result<Rule, ConfError> {
    let given = table.location.as_deref().unwrap_or("").trim_end_matches('/');
    let prefix = table.prefix.as_deref().unwrap_or("").trim_end_matches('/');
    let prefix = if prefix.is_empty() { given } else { prefix };
    match prefix.strip_prefix("*.") {
        Some(host) if is_host(host) && !host.contains(':') => {}
        Some(_) => {
            return Err(value(path, "prefix", prefix, "a wildcard stands before a bare host"));
        }
        None => check_location("prefix", prefix, path)?,
    }
    let location = match given {
        "" if prefix.starts_with("*.") => "",
        "" if table.location.is_none() && !table.blocked => {
            return Err(value(path, "prefix", prefix, "it has no location"));
        }
        "" => prefix,
        given => given,
    };
    if !location.is_empty() {
        check_location("location", location, path)?;
    }
    let mut mirrors = Vec::new();
    for mirror in table.mirror {
        let location = mirror.location.trim_end_matches('/');
        check_location("mirror location", location, path)?;
        let when = mirror.pull_from_mirror.as_deref().unwrap_or("");
        let (by_tag, by_digest) = match when {
            "" => (!table.mirror_by_digest_only, true),
            _ if table.mirror_by_digest_only => {
                let why = "mirror-by-digest-only is set for the registry";
                return Err(value(path, "pull-from-mirror", when, why));
            }
            "all" => (true, true),
            "digest-only" => (false, true),
            "tag-only" => (true, false),
            _ => {
                let why = "it is all, digest-only or tag-only";
                return Err(value(path, "pull-from-mirror", when, why));
            }
        };
        let (location, insecure) = (location.to_string(), mirror.insecure);
        mirrors.push(Mirror { location, insecure, by_tag, by_digest });
    }
    let (prefix, location) = (prefix.to_string(), location.to_string());
    Ok(Rule { prefix, location, insecure: table.insecure, blocked: table.blocked, mirrors })
}

fn value(path: &Path, what: &'static str, value: &str, why: &'static str) -> ConfError {
    ConfError::Value { path: path.into(), what, value: value.into(), why }
}

fn check_host(host: &str, path: &Path) -> Result<(), ConfError> {
    match is_host(host) {
        true => Ok(()),
        false => Err(value(path, "unqualified-search-registries", host, "it is not host[:port]")),
    }
}

fn check_location(what: &'static str, location: &str, path: &Path) -> Result<(), ConfError> {
    if location.contains("://") {
        return Err(value(path, what, location, "it has a scheme; write host[:port]/path only"));
    }
    let (host, rest) = match location.split_once('/') {
        Some((host, rest)) => (host, Some(rest)),
        None => (location, None),
    };
    if !is_host(host) {
        return Err(value(path, what, location, "it does not begin with host[:port]"));
    }
    match rest.is_none_or(crate::reference::is_repository) {
        true => Ok(()),
        false => Err(value(
            path,
            what,
            location,
            "its path is not a repository's (tags and digests are not supported here)",
        )),
    }
}

fn check_alias(name: &str, target: &str, path: &Path) -> Result<(), ConfError> {
    let parsed = name.parse::<Reference>();
    let bare = !name.contains('@') && !name.contains(':');
    if !bare || parsed.is_ok_and(|parsed| parsed.short_name().is_none()) {
        return Err(value(path, "alias", name, "a short name has no registry, tag or digest"));
    }
    if !target.contains('/') {
        return Err(value(path, "alias target", target, "it has no registry"));
    }
    check_location("alias target", target, path)
}

#[cfg(test)]
mod tests;
