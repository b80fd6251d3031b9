//! Where tasks' output comes in: the awslogs driver's side of CloudWatch Logs.

use crate::{
    Logs, faults,
    hand_on::Place,
    model::{LogGroup, LogStream},
};
use logstore::{NewEvent, SourceRange};
use std::{ops::Range, sync::Arc};
use thiserror::Error;
use wire::{Context, Fault, Principal};

/// Why a stream cannot be written to; the text is for people.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The caller may not, or the group is missing.
    #[error("{code}: {message}")]
    Refused {
        /// AWS's code.
        code: String,
        /// Its words.
        message: String,
    },
    /// The log store failed.
    #[error("the events could not be kept: {0}")]
    Store(String),
}

impl From<Fault> for SinkError {
    fn from(fault: Fault) -> Self {
        Self::Refused { code: fault.code.into_owned(), message: fault.message }
    }
}

/// A stream that output is written to.
pub struct Sink {
    logs: Arc<Logs>,
    realm: String,
    group: String,
    name: String,
    stream: String,
}

impl Logs {
    /// Opens a stream as `principal`, making it, and with `create_group` its group, when missing.
    pub async fn sink(
        self: &Arc<Self>,
        principal: &Principal,
        realm: &str,
        group: &str,
        stream: &str,
        create_group: bool,
    ) -> Result<Sink, SinkError> {
        let (_, region) = realm.split_once('/').expect("realms are account/region");
        let now = self.world.now();
        let ctx = Context::internal(principal.clone(), region, now, self.identity.clone());
        let arn = ctx.arn("logs", format!("log-group:{group}:log-stream:{stream}"));
        ctx.authorise("logs:CreateLogStream", &arn)?;
        ctx.authorise("logs:PutLogEvents", &arn)?;
        if create_group
            && self.store.read().get::<LogGroup>(&LogGroup::key_of(realm, group)).is_none()
        {
            ctx.authorise("logs:CreateLogGroup", &ctx.arn("logs", format!("log-group:{group}")))?;
        }
        let record = LogStream {
            realm: realm.to_owned(),
            group: group.to_owned(),
            name: stream.to_owned(),
            id: self.world.uuid(),
            created: now,
        };
        let known = self.store.read().get::<LogStream>(&LogStream::key_of(realm, group, stream));
        if let Some(known) = known {
            return Ok(self.opened((realm, group, stream), known.id.clone()));
        }
        let made = self.store.write(move |tx| {
            let key = LogStream::key_of(&record.realm, &record.group, &record.name);
            if let Some(known) = tx.get::<LogStream>(&key) {
                return Ok(known.id.clone());
            }
            if tx.get::<LogGroup>(&LogGroup::key_of(&record.realm, &record.group)).is_none() {
                if !create_group {
                    return Err(faults::no_group());
                }
                tx.put(LogGroup {
                    realm: record.realm.clone(),
                    name: record.group.clone(),
                    created: now,
                    retention_days: None,
                    class: "STANDARD".to_owned(),
                    tags: Default::default(),
                });
            }
            let id = record.id.clone();
            tx.put(record);
            Ok::<_, Fault>(id)
        });
        Ok(self.opened((realm, group, stream), made.await?))
    }

    fn opened(self: &Arc<Self>, (realm, group, name): (&str, &str, &str), stream: String) -> Sink {
        let (realm, group, name) = (realm.to_owned(), group.to_owned(), name.to_owned());
        Sink { logs: self.clone(), realm, group, name, stream }
    }
}

impl Sink {
    /// How far `source` was read when its last events were kept.
    pub async fn mark(&self, source: &str) -> Result<u64, SinkError> {
        let mark = self.logs.events.source_offset(&self.stream, source).await;
        let mark = mark.map_err(|error| SinkError::Store(faults::chain(&error)))?;
        Ok(mark.unwrap_or(0))
    }

    /// Keeps lines (time in ms, text) that come from `range` of `source`, in one durable step with the mark.
    pub async fn append(
        &self,
        source: &str,
        range: Range<u64>,
        lines: &[(i64, String)],
    ) -> Result<(), SinkError> {
        let events: Vec<NewEvent> = lines
            .iter()
            .map(|(timestamp_ms, message)| NewEvent {
                timestamp_ms: *timestamp_ms,
                message: message.clone(),
            })
            .collect();
        let range = SourceRange { source: source.to_owned(), start: range.start, end: range.end };
        let kept = self.logs.events.append(&self.stream, &events, Some(range)).await;
        let kept = kept.map_err(|error| SinkError::Store(faults::chain(&error)))?;
        if !kept.duplicate {
            let Self { realm, group, name, .. } = self;
            let place = Place { realm, group, stream: name };
            self.logs.filter(place, &events, kept.first_sequence).await;
        }
        Ok(())
    }
}
