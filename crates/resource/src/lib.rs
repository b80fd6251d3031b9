//! The seam between CloudFormation and the services: what a resource of a stack is.
//!
//! A service's crate has a [`ResourceType`] for each of its types (`resources.rs`), which turns properties into calls
//! of the service's own operations, made as the stack's principal through the front door. What AWS publishes of a
//! type (which properties it has, which of them replace it, its attributes) is a [`Schema`], which `cargo xtask
//! codegen` writes beside the operations. The engine, which decides what is done to which resource and when, is
//! CloudFormation's.

mod properties;
mod request;
mod schema;

pub use properties::{Properties, text};
pub use request::{Failure, Request};
pub use schema::{Schema, Tagging};

use async_trait::async_trait;
use serde_json::{Map, Value as Json};
use std::{collections::BTreeMap, sync::Arc};

/// What `Fn::GetAtt` gives, by name.
pub type Attributes = Map<String, Json>;

/// How a resource is doing.
pub enum State {
    /// It is as it should be.
    Ready(Attributes),
    /// It is being made, changed or deleted.
    Pending,
    /// It will not become ready.
    Failed(Failure),
    /// There is no such resource (any more).
    Missing,
}

impl State {
    /// Ready, with these attributes.
    pub fn ready(attributes: Json) -> Self {
        Self::Ready(Properties::from(attributes).0)
    }
}

/// A type of resources.
#[async_trait]
pub trait ResourceType: Send + Sync {
    /// `AWS::ECS::Service`.
    fn name(&self) -> &'static str;

    /// Begins to make one and gives its physical id, which is what `Ref` gives. Properties that are left over make it
    /// fail: the operation that gets them refuses what it does not have.
    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure>;

    /// Whether it is as `properties` say, and its attributes.
    async fn read(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<State, Failure>;

    /// Begins to change it. The engine has made sure that only properties differ that do not replace it.
    async fn update(
        &self,
        request: &Request,
        id: &str,
        old: &Properties,
        new: Properties,
    ) -> Result<(), Failure>;

    /// Begins to delete it; that there is no such resource is as good. `properties` are those that it was made with.
    async fn delete(
        &self,
        request: &Request,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure>;

    /// The physical id that a change gave it, when that is another than it had: what it was is deleted in the end.
    async fn changed_id(&self, _request: &Request, _id: &str) -> Option<String> {
        None
    }

    /// What is left of one that the machine may have made before it stopped, or that could not be made, for types that
    /// know: its id, or that there is nothing. Others are made again, under the same name.
    async fn left(&self, _request: &Request) -> Option<Option<String>> {
        None
    }

    /// Whether `Fn::GetAtt` can ask for this, though the schema does not say so.
    fn has_attribute(&self, _name: &str) -> bool {
        false
    }

    /// Whether it must be made anew for a reason that the schema does not give.
    fn replaces(&self, _old: &Properties, _new: &Properties) -> bool {
        false
    }
}

/// The types of one service: AWS's schemas as codegen wrote them, and what makes them work.
pub struct Types {
    /// `api/resource_types.json`.
    pub schemas: &'static str,
    /// One for each schema.
    pub types: Vec<Arc<dyn ResourceType>>,
}

/// A type and its schema.
#[derive(Clone)]
pub struct Known {
    /// What AWS says of it.
    pub schema: Arc<Schema>,
    /// What makes it work.
    pub kind: Arc<dyn ResourceType>,
}

impl Known {
    /// Whether `Fn::GetAtt` can ask for this.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.schema.has_attribute(name) || self.kind.has_attribute(name)
    }
}

/// All types.
pub struct Catalog(BTreeMap<&'static str, Known>);

impl Catalog {
    /// All types of these services.
    pub fn new(services: Vec<Types>) -> Self {
        let mut all = BTreeMap::new();
        for service in services {
            let mut schemas: BTreeMap<String, Schema> =
                serde_json::from_str::<BTreeMap<String, Json>>(service.schemas)
                    .expect("codegen writes schemas as JSON")
                    .into_iter()
                    .map(|(name, schema)| (name, Schema::new(schema)))
                    .collect();
            for kind in service.types {
                let schema = schemas.remove(kind.name());
                let schema = schema.unwrap_or_else(|| panic!("{} has no schema", kind.name()));
                all.insert(kind.name(), Known { schema: Arc::new(schema), kind });
            }
            assert!(schemas.is_empty(), "schemas without a type: {:?}", schemas.keys());
        }
        Self(all)
    }

    /// The type of this name.
    pub fn get(&self, name: &str) -> Option<&Known> {
        // Custom resources have names of their own, up to 60 characters.
        let custom = |name: &str| {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '-');
            (1..=60).contains(&name.len()) && name.chars().all(letter)
        };
        match name.strip_prefix("Custom::") {
            Some(name) if custom(name) => self.0.get("AWS::CloudFormation::CustomResource"),
            _ => self.0.get(name),
        }
    }
}
