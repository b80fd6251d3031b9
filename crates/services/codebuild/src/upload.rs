//! What is kept of a build: variables that it hands on, and artifacts.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html#build-spec.artifacts>

use crate::{
    CodeBuild,
    api::{
        ArtifactNamespace, ArtifactPackaging, ArtifactsType, BuildArtifacts,
        ExportedEnvironmentVariable, ProjectArtifacts,
    },
    buildspec::Output,
    cache,
    keep::{Found, KeepError, Root, tidy},
    model::Build,
    phases::Why,
    reports, script,
};
use images::{Algorithm, Hasher};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use wire::Principal;
use zip::{ZipWriter, write::SimpleFileOptions};

/// The most that one output holds, in bytes: what S3 takes at once.
const MOST_BYTES: u64 = 5 << 30;
/// The longest value of a variable that is handed on, in bytes.
const LONGEST_VALUE: u64 = 10 << 10;
/// The longest name that a shell works out, in bytes.
const LONGEST_NAME: u64 = 1024;

/// What was kept.
#[derive(Default)]
pub(crate) struct Kept {
    pub exported: Vec<ExportedEnvironmentVariable>,
    pub artifacts: Option<BuildArtifacts>,
    pub secondary: Vec<BuildArtifacts>,
    /// The ARNs of reports.
    pub reports: Vec<String>,
    /// What is to be logged of it.
    pub lines: Vec<String>,
}

fn internal(error: impl std::fmt::Display) -> Why {
    Why::new("INTERNAL_SERVICE_ERROR", error.to_string())
}

/// Reads everything that is to be kept out of a build's container, and puts it where it belongs.
pub(crate) async fn keep(
    service: &CodeBuild,
    build: &Build,
    principal: &Principal,
) -> Result<Kept, Why> {
    let open = || async { service.containers.root(&build.sandbox()).await.map(Root) };
    let root = open().await.map_err(internal)?;
    let mut kept = Kept::default();
    for name in &build.plan.exported {
        let path = PathBuf::from(format!("{}/exported/{name}", script::AGENT));
        let value = root.text(&path, LONGEST_VALUE).unwrap_or_default();
        let variable = ExportedEnvironmentVariable { name: Some(name.clone()), value: Some(value) };
        kept.exported.push(variable);
    }
    kept.reports = reports::make(service, build, principal, &mut kept.lines).await;
    let first_id = service.containers.root_id(&build.sandbox()).unwrap_or_default();
    let cached = open().await.map_err(internal)?;
    kept.lines.extend(cache::save(service, build, principal, cached, first_id).await);
    let main = Wanted {
        identifier: "",
        place: &build.artifacts,
        output: build.plan.artifacts.as_ref(),
        described: build.document.artifacts.clone().unwrap_or_default(),
    };
    kept.artifacts = Some(put(service, build, principal, main, &mut kept.lines).await?);
    for (place, described) in
        build.secondary_artifacts.iter().zip(build.document.secondary_artifacts.iter().flatten())
    {
        let identifier = place.artifact_identifier.as_deref().unwrap_or_default();
        let wanted = Wanted {
            identifier,
            place,
            output: build.plan.secondary.get(identifier),
            described: described.clone(),
        };
        let put = put(service, build, principal, wanted, &mut kept.lines).await?;
        kept.secondary.push(put);
    }
    Ok(kept)
}

/// One output.
struct Wanted<'a> {
    identifier: &'a str,
    place: &'a ProjectArtifacts,
    output: Option<&'a Output>,
    described: BuildArtifacts,
}

/// Where an output is put: a bucket, and a key or the beginning of keys.
fn place(build: &Build, place: &ProjectArtifacts, name: Option<String>) -> (String, String) {
    let bucket = place.location.clone().unwrap_or_default();
    let bucket = bucket.strip_prefix("arn:aws:s3:::").unwrap_or(&bucket).to_owned();
    let own = place.name.clone().filter(|name| !name.is_empty());
    let name = name
        .filter(|_| place.override_artifact_name == Some(true))
        .or(own)
        .unwrap_or_else(|| build.project.clone());
    let id = match place.namespace_type {
        Some(ArtifactNamespace::BuildId) => Some(build.id.clone()),
        _ => None,
    };
    let parts = [place.path.clone(), id, Some(name)];
    let parts = parts.iter().flatten().map(|part| part.trim_matches('/'));
    let key: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    (bucket, key.join("/"))
}

async fn put(
    service: &CodeBuild,
    build: &Build,
    principal: &Principal,
    wanted: Wanted<'_>,
    lines: &mut Vec<String>,
) -> Result<BuildArtifacts, Why> {
    let Wanted { identifier, place: at, output, mut described } = wanted;
    // A pipeline's action without outputs names no place.
    let nowhere = at.r#type == ArtifactsType::Codepipeline && at.location.is_none();
    if at.r#type == ArtifactsType::NoArtifacts || nowhere {
        return Ok(described);
    }
    let client = |message: String| Why::new("CLIENT_ERROR", message);
    let output = output.ok_or_else(|| {
        let which = if identifier.is_empty() { String::new() } else { format!(" {identifier}") };
        client(format!("the buildspec has no artifacts{which}, and the project wants them"))
    })?;
    let root = service.containers.root(&build.sandbox()).await.map_err(internal)?;
    let number = build.plan.names.iter().position(|name| name == identifier);
    let zipped =
        at.packaging == Some(ArtifactPackaging::Zip) || at.r#type == ArtifactsType::Codepipeline;
    let file = service.build_directory(build).join(format!("artifact{identifier}.zip"));
    let reading = Reading {
        root: Root(root),
        source: PathBuf::from(&build.plan.source),
        output: output.clone(),
        number,
        zip: zipped.then(|| file.clone()),
    };
    let read = tokio::task::spawn_blocking(move || reading.read()).await.map_err(internal)?;
    let read = read.map_err(|error| client(error.to_string()))?;
    lines.extend(read.lines);
    let (bucket, key) = place(build, at, read.name);
    let region = build.realm.split_once('/').map_or("", |(_, region)| region);
    let principals = [principal.clone()];
    let refused = |key: &str, why: String| {
        client(format!("the artifact could not be put to s3://{bucket}/{key}: {why}"))
    };
    if zipped {
        let put = service.s3.deliver_file(&principals, region, &bucket, &key, &file).await;
        put.map_err(|why| refused(&key, why))?;
        described.sha256sum = Some(sha256(&file).map_err(internal)?);
    } else {
        for found in &read.found {
            let key = format!("{key}/{}", found.name.display());
            let key = key.trim_start_matches('/');
            let file = service.build_directory(build).join("artifact");
            let (root, path, target) = (read.root.clone(), found.path.clone(), file.clone());
            let copied = tokio::task::spawn_blocking(move || -> io::Result<()> {
                io::copy(&mut root.file(&path)?.take(MOST_BYTES), &mut File::create(target)?)?;
                Ok(())
            });
            copied.await.map_err(internal)?.map_err(internal)?;
            let put = service.s3.deliver_file(&principals, region, &bucket, key, &file).await;
            put.map_err(|why| refused(key, why))?;
        }
    }
    described.location = Some(format!("arn:aws:s3:::{bucket}/{key}"));
    Ok(described)
}

fn sha256(file: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(file)?, Hasher::new(Algorithm::Sha256));
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish().hex().to_owned()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Reading one output out of a container. Blocks.
struct Reading {
    root: Root,
    source: PathBuf,
    output: Output,
    /// The number of its name among those that the shell worked out.
    number: Option<usize>,
    /// Where it is to be packed.
    zip: Option<PathBuf>,
}

struct Outcome {
    root: std::sync::Arc<Root>,
    name: Option<String>,
    found: Vec<Found>,
    lines: Vec<String>,
}

impl Reading {
    fn read(self) -> Result<Outcome, KeepError> {
        let name = self.number.and_then(|number| {
            let path = format!("{}/names/{number}.out", script::AGENT);
            self.root.text(Path::new(&path), LONGEST_NAME).ok()
        });
        let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let base = self.output.base_directory.as_ref().map_or(".", |base| &base.0);
        let mut lines = vec![format!("Expanding base directory path: {base}")];
        let base = tidy(&self.source.join(base));
        let patterns = &self.output.files.0;
        lines.push("Assembling file list".to_owned());
        lines.extend(patterns.iter().map(|pattern| format!("Expanding {pattern}")));
        let links = self.output.enable_symlinks.0 && self.zip.is_some();
        let mut found = self.root.find(&base, patterns, &self.output.exclude_paths.0, links)?;
        lines.push(format!("Found {} file(s)", found.len()));
        if found.is_empty() {
            return Err(KeepError::Nothing);
        }
        if self.output.discard_paths.0 {
            for found in &mut found {
                found.name = found.name.file_name().map(PathBuf::from).unwrap_or_default();
            }
        }
        if let Some(target) = &self.zip {
            pack(&self.root, &found, links, target)?;
        }
        Ok(Outcome { root: std::sync::Arc::new(self.root), name, found, lines })
    }
}

fn pack(root: &Root, found: &[Found], links: bool, target: &Path) -> Result<(), KeepError> {
    let told = |path: &Path| {
        let path = path.display().to_string();
        move |error: &dyn std::fmt::Display| KeepError::Read {
            path,
            source: io::Error::other(error.to_string()),
        }
    };
    let file = File::create(target).map_err(|error| told(target)(&error))?;
    let mut writer = ZipWriter::new(io::BufWriter::new(file));
    let mut left = MOST_BYTES;
    let mut names = std::collections::HashSet::new();
    for found in found {
        let name = found.name.to_string_lossy().into_owned();
        // Without their paths several may have one name; the first is it.
        if !names.insert(name.clone()) {
            continue;
        }
        let link = root.link(&found.path).filter(|_| links);
        if let Some(link) = link {
            let link = link.to_string_lossy().into_owned();
            let added = writer.add_symlink(name, link, SimpleFileOptions::default());
            added.map_err(|error| told(&found.path)(&error))?;
            continue;
        }
        let file = root.file(&found.path).map_err(|error| told(&found.path)(&error))?;
        let about = file.metadata().map_err(|error| told(&found.path)(&error))?;
        let options = SimpleFileOptions::default()
            .unix_permissions(about.permissions().mode() & 0o777)
            .large_file(about.len() >= u64::from(u32::MAX));
        writer.start_file(name, options).map_err(|error| told(&found.path)(&error))?;
        let copied = io::copy(&mut file.take(left + 1), &mut writer);
        let copied = copied.map_err(|error| told(&found.path)(&error))?;
        left = left
            .checked_sub(copied)
            .ok_or_else(|| KeepError::Many(format!("{MOST_BYTES} bytes")))?;
    }
    writer.finish().map_err(|error| told(target)(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_put_where_the_project_says() {
        let build: Build = serde_json::from_value(serde_json::json!({
            "realm": "1/r", "project": "app", "id": "ID", "document": {},
            "artifacts": {"type": "S3"}, "secondary_artifacts": [], "logs": {}, "stage": "Upload",
            "token": null, "asked_by": "", "lost": 0, "stop": false, "cache": 0, "layers": false, "begun": null,
            "plan": {"commands": [], "source": "", "exported": [], "artifacts": null, "secondary": {},
                     "names": [], "cache": []},
            "heard": 0, "succeeded": true,
        }))
        .unwrap();
        let at = |json: serde_json::Value, name: Option<&str>| {
            let artifacts: ProjectArtifacts = serde_json::from_value(json).unwrap();
            place(&build, &artifacts, name.map(str::to_owned)).1
        };
        assert_eq!(at(serde_json::json!({"type": "S3", "location": "b"}), None), "app");
        let whole = serde_json::json!({
            "type": "S3", "location": "b", "path": "/p/q/", "namespaceType": "BUILD_ID", "name": "x.zip",
        });
        assert_eq!(at(whole, Some("ignored")), "p/q/ID/x.zip");
        let named = serde_json::json!({
            "type": "S3", "location": "b", "name": "/", "overrideArtifactName": true,
        });
        assert_eq!(at(named.clone(), Some("of-spec")), "of-spec");
        assert_eq!(at(named, None), "");
    }
}
