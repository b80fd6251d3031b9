//! Volumes of tasks: what ECS asks of EC2. A volume is a file of this machine, which the container engine mounts.

use crate::{
    Ec2,
    model::{Tags, Volume},
};
use std::{io, path::PathBuf};
use store::{DiskFault, Record};

impl Ec2 {
    /// An id for a volume that is to be made.
    pub fn new_volume_id(&self) -> String {
        self.id("vol")
    }

    /// The file of a volume.
    pub fn volume_file(&self, id: &str) -> PathBuf {
        self.volumes.join(id)
    }

    /// The file of a volume while it is made: it gets its name when it is whole.
    pub fn unmade_volume_file(&self, id: &str) -> PathBuf {
        self.volumes.join(format!("{id}.new"))
    }

    /// Makes a volume's record. Doing it again changes nothing. Its file is made by whoever knows what is to be on it.
    pub async fn put_volume(&self, mut volume: Volume) -> Result<(), DiskFault> {
        volume.created = self.world.now();
        self.store
            .write(move |tx| {
                if tx.get::<Volume>(&volume.key()).is_none() {
                    tx.put(volume);
                }
                Ok(())
            })
            .await
    }

    /// Lets go of a volume that a task had: it is kept as it is, or deleted.
    pub async fn release_volume(
        &self,
        realm: &str,
        id: &str,
        delete: bool,
    ) -> Result<(), VolumeError> {
        if delete {
            self.delete_volume_file(id).await?;
        }
        let key = format!("{realm}/{id}");
        self.store
            .write(move |tx| {
                match delete {
                    true => drop(tx.delete::<Volume>(&key)),
                    false => drop(tx.update::<Volume>(&key, |volume| volume.task = None)),
                }
                Ok::<_, VolumeError>(())
            })
            .await
    }

    pub(crate) async fn delete_volume_file(&self, id: &str) -> Result<(), VolumeError> {
        let file = self.volume_file(id);
        // The first is one that a crash left half made.
        for file in [self.unmade_volume_file(id), file] {
            match tokio::fs::remove_file(file).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(VolumeError::File(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Why a volume could not be let go of.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Its file could not be deleted.
    #[error("the volume's file cannot be deleted")]
    File(#[source] io::Error),
    /// The record could not be written.
    #[error("the volume could not be stored")]
    Disk(#[from] DiskFault),
}

/// The tags that ECS gives the volumes of its tasks.
pub fn managed_tags(tags: &mut Tags) {
    for key in ["AmazonECSCreated", "AmazonECSManaged"] {
        tags.insert(key.to_owned(), "true".to_owned());
    }
}
