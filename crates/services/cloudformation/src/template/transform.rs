//! Transforms that CloudFormation carries out before it reads a template: `AWS::Include`, which puts what lies in S3
//! into it, and `AWS::Serverless-2016-10-31`, SAM's.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/transform-reference.html>

use super::{Template, malformed, transforms};
use crate::faults;
use serde_json::{Map, Value as Json, json};
use wire::Fault;

const INCLUDE: &str = "AWS::Include";
const SERVERLESS: &str = "AWS::Serverless-2016-10-31";
const FUNCTION: &str = "Fn::Transform";

/// How many snippets a template includes at most.
const MOST_SNIPPETS: usize = 100;
/// How deep a template is looked through; the reader lets none through that is deeper.
const MOST_DEPTH: usize = 200;

/// Whether anything here is to be transformed before the template is read.
pub(crate) fn is_needed(tree: &Json) -> Result<bool, Fault> {
    let ours = |name: &String| [INCLUDE, SERVERLESS].contains(&name.as_str());
    Ok(transforms(tree.get("Transform"))?.iter().any(ours) || has_function(tree, 0))
}

fn has_function(json: &Json, depth: usize) -> bool {
    match json {
        _ if depth > MOST_DEPTH => false,
        Json::Object(map) => {
            map.contains_key(FUNCTION) || map.values().any(|value| has_function(value, depth + 1))
        }
        Json::Array(items) => items.iter().any(|item| has_function(item, depth + 1)),
        _ => false,
    }
}

/// Where the snippets lie that a template includes, as it says it, in the order in which [`include`] takes them.
pub(crate) fn locations(tree: &Json) -> Result<Vec<Json>, Fault> {
    let mut all = Vec::new();
    included(&mut tree.clone(), &mut |location| {
        all.push(location.clone());
        Ok(Map::new())
    })?;
    match all.len() > MOST_SNIPPETS {
        true => Err(malformed(format!("more than {MOST_SNIPPETS} snippets are included"))),
        false => Ok(all),
    }
}

/// Puts the snippets where they are included.
pub(crate) fn include(tree: &mut Json, snippets: Vec<Json>) -> Result<(), Fault> {
    let mut snippets = snippets.into_iter();
    included(tree, &mut |_| match snippets.next() {
        Some(Json::Object(snippet)) if !has_function(&json!(snippet), 0) => Ok(snippet),
        Some(Json::Object(_)) => Err(failed("a snippet includes another")),
        _ => Err(failed("The specified S3 object's content should be valid Yaml/JSON")),
    })
}

fn failed(why: &str) -> Fault {
    faults::validation(format!("Transform {INCLUDE} failed with: {why}."))
}

/// What a snippet's location comes to.
type Fetch<'a> = &'a mut dyn FnMut(&Json) -> Result<Map<String, Json>, Fault>;

fn included(tree: &mut Json, fetch: Fetch) -> Result<(), Fault> {
    let Json::Object(top) = tree else { return Ok(()) };
    let declared = match top.get("Transform") {
        Some(Json::Array(all)) => all.clone(),
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    };
    for transform in declared {
        if transform.get("Name").is_some_and(|name| name == INCLUDE) {
            for (part, more) in fetch(&location(&transform)?)? {
                match (top.get_mut(&part), more) {
                    (Some(Json::Object(own)), Json::Object(more)) => {
                        more.into_iter().for_each(|(name, value)| {
                            own.entry(name).or_insert(value);
                        });
                    }
                    (Some(_), _) => {}
                    (None, more) => drop(top.insert(part, more)),
                }
            }
        }
    }
    walk(tree, fetch, 0)
}

fn walk(json: &mut Json, fetch: Fetch, depth: usize) -> Result<(), Fault> {
    match json {
        _ if depth > MOST_DEPTH => Err(malformed("the template nests too deep")),
        Json::Object(map) => {
            if let Some(transform) = map.remove(FUNCTION) {
                let name = transform.get("Name").map(resource::text).unwrap_or_default();
                if name != INCLUDE {
                    return Err(unknown(&name));
                }
                // What the template says beside it stands.
                for (name, value) in fetch(&location(&transform)?)? {
                    map.entry(name).or_insert(value);
                }
            }
            map.values_mut().try_for_each(|value| walk(value, fetch, depth + 1))
        }
        Json::Array(items) => items.iter_mut().try_for_each(|item| walk(item, fetch, depth + 1)),
        _ => Ok(()),
    }
}

/// There are no macros of one's own: they are functions.
pub(super) fn unknown(name: &str) -> Fault {
    faults::validation(format!("No transform named {name} found."))
}

fn location(transform: &Json) -> Result<Json, Fault> {
    let found = transform.pointer("/Parameters/Location").cloned();
    found.ok_or_else(|| failed("the parameter Location is missing"))
}

/// The template without the transforms that are done, and with SAM's done.
pub(crate) fn finish(mut tree: Json) -> Result<Json, Fault> {
    let names = transforms(tree.get("Transform"))?;
    if names.iter().any(|name| name == SERVERLESS) {
        serverless(&mut tree)?;
    }
    let rest: Vec<&String> =
        names.iter().filter(|name| ![INCLUDE, SERVERLESS].contains(&name.as_str())).collect();
    let top = tree.as_object_mut().expect("the reader gives objects");
    match rest.is_empty() {
        true => drop(top.remove("Transform")),
        false => drop(top.insert("Transform".to_owned(), json!(rest))),
    }
    Ok(tree)
}

/// The template as far as it can be seen before its transforms are carried out.
pub(crate) fn sketch(tree: &Json) -> Result<Json, Fault> {
    let mut tree = tree.clone();
    let nothing = locations(&tree)?.iter().map(|_| json!({})).collect();
    include(&mut tree, nothing)?;
    let top = tree.as_object_mut().expect("the reader gives objects");
    top.remove("Transform");
    top.remove("Globals");
    Ok(tree)
}

/// SAM's own types become CloudFormation's.
/// <https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification.html>
fn serverless(tree: &mut Json) -> Result<(), Fault> {
    let top = tree.as_object_mut().expect("the reader gives objects");
    top.remove("Globals");
    let Some(Json::Object(resources)) = top.get_mut("Resources") else { return Ok(()) };
    for (logical, resource) in resources {
        let kind = resource.get("Type").and_then(Json::as_str).unwrap_or_default();
        match kind {
            "AWS::Serverless::Application" => application(logical, resource)?,
            kind if kind.starts_with("AWS::Serverless::") => {
                return Err(invalid(
                    logical,
                    &format!("Neargate runs no functions, and does not support {kind}"),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn invalid(logical: &str, why: &str) -> Fault {
    faults::validation(format!(
        "Transform {SERVERLESS} failed with: Invalid Serverless Application Specification document. Number of errors \
         found: 1. Resource with id [{logical}] is invalid. {why}."
    ))
}

/// An application within the application is a nested stack.
fn application(logical: &str, resource: &mut Json) -> Result<(), Fault> {
    let mut own = match resource.get_mut("Properties").map(Json::take) {
        Some(Json::Object(own)) => own,
        _ => Map::new(),
    };
    let url = match own.remove("Location") {
        Some(Json::Object(map)) if map.contains_key("ApplicationId") => {
            return Err(invalid(
                logical,
                "Neargate has no Serverless Application Repository; give a template's URL",
            ));
        }
        Some(url) => url,
        None => {
            return Err(invalid(logical, "Resource is missing the required [Location] property"));
        }
    };
    let mut tags = vec![json!({"Key": "lambda:createdBy", "Value": "SAM"})];
    if let Some(Json::Object(own)) = own.remove("Tags") {
        tags.extend(own.into_iter().map(|(key, value)| json!({"Key": key, "Value": value})));
    }
    let mut properties =
        Map::from_iter([("TemplateURL".to_owned(), url), ("Tags".to_owned(), Json::Array(tags))]);
    for name in ["Parameters", "NotificationARNs", "TimeoutInMinutes"] {
        if let Some(value) = own.remove(name) {
            properties.insert(name.to_owned(), value);
        }
    }
    if let Some(name) = own.keys().next() {
        return Err(invalid(
            logical,
            &format!(
                "property {name} not defined for resource of type AWS::Serverless::Application"
            ),
        ));
    }
    resource["Type"] = json!("AWS::CloudFormation::Stack");
    resource["Properties"] = Json::Object(properties);
    Ok(())
}

impl Template {
    /// The template without its resources and outputs, as far as it is needed to know where snippets lie.
    pub(crate) fn bare(tree: &Json) -> Result<Self, Fault> {
        let mut bare = Map::new();
        for part in ["Parameters", "Mappings", "Conditions"] {
            if let Some(value) = tree.get(part) {
                bare.insert(part.to_owned(), value.clone());
            }
        }
        Self::parse(&Json::Object(bare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(template: Json, snippets: &[Json]) -> Result<Json, String> {
        let mut tree = template;
        assert_eq!(locations(&tree).unwrap().len(), snippets.len());
        include(&mut tree, snippets.to_vec())
            .and_then(|()| finish(tree))
            .map_err(|fault| fault.message)
    }

    #[test]
    fn snippets_go_where_they_are_included() {
        let include = |at: &str| json!({"Name": "AWS::Include", "Parameters": {"Location": at}});
        let template = json!({
            "Transform": [include("s3://b/top"), "AWS::LanguageExtensions"],
            "Resources": {
                "Own": {"Type": "T", "Properties": {"A": 1, "Fn::Transform": include("s3://b/own")}},
                "Fn::Transform": include("s3://b/more"),
            },
        });
        assert_eq!(
            locations(&template).unwrap(),
            [json!("s3://b/top"), json!("s3://b/more"), json!("s3://b/own")]
        );
        let snippets = [
            json!({"Outputs": {"O": {"Value": 1}}, "Resources": {"Own": "not this", "Top": {"Type": "U"}}}),
            json!({"More": {"Type": "V"}}),
            json!({"A": 2, "B": 3}),
        ];
        let expected = json!({
            "Transform": ["AWS::LanguageExtensions"],
            "Outputs": {"O": {"Value": 1}},
            "Resources": {
                "Own": {"Type": "T", "Properties": {"A": 1, "B": 3}},
                "Top": {"Type": "U"},
                "More": {"Type": "V"},
            },
        });
        assert_eq!(done(template, &snippets).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_included_is_told() {
        let template = |name: &str| {
            let parameters = json!({"Location": "s3://b/k"});
            json!({"Resources": {"Fn::Transform": {"Name": name, "Parameters": parameters}}})
        };
        let nested = template("AWS::Include");
        let told = done(template("AWS::Include"), &[nested]).unwrap_err();
        assert_eq!(told, "Transform AWS::Include failed with: a snippet includes another.");
        let told = done(template("AWS::Include"), &[json!([1])]).unwrap_err();
        assert!(told.ends_with("should be valid Yaml/JSON."), "{told}");
        let told = locations(&template("Mine")).unwrap_err();
        assert_eq!(told.message, "No transform named Mine found.");
        let lost = json!({"Resources": {"Fn::Transform": {"Name": "AWS::Include"}}});
        assert!(locations(&lost).unwrap_err().message.contains("Location is missing"));
    }

    #[test]
    fn applications_become_stacks() {
        let template = |properties: Json, kind: &str| {
            json!({
                "Transform": "AWS::Serverless-2016-10-31",
                "Globals": {"Function": {}},
                "Resources": {
                    "App": {"Type": kind, "DependsOn": "R", "Properties": properties},
                    "R": {"Type": "T"},
                },
            })
        };
        let kind = "AWS::Serverless::Application";
        let properties = json!({"Location": "u", "Parameters": {"A": 1}, "Tags": {"k": "v"}});
        let tags = json!([{"Key": "lambda:createdBy", "Value": "SAM"}, {"Key": "k", "Value": "v"}]);
        let expected = json!({"Resources": {
            "App": {
                "Type": "AWS::CloudFormation::Stack",
                "DependsOn": "R",
                "Properties": {"TemplateURL": "u", "Tags": tags, "Parameters": {"A": 1}},
            },
            "R": {"Type": "T"},
        }});
        assert_eq!(done(template(properties, kind), &[]).unwrap(), expected);
        for (properties, kind, words) in [
            (json!({}), kind, "missing the required [Location] property"),
            (
                json!({"Location": {"ApplicationId": "a"}}),
                kind,
                "no Serverless Application Repository",
            ),
            (json!({"Location": "u", "X": 1}), kind, "property X not defined"),
            (json!({}), "AWS::Serverless::Function", "does not support AWS::Serverless::Function"),
        ] {
            let told = done(template(properties, kind), &[]).unwrap_err();
            assert!(
                told.contains("Resource with id [App] is invalid.") && told.contains(words),
                "{told}"
            );
        }
    }
}
