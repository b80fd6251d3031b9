//! `neargate status`: what runs.

use super::{Format, Outcome};
use crate::control::{self, LoadBalancerStatus, Pulling, Request, StatusReply};
use std::{path::Path, time::Duration};

/// How often `--watch` looks.
const LOOK: Duration = Duration::from_millis(500);
/// Moves a terminal's cursor home and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(crate) fn run(data_dir: &Path, watch: bool, format: Format) -> Outcome {
    loop {
        let reply: StatusReply = control::ask(data_dir, &Request::Status)?;
        if watch && format == Format::Text {
            print!("{CLEAR}");
        }
        match format {
            Format::Json => {
                println!("{}", serde_json::to_string(&reply).expect("replies are plain data"));
            }
            Format::Text => print(&reply),
        }
        if !watch {
            return Ok(());
        }
        #[allow(clippy::disallowed_methods)]
        // the command line has no world: nothing in it is simulated
        std::thread::sleep(LOOK);
    }
}

fn print(reply: &StatusReply) {
    println!(
        "neargate {} on {}, {} in {}",
        reply.version, reply.endpoint, reply.account, reply.region
    );
    if reply.time_scale != 1.0 {
        println!("AWS's waiting times are multiplied with {}", reply.time_scale);
    }
    balancers(reply);
    services(reply);
    if reply.tasks.is_empty() {
        println!("no tasks");
        return;
    }
    println!(
        "{:<34} {:<24} {:<15} {:<16} {:<16}",
        "TASK", "DEFINITION", "STATUS", "PRIVATE", "PUBLIC"
    );
    for task in &reply.tasks {
        let id = name(&task.arn);
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (private, public) = (or_dash(&task.private_ip), or_dash(&task.public_ip));
        println!("{id:<34} {:<24} {:<15} {private:<16} {public:<16}", task.definition, task.status);
        if let Some(pulling) = &task.pulling {
            println!("    pulling {} {}", pulling.image, bar(pulling));
        }
    }
}

fn name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

fn balancers(reply: &StatusReply) {
    if reply.load_balancers.is_empty() {
        return;
    }
    println!("{:<64} {:<13} {:<16}", "LOAD BALANCER", "STATE", "PORTS");
    for balancer in &reply.load_balancers {
        let ports: Vec<String> = balancer.ports.iter().map(u16::to_string).collect();
        let ports = if ports.is_empty() { "-".to_owned() } else { ports.join(" ") };
        println!("{:<64} {:<13} {ports:<16}", balancer.dns_name, balancer.state);
        for trouble in &balancer.troubles {
            println!("    {trouble}");
        }
        figures(balancer);
    }
    println!();
}

/// What passed through a load balancer, if anything did.
fn figures(balancer: &LoadBalancerStatus) {
    let all = &balancer.figures;
    if all.connections == 0 {
        return;
    }
    println!(
        "    {} connections ({} open), {} requests, {:.1} MB; own answers: {} redirects, {} 4xx, {} 5xx",
        all.connections,
        all.active,
        all.requests,
        all.bytes as f64 / 1e6,
        all.own_3xx,
        all.own_4xx,
        all.own_5xx
    );
    for (name, group) in &balancer.groups {
        let answers = [group.answers_2xx, group.answers_3xx, group.answers_4xx, group.answers_5xx];
        let [good, moved, refused, failed] = answers;
        let ms = |part| group.quantile_us(part).unwrap_or_default() as f64 / 1e3;
        match answers.iter().sum::<u64>() {
            0 => println!("    {name}: {} connections", group.requests),
            _ => println!(
                "    {name}: {good} 2xx, {moved} 3xx, {refused} 4xx, {failed} 5xx; half in {:.1} ms, 99 % in {:.1} ms",
                ms(0.5),
                ms(0.99)
            ),
        }
        if group.connection_errors > 0 {
            println!("    {name}: {} connections could not be made", group.connection_errors);
        }
    }
}

fn services(reply: &StatusReply) {
    if reply.services.is_empty() {
        return;
    }
    println!(
        "{:<34} {:<24} {:>7} {:>7} {:>7}",
        "SERVICE", "DEFINITION", "DESIRED", "RUNNING", "PENDING"
    );
    for service in &reply.services {
        println!(
            "{:<34} {:<24} {:>7} {:>7} {:>7}",
            name(&service.arn),
            service.definition,
            service.desired,
            service.running,
            service.pending
        );
        if let Some(event) = &service.event {
            println!("    {event}");
        }
    }
    println!();
}

/// `[######--------------]  30%  12.0 of 40.0 MB`
fn bar(pulling: &Pulling) -> String {
    const WIDTH: u64 = 20;
    let Pulling { done_bytes, total_bytes, .. } = *pulling;
    let Some(percent) = done_bytes.saturating_mul(100).checked_div(total_bytes) else {
        return "…".to_owned();
    };
    let full = "#".repeat(usize::try_from(percent.min(100) * WIDTH / 100).unwrap_or_default());
    let mb = |bytes: u64| bytes as f64 / 1e6;
    format!("[{full:-<20}] {percent:>3}%  {:.1} of {:.1} MB", mb(done_bytes), mb(total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let shown = |done_bytes, total_bytes| {
            bar(&Pulling { image: String::new(), done_bytes, total_bytes })
        };
        assert_eq!(shown(12_000_000, 40_000_000), "[######--------------]  30%  12.0 of 40.0 MB");
        assert_eq!(shown(5, 5), "[####################] 100%  0.0 of 0.0 MB");
        assert_eq!(shown(0, 0), "…");
    }
}
