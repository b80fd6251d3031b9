//! What is to be generated for one service: its `operations.toml` held against the model.

use super::model::{MemberRef, Model, Shape};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A service crate's `operations.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    /// The model's directory in botocore's data.
    pub model: String,
    /// The crate that reads requests and writes answers, where that is not generated. The marks below then are what its
    /// handlers say of themselves.
    pub adapter: Option<String>,
    /// The type that handlers take as their first argument, from the crate's root.
    #[serde(default)]
    pub state: String,
    /// The code for a broken constraint.
    #[serde(default)]
    pub constraint_code: String,
    /// The code for a refused member.
    #[serde(default)]
    pub refusal_code: String,
    /// The service's name in rpcv2Cbor paths.
    #[serde(default)]
    pub cbor_name: String,
    /// Shapes that are stored as AWS defines them (documents that users write, like task definitions): they and what
    /// they hold get serde's derives.
    #[serde(default)]
    pub stored: Vec<String>,
    /// Resource -> operations; handlers are `ops::<resource>::<operation>`.
    pub operations: BTreeMap<String, Vec<String>>,
    /// CloudFormation's types of resources that the crate makes.
    #[serde(default)]
    pub resource_types: Vec<String>,
    /// Structure -> members that do what AWS says.
    #[serde(default)]
    pub honoured: BTreeMap<String, Vec<String>>,
    /// Structure -> member -> why setting it is a fault.
    #[serde(default)]
    pub refused: BTreeMap<String, BTreeMap<String, String>>,
    /// What the model gets wrong.
    #[serde(default)]
    pub patch: Vec<Patch>,
}

/// A correction of the model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    /// The shape that is corrected.
    pub shape: String,
    /// Why the model is wrong.
    #[allow(dead_code)] // for people
    pub reason: String,
    /// These constraints are dropped: "min", "max", "pattern", "enum", or "required" for all required members.
    #[serde(default)]
    pub drop: Vec<String>,
    /// The pattern in the syntax that we read.
    pub pattern: Option<String>,
}

impl Service {
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
        let path = directory.join("operations.toml");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

pub(super) struct Plan {
    pub service: Service,
    pub model: Model,
    pub directory: PathBuf,
    /// Shapes that requests hold.
    pub inputs: BTreeSet<String>,
    /// Shapes that answers hold.
    pub outputs: BTreeSet<String>,
    /// Shapes that are stored.
    pub stored: BTreeSet<String>,
}

impl Plan {
    pub(super) fn make(
        service: Service,
        mut model: Model,
        directory: PathBuf,
    ) -> Result<Self, String> {
        for patch in &service.patch {
            apply(patch, &mut model)?;
        }
        let mut plan = Self {
            service,
            model,
            directory,
            inputs: BTreeSet::new(),
            outputs: BTreeSet::new(),
            stored: BTreeSet::new(),
        };
        let (mut inputs, mut outputs) = (BTreeSet::new(), BTreeSet::new());
        for name in plan.operation_names() {
            let operation = plan.model.operations.get(&name);
            let operation = operation.ok_or_else(|| format!("{}: no {name}", plan.name()))?;
            operation.input.iter().for_each(|input| plan.reach(&input.shape, &mut inputs));
            operation.output.iter().for_each(|output| plan.reach(&output.shape, &mut outputs));
        }
        let mut stored = BTreeSet::new();
        plan.service.stored.iter().for_each(|shape| plan.reach(shape, &mut stored));
        (plan.inputs, plan.outputs, plan.stored) = (inputs, outputs, stored);
        plan.check_marks()?;
        plan.check_patterns()?;
        Ok(plan)
    }

    /// The service's name on the wire.
    pub(super) fn name(&self) -> &str {
        let metadata = &self.model.metadata;
        metadata.signing_name.as_deref().unwrap_or(&metadata.endpoint_prefix)
    }

    pub(super) fn is_ec2(&self) -> bool {
        self.model.metadata.protocol == "ec2"
    }

    pub(super) fn operation_names(&self) -> Vec<String> {
        self.service.operations.values().flatten().cloned().collect()
    }

    pub(super) fn shape(&self, name: &str) -> &Shape {
        self.model.shapes.get(name).expect("the model's references are whole")
    }

    fn reach(&self, name: &str, reached: &mut BTreeSet<String>) {
        if !reached.insert(name.to_owned()) {
            return;
        }
        let shape = self.shape(name);
        shape.member_refs().iter().for_each(|(_, member)| self.reach(&member.shape, reached));
        let parts: [&Option<MemberRef>; 3] = [&shape.member, &shape.key, &shape.value];
        parts.into_iter().flatten().for_each(|part| self.reach(&part.shape, reached));
    }

    /// Structures of requests, with their members.
    fn marked_structures(&self) -> impl Iterator<Item = (&String, Vec<String>)> {
        self.inputs.iter().filter_map(|name| {
            let shape = self.shape(name);
            (shape.kind == "structure").then(|| (name, shape.members.keys().cloned().collect()))
        })
    }

    pub(super) fn refusal(&self, shape: &str, member: &str) -> Option<&str> {
        self.service.refused.get(shape)?.get(member).map(String::as_str)
    }

    fn is_honoured(&self, shape: &str, member: &str) -> bool {
        self.service.honoured.get(shape).is_some_and(|all| all.iter().any(|name| name == member))
    }

    /// Members without a mark, in the form in which `operations.toml` lists them.
    pub(super) fn unmarked(&self) -> String {
        let mut text = String::new();
        for (shape, members) in self.marked_structures() {
            let missing: Vec<String> = members
                .iter()
                .filter(|member| {
                    !self.is_honoured(shape, member) && self.refusal(shape, member).is_none()
                })
                .map(|member| format!("{member:?}"))
                .collect();
            if !missing.is_empty() {
                text.push_str(&format!("{shape} = [{}]\n", missing.join(", ")));
            }
        }
        if text.is_empty() { text } else { format!("# {}\n{text}", self.name()) }
    }

    /// Marks must name what is there, and each member once.
    fn check_marks(&self) -> Result<(), String> {
        let members: BTreeMap<&String, Vec<String>> = self.marked_structures().collect();
        let refused = self.service.refused.iter();
        let refused = refused.flat_map(|(shape, all)| all.keys().map(move |name| (shape, name)));
        let honoured = self.service.honoured.iter();
        let honoured = honoured.flat_map(|(shape, all)| all.iter().map(move |name| (shape, name)));
        for (shape, member) in refused.chain(honoured) {
            if !members.get(shape).is_some_and(|all| all.contains(member)) {
                return Err(format!("{}: no request holds {shape}.{member}", self.name()));
            }
            if self.is_honoured(shape, member) && self.refusal(shape, member).is_some() {
                return Err(format!("{}: {shape}.{member} has two marks", self.name()));
            }
        }
        Ok(())
    }

    fn check_patterns(&self) -> Result<(), String> {
        if self.service.adapter.is_some() {
            return Ok(());
        }
        for name in &self.inputs {
            if let Some(pattern) = &self.shape(name).pattern
                && let Err(error) = regex::Regex::new(&format!("^(?:{pattern})$"))
            {
                return Err(format!("{}: pattern of {name} needs a patch: {error}", self.name()));
            }
        }
        Ok(())
    }
}

fn apply(patch: &Patch, model: &mut Model) -> Result<(), String> {
    let shape = model.shapes.get_mut(&patch.shape);
    let shape =
        shape.ok_or_else(|| format!("a patch names {}, which is not there", patch.shape))?;
    for constraint in &patch.drop {
        match constraint.as_str() {
            "min" => shape.min = None,
            "max" => shape.max = None,
            "pattern" => shape.pattern = None,
            "enum" => shape.values.clear(),
            "required" => shape.required.clear(),
            other => return Err(format!("a patch cannot drop {other}")),
        }
    }
    if patch.pattern.is_some() {
        shape.pattern.clone_from(&patch.pattern);
    }
    Ok(())
}
