//! What builds of a project leave for the next ones: layers of images, and files that their buildspecs name.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/build-caching.html>

use crate::{
    CodeBuild,
    api::CacheType,
    check,
    keep::{KeepError, Root},
    model::Build,
};
use images::Digest;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Cursor, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use wire::{Context, Principal};

/// How large the disk is that layers are kept on, in bytes; it takes the room that is written.
const DISK_BYTES: u64 = 64 << 30;
/// The largest archive of cached files that is put to S3, in bytes: it passes through memory when it is fetched.
const MOST_S3_BYTES: u64 = 256 << 20;
/// The largest that is kept here.
const MOST_LOCAL_BYTES: u64 = 4 << 30;
/// Where images and layers are in a container.
const CONTAINERS: &str = "/var/lib/containers";
const LAYERS: &str = "layers.disk";
const FILES: &str = "files.tar";
/// Which start of the machine a disk is of: it may be damaged after the next.
const BOOT: &str = "boot";

fn digits(realm: &str, project: &str) -> String {
    Digest::of(format!("{realm}/{project}").as_bytes()).hex()[..24].to_owned()
}

/// Where a project's caches are, as far as a build may use them.
fn directory(service: &CodeBuild, build: &Build) -> PathBuf {
    let name = format!("{}-{}", digits(&build.realm, &build.project), build.cache);
    service.directory.join("cache").join(name)
}

/// Removes a project's caches; those of `but`, a directory's name, stay.
fn sweep(service: &CodeBuild, digits: &str, but: Option<&str>) -> io::Result<()> {
    for entry in fs::read_dir(service.directory.join("cache"))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(digits) && Some(&*name) != but {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Forgets what was cached of a project.
pub(crate) fn forget(service: &CodeBuild, realm: &str, project: &str) {
    if let Err(error) = sweep(service, &digits(realm, project), None) {
        tracing::warn!(project, %error, "a project's caches cannot be removed");
    }
}

/// The disks of a build that makes images: the one that its project keeps, or one of its own. Blocks.
pub(crate) fn disks(service: &CodeBuild, build: &Build) -> io::Result<Vec<(PathBuf, String)>> {
    let image = match build.layers {
        true => {
            let directory = directory(service, build);
            fs::create_dir_all(&directory)?;
            let name = directory.file_name().map(|name| name.to_string_lossy().into_owned());
            sweep(service, &digits(&build.realm, &build.project), name.as_deref())?;
            let image = directory.join(LAYERS);
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
            if fs::read_to_string(directory.join(BOOT)).is_ok_and(|known| known == boot)
                && image.exists()
            {
                return Ok(vec![(image, CONTAINERS.to_owned())]);
            }
            fs::write(directory.join(BOOT), boot)?;
            image
        }
        false => {
            let directory = service.build_directory(build);
            fs::create_dir_all(&directory)?;
            directory.join(LAYERS)
        }
    };
    runtime::make_disk(&image, DISK_BYTES, runtime::Filesystem::Scratch)?;
    Ok(vec![(image, CONTAINERS.to_owned())])
}

/// Bucket and key of what is cached of a build's project in S3.
fn object(build: &Build) -> Option<(String, String)> {
    let cache = build.document.cache.as_ref().filter(|cache| cache.r#type == CacheType::S3)?;
    let (bucket, prefix) = check::bucket_and_prefix(cache.location.as_deref()?)?;
    let slash = if prefix.is_empty() { "" } else { "/" };
    Some((bucket.to_owned(), format!("{prefix}{slash}{}-{}.tar", build.project, build.cache)))
}

fn is_local(build: &Build) -> bool {
    check::keeps_directories(build.document.cache.as_ref())
}

/// Lays what was cached over the image. What cannot be used is left out: a cache is no part of a build's source.
pub(crate) async fn restore(service: &CodeBuild, build: &Build, ctx: &Context, layer: &Path) {
    let archive: Box<dyn Read + Send> = if let Some((bucket, key)) = object(build) {
        match service.s3.bytes(ctx, &bucket, &key, MOST_S3_BYTES).await {
            Ok(bytes) => Box::new(Cursor::new(bytes)),
            Err(reason) => {
                tracing::debug!(build = build.name(), reason, "no cache");
                return;
            }
        }
    } else if is_local(build)
        && let Ok(file) = File::open(directory(service, build).join(FILES))
    {
        Box::new(file)
    } else {
        return;
    };
    let layer = layer.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || unpack(archive, &layer)).await;
    if let Err(error) = unpacked.map_err(io::Error::other).flatten() {
        tracing::warn!(build = build.name(), %error, "a build's cache cannot be used");
    }
}

fn unpack(archive: impl Read, layer: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_permissions(true);
    for entry in archive.entries()? {
        // Never beyond the layer, by its name or by a link in the layer.
        entry?.unpack_in(layer)?;
    }
    Ok(())
}

/// Keeps the files that the buildspec names. Answers what is to be logged of it.
pub(crate) async fn save(
    service: &CodeBuild,
    build: &Build,
    principal: &Principal,
    root: Root,
    first_id: u32,
) -> Vec<String> {
    let place = object(build);
    if build.plan.cache.is_empty() || (place.is_none() && !is_local(build)) {
        return Vec::new();
    }
    let most = if place.is_some() { MOST_S3_BYTES } else { MOST_LOCAL_BYTES };
    let fresh = service.build_directory(build).join(FILES);
    let (source, patterns, target) =
        (PathBuf::from(&build.plan.source), build.plan.cache.clone(), fresh.clone());
    let packed = tokio::task::spawn_blocking(move || {
        pack(&root, &source, &patterns, first_id, most, &target)
    });
    let saved = async {
        let count = packed.await.map_err(|error| error.to_string())?;
        let count = count.map_err(|error| error.to_string())?;
        match place {
            Some((bucket, key)) => {
                let region = build.realm.split_once('/').map_or("", |(_, region)| region);
                let principals = [principal.clone()];
                service.s3.deliver_file(&principals, region, &bucket, &key, &fresh).await?;
            }
            None => {
                let directory = directory(service, build);
                let moved = fs::create_dir_all(&directory)
                    .and_then(|()| fs::rename(&fresh, directory.join(FILES)));
                moved.map_err(|error| error.to_string())?;
            }
        }
        Ok::<_, String>(count)
    };
    match saved.await {
        Ok(count) => vec![format!("Cached {count} file(s)")],
        Err(why) => vec![format!("The cache could not be kept: {why}")],
    }
}

/// An archive of files with the ids that they have inside; how many there are.
fn pack(
    root: &Root,
    source: &Path,
    patterns: &[String],
    first_id: u32,
    most: u64,
    target: &Path,
) -> Result<usize, KeepError> {
    let found = root.find(source, patterns, &[], true)?;
    let told = |path: &Path| {
        let path = path.display().to_string();
        move |source: io::Error| KeepError::Read { path, source }
    };
    let file = File::create(target).map_err(told(target))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    let mut left = most;
    for found in &found {
        let path = found.path.strip_prefix("/").unwrap_or(&found.path);
        let mut header = tar::Header::new_gnu();
        if let Some(link) = root.link(&found.path) {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            header.set_uid(0);
            header.set_gid(0);
            archive.append_link(&mut header, path, link).map_err(told(path))?;
            continue;
        }
        let file = root.file(&found.path).map_err(told(path))?;
        let about = file.metadata().map_err(told(path))?;
        left = left
            .checked_sub(about.len())
            .ok_or_else(|| KeepError::Many(format!("{most} bytes")))?;
        header.set_size(about.len());
        header.set_mode(about.mode() & 0o7777);
        header.set_mtime(about.mtime().unsigned_abs());
        header.set_uid(about.uid().saturating_sub(first_id).into());
        header.set_gid(about.gid().saturating_sub(first_id).into());
        // As long as it was when it was looked at, whatever the build does to it meanwhile.
        let content = file.take(about.len()).chain(io::repeat(0)).take(about.len());
        archive.append_data(&mut header, path, content).map_err(told(path))?;
    }
    let mut file = archive.into_inner().map_err(told(target))?;
    file.flush().map_err(told(target))?;
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn what_is_packed_is_laid_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("root/.cache")).unwrap();
        fs::write(inside.join("root/.cache/a"), "x").unwrap();
        fs::set_permissions(inside.join("root/.cache/a"), fs::Permissions::from_mode(0o750))
            .unwrap();
        symlink("a", inside.join("root/.cache/l")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = Root(rustix::fs::open(&inside, flags, Mode::empty()).unwrap());
        let target = dir.path().join("cache.tar");
        let patterns = ["/root/.cache/**/*".to_owned()];
        let own = fs::metadata(&inside).unwrap().uid();
        assert_eq!(pack(&root, Path::new("/root"), &patterns, own, 100, &target).unwrap(), 2);
        assert!(pack(&root, Path::new("/root"), &patterns, own, 0, &target).is_err());
        pack(&root, Path::new("/root"), &patterns, own, 100, &target).unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir(&layer).unwrap();
        unpack(File::open(&target).unwrap(), &layer).unwrap();
        let a = layer.join("root/.cache/a");
        assert_eq!(fs::read_to_string(&a).unwrap(), "x");
        assert_eq!(a.metadata().unwrap().mode() & 0o777, 0o750);
        assert_eq!(fs::read_link(layer.join("root/.cache/l")).unwrap(), Path::new("a"));
    }
}
