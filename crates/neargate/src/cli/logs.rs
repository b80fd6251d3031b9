//! `neargate logs`: the events of a log group, as they come.

use super::{Format, Outcome};
use crate::control::{self, AskError, BeginReply, LogLine, Request};
use clap::Args;
use std::{io::BufRead, path::Path};

#[derive(Args)]
pub(crate) struct Options {
    /// The log group's name.
    group: String,
    /// Go on with the events that come.
    #[arg(short, long)]
    follow: bool,
    /// How many of the last events to begin with.
    #[arg(short = 'n', long, default_value_t = 100)]
    last: usize,
    /// The region instead of the default one.
    #[arg(long)]
    region: Option<String>,
}

pub(crate) fn run(data_dir: &Path, options: &Options, format: Format) -> Outcome {
    let request = Request::Logs {
        group: options.group.clone(),
        region: options.region.clone(),
        last: options.last,
        follow: options.follow,
    };
    let (_, reader): (BeginReply, _) = control::begin(data_dir, &request)?;
    for line in reader.lines() {
        let line = line.map_err(AskError::Connection)?;
        if format == Format::Json {
            println!("{line}");
            continue;
        }
        let event: LogLine = serde_json::from_str(&line).map_err(AskError::Answer)?;
        let time = world::Timestamp::from_millis(event.timestamp_ms).rfc3339();
        println!("{time} {} {}", event.stream, event.message);
    }
    Ok(())
}
