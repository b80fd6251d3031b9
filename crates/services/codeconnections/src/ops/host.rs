//! Hosts of one's own.

use super::{MOST_HOSTS, invalid, limit, listed, no_host, page, prefix, tags};
use crate::{
    CodeConnections, LOCAL,
    api::*,
    model::{self, Connection},
    public,
};
use hyper::Uri;
use std::sync::Arc;
use wire::{Context, Fault};

/// The host that a caller names, if they may do `action` to it.
pub(super) fn named(
    service: &CodeConnections,
    ctx: &Context,
    arn: &str,
    action: &str,
) -> Result<Arc<model::Host>, Fault> {
    ctx.authorise(action, arn)?;
    let found = service.store.read().get::<model::Host>(arn);
    found.filter(|found| found.realm == ctx.realm()).ok_or_else(|| no_host(arn))
}

/// Whether this may be a host's URL: HTTP, SSH or a directory of this machine, and no password in it, which everybody
/// who sees the host would see.
fn endpoint(service: &CodeConnections, url: String) -> Result<String, Fault> {
    if let Some(path) = url.strip_prefix(LOCAL) {
        service.check_local(path)?;
        return Ok(url);
    }
    let good = url.parse::<Uri>().is_ok_and(|uri| {
        let authority = uri.authority().map(|authority| authority.as_str());
        let (user, host) = match authority.unwrap_or_default().rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority.unwrap_or_default()),
        };
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let who = match (uri.scheme_str(), user) {
            (Some("https" | "http"), None) => true,
            (Some("ssh"), Some(user)) => plain(user),
            _ => false,
        };
        who && host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
            && uri.query().is_none()
    });
    match good && !url.contains('#') {
        true => Ok(url),
        false => Err(invalid(format!(
            "{url} is not the URL of a host: https://, http:// or ssh://USER@, a name, and a path if its repositories \
             are below one; or file:// and a directory."
        ))),
    }
}

fn status() -> Option<String> {
    Some("AVAILABLE".to_owned())
}

pub(crate) async fn create_host(
    service: &CodeConnections,
    ctx: &Context,
    input: CreateHostInput,
) -> Result<CreateHostOutput, Fault> {
    let name = input.name;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(letter) {
        return Err(invalid("A host's name has letters, digits, hyphens, underscores and dots."));
    }
    // As AWS's own ids of hosts, eight digits.
    let id: String = service.world.uuid().chars().take(8).collect();
    let arn = ctx.arn("codeconnections", format!("host/{name}/{id}"));
    let tags = tags(input.tags)?;
    ctx.authorise("codeconnections:CreateHost", "*")?;
    if !tags.is_empty() {
        ctx.authorise("codeconnections:TagResource", &arn)?;
    }
    let provider = input.provider_type;
    if public(provider).is_some() {
        return Err(invalid(format!("{} has a host of its own.", provider.as_str())));
    }
    let endpoint = endpoint(service, input.provider_endpoint)?;
    let (realm, own, listed) = (ctx.realm(), prefix(ctx, "host"), listed(&tags));
    let host_arn = arn.clone();
    service
        .store
        .write(move |tx| {
            if tx.scan_prefix::<model::Host>(&own).count() >= MOST_HOSTS {
                return Err(limit(format!(
                    "An account can have at most {MOST_HOSTS} hosts in a region."
                )));
            }
            tx.put(model::Host { realm, arn, name, provider, endpoint, tags });
            Ok(())
        })
        .await?;
    Ok(CreateHostOutput { host_arn: Some(host_arn), tags: Some(listed) })
}

pub(crate) async fn get_host(
    service: &CodeConnections,
    ctx: &Context,
    input: GetHostInput,
) -> Result<GetHostOutput, Fault> {
    let found = named(service, ctx, &input.host_arn, "codeconnections:GetHost")?;
    Ok(GetHostOutput {
        name: Some(found.name.clone()),
        status: status(),
        provider_type: Some(found.provider),
        provider_endpoint: Some(found.endpoint.clone()),
        vpc_configuration: None,
    })
}

pub(crate) async fn list_hosts(
    service: &CodeConnections,
    ctx: &Context,
    input: ListHostsInput,
) -> Result<ListHostsOutput, Fault> {
    ctx.authorise("codeconnections:ListHosts", "*")?;
    let snapshot = service.store.read();
    let all = snapshot.scan_prefix::<model::Host>(&prefix(ctx, "host"));
    let all = all.map(|host| {
        let described = Host {
            name: Some(host.name.clone()),
            host_arn: Some(host.arn.clone()),
            provider_type: Some(host.provider),
            provider_endpoint: Some(host.endpoint.clone()),
            vpc_configuration: None,
            status: status(),
            status_message: None,
        };
        (host.arn.clone(), described)
    });
    let page = page("ListHosts", (input.max_results, input.next_token.as_deref()), all)?;
    Ok(ListHostsOutput { hosts: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn update_host(
    service: &CodeConnections,
    ctx: &Context,
    input: UpdateHostInput,
) -> Result<UpdateHostOutput, Fault> {
    let found = named(service, ctx, &input.host_arn, "codeconnections:UpdateHost")?;
    let Some(url) = input.provider_endpoint else { return Ok(UpdateHostOutput {}) };
    let endpoint = endpoint(service, url)?;
    let updated = service.store.write(move |tx| {
        match tx.update::<model::Host>(&found.arn, |host| host.endpoint = endpoint) {
            true => Ok(()),
            false => Err(no_host(&found.arn)),
        }
    });
    updated.await?;
    Ok(UpdateHostOutput {})
}

pub(crate) async fn delete_host(
    service: &CodeConnections,
    ctx: &Context,
    input: DeleteHostInput,
) -> Result<DeleteHostOutput, Fault> {
    let found = named(service, ctx, &input.host_arn, "codeconnections:DeleteHost")?;
    let deleted = service.store.write(move |tx| {
        let uses = |one: &Arc<Connection>| one.host.as_ref() == Some(&found.arn);
        if tx.scan::<Connection>().any(|one| uses(&one)) {
            return Err(Fault::new(
                "ResourceUnavailableException",
                "Connections use the host. Delete them first.",
            ));
        }
        tx.delete::<model::Host>(&found.arn);
        Ok(())
    });
    deleted.await?;
    Ok(DeleteHostOutput {})
}
