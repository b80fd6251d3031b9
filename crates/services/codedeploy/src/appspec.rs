//! AppSpec files of ECS deployments, YAML or JSON.
//! <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-resources.html>

use crate::model::HookEvent;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// The longest file, in bytes.
pub(crate) const LONGEST: usize = 256 << 10;

#[derive(Deserialize)]
struct File {
    #[serde(alias = "Version")]
    version: Option<Json>,
    #[serde(rename = "Resources", alias = "resources")]
    resources: Vec<BTreeMap<String, Resource>>,
    #[serde(rename = "Hooks", alias = "hooks")]
    hooks: Option<Vec<BTreeMap<String, String>>>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "Type", alias = "type")]
    kind: String,
    #[serde(rename = "Properties", alias = "properties")]
    properties: Properties,
}

/// What is deployed.
#[derive(Debug, Deserialize)]
pub(crate) struct Properties {
    #[serde(rename = "TaskDefinition", alias = "taskDefinition")]
    pub task_definition: String,
    #[serde(rename = "LoadBalancerInfo", alias = "loadBalancerInfo")]
    pub load_balancer: Container,
    #[serde(rename = "PlatformVersion", alias = "platformVersion")]
    pub platform_version: Option<String>,
    /// With names as CreateTaskSet has them, in any case.
    #[serde(rename = "NetworkConfiguration", alias = "networkConfiguration")]
    pub network: Option<Map<String, Json>>,
    #[serde(rename = "CapacityProviderStrategy", alias = "capacityProviderStrategy")]
    pub strategy: Option<Vec<Map<String, Json>>>,
}

/// Where traffic goes.
#[derive(Debug, Deserialize)]
pub(crate) struct Container {
    #[serde(rename = "ContainerName", alias = "containerName")]
    pub name: String,
    #[serde(rename = "ContainerPort", alias = "containerPort")]
    pub port: i32,
}

/// What a file says.
#[derive(Debug)]
pub(crate) struct Spec {
    pub service: Properties,
    pub hooks: BTreeMap<HookEvent, String>,
}

/// Reads a file. What is wrong with it is told with its line.
pub(crate) fn read(text: &str) -> Result<Spec, String> {
    if text.len() > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let file: File = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| error.to_string())?,
        false => serde_saphyr::from_str(text).map_err(|error| error.to_string())?,
    };
    if file.version.is_none() {
        return Err("it has no version; the only one is 0.0".to_owned());
    }
    let mut hooks = BTreeMap::new();
    for (name, function) in file.hooks.into_iter().flatten().flatten() {
        let event = HookEvent::ALL.into_iter().find(|event| event.name() == name);
        let event = event.ok_or_else(|| {
            let known = HookEvent::ALL.map(HookEvent::name).join(", ");
            format!("no function can be there for {name}: Hooks of ECS deployments are {known}")
        })?;
        if hooks.insert(event, function).is_some() {
            return Err(format!("it names two functions for {name}"));
        }
    }
    let mut resources = file.resources.into_iter().flatten();
    let (Some((_, resource)), None) = (resources.next(), resources.next()) else {
        return Err("it must have exactly one resource".to_owned());
    };
    match resource.kind.as_str() {
        "AWS::ECS::Service" => Ok(Spec { service: resource.properties, hooks }),
        other => Err(format!("its resource is of the type {other}, and not AWS::ECS::Service")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"version: 0.0
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: "arn:x"
        LoadBalancerInfo:
          ContainerName: "web"
          ContainerPort: 80
"#;

    #[test]
    fn both_forms_are_read() {
        let read_yaml = read(FILE).unwrap().service;
        assert_eq!((&*read_yaml.task_definition, &*read_yaml.load_balancer.name), ("arn:x", "web"));
        let json = r#"{"version": 0.0, "Resources": [{"TargetService": {"Type": "AWS::ECS::Service", "Properties": {
            "TaskDefinition": "arn:x", "LoadBalancerInfo": {"ContainerName": "web", "ContainerPort": 80},
            "NetworkConfiguration": {"AwsvpcConfiguration": {"Subnets": ["s"]}}}}}]}"#;
        assert_eq!(read(json).unwrap().service.load_balancer.port, 80);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, says) in [
            ("ContainerPort: 80", "ContainerPort: many", "line 9"),
            ("        TaskDefinition: \"arn:x\"\n", "", "TaskDefinition"),
            ("AWS::ECS::Service", "AWS::Lambda::Function", "AWS::Lambda::Function"),
            ("version: 0.0\n", "", "no version"),
            ("ContainerName: \"web\"", "ContainerName: \"web", "line"),
        ] {
            let told = read(&FILE.replace(from, to)).unwrap_err();
            assert!(told.contains(says), "{says}: {told}");
        }
        let hooks = format!("{FILE}Hooks:\n  - BeforeInstall: f\n  - AfterAllowTraffic: g\n");
        let functions = BTreeMap::from([
            (HookEvent::BeforeInstall, "f".to_owned()),
            (HookEvent::AfterAllowTraffic, "g".to_owned()),
        ]);
        assert_eq!(read(&hooks).unwrap().hooks, functions);
        for (hook, says) in [("AllowTraffic", "AfterInstall"), ("BeforeInstall", "two functions")] {
            let told = read(&format!("{hooks}  - {hook}: h\n")).unwrap_err();
            assert!(told.contains(says), "{told}");
        }
        let bomb = format!("a: &a [x, x]\n{}", "b: [*a, *a, *a]\n".repeat(3));
        assert!(read(&bomb).is_err());
    }
}
