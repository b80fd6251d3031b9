//! How a target group's targets are looked after: AWS's defaults and bounds.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html>

use crate::{api::*, faults, model::HealthCheck};
use wire::Fault;

/// What a request says of health checks.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) enabled: Option<bool>,
    pub(super) protocol: Option<ProtocolEnum>,
    pub(super) port: Option<String>,
    pub(super) path: Option<String>,
    pub(super) interval_seconds: Option<i32>,
    pub(super) timeout_seconds: Option<i32>,
    pub(super) healthy: Option<i32>,
    pub(super) unhealthy: Option<i32>,
    pub(super) matcher: Option<Matcher>,
}

/// What kind of requests a group's targets answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// HTTP of an Application Load Balancer.
    Http,
    /// Remote procedure calls of one.
    Grpc,
    /// Connections of a Network Load Balancer.
    Network,
}

impl Family {
    pub(super) fn of(protocol: ProtocolEnum, version: Option<&str>) -> Self {
        match (protocol, version) {
            (ProtocolEnum::Http | ProtocolEnum::Https, Some("GRPC")) => Self::Grpc,
            (ProtocolEnum::Http | ProtocolEnum::Https, _) => Self::Http,
            _ => Self::Network,
        }
    }
}

/// AWS's defaults for a group of a kind, with checks that speak `check`.
fn defaults(group: Family, check: ProtocolEnum) -> HealthCheck {
    let timeout_seconds = match (group, check) {
        (_, ProtocolEnum::Tcp) => 10,
        (Family::Network, _) => 6,
        _ => 5,
    };
    let (path, matcher) = match (group, check) {
        (_, ProtocolEnum::Tcp) => ("", ""),
        (Family::Network, _) => ("/", "200-399"),
        (Family::Grpc, _) => ("/AWS.ALB/healthcheck", "12"),
        (Family::Http, _) => ("/", "200"),
    };
    HealthCheck {
        protocol: check,
        port: "traffic-port".to_owned(),
        path: path.to_owned(),
        interval_seconds: 30,
        timeout_seconds,
        healthy: 5,
        unhealthy: 2,
        matcher: matcher.to_owned(),
    }
}

/// The health check of a group of a kind that has `old` now, once `wanted` is done.
pub(super) fn health_check(
    group: Family,
    old: Option<&HealthCheck>,
    wanted: Wanted,
) -> Result<HealthCheck, Fault> {
    if wanted.enabled == Some(false) {
        let message = "Health check enabled must be true for target groups with target type 'ip'";
        return Err(faults::invalid(message));
    }
    let first = if group == Family::Network { ProtocolEnum::Tcp } else { ProtocolEnum::Http };
    let protocol = wanted.protocol.unwrap_or(old.map_or(first, |old| old.protocol));
    check_protocol(group, protocol)?;
    let defaults = defaults(group, protocol);
    let mut check = old.cloned().unwrap_or_else(|| defaults.clone());
    let is_tcp = |protocol| protocol == ProtocolEnum::Tcp;
    if is_tcp(check.protocol) != is_tcp(protocol) {
        // What one protocol's checks have says nothing of the other's.
        (check.path, check.matcher) = (defaults.path, defaults.matcher);
    }
    check.protocol = protocol;
    let matcher = wanted.matcher.map(|matcher| code_in(group, matcher)).transpose()?;
    if is_tcp(protocol) {
        for (given, what) in [(wanted.path.is_some(), "path"), (matcher.is_some(), "matcher")] {
            if given {
                let message = format!(
                    "Health check {what} is not supported for health checks with protocol 'TCP'"
                );
                return Err(faults::invalid(message));
            }
        }
    }
    check.port = wanted.port.unwrap_or(check.port);
    check.path = wanted.path.unwrap_or(check.path);
    check.interval_seconds = wanted.interval_seconds.unwrap_or(check.interval_seconds);
    check.timeout_seconds = wanted.timeout_seconds.unwrap_or(check.timeout_seconds);
    check.healthy = wanted.healthy.unwrap_or(check.healthy);
    check.unhealthy = wanted.unhealthy.unwrap_or(check.unhealthy);
    check.matcher = matcher.unwrap_or(check.matcher);
    validate(group, &check)?;
    Ok(check)
}

/// The codes of a matcher, of which there is one kind only.
fn code_in(group: Family, matcher: Matcher) -> Result<String, Fault> {
    match (group, matcher.http_code, matcher.grpc_code) {
        (Family::Grpc, None, Some(code)) => Ok(code),
        (Family::Grpc, ..) => Err(faults::invalid(
            "Health check matcher GrpcCode, and no HttpCode, must be specified for target groups with protocol \
             version 'GRPC'",
        )),
        (_, http, None) => Ok(http.unwrap_or_default()),
        (_, _, Some(_)) => Err(faults::invalid(
            "Health check matcher GrpcCode is supported for target groups with protocol version 'GRPC' only",
        )),
    }
}

fn check_protocol(group: Family, check: ProtocolEnum) -> Result<(), Fault> {
    match check {
        ProtocolEnum::Http | ProtocolEnum::Https => Ok(()),
        ProtocolEnum::Tcp if group == Family::Network => Ok(()),
        other => {
            let all = if group == Family::Network { "HTTP, HTTPS, TCP" } else { "HTTP, HTTPS" };
            let other = other.as_str();
            Err(faults::invalid(format!("Health check protocol '{other}' must be one of '{all}'")))
        }
    }
}

/// Bounds of single members are the model's; these are between members.
fn validate(group: Family, check: &HealthCheck) -> Result<(), Fault> {
    if check.interval_seconds <= check.timeout_seconds {
        return Err(faults::invalid("Health check interval must be greater than the timeout."));
    }
    let port = check.port.as_str();
    if port != "traffic-port" && !port.parse::<u16>().is_ok_and(|port| port > 0) {
        let port: String = port.chars().take(64).collect();
        let message = format!("Health check port '{port}' must be 'traffic-port' or 1 to 65535");
        return Err(faults::invalid(message));
    }
    if check.protocol == ProtocolEnum::Tcp {
        return Ok(());
    }
    // The path becomes part of a request.
    if !check.path.starts_with('/') || !check.path.chars().all(|c| c.is_ascii_graphic()) {
        let path: String = check.path.chars().take(256).collect();
        let message =
            format!("Health check path '{path}' must be a valid path that begins with '/'");
        return Err(faults::invalid(message));
    }
    check_matcher(group, &check.matcher)
}

fn check_matcher(group: Family, matcher: &str) -> Result<(), Fault> {
    let (kind, least, most) = match group {
        Family::Http => ("HTTP", 200, 499),
        Family::Network => ("HTTP", 200, 599),
        Family::Grpc => ("gRPC", 0, 99),
    };
    let code = |text: &str| {
        let plain = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|code| plain && (least..=most).contains(code))
    };
    let good = matcher.split(',').all(|part| match part.split_once('-') {
        Some((from, to)) => code(from).zip(code(to)).is_some_and(|(from, to)| from <= to),
        None => code(part).is_some(),
    });
    match good {
        true => Ok(()),
        false => {
            let matcher: String = matcher.chars().take(64).collect();
            let message = format!(
                "Health check matcher {kind} code '{matcher}' must be within '{least}-{most}' inclusive"
            );
            Err(faults::invalid(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: Family = Family::Http;
    const TCP: Family = Family::Network;
    const GRPC: Family = Family::Grpc;

    fn matcher(code: &str) -> Option<Matcher> {
        Some(Matcher { http_code: Some(code.to_owned()), grpc_code: None })
    }

    #[test]
    fn defaults_are_awss() {
        let http = health_check(HTTP, None, Wanted::default()).unwrap();
        assert_eq!(
            (http.timeout_seconds, http.path.as_str(), http.matcher.as_str()),
            (5, "/", "200")
        );
        let tcp = health_check(TCP, None, Wanted::default()).unwrap();
        assert_eq!(
            (tcp.protocol, tcp.timeout_seconds, tcp.path.as_str()),
            (ProtocolEnum::Tcp, 10, "")
        );
        let grpc = health_check(GRPC, None, Wanted::default()).unwrap();
        assert_eq!((grpc.path.as_str(), grpc.matcher.as_str()), ("/AWS.ALB/healthcheck", "12"));
        let mixed = Wanted { protocol: Some(ProtocolEnum::Http), ..Wanted::default() };
        let mixed = health_check(TCP, Some(&tcp), mixed).unwrap();
        assert_eq!((mixed.path.as_str(), mixed.matcher.as_str()), ("/", "200-399"));
    }

    #[test]
    fn bounds() {
        for (group, code, good) in [
            (HTTP, "200,202", true),
            (HTTP, "200-299,404", true),
            (HTTP, "500", false),
            (TCP, "500", true),
            (HTTP, "299-200", false),
            (HTTP, "", false),
            (HTTP, "200,", false),
            (HTTP, "+200", false),
            (GRPC, "0-16,99", true),
            (GRPC, "200", false),
        ] {
            assert_eq!(check_matcher(group, code).is_ok(), good, "{code}");
        }
        let path = |path: &str| Wanted { path: Some(path.to_owned()), ..Wanted::default() };
        for (group, wanted) in [
            (HTTP, Wanted { interval_seconds: Some(5), ..Wanted::default() }),
            (HTTP, Wanted { protocol: Some(ProtocolEnum::Tcp), ..Wanted::default() }),
            (HTTP, Wanted { port: Some("0".to_owned()), ..Wanted::default() }),
            (HTTP, Wanted { enabled: Some(false), ..Wanted::default() }),
            (HTTP, path("x")),
            (HTTP, path("/a b")),
            (TCP, path("/")),
            (TCP, Wanted { matcher: matcher("200"), ..Wanted::default() }),
            (GRPC, Wanted { matcher: matcher("200"), ..Wanted::default() }),
        ] {
            assert_eq!(health_check(group, None, wanted).unwrap_err().code, "ValidationError");
        }
    }
}
