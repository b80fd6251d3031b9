//! Connections.

use super::{MOST_CONNECTIONS, invalid, limit, listed, no_connection, no_host, page, prefix, tags};
use crate::{
    CodeConnections,
    api::*,
    model::{self, Host},
    public,
};
use std::sync::Arc;
use wire::{Context, Fault};

/// The connection that a caller names, if they may do `action` to it.
pub(super) fn named(
    service: &CodeConnections,
    ctx: &Context,
    arn: &str,
    action: &str,
) -> Result<Arc<model::Connection>, Fault> {
    ctx.authorise(action, arn)?;
    let found = service.store.read().get::<model::Connection>(arn);
    found.filter(|found| found.realm == ctx.realm()).ok_or_else(|| no_connection(arn))
}

fn described(ctx: &Context, connection: &model::Connection) -> Connection {
    Connection {
        connection_name: Some(connection.name.clone()),
        connection_arn: Some(connection.arn.clone()),
        provider_type: Some(connection.provider),
        owner_account_id: Some(ctx.principal.account.clone()),
        connection_status: Some(ConnectionStatus::Available),
        host_arn: connection.host.clone(),
    }
}

pub(crate) async fn create_connection(
    service: &CodeConnections,
    ctx: &Context,
    input: CreateConnectionInput,
) -> Result<CreateConnectionOutput, Fault> {
    let arn = ctx.arn("codeconnections", format!("connection/{}", service.world.uuid()));
    let tags = tags(input.tags)?;
    ctx.authorise("codeconnections:CreateConnection", "*")?;
    if !tags.is_empty() {
        ctx.authorise("codeconnections:TagResource", &arn)?;
    }
    let provider = match (input.provider_type, &input.host_arn) {
        (Some(provider), None) if public(provider).is_none() => {
            return Err(invalid(format!("A connection to {} has a HostArn.", provider.as_str())));
        }
        (Some(provider), None) => Some(provider),
        (None, Some(_)) => None,
        _ => return Err(invalid("A connection has either a ProviderType or a HostArn.")),
    };
    let (realm, name, host) = (ctx.realm(), input.connection_name, input.host_arn);
    let (own, listed) = (prefix(ctx, "connection"), listed(&tags));
    let connection_arn = arn.clone();
    service
        .store
        .write(move |tx| {
            let provider = match (provider, &host) {
                (Some(provider), _) => provider,
                (None, host) => {
                    let arn = host.as_deref().unwrap_or_default();
                    let found = tx.get::<Host>(arn).filter(|found| found.realm == realm);
                    found.ok_or_else(|| no_host(arn))?.provider
                }
            };
            if tx.scan_prefix::<model::Connection>(&own).count() >= MOST_CONNECTIONS {
                return Err(limit(format!(
                    "An account can have at most {MOST_CONNECTIONS} connections in a region."
                )));
            }
            tx.put(model::Connection { realm, arn, name, provider, host, tags });
            Ok(())
        })
        .await?;
    Ok(CreateConnectionOutput { connection_arn: Some(connection_arn), tags: Some(listed) })
}

pub(crate) async fn get_connection(
    service: &CodeConnections,
    ctx: &Context,
    input: GetConnectionInput,
) -> Result<GetConnectionOutput, Fault> {
    let action = "codeconnections:GetConnection";
    let found = named(service, ctx, &input.connection_arn, action)?;
    Ok(GetConnectionOutput { connection: Some(described(ctx, &found)) })
}

pub(crate) async fn list_connections(
    service: &CodeConnections,
    ctx: &Context,
    input: ListConnectionsInput,
) -> Result<ListConnectionsOutput, Fault> {
    ctx.authorise("codeconnections:ListConnections", "*")?;
    let snapshot = service.store.read();
    let all = snapshot.scan_prefix::<model::Connection>(&prefix(ctx, "connection"));
    let (provider, host) = (input.provider_type_filter, input.host_arn_filter);
    let asked = all
        .filter(|one| provider.is_none_or(|provider| one.provider == provider))
        .filter(|one| host.is_none() || one.host == host)
        .map(|one| (one.arn.clone(), described(ctx, &one)));
    let which = (input.max_results, input.next_token.as_deref());
    let page = page("ListConnections", which, asked)?;
    Ok(ListConnectionsOutput { connections: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn delete_connection(
    service: &CodeConnections,
    ctx: &Context,
    input: DeleteConnectionInput,
) -> Result<DeleteConnectionOutput, Fault> {
    let action = "codeconnections:DeleteConnection";
    let found = named(service, ctx, &input.connection_arn, action)?;
    let deleted = service.store.write(move |tx| {
        tx.delete::<model::Connection>(&found.arn);
        Ok::<_, Fault>(())
    });
    deleted.await?;
    Ok(DeleteConnectionOutput {})
}
