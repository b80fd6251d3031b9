//! `neargate doctor`: does this machine fit, and what did an earlier crash leave?

use super::{Format, Outcome, output::Failure};
use crate::control::{self, DoctorReply, Request};
use std::path::Path;

pub(crate) fn run(data_dir: &Path, mend: bool, format: Format) -> Outcome {
    let reply: DoctorReply = control::ask(data_dir, &Request::Doctor { mend })?;
    if format == Format::Json {
        println!("{}", serde_json::to_string(&reply).expect("replies are plain data"));
    } else {
        for check in &reply.checks {
            let mark = match (check.ok, check.required) {
                (true, _) => "ok     ",
                (false, true) => "MISSING",
                (false, false) => "without",
            };
            println!("{mark} {}: {}", check.name, check.detail);
        }
        match (reply.leaks.is_empty(), reply.mended) {
            (true, _) => println!("ok      nothing is left over"),
            (false, true) => println!("mended  {}", reply.leaks.join("\n        ")),
            (false, false) => println!("LEFT    {}", reply.leaks.join("\n        ")),
        }
    }
    if reply.checks.iter().any(|check| check.required && !check.ok) {
        return Err(Failure::new("this machine lacks what containers need"));
    }
    match reply.leaks.is_empty() || reply.mended {
        true => Ok(()),
        false => Err(Failure::new("something is left over").hint("neargate doctor --mend")),
    }
}
