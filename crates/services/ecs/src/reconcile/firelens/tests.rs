use super::*;
use serde_json::json;

fn containers() -> Vec<ContainerDefinition> {
    serde_json::from_value(json!([
        {"name": "web", "image": "web", "logConfiguration": {"logDriver": "awsfirelens", "options": {
            "Name": "cloudwatch", "region": "us-east-1", "log_group_name": "/web",
            "exclude-pattern": "GET /health", "include-pattern": "HTTP", "log-driver-buffer-limit": "2097152"}}},
        {"name": "router", "image": "fluent-bit", "firelensConfiguration": {"type": "fluentbit"}},
        {"name": "worker", "image": "worker", "logConfiguration": {"logDriver": "awsfirelens", "options": {
            "@type": "datadog", "Name": "datadog"},
            "secretOptions": [{"name": "apikey", "valueFrom": "/key"}]}},
    ]))
    .unwrap()
}

fn senders(containers: &[ContainerDefinition]) -> Vec<(usize, &ContainerDefinition)> {
    containers.iter().enumerate().filter(|(_, container)| is_sender(container)).collect()
}

#[test]
fn fluent_bits_configuration_is_fargates() {
    let containers = containers();
    let metadata = [("ecs_cluster", "main".to_owned())];
    let text = fluent_bit(&metadata, &senders(&containers), Some("/extra.conf"));
    let expected = "\
[INPUT]
    Name tcp
    Listen 127.0.0.1
    Port 8877
    Tag firelens-healthcheck

[INPUT]
    Name forward
    unix_path /var/run/fluent.sock

[INPUT]
    Name forward
    Listen 127.0.0.1
    Port 24224

[FILTER]
    Name grep
    Match web-firelens*
    Regex log HTTP

[FILTER]
    Name grep
    Match web-firelens*
    Exclude log GET /health

[FILTER]
    Name record_modifier
    Match *
    Record ecs_cluster main

@INCLUDE /extra.conf

[OUTPUT]
    Name null
    Match firelens-healthcheck

[OUTPUT]
    Name cloudwatch
    Match web-firelens*
    log_group_name /web
    region us-east-1

[OUTPUT]
    Name datadog
    Match worker-firelens*
    @type datadog
    apikey ${apikey_2}

";
    assert_eq!(text, expected);
}

#[test]
fn fluentd_reads_secrets_from_its_environment() {
    let containers = containers();
    let text = fluentd(&[], &senders(&containers), None);
    assert!(
        text.contains("<filter web-firelens**>\n    @type grep\n    <exclude>\n        key log\n")
    );
    let end = "<match worker-firelens**>\n    @type datadog\n    Name datadog\n    \
               apikey \"#{ENV['apikey_2']}\"\n</match>\n\n";
    assert!(text.ends_with(end), "{text}");
    assert!(!text.contains("<match web"), "it names no output of Fluentd's: {text}");
}
