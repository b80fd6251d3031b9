//! The log driver splunk: output goes to an HTTP Event Collector.
//! <https://docs.docker.com/engine/logging/drivers/splunk/>

use super::patience::Patience;
use crate::{
    Ecs,
    api::ContainerDefinition,
    model::Task,
    surroundings::{LogSink, Pending},
    validate::is_splunk,
};
use serde_json::{Map, Value as Json, json};
use std::{ops::Range, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use wire::Principal;

/// Where collectors take events, below their URL.
const COLLECTOR: &str = "/services/collector/event/1.0";
/// How long a collector may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A collector for one container's output.
pub(super) struct Collector {
    ecs: Arc<Ecs>,
    client: reqwest::Client,
    url: String,
    authorization: String,
    /// What every event has besides its time and what was written.
    common: Map<String, Json>,
    tag: String,
    format: Format,
    task: String,
    patience: Mutex<Patience>,
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Inline,
    Json,
    Raw,
}

impl Collector {
    /// The sink of a container that has this driver; none for others. The error is the task's stop reason.
    pub(super) async fn open(
        ecs: &Arc<Ecs>,
        task: &Task,
        container: &ContainerDefinition,
        principal: Option<&Principal>,
    ) -> Result<Option<Arc<dyn LogSink>>, String> {
        let Some(log) = container.log_configuration.as_ref().filter(|_| is_splunk(container))
        else {
            return Ok(None);
        };
        let mut options = log.options.clone().unwrap_or_default();
        for secret in log.secret_options.iter().flatten() {
            let invalid = |reason: &str| {
                format!(
                    "ResourceInitializationError: unable to pull secrets or registry auth: execution resource \
                     retrieval failed: unable to retrieve secret: {reason}"
                )
            };
            let principal = principal.ok_or_else(|| invalid("the task has no execution role"))?;
            let value =
                ecs.surroundings().secrets.value(&task.realm, principal, &secret.value_from);
            options.insert(secret.name.clone(), value.await.map_err(|reason| invalid(&reason))?);
        }
        let option = |name: &str| options.get(name).map(String::as_str);
        let name = container.name.as_deref().unwrap_or_default();
        let record = task.containers.iter().find(|known| known.name == name);
        let id = record.and_then(|record| record.runtime_id.clone()).unwrap_or_default();
        let mut common =
            Map::from_iter([("host".to_owned(), json!(format!("{name}-{}", task.id)))]);
        for key in ["source", "sourcetype", "index"] {
            if let Some(value) = option(&format!("splunk-{key}")) {
                common.insert(key.to_owned(), json!(value));
            }
        }
        let collector = Self {
            ecs: ecs.clone(),
            client: images::registry::outside(option("splunk-insecureskipverify") != Some("true")),
            url: format!(
                "{}{COLLECTOR}",
                option("splunk-url").unwrap_or_default().trim_end_matches('/')
            ),
            authorization: format!("Splunk {}", option("splunk-token").unwrap_or_default()),
            common,
            tag: option("tag").map_or_else(|| id.chars().take(12).collect(), str::to_owned),
            format: match option("splunk-format") {
                Some("json") => Format::Json,
                Some("raw") => Format::Raw,
                _ => Format::Inline,
            },
            task: task.id.clone(),
            patience: Mutex::default(),
        };
        if option("splunk-verify-connection") != Some("false") {
            let asked = collector.client.request(reqwest::Method::OPTIONS, &collector.url);
            collector.answered(asked).await.map_err(|reason| {
                format!(
                    "ResourceInitializationError: failed to validate logger args: splunk: {reason}"
                )
            })?;
        }
        Ok(Some(Arc::new(collector)))
    }

    async fn answered(&self, request: reqwest::RequestBuilder) -> Result<(), String> {
        let request = request.header("Authorization", &self.authorization);
        let answer = self.ecs.world.timeout(ANSWER, request.send()).await;
        let answer = answer.ok_or("the collector does not answer")?;
        // The URL may have a login in it.
        let answer = answer.map_err(|error| super::chain(&error.without_url()))?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(format!("the collector answers {}", answer.status())),
        }
    }

    fn event(&self, stream: &str, time_ms: i64, line: &str) -> Json {
        let mut event = self.common.clone();
        let (seconds, part) = (time_ms.div_euclid(1000), time_ms.rem_euclid(1000));
        event.insert("time".to_owned(), json!(format!("{seconds}.{part:03}000")));
        let said = match self.format {
            Format::Raw => json!(format!("{} {line}", self.tag).trim_start()),
            format => {
                let read =
                    (format == Format::Json).then(|| serde_json::from_str(line).ok()).flatten();
                let line: Json = read.unwrap_or_else(|| json!(line));
                json!({"line": line, "source": stream, "tag": self.tag})
            }
        };
        event.insert("event".to_owned(), said);
        Json::Object(event)
    }
}

impl LogSink for Collector {
    /// A collector keeps no marks: after a crash of the control plane it may get the last events twice.
    fn mark<'a>(&'a self, _source: &'a str) -> Pending<'a, Result<u64, String>> {
        Box::pin(async { Ok(0) })
    }

    fn append<'a>(
        &'a self,
        source: &'a str,
        _range: Range<u64>,
        lines: &'a [(i64, String)],
    ) -> Pending<'a, Result<(), String>> {
        Box::pin(async move {
            let stream = if source.ends_with("/err") { "stderr" } else { "stdout" };
            let events =
                lines.iter().map(|(time, line)| self.event(stream, *time, line).to_string());
            let body = events.collect::<Vec<_>>().join("\n");
            let mut patience = self.patience.lock().await;
            let sent = self.answered(self.client.post(&self.url).body(body)).await;
            patience.settle(sent, self.ecs.world.now(), false, &self.task)
        })
    }
}
