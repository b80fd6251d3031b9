//! Random passwords.

use crate::{SecretsManager, api::*, faults};
use wire::{Context, Fault};

/// How long a password is unless told otherwise.
const LENGTH: i64 = 32;
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

pub(crate) async fn get_random_password(
    secrets: &SecretsManager,
    ctx: &Context,
    input: GetRandomPasswordRequest,
) -> Result<GetRandomPasswordResponse, Fault> {
    ctx.authorise("secretsmanager:GetRandomPassword", "*")?;
    let excluded = input.exclude_characters.unwrap_or_default();
    let kinds: Vec<Vec<u8>> = [
        (!input.exclude_lowercase.unwrap_or(false), "abcdefghijklmnopqrstuvwxyz"),
        (!input.exclude_uppercase.unwrap_or(false), "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (!input.exclude_numbers.unwrap_or(false), "0123456789"),
        (!input.exclude_punctuation.unwrap_or(false), PUNCTUATION),
        (input.include_space.unwrap_or(false), " "),
    ]
    .into_iter()
    .filter(|(included, _)| *included)
    .map(|(_, letters)| letters.bytes().filter(|byte| !excluded.as_bytes().contains(byte)))
    .map(Iterator::collect)
    .collect();
    let all: Vec<u8> = kinds.concat();
    if all.is_empty() {
        return Err(faults::parameter("No characters are left to make a password of."));
    }
    let required = input.require_each_included_type.unwrap_or(true);
    if required && kinds.iter().any(Vec::is_empty) {
        return Err(faults::parameter(
            "A required character type has no characters left after ExcludeCharacters.",
        ));
    }
    let length = usize::try_from(input.password_length.unwrap_or(LENGTH)).unwrap_or_default();
    if required && length < kinds.len() {
        return Err(faults::parameter("Password length is too short based on the required types."));
    }
    // Drawn anew until every kind is there: so all passwords that will do are equally likely.
    let password = loop {
        let password = secrets.world.text(length, &all);
        let has = |kind: &Vec<u8>| password.bytes().any(|byte| kind.contains(&byte));
        if !required || kinds.iter().all(has) {
            break password;
        }
    };
    Ok(GetRandomPasswordResponse { random_password: Some(password) })
}
