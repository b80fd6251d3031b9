//! Certificates.

use super::find;
use crate::{Acm, api::*, faults, model::Certificate, read};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault, Page};

/// The most that are listed at once.
const MOST_LISTED: i32 = 1000;

fn pem(bytes: &[u8]) -> Result<String, Fault> {
    let text = String::from_utf8(bytes.to_vec());
    text.map_err(|_| faults::validation("The certificate field must be in PEM format."))
}

pub(crate) async fn import_certificate(
    acm: &Acm,
    ctx: &Context,
    input: ImportCertificateRequest,
) -> Result<ImportCertificateResponse, Fault> {
    let before = match &input.certificate_arn {
        Some(arn) => Some(find(acm, ctx, "ImportCertificate", arn)?),
        None => {
            ctx.authorise("acm:ImportCertificate", &ctx.arn("acm", "certificate/*"))?;
            None
        }
    };
    if before.as_ref().is_some_and(|before| before.request.is_some()) {
        return Err(faults::validation("A certificate that was issued here cannot be imported."));
    }
    if before.is_some() && input.tags.is_some() {
        return Err(faults::validation("You cannot apply tags when reimporting a certificate."));
    }
    let chain = input.certificate_chain.as_deref();
    let known = read::read(&input.certificate, &input.private_key, chain, ctx.now);
    let known = known.map_err(|malformed| faults::validation(malformed.to_string()))?;
    if before.as_ref().is_some_and(|before| before.domain != known.domain) {
        return Err(faults::validation(
            "The certificate that is imported anew must be for the same domain.",
        ));
    }
    let id = before.as_ref().map_or_else(|| acm.world.uuid(), |before| before.id.clone());
    let tags = super::tag::read(input.tags)?;
    let certificate = Certificate {
        realm: ctx.realm(),
        body: pem(&input.certificate)?,
        chain: chain.map(pem).transpose()?,
        key: acm.sealer.seal(&id, &input.private_key),
        id,
        domain: known.domain,
        names: known.names,
        serial: known.serial,
        subject: known.subject,
        issuer: known.issuer,
        not_before: known.not_before,
        not_after: known.not_after,
        key_algorithm: known.key_algorithm,
        signature_algorithm: known.signature_algorithm,
        imported: ctx.now,
        created: before.as_ref().map_or(ctx.now, |before| before.created),
        tags: before.map_or(tags, |before| before.tags.clone()),
        request: None,
    };
    let arn = certificate.arn();
    let write = acm.store.write(move |tx| {
        tx.put(certificate);
        Ok::<_, Fault>(())
    });
    write.await?;
    Ok(ImportCertificateResponse { certificate_arn: Some(arn) })
}

fn status(certificate: &Certificate, now: world::Timestamp) -> CertificateStatus {
    match now < certificate.not_after {
        true => CertificateStatus::Issued,
        false => CertificateStatus::Expired,
    }
}

fn kind(certificate: &Certificate) -> CertificateType {
    match certificate.request {
        Some(_) => CertificateType::AmazonIssued,
        None => CertificateType::Imported,
    }
}

fn eligibility(certificate: &Certificate) -> RenewalEligibility {
    match certificate.request {
        Some(_) => RenewalEligibility::Eligible,
        None => RenewalEligibility::Ineligible,
    }
}

pub(crate) async fn describe_certificate(
    acm: &Acm,
    ctx: &Context,
    input: DescribeCertificateRequest,
) -> Result<DescribeCertificateResponse, Fault> {
    let found = find(acm, ctx, "DescribeCertificate", &input.certificate_arn)?;
    let certificate = CertificateDetail {
        certificate_arn: Some(found.arn()),
        domain_name: Some(found.domain.clone()),
        subject_alternative_names: Some(found.names.clone()),
        serial: Some(found.serial.clone()),
        subject: Some(found.subject.clone()),
        issuer: Some(found.issuer.clone()),
        created_at: Some(found.created),
        imported_at: found.request.is_none().then_some(found.imported),
        issued_at: found.request.is_some().then_some(found.imported),
        domain_validation_options: found
            .request
            .as_ref()
            .map(|request| super::request::validations(&found, request)),
        status: Some(status(&found, ctx.now)),
        not_before: Some(found.not_before),
        not_after: Some(found.not_after),
        key_algorithm: KeyAlgorithm::parse(&found.key_algorithm),
        signature_algorithm: Some(found.signature_algorithm.clone()),
        in_use_by: Some(acm.users(&found.arn())),
        r#type: Some(kind(&found)),
        renewal_eligibility: Some(eligibility(&found)),
        ..CertificateDetail::default()
    };
    Ok(DescribeCertificateResponse { certificate: Some(certificate) })
}

fn summary(acm: &Acm, found: &Certificate, now: world::Timestamp) -> CertificateSummary {
    CertificateSummary {
        certificate_arn: Some(found.arn()),
        domain_name: Some(found.domain.clone()),
        subject_alternative_name_summaries: Some(found.names.clone()),
        has_additional_subject_alternative_names: Some(false),
        status: Some(status(found, now)),
        r#type: Some(kind(found)),
        key_algorithm: KeyAlgorithm::parse(&found.key_algorithm),
        in_use: Some(!acm.users(&found.arn()).is_empty()),
        renewal_eligibility: Some(eligibility(found)),
        not_before: Some(found.not_before),
        not_after: Some(found.not_after),
        created_at: Some(found.created),
        imported_at: found.request.is_none().then_some(found.imported),
        issued_at: found.request.is_some().then_some(found.imported),
        ..CertificateSummary::default()
    }
}

pub(crate) async fn list_certificates(
    acm: &Acm,
    ctx: &Context,
    input: ListCertificatesRequest,
) -> Result<ListCertificatesResponse, Fault> {
    ctx.authorise("acm:ListCertificates", "*")?;
    let snapshot = acm.store.read();
    // Without a filter, AWS lists RSA_1024 and RSA_2048 only.
    // What was issued would be of RSA_2048 there.
    let asked = input.includes.and_then(|includes| includes.key_types);
    let usual = [KeyAlgorithm::Rsa1024, KeyAlgorithm::Rsa2048];
    let wanted = |certificate: &Arc<Certificate>| {
        let kind = KeyAlgorithm::parse(&certificate.key_algorithm);
        let status = status(certificate, ctx.now);
        let listed = match &asked {
            Some(kinds) => kind.is_some_and(|kind| kinds.contains(&kind)),
            None => certificate.request.is_some() || kind.is_some_and(|kind| usual.contains(&kind)),
        };
        listed && input.certificate_statuses.as_ref().is_none_or(|all| all.contains(&status))
    };
    let own = snapshot.scan_prefix::<Certificate>(&format!("{}/", ctx.realm())).filter(wanted);
    let mut own: Vec<Arc<Certificate>> = own.collect();
    let descending = input.sort_order == Some(SortOrder::Descending);
    // The key of a page grows in the order that is asked for.
    let order = |certificate: &Certificate| {
        let age = certificate.created.millis();
        let age = if descending { i64::MAX - age } else { age };
        format!("{age:020}/{}", certificate.id)
    };
    own.sort_by_cached_key(|certificate| order(certificate));
    let size = usize::try_from(input.max_items.unwrap_or(MOST_LISTED).clamp(1, MOST_LISTED));
    let all = own.iter().map(|found| (order(found), summary(acm, found, ctx.now)));
    let page = Page::take("certificates", input.next_token.as_deref(), size.unwrap_or(1), all);
    let page = page.map_err(|_| faults::bad_token())?;
    Ok(ListCertificatesResponse {
        certificate_summary_list: Some(page.items),
        next_token: page.next_token,
    })
}

pub(crate) async fn get_certificate(
    acm: &Acm,
    ctx: &Context,
    input: GetCertificateRequest,
) -> Result<GetCertificateResponse, Fault> {
    let found = find(acm, ctx, "GetCertificate", &input.certificate_arn)?;
    Ok(GetCertificateResponse {
        certificate: Some(found.body.clone()),
        certificate_chain: found.chain.clone(),
    })
}

pub(crate) async fn delete_certificate(
    acm: &Acm,
    ctx: &Context,
    input: DeleteCertificateRequest,
) -> Result<(), Fault> {
    let found = find(acm, ctx, "DeleteCertificate", &input.certificate_arn)?;
    if !acm.users(&found.arn()).is_empty() {
        return Err(faults::in_use(&found.arn()));
    }
    let key = found.key();
    let write = acm.store.write(move |tx| match tx.delete::<Certificate>(&key) {
        true => Ok(()),
        false => Err(faults::no_certificate(&input.certificate_arn)),
    });
    write.await
}
