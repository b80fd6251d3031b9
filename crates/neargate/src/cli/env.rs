//! `neargate env`: what the AWS CLI and SDKs need.

use super::{Format, Outcome, output::Failure};
use crate::control::{self, EnvReply, Request};
use clap::Args;
use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

#[derive(Args)]
pub(crate) struct Options {
    /// The account, twelve digits; made when it is new.
    #[arg(long, value_parser = super::account)]
    account: Option<String>,
    /// The region instead of the default one.
    #[arg(long)]
    region: Option<String>,
    /// Write a profile of this name into the AWS CLI's own files instead of printing.
    #[arg(long, num_args = 0..=1, default_missing_value = "neargate")]
    profile: Option<String>,
}

pub(crate) fn run(data_dir: &Path, options: &Options, format: Format) -> Outcome {
    let request = Request::Env { account: options.account.clone() };
    let mut reply: EnvReply = control::ask(data_dir, &request)?;
    if let Some(region) = &options.region {
        reply.region.clone_from(region);
    }
    if let Some(profile) = &options.profile {
        write_profile(profile, &reply)?;
        eprintln!("profile {profile} written: aws --profile {profile} sts get-caller-identity");
        return Ok(());
    }
    match format {
        Format::Json => {
            let json = serde_json::json!({
                "AWS_ENDPOINT_URL": reply.endpoint,
                "AWS_ACCESS_KEY_ID": reply.access_key_id,
                "AWS_SECRET_ACCESS_KEY": reply.secret_access_key,
                "AWS_DEFAULT_REGION": reply.region,
                "account_id": reply.account,
            });
            println!("{json}");
        }
        Format::Text => {
            println!("export AWS_ENDPOINT_URL={}", reply.endpoint);
            println!("export AWS_ACCESS_KEY_ID={}", reply.access_key_id);
            println!("export AWS_SECRET_ACCESS_KEY={}", reply.secret_access_key);
            println!("export AWS_DEFAULT_REGION={}", reply.region);
        }
    }
    Ok(())
}

/// Puts the profile into `~/.aws/config` and `~/.aws/credentials` (or where the AWS variables point), replacing one of
/// the same name and nothing else.
fn write_profile(name: &str, reply: &EnvReply) -> Outcome {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(Failure::new("a profile's name is made of letters, digits, '-', '_' and '.'"));
    }
    let place = |variable: &str, file: &str| match std::env::var_os(variable) {
        Some(path) => Ok(std::path::PathBuf::from(path)),
        None => match std::env::var_os("HOME") {
            Some(home) => Ok(Path::new(&home).join(".aws").join(file)),
            None => Err(Failure::new("HOME is not set").hint("set HOME, or AWS_CONFIG_FILE")),
        },
    };
    let config = format!("region = {}\nendpoint_url = {}\n", reply.region, reply.endpoint);
    let section = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    replace_section(&place("AWS_CONFIG_FILE", "config")?, &section, &config)?;
    let credentials = format!(
        "aws_access_key_id = {}\naws_secret_access_key = {}\n",
        reply.access_key_id, reply.secret_access_key
    );
    replace_section(&place("AWS_SHARED_CREDENTIALS_FILE", "credentials")?, name, &credentials)
}

fn replace_section(path: &Path, section: &str, content: &str) -> Outcome {
    let before = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::new(format!("{}: {error}", path.display()))),
    };
    let header = format!("[{section}]");
    let mut kept = String::new();
    let mut inside = false;
    for line in before.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == header;
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    if !kept.is_empty() && !kept.ends_with("\n\n") {
        kept.push('\n');
    }
    let told = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(told)?;
    }
    // Written beside and renamed, so that the user's other profiles are never half there.
    let beside = path.with_extension("neargate-new");
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside);
    file.and_then(|mut file| {
        file.write_all(format!("{kept}{header}\n{content}").as_bytes())?;
        file.sync_all()
    })
    .map_err(told)?;
    fs::rename(&beside, path).map_err(told)
}
