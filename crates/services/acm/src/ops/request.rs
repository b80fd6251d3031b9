//! Certificates that are asked for: issued at once, for nobody has to prove here whose a domain is.
//! <https://docs.aws.amazon.com/acm/latest/APIReference/API_RequestCertificate.html>

use crate::{
    Acm,
    api::*,
    faults, issue,
    model::{Authority, Certificate, Request},
    read,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::Record;
use wire::{Context, Fault};
use world::Timestamp;

/// How long a token makes two requests one.
const TOKEN_VALID: Duration = Duration::from_secs(3600);
/// A subject's common name can be no longer (RFC 5280, appendix A.1); further names can.
const LONGEST_FIRST_NAME: usize = 64;
/// AWS's default quota of names.
const MOST_NAMES: usize = 10;

pub(crate) async fn request_certificate(
    acm: &Acm,
    ctx: &Context,
    input: RequestCertificateRequest,
) -> Result<RequestCertificateResponse, Fault> {
    ctx.authorise("acm:RequestCertificate", &ctx.arn("acm", "certificate/*"))?;
    if input.key_algorithm.is_some_and(|algorithm| algorithm != KeyAlgorithm::EcPrime256v1) {
        let message = "Neargate does not support this KeyAlgorithm: keys are of EC_prime256v1.";
        return Err(faults::validation(message));
    }
    if input.domain_name.len() > LONGEST_FIRST_NAME {
        return Err(faults::validation(format!(
            "The first domain name can have a maximum of {LONGEST_FIRST_NAME} characters."
        )));
    }
    let mut names = vec![input.domain_name.to_lowercase()];
    for name in input.subject_alternative_names.into_iter().flatten() {
        let name = name.to_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MOST_NAMES {
        return Err(faults::too_many_names(MOST_NAMES));
    }
    let tags = super::tag::read(input.tags)?;
    let authority = authority(acm, ctx.now).await?;
    let request = Request {
        token: input.idempotency_token,
        by_dns: input.validation_method != Some(ValidationMethod::Email),
        proof_name: format!("_{}", acm.world.hex(32)),
        proof_value: format!("_{}", acm.world.hex(32)),
    };
    let realm = ctx.realm();
    let made = make(acm, &authority, (&realm, acm.world.uuid()), names, ctx.now)?;
    let made = Certificate { tags, request: Some(request), ..made };
    let now = ctx.now;
    let write = acm.store.write(move |tx| {
        let same = tx.scan_prefix::<Certificate>(&format!("{realm}/")).find(|before| {
            let token = before.request.as_ref().and_then(|request| request.token.as_ref());
            token.is_some()
                && token == made.request.as_ref().and_then(|request| request.token.as_ref())
                && before.names == made.names
                && now < before.created + TOKEN_VALID
        });
        let arn = same.map_or_else(|| made.arn(), |before| before.arn());
        if arn == made.arn() {
            tx.put(made);
        }
        Ok::<_, Fault>(arn)
    });
    Ok(RequestCertificateResponse { certificate_arn: Some(write.await?) })
}

/// A new certificate for `names` in a realm and with an id, not kept yet.
fn make(
    acm: &Acm,
    authority: &Authority,
    (realm, id): (&str, String),
    names: Vec<String>,
    now: Timestamp,
) -> Result<Certificate, Fault> {
    let issued =
        issue::issue(acm, authority, &names, now).map_err(|error| faults::issue(&error))?;
    let chain = authority.certificate.as_bytes();
    let (body, key) = (issued.certificate, issued.key);
    let known = read::read(body.as_bytes(), key.as_bytes(), Some(chain), now);
    let known = known.map_err(|malformed| faults::validation(malformed.to_string()))?;
    Ok(Certificate {
        realm: realm.to_owned(),
        body,
        chain: Some(authority.certificate.clone()),
        key: acm.sealer.seal(&id, key.as_bytes()),
        id,
        domain: names[0].clone(),
        names,
        serial: known.serial,
        subject: known.subject,
        issuer: known.issuer,
        not_before: known.not_before,
        not_after: known.not_after,
        key_algorithm: known.key_algorithm,
        signature_algorithm: known.signature_algorithm,
        imported: now,
        created: now,
        tags: BTreeMap::new(),
        request: None,
    })
}

/// The machine's authority, made when there is none.
async fn authority(acm: &Acm, now: Timestamp) -> Result<Arc<Authority>, Fault> {
    if let Some(authority) = acm.store.read().get::<Authority>(Authority::KEY) {
        return Ok(authority);
    }
    let made = issue::authority(now).map_err(|error| faults::issue(&error))?;
    let key = acm.sealer.seal(Authority::KEY, made.key.as_bytes());
    let made = Authority { certificate: made.certificate, key };
    let write = acm.store.write(move |tx| {
        // Another request may have made one meanwhile; all certificates are of one authority.
        if tx.get::<Authority>(Authority::KEY).is_none() {
            tx.put(made);
        }
        Ok::<_, Fault>(tx.get::<Authority>(Authority::KEY).expect("it was put if it was not there"))
    });
    write.await
}

/// Issues anew what ends soon. What fails is told, and tried again a day later.
pub(crate) async fn renew(acm: &Acm) {
    let now = acm.world.now();
    let snapshot = acm.store.read();
    let Some(authority) = snapshot.get::<Authority>(Authority::KEY) else { return };
    let due = |certificate: &Arc<Certificate>| {
        certificate.request.is_some() && certificate.not_after < now + issue::RENEWED
    };
    for before in snapshot.scan::<Certificate>().filter(due) {
        let arn = before.arn();
        if let Err(fault) = renew_one(acm, &authority, &before, now).await {
            tracing::error!(arn, fault = fault.message, "a certificate was not issued anew");
        }
    }
}

async fn renew_one(
    acm: &Acm,
    authority: &Authority,
    before: &Certificate,
    now: Timestamp,
) -> Result<(), Fault> {
    let place = (before.realm.as_str(), before.id.clone());
    let made = make(acm, authority, place, before.names.clone(), now)?;
    let record = before.key();
    let write = acm.store.write(move |tx| {
        tx.update::<Certificate>(&record, |certificate| {
            *certificate = Certificate {
                created: certificate.created,
                tags: std::mem::take(&mut certificate.tags),
                request: certificate.request.take(),
                ..made
            };
        });
        Ok::<_, Fault>(())
    });
    write.await
}

/// What AWS tells of how the owner of each name was made sure of.
pub(crate) fn validations(certificate: &Certificate, request: &Request) -> Vec<DomainValidation> {
    let told = certificate.names.iter().map(|name| {
        let bare = name.strip_prefix("*.").unwrap_or(name);
        DomainValidation {
            domain_name: Some(name.clone()),
            validation_domain: Some(name.clone()),
            validation_status: Some(DomainStatus::Success),
            validation_method: Some(match request.by_dns {
                true => ValidationMethod::Dns,
                false => ValidationMethod::Email,
            }),
            resource_record: request.by_dns.then(|| ResourceRecord {
                name: Some(format!("{}.{bare}.", request.proof_name)),
                r#type: Some(RecordType::Cname),
                value: Some(format!("{}.acm-validations.aws.", request.proof_value)),
            }),
            ..DomainValidation::default()
        }
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Sealer, Store};
    use world::World;

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_issued_anew_before_it_ends_and_not_sooner() {
        let world = World::simulated(1, Timestamp::from_millis(1_790_000_000_000));
        let store = Store::in_memory(world.clone());
        let sealer = Arc::new(Sealer::in_memory(world.clone()));
        let acm = Acm::new(store.clone(), world.clone(), sealer).expect("an empty store reads");
        let authority = authority(&acm, world.now()).await.expect("an authority is made");
        let names = vec!["a.example".to_owned(), "*.b.example".to_owned()];
        let request = Request {
            token: None,
            by_dns: true,
            proof_name: "_a".to_owned(),
            proof_value: "_b".to_owned(),
        };
        let made = make(&acm, &authority, ("1/here", world.uuid()), names.clone(), world.now());
        let made = Certificate { request: Some(request), ..made.expect("it is issued") };
        let (arn, key, first) = (made.arn(), made.key(), made.serial.clone());
        let write = store.write(move |tx| {
            tx.put(made);
            Ok::<_, store::DiskFault>(())
        });
        write.await.expect("memory takes it");
        let serial = || acm.store.read().get::<Certificate>(&key).expect("kept").serial.clone();

        world.sleep(issue::VALID - issue::RENEWED - Duration::from_secs(60)).await;
        renew(&acm).await;
        assert_eq!(serial(), first, "it is good for long yet");
        world.sleep(Duration::from_secs(120)).await;
        renew(&acm).await;
        assert_ne!(serial(), first, "it is another");

        let served = acm.served("1/here", &arn).expect("its key opens under the same ARN");
        let [body, chain] = [&served.chain_pem, &authority.certificate].map(|pem| pem.as_bytes());
        let own = body.split_inclusive(|byte| *byte == b'\n');
        let end = |line: &&[u8]| !line.starts_with(b"-----END");
        let lines = own.clone().take_while(end).count() + 1;
        let own: Vec<u8> = own.take(lines).flatten().copied().collect();
        let known = read::read(&own, served.key_pem.as_bytes(), Some(chain), world.now());
        let known = known.expect("key, certificate and authority belong together");
        assert_eq!(known.names, names);
        assert!(world.now() + issue::RENEWED < known.not_after);
    }
}
