//! Pull requests elsewhere: git does not tell of them, so hosts' webhooks do. What one says is believed only as far as
//! the repository itself bears it out: the commit must be what the pull request's reference, or its source branch, is
//! at.

use crate::{
    CodePipeline,
    api::GitPullRequestEventType as Happened,
    elsewhere,
    model::{Notice, Pipeline},
    triggers::{self, Start, Verdict},
};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use store::{DiskFault, Record};

/// The most that wait, and how often one is tried.
const MOST_WAITING: usize = 100;
const MOST_TRIES: u32 = 10;
/// The longest name of anything.
const LONGEST: usize = 512;

/// What a webhook says of a pull request, if it says something of one: GitHub's, GitLab's and Bitbucket's, and that of
/// hosts that speak as GitHub does (Gitea, Forgejo).
/// <https://docs.github.com/webhooks/webhook-events-and-payloads#pull_request>,
/// <https://docs.gitlab.com/user/project/integrations/webhook_events/#merge-request-events>,
/// <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/#Pull-request-events>
pub(crate) fn read(body: &[u8], event: Option<&str>) -> Option<Notice> {
    let json: Json = serde_json::from_slice(body).ok()?;
    let text = |value: &Json| {
        value.as_str().filter(|text| !text.is_empty() && text.len() <= LONGEST).map(str::to_owned)
    };
    let (happened, repository, number, [base, head, commit]) = if json["object_kind"]
        == "merge_request"
    {
        let request = &json["object_attributes"];
        let happened = match request["action"].as_str()? {
            "open" | "reopen" => Happened::Open,
            // Other changes of it are not of its commits.
            "update" if request["oldrev"].is_string() => Happened::Updated,
            "close" | "merge" => Happened::Closed,
            _ => return None,
        };
        let parts =
            [&request["target_branch"], &request["source_branch"], &request["last_commit"]["id"]];
        (happened, &json["project"]["path_with_namespace"], &request["iid"], parts)
    } else if json["pullrequest"].is_object() {
        let request = &json["pullrequest"];
        let happened = match event? {
            "pullrequest:created" => Happened::Open,
            "pullrequest:updated" => Happened::Updated,
            "pullrequest:fulfilled" | "pullrequest:rejected" => Happened::Closed,
            _ => return None,
        };
        let (base, head) = (&request["destination"]["branch"], &request["source"]["branch"]);
        let parts = [&base["name"], &head["name"], &request["source"]["commit"]["hash"]];
        (happened, &json["repository"]["full_name"], &request["id"], parts)
    } else {
        let request = &json["pull_request"];
        let happened = match json["action"].as_str()? {
            "opened" | "reopened" => Happened::Open,
            "synchronize" | "synchronized" => Happened::Updated,
            "closed" => Happened::Closed,
            _ => return None,
        };
        let parts = [&request["base"]["ref"], &request["head"]["ref"], &request["head"]["sha"]];
        (happened, &json["repository"]["full_name"], &request["number"], parts)
    };
    let commit = text(commit)?;
    // Bitbucket tells the first digits only.
    let digits = (7..=64).contains(&commit.len()) && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let plain =
        |name: &String| !name.starts_with('-') && !name.contains(['\n', '\0', ' ', ':', '*']);
    digits.then_some(())?;
    Some(Notice {
        id: String::new(),
        repository: text(repository)?,
        number: number.as_u64()?,
        happened,
        base: text(base).filter(plain)?,
        head: text(head).filter(plain)?,
        commit,
        tries: 0,
    })
}

/// Whether anybody wants to know of it.
fn is_wanted(service: &CodePipeline, notice: &Notice) -> bool {
    service.store.read().scan::<Pipeline>().any(|pipeline| !own(&pipeline, notice).is_empty())
}

/// The source actions of a pipeline with filters that a pull request may begin it by, and where they lead.
fn own<'a>(
    pipeline: &'a Pipeline,
    notice: &Notice,
) -> Vec<(&'a str, &'a [crate::api::GitPullRequestFilter], [&'a str; 3])> {
    let bare = |name: &str| name.trim_end_matches(".git").to_ascii_lowercase();
    let mut found = triggers::sources(pipeline);
    found.retain(|(_, [_, repository, _])| bare(repository) == bare(&notice.repository));
    let asked = found.into_iter().filter_map(|(configuration, place)| {
        let filters = configuration.pull_request.as_deref()?;
        Some((configuration.source_action_name.as_str(), filters, place))
    });
    asked.collect()
}

/// Remembers what a webhook says, for the next look; false when there is too much of it.
pub(crate) async fn hear(service: &CodePipeline, mut notice: Notice) -> Result<bool, DiskFault> {
    if !is_wanted(service, &notice) {
        return Ok(true);
    }
    notice.id = service.world.uuid();
    service
        .store
        .write(move |tx| {
            let waiting: Vec<_> = tx.scan::<Notice>().collect();
            let same = |other: &Notice| {
                (&other.repository, other.number, other.happened, &other.commit)
                    == (&notice.repository, notice.number, notice.happened, &notice.commit)
            };
            if waiting.iter().any(|other| same(other)) {
                return Ok(true);
            }
            let room = waiting.len() < MOST_WAITING;
            if room {
                tx.put(notice);
            }
            Ok(room)
        })
        .await
}

/// Begins what the pull requests begin that webhooks told of.
pub(crate) async fn round(service: &CodePipeline) -> Result<(), DiskFault> {
    let waiting: Vec<_> = service.store.read().scan::<Notice>().collect();
    for notice in waiting {
        let starts = starts(service, &notice).await;
        let (now, world, key) = (service.world.now(), service.world.clone(), notice.key());
        if let Err(why) = &starts {
            let (repository, number) = (&notice.repository, notice.number);
            tracing::warn!(repository, number, why, "a pull request cannot be looked at");
        }
        let written = service.store.write(move |tx| {
            match starts {
                Err(_) if notice.tries + 1 < MOST_TRIES => {
                    tx.update::<Notice>(&key, |notice| notice.tries += 1);
                }
                starts => {
                    // Nobody else may have begun them meanwhile.
                    if tx.delete::<Notice>(&key) {
                        triggers::begin_all(tx, &world, now, starts.unwrap_or_default());
                    }
                }
            }
            Ok(())
        });
        written.await?;
    }
    Ok(())
}

/// What a repository has of a pull request.
struct Seen {
    /// The commit that it is at.
    commit: String,
    /// The files that it changes.
    files: Vec<String>,
}

/// Looks whether a repository bears a notice out, as a pipeline's role.
async fn look(
    service: &CodePipeline,
    pipeline: &Pipeline,
    (connection, repository): (&str, &str),
    notice: &Notice,
) -> Result<Seen, String> {
    let ctx = elsewhere::look_as(service, &pipeline.realm, &pipeline.declaration.role_arn)?;
    let (connections, front) = (&service.connections, service.front());
    let found = connections.remote(front, &ctx, connection, repository).await;
    let (_, remote) = found.map_err(|fault| fault.message)?;
    let number = notice.number;
    let names = [
        format!("refs/heads/{}", notice.base),
        format!("refs/heads/{}", notice.head),
        format!("refs/pull/{number}/head"),
        format!("refs/merge-requests/{number}/head"),
    ];
    let tips = remote.tips(&service.world, &names).await?;
    let mut there = names[1..].iter().filter_map(|name| tips.get(name));
    let commit = there.find(|tip| tip.starts_with(&notice.commit));
    let commit = commit.ok_or_else(|| format!("{} is not what it is at", notice.commit))?;
    let files = match tips.get(&names[0]) {
        Some(base) => {
            remote.changed_files(&service.world, commit, None, vec![base.clone()]).await?
        }
        None => Vec::new(),
    };
    Ok(Seen { commit: commit.clone(), files })
}

/// What a pull request begins, as far as its repository bears it out.
async fn starts(service: &CodePipeline, notice: &Notice) -> Result<Vec<Start>, String> {
    let mut seen: BTreeMap<[String; 3], Seen> = BTreeMap::new();
    let mut starts = Vec::new();
    let pipelines: Vec<_> = service.store.read().scan::<Pipeline>().collect();
    for pipeline in &pipelines {
        for (action, filters, [connection, repository, _]) in own(pipeline, notice) {
            let verdict = Verdict::of_request(filters, notice.happened, &notice.base);
            if verdict == Verdict::Said(false) {
                continue;
            }
            let role = &pipeline.declaration.role_arn;
            let place = [&*pipeline.realm, connection, role].map(str::to_owned);
            if !seen.contains_key(&place) {
                let looked = look(service, pipeline, (connection, repository), notice).await?;
                seen.insert(place.clone(), looked);
            }
            let Seen { commit, files } = &seen[&place];
            if verdict.with(files) {
                starts.push(Start {
                    pipeline: pipeline.key(),
                    action: action.to_owned(),
                    connection: connection.to_owned(),
                    commit: commit.clone(),
                    branch: Some(notice.head.clone()),
                });
            }
        }
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn told(body: Json, event: Option<&str>) -> Option<(Happened, String, u64, String, String)> {
        let notice = read(body.to_string().as_bytes(), event)?;
        assert!(COMMIT.starts_with(&notice.commit));
        Some((notice.happened, notice.repository, notice.number, notice.base, notice.head))
    }

    fn expected(happened: Happened) -> Option<(Happened, String, u64, String, String)> {
        let of = str::to_owned;
        Some((happened, of("a/b"), 7, of("main"), of("topic")))
    }

    #[test]
    fn hosts_tell_of_pull_requests() {
        let github = |action: &str| {
            json!({"action": action, "number": 7, "repository": {"full_name": "a/b"}, "pull_request": {
                "number": 7, "base": {"ref": "main"}, "head": {"ref": "topic", "sha": COMMIT}}})
        };
        assert_eq!(told(github("opened"), None), expected(Happened::Open));
        assert_eq!(told(github("synchronize"), Some("x")), expected(Happened::Updated));
        assert_eq!(told(github("synchronized"), None), expected(Happened::Updated));
        assert_eq!(told(github("closed"), None), expected(Happened::Closed));
        assert_eq!(told(github("labeled"), None), None);
        let gitlab = |action: &str, oldrev: Json| {
            json!({"object_kind": "merge_request", "project": {"path_with_namespace": "a/b"},
                "object_attributes": {"action": action, "iid": 7, "target_branch": "main", "source_branch": "topic",
                    "last_commit": {"id": COMMIT}, "oldrev": oldrev}})
        };
        assert_eq!(told(gitlab("open", Json::Null), None), expected(Happened::Open));
        assert_eq!(told(gitlab("update", json!("1")), None), expected(Happened::Updated));
        assert_eq!(told(gitlab("update", Json::Null), None), None);
        assert_eq!(told(gitlab("merge", Json::Null), None), expected(Happened::Closed));
        let bitbucket = json!({"repository": {"full_name": "a/b"}, "pullrequest": {"id": 7,
            "source": {"branch": {"name": "topic"}, "commit": {"hash": &COMMIT[..12]}},
            "destination": {"branch": {"name": "main"}}}});
        assert_eq!(told(bitbucket.clone(), Some("pullrequest:created")), expected(Happened::Open));
        assert_eq!(
            told(bitbucket.clone(), Some("pullrequest:fulfilled")),
            expected(Happened::Closed)
        );
        assert_eq!(told(bitbucket, None), None);
        // A push, and what means harm.
        assert_eq!(told(json!({"ref": "refs/heads/main", "after": COMMIT}), None), None);
        for (place, bad) in [
            ("/pull_request/head/sha", json!("--upload-pack=x")),
            ("/pull_request/head/sha", json!("abc")),
            ("/pull_request/base/ref", json!("-x")),
            ("/pull_request/head/ref", json!("a b")),
            ("/pull_request/number", json!(-1)),
            ("/repository/full_name", json!("x".repeat(600))),
        ] {
            let mut body = github("opened");
            *body.pointer_mut(place).unwrap() = bad;
            assert_eq!(told(body, None), None, "{place}");
        }
    }

    proptest! {
        #[test]
        fn anything_at_all_may_be_posted(body in prop::collection::vec(any::<u8>(), 0..300), event in ".{0,30}") {
            let _ = read(&body, Some(&event));
        }
    }
}
