//! Filters of ListSecrets.
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_Filter.html>

use crate::{
    api::{Filter, FilterNameStringType},
    model::Secret,
};

/// Whether any word of `text` begins with every word of `wanted`, whatever their case.
fn words_begin(text: &str, wanted: &str) -> bool {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split(|letter: char| !letter.is_alphanumeric()).collect();
    let wanted = wanted.to_lowercase();
    let mut parts =
        wanted.split(|letter: char| !letter.is_alphanumeric()).filter(|w| !w.is_empty());
    parts.all(|part| words.iter().any(|word| word.starts_with(part)))
}

fn one(key: &str, wanted: &str, secret: &Secret) -> bool {
    let description = secret.description.as_deref().unwrap_or_default();
    match key {
        "name" => secret.name.starts_with(wanted),
        "description" => !description.is_empty() && words_begin(description, wanted),
        "tag-key" => secret.tags.keys().any(|key| key.starts_with(wanted)),
        "tag-value" => secret.tags.values().any(|value| value.starts_with(wanted)),
        "all" => {
            let tags = secret.tags.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
            let texts: Vec<&str> =
                [secret.name.as_str(), description].into_iter().chain(tags).collect();
            words_begin(&texts.join(" "), wanted)
        }
        // There is no replication and no managed secret: nothing has these.
        _ => false,
    }
}

/// Whether the filter finds the secret: any of its values does, and none that begins with `!` does.
pub(crate) fn matches(filter: &Filter, secret: &Secret) -> bool {
    let key = filter.key.map_or("all", FilterNameStringType::as_str);
    let values = filter.values.as_deref().unwrap_or_default();
    let (not, wanted): (Vec<&str>, Vec<&str>) =
        values.iter().map(String::as_str).partition(|value| value.starts_with('!'));
    let found = wanted.is_empty() || wanted.iter().any(|value| one(key, value, secret));
    found && !not.iter().any(|value| one(key, &value[1..], secret))
}
