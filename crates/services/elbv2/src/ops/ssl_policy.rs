//! SSL policies: which versions of TLS a listener speaks. The ciphers of each are those that rustls has: all
//! are authenticated and have forward secrecy. Policies are told with what is spoken here.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html>

use super::listing::page;
use crate::{ElbV2, api::*, faults};
use wire::{Context, Fault};

const CIPHERS_13: &[&str] =
    &["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
const CIPHERS: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
];
/// The one that a listener has unless it names another.
pub(super) const DEFAULT: &str = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06";
/// Those with TLS 1.2 and 1.3. What some of them let in beyond [`CIPHERS`], for clients of long ago, is not spoken
/// here; nor are key exchanges that quantum computers cannot break.
const BOTH: [&str; 7] = [
    DEFAULT,
    "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09",
    "ELBSecurityPolicy-TLS13-1-2-2021-06",
    "ELBSecurityPolicy-TLS13-1-2-PQ-2025-09",
    "ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06",
    "ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06",
    // AWS's default for a listener that is made through the API. TLS 1.0 and 1.1 are not spoken here.
    "ELBSecurityPolicy-2016-08",
];
/// Those without TLS 1.2.
const ONLY_13: [&str; 2] =
    ["ELBSecurityPolicy-TLS13-1-3-2021-06", "ELBSecurityPolicy-TLS13-1-3-PQ-2025-09"];

/// Whether a policy lets TLS 1.3 in only.
pub(crate) fn is_only_13(name: &str) -> bool {
    ONLY_13.contains(&name)
}

/// The policy of this name, as a listener has it.
pub(super) fn check(name: &str) -> Result<String, Fault> {
    match BOTH.contains(&name) || is_only_13(name) {
        true => Ok(name.to_owned()),
        false => Err(faults::no_ssl_policy(name)),
    }
}

pub(crate) async fn describe_ssl_policies(
    _elb: &ElbV2,
    ctx: &Context,
    input: DescribeSSLPoliciesInput,
) -> Result<DescribeSSLPoliciesOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeSSLPolicies", "*")?;
    for name in input.names.iter().flatten() {
        check(name)?;
    }
    let wanted = |known: &&&str| {
        input.names.as_ref().is_none_or(|names| names.iter().any(|name| name == **known))
    };
    let told = |known: &&str| {
        let (protocols, ciphers): (&[&str], _) = match is_only_13(known) {
            true => (&["TLSv1.3"], CIPHERS_13),
            false => (&["TLSv1.2", "TLSv1.3"], CIPHERS),
        };
        let cipher = |(place, name): (usize, &&str)| Cipher {
            name: Some((*name).to_owned()),
            priority: i32::try_from(place + 1).ok(),
        };
        let policy = SslPolicy {
            name: Some((*known).to_owned()),
            ssl_protocols: Some(protocols.iter().map(|name| (*name).to_owned()).collect()),
            ciphers: Some(ciphers.iter().enumerate().map(cipher).collect()),
            supported_load_balancer_types: Some(vec![
                "application".to_owned(),
                "network".to_owned(),
            ]),
        };
        ((*known).to_owned(), policy)
    };
    let all = BOTH.iter().chain(&ONLY_13).filter(wanted).map(told).collect();
    let (ssl_policies, next_marker) =
        page("DescribeSSLPolicies", input.marker.as_deref(), input.page_size, all)?;
    Ok(DescribeSSLPoliciesOutput { ssl_policies, next_marker })
}
