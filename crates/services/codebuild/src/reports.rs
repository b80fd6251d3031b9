//! Reports of builds: the files that a buildspec names are read while the container is still there, whatever came of
//! the build, and what they say is kept for thirty days.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/test-reporting.html>

use crate::{
    CodeBuild,
    api::{ReportStatusType, ReportType},
    buildspec,
    keep::{Root, tidy},
    model::{Build, Report, ReportGroup},
    report::{self, Content, Format},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use store::DiskFault;
use wire::{Context, Principal};
use world::Timestamp;

/// The most files of a report, and the longest of them, in bytes.
const MOST_FILES: usize = 500;
const LONGEST: u64 = 16 << 20;
/// The most tests, and files with a coverage, of a report; what is beyond is cut off.
/// <https://docs.aws.amazon.com/codebuild/latest/userguide/limits.html>
const MOST_CASES: usize = 500;
/// The most reports of a group.
const MOST_REPORTS: usize = 1000;
/// The longest name of a group.
const LONGEST_NAME: usize = 128;
/// How long a report is there.
pub(crate) const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The format of a report that names none.
const USUAL: &str = "JUNITXML";

/// Makes a build's reports. What goes wrong with them is logged, and does not matter to the build.
pub(crate) async fn make(
    service: &CodeBuild,
    build: &Build,
    principal: &Principal,
    lines: &mut Vec<String>,
) -> Vec<String> {
    let region = build.realm.split_once('/').map_or("", |(_, region)| region);
    let ctx = service.outside().front.context(principal.clone(), region);
    let mut arns = Vec::new();
    for (name, wanted) in &build.plan.reports {
        match make_one(service, build, &ctx, name, wanted, lines).await {
            Ok(arn) => arns.push(arn),
            Err(why) => lines.push(format!("Error processing report {name}: {why}")),
        }
    }
    arns
}

/// The name of the group that a buildspec means; whether it is to be made when it is not there.
fn group_of(build: &Build, name: &str) -> Result<(String, bool), String> {
    if !name.starts_with("arn:") {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let group = format!("{}-{name}", build.project);
        return match group.len() <= LONGEST_NAME && group.chars().all(letter) {
            true => Ok((group, true)),
            false => Err(format!("{} cannot be a report group's name", group.escape_debug())),
        };
    }
    let (account, region) = build.realm.split_once('/').unwrap_or_default();
    let prefix = format!("arn:aws:codebuild:{region}:{account}:report-group/");
    let own = name.strip_prefix(&prefix).map(str::to_owned);
    own.map(|own| (own, false)).ok_or_else(|| "the report group is of another place".to_owned())
}

async fn make_one(
    service: &CodeBuild,
    build: &Build,
    ctx: &Context,
    name: &str,
    wanted: &buildspec::Report,
    lines: &mut Vec<String>,
) -> Result<String, String> {
    let format = wanted.format.as_ref().map_or(USUAL, |format| &format.0);
    let format = Format::of(format).ok_or_else(|| format!("there is no format {format}"))?;
    let (group, new) = group_of(build, name)?;
    let arn = ReportGroup::arn_of(&build.realm, &group);
    let put = match format.kind() {
        ReportType::Test => "codebuild:BatchPutTestCases",
        ReportType::CodeCoverage => "codebuild:BatchPutCodeCoverages",
    };
    for action in ["codebuild:CreateReport", "codebuild:UpdateReport", put] {
        ctx.authorise(action, &arn).map_err(|fault| fault.message)?;
    }
    let key = ReportGroup::key_of(&build.realm, &group);
    let known = service.store.read().get::<ReportGroup>(&key);
    match &known {
        Some(known) if known.kind != format.kind() => {
            return Err(format!("the report group {group} is of another type"));
        }
        None if !new => return Err(format!("there is no report group {group}")),
        None => {
            ctx.authorise("codebuild:CreateReportGroup", &arn).map_err(|fault| fault.message)?;
        }
        Some(_) => {}
    }
    lines.push(format!("Preparing to copy {} report {name}", format.kind().as_str()));
    let root = service.containers.root(&build.sandbox()).await.map(Root);
    let reading = Reading {
        root: root?,
        base: PathBuf::from(&build.plan.source),
        wanted: wanted.clone(),
        format,
    };
    let read = tokio::task::spawn_blocking(move || reading.read()).await;
    let (content, said) = read.map_err(|error| error.to_string())??;
    lines.extend(said.iter().cloned());
    let now = service.world.now();
    let made = report((build, &group), format, content, said.is_empty(), now);
    let (reported, realm) = (made.arn(), build.realm.clone());
    let written = service.store.write(move |tx| {
        if tx.get::<ReportGroup>(&key).is_none() {
            tx.put(ReportGroup {
                realm,
                name: group.clone(),
                kind: format.kind(),
                created: now,
                modified: now,
                tags: Vec::new(),
            });
        }
        let mut all: Vec<_> = tx.scan_prefix::<Report>(&format!("{key}/")).collect();
        all.sort_by_key(|report| report.created);
        let spare = all.len().saturating_sub(MOST_REPORTS - 1);
        for (at, old) in all.into_iter().enumerate() {
            if at < spare || old.created + LIFE <= now {
                tx.delete::<Report>(&store::Record::key(&*old));
            }
        }
        tx.put(made);
        Ok::<_, DiskFault>(())
    });
    written.await.map_err(|error| error.to_string())?;
    Ok(reported)
}

/// A report of what was read. A build makes one in a group, whose id is its own: read again after a crash, it is the
/// same.
fn report(
    (build, group): (&Build, &str),
    format: Format,
    content: Content,
    whole: bool,
    now: Timestamp,
) -> Report {
    let Content { mut cases, mut coverage, bad } = content;
    let truncated = cases.len() > MOST_CASES || coverage.len() > MOST_CASES;
    cases.truncate(MOST_CASES);
    coverage.truncate(MOST_CASES);
    Report {
        realm: build.realm.clone(),
        group: group.to_owned(),
        id: build.id.clone(),
        kind: format.kind(),
        build: build.document.arn.clone().unwrap_or_default(),
        status: match (bad, whole) {
            (true, _) => ReportStatusType::Failed,
            (false, true) => ReportStatusType::Succeeded,
            (false, false) => ReportStatusType::Incomplete,
        },
        created: now,
        truncated,
        cases,
        coverage,
    }
}

/// Reading the files of a report out of a container. Blocks.
struct Reading {
    root: Root,
    base: PathBuf,
    wanted: buildspec::Report,
    format: Format,
}

impl Reading {
    /// What they say, and what is wrong with some of them.
    fn read(self) -> Result<(Content, Vec<String>), String> {
        let base = self.wanted.base_directory.as_ref().map_or(".", |base| &base.0);
        let base = tidy(&self.base.join(base));
        let found = self.root.find(&base, &self.wanted.files.0, &[], false);
        let found = found.map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Err("no matching report files found".to_owned());
        }
        let (mut content, mut said) = (Content::default(), Vec::new());
        if found.len() > MOST_FILES {
            said.push(format!("{} files are too many for a report", found.len()));
        }
        for file in found.into_iter().take(MOST_FILES) {
            let name = match self.wanted.discard_paths.0 {
                true => Path::new(file.name.file_name().unwrap_or_default()),
                false => &file.name,
            };
            let name = name.display().to_string();
            let text = self.root.text(&file.path, LONGEST + 1).map_err(|error| error.to_string());
            let read = text.and_then(|text| match text.len() as u64 > LONGEST {
                true => Err(format!("it has more than {LONGEST} bytes")),
                false => report::read(self.format, &name, &text),
            });
            match read {
                Ok(read) => content.add(read, MOST_CASES + 1),
                Err(why) => said.push(format!("{name} cannot be read: {why}")),
            }
        }
        Ok((content, said))
    }
}
