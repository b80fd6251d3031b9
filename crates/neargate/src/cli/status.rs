//! `neargate status`: what runs.

use super::{Format, Outcome};
use crate::control::{self, Request, StatusReply};
use std::path::Path;

pub(crate) fn run(data_dir: &Path, format: Format) -> Outcome {
    let reply: StatusReply = control::ask(data_dir, &Request::Status)?;
    if format == Format::Json {
        println!("{}", serde_json::to_string(&reply).expect("replies are plain data"));
        return Ok(());
    }
    println!(
        "neargate {} on {}, {} in {}",
        reply.version, reply.endpoint, reply.account, reply.region
    );
    if reply.tasks.is_empty() {
        println!("no tasks");
        return Ok(());
    }
    println!(
        "{:<34} {:<24} {:<15} {:<16} {:<16}",
        "TASK", "DEFINITION", "STATUS", "PRIVATE", "PUBLIC"
    );
    for task in &reply.tasks {
        let id = task.arn.rsplit('/').next().unwrap_or(&task.arn);
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (private, public) = (or_dash(&task.private_ip), or_dash(&task.public_ip));
        println!("{id:<34} {:<24} {:<15} {private:<16} {public:<16}", task.definition, task.status);
    }
    Ok(())
}
