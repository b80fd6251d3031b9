//! What lies over the image in a build's container: its sources, its buildspec's program, what earlier builds cached.

use crate::{
    CodeBuild,
    api::{EnvironmentVariableType, ProjectSource, SourceType},
    buildspec::{self, Buildspec},
    cache, check,
    keep::Root,
    model::{Build, Plan},
    phases::Why,
    script,
};
use codeconnections::{CloneReference, Origin, remote::Remote};
use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Cursor, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};
use wire::{Context, Fault, Principal};
use zip::ZipArchive;

/// The largest archive of a source, in bytes.
const MOST_ARCHIVE: u64 = 256 << 20;
/// The most that an archive may hold, in bytes and in files.
const MOST_UNPACKED: u64 = 4 << 30;
const MOST_ENTRIES: usize = 200_000;
/// The longest target of a symbolic link in an archive, in bytes.
const LONGEST_LINK: u64 = 4096;
/// A buildspec, unless the project names another.
const BUILDSPEC: &str = "buildspec.yml";
/// A git clone's depth, unless the project says otherwise; 0 is all of it.
const DEPTH: i32 = 1;

/// What of a build's container comes from its sources.
pub(crate) struct Prepared {
    pub plan: Plan,
    /// The commit or version that was checked out.
    pub resolved: Option<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
    /// Those whose values are fetched when the container starts.
    pub secrets: Vec<(String, String)>,
}

fn client(message: impl Into<String>) -> Why {
    Why::new("CLIENT_ERROR", message)
}

fn internal(step: &str, error: impl std::fmt::Display) -> Why {
    Why::new("INTERNAL_SERVICE_ERROR", format!("{step}: {error}"))
}

/// A directory that everybody inside may enter.
fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Where a build's sources lie in its container: a name with digits of its own, as on AWS.
fn sources(build: &Build) -> String {
    let digits = u32::from_str_radix(&build.digits()[..8], 16).unwrap_or_default();
    format!("/codebuild/output/src{digits:010}")
}

/// Puts everything beneath `layer`, which is made anew.
pub(crate) async fn prepare(
    service: &CodeBuild,
    build: &Build,
    principal: &Principal,
    layer: &Path,
) -> Result<Prepared, Why> {
    let region = build.realm.split_once('/').map_or("", |(_, region)| region);
    let ctx = service.outside().front.context(principal.clone(), region);
    let outputs = sources(build);
    let made = (|| {
        match fs::remove_dir_all(layer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for part in ["", "codebuild", "codebuild/output", &outputs[1..], "etc", "etc/containers"] {
            directory(&layer.join(part))?;
        }
        Ok(())
    })();
    made.map_err(|error| internal("its directory", error))?;
    cache::restore(service, build, &ctx, layer).await;
    let document = &build.document;
    let source = document.source.as_ref().ok_or_else(|| client("there is no source"))?;
    let primary = format!("{outputs}/src");
    let version = document.source_version.as_deref();
    let (at, fetching) = (layer.join(&primary[1..]), Fetching { service, ctx: &ctx });
    let resolved = fetching.fetch(source, version, &at).await.map_err(|why| {
        let version = version.map(|version| format!(" and source version {version}"));
        client(format!("{why} for primary source{}", version.unwrap_or_default()))
    })?;
    let mut variables = vec![("CODEBUILD_SRC_DIR".to_owned(), primary.clone())];
    for other in document.secondary_sources.iter().flatten() {
        let name = other.source_identifier.clone().unwrap_or_default();
        let place = format!("{outputs}/{name}");
        let mut versions = document.secondary_source_versions.iter().flatten();
        let version = versions.find(|version| version.source_identifier == name);
        let version = version.map(|version| version.source_version.as_str());
        let fetched = fetching.fetch(other, version, &layer.join(&place[1..])).await;
        fetched.map_err(|why| client(format!("{why} for secondary source {name}")))?;
        variables.push((format!("CODEBUILD_SRC_DIR_{name}"), place));
    }
    let text = spec_text(&fetching, source, &at).await?;
    let spec = buildspec::read(&text).map_err(|why| {
        Why::new("YAML_FILE_ERROR", format!("The buildspec cannot be used: {why}"))
    })?;
    let plan =
        write(build, &spec, layer, &primary).map_err(|error| internal("its files", error))?;
    registries(service, build, layer).map_err(|error| internal("its files", error))?;
    let (own, secrets) = environment(service, build, &spec, principal).await?;
    variables.splice(0..0, own);
    variables.extend(built_in(build, source, resolved.as_deref(), region));
    if spec.env.git_credential_helper.0 {
        variables.extend(git_login(&service.codecommit.endpoint(region), region));
    }
    Ok(Prepared { plan, resolved, variables, secrets })
}

/// The text of the buildspec: in the project, in a bucket, or in the source.
async fn spec_text(
    fetching: &Fetching<'_>,
    source: &ProjectSource,
    at: &Path,
) -> Result<String, Why> {
    let broken = |message: String| Why::new("YAML_FILE_ERROR", message);
    let given = source.buildspec.as_deref().filter(|given| !given.trim().is_empty());
    let given = given.unwrap_or(BUILDSPEC);
    if given.contains('\n') || given.starts_with('{') || given.starts_with("version:") {
        return Ok(given.to_owned());
    }
    if given.starts_with("arn:aws:s3:::") {
        let place = check::object(given)
            .ok_or_else(|| broken(format!("{given} is no ARN of an object")))?;
        let (bucket, key) = place;
        let most = buildspec::LONGEST as u64;
        let bytes = fetching.service.s3.bytes(fetching.ctx, bucket, key, most).await;
        let bytes = bytes.map_err(|why| broken(format!("{given} cannot be read: {why}")))?;
        return String::from_utf8(bytes).map_err(|_| broken(format!("{given} is not UTF-8")));
    }
    // The repository may have a link there to anywhere.
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let root = rustix::fs::open(at, flags, rustix::fs::Mode::empty());
    let root = Root(root.map_err(|error| internal("its source", error))?);
    let text = root.text(Path::new(given), buildspec::LONGEST as u64 + 1);
    text.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => broken(format!("YAML file does not exist: there is no {given}")),
        _ => broken(format!("{given} cannot be read: {error}")),
    })
}

/// Fetches sources as a build's role.
struct Fetching<'a> {
    service: &'a CodeBuild,
    ctx: &'a Context,
}

impl Fetching<'_> {
    /// Puts a source at `target`. Answers what exactly it is; the error goes on "… for primary source".
    async fn fetch(
        &self,
        source: &ProjectSource,
        version: Option<&str>,
        target: &Path,
    ) -> Result<Option<String>, String> {
        directory(target).map_err(|error| format!("its directory cannot be made ({error})"))?;
        let location = source.location.as_deref().unwrap_or_default();
        let depth = source.git_clone_depth.unwrap_or(DEPTH);
        let depth = u32::try_from(depth).ok().filter(|depth| *depth > 0);
        match source.r#type {
            SourceType::NoSource => Ok(None),
            SourceType::Codecommit => {
                let name = check::repository(location).ok_or("no repository's URL")?;
                let commit =
                    self.service.codecommit.checkout(self.ctx, name, version, depth, target).await;
                commit.map(Some).map_err(|fault| format!("{} ({})", fault.message, fault.code))
            }
            SourceType::S3 | SourceType::Codepipeline => {
                let content = self.read(location).await?;
                let reference = CloneReference::read(&content);
                match reference.filter(|_| source.r#type == SourceType::Codepipeline) {
                    Some(reference) => self.clone_whole(&reference, target).await.map(Some),
                    None => {
                        unpack(location, content, target).await?;
                        Ok(version.map(str::to_owned))
                    }
                }
            }
            _ => {
                let checked = source.insecure_ssl != Some(true);
                let remote = Remote { url: location.to_owned(), login: None, checked };
                remote.checkout(&self.service.world, version, depth, target).await.map(Some)
            }
        }
    }

    async fn read(&self, location: &str) -> Result<Vec<u8>, String> {
        let (bucket, key) = check::object(location).ok_or("no bucket and key")?;
        let bytes = self.service.s3.bytes(self.ctx, bucket, key, MOST_ARCHIVE).await;
        bytes.map_err(|why| format!("s3://{bucket}/{key} cannot be read ({why})"))
    }

    /// Clones a repository whose commit a pipeline hands on, with all of its history.
    async fn clone_whole(
        &self,
        reference: &CloneReference,
        target: &Path,
    ) -> Result<String, String> {
        let (service, commit) = (self.service, Some(reference.commit.as_str()));
        let told = |fault: Fault| format!("{} ({})", fault.message, fault.code);
        match &reference.origin {
            Origin::CodeCommit(name) => {
                let cloned = service.codecommit.checkout(self.ctx, name, commit, None, target);
                cloned.await.map_err(told)
            }
            Origin::Connection(connection, repository) => {
                let front = &service.outside().front;
                let remote = service.connections.remote(front, self.ctx, connection, repository);
                let (_, remote) = remote.await.map_err(told)?;
                remote.checkout(&service.world, commit, None, target).await
            }
        }
    }
}

async fn unpack(location: &str, content: Vec<u8>, target: &Path) -> Result<(), String> {
    let target = target.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || unzip(content, &target)).await;
    let unpacked = unpacked.map_err(|error| error.to_string())?;
    unpacked.map_err(|why| format!("s3://{location} cannot be unpacked ({why})"))
}

/// Unpacks an archive of anybody's. Links are made last, so that nothing is written through one.
fn unzip(bytes: Vec<u8>, target: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| text(&error))?;
    if archive.len() > MOST_ENTRIES {
        return Err(format!("it has more than {MOST_ENTRIES} files"));
    }
    let mut left = MOST_UNPACKED;
    let mut links: Vec<(PathBuf, String)> = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| text(&error))?;
        let name = entry.enclosed_name();
        let name =
            name.ok_or_else(|| format!("{} leads out of it", entry.name().escape_debug()))?;
        let path = target.join(&name);
        if entry.is_dir() {
            directory(&path).map_err(|error| text(&error))?;
            continue;
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            directory(parent).map_err(|error| text(&error))?;
        }
        if entry.is_symlink() {
            let mut link = String::new();
            (&mut entry).take(LONGEST_LINK).read_to_string(&mut link).map_err(|e| text(&e))?;
            links.push((path, link));
            continue;
        }
        let mode = entry.unix_mode().map_or(0o644, |mode| mode & 0o777 | 0o400);
        let mut file = File::create(&path).map_err(|error| text(&error))?;
        let written = io::copy(&mut (&mut entry).take(left + 1), &mut file);
        left = left
            .checked_sub(written.map_err(|error| text(&error))?)
            .ok_or_else(|| format!("it holds more than {MOST_UNPACKED} bytes"))?;
        file.set_permissions(Permissions::from_mode(mode)).map_err(|error| text(&error))?;
    }
    for (path, link) in links {
        symlink(link, path).map_err(|error| text(&error))?;
    }
    Ok(())
}

/// Writes the program that runs the phases.
fn write(build: &Build, spec: &Buildspec, layer: &Path, source: &str) -> io::Result<Plan> {
    let mut names = Vec::new();
    let mut shell = Vec::new();
    for (identifier, output) in spec
        .artifacts
        .iter()
        .map(|main| ("", main))
        .chain(spec.secondary.iter().map(|(n, o)| (&**n, o)))
    {
        if let Some(name) = &output.name {
            names.push(identifier.to_owned());
            shell.push(name.0.clone());
        }
    }
    let script = script::write(spec, &greeting(spec, source), &shell);
    let agent = layer.join(&script::AGENT[1..]);
    directory(&agent)?;
    for (name, text) in &script.files {
        let path = agent.join(name);
        if let Some(parent) = path.parent() {
            directory(parent)?;
        }
        let mut file = File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    if privileged(build) {
        File::create(agent.join("privileged"))?;
    }
    Ok(Plan {
        commands: script.commands,
        source: source.to_owned(),
        exported: spec.env.exported.0.clone(),
        artifacts: spec.artifacts.clone(),
        secondary: spec.secondary.clone(),
        names,
        cache: spec.cache.clone(),
        reports: spec.reports.clone(),
    })
}

/// Whether a build makes images.
pub(crate) fn privileged(build: &Build) -> bool {
    let environment = build.document.environment.as_ref();
    environment.and_then(|environment| environment.privileged_mode).unwrap_or(false)
}

/// What the log begins with.
fn greeting(spec: &Buildspec, source: &str) -> Vec<String> {
    let mut lines = vec![
        "Phase is DOWNLOAD_SOURCE".to_owned(),
        format!("CODEBUILD_SRC_DIR={source}"),
        "Processing environment variables".to_owned(),
    ];
    let runtimes = spec.phases.iter().flat_map(|(_, phase)| &phase.runtimes);
    let runtimes: Vec<String> =
        runtimes.map(|(name, version)| format!("{name} {}", version.0)).collect();
    lines.push(match runtimes.is_empty() {
        true => "No runtime version selected in buildspec.".to_owned(),
        false => {
            format!("Runtimes are the image's own; the buildspec asks for {}.", runtimes.join(", "))
        }
    });
    for section in &spec.unheeded {
        lines.push(format!("Neargate does not heed the section {section} of the buildspec yet."));
    }
    lines.push(format!("Moving to directory {source}"));
    lines.push(format!("Phases found in YAML: {}", spec.phases.len()));
    for (name, phase) in &spec.phases {
        let count = phase.commands.0.len();
        lines.push(format!(" {}: {count} commands", script::phase_name(name)));
    }
    lines.push("Phase complete: DOWNLOAD_SOURCE State: SUCCEEDED".to_owned());
    lines.push("Phase context status code:  Message: ".to_owned());
    lines
}

/// Says of the registry that it is spoken to without TLS, by AWS's names for it and by ours.
fn registries(service: &CodeBuild, build: &Build, layer: &Path) -> io::Result<()> {
    if !privileged(build) {
        return Ok(());
    }
    let at = layer.join("etc/containers/registries.conf.d");
    directory(&at)?;
    let mut text = "[[registry]]\nprefix = \"*.amazonaws.com\"\ninsecure = true\n".to_owned();
    for host in ["127.0.0.1", "localhost"] {
        text += &format!("[[registry]]\nlocation = \"{host}:{}\"\ninsecure = true\n", service.port);
    }
    fs::write(at.join("neargate.conf"), text)
}

/// Variables with values, and with where values come from.
type Environment = (Vec<(String, String)>, Vec<(String, String)>);

/// The variables of the buildspec, and over them those of project and build.
async fn environment(
    service: &CodeBuild,
    build: &Build,
    spec: &Buildspec,
    principal: &Principal,
) -> Result<Environment, Why> {
    use EnvironmentVariableType::{ParameterStore, Plaintext, SecretsManager};
    let mut all: Vec<(String, String, EnvironmentVariableType)> = Vec::new();
    let mut set = |name: &String, value: &String, kind| {
        all.retain(|(known, ..)| known != name);
        all.push((name.clone(), value.clone(), kind));
    };
    let env = &spec.env;
    for (list, kind) in [
        (&env.variables, Plaintext),
        (&env.parameters, ParameterStore),
        (&env.secrets, SecretsManager),
    ] {
        list.iter().for_each(|(name, value)| set(name, &value.0, kind));
    }
    let environment = build.document.environment.as_ref();
    let own = environment.and_then(|environment| environment.environment_variables.as_ref());
    for variable in own.into_iter().flatten() {
        set(&variable.name, &variable.value, variable.r#type.unwrap_or(Plaintext));
    }
    let (mut plain, mut secret) = (Vec::new(), Vec::new());
    for (name, value, kind) in all {
        let from = match kind {
            Plaintext => {
                plain.push((name, value));
                continue;
            }
            ParameterStore => value,
            SecretsManager => secret_arn(&build.realm, &value),
        };
        // Its value is fetched when the container starts; here it is only seen whether it can be.
        let found = service.outside().secrets.value(&build.realm, principal, &from).await;
        found.map_err(|why| {
            Why::new(
                "DECRYPTED_VARIABLES_ERROR",
                format!("The value of the variable {name} ({from}) cannot be read: {why}"),
            )
        })?;
        secret.push((name, from));
    }
    Ok((plain, secret))
}

/// `secret-id:json-key:version-stage:version-id` with the secret's ARN in place of its id.
pub(crate) fn secret_arn(realm: &str, given: &str) -> String {
    if given.starts_with("arn:") {
        return given.to_owned();
    }
    let (account, region) = realm.split_once('/').unwrap_or_default();
    format!("arn:aws:secretsmanager:{region}:{account}:secret:{given}")
}

/// What logs git in to CodeCommit as the build's role, by AWS's name for it and by ours: git's settings, as variables
/// (<https://git-scm.com/docs/git-config#ENVIRONMENT>). The image has the AWS CLI for it.
fn git_login(endpoint: &str, region: &str) -> Vec<(String, String)> {
    // Git also asks helpers to keep and to forget, which this one does not know.
    let helper = "!f() { test \"$1\" != get || aws codecommit credential-helper get --ignore-host-check; }; f";
    let aws = format!("https://git-codecommit.{region}.amazonaws.com/");
    let settings = [
        (format!("credential.{endpoint}.helper"), helper.to_owned()),
        (format!("credential.{endpoint}.UseHttpPath"), "true".to_owned()),
        (format!("url.{endpoint}/.insteadOf"), aws),
    ];
    let mut variables = vec![("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string())];
    for (index, (key, value)) in settings.into_iter().enumerate() {
        variables.push((format!("GIT_CONFIG_KEY_{index}"), key));
        variables.push((format!("GIT_CONFIG_VALUE_{index}"), value));
    }
    variables
}

/// <https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html>
fn built_in(
    build: &Build,
    source: &ProjectSource,
    resolved: Option<&str>,
    region: &str,
) -> Vec<(String, String)> {
    let document = &build.document;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let image = document.environment.as_ref().map(|environment| environment.image.clone());
    let start = document.start_time.map_or(0, |time| time.millis());
    let log = document.logs.as_ref().and_then(|logs| logs.stream_name.clone());
    let pairs = [
        ("AWS_DEFAULT_REGION", region.to_owned()),
        ("AWS_EXECUTION_ENV", "AWS_ECS_EC2".to_owned()),
        ("AWS_REGION", region.to_owned()),
        ("CI", "true".to_owned()),
        ("CODEBUILD_BUILD_ARN", text(&document.arn)),
        ("CODEBUILD_BUILD_ID", text(&document.id)),
        ("CODEBUILD_BUILD_IMAGE", image.unwrap_or_default()),
        ("CODEBUILD_BUILD_NUMBER", document.build_number.unwrap_or_default().to_string()),
        ("CODEBUILD_CI", "true".to_owned()),
        ("CODEBUILD_INITIATOR", text(&document.initiator)),
        ("CODEBUILD_KMS_KEY_ID", text(&document.encryption_key)),
        ("CODEBUILD_LOG_PATH", log.unwrap_or_default()),
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", resolved.unwrap_or_default().to_owned()),
        ("CODEBUILD_SOURCE_REPO_URL", text(&source.location)),
        ("CODEBUILD_SOURCE_VERSION", text(&document.source_version)),
        ("CODEBUILD_START_TIME", start.to_string()),
        ("HOME", "/root".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::{ZipWriter, write::SimpleFileOptions};

    fn archive(entries: &[(&str, &str)], links: &[(&str, &str)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, target) in links {
            writer.add_symlink(*name, *target, SimpleFileOptions::default()).unwrap();
        }
        for (name, text) in entries {
            let options = SimpleFileOptions::default().unix_permissions(0o751);
            writer.start_file(*name, options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn archives_are_unpacked_within_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/src");
        directory(&target).unwrap();
        unzip(archive(&[("x/run.sh", "hi")], &[("x/link", "/etc/passwd")]), &target).unwrap();
        let run = target.join("x/run.sh");
        assert_eq!(fs::read_to_string(&run).unwrap(), "hi");
        assert_eq!(run.metadata().unwrap().permissions().mode() & 0o777, 0o751);
        assert_eq!(fs::read_link(target.join("x/link")).unwrap(), Path::new("/etc/passwd"));
        assert!(unzip(archive(&[("../out", "x")], &[]), &target).is_err());
        // A link that a later file would be written through.
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let through = archive(&[("d/file", "x")], &[("d", outside.to_str().unwrap())]);
        let _ = unzip(through, &target);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(unzip(b"no archive".to_vec(), &target).is_err());
    }

    #[test]
    fn secrets_are_named_by_arn() {
        let named = |given| secret_arn("123456789012/r-1", given);
        assert_eq!(
            named("a/b:key:AWSCURRENT"),
            "arn:aws:secretsmanager:r-1:123456789012:secret:a/b:key:AWSCURRENT"
        );
        assert_eq!(named("arn:aws:x"), "arn:aws:x");
    }
}
