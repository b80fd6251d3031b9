//! What is counted and logged.

use super::harness::*;
use balancer::{
    access_log,
    config::{AccessLog, Action, Condition, Rule},
};
use std::{fs, time::Duration};

#[tokio::test]
async fn requests_are_logged_as_aws_does_and_counted() {
    let a = backend("a");
    let port = free_port();
    let tea = Action::Fixed { status: 418, content_type: "text/plain".into(), body: "tea".into() };
    let rule =
        Rule { priority: 7, conditions: vec![Condition::Path(vec!["/tea".into()])], action: tea };
    let mut wanted = config(port, vec![rule], to(&[("g", 1)]), &[("g", group(&[&a]))]);
    wanted.log_period = Duration::from_millis(50);
    wanted.balancers[0].access_log =
        Some(AccessLog { name: "app/web/0123456789abcdef".into(), head: "to whom".into() });
    let mut plane = Plane::start(wanted).await;
    plane.healthy(1).await;
    let mut client = Client::new(port);
    client.send(
        "POST /x?y=1 HTTP/1.1\r\nHost: web.localhost\r\nUser-Agent: me \\ \"you\"\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(read(&mut client.0).expect("an answer").status(), "200");
    assert_eq!(client.ask("/tea", "").status(), "418");
    assert_eq!(client.ask("/break", "").status(), "502");
    plane.until(|report| report.figures.balancers["b1"].requests == 3).await;
    let figures = &plane.report.figures;
    let own = figures.balancers["b1"];
    assert_eq!((own.connections, own.active, own.own_4xx, own.own_5xx), (1, 1, 1, 1));
    let targets = &figures.groups["g"];
    assert_eq!((targets.requests, targets.answers_2xx, targets.connection_errors), (2, 1, 0));
    assert!(targets.quantile_us(0.99).is_some());
    drop(client);
    plane.until(|report| report.figures.balancers["b1"].active == 0).await;
    let directory = plane._directory.path().to_owned();
    let mut text = String::new();
    while text.lines().filter(|line| *line != "to whom").count() < 3 {
        let files = access_log::closed(&directory).expect("files");
        let read = files.iter().map(|file| fs::read_to_string(&file.path).expect("a file"));
        text = read.collect();
        tokio::task::yield_now().await;
    }
    assert!(text.starts_with("to whom\n"), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| *line != "to whom").collect();
    let [posted, tea, broken] = lines[..] else { panic!("three lines: {text}") };
    let words: Vec<&str> = posted.split(' ').collect();
    assert_eq!((words[0], words[2]), ("http", "app/web/0123456789abcdef"));
    assert!(words[1].ends_with('Z') && words[1].len() == "2026-01-02T03:04:05.678901Z".len());
    assert!(words[3].starts_with("127.0.0.1:"), "{posted}");
    assert_eq!(words[4], a.address.to_string());
    assert!(words[5..8].iter().all(|took| took.parse::<f64>().expect("seconds") >= 0.0));
    assert_eq!(&words[8..10], ["200", "200"]);
    let [received, sent] = [words[10], words[11]].map(|size| size.parse::<u64>().expect("bytes"));
    assert!(received > 80 && sent > 100, "{posted}");
    let line = format!(
        "\"POST http://web.localhost:{port}/x?y=1 HTTP/1.1\" \"me \\x5C \\x22you\\x22\" - - a group"
    );
    assert!(posted.contains(&line), "{posted}");
    assert!(posted.contains("\"Root=1-") && posted.contains(" \"-\" \"-\" 0 2"), "{posted}");
    let end = format!("\"forward\" \"-\" \"-\" \"{}\" \"200\" \"-\" \"-\" TID_", a.address);
    assert!(posted.contains(&end), "{posted}");
    assert!(tea.contains(" - -1 -1 -1 418 - ") && tea.contains(" 7 2"), "{tea}");
    assert!(tea.contains("\"fixed-response\" \"-\" \"-\" \"-\" \"-\""), "{tea}");
    assert!(broken.contains(" -1 -1 502 - "), "{broken}");
}
