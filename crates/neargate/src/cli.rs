//! The command line.

mod daemon;
mod doctor;
mod env;
mod exec;
mod logs;
mod new;
mod output;
mod status;

use crate::control::{self, InterruptReply, Request};
use clap::{Args, CommandFactory, Parser, Subcommand};
use output::{Failure, Format};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// AWS Fargate stacks, for real, on one Linux machine.
#[derive(Parser)]
#[command(name = "neargate", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    place: Place,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

/// Which Neargate is meant: each has a data directory of its own.
#[derive(Args, Clone)]
struct Place {
    /// Where all state is kept.
    #[arg(long, global = true, env = "NEARGATE_DATA_DIR", default_value = "/var/lib/neargate")]
    data_dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Start Neargate in the background.
    Up(ServeOptions),
    /// Run Neargate in the foreground.
    Serve(ServeOptions),
    /// Stop Neargate and its tasks.
    Down {
        /// Let the tasks go on, for an upgrade: the next `up` takes them over.
        #[arg(long)]
        keep_tasks: bool,
    },
    /// Print what runs.
    Status {
        /// Print it again and again, until Ctrl-C.
        #[arg(long, short)]
        watch: bool,
    },
    /// Print what the AWS CLI and SDKs need, as `export` lines.
    Env(env::Options),
    /// Run a command in a container of a running task.
    Exec(exec::Options),
    /// Print the events of a log group.
    Logs(logs::Options),
    /// Copy a pattern, a CloudFormation template of a whole stack, into a directory; or list all.
    New(new::Options),
    /// Interrupt a FARGATE_SPOT task, as AWS does when it wants the capacity back: SIGTERM, and two minutes at most.
    Interrupt {
        /// The task's id, its beginning, or its ARN.
        task: String,
    },
    /// Check this machine, and find (and with --mend take away) what an earlier crash left.
    Doctor {
        /// Take away what is left over.
        #[arg(long)]
        mend: bool,
    },
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What a control plane is started with.
#[derive(Args, Clone)]
pub(crate) struct ServeOptions {
    /// The address that the APIs listen on. Only loopback unless you know who can reach it.
    #[arg(long, env = "NEARGATE_LISTEN", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// The region that `neargate env` names.
    #[arg(long, env = "NEARGATE_REGION", default_value = "us-east-1")]
    region: String,
    /// The account that `neargate env` is for, twelve digits.
    #[arg(long, env = "NEARGATE_ACCOUNT", default_value = "123456789012", value_parser = account)]
    account: String,
    /// A prepared administrator key instead of a random one, as ID:SECRET. On loopback only.
    #[arg(long, env = "NEARGATE_ACCOUNT_KEY", hide_env_values = true)]
    account_key: Option<String>,
    /// Where tasks' public addresses come from; only this host knows them. A free block of 4096 is taken from it.
    #[arg(long, env = "NEARGATE_PUBLIC_POOL", default_value = "198.18.0.0/15")]
    public_pool: network::Cidr,
    /// Where names of load balancers are made known to this host's programs, in a block of their own that `down` takes
    /// away; "none" makes them known nowhere.
    #[arg(long, env = "NEARGATE_HOSTS_FILE", default_value = "/etc/hosts")]
    hosts_file: PathBuf,
    /// What AWS's waiting times (the minutes and cooldowns of scaling) are multiplied with: less than 1 is for tests
    /// and rehearsals. `neargate status` tells when it is not 1.
    #[arg(long, env = "NEARGATE_TIME_SCALE", default_value = "1", value_parser = time_scale)]
    time_scale: f64,
    /// What names of new load balancers end in: NAME-ID.REGION.elb.DOMAIN. On a server, a domain whose names
    /// lead to it.
    #[arg(long, env = "NEARGATE_DOMAIN", default_value = "localhost", value_parser = domain)]
    domain: String,
    /// The host's address on which internet-facing load balancers listen beside their own, told apart by name. The
    /// address that the APIs listen on unless set; on a server, its public one.
    #[arg(long, env = "NEARGATE_BALANCER_ADDRESS")]
    balancer_address: Option<IpAddr>,
    /// Where Lambda functions run: the URL of something that answers Lambda's Invoke, as `sam local start-lambda` does
    /// (http://127.0.0.1:3001). Neargate invokes functions, and does not run them itself yet.
    #[arg(long, env = "NEARGATE_FUNCTIONS")]
    functions: Option<lambda::Endpoint>,
    /// A directory of this machine whose git repositories pipelines may follow, by hosts of CodeConnections with the
    /// endpoint file://DIRECTORY. Whoever may make such hosts can read all of them.
    #[arg(long, env = "NEARGATE_GIT_DIRECTORY")]
    git_directory: Option<PathBuf>,
}

fn time_scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "a scale of time is a number".to_owned())?;
    match (0.001..=1.0).contains(&scale) {
        true => Ok(scale),
        false => Err("a scale of time is between 0.001 and 1".to_owned()),
    }
}

fn domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text.len() <= 190 && text.split('.').all(label) {
        true => Ok(text.to_ascii_lowercase()),
        false => {
            Err("a domain is labels of letters, digits and hyphens, with dots between".to_owned())
        }
    }
}

fn account(text: &str) -> Result<String, String> {
    match text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(text.to_owned()),
        false => Err("an account is twelve digits".to_owned()),
    }
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Up(options) => daemon::up(&cli.place.data_dir, options, cli.output),
        Command::Serve(options) => daemon::serve(&cli.place.data_dir, options, cli.output),
        Command::Down { keep_tasks } => daemon::down(&cli.place.data_dir, *keep_tasks, cli.output),
        Command::Status { watch } => status::run(&cli.place.data_dir, *watch, cli.output),
        Command::Exec(options) => return exec::run(&cli.place.data_dir, options, cli.output),
        Command::Logs(options) => logs::run(&cli.place.data_dir, options, cli.output),
        Command::New(options) => new::run(options, cli.output),
        Command::Doctor { mend } => doctor::run(&cli.place.data_dir, *mend, cli.output),
        Command::Interrupt { task } => interrupt(&cli.place.data_dir, task, cli.output),
        Command::Version => version(cli.output),
        Command::Completions { shell } => {
            clap_complete::generate(
                *shell,
                &mut Cli::command(),
                "neargate",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Command::Env(options) => env::run(&cli.place.data_dir, options, cli.output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(cli.output),
    }
}

/// What every command gives.
type Outcome = Result<(), Failure>;

fn interrupt(data_dir: &Path, task: &str, format: Format) -> Outcome {
    let request = Request::Interrupt { task: task.to_owned() };
    let reply: InterruptReply = control::ask(data_dir, &request)?;
    match format {
        Format::Json => println!("{}", serde_json::json!({ "taskArn": reply.arn })),
        Format::Text => println!("{} is interrupted", reply.arn),
    }
    Ok(())
}

fn version(format: Format) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    match format {
        Format::Json => println!("{}", serde_json::json!({ "version": version })),
        Format::Text => println!("neargate {version}"),
    }
    Ok(())
}
