//! Variables in actions' configurations: `#{namespace.name}`.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/reference-variables.html>

use crate::model::Execution;
use std::collections::BTreeMap;

/// The configuration with every variable's value; the name of one that has none is the error.
pub(crate) fn resolve(
    configuration: &BTreeMap<String, String>,
    execution: &Execution,
) -> Result<BTreeMap<String, String>, String> {
    let pairs = configuration.iter();
    let resolved = pairs.map(|(key, value)| Ok((key.clone(), replace(value, execution)?)));
    resolved.collect()
}

fn replace(text: &str, execution: &Execution) -> Result<String, String> {
    let (mut made, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("#{") {
        made.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            made.push_str("#{");
            rest = after;
            continue;
        };
        made.push_str(value(name, execution).ok_or_else(|| name.to_owned())?);
        rest = after;
    }
    made.push_str(rest);
    Ok(made)
}

fn value<'a>(name: &str, execution: &'a Execution) -> Option<&'a str> {
    let (namespace, name) = name.split_once('.')?;
    let found = match (namespace, name) {
        ("codepipeline", "PipelineExecutionId") => Some(&execution.id),
        ("variables", name) => execution.variables.get(name),
        (namespace, name) => execution.outputs.get(namespace)?.get(name),
    };
    found.map(String::as_str)
}
