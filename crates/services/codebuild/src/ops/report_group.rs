//! Groups of reports.

use super::{Asked, project::tags};
use crate::{
    CodeBuild,
    api::{self, *},
    faults,
    model::{Report, ReportGroup},
};
use std::{result::Result, sync::Arc};
use store::Record;
use wire::{Context, Fault};

/// The most groups that can be asked for at once.
const MOST_ASKED: usize = 100;

/// The name in a group's ARN.
pub(crate) fn group_name(arn: &str) -> Result<&str, Fault> {
    let name = arn.rsplit_once(":report-group/").map(|(_, name)| name);
    name.filter(|name| !name.is_empty() && !name.contains(['/', ':']))
        .ok_or_else(|| faults::invalid(format!("Invalid report group ARN: {}", arn.escape_debug())))
}

fn no_group(arn: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("Report group cannot be found: {arn}"))
}

/// The group, if the caller may do `action` to it.
pub(crate) fn find_group(
    service: &CodeBuild,
    ctx: &Context,
    arn: &str,
    action: &str,
) -> Result<Arc<ReportGroup>, Fault> {
    let name = group_name(arn)?;
    let own = ReportGroup::arn_of(&ctx.realm(), name);
    ctx.authorise(action, &own)?;
    let found = service.store.read().get::<ReportGroup>(&ReportGroup::key_of(&ctx.realm(), name));
    found.filter(|_| own == arn).ok_or_else(|| no_group(arn))
}

/// Reports are kept here, and nowhere else.
fn check_export(given: &ReportExportConfig) -> Result<(), Fault> {
    match given.export_config_type {
        Some(ReportExportConfigType::S3) => {
            Err(faults::invalid("Neargate keeps reports, and does not export them to S3 yet"))
        }
        _ => Ok(()),
    }
}

fn described(group: &ReportGroup) -> api::ReportGroup {
    api::ReportGroup {
        arn: Some(ReportGroup::arn_of(&group.realm, &group.name)),
        name: Some(group.name.clone()),
        r#type: Some(group.kind),
        export_config: Some(ReportExportConfig {
            export_config_type: Some(ReportExportConfigType::NoExport),
            s3_destination: None,
        }),
        created: Some(group.created),
        last_modified: Some(group.modified),
        tags: Some(group.tags.clone()),
        status: Some(ReportGroupStatusType::Active),
    }
}

pub(crate) async fn create_report_group(
    service: &CodeBuild,
    ctx: &Context,
    input: CreateReportGroupInput,
) -> Result<CreateReportGroupOutput, Fault> {
    let arn = ReportGroup::arn_of(&ctx.realm(), &input.name);
    ctx.authorise("codebuild:CreateReportGroup", &arn)?;
    group_name(&arn)?;
    check_export(&input.export_config)?;
    let made = ReportGroup {
        realm: ctx.realm(),
        name: input.name,
        kind: input.r#type,
        created: ctx.now,
        modified: ctx.now,
        tags: tags(input.tags)?.unwrap_or_default(),
    };
    let shown = described(&made);
    service
        .store
        .write(move |tx| {
            if tx.get::<ReportGroup>(&made.key()).is_some() {
                return Err(Fault::new(
                    "ResourceAlreadyExistsException",
                    format!("Report group already exists: {arn}"),
                ));
            }
            tx.put(made);
            Ok(())
        })
        .await?;
    Ok(CreateReportGroupOutput { report_group: Some(shown) })
}

pub(crate) async fn update_report_group(
    service: &CodeBuild,
    ctx: &Context,
    input: UpdateReportGroupInput,
) -> Result<UpdateReportGroupOutput, Fault> {
    let found = find_group(service, ctx, &input.arn, "codebuild:UpdateReportGroup")?;
    let (key, now) = (found.key(), ctx.now);
    input.export_config.as_ref().map_or(Ok(()), check_export)?;
    let new = input.tags.map(|given| tags(Some(given))).transpose()?.flatten();
    let changed = service.store.write(move |tx| {
        tx.update::<ReportGroup>(&key, |group| {
            group.modified = now;
            if let Some(tags) = new {
                group.tags = tags;
            }
        });
        tx.get::<ReportGroup>(&key).ok_or_else(|| no_group(&input.arn))
    });
    Ok(UpdateReportGroupOutput { report_group: Some(described(&*changed.await?)) })
}

pub(crate) async fn delete_report_group(
    service: &CodeBuild,
    ctx: &Context,
    input: DeleteReportGroupInput,
) -> Result<DeleteReportGroupOutput, Fault> {
    let name = group_name(&input.arn)?;
    let (arn, key) =
        (ReportGroup::arn_of(&ctx.realm(), name), ReportGroup::key_of(&ctx.realm(), name));
    ctx.authorise("codebuild:DeleteReportGroup", &arn)?;
    service
        .store
        .write(move |tx| {
            let reports: Vec<_> = tx.scan_prefix::<Report>(&format!("{key}/")).collect();
            if !reports.is_empty() && input.delete_reports != Some(true) {
                return Err(faults::invalid(
                    "Report group is not empty: delete its reports, or ask for that with deleteReports",
                ));
            }
            for report in reports {
                tx.delete::<Report>(&report.key());
            }
            tx.delete::<ReportGroup>(&key);
            Ok(())
        })
        .await?;
    Ok(DeleteReportGroupOutput {})
}

pub(crate) async fn batch_get_report_groups(
    service: &CodeBuild,
    ctx: &Context,
    input: BatchGetReportGroupsInput,
) -> Result<BatchGetReportGroupsOutput, Fault> {
    if input.report_group_arns.len() > MOST_ASKED {
        return Err(faults::invalid(format!("at most {MOST_ASKED} can be asked for at once")));
    }
    let (mut groups, mut missing) = (Vec::new(), Vec::new());
    for arn in input.report_group_arns {
        match find_group(service, ctx, &arn, "codebuild:BatchGetReportGroups") {
            Ok(found) => groups.push(described(&found)),
            Err(fault) if &*fault.code == "ResourceNotFoundException" => missing.push(arn),
            Err(fault) => return Err(fault),
        }
    }
    let (report_groups, report_groups_not_found) = (Some(groups), Some(missing));
    Ok(BatchGetReportGroupsOutput { report_groups, report_groups_not_found })
}

pub(crate) async fn list_report_groups(
    service: &CodeBuild,
    ctx: &Context,
    input: ListReportGroupsInput,
) -> Result<ListReportGroupsOutput, Fault> {
    ctx.authorise("codebuild:ListReportGroups", &ReportGroup::arn_of(&ctx.realm(), "*"))?;
    let sort = input.sort_by.unwrap_or(ReportGroupSortByType::Name);
    let order = |group: &ReportGroup| match sort {
        ReportGroupSortByType::Name => group.name.clone(),
        ReportGroupSortByType::CreatedTime => {
            format!("{:020} {}", group.created.millis(), group.name)
        }
        ReportGroupSortByType::LastModifiedTime => {
            format!("{:020} {}", group.modified.millis(), group.name)
        }
    };
    let prefix = format!("{}/", ctx.realm());
    let all = service.store.read();
    let all = all.scan_prefix::<ReportGroup>(&prefix);
    let all = all.map(|group| (order(&group), ReportGroup::arn_of(&group.realm, &group.name)));
    let asked = Asked {
        listing: format!("ListReportGroups {}", sort.as_str()),
        order: input.sort_order,
        token: input.next_token,
        most: input.max_results,
    };
    let (groups, next_token) = asked.page(all.collect())?;
    Ok(ListReportGroupsOutput { report_groups: Some(groups), next_token })
}
