//! Commands run in running containers.

use crate::harness::{LIMIT, Lab, lab, wait_started};
use runtime::{EngineError, ExecIo, ExecRequest, ExecSession, StartFailure, Task};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn request(args: &[&str]) -> ExecRequest {
    ExecRequest {
        container: "main".into(),
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: vec![],
        user: None,
        cwd: None,
        terminal: None,
    }
}

async fn sleeper(lab: &Lab, id: &str) -> Task {
    let mut main = lab.shell("main", "sleep 1000");
    main.env = vec![("FROM".into(), "container".into())];
    main.stop_timeout_ms = 0;
    let task = lab.start(lab.spec(id, vec![main])).await;
    wait_started(&task, "main").await;
    task
}

async fn output(session: &mut ExecSession) -> (String, String) {
    let ExecIo::Pipes { stdout, stderr, .. } = &mut session.io else { panic!() };
    let (mut out, mut err) = (String::new(), String::new());
    stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    (out, err)
}

#[tokio::test]
async fn streams_and_exit_code_are_the_commands_own() {
    let Some(lab) = lab() else { return };
    let task = sleeper(&lab, "exec").await;
    let mut session =
        task.exec(request(&["sh", "-c", "cat; echo $FROM >&2; exit 9"])).await.unwrap();
    let ExecIo::Pipes { stdin, .. } = &mut session.io else { panic!() };
    let mut stdin = stdin.take().unwrap();
    stdin.write_all(b"typed").await.unwrap();
    drop(stdin);
    assert_eq!(output(&mut session).await, ("typed".into(), "container\n".into()));
    assert_eq!(session.wait().await.unwrap(), 9);

    let mut session = task.exec(request(&["sh", "-c", "kill -9 $$"])).await.unwrap();
    assert_eq!(session.wait().await.unwrap(), 137);
    let failed = task.exec(request(&["no-such"])).await.err().unwrap();
    assert!(
        matches!(failed, EngineError::Exec(_, StartFailure::CommandNotFound { .. })),
        "{failed:?}"
    );
    let mut elsewhere = request(&["true"]);
    elsewhere.container = "other".into();
    assert!(matches!(task.exec(elsewhere).await.err().unwrap(), EngineError::Refused(..)));
    lab.engine.remove("exec").await.unwrap();
}

#[tokio::test]
async fn a_session_is_as_restricted_as_the_container() {
    let Some(lab) = lab() else { return };
    let task = sleeper(&lab, "same").await;
    let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Uid|Groups)' /proc/$0/status; \
                  cat /proc/$0/uid_map; \
                  for n in cgroup ipc mnt net pid user uts; do readlink /proc/$0/ns/$n; done; \
                  cat /proc/$0/cgroup";
    let mut of_container = task.exec(request(&["sh", "-c", script, "1"])).await.unwrap();
    let (container, _) = output(&mut of_container).await;
    let mut of_session = task.exec(request(&["sh", "-c", script, "self"])).await.unwrap();
    let (session, errors) = output(&mut of_session).await;
    assert_eq!(container, session, "{errors}");
    assert!(
        session.contains("Seccomp:\t2") && session.contains("CapEff:\t00000000a80425fb"),
        "{session}"
    );

    let mut as_web = request(&["id"]);
    as_web.user = Some("web".into());
    as_web.cwd = Some("/tmp".into());
    let mut session = task.exec(as_web).await.unwrap();
    assert_eq!(output(&mut session).await.0, "uid=33(web) gid=34(web) groups=34(web),50(logs)\n");
    lab.engine.remove("same").await.unwrap();
}

#[tokio::test]
async fn a_terminal_can_be_typed_on_and_resized() {
    let Some(lab) = lab() else { return };
    let task = sleeper(&lab, "tty").await;
    let mut with_terminal = request(&["sh"]);
    with_terminal.terminal = Some((30, 90));
    let mut session = task.exec(with_terminal).await.unwrap();
    let ExecIo::Terminal(terminal) = &session.io else { panic!() };
    let mut seen = String::new();
    let mut read_until = async |what: &str| {
        let mut buffer = [0u8; 1024];
        while !seen.contains(what) {
            let read =
                tokio::time::timeout(LIMIT, terminal.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    terminal.write_all(b"stty size; tty\n").await.unwrap();
    read_until("30 90\r\n").await;
    read_until("/dev/pts/").await;
    terminal.resize(40, 100).unwrap();
    terminal.write_all(b"stty size\n").await.unwrap();
    read_until("40 100\r\n").await;
    // Ctrl-C reaches what runs in the foreground.
    terminal.write_all(b"echo re$((1+1))ady; sleep 1000\n").await.unwrap();
    read_until("re2ady\r\n").await;
    // While the shell itself reads, the key means something else.
    lab.world.sleep(std::time::Duration::from_millis(200)).await;
    terminal.write_all(b"\x03").await.unwrap();
    terminal.write_all(b"echo in$((1+1))terrupted\n").await.unwrap();
    read_until("in2terrupted\r\n").await;
    terminal.write_all(b"exit 6\n").await.unwrap();
    assert_eq!(session.wait().await.unwrap(), 6);
    lab.engine.remove("tty").await.unwrap();
}

#[tokio::test]
async fn several_at_once_and_none_outlives_its_asker() {
    let Some(lab) = lab() else { return };
    let task = sleeper(&lab, "many").await;
    let mut sessions = Vec::new();
    for _ in 0..32 {
        sessions.push(task.exec(request(&["sleep", "1000"])).await.unwrap());
    }
    let refused = task.exec(request(&["true"])).await.err().unwrap();
    assert!(matches!(refused, EngineError::Refused(..)), "{refused:?}");
    let pids: Vec<i32> = sessions.iter().map(ExecSession::pid).collect();
    drop(sessions);
    for pid in pids {
        let gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
        crate::harness::eventually(gone).await;
    }
    assert_eq!(task.exec(request(&["true"])).await.unwrap().wait().await.unwrap(), 0);
    lab.engine.remove("many").await.unwrap();
}
