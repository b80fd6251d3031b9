//! Users' names and passwords for one service, which is CodeCommit: what git logs in with.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_ssh-keys.html#git-credentials-code-commit>

use super::{
    listing::page,
    user::{find, named_or_caller},
};
use crate::{
    Iam,
    api::*,
    faults,
    model::{ServiceCredential as Record, User},
};
use std::sync::Arc;
use store::Tx;
use wire::{Context, Fault};

/// The only service that has them here.
pub(crate) const CODECOMMIT: &str = "codecommit.amazonaws.com";
/// The most credentials of one user for one service.
const MOST: usize = 2;
/// A password's characters.
const PASSWORD_LENGTH: usize = 43;

fn status(active: bool) -> StatusType {
    if active { StatusType::Active } else { StatusType::Inactive }
}

fn no_service(name: &str) -> Fault {
    let message = format!("No such service {name} is supported for Service Specific Credentials");
    Fault::new("NotSupportedService", message).status(404)
}

fn missing(id: &str) -> Fault {
    let message = format!("The Service Specific Credential with id {id} cannot be found.");
    Fault::new("NoSuchEntity", message).status(404)
}

fn whole(record: &Record, password: String) -> Option<ServiceSpecificCredential> {
    Some(ServiceSpecificCredential {
        create_date: Some(record.created),
        expiration_date: None,
        service_name: Some(record.service.clone()),
        service_user_name: Some(record.service_user.clone()),
        service_password: Some(password),
        service_credential_alias: None,
        service_credential_secret: None,
        service_specific_credential_id: Some(record.id.clone()),
        user_name: Some(record.user.clone()),
        status: Some(status(record.active)),
    })
}

fn password(iam: &Iam) -> String {
    format!("{}=", iam.secret_of_length(PASSWORD_LENGTH))
}

/// The user's credential with this id.
fn own(tx: &Tx, user: &User, id: &str) -> Result<Record, Fault> {
    let found = tx.get::<Record>(id);
    let found = found.filter(|one| one.account == user.account && one.user == user.name);
    found.map(Arc::unwrap_or_clone).ok_or_else(|| missing(id))
}

pub(crate) async fn create_service_specific_credential(
    iam: &Iam,
    ctx: &Context,
    input: CreateServiceSpecificCredentialRequest,
) -> Result<CreateServiceSpecificCredentialResponse, Fault> {
    let user = find(iam, ctx, &input.user_name, "iam:CreateServiceSpecificCredential")?;
    if input.service_name != CODECOMMIT {
        return Err(no_service(&input.service_name));
    }
    let (id, password) = (format!("ACCA{}", iam.key_text(17)), password(iam));
    let mut record = Record {
        password: iam.sealer.seal(&Record::seal_context(&id), password.as_bytes()),
        id,
        account: user.account.clone(),
        user: user.name.clone(),
        service: input.service_name,
        service_user: String::new(),
        active: true,
        created: ctx.now,
    };
    let record = iam
        .store
        .write(move |tx| {
            let all = tx.scan::<Record>();
            let own = all.filter(|one| one.account == record.account && one.user == record.user);
            let own: Vec<_> = own.map(|one| one.service_user.clone()).collect();
            if own.len() >= MOST {
                return Err(faults::limit("ServiceSpecificCredentialsPerUser", MOST));
            }
            let name = |suffix: &str| format!("{}{suffix}-at-{}", record.user, record.account);
            let free = [name(""), name("+1")].into_iter().find(|name| !own.contains(name));
            record.service_user = free.unwrap_or_else(|| name("+1"));
            tx.put(record.clone());
            Ok::<_, Fault>(record)
        })
        .await?;
    let service_specific_credential = whole(&record, password);
    Ok(CreateServiceSpecificCredentialResponse { service_specific_credential })
}

pub(crate) async fn list_service_specific_credentials(
    iam: &Iam,
    ctx: &Context,
    input: ListServiceSpecificCredentialsRequest,
) -> Result<ListServiceSpecificCredentialsResponse, Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:ListServiceSpecificCredentials")?;
    if let Some(service) = input.service_name.filter(|service| service != CODECOMMIT) {
        return Err(no_service(&service));
    }
    let snapshot = iam.store.read();
    let own = snapshot
        .scan::<Record>()
        .filter(|one| one.account == user.account && one.user == user.name)
        .map(|one| {
            let metadata = ServiceSpecificCredentialMetadata {
                user_name: Some(one.user.clone()),
                status: Some(status(one.active)),
                service_user_name: Some(one.service_user.clone()),
                service_credential_alias: None,
                create_date: Some(one.created),
                expiration_date: None,
                service_specific_credential_id: Some(one.id.clone()),
                service_name: Some(one.service.clone()),
            };
            (one.id.clone(), metadata)
        });
    let listing = "ListServiceSpecificCredentials";
    let (listed, is_truncated, marker) =
        page(listing, input.marker.as_deref(), input.max_items, own)?;
    let service_specific_credentials = Some(listed);
    Ok(ListServiceSpecificCredentialsResponse {
        service_specific_credentials,
        marker,
        is_truncated,
    })
}

pub(crate) async fn reset_service_specific_credential(
    iam: &Iam,
    ctx: &Context,
    input: ResetServiceSpecificCredentialRequest,
) -> Result<ResetServiceSpecificCredentialResponse, Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:ResetServiceSpecificCredential")?;
    let (id, password) = (input.service_specific_credential_id, password(iam));
    let sealed = iam.sealer.seal(&Record::seal_context(&id), password.as_bytes());
    let record = iam
        .store
        .write(move |tx| {
            let record = Record { password: sealed, ..own(tx, &user, &id)? };
            tx.put(record.clone());
            Ok::<_, Fault>(record)
        })
        .await?;
    let service_specific_credential = whole(&record, password);
    Ok(ResetServiceSpecificCredentialResponse { service_specific_credential })
}

pub(crate) async fn update_service_specific_credential(
    iam: &Iam,
    ctx: &Context,
    input: UpdateServiceSpecificCredentialRequest,
) -> Result<(), Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:UpdateServiceSpecificCredential")?;
    let active = match input.status {
        StatusType::Active => true,
        StatusType::Inactive => false,
        StatusType::Expired => {
            return Err(Fault::new("ValidationError", "Status must be Active or Inactive."));
        }
    };
    iam.store
        .write(move |tx| {
            let record = own(tx, &user, &input.service_specific_credential_id)?;
            tx.put(Record { active, ..record });
            Ok(())
        })
        .await
}

pub(crate) async fn delete_service_specific_credential(
    iam: &Iam,
    ctx: &Context,
    input: DeleteServiceSpecificCredentialRequest,
) -> Result<(), Fault> {
    let name = named_or_caller(ctx, input.user_name)?;
    let user = find(iam, ctx, &name, "iam:DeleteServiceSpecificCredential")?;
    iam.store
        .write(move |tx| {
            let record = own(tx, &user, &input.service_specific_credential_id)?;
            tx.delete::<Record>(&record.id);
            Ok(())
        })
        .await
}
