//! AWS's schemas of resource types, cut to what the engine reads, from the data files of cfn-lint (from PyPI).

use serde_json::{Map, Value as Json, json};
use std::{fs, path::Path};

/// The text of `src/api/resource_types.json` for these types.
pub(super) fn file(schemas: &Path, types: &[String]) -> Result<String, String> {
    let mut lines = Vec::new();
    for name in types {
        let path = schemas.join(format!("{}.json", name.to_lowercase().replace("::", "-")));
        let told = |e: String| format!("{}: {e}; run `make venv`", path.display());
        let text = fs::read_to_string(&path).map_err(|e| told(e.to_string()))?;
        let schema: Json = serde_json::from_str(&text).map_err(|e| told(e.to_string()))?;
        lines.push(format!("{}: {}", json!(name), cut(&schema)));
    }
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

fn cut(schema: &Json) -> Json {
    let mut all = node(schema);
    let paths = |list: &str| -> Json {
        let paths = schema.get(list).and_then(Json::as_array).into_iter().flatten();
        let paths = paths.filter_map(Json::as_str).map(|path| path.replace("/properties/", ""));
        paths.map(|path| path.trim_start_matches('/').to_owned()).collect()
    };
    let mut put = |name: &str, value: Json| {
        all.insert(name.to_owned(), value);
    };
    put("createOnly", paths("createOnlyProperties"));
    put("readOnly", paths("readOnlyProperties"));
    put("primary", paths("primaryIdentifier"));
    if let Some(tags) = schema.pointer("/tagging/tagProperty")
        && schema.pointer("/tagging/taggable") != Some(&json!(false))
    {
        put("tags", tags.clone());
    }
    if let Some(Json::Object(definitions)) = schema.get("definitions") {
        let definitions = definitions.iter().map(|(name, each)| (name.clone(), node(each).into()));
        put("definitions", Json::Object(definitions.collect()));
    }
    Json::Object(all)
}

fn node(schema: &Json) -> Map<String, Json> {
    let mut cut = Map::new();
    let mut put = |name: &str, value: Json| {
        cut.insert(name.to_owned(), value);
    };
    for name in ["$ref", "type", "required"] {
        if let Some(value) = schema.get(name) {
            put(name, value.clone());
        }
    }
    if let Some(Json::Object(properties)) = schema.get("properties") {
        let inner = properties.iter().map(|(name, each)| (name.clone(), node(each).into()));
        put("properties", Json::Object(inner.collect()));
        let open = schema.get("patternProperties").is_some();
        if schema.get("additionalProperties") == Some(&json!(false)) && !open {
            put("closed", json!(true));
        }
    }
    if let Some(items @ Json::Object(_)) = schema.get("items") {
        put("items", node(items).into());
    }
    cut
}
