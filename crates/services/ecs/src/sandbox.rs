//! Containers that other services of this house run for themselves, by the same way as tasks: written as a record,
//! started by its worker, taken up again after a crash. Users of ECS never see them.

use crate::{
    Ecs,
    api::{
        AssignPublicIp, AwsVpcConfiguration, ContainerDefinition, EphemeralStorage, KeyValuePair,
        LogConfiguration, LogDriver, NetworkConfiguration, RepositoryCredentials, Secret,
        TaskDefinition as Document, TaskStopCode,
    },
    model::{LastStatus, Launch, Sandbox, SandboxOwner, Tags, Task, TaskDefinition},
    reconcile::{events, pull},
};
use runtime::EngineError;
use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf, sync::Arc};
use store::{DiskFault, Tx};
use wire::Principal;

/// The name of the one container.
const CONTAINER: &str = "main";

/// What is to be run.
pub struct SandboxRequest {
    /// `account/region`.
    pub realm: String,
    /// Whose work it is.
    pub owner: SandboxOwner,
    /// 32 letters and digits, or a few more. The same again changes nothing.
    pub id: String,
    /// The role whose credentials the container gets, and that its image, secrets and log stream are fetched as.
    pub role: String,
    /// The image's name.
    pub image: String,
    /// The ARN of the secret that the image's registry is logged in to with.
    pub registry_credential: Option<String>,
    /// The command, without the image's entry point.
    pub command: Vec<String>,
    /// Variables, over those that every task gets.
    pub environment: Vec<(String, String)>,
    /// Variables whose values are fetched when it starts, from where a task definition's `valueFrom` could say.
    pub secrets: Vec<(String, String)>,
    /// Its subnets and security groups; without, the default VPC's, with a public address.
    pub network: Option<(Vec<String>, Vec<String>)>,
    /// 1024 are one CPU.
    pub cpu_units: u32,
    /// In MiB.
    pub memory_mib: u32,
    /// What it can write, in GiB.
    pub disk_gib: i32,
    /// Directories that lie over the image's layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// [`runtime::ContainerSpec::privileged`].
    pub privileged: bool,
    /// Disks that outlive it, and where they appear.
    pub disks: Vec<(PathBuf, String)>,
    /// The log group, made when it is missing, and the stream; without, output is dropped.
    pub log: Option<(String, String)>,
    /// The port at which its own loopback address leads to the API, as the host's does.
    pub api_port: u16,
}

/// How far a sandbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxState {
    /// It is being started.
    Starting,
    /// Its command runs.
    Running,
    /// It is over, for this reason; with what its command answered, if it ran to its end.
    Over {
        /// AWS's words for it, as in `stoppedReason` of a task.
        reason: String,
        /// 0 to 255.
        exit_code: Option<i32>,
        /// Whether the command began.
        ran: bool,
        /// Whether it ended for no reason of its own: what held it was killed.
        lost: bool,
    },
}

impl SandboxRequest {
    fn definition(&self) -> TaskDefinition {
        let (account, region) = self.realm.split_once('/').unwrap_or_default();
        let log = self.log.as_ref().map(|(group, _)| LogConfiguration {
            log_driver: LogDriver::Awslogs,
            options: Some(BTreeMap::from(
                [
                    ("awslogs-group", group.as_str()),
                    ("awslogs-region", region),
                    ("awslogs-stream-prefix", self.owner.cluster()),
                    ("awslogs-create-group", "true"),
                    ("mode", "blocking"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
            )),
            secret_options: None,
        });
        let environment = self.environment.iter().map(|(name, value)| KeyValuePair {
            name: Some(name.clone()),
            value: Some(value.clone()),
        });
        let secrets = self.secrets.iter();
        let secrets =
            secrets.map(|(name, from)| Secret { name: name.clone(), value_from: from.clone() });
        let container = ContainerDefinition {
            name: Some(CONTAINER.to_owned()),
            image: Some(self.image.clone()),
            repository_credentials: self
                .registry_credential
                .clone()
                .map(|arn| RepositoryCredentials { credentials_parameter: arn }),
            entry_point: Some(self.command.clone()),
            environment: Some(environment.collect()),
            secrets: Some(secrets.collect()),
            // Root puts things right that the image's user could not.
            user: Some("0".to_owned()),
            stop_timeout: Some(0),
            log_configuration: log,
            ..ContainerDefinition::default()
        };
        TaskDefinition {
            realm: self.realm.clone(),
            family: self.owner.cluster().to_owned(),
            revision: 0,
            document: Document {
                task_definition_arn: Some(format!(
                    "arn:aws:ecs:{region}:{account}:task-definition/{}:0",
                    self.owner.cluster()
                )),
                container_definitions: Some(vec![container]),
                task_role_arn: Some(self.role.clone()),
                execution_role_arn: Some(self.role.clone()),
                ephemeral_storage: Some(EphemeralStorage { size_in_gi_b: self.disk_gib }),
                ..Document::default()
            },
            tags: Tags::new(),
        }
    }
}

impl Ecs {
    /// Where a sandbox without a network of its own lies.
    async fn default_network(&self, realm: &str) -> Result<AwsVpcConfiguration, DiskFault> {
        self.ec2.ensure_default::<DiskFault>(realm).await?;
        Ok(AwsVpcConfiguration {
            subnets: self.ec2.default_subnets(realm),
            security_groups: None,
            assign_public_ip: Some(AssignPublicIp::Enabled),
        })
    }

    /// Starts a sandbox, once, beside what `with` writes in the same transaction. It is followed by watching
    /// [`Task::TABLE`].
    pub async fn start_sandbox(
        &self,
        request: SandboxRequest,
        with: impl FnOnce(&mut Tx),
    ) -> Result<(), DiskFault> {
        let network = match &request.network {
            Some((subnets, groups)) => AwsVpcConfiguration {
                subnets: subnets.clone(),
                security_groups: Some(groups.clone()),
                assign_public_ip: Some(AssignPublicIp::Disabled),
            },
            None => self.default_network(&request.realm).await?,
        };
        let network = NetworkConfiguration { awsvpc_configuration: Some(network) };
        let definition = request.definition();
        let cluster = (&*request.realm, request.owner.cluster());
        let mut task = Task::new(cluster, &definition, Launch::Fargate, network, self.world.now());
        task.number(&self.world);
        task.id = request.id;
        task.sandbox = Some(Box::new(Sandbox {
            owner: request.owner,
            definition,
            cpu_units: request.cpu_units,
            memory_mib: request.memory_mib,
            layers: request.layers,
            privileged: request.privileged,
            disks: request.disks,
            log_stream: request.log.map(|(_, stream)| stream).unwrap_or_default(),
            api_port: request.api_port,
        }));
        self.store
            .write(move |tx| {
                if tx.get::<Task>(&store::Record::key(&task)).is_none() {
                    tx.put(task);
                }
                with(tx);
                Ok::<_, DiskFault>(())
            })
            .await
    }

    /// How far a sandbox is; `None` when there never was one, or it was over long ago.
    pub fn sandbox(&self, realm: &str, owner: SandboxOwner, id: &str) -> Option<SandboxState> {
        let task = self.store.read().get::<Task>(&Task::key_of(realm, owner.cluster(), id))?;
        Some(match task.last_status {
            LastStatus::Running if !task.stopping => SandboxState::Running,
            LastStatus::Stopped => SandboxState::Over {
                reason: task.stopped_reason.clone().unwrap_or_default(),
                exit_code: task.containers.first().and_then(|container| container.exit_code),
                ran: task.started_at.is_some(),
                lost: matches!(
                    task.stopped_reason.as_deref(),
                    Some(events::OWNER_DIED | events::RESTARTED)
                ),
            },
            _ => SandboxState::Starting,
        })
    }

    /// Ends a sandbox, at once; nothing when it is over.
    pub fn stop_sandbox(
        &self,
        tx: &mut Tx,
        realm: &str,
        owner: SandboxOwner,
        id: &str,
        reason: &str,
    ) {
        let now = self.world.now();
        tx.update::<Task>(&Task::key_of(realm, owner.cluster(), id), |task| {
            if task.last_status != LastStatus::Stopped {
                task.stop(TaskStopCode::UserInitiated, reason, now);
            }
        });
    }

    /// The root directory of a running sandbox; see [`runtime::Task::root`].
    pub async fn sandbox_root(&self, id: &str) -> Result<OwnedFd, EngineError> {
        let missing = || EngineError::Refused(id.to_owned(), "it does not run".to_owned());
        self.engine.task(id).ok_or_else(missing)?.root(CONTAINER).await
    }

    /// The host id that is root inside a running sandbox.
    pub fn sandbox_root_id(&self, id: &str) -> Option<u32> {
        let ids = self.engine.task(id)?.spec().ids;
        Some(ids.map_or(0, |ids| ids.first))
    }

    /// Fetches an image, so that a sandbox that needs it starts at once; with the credentials for its registry that a
    /// secret holds, where one is named. The error is for people.
    pub async fn fetch_image(
        &self,
        realm: &str,
        image: &str,
        credential: Option<&str>,
        principal: &Principal,
    ) -> Result<(), String> {
        let login = match credential {
            Some(arn) => Some(pull::credentials(self, realm, arn, Some(principal)).await?),
            None => None,
        };
        pull::fetch(self, image, image, Some(principal), login).await.map(drop)
    }

    /// The definition of a task: its family's, or its own.
    pub(crate) fn definition_of(&self, task: &Task) -> Option<Arc<TaskDefinition>> {
        match &task.sandbox {
            Some(sandbox) => Some(Arc::new(sandbox.definition.clone())),
            None => self.store.read().get::<TaskDefinition>(&task.definition_key()),
        }
    }
}
