//! A resource's properties, taken one by one.

use serde_json::{Map, Value as Json};

/// A resource's properties, with nothing left to evaluate in them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(pub Map<String, Json>);

impl Properties {
    /// Takes a property out.
    pub fn take(&mut self, name: &str) -> Option<Json> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a property out and gives it another name, in which operations differ from templates.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.0.remove(from) {
            self.0.insert(to.to_owned(), value);
        }
    }

    /// A property.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A property as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(text)
    }

    /// A property that is `true`, or says so.
    pub fn on(&self, name: &str) -> bool {
        self.text(name).as_deref() == Some("true")
    }

    /// Sets a property.
    pub fn set(&mut self, name: &str, value: impl Into<Json>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Sets a property that was not given.
    pub fn set_default(&mut self, name: &str, value: impl FnOnce() -> Json) {
        if self.get(name).is_none() {
            self.0.insert(name.to_owned(), value());
        }
    }

    /// Keeps only these.
    pub fn only(&self, names: &[&str]) -> Self {
        let kept =
            names.iter().filter_map(|name| Some((name.to_string(), self.get(name)?.clone())));
        Self(kept.collect())
    }

    /// Whether any of these differ.
    pub fn differ(&self, other: &Self, names: &[&str]) -> bool {
        names.iter().any(|name| self.get(name) != other.get(name))
    }

    /// The property `Tags`, be it a list of `Key` and `Value` or a map.
    pub fn tags(&self) -> Vec<(String, String)> {
        match self.get("Tags") {
            Some(Json::Object(map)) => map.iter().map(|(k, v)| (k.clone(), text(v))).collect(),
            Some(Json::Array(list)) => list
                .iter()
                .map(|tag| {
                    (
                        tag.get("Key").map_or_else(String::new, text),
                        tag.get("Value").map_or_else(String::new, text),
                    )
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The tags to set and the keys to remove, to make those of `old` these.
    pub fn tag_changes(&self, old: &Self) -> (Vec<(String, String)>, Vec<String>) {
        let (new, old) = (self.tags(), old.tags());
        let gone =
            old.iter().map(|(key, _)| key).filter(|key| new.iter().all(|(kept, _)| kept != *key));
        let gone = gone.cloned().collect();
        (new.into_iter().filter(|tag| !old.contains(tag)).collect(), gone)
    }

    /// As an operation's request.
    pub fn request(self) -> Json {
        Json::Object(self.0)
    }
}

impl From<Json> for Properties {
    fn from(json: Json) -> Self {
        match json {
            Json::Object(map) => Self(map),
            _ => Self::default(),
        }
    }
}

/// A scalar as text, as templates may write either.
pub fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}
