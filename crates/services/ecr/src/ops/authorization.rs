//! What `docker login` gets.

use crate::{Ecr, access::LOGIN_NAME, api::*, faults};
use base64::{Engine, engine::general_purpose::STANDARD};
use wire::{Context, Fault};

pub(crate) async fn get_authorization_token(
    ecr: &Ecr,
    ctx: &Context,
    input: GetAuthorizationTokenRequest,
) -> Result<GetAuthorizationTokenResponse, Fault> {
    ctx.authorise("ecr:GetAuthorizationToken", "*")?;
    let registries = input.registry_ids.unwrap_or_default();
    if registries.len() > 1 {
        return Err(faults::parameter(
            "A token is for all registries; ask for it with one id at most.",
        ));
    }
    let (password, expires) = ecr.login(ctx)?;
    let data = AuthorizationData {
        authorization_token: Some(STANDARD.encode(format!("{LOGIN_NAME}:{password}"))),
        expires_at: Some(expires),
        proxy_endpoint: Some(format!("http://{}", ecr.host)),
    };
    Ok(GetAuthorizationTokenResponse { authorization_data: Some(vec![data]) })
}
