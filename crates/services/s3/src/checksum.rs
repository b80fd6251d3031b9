//! Checksums of contents, and those of objects that were put in parts.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>

use crate::model::{Algorithm, Checksum, Part};
use base64::{Engine, engine::general_purpose::STANDARD};
use crc_fast::CrcAlgorithm;
use s3s::{checksum::ChecksumHasher, crypto::Checksum as _, dto};

/// What is reckoned while a body passes.
pub(crate) struct Digests {
    algorithm: Algorithm,
    hasher: ChecksumHasher,
    md5: s3s::crypto::Md5,
}

/// The MD5 and the checksum of a body.
pub(crate) struct Sums {
    /// 16 bytes.
    pub(crate) md5: [u8; 16],
    pub(crate) checksum: Checksum,
}

impl Digests {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let mut hasher = ChecksumHasher::default();
        match algorithm {
            Algorithm::Crc32 => hasher.crc32 = Some(s3s::crypto::Crc32::new()),
            Algorithm::Crc32c => hasher.crc32c = Some(s3s::crypto::Crc32c::new()),
            Algorithm::Crc64Nvme => hasher.crc64nvme = Some(s3s::crypto::Crc64Nvme::new()),
            Algorithm::Sha1 => hasher.sha1 = Some(s3s::crypto::Sha1::new()),
            Algorithm::Sha256 => hasher.sha256 = Some(s3s::crypto::Sha256::new()),
        }
        Self { algorithm, hasher, md5: s3s::crypto::Md5::new() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.md5.update(bytes);
    }

    pub(crate) fn finish(self) -> Sums {
        let value = of(&self.hasher.finalize(), self.algorithm);
        let value = value.expect("the algorithm that was asked for was reckoned");
        let md5: [u8; 16] = self.md5.finalize();
        Sums { md5, checksum: Checksum { algorithm: self.algorithm, value, composite: false } }
    }
}

/// The value of one algorithm.
pub(crate) fn of(all: &dto::Checksum, algorithm: Algorithm) -> Option<String> {
    match algorithm {
        Algorithm::Crc32 => all.checksum_crc32.clone(),
        Algorithm::Crc32c => all.checksum_crc32c.clone(),
        Algorithm::Crc64Nvme => all.checksum_crc64nvme.clone(),
        Algorithm::Sha1 => all.checksum_sha1.clone(),
        Algorithm::Sha256 => all.checksum_sha256.clone(),
    }
}

/// The checksums that a request holds.
macro_rules! given {
    ($from:expr) => {
        s3s::dto::Checksum {
            checksum_crc32: $from.checksum_crc32.clone(),
            checksum_crc32c: $from.checksum_crc32c.clone(),
            checksum_crc64nvme: $from.checksum_crc64nvme.clone(),
            checksum_sha1: $from.checksum_sha1.clone(),
            checksum_sha256: $from.checksum_sha256.clone(),
            checksum_type: None,
        }
    };
}
pub(crate) use given;

/// In the form in which answers hold it.
pub(crate) fn told(checksum: &Checksum) -> dto::Checksum {
    let mut all = dto::Checksum::default();
    let value = Some(checksum.value.clone());
    match checksum.algorithm {
        Algorithm::Crc32 => all.checksum_crc32 = value,
        Algorithm::Crc32c => all.checksum_crc32c = value,
        Algorithm::Crc64Nvme => all.checksum_crc64nvme = value,
        Algorithm::Sha1 => all.checksum_sha1 = value,
        Algorithm::Sha256 => all.checksum_sha256 = value,
    }
    let kind = if checksum.composite {
        dto::ChecksumType::COMPOSITE
    } else {
        dto::ChecksumType::FULL_OBJECT
    };
    all.checksum_type = Some(dto::ChecksumType::from_static(kind));
    all
}

/// As requests and answers name it.
pub(crate) fn name(algorithm: Algorithm) -> dto::ChecksumAlgorithm {
    dto::ChecksumAlgorithm::from_static(match algorithm {
        Algorithm::Crc32 => dto::ChecksumAlgorithm::CRC32,
        Algorithm::Crc32c => dto::ChecksumAlgorithm::CRC32C,
        Algorithm::Crc64Nvme => dto::ChecksumAlgorithm::CRC64NVME,
        Algorithm::Sha1 => dto::ChecksumAlgorithm::SHA1,
        Algorithm::Sha256 => dto::ChecksumAlgorithm::SHA256,
    })
}

/// The algorithm of a name, in whatever case.
pub(crate) fn named(name: &str) -> Option<Algorithm> {
    match name.to_ascii_uppercase().as_str() {
        "CRC32" => Some(Algorithm::Crc32),
        "CRC32C" => Some(Algorithm::Crc32c),
        "CRC64NVME" => Some(Algorithm::Crc64Nvme),
        "SHA1" => Some(Algorithm::Sha1),
        "SHA256" => Some(Algorithm::Sha256),
        _ => None,
    }
}

/// Whether the parts' checksums can be made one of the whole.
pub(crate) fn combines(algorithm: Algorithm) -> bool {
    crc(algorithm).is_some()
}

fn crc(algorithm: Algorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        Algorithm::Sha1 | Algorithm::Sha256 => None,
    }
}

/// The checksum of an object that consists of these parts.
pub(crate) fn of_parts(parts: &[Part], algorithm: Algorithm, composite: bool) -> Option<Checksum> {
    let raw = |part: &Part| STANDARD.decode(&part.checksum.value).ok();
    if composite {
        let mut digests = Digests::new(algorithm);
        for part in parts {
            digests.update(&raw(part)?);
        }
        let value = format!("{}-{}", digests.finish().checksum.value, parts.len());
        return Some(Checksum { algorithm, value, composite });
    }
    let kind = crc(algorithm)?;
    let mut sum = 0;
    for (index, part) in parts.iter().enumerate() {
        let number = raw(part)?.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        sum = match index {
            0 => number,
            _ => crc_fast::checksum_combine(kind, sum, number, part.piece.size),
        };
    }
    let bytes = match kind {
        CrcAlgorithm::Crc64Nvme => sum.to_be_bytes().to_vec(),
        _ => u32::try_from(sum).ok()?.to_be_bytes().to_vec(),
    };
    Some(Checksum { algorithm, value: STANDARD.encode(bytes), composite })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Piece;
    use world::Timestamp;

    fn sum(algorithm: Algorithm, bytes: &[u8]) -> Sums {
        let mut digests = Digests::new(algorithm);
        digests.update(bytes);
        digests.finish()
    }

    #[test]
    fn parts_amount_to_the_whole() {
        let whole = b"a whole that is put in parts";
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<Part> = [&whole[..7], &whole[7..8], &whole[8..]]
                .iter()
                .enumerate()
                .map(|(index, bytes)| Part {
                    upload: String::new(),
                    number: index as i32 + 1,
                    piece: Piece { id: String::new(), size: bytes.len() as u64 },
                    md5: String::new(),
                    modified: Timestamp::from_millis(0),
                    checksum: sum(algorithm, bytes).checksum,
                })
                .collect();
            let of_parts = of_parts(&parts, algorithm, false).unwrap();
            assert_eq!(of_parts, sum(algorithm, whole).checksum);
        }
    }

    #[test]
    fn known_checksums() {
        // The check values of the CRC catalogue, of "123456789".
        let value = |algorithm| sum(algorithm, b"123456789").checksum.value;
        assert_eq!(value(Algorithm::Crc32), STANDARD.encode([0xcb, 0xf4, 0x39, 0x26]));
        assert_eq!(value(Algorithm::Crc32c), STANDARD.encode([0xe3, 0x06, 0x92, 0x83]));
        assert_eq!(
            value(Algorithm::Crc64Nvme),
            STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_be_bytes())
        );
    }
}
