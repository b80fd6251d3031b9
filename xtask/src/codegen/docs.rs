//! `docs/operations.md`: what is built, as the lists say.

use super::plan::Plan;

pub(super) fn file(plans: &[Plan]) -> String {
    let mut out = String::from(
        "# Operations\n\n\
         Made by `cargo xtask codegen` from each service's `operations.toml`; do not edit. An operation that is not listed answers\n\
         AWS's unknown-operation error. A request member that is not listed as refused does what AWS says it does; a refused\n\
         one answers an error with the reason given here when it is set.\n\n\
         | service | operations built | of |\n| --- | --- | --- |\n",
    );
    for plan in plans {
        out.push_str(&format!(
            "| [{}](#{}) | {} | {} |\n",
            plan.model.metadata.service_full_name,
            plan.name(),
            plan.operation_names().len(),
            plan.model.operations.len()
        ));
    }
    for plan in plans {
        section(plan, &mut out);
    }
    out
}

/// `docs/resource-types.md`: CloudFormation's types of resources that are made here.
pub(super) fn resource_types(plans: &[Plan]) -> String {
    let mut out = String::from(
        "# Resource types\n\n\
         Made by `cargo xtask codegen` from each service's `operations.toml`; do not edit. Properties are AWS's; one that is not carried\n\
         out makes the resource fail, with its name. What a service's operations refuse ([operations.md](operations.md)) is refused in\n\
         templates, too. `AWS::CDK::Metadata` is taken, and does nothing, as on AWS.\n\n\
         | service | types |\n| --- | --- |\n",
    );
    for plan in plans.iter().filter(|plan| !plan.service.resource_types.is_empty()) {
        let types = plan.service.resource_types.join(", ");
        out.push_str(&format!("| {} | {types} |\n", plan.model.metadata.service_full_name));
    }
    out
}

fn section(plan: &Plan, out: &mut String) {
    out.push_str(&format!("\n## {}\n\n| resource | operations |\n| --- | --- |\n", plan.name()));
    for (resource, operations) in &plan.service.operations {
        let mut operations = operations.clone();
        operations.sort();
        out.push_str(&format!("| {resource} | {} |\n", operations.join(", ")));
    }
    if plan.service.refused.values().all(|members| members.is_empty()) {
        return;
    }
    out.push_str("\n| refused | why |\n| --- | --- |\n");
    for (shape, members) in &plan.service.refused {
        for (member, reason) in members {
            out.push_str(&format!("| {shape}.{member} | {reason} |\n"));
        }
    }
}
