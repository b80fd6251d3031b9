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

/// AWS's defaults for a group that speaks `group`, with checks that speak `check`.
fn defaults(group: ProtocolEnum, check: ProtocolEnum) -> HealthCheck {
    let timeout_seconds = match (group, check) {
        (_, ProtocolEnum::Tcp) => 10,
        (ProtocolEnum::Tcp, _) => 6,
        _ => 5,
    };
    let (path, matcher) = match (group, check) {
        (_, ProtocolEnum::Tcp) => ("", ""),
        (ProtocolEnum::Tcp, _) => ("/", "200-399"),
        _ => ("/", "200"),
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

/// The health check of a group that speaks `group` and has `old` now, once `wanted` is done.
pub(super) fn health_check(
    group: ProtocolEnum,
    old: Option<&HealthCheck>,
    wanted: Wanted,
) -> Result<HealthCheck, Fault> {
    if wanted.enabled == Some(false) {
        let message = "Health check enabled must be true for target groups with target type 'ip'";
        return Err(faults::invalid(message));
    }
    let now = old.map_or(group, |old| old.protocol);
    let protocol = wanted.protocol.unwrap_or(now);
    check_protocol(group, protocol)?;
    let defaults = defaults(group, protocol);
    let mut check = old.cloned().unwrap_or_else(|| defaults.clone());
    if check.protocol != protocol {
        // What one protocol's checks have says nothing of the other's.
        (check.path, check.matcher) = (defaults.path, defaults.matcher);
        check.protocol = protocol;
    }
    let http_code = wanted.matcher.map(|matcher| matcher.http_code.unwrap_or_default());
    if protocol == ProtocolEnum::Tcp {
        for (given, what) in [(wanted.path.is_some(), "path"), (http_code.is_some(), "matcher")] {
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
    check.matcher = http_code.unwrap_or(check.matcher);
    validate(group, &check)?;
    Ok(check)
}

fn check_protocol(group: ProtocolEnum, check: ProtocolEnum) -> Result<(), Fault> {
    match check {
        ProtocolEnum::Http => Ok(()),
        ProtocolEnum::Tcp if group == ProtocolEnum::Tcp => Ok(()),
        ProtocolEnum::Https => Err(faults::not_built(
            "health check protocol HTTPS",
            "health checks over TLS are not built yet",
        )),
        other => {
            let all = if group == ProtocolEnum::Tcp { "HTTP, HTTPS, TCP" } else { "HTTP, HTTPS" };
            let other = other.as_str();
            Err(faults::invalid(format!("Health check protocol '{other}' must be one of '{all}'")))
        }
    }
}

/// Bounds of single members are the model's; these are between members.
fn validate(group: ProtocolEnum, check: &HealthCheck) -> Result<(), Fault> {
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

fn check_matcher(group: ProtocolEnum, matcher: &str) -> Result<(), Fault> {
    let most = if group == ProtocolEnum::Tcp { 599 } else { 499 };
    let code = |text: &str| {
        let code = text.parse::<u16>().ok().filter(|_| text.len() == 3);
        code.filter(|code| (200..=most).contains(code))
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
                "Health check matcher HTTP code '{matcher}' must be within '200-{most}' inclusive"
            );
            Err(faults::invalid(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: ProtocolEnum = ProtocolEnum::Http;
    const TCP: ProtocolEnum = ProtocolEnum::Tcp;

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
        assert_eq!((tcp.protocol, tcp.timeout_seconds, tcp.path.as_str()), (TCP, 10, ""));
        let mixed = Wanted { protocol: Some(HTTP), ..Wanted::default() };
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
        ] {
            assert_eq!(check_matcher(group, code).is_ok(), good, "{code}");
        }
        let path = |path: &str| Wanted { path: Some(path.to_owned()), ..Wanted::default() };
        for (group, wanted) in [
            (HTTP, Wanted { interval_seconds: Some(5), ..Wanted::default() }),
            (HTTP, Wanted { protocol: Some(TCP), ..Wanted::default() }),
            (HTTP, Wanted { port: Some("0".to_owned()), ..Wanted::default() }),
            (HTTP, Wanted { enabled: Some(false), ..Wanted::default() }),
            (HTTP, path("x")),
            (HTTP, path("/a b")),
            (TCP, path("/")),
            (TCP, Wanted { matcher: matcher("200"), ..Wanted::default() }),
        ] {
            assert_eq!(health_check(group, None, wanted).unwrap_err().code, "ValidationError");
        }
    }
}
