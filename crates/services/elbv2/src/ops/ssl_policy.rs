//! SSL policies: which versions of TLS a listener speaks. The ciphers of each are those that rustls has: all
//! are authenticated and have forward secrecy.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html>

use super::listing::page;
use crate::{ElbV2, api::*, faults};
use wire::{Context, Fault};

/// A policy.
struct Known {
    name: &'static str,
    protocols: &'static [&'static str],
    ciphers: &'static [&'static str],
}

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
/// The one without TLS 1.2.
pub(crate) const ONLY_13: &str = "ELBSecurityPolicy-TLS13-1-3-2021-06";
const ALL: [Known; 2] = [
    Known { name: DEFAULT, protocols: &["TLSv1.2", "TLSv1.3"], ciphers: CIPHERS },
    Known { name: ONLY_13, protocols: &["TLSv1.3"], ciphers: CIPHERS_13 },
];

/// Policies of AWS's that let in more than is spoken here.
fn is_laxer(name: &str) -> bool {
    matches!(
        name,
        "ELBSecurityPolicy-2016-08"
            | "ELBSecurityPolicy-TLS13-1-2-2021-06"
            | "ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06"
            | "ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06"
    )
}

/// The policy of this name, as a listener has it.
pub(super) fn check(name: &str) -> Result<String, Fault> {
    if ALL.iter().any(|known| known.name == name) {
        return Ok(name.to_owned());
    }
    match is_laxer(name) {
        true => Err(faults::not_built(
            &format!("SSL policy {name}"),
            "it lets in ciphers that are not spoken here; use ELBSecurityPolicy-TLS13-1-2-Res-2021-06",
        )),
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
    let wanted = |known: &&Known| {
        input.names.as_ref().is_none_or(|names| names.iter().any(|name| name == known.name))
            && input.load_balancer_type != Some(LoadBalancerTypeEnum::Network)
    };
    let told = |known: &Known| {
        let cipher = |(place, name): (usize, &&str)| Cipher {
            name: Some((*name).to_owned()),
            priority: i32::try_from(place + 1).ok(),
        };
        let policy = SslPolicy {
            name: Some(known.name.to_owned()),
            ssl_protocols: Some(known.protocols.iter().map(|name| (*name).to_owned()).collect()),
            ciphers: Some(known.ciphers.iter().enumerate().map(cipher).collect()),
            supported_load_balancer_types: Some(vec!["application".to_owned()]),
        };
        (known.name.to_owned(), policy)
    };
    let all = ALL.iter().filter(wanted).map(told).collect();
    let (ssl_policies, next_marker) =
        page("DescribeSSLPolicies", input.marker.as_deref(), input.page_size, all)?;
    Ok(DescribeSSLPoliciesOutput { ssl_policies, next_marker })
}
