//! `neargate serve`, `up` and `down`.

use super::{Format, Outcome, ServeOptions, output::Failure};
use crate::{
    control::{self, Request},
    serve::{self, Settings},
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

fn settings(data_dir: &Path, options: &ServeOptions) -> Result<Settings, Failure> {
    let account_key = match &options.account_key {
        None => None,
        Some(pair) => {
            let (id, secret) = pair.split_once(':').unwrap_or_default();
            if id.is_empty() || secret.is_empty() {
                return Err(Failure::new("--account-key has the form ID:SECRET"));
            }
            if !options.listen.ip().is_loopback() {
                let what = "--account-key is for loopback only";
                return Err(Failure::new(what).hint("leave it out: a random key is made"));
            }
            Some((id.to_owned(), secret.to_owned()))
        }
    };
    Ok(Settings {
        data_dir: data_dir.to_owned(),
        listen: options.listen,
        region: options.region.clone(),
        account: options.account.clone(),
        account_key,
        public_pool: options.public_pool,
        time_scale: options.time_scale,
        domain: options.domain.clone(),
        balancer_address: options.balancer_address.unwrap_or(options.listen.ip()),
        hosts_file: Some(options.hosts_file.clone()).filter(|file| file.as_os_str() != "none"),
        functions: options.functions.clone(),
        git_directory: options.git_directory.clone(),
    })
}

/// Runs in the foreground until it is told to stop. Says one line when it is ready.
pub(crate) fn serve(data_dir: &Path, options: &ServeOptions, _format: Format) -> Outcome {
    let settings = settings(data_dir, options)?;
    needs_root("serve")?;
    serve::run(settings).map_err(Failure::from)
}

fn needs_root(command: &str) -> Outcome {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let what = "Neargate runs containers itself and needs root for that";
    Err(Failure::new(what).hint(format!("try: sudo neargate {command}")))
}

/// Starts `serve` in the background and waits for its line.
pub(crate) fn up(data_dir: &Path, options: &ServeOptions, format: Format) -> Outcome {
    settings(data_dir, options)?;
    needs_root("up")?;
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Failure::new(format!("{what}: {error}"))
    };
    fs::create_dir_all(data_dir).map_err(told("cannot make the data directory"))?;
    let log = data_dir.join("serve.log");
    let before = fs::metadata(&log).map_or(0, |log| log.len() as usize);
    let log_file = fs::OpenOptions::new().create(true).append(true).open(&log);
    let log_file = log_file.map_err(told("cannot open serve.log"))?;
    let exe = std::env::current_exe().map_err(told("cannot find this program"))?;
    let mut command = Command::new(exe);
    command.arg("--data-dir").arg(data_dir).arg("serve");
    command.args(["--listen", &options.listen.to_string(), "--region", &options.region]);
    command.args(["--account", &options.account]);
    command.args(["--public-pool", &options.public_pool.to_string()]);
    command.arg("--hosts-file").arg(&options.hosts_file);
    command.args(["--domain", &options.domain, "--time-scale", &options.time_scale.to_string()]);
    if let Some(address) = options.balancer_address {
        command.args(["--balancer-address", &address.to_string()]);
    }
    if let Some(endpoint) = &options.functions {
        command.args(["--functions", &endpoint.to_string()]);
    }
    if let Some(directory) = &options.git_directory {
        command.arg("--git-directory").arg(directory);
    }
    if let Some(pair) = &options.account_key {
        // Not an argument: arguments can be read by everyone on the machine.
        command.env("NEARGATE_ACCOUNT_KEY", pair);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).process_group(0);
    let mut child = command.spawn().map_err(told("cannot start serve"))?;
    let mut line = String::new();
    let stdout = child.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).map_err(told("cannot read from serve"))?;
    if line.is_empty() {
        let status = child.wait().map_err(told("cannot wait for serve"))?;
        let words = fs::read_to_string(&log).unwrap_or_default();
        let words = words.get(before..).unwrap_or_default().trim();
        let what = format!("serve ended at once ({status})\n{words}");
        return Err(Failure::new(what).hint(format!("its log is {}", log.display())));
    }
    match format {
        Format::Json => println!("{}", serde_json::json!({ "pid": child.id() })),
        Format::Text => {
            print!("{line}");
            println!("next: eval \"$(neargate env)\"");
        }
    }
    Ok(())
}

/// Stops `serve` and its tasks.
pub(crate) fn down(data_dir: &Path, keep_tasks: bool, format: Format) -> Outcome {
    let _: control::DownReply = control::ask(data_dir, &Request::Down { keep_tasks })?;
    match format {
        Format::Json => println!("{}", serde_json::json!({ "stopped": true })),
        Format::Text => println!("Neargate is down."),
    }
    Ok(())
}
