//! Reports, and what is in them.

use super::{
    Asked,
    report_group::{find_group, group_name},
};
use crate::{
    CodeBuild,
    api::{self, *},
    faults,
    model::{Report, ReportGroup},
    report::{Case, Coverage, Outcome},
    reports::LIFE,
};
use std::{collections::BTreeMap, result::Result, sync::Arc};
use store::Record;
use wire::{Context, Fault};
use world::Timestamp;

/// The most reports that can be asked for at once.
const MOST_ASKED: usize = 100;

/// Whether a report is still there.
fn is_there(report: &Report, now: Timestamp) -> bool {
    report.created + LIFE > now
}

/// The report, if the caller may do `action` to its group.
fn find(service: &CodeBuild, ctx: &Context, arn: &str, action: &str) -> Result<Arc<Report>, Fault> {
    let invalid = || faults::invalid(format!("Invalid report ARN: {}", arn.escape_debug()));
    let (group, id) = arn.rsplit_once(':').ok_or_else(invalid)?;
    let name = group_name(group).map_err(|_| invalid())?;
    let realm = ctx.realm();
    ctx.authorise(action, &ReportGroup::arn_of(&realm, name))?;
    let key = format!("{}/{id}", ReportGroup::key_of(&realm, name));
    let found = service.store.read().get::<Report>(&key);
    found.filter(|report| is_there(report, ctx.now) && report.arn() == arn).ok_or_else(|| {
        Fault::new("ResourceNotFoundException", format!("Report cannot be found: {arn}"))
    })
}

fn percentage((covered, missed): (i32, i32)) -> Option<f64> {
    let all = f64::from(covered) + f64::from(missed);
    Some(if all > 0.0 { f64::from(covered) * 100.0 / all } else { 0.0 })
}

fn test_summary(cases: &[Case]) -> TestReportSummary {
    let all =
        [Outcome::Succeeded, Outcome::Failed, Outcome::Error, Outcome::Skipped, Outcome::Unknown];
    let count = |outcome| cases.iter().filter(|case| case.outcome == outcome).count() as i32;
    let counts: BTreeMap<String, i32> =
        all.into_iter().map(|outcome| (outcome.name().to_owned(), count(outcome))).collect();
    let total_nanoseconds =
        cases.iter().fold(0_i64, |sum, case| sum.saturating_add(case.nanoseconds));
    TestReportSummary {
        total: Some(cases.len() as i32),
        status_counts: Some(counts),
        duration_in_nano_seconds: Some(total_nanoseconds),
    }
}

fn coverage_summary(all: &[Coverage]) -> CodeCoverageReportSummary {
    let sum = |of: fn(&Coverage) -> (i32, i32)| {
        let add = |(a, b): (i32, i32), (c, d)| (a.saturating_add(c), b.saturating_add(d));
        all.iter().map(of).fold((0, 0), add)
    };
    let (lines, branches) = (sum(|one| one.lines), sum(|one| one.branches));
    CodeCoverageReportSummary {
        line_coverage_percentage: percentage(lines),
        lines_covered: Some(lines.0),
        lines_missed: Some(lines.1),
        branch_coverage_percentage: percentage(branches),
        branches_covered: Some(branches.0),
        branches_missed: Some(branches.1),
    }
}

fn described(report: &Report) -> api::Report {
    let test = report.kind == ReportType::Test;
    // What is before the id in the group's ARN, and the id: as AWS names a report.
    let name = format!("{}:{}", report.group, report.id);
    api::Report {
        arn: Some(report.arn()),
        r#type: Some(report.kind),
        name: Some(name),
        report_group_arn: Some(ReportGroup::arn_of(&report.realm, &report.group)),
        execution_id: Some(report.build.clone()),
        status: Some(report.status),
        created: Some(report.created),
        expired: Some(report.created + LIFE),
        export_config: Some(ReportExportConfig {
            export_config_type: Some(ReportExportConfigType::NoExport),
            s3_destination: None,
        }),
        truncated: Some(report.truncated),
        test_summary: test.then(|| test_summary(&report.cases)),
        code_coverage_summary: (!test).then(|| coverage_summary(&report.coverage)),
    }
}

pub(crate) async fn batch_get_reports(
    service: &CodeBuild,
    ctx: &Context,
    input: BatchGetReportsInput,
) -> Result<BatchGetReportsOutput, Fault> {
    if input.report_arns.len() > MOST_ASKED {
        return Err(faults::invalid(format!("at most {MOST_ASKED} can be asked for at once")));
    }
    let (mut reports, mut missing) = (Vec::new(), Vec::new());
    for arn in input.report_arns {
        match find(service, ctx, &arn, "codebuild:BatchGetReports") {
            Ok(found) => reports.push(described(&found)),
            Err(fault) if &*fault.code == "ResourceNotFoundException" => missing.push(arn),
            Err(fault) => return Err(fault),
        }
    }
    Ok(BatchGetReportsOutput { reports: Some(reports), reports_not_found: Some(missing) })
}

/// The reports under a prefix, the newest last unless they are to be the other way round.
fn list(
    service: &CodeBuild,
    ctx: &Context,
    prefix: &str,
    filter: Option<ReportFilter>,
    asked: Asked,
) -> Result<(Vec<String>, Option<String>), Fault> {
    let status = filter.and_then(|filter| filter.status);
    let all = service.store.read();
    let all = all.scan_prefix::<Report>(prefix);
    let shown = |report: &Arc<Report>| {
        is_there(report, ctx.now) && status.is_none_or(|status| report.status == status)
    };
    let key = |report: Arc<Report>| {
        (format!("{:020} {}", report.created.millis(), report.id), report.arn())
    };
    asked.page(all.filter(shown).map(key).collect())
}

pub(crate) async fn list_reports(
    service: &CodeBuild,
    ctx: &Context,
    input: ListReportsInput,
) -> Result<ListReportsOutput, Fault> {
    ctx.authorise("codebuild:ListReports", &ReportGroup::arn_of(&ctx.realm(), "*"))?;
    let asked = Asked {
        listing: "ListReports".to_owned(),
        order: input.sort_order,
        token: input.next_token,
        most: input.max_results,
    };
    let prefix = format!("{}/", ctx.realm());
    let (reports, next_token) = list(service, ctx, &prefix, input.filter, asked)?;
    Ok(ListReportsOutput { reports: Some(reports), next_token })
}

pub(crate) async fn list_reports_for_report_group(
    service: &CodeBuild,
    ctx: &Context,
    input: ListReportsForReportGroupInput,
) -> Result<ListReportsForReportGroupOutput, Fault> {
    let action = "codebuild:ListReportsForReportGroup";
    let group = find_group(service, ctx, &input.report_group_arn, action)?;
    let asked = Asked {
        listing: format!("ListReportsForReportGroup {}", group.name),
        order: input.sort_order,
        token: input.next_token,
        most: input.max_results,
    };
    let prefix = format!("{}/", group.key());
    let (reports, next_token) = list(service, ctx, &prefix, input.filter, asked)?;
    Ok(ListReportsForReportGroupOutput { reports: Some(reports), next_token })
}

pub(crate) async fn describe_test_cases(
    service: &CodeBuild,
    ctx: &Context,
    input: DescribeTestCasesInput,
) -> Result<DescribeTestCasesOutput, Fault> {
    let report = find(service, ctx, &input.report_arn, "codebuild:DescribeTestCases")?;
    let filter = input.filter.unwrap_or_default();
    let shown = |case: &Case| {
        let text = |text: &String| text.contains(filter.keyword.as_deref().unwrap_or_default());
        filter.status.as_deref().is_none_or(|status| case.outcome.name() == status)
            && [&case.name, &case.prefix, &case.suite].into_iter().any(text)
    };
    let told = |(number, case): (usize, &Case)| {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let told = TestCase {
            report_arn: Some(report.arn()),
            test_raw_data_path: Some(case.file.clone()),
            prefix: given(&case.prefix),
            name: Some(case.name.clone()),
            status: Some(case.outcome.name().to_owned()),
            duration_in_nano_seconds: Some(case.nanoseconds),
            message: given(&case.message),
            expired: Some(report.created + LIFE),
            test_suite_name: given(&case.suite),
        };
        (format!("{number:06}"), told)
    };
    let cases = report.cases.iter().enumerate().filter(|(_, case)| shown(case)).map(told);
    let asked = Asked {
        listing: format!(
            "DescribeTestCases {} {:?} {:?}",
            input.report_arn, filter.status, filter.keyword
        ),
        order: None,
        token: input.next_token,
        most: input.max_results,
    };
    let (test_cases, next_token) = asked.page(cases.collect())?;
    Ok(DescribeTestCasesOutput { test_cases: Some(test_cases), next_token })
}

pub(crate) async fn describe_code_coverages(
    service: &CodeBuild,
    ctx: &Context,
    input: DescribeCodeCoveragesInput,
) -> Result<DescribeCodeCoveragesOutput, Fault> {
    let report = find(service, ctx, &input.report_arn, "codebuild:DescribeCodeCoverages")?;
    let (least, most) = (input.min_line_coverage_percentage, input.max_line_coverage_percentage);
    let by_path = input.sort_by == Some(ReportCodeCoverageSortByType::FilePath);
    let mut told = Vec::new();
    for one in &report.coverage {
        let lines = percentage(one.lines);
        let share = lines.unwrap_or_default();
        if least.is_some_and(|least| share < least) || most.is_some_and(|most| share > most) {
            continue;
        }
        let key = match by_path {
            true => one.path.clone(),
            false => format!("{share:010.5} {}", one.path),
        };
        told.push((
            key,
            CodeCoverage {
                id: Some(format!("{}:{}", report.id, one.path)),
                report_arn: Some(report.arn()),
                file_path: Some(one.path.clone()),
                line_coverage_percentage: lines,
                lines_covered: Some(one.lines.0),
                lines_missed: Some(one.lines.1),
                branch_coverage_percentage: percentage(one.branches),
                branches_covered: Some(one.branches.0),
                branches_missed: Some(one.branches.1),
                expired: Some(report.created + LIFE),
            },
        ));
    }
    let asked = Asked {
        listing: format!("DescribeCodeCoverages {} {by_path} {least:?} {most:?}", input.report_arn),
        order: input.sort_order,
        token: input.next_token,
        most: input.max_results,
    };
    let (code_coverages, next_token) = asked.page(told)?;
    Ok(DescribeCodeCoveragesOutput { code_coverages: Some(code_coverages), next_token })
}

pub(crate) async fn delete_report(
    service: &CodeBuild,
    ctx: &Context,
    input: DeleteReportInput,
) -> Result<DeleteReportOutput, Fault> {
    let key = match find(service, ctx, &input.arn, "codebuild:DeleteReport") {
        Ok(found) => found.key(),
        // What is gone is deleted.
        Err(fault) if &*fault.code == "ResourceNotFoundException" => {
            return Ok(DeleteReportOutput {});
        }
        Err(fault) => return Err(fault),
    };
    service
        .store
        .write(move |tx| {
            tx.delete::<Report>(&key);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(DeleteReportOutput {})
}
