//! Certificates of listeners.

use super::{find::find, listing::page};
use crate::{ElbV2, api::*, faults, model::Listener as Record};
use std::sync::Arc;
use store::Tx;
use wire::{Context, Fault};

/// The most certificates of a listener, the default one aside.
const MOST: usize = 25;

/// The ARNs that a request names.
fn arns(certificates: Vec<Certificate>) -> Result<Vec<String>, Fault> {
    if certificates.iter().any(|certificate| certificate.is_default.is_some()) {
        return Err(faults::invalid("IsDefault can't be given for a certificate in a request"));
    }
    let arn = |certificate: Certificate| {
        certificate
            .certificate_arn
            .ok_or_else(|| faults::invalid("A certificate ARN must be specified"))
    };
    certificates.into_iter().map(arn).collect()
}

/// Whether the certificates are there.
fn check(tx: &Tx, realm: &str, arns: &[String]) -> Result<(), Fault> {
    for arn in arns {
        let id = arn.rsplit('/').next().unwrap_or_default();
        let found = tx.get::<acm::model::Certificate>(&acm::model::Certificate::key_of(realm, id));
        if found.is_none_or(|found| found.arn() != *arn) {
            return Err(faults::no_certificate(arn));
        }
    }
    Ok(())
}

/// The default certificate and the SSL policy that a listener is to have; what is not given stays.
pub(super) fn secure(
    tx: &Tx,
    listener: &mut Record,
    certificates: Option<Vec<Certificate>>,
    policy: Option<String>,
) -> Result<(), Fault> {
    if !listener.is_secured() {
        if certificates.is_some_and(|all| !all.is_empty()) || policy.is_some() {
            return Err(faults::invalid(
                "A certificate and an SSL policy can be specified for HTTPS and TLS listeners only",
            ));
        }
        (listener.certificates, listener.ssl_policy) = (Vec::new(), None);
        return Ok(());
    }
    if let Some(given) = certificates {
        let given = arns(given)?;
        check(tx, &listener.realm, &given)?;
        match &given[..] {
            [one] => {
                listener.certificates.retain(|known| known != one);
                let others = listener.certificates.split_off(listener.certificates.len().min(1));
                listener.certificates = [vec![one.clone()], others].concat();
            }
            _ => {
                return Err(faults::invalid(
                    "You must specify exactly one certificate as the default certificate",
                ));
            }
        }
    }
    if listener.certificates.is_empty() {
        return Err(faults::certificate_needed(listener.protocol.as_str()));
    }
    let policy = policy.or(listener.ssl_policy.take());
    let policy = policy.as_deref().unwrap_or(super::ssl_policy::DEFAULT);
    listener.ssl_policy = Some(super::ssl_policy::check(policy)?);
    Ok(())
}

fn answer(listener: &Record) -> Vec<(String, Certificate)> {
    let told = |(place, arn): (usize, &String)| {
        let certificate =
            Certificate { certificate_arn: Some(arn.clone()), is_default: Some(place == 0) };
        (format!("{place:05}"), certificate)
    };
    listener.certificates.iter().enumerate().map(told).collect()
}

pub(crate) async fn add_listener_certificates(
    elb: &ElbV2,
    ctx: &Context,
    input: AddListenerCertificatesInput,
) -> Result<AddListenerCertificatesOutput, Fault> {
    let arn = input.listener_arn;
    ctx.authorise("elasticloadbalancing:AddListenerCertificates", &arn)?;
    let (realm, new) = (ctx.realm(), arns(input.certificates)?);
    let written = elb.store.write(move |tx| {
        let mut listener = Arc::unwrap_or_clone(find::<Record>(tx, &realm, &arn)?);
        if !listener.is_secured() {
            return Err(faults::invalid(
                "Certificates can be added to HTTPS and TLS listeners only",
            ));
        }
        check(tx, &realm, &new)?;
        for arn in new {
            if !listener.certificates.contains(&arn) {
                listener.certificates.push(arn);
            }
        }
        if listener.certificates.len() > MOST + 1 {
            return Err(faults::too_many("TooManyCertificates", "certificates", MOST));
        }
        let told = answer(&listener);
        tx.put(listener);
        Ok::<_, Fault>(told)
    });
    let certificates = written.await?.into_iter().map(|(_, told)| told).collect();
    Ok(AddListenerCertificatesOutput { certificates: Some(certificates) })
}

pub(crate) async fn remove_listener_certificates(
    elb: &ElbV2,
    ctx: &Context,
    input: RemoveListenerCertificatesInput,
) -> Result<RemoveListenerCertificatesOutput, Fault> {
    let arn = input.listener_arn;
    ctx.authorise("elasticloadbalancing:RemoveListenerCertificates", &arn)?;
    let (realm, old) = (ctx.realm(), arns(input.certificates)?);
    let written = elb.store.write(move |tx| {
        let mut listener = Arc::unwrap_or_clone(find::<Record>(tx, &realm, &arn)?);
        if listener.certificates.first().is_some_and(|default| old.contains(default)) {
            return Err(faults::not_permitted("The default certificate cannot be removed"));
        }
        listener.certificates.retain(|known| !old.contains(known));
        tx.put(listener);
        Ok::<_, Fault>(())
    });
    written.await?;
    Ok(RemoveListenerCertificatesOutput {})
}

pub(crate) async fn describe_listener_certificates(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeListenerCertificatesInput,
) -> Result<DescribeListenerCertificatesOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeListenerCertificates", "*")?;
    let listener = find::<Record>(&elb.store.read(), &ctx.realm(), &input.listener_arn)?;
    let (certificates, next_marker) = page(
        "DescribeListenerCertificates",
        input.marker.as_deref(),
        input.page_size,
        answer(&listener),
    )?;
    Ok(DescribeListenerCertificatesOutput { certificates, next_marker })
}
