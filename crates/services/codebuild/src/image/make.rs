//! Putting the image together: one layer of Debian packages, one of files of ours.

use super::{ImageError, MANIFEST};
use images::{Algorithm, BlobStore, Digest, Hasher, Platform};
use serde_json::{Value as Json, json};
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// The Debian release; its packages know `AWS_ENDPOINT_URL` and build images in user namespaces.
const SUITE: &str = "trixie";
const PACKAGES: &str = "awscli,buildah,ca-certificates,curl,git,jq,make,nodejs,openssh-client,podman,python3,\
                        python3-pip,unzip,zip";
/// What of packages nobody reads in a build.
const LEFT_OUT: [&str; 3] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"];
/// Files of ours: path, mode, content.
const FILES: [(&str, u32, &str); 5] = [
    ("usr/local/bin/docker", 0o755, include_str!("docker.sh")),
    ("usr/local/bin/dockerd", 0o755, include_str!("dockerd.sh")),
    (
        "etc/containers/containers.conf",
        0o644,
        "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n",
    ),
    (
        "etc/containers/storage.conf",
        0o644,
        "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers\"\n\
         graphroot = \"/var/lib/containers/storage\"\n",
    ),
    (
        "etc/containers/registries.conf",
        0o644,
        "unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"permissive\"\n",
    ),
];
const ENVIRONMENT: [&str; 6] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C.UTF-8",
    // No containers within the container, and images as docker makes them.
    "BUILDAH_ISOLATION=chroot",
    "BUILDAH_FORMAT=docker",
    // Mounts of a container keep flags that may not be changed in it, which buildah's pivot would.
    "BUILDAH_NOPIVOT=1",
    "PODMAN_IGNORE_CGROUPSV1_WARNING=1",
];
/// The most of mmdebstrap's last words that are told.
const LAST_WORDS: usize = 10;

/// What it is made of, so that another recipe is another image.
fn recipe() -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for text in [SUITE, PACKAGES].into_iter().chain(LEFT_OUT).chain(ENVIRONMENT) {
        hasher.update(text.as_bytes());
    }
    for (path, mode, content) in FILES {
        hasher.update(format!("{path} {mode} {content}").as_bytes());
    }
    hasher.finish()
}

/// Where the image's digest is written down when it is whole.
fn note(directory: &Path) -> PathBuf {
    directory.join(format!("{}.digest", recipe().hex()))
}

/// The image that was made earlier.
pub(super) fn known(directory: &Path) -> Option<Digest> {
    fs::read_to_string(note(directory)).ok()?.parse().ok()
}

/// A layer: its digest as it is kept, its size, and its digest as it is unpacked.
struct Layer {
    digest: Digest,
    size: u64,
    unpacked: Digest,
}

/// Makes it. Answers the manifest's digest.
pub(super) async fn make(
    directory: &Path,
    blobs: &BlobStore,
    tell: impl Fn(String) + Send + Sync + 'static,
) -> Result<Digest, ImageError> {
    let path = directory.join("packages");
    let file = |error| ImageError::File(directory.to_owned(), error);
    let (scratch, target) = (directory.join("scratch"), path.clone());
    let packages = tokio::task::spawn_blocking(move || packages(&scratch, &target, &tell));
    let packages = packages.await.map_err(|error| file(io::Error::other(error)))??;
    let mut upload = blobs.start().await?;
    let mut compressed = tokio::fs::File::open(&path).await.map_err(file)?;
    loop {
        let mut piece = bytes::BytesMut::with_capacity(1 << 20);
        if tokio::io::AsyncReadExt::read_buf(&mut compressed, &mut piece).await.map_err(file)? == 0
        {
            break;
        }
        upload.append(piece.freeze()).await?;
    }
    upload.finish(&packages.digest).await?;
    fs::remove_file(&path).map_err(file)?;
    let own = own_files().map_err(file)?;
    let digest = Digest::of(&own);
    let size = own.len() as u64;
    blobs.put(&digest, own.into()).await?;
    let own = Layer { unpacked: digest.clone(), digest, size };
    let platform = Platform::host();
    let config = json!({
        "architecture": platform.architecture, "os": platform.os,
        "config": {"Env": ENVIRONMENT, "WorkingDir": "/", "Cmd": ["/bin/bash"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": [packages.unpacked.to_string(), own.unpacked.to_string()],
        },
    });
    let config = put(blobs, &config).await?;
    let layer = |kind: &str, layer: &Layer| {
        json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.{kind}"),
            "digest": layer.digest.to_string(), "size": layer.size,
        })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.0.to_string(), "size": config.1,
        },
        "layers": [layer("tar+zstd", &packages), layer("tar", &own)],
    });
    let (manifest, _) = put(blobs, &manifest).await?;
    let fresh = note(directory).with_extension("new");
    let mut written = File::create(&fresh).map_err(file)?;
    written.write_all(manifest.to_string().as_bytes()).map_err(file)?;
    written.sync_all().map_err(file)?;
    fs::rename(fresh, note(directory)).map_err(file)?;
    Ok(manifest)
}

async fn put(blobs: &BlobStore, document: &Json) -> Result<(Digest, usize), ImageError> {
    let bytes = document.to_string().into_bytes();
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    blobs.put(&digest, bytes.into()).await?;
    Ok((digest, size))
}

/// An archive of [`FILES`].
fn own_files() -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, content) in FILES {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    archive.into_inner()
}

/// Has mmdebstrap make the packages' layer, compressed, at `target`. Blocks.
fn packages(
    scratch: &Path,
    target: &Path,
    tell: &(impl Fn(String) + Sync),
) -> Result<Layer, ImageError> {
    let file = |error| ImageError::File(target.to_owned(), error);
    // What an attempt before this left, which the control plane did not outlive.
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => fs::create_dir_all(scratch).map_err(file)?,
    }
    tell(format!(
        "Putting the build image together from packages of Debian {SUITE} (once): {PACKAGES}"
    ));
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--variant=minbase", "--include", PACKAGES]);
    command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.args([SUITE, "-"]).env("TMPDIR", scratch);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(ImageError::Program)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(file(io::Error::other("mmdebstrap has no output")));
    };
    let (layer, words) = thread::scope(|scope| {
        let told = scope.spawn(|| words(stderr, tell));
        let layer = compress(stdout, target).map_err(file);
        (layer, told.join().unwrap_or_default())
    });
    let status = child.wait().map_err(file)?;
    if !status.success() {
        return Err(ImageError::Failed(words.join("; ")));
    }
    tell("The build image is there.".to_owned());
    layer
}

/// Tells what mmdebstrap does; answers its last words.
fn words(stderr: impl Read, tell: &impl Fn(String)) -> Vec<String> {
    let mut last: Vec<String> = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // Its bars are for terminals.
        let line = line.rsplit('\r').next().unwrap_or_default().trim().to_owned();
        if line.is_empty() || line == "done" {
            continue;
        }
        if last.len() == LAST_WORDS {
            last.remove(0);
        }
        last.push(line.clone());
        tell(line);
    }
    last
}

/// Both sides of what a compressor writes: the file, and its digest and size.
struct Counted {
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn compress(mut input: impl Read, target: &Path) -> io::Result<Layer> {
    let hasher = || Hasher::new(Algorithm::Sha256);
    let output = Counted { file: File::create(target)?, hasher: hasher(), size: 0 };
    let mut output = zstd::Encoder::new(output, 1)?;
    let (mut unpacked, mut buffer) = (hasher(), vec![0; 256 << 10]);
    loop {
        match input.read(&mut buffer)? {
            0 => break,
            read => {
                unpacked.update(&buffer[..read]);
                output.write_all(&buffer[..read])?;
            }
        }
    }
    let Counted { hasher, size, .. } = output.finish()?;
    Ok(Layer { digest: hasher.finish(), size, unpacked: unpacked.finish() })
}
