//! From a shim's spool to log streams: lines, multi-line events, and the marks that make it exactly once.

use super::{chain, firelens, splunk};
use crate::{
    Ecs,
    api::ContainerDefinition,
    model::Task,
    surroundings::{LogSink, LogTarget},
};
use regex::Regex;
use runtime::{Frame, Stream};
use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};
use wire::Principal;

/// The longest event that CloudWatch Logs takes is 1 MiB; docker's driver cuts at 256 KiB less its overhead.
const MOST_EVENT: usize = 256 * 1024 - 26;
/// Shorter values are not hidden: too much else would be.
const SHORTEST_HIDDEN: usize = 4;
/// A multi-line event is whole when this long nothing followed.
const SETTLE: Duration = Duration::from_secs(1);
/// How long to wait before output that could not be kept is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The log streams of a task's containers, by their index in the spec.
pub(super) type Sinks = HashMap<u16, (Arc<dyn LogSink>, Option<Regex>)>;

/// Opens the log streams of all containers that have one; and, once the task runs, the ways to its FireLens container.
/// The error is the task's stop reason.
pub(super) async fn open(
    ecs: &Arc<Ecs>,
    task: &Task,
    definitions: &[ContainerDefinition],
    principal: Option<&Principal>,
    running: Option<&runtime::Task>,
) -> Result<Sinks, String> {
    let mut sinks = Sinks::new();
    for (index, definition) in definitions.iter().enumerate() {
        let index = u16::try_from(index).expect("a task has at most ten containers");
        let sender = running.and_then(|running| {
            firelens::Sender::open(ecs, task, definitions, definition, running)
        });
        if let Some(sender) = sender {
            sinks.insert(index, (sender, None));
            continue;
        }
        if let Some(collector) = splunk::Collector::open(ecs, task, definition, principal).await? {
            sinks.insert(index, (collector, None));
            continue;
        }
        let Some(target) = target(task, definition) else { continue };
        let principal =
            principal.ok_or("Fargate requires an execution role for log driver awslogs")?;
        let sink = ecs.surroundings().logs.open(&target, principal).await.map_err(|reason| {
            format!(
                "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: \
                 failed to create Cloudwatch log stream: {reason} : exit status 1"
            )
        })?;
        let option = |name: &str| {
            let options = definition.log_configuration.as_ref()?.options.as_ref()?;
            options.get(name).cloned()
        };
        let pattern = match (option("awslogs-multiline-pattern"), option("awslogs-datetime-format"))
        {
            (Some(pattern), _) => Some(pattern),
            (None, Some(format)) => Some(datetime_pattern(&format)),
            (None, None) => None,
        };
        let pattern = pattern.map(|pattern| Regex::new(&pattern)).transpose().map_err(|error| {
            format!("ResourceInitializationError: failed to validate logger args: {error}")
        })?;
        sinks.insert(index, (sink, pattern));
    }
    Ok(sinks)
}

/// `PREFIX/CONTAINER/TASK`, as on Fargate.
fn target(task: &Task, definition: &ContainerDefinition) -> Option<LogTarget> {
    let options = definition.log_configuration.as_ref()?.options.as_ref()?;
    let (account, _) = task.realm.split_once('/')?;
    let name = definition.name.as_deref().unwrap_or_default();
    let stream = match &task.sandbox {
        Some(sandbox) => sandbox.log_stream.clone(),
        None => format!("{}/{name}/{}", options.get("awslogs-stream-prefix")?, task.id),
    };
    Some(LogTarget {
        realm: format!("{account}/{}", options.get("awslogs-region")?),
        group: options.get("awslogs-group")?.clone(),
        stream,
        create_group: options.get("awslogs-create-group").is_some_and(|text| text == "true"),
    })
}

/// strftime as docker's awslogs driver reads it, as a pattern that finds where an event begins.
fn datetime_pattern(format: &str) -> String {
    let mut pattern = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            pattern.push_str(&regex::escape(&letter.to_string()));
            continue;
        }
        pattern.push_str(match letters.next() {
            Some('a') => "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
            Some('A') => "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
            Some('b') => "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
            Some('B') => "(?:January|February|March|April|May|June|July|August|September|October|November|December)",
            Some('Y') => r"\d{4}",
            Some('d' | 'm' | 'y' | 'H' | 'I' | 'M' | 'S') => r"\d{2}",
            Some('j') => r"\d{3}",
            Some('f') => r"\d{6}",
            Some('L') => r"\.\d{3}",
            Some('p') => "(?:AM|PM)",
            Some('w') => r"\d",
            Some('z') => r"[+-]\d{4}",
            Some('Z') => "[A-Z]{1,4}T",
            _ => "%",
        });
    }
    pattern
}

/// An event that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    time_ms: i64,
    text: String,
    /// Where its last byte ends in the spool. Grows from event to event of one stream, so it can be the mark up
    /// to which the stream is kept, to the line and not only to the frame.
    end: u64,
}

/// One container's one stream, on its way from pieces to events.
#[derive(Default)]
struct Lines {
    /// The unfinished line.
    partial: Vec<u8>,
    /// When it began.
    began_ms: i64,
    /// The end of the last frame before the unfinished line or event began: what may be acknowledged.
    safe: u64,
    /// Where the last byte that was taken ends.
    taken: u64,
    /// A multi-line event that may go on.
    event: Option<Whole>,
}

impl Lines {
    /// Takes a piece; answers the events that are whole now.
    fn take(&mut self, frame: &Frame, before: u64, pattern: Option<&Regex>) -> Vec<Whole> {
        let mut whole = Vec::new();
        self.taken = frame.end - frame.bytes.len() as u64;
        for piece in frame.bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.began_ms = frame.time_ms;
                if self.event.is_none() {
                    self.safe = before;
                }
            }
            let ended = piece.ends_with(b"\n");
            self.taken += piece.len() as u64;
            self.partial.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if ended || self.partial.len() >= MOST_EVENT {
                let line = std::mem::take(&mut self.partial);
                self.line(line, pattern, &mut whole);
            }
        }
        whole
    }

    fn line(&mut self, line: Vec<u8>, pattern: Option<&Regex>, whole: &mut Vec<Whole>) {
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let text = String::from_utf8_lossy(line).into_owned();
        let new = Whole { time_ms: self.began_ms, text, end: self.taken };
        let Some(pattern) = pattern else {
            // CloudWatch Logs has no empty events.
            whole.extend((!new.text.is_empty()).then_some(new));
            return;
        };
        match &mut self.event {
            Some(event)
                if !pattern.is_match(&new.text)
                    && event.text.len() + new.text.len() < MOST_EVENT =>
            {
                event.text.push('\n');
                event.text.push_str(&new.text);
                event.end = new.end;
            }
            _ => whole.extend(self.event.replace(new)),
        }
    }

    /// Whatever is left: the output is over, or a multi-line event has settled.
    fn flush(&mut self, over: bool) -> Option<Whole> {
        if over && !self.partial.is_empty() {
            let rest = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
            match &mut self.event {
                Some(event) => {
                    event.text.push('\n');
                    event.text.push_str(&rest);
                    event.end = self.taken;
                }
                None => {
                    self.event =
                        Some(Whole { time_ms: self.began_ms, text: rest, end: self.taken });
                }
            }
        }
        if self.partial.is_empty() { self.event.take() } else { None }
    }

    fn pending(&self) -> bool {
        !self.partial.is_empty() || self.event.is_some()
    }
}

/// The values that a sandbox's output must not show: those of its secrets, line by line. ECS itself hides none.
pub(super) fn hidden(task: &Task, running: &runtime::Task) -> Vec<String> {
    let Some(sandbox) = &task.sandbox else { return Vec::new() };
    let definitions = sandbox.definition.document.container_definitions.iter().flatten();
    let secrets: Vec<&String> =
        definitions.flat_map(|d| d.secrets.iter().flatten()).map(|secret| &secret.name).collect();
    let variables = running.spec().containers.iter().flat_map(|container| &container.env);
    let values = variables.filter(|(name, _)| secrets.contains(&name)).map(|(_, value)| value);
    let lines = values.flat_map(|value| value.lines()).filter(|line| line.len() >= SHORTEST_HIDDEN);
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    // One may be within another.
    lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
    lines
}

/// Ships a task's output, without what is hidden, until it is over and all of it is kept.
pub(super) async fn ship(ecs: &Ecs, task: &runtime::Task, sinks: &Sinks, hidden: &[String]) {
    let mut output = match task.output() {
        Ok(output) => output,
        Err(error) => {
            tracing::error!(
                task = task.id(),
                error = chain(&error),
                "a task's output cannot be read"
            );
            return;
        }
    };
    let mut lines: HashMap<(u16, Stream), Lines> = HashMap::new();
    let mut marks: HashMap<(u16, Stream), u64> = HashMap::new();
    let mut read_to = 0;
    let mut acknowledged = true;
    loop {
        let waiting = lines.values().any(|lines| lines.event.is_some());
        let next = match waiting {
            false => Some(output.next().await),
            true => ecs.world.timeout(SETTLE, output.next()).await,
        };
        let (frames, over) = match next {
            None => (Vec::new(), false),
            Some(None) => (Vec::new(), true),
            Some(Some(Err(error))) => {
                tracing::error!(
                    task = task.id(),
                    error = chain(&error),
                    "a part of a task's output cannot be read"
                );
                return;
            }
            Some(Some(Ok(frame))) => {
                let mut frames = vec![frame];
                while frames.len() < 256
                    && let Some(Ok(frame)) = output.try_next()
                {
                    frames.push(frame);
                }
                (frames, false)
            }
        };
        let settle = frames.is_empty();
        let mut events: HashMap<(u16, Stream), Vec<Whole>> = HashMap::new();
        for frame in &frames {
            let key = (frame.container, frame.stream);
            let pattern = sinks.get(&key.0).and_then(|(_, pattern)| pattern.as_ref());
            let whole = lines.entry(key).or_default().take(frame, read_to, pattern);
            read_to = frame.end;
            events.entry(key).or_default().extend(whole);
        }
        if settle {
            for (key, lines) in &mut lines {
                events.entry(*key).or_default().extend(lines.flush(over));
            }
        }
        for (key, mut whole) in events {
            let mark = match marks.get(&key) {
                Some(mark) => *mark,
                None => first_mark(ecs, task.id(), sinks, key).await,
            };
            // What ends at or before the mark was kept before the last control plane ended.
            whole.retain(|event| event.end > mark);
            let end = whole.last().map_or(mark, |event| event.end);
            whole.iter_mut().for_each(|event| hide(&mut event.text, hidden));
            keep(ecs, task.id(), sinks, key, mark..end, whole).await;
            marks.insert(key, end);
        }
        let pending = lines.values().filter(|lines| lines.pending()).map(|lines| lines.safe);
        let safe = pending.min().unwrap_or(read_to);
        if safe > 0 {
            match output.acknowledge(safe).await {
                Ok(()) => acknowledged = true,
                // It stays in the spool until it can be; a full disk lasts, and telling it once is enough.
                Err(error) => {
                    if std::mem::take(&mut acknowledged) {
                        let error = chain(&error);
                        tracing::warn!(task = task.id(), error, "output could not be acknowledged");
                    }
                }
            }
        }
        if over {
            return;
        }
    }
}

fn hide(text: &mut String, hidden: &[String]) {
    for value in hidden {
        if text.contains(value) {
            *text = text.replace(value, "***");
        }
    }
}

/// Names one stream of one container among the sources of a log stream.
fn source(task: &str, key: (u16, Stream)) -> String {
    let stream = match key.1 {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    };
    format!("{task}/{}/{stream}", key.0)
}

/// How far a stream was kept by an earlier control plane.
async fn first_mark(ecs: &Ecs, task: &str, sinks: &Sinks, key: (u16, Stream)) -> u64 {
    let Some((sink, _)) = sinks.get(&key.0) else { return 0 };
    let source = source(task, key);
    loop {
        match sink.mark(&source).await {
            Ok(mark) => return mark,
            Err(reason) => {
                tracing::warn!(task, reason, "a log stream's mark cannot be read; trying again");
                ecs.world.sleep(RETRY).await;
            }
        }
    }
}

/// Keeps events, for as long as it takes: a disk that is full today has room tomorrow, and the spool bounds
/// what waits.
async fn keep(
    ecs: &Ecs,
    task: &str,
    sinks: &Sinks,
    key: (u16, Stream),
    range: Range<u64>,
    events: Vec<Whole>,
) {
    let Some((sink, _)) = sinks.get(&key.0) else { return };
    if events.is_empty() {
        return;
    }
    let events: Vec<(i64, String)> =
        events.into_iter().map(|event| (event.time_ms, event.text)).collect();
    let source = source(task, key);
    while let Err(reason) = sink.append(&source, range.clone(), &events).await {
        tracing::warn!(task, reason, "output could not be kept; trying again");
        ecs.world.sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str, end: u64) -> Frame {
        let bytes = text.as_bytes().to_vec();
        Frame { time_ms: end as i64, container: 0, stream: Stream::Stdout, bytes, end }
    }

    fn texts(events: impl IntoIterator<Item = Whole>) -> Vec<String> {
        events.into_iter().map(|event| event.text).collect()
    }

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        let whole = lines.take(&frame("a\nb", 10), 0, None);
        assert_eq!((whole[0].text.as_str(), whole[0].end), ("a", 9));
        assert_eq!(lines.safe, 0);
        assert_eq!(texts(lines.take(&frame("c\r\n\nd\n", 20), 10, None)), ["bc", "d"]);
        assert!(!lines.pending());
        assert!(lines.take(&frame("rest", 30), 20, None).is_empty());
        assert_eq!((lines.safe, texts(lines.flush(true))), (20, vec!["rest".to_owned()]));
    }

    #[test]
    fn a_pattern_says_where_events_begin() {
        let pattern = Regex::new(&datetime_pattern("%Y-%m-%d")).unwrap();
        let mut lines = Lines::default();
        let text = "2026-01-02 a\n  trace\n2026-01-02 b\n";
        let whole = lines.take(&frame(text, 100), 0, Some(&pattern));
        assert_eq!((whole[0].text.as_str(), whole[0].end), ("2026-01-02 a\n  trace", 87));
        let last = lines.flush(false).unwrap();
        assert_eq!((last.text.as_str(), last.end), ("2026-01-02 b", 100));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines::default();
        let long = "x".repeat(MOST_EVENT);
        let whole = lines.take(&frame(&long, MOST_EVENT as u64), 0, None);
        assert_eq!(whole.len(), 1);
        assert!(!lines.pending());
    }

    /// A shipper that dies after any number of frames and begins again from what was acknowledged, with the
    /// marks that were kept, gives every event once.
    #[test]
    fn dying_anywhere_loses_and_repeats_nothing() {
        let pattern = Regex::new("^E").unwrap();
        let texts = ["E1\n at", " a\nE2\nE3\n", " b\n c\nE4", "\n d\nE5\n"];
        let mut end = 0;
        let frames: Vec<Frame> = texts
            .iter()
            .map(|text| {
                end += 16 + text.len() as u64;
                frame(text, end)
            })
            .collect();
        for dies_after in 0..frames.len() {
            let (mut kept, mut mark, mut safe) = (Vec::new(), 0, 0);
            for (first, count) in [(true, dies_after), (false, frames.len())] {
                let (mut lines, mut read_to) = (Lines::default(), safe);
                let rest = frames[..count].iter().filter(|frame| frame.end > safe);
                let rest: Vec<&Frame> = rest.collect();
                for frame in rest {
                    for event in lines.take(frame, read_to, Some(&pattern)) {
                        if event.end > mark {
                            mark = event.end;
                            kept.push(event.text);
                        }
                    }
                    read_to = frame.end;
                }
                safe = if lines.pending() { lines.safe } else { read_to };
                if !first {
                    kept.extend(lines.flush(true).filter(|event| event.end > mark).map(|e| e.text));
                }
            }
            assert_eq!(kept, ["E1\n at a", "E2", "E3\n b\n c", "E4\n d", "E5"], "{dies_after}");
        }
    }
}
