//! What a listener or a rule does with a request. Actions are stored with what AWS fills in, so that they are answered
//! as they are stored.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-listeners.html>

use super::find::{find, uses};
use crate::{
    api::*,
    faults,
    model::{LoadBalancer, TargetGroup as Group},
};
use std::collections::BTreeSet;
use store::View;
use wire::Fault;

/// The most target groups of one action.
const MOST_GROUPS: usize = 5;
/// The most target groups that one load balancer sends to.
const MOST_GROUPS_OF_BALANCER: usize = 100;
const MOST_WEIGHT: i32 = 999;
/// The longest stickiness, in seconds.
const MOST_STICKINESS_S: i32 = 604_800;
const CONTENT_TYPES: [&str; 5] =
    ["text/plain", "text/css", "text/html", "application/javascript", "application/json"];
/// The longest part of a redirect.
const MOST_PART: usize = 128;

/// The ARNs of the target groups that actions forward to.
pub(super) fn forwarded(actions: &[Action]) -> impl Iterator<Item = &str> {
    let configs = actions.iter().filter_map(|action| action.forward_config.as_ref());
    let groups = configs.flat_map(|config| config.target_groups.iter().flatten());
    groups.filter_map(|group| group.target_group_arn.as_deref())
}

/// Actions as they are stored. `port` is the listener's.
pub(super) fn normalise(
    kind: LoadBalancerTypeEnum,
    port: u16,
    actions: Vec<Action>,
) -> Result<Vec<Action>, Fault> {
    if actions.is_empty() {
        return Err(faults::invalid("At least one action must be specified"));
    }
    for action in &actions {
        let unbuilt = matches!(
            action.r#type,
            ActionTypeEnum::AuthenticateCognito
                | ActionTypeEnum::AuthenticateOidc
                | ActionTypeEnum::JwtValidation
        );
        if unbuilt {
            let what = format!("actions of type {}", action.r#type.as_str());
            let reason = "actions that authenticate are not built yet";
            return Err(faults::not_built(&what, reason));
        }
    }
    // Only actions that authenticate can come before the one that answers.
    let [action] = <[Action; 1]>::try_from(actions).map_err(|_| {
        faults::invalid_action(
            "Only one of the action types 'forward', 'redirect' and 'fixed-response' can be \
             specified, and it must be the last action",
        )
    })?;
    if kind == LoadBalancerTypeEnum::Network && action.r#type != ActionTypeEnum::Forward {
        let message = format!(
            "Listeners of Network Load Balancers do not support actions of type '{}'",
            action.r#type.as_str()
        );
        return Err(faults::invalid_action(message));
    }
    check_members(&action)?;
    let action = match action.r#type {
        ActionTypeEnum::Redirect => redirect(port, action)?,
        ActionTypeEnum::FixedResponse => fixed_response(action)?,
        _ => forward(kind, action)?,
    };
    Ok(vec![action])
}

/// An action must have what its type needs and nothing else.
fn check_members(action: &Action) -> Result<(), Fault> {
    let kind = action.r#type;
    let members = [
        (action.redirect_config.is_some(), ActionTypeEnum::Redirect, "RedirectConfig"),
        (
            action.fixed_response_config.is_some(),
            ActionTypeEnum::FixedResponse,
            "FixedResponseConfig",
        ),
        (action.forward_config.is_some(), ActionTypeEnum::Forward, "ForwardConfig"),
        (action.target_group_arn.is_some(), ActionTypeEnum::Forward, "TargetGroupArn"),
    ];
    for (given, of, name) in members {
        if given && kind != of {
            let message =
                format!("{name} cannot be specified for an action of type '{}'", kind.as_str());
            return Err(faults::invalid_action(message));
        }
    }
    match members.iter().any(|(given, ..)| *given) {
        true => Ok(()),
        false => {
            let message =
                format!("An action of type '{}' must have its configuration", kind.as_str());
            Err(faults::invalid(message))
        }
    }
}

fn forward(kind: LoadBalancerTypeEnum, mut action: Action) -> Result<Action, Fault> {
    let config = action.forward_config.take();
    let (groups, sticky) = config.map_or_else(Default::default, |config| {
        (config.target_groups.unwrap_or_default(), config.target_group_stickiness_config)
    });
    let groups = match action.target_group_arn.take() {
        Some(arn) if groups.is_empty() => {
            vec![TargetGroupTuple { target_group_arn: Some(arn), weight: None }]
        }
        Some(arn) if groups.len() != 1 || groups[0].target_group_arn.as_ref() != Some(&arn) => {
            let message = "If both TargetGroupArn and ForwardConfig are specified, ForwardConfig \
                           must have the same target group only";
            return Err(faults::invalid(message));
        }
        _ => groups,
    };
    if groups.is_empty() || groups.len() > MOST_GROUPS {
        let message = format!("A forward action must have 1 to {MOST_GROUPS} target groups");
        return Err(faults::invalid(message));
    }
    let mut seen = BTreeSet::new();
    let mut filled = Vec::new();
    for group in groups {
        let Some(arn) = group.target_group_arn else {
            return Err(faults::invalid("A target group ARN must be specified"));
        };
        if !seen.insert(arn.clone()) {
            let message = format!("Target group '{arn}' is specified more than once in an action");
            return Err(faults::invalid(message));
        }
        let weight = group.weight.unwrap_or(1);
        if !(0..=MOST_WEIGHT).contains(&weight) {
            let message =
                format!("Target group weight '{weight}' must be between '0' and '{MOST_WEIGHT}'");
            return Err(faults::invalid(message));
        }
        filled.push(TargetGroupTuple { target_group_arn: Some(arn), weight: Some(weight) });
    }
    if let [only] = filled.as_slice() {
        action.target_group_arn.clone_from(&only.target_group_arn);
    }
    action.forward_config = Some(ForwardActionConfig {
        target_groups: Some(filled),
        target_group_stickiness_config: Some(stickiness(kind, sticky)?),
    });
    Ok(action)
}

fn stickiness(
    kind: LoadBalancerTypeEnum,
    given: Option<TargetGroupStickinessConfig>,
) -> Result<TargetGroupStickinessConfig, Fault> {
    let given = given.unwrap_or_default();
    let enabled = given.enabled.unwrap_or(false);
    if enabled && kind == LoadBalancerTypeEnum::Network {
        let message = "Target group stickiness is not supported for Network Load Balancers";
        return Err(faults::invalid_action(message));
    }
    let in_range = |seconds: i32| (1..=MOST_STICKINESS_S).contains(&seconds);
    match given.duration_seconds {
        Some(seconds) if !in_range(seconds) => Err(faults::invalid(format!(
            "Target group stickiness duration must be between 1 and {MOST_STICKINESS_S} seconds"
        ))),
        None if enabled => Err(faults::invalid(
            "Target group stickiness duration must be specified when stickiness is enabled",
        )),
        duration_seconds => {
            Ok(TargetGroupStickinessConfig { enabled: Some(enabled), duration_seconds })
        }
    }
}

fn redirect(port: u16, mut action: Action) -> Result<Action, Fault> {
    let Some(given) = action.redirect_config.take() else { return Ok(action) };
    let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
    let protocol = or(given.protocol, "#{protocol}");
    let to_port = or(given.port, "#{port}");
    let host = or(given.host, "#{host}");
    let path = or(given.path, "/#{path}");
    let query = or(given.query, "#{query}");
    if to_port != "#{port}" && !to_port.parse::<u16>().is_ok_and(|port| port > 0) {
        let message = format!("The redirect port '{to_port}' must be 1 to 65535 or #{{port}}");
        return Err(faults::invalid(message));
    }
    check_part("host", &host, &["host"])?;
    check_part("path", &path, &["host", "path", "port"])?;
    check_part("query", &query, &["protocol", "host", "port", "path", "query"])?;
    if !path.starts_with('/') {
        let message = format!("The redirect path '{path}' must start with '/'");
        return Err(faults::invalid(message));
    }
    if query.starts_with('?') {
        let message = format!("The redirect query '{query}' must not start with '?'");
        return Err(faults::invalid(message));
    }
    // Only HTTP listeners have redirects, so HTTP is what the request came with.
    let same_protocol = protocol == "#{protocol}" || protocol == "HTTP";
    let same_port = to_port == "#{port}" || to_port == port.to_string();
    if same_protocol && same_port && host == "#{host}" && path == "/#{path}" {
        let message = "The redirect configuration is not valid because it creates a loop.";
        return Err(faults::invalid_action(message));
    }
    action.redirect_config = Some(RedirectActionConfig {
        protocol: Some(protocol),
        port: Some(to_port),
        host: Some(host),
        path: Some(path),
        query: Some(query),
        status_code: given.status_code,
    });
    Ok(action)
}

/// A part of a redirect becomes part of a header: it must be plain text whose placeholders are known.
fn check_part(what: &str, text: &str, known: &[&str]) -> Result<(), Fault> {
    let bad = |why: &str| {
        let text: String = text.chars().take(256).collect();
        Err(faults::invalid(format!("The redirect {what} '{text}' is not valid: {why}")))
    };
    if text.len() > MOST_PART {
        return bad("it is longer than 128 characters");
    }
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return bad("it has characters that a URL cannot have");
    }
    for rest in text.split("#{").skip(1) {
        match rest.split_once('}') {
            Some((name, _)) if known.contains(&name) => {}
            _ => return bad("it has a placeholder that is not known here"),
        }
    }
    Ok(())
}

fn fixed_response(action: Action) -> Result<Action, Fault> {
    let config = action.fixed_response_config.as_ref();
    match config.and_then(|config| config.content_type.as_deref()) {
        Some(kind) if !kind.is_empty() && !CONTENT_TYPES.contains(&kind) => {
            let all = CONTENT_TYPES.join(", ");
            let message = format!("The content type '{kind}' must be one of '{all}'");
            Err(faults::invalid(message))
        }
        _ => Ok(action),
    }
}

/// Whether the target groups of `actions` can be `balancer`'s.
pub(super) fn check_groups(
    view: &impl View,
    balancer: &LoadBalancer,
    protocol: ProtocolEnum,
    actions: &[Action],
) -> Result<(), Fault> {
    let realm = &balancer.realm;
    let uses = uses(view, realm);
    let mut of_balancer: BTreeSet<&str> = uses
        .iter()
        .filter(|(_, balancers)| balancers.contains(&balancer.id))
        .map(|(group, _)| group.as_str())
        .collect();
    for arn in forwarded(actions) {
        let group = find::<Group>(view, realm, arn).map_err(|fault| match fault.code.as_ref() {
            "TargetGroupNotFound" => faults::no_target_group_in_action(arn),
            _ => fault,
        })?;
        let (listener, targets) = (protocol.as_str(), group.protocol.as_str());
        let fits = match protocol {
            ProtocolEnum::Http | ProtocolEnum::Https => {
                matches!(group.protocol, ProtocolEnum::Http | ProtocolEnum::Https)
            }
            ProtocolEnum::Tls => matches!(group.protocol, ProtocolEnum::Tcp | ProtocolEnum::Tls),
            ProtocolEnum::Tcp | ProtocolEnum::Udp => {
                [protocol, ProtocolEnum::TcpUdp].contains(&group.protocol)
            }
            other => group.protocol == other,
        };
        if !fits {
            return Err(faults::incompatible(arn, listener, targets));
        }
        let version = group.protocol_version.as_deref();
        if protocol == ProtocolEnum::Http
            && let Some(version @ ("HTTP2" | "GRPC")) = version
        {
            return Err(faults::invalid_configuration(format!(
                "Listener protocol 'HTTP' is not supported with a target group with the protocol-version '{version}'"
            )));
        }
        if group.vpc != balancer.vpc {
            let message = format!(
                "The following target groups are not in the same VPC as load balancer '{}': {arn}",
                balancer.arn()
            );
            return Err(faults::invalid_configuration(message));
        }
        let mut others = uses.get(arn).into_iter().flatten();
        if others.any(|other| *other != balancer.id) {
            return Err(faults::shared_target_group(arn));
        }
        of_balancer.insert(arn);
    }
    match of_balancer.len() > MOST_GROUPS_OF_BALANCER {
        true => Err(faults::too_many(
            "TooManyUniqueTargetGroupsPerLoadBalancer",
            "target groups per load balancer",
            MOST_GROUPS_OF_BALANCER,
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(kind: ActionTypeEnum) -> Action {
        Action {
            r#type: kind,
            target_group_arn: None,
            authenticate_oidc_config: None,
            authenticate_cognito_config: None,
            order: None,
            redirect_config: None,
            fixed_response_config: None,
            forward_config: None,
            jwt_validation_config: None,
        }
    }

    fn forward_to(groups: &[(&str, Option<i32>)]) -> Action {
        let tuple = |(arn, weight): &(&str, Option<i32>)| TargetGroupTuple {
            target_group_arn: Some((*arn).to_owned()),
            weight: *weight,
        };
        let target_groups = Some(groups.iter().map(tuple).collect());
        let config = ForwardActionConfig { target_groups, target_group_stickiness_config: None };
        Action { forward_config: Some(config), ..action(ActionTypeEnum::Forward) }
    }

    fn redirect_to(change: impl FnOnce(&mut RedirectActionConfig)) -> Action {
        let mut config = RedirectActionConfig {
            protocol: None,
            port: None,
            host: None,
            path: None,
            query: None,
            status_code: RedirectActionStatusCodeEnum::Http301,
        };
        change(&mut config);
        Action { redirect_config: Some(config), ..action(ActionTypeEnum::Redirect) }
    }

    fn application(actions: Vec<Action>) -> Result<Vec<Action>, Fault> {
        normalise(LoadBalancerTypeEnum::Application, 80, actions)
    }

    #[test]
    fn both_forms_of_forward_become_the_same() {
        let short =
            Action { target_group_arn: Some("g".to_owned()), ..action(ActionTypeEnum::Forward) };
        let stored = application(vec![short]).unwrap();
        assert_eq!(stored, application(vec![forward_to(&[("g", None)])]).unwrap());
        assert_eq!(stored[0].target_group_arn.as_deref(), Some("g"));
        assert_eq!(forwarded(&stored).collect::<Vec<_>>(), ["g"]);
        let two = application(vec![forward_to(&[("g", Some(0)), ("h", Some(999))])]).unwrap();
        assert_eq!(two[0].target_group_arn, None);
        for bad in [
            forward_to(&[]),
            forward_to(&[("g", Some(1000))]),
            forward_to(&[("g", None), ("g", None)]),
            forward_to(&[
                ("a", None),
                ("b", None),
                ("c", None),
                ("d", None),
                ("e", None),
                ("f", None),
            ]),
            Action { target_group_arn: Some("g".to_owned()), ..forward_to(&[("h", None)]) },
        ] {
            assert_eq!(application(vec![bad]).unwrap_err().code, "ValidationError");
        }
    }

    #[test]
    fn redirects_must_lead_elsewhere() {
        let to = |change: fn(&mut RedirectActionConfig)| application(vec![redirect_to(change)]);
        let stored = to(|r| r.protocol = Some("HTTPS".to_owned())).unwrap();
        let config = stored[0].redirect_config.as_ref().unwrap();
        assert_eq!(config.path.as_deref(), Some("/#{path}"));
        assert_eq!(to(|_| {}).unwrap_err().code, "InvalidLoadBalancerAction");
        assert_eq!(
            to(|r| r.port = Some("80".to_owned())).unwrap_err().code,
            "InvalidLoadBalancerAction"
        );
        to(|r| r.port = Some("81".to_owned())).unwrap();
        to(|r| r.path = Some("/x/#{path}".to_owned())).unwrap();
        for bad in [
            to(|r| r.path = Some("x".to_owned())),
            to(|r| r.path = Some("/#{query}".to_owned())),
            to(|r| r.path = Some("/#{path".to_owned())),
            to(|r| r.host = Some("a\r\nb".to_owned())),
            to(|r| r.port = Some("0".to_owned())),
        ] {
            assert_eq!(bad.unwrap_err().code, "ValidationError");
        }
    }

    #[test]
    fn one_action_answers() {
        let code = |actions| application(actions).unwrap_err().code;
        let go = forward_to(&[("g", None)]);
        assert_eq!(code(vec![go.clone(), go.clone()]), "InvalidLoadBalancerAction");
        assert_eq!(code(vec![]), "ValidationError");
        assert_eq!(code(vec![action(ActionTypeEnum::AuthenticateOidc), go]), "ValidationError");
        let network = LoadBalancerTypeEnum::Network;
        let elsewhere = redirect_to(|r| r.port = Some("81".to_owned()));
        let fault = normalise(network, 80, vec![elsewhere]).unwrap_err();
        assert_eq!(fault.code, "InvalidLoadBalancerAction");
    }
}
