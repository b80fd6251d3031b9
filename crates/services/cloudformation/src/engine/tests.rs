//! Random histories of stacks on a simulated disk that crashes at any commit: at rest, what is outside is what the
//! template says, each thing once.

use crate::{
    CloudFormation, Surroundings, TemplateBucket,
    api::{
        CancelUpdateStackInput, CreateStackInput, DeleteStackInput, StackStatus, UpdateStackInput,
    },
    model::{Resource, Stack},
    ops,
};
use async_trait::async_trait;
use iam::Iam;
use resource::{
    Attributes, Catalog, Failure, Properties, Request, ResourceType, State, Types, text,
};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{Fate, MemoryDisk, Sealer, Store};
use wire::{Context, Fault, Front, Limits, Principal, PrincipalKind};
use world::{Timestamp, World};

const START: i64 = 1_700_000_000_000;
const SCHEMA: &str = r#"{"Test::Thing": {
    "type": "object", "closed": true, "createOnly": ["Key"], "readOnly": ["Out"], "primary": ["Id"],
    "properties": {"Key": {}, "Value": {}, "Fail": {}, "Out": {}}
}}"#;

/// Something outside of the stack.
#[derive(Clone, Debug, PartialEq)]
struct Thing {
    key: String,
    value: String,
    /// So many looks until it is ready.
    slow: u64,
}

type Outside = Arc<Mutex<BTreeMap<String, Thing>>>;

/// The type of such things. What it does outlives crashes.
struct Kind(Outside);

impl Kind {
    fn random(request: &Request, below: u64) -> u64 {
        let mut bytes = [0; 8];
        request.front.world().fill(&mut bytes);
        u64::from_le_bytes(bytes) % below
    }

    async fn pause(request: &Request) {
        let millis = Self::random(request, 50);
        request.front.world().sleep(Duration::from_millis(millis)).await;
    }

    fn thing(request: &Request, properties: &Properties) -> Result<Thing, Failure> {
        if properties.on("Fail") {
            return Err(Failure::invalid("it is to fail"));
        }
        Ok(Thing {
            key: properties.text("Key").unwrap_or_default(),
            value: properties.text("Value").unwrap_or_default(),
            slow: match properties.text("Value").as_deref() {
                Some("forever") => u64::MAX,
                _ => Self::random(request, 4),
            },
        })
    }
}

#[async_trait]
impl ResourceType for Kind {
    fn name(&self) -> &'static str {
        "Test::Thing"
    }

    async fn create(&self, request: &Request, properties: Properties) -> Result<String, Failure> {
        Self::pause(request).await;
        let (id, thing) = (request.name(60), Self::thing(request, &properties)?);
        let there = self.0.lock().unwrap().insert(id.clone(), thing).is_some();
        assert!(!there || request.repeated, "{id} is made twice");
        Self::pause(request).await;
        Ok(id)
    }

    async fn read(&self, _: &Request, id: &str, _: &Properties) -> Result<State, Failure> {
        let mut all = self.0.lock().unwrap();
        let Some(thing) = all.get_mut(id) else { return Ok(State::Missing) };
        if thing.slow > 0 {
            thing.slow -= 1;
            return Ok(State::Pending);
        }
        let out = json!(format!("{}!", thing.value));
        Ok(State::Ready(Attributes::from_iter([("Out".to_owned(), out)])))
    }

    async fn update(
        &self,
        request: &Request,
        id: &str,
        _: &Properties,
        new: Properties,
    ) -> Result<(), Failure> {
        Self::pause(request).await;
        let thing = Self::thing(request, &new)?;
        self.0.lock().unwrap().insert(id.to_owned(), thing);
        Self::pause(request).await;
        Ok(())
    }

    async fn delete(&self, request: &Request, id: &str, _: &Properties) -> Result<(), Failure> {
        Self::pause(request).await;
        self.0.lock().unwrap().remove(id);
        Ok(())
    }
}

struct NoBucket;

impl TemplateBucket for NoBucket {
    fn text<'a>(
        &'a self,
        _: &'a Context,
        _: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>> {
        Box::pin(async { Err("there is no S3".to_owned()) })
    }
}

/// One process: what a crash ends.
struct Life {
    world: World,
    house: Arc<CloudFormation>,
    context: Context,
}

struct History {
    seed: u64,
    lives: u64,
    outside: Outside,
    disk: MemoryDisk,
    sealer: Arc<Sealer>,
    life: Life,
    random: World,
    /// The physical ids of the last time that the stack was at rest.
    ids: BTreeMap<String, String>,
}

fn live(seed: u64, disk: &MemoryDisk, sealer: &Arc<Sealer>, outside: &Outside) -> Life {
    let world = World::simulated(seed, Timestamp::from_millis(START));
    let store = Store::on(disk, world.clone());
    let iam = Iam::new(store.clone(), world.clone(), sealer.clone()).unwrap();
    let house = CloudFormation::new(
        store,
        world.clone(),
        sealer.clone(),
        iam.clone(),
        ([127, 0, 0, 1], 1).into(),
    )
    .unwrap();
    let front = Front::new(Vec::new(), Vec::new(), iam.clone(), world.clone(), Limits::default());
    let types: Vec<Arc<dyn ResourceType>> = vec![Arc::new(Kind(outside.clone()))];
    house.start(Surroundings {
        front: Arc::new(front),
        catalog: Catalog::new(vec![Types { schemas: SCHEMA, types }]),
        bucket: Arc::new(NoBucket),
    });
    let principal = Principal {
        account: "123456789012".to_owned(),
        kind: PrincipalKind::Root,
        arn: "arn:aws:iam::123456789012:root".to_owned(),
        user_id: "123456789012".to_owned(),
        session_policies: Vec::new(),
    };
    let context = Context::internal(principal, "us-east-1", world.now(), iam);
    Life { world, house, context }
}

impl History {
    fn new(seed: u64) -> Self {
        let random = World::simulated(seed, Timestamp::from_millis(START));
        let (outside, disk) = (Outside::default(), MemoryDisk::new());
        let sealer = Arc::new(Sealer::in_memory(random.clone()));
        let life = live(seed, &disk, &sealer, &outside);
        let crashes = random.clone();
        disk.decide(move |_| {
            let mut byte = [0];
            crashes.fill(&mut byte);
            match byte[0] {
                0..3 => Fate::CrashBefore,
                3..6 => Fate::CrashAfter,
                _ => Fate::Commit,
            }
        });
        Self { seed, lives: 0, outside, disk, sealer, life, random, ids: BTreeMap::new() }
    }

    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    fn template(&self) -> String {
        let mut resources = Map::new();
        let count = 1 + self.below(6);
        for index in 0..count {
            let value = match index > 0 && self.below(2) == 0 {
                false => json!(self.below(3).to_string()),
                true if self.below(2) == 0 => json!({"Ref": format!("R{}", self.below(index))}),
                true => json!({"Fn::GetAtt": [format!("R{}", self.below(index)), "Out"]}),
            };
            let mut properties = json!({"Key": self.below(3), "Value": value});
            if self.below(12) == 0 {
                properties["Fail"] = json!(true);
            }
            resources.insert(
                format!("R{index}"),
                json!({"Type": "Test::Thing", "Properties": properties}),
            );
        }
        json!({"Resources": resources}).to_string()
    }

    /// The process has crashed: another one starts where it was.
    async fn crash(&mut self) {
        self.lives += 1;
        self.life.world.end().await;
        let seed = self.seed * 1000 + self.lives;
        self.life = live(seed, &self.disk, &self.sealer, &self.outside);
    }

    async fn begin<T>(
        &mut self,
        call: impl AsyncFn(Arc<CloudFormation>, Context) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let (house, context, disk) =
            (self.life.house.clone(), self.life.context.clone(), self.disk.clone());
        let done = tokio::select! {
            done = call(house, context) => Some(done),
            () = disk.crashed() => None,
        };
        if done.is_none() {
            self.crash().await;
        }
        done
    }

    fn stack(&self) -> Option<Arc<Stack>> {
        let snapshot = self.life.house.store.read();
        super::find(&snapshot, "123456789012/us-east-1", "s")
    }

    /// Waits until nothing is being done, through crashes.
    async fn rest(&mut self) {
        for _ in 0..100_000 {
            if !self.stack().is_some_and(|stack| stack.is_busy()) {
                return;
            }
            let disk = self.disk.clone();
            let world = self.life.world.clone();
            let crashed = tokio::select! {
                () = disk.crashed() => true,
                () = world.sleep(Duration::from_millis(20)) => false,
            };
            if crashed {
                self.crash().await;
            }
        }
        panic!("the stack does not come to rest: {:?}", self.stack().map(|stack| stack.status));
    }

    /// The physical ids of the stack's resources.
    fn physical(&self) -> BTreeMap<String, String> {
        let snapshot = self.life.house.store.read();
        let Some(stack) = self.stack() else { return BTreeMap::new() };
        let records = snapshot.scan_prefix::<Resource>(&format!("{}/", stack.id));
        records.filter_map(|one| Some((one.logical.clone(), one.now.id.clone()?))).collect()
    }

    fn check(&mut self) {
        let ids = self.physical();
        let before = std::mem::replace(&mut self.ids, ids);
        let outside = self.outside.lock().unwrap().clone();
        let Some(stack) = self.stack() else {
            assert!(outside.is_empty(), "left over: {outside:?}");
            return;
        };
        match stack.status {
            StackStatus::RollbackComplete => {
                assert!(outside.is_empty(), "left over: {outside:?}");
                return;
            }
            StackStatus::UpdateRollbackComplete => {
                assert_eq!(self.ids, before, "what was there is there again");
            }
            StackStatus::CreateComplete | StackStatus::UpdateComplete => {}
            other => panic!("{other:?}: {:?}", stack.reason),
        }
        let house = &self.life.house;
        let body = house.store.read().get::<crate::model::Template>(&stack.settings.template);
        let template: Json = serde_json::from_str(&body.unwrap().body).unwrap();
        let declared = template["Resources"].as_object().unwrap();
        let snapshot = house.store.read();
        let id = |logical: &str| {
            let record = snapshot.get::<Resource>(&Resource::key_of(&stack.id, logical));
            record.expect("every resource has a record").now.id.clone().unwrap()
        };
        let expected: BTreeMap<String, (String, String)> = declared
            .iter()
            .map(|(logical, resource)| {
                let given = &resource["Properties"];
                (id(logical), (text(&given["Key"]), value(&given["Value"], &id, &outside)))
            })
            .collect();
        let actual: BTreeMap<String, (String, String)> = outside
            .iter()
            .map(|(id, thing)| (id.clone(), (thing.key.clone(), thing.value.clone())))
            .collect();
        assert_eq!(actual, expected, "{:?}", stack.status);
        let records = snapshot.scan_prefix::<Resource>(&format!("{}/", stack.id));
        assert_eq!(records.count(), declared.len());
    }

    async fn run(mut self) {
        for _ in 0..8 {
            let template = self.template();
            let stack = self.stack();
            let stuck = stack.as_ref().is_some_and(|s| s.status == StackStatus::RollbackComplete);
            match (stack, self.below(5)) {
                (None, _) => {
                    let body = Some(template);
                    self.begin(async move |house, ctx| {
                        let input = CreateStackInput {
                            stack_name: "s".to_owned(),
                            template_body: body.clone(),
                            ..CreateStackInput::default()
                        };
                        ops::stack::create_stack(&house, &ctx, input).await
                    })
                    .await;
                }
                (Some(_), choice) if stuck || choice == 0 => {
                    self.begin(async |house, ctx| {
                        let stack_name = "s".to_owned();
                        let input = DeleteStackInput { stack_name, ..DeleteStackInput::default() };
                        ops::stack::delete_stack(&house, &ctx, input).await
                    })
                    .await;
                }
                (Some(_), choice) => {
                    let body = Some(template);
                    self.begin(async move |house, ctx| {
                        let input = UpdateStackInput {
                            stack_name: "s".to_owned(),
                            template_body: body.clone(),
                            ..UpdateStackInput::default()
                        };
                        ops::stack::update_stack(&house, &ctx, input).await
                    })
                    .await;
                    if choice == 1 {
                        let wait = Duration::from_millis(self.below(200));
                        self.life.world.sleep(wait).await;
                        // It may have come to its end, or never have begun.
                        self.begin(async |house, ctx| {
                            let stack_name = "s".to_owned();
                            let input = CancelUpdateStackInput {
                                stack_name,
                                ..CancelUpdateStackInput::default()
                            };
                            ops::recovery::cancel_update_stack(&house, &ctx, input).await
                        })
                        .await;
                    }
                }
            }
            self.rest().await;
            self.check();
        }
        self.life.world.end().await;
    }
}

/// What a value of the template comes to.
fn value(json: &Json, id: &dyn Fn(&str) -> String, outside: &BTreeMap<String, Thing>) -> String {
    match (json.get("Ref"), json.get("Fn::GetAtt")) {
        (Some(name), _) => id(&text(name)),
        (_, Some(parts)) => format!("{}!", outside[&id(&text(&parts[0]))].value),
        _ => text(json),
    }
}

#[tokio::test(start_paused = true)]
async fn stacks_come_to_rest_whatever_happens() {
    let seeds = simulation::seeds(600);
    for seed in seeds {
        eprintln!("again: SEED={seed} cargo test -p cloudformation stacks_come_to_rest");
        History::new(seed).run().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_takes_too_long_is_rolled_back() {
    let mut history = History::new(1);
    history.disk.decide(|_| Fate::Commit);
    let resources = json!({"R": {"Type": "Test::Thing", "Properties": {"Value": "forever"}}});
    let body = json!({"Resources": resources}).to_string();
    let begun = history.begin(async move |house, ctx| {
        let input = CreateStackInput {
            stack_name: "s".to_owned(),
            template_body: Some(body.clone()),
            timeout_in_minutes: Some(1),
            ..CreateStackInput::default()
        };
        ops::stack::create_stack(&house, &ctx, input).await
    });
    begun.await.unwrap().unwrap();
    history.rest().await;
    history.check();
    let stack = history.stack().unwrap();
    assert_eq!(stack.status, StackStatus::RollbackComplete);
    let snapshot = history.life.house.store.read();
    let events = snapshot.scan_prefix::<crate::model::Event>(&format!("{}/", stack.id));
    let reasons: Vec<String> = events.filter_map(|event| event.reason.clone()).collect();
    let told = "Stack creation time exceeded the specified timeout. Rollback requested by user.";
    assert!(reasons.iter().any(|reason| reason == told), "{reasons:?}");
    assert!(history.life.world.now().since(stack.created) >= Duration::from_secs(60));
}
