//! Signatures of letters, by which who gets one can tell it from a stranger's: RSA with SHA-256, SNS's version 2.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>

use crate::{Sns, model::SigningKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rsa::{RsaPrivateKey, pkcs8::EncodePrivateKey};
use store::DiskFault;

/// The key's length.
const BITS: usize = 2048;

/// What signs.
pub(crate) struct Signer {
    key: RsaKeyPair,
    /// The certificate, PEM.
    pub(crate) certificate: String,
}

impl Sns {
    /// What signs; made when the first letter is sent. The error is for people.
    pub(crate) async fn signer(&self) -> Result<&Signer, String> {
        self.signer.get_or_try_init(|| self.make_signer()).await
    }

    async fn make_signer(&self) -> Result<Signer, String> {
        let known = self.store.read().get::<SigningKey>(SigningKey::KEY);
        let (der, certificate) = match known {
            Some(known) => {
                let opened = self.sealer.open(SigningKey::KEY, &known.key);
                (opened.map_err(|error| error.to_string())?, known.certificate.clone())
            }
            None => {
                let made = tokio::task::spawn_blocking(make).await;
                let (der, certificate) = made.map_err(|error| error.to_string())??;
                let key = self.sealer.seal(SigningKey::KEY, &der);
                let record = SigningKey { key, certificate: certificate.clone() };
                let written = self.store.write(move |tx| {
                    tx.put(record);
                    Ok::<_, DiskFault>(())
                });
                written.await.map_err(|error| error.to_string())?;
                (der, certificate)
            }
        };
        let key = RsaKeyPair::from_pkcs8(&der).map_err(|error| error.to_string())?;
        Ok(Signer { key, certificate })
    }
}

/// A key (PKCS #8) and a certificate of it (PEM). Blocks.
fn make() -> Result<(Vec<u8>, String), String> {
    // Ring signs with RSA keys, and does not make them.
    let key = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, BITS).map_err(|e| e.to_string())?;
    let der = key.to_pkcs8_der().map_err(|error| error.to_string())?.as_bytes().to_vec();
    let pair = KeyPair::try_from(der.as_slice()).map_err(|error| error.to_string())?;
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| error.to_string())?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Neargate notifications");
    params.distinguished_name = name;
    let certificate = params.self_signed(&pair).map_err(|error| error.to_string())?;
    Ok((der, certificate.pem()))
}

impl Signer {
    /// The signature of a text, base64.
    pub(crate) fn sign(&self, text: &str) -> Result<String, String> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        let signed =
            self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature);
        signed.map_err(|error| error.to_string())?;
        Ok(STANDARD.encode(signature))
    }
}
