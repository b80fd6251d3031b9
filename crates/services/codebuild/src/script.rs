//! What lies in a build's container beside its source: the program that runs its phases, and what that reads.

use crate::buildspec::{Buildspec, OnFailure, PHASES};

/// Where it lies in the container.
pub(crate) const AGENT: &str = "/codebuild/agent";
/// The program, beneath [`AGENT`].
pub(crate) const PROGRAM: &str = "run.sh";
/// The file that tells how far it is, beneath [`AGENT`].
pub(crate) const PROGRESS: &str = "progress";
/// A shell, unless the buildspec names another.
const SHELL: &str = "/bin/sh";

/// A file beneath [`AGENT`].
pub(crate) type File = (String, String);

/// What the program is to run.
pub(crate) struct Script {
    /// Its files.
    pub files: Vec<File>,
    /// Its commands, by number.
    pub commands: Vec<String>,
}

/// Text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The phases' names as everybody but buildspecs writes them.
pub(crate) fn phase_name(name: &str) -> String {
    name.to_ascii_uppercase()
}

/// The program for a buildspec. `names` are those of its outputs that the shell is to work out, by number.
pub(crate) fn write(spec: &Buildspec, greeting: &[String], names: &[String]) -> Script {
    let mut commands: Vec<String> = Vec::new();
    let mut phases = String::from("go=1\n");
    for name in PHASES {
        let phase = spec.phases.iter().find(|(known, _)| *known == name).map(|(_, phase)| phase);
        let mut number = |list: &[String]| {
            let first = commands.len();
            commands.extend_from_slice(list);
            (first..commands.len()).map(|number| format!(" {number}")).collect::<String>()
        };
        let run = phase.map(|phase| number(&phase.commands.0)).unwrap_or_default();
        let finally = phase.map(|phase| number(&phase.finally.0)).unwrap_or_default();
        let user = phase.and_then(|phase| phase.run_as.as_ref().map(|user| user.0.clone()));
        let user = user.or_else(|| spec.run_as.clone()).unwrap_or_default();
        let policy = phase.and_then(|phase| phase.on_failure.as_ref());
        let (retries, pattern) = match policy {
            Some(OnFailure::Retry(count, pattern)) => (*count, pattern.as_deref()),
            _ => (0, None),
        };
        // What follows a failed BUILD still runs; what follows another does not.
        let goes_on = match policy {
            Some(OnFailure::Continue) => true,
            Some(OnFailure::Abort) => false,
            _ => name == "build",
        };
        phases += &format!(
            "[ -z \"$go\" ] || phase {} {retries} {} {}{run} --{finally} || {}\n",
            phase_name(name),
            quoted(pattern.unwrap_or_default()),
            quoted(&user),
            if goes_on { ":" } else { "go=" },
        );
    }
    let shell = spec.env.shell.as_ref().map_or(SHELL, |shell| &shell.0);
    let numbers: Vec<String> = (0..names.len()).map(|number| number.to_string()).collect();
    let settings = format!(
        "shell={}\nseparate={}\nexported={}\nnames={}\n",
        quoted(shell),
        if spec.separate { "1" } else { "" },
        quoted(&spec.env.exported.0.join(" ")),
        quoted(&numbers.join(" ")),
    );
    let mut files: Vec<File> = vec![
        (PROGRAM.to_owned(), include_str!("agent.sh").to_owned()),
        ("settings.sh".to_owned(), settings),
        ("phases.sh".to_owned(), phases),
        ("shell".to_owned(), shell.to_owned()),
        ("greeting".to_owned(), greeting.iter().map(|line| format!("{line}\n")).collect()),
        ("exported/.keep".to_owned(), String::new()),
    ];
    let numbered = commands.iter().enumerate();
    files.extend(numbered.map(|(n, text)| (format!("commands/{n}"), text.clone())));
    for (number, name) in names.iter().enumerate() {
        // As within double quotes: variables and commands, and nothing else, mean something.
        let name = name.replace('\\', r"\\").replace('"', "\\\"");
        files.push((format!("names/{number}"), format!("printf '%s' \"{name}\"\n")));
    }
    Script { files, commands }
}

/// What the program says in `progress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The first phase is about to begin.
    Begin,
    /// There is no such shell.
    Lost(String),
    /// A phase begins.
    Enter(String),
    /// A phase is over; with the number and the exit status of the command that failed, if one did.
    Leave(String, Option<(usize, i32)>),
    /// All are over; whether they went well.
    Done(bool),
}

/// A line of `progress`: when, in milliseconds since the epoch, and what. A build can write there too, so whatever
/// means nothing is passed over.
pub(crate) fn said(line: &str) -> Option<(i64, Said)> {
    let (time, rest) = line.split_once(' ')?;
    // Some programs of the name `date` know no fractions.
    let digits: String = time.chars().take_while(char::is_ascii_digit).collect();
    let time: i64 = digits.parse().ok()?;
    let time = if digits.len() > 12 { time / 1_000_000 } else { time.checked_mul(1000)? };
    let words: Vec<&str> = rest.split(' ').collect();
    let said = match words[..] {
        ["begin"] => Said::Begin,
        ["lost", shell] => Said::Lost(shell.to_owned()),
        ["enter", name] => Said::Enter(name.to_owned()),
        ["leave", name] => Said::Leave(name.to_owned(), None),
        ["leave", name, command, status] => {
            Said::Leave(name.to_owned(), Some((command.parse().ok()?, status.parse().ok()?)))
        }
        ["done", succeeded] => Said::Done(succeeded == "1"),
        _ => return None,
    };
    Some((time, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildspec;
    use proptest::prelude::*;
    use std::{fs, path::Path, process::Command};

    /// Runs a buildspec here, with the agent's directories elsewhere; what it printed, and what it said.
    fn run(spec: &str) -> (String, Vec<Said>, tempfile::TempDir) {
        let spec = buildspec::read(spec).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let at = |text: &str| {
            text.replace("/codebuild", &dir.path().join("codebuild").display().to_string())
                .replace("while :; do sleep 3600; done", "exit")
        };
        let script = write(&spec, &["hello".to_owned()], &["n-$WORD\"\\".to_owned()]);
        let agent = dir.path().join("codebuild/agent");
        for (name, text) in &script.files {
            let path = agent.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, at(text)).unwrap();
        }
        let source = dir.path().join("codebuild/src");
        fs::create_dir(&source).unwrap();
        let output = Command::new("sh")
            .arg(agent.join(PROGRAM))
            .env("CODEBUILD_SRC_DIR", &source)
            .env("WORD", "from outside")
            .envs([("A", "a"), ("T", "t"), ("shell", "s"), ("user", "u"), ("name", "n")])
            .output()
            .unwrap();
        let text =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        let progress = fs::read_to_string(agent.join(PROGRESS)).unwrap();
        (text, progress.lines().map(|line| said(line).unwrap().1).collect(), dir)
    }

    fn enter(name: &str) -> Said {
        Said::Enter(name.to_owned())
    }

    fn leave(name: &str) -> Said {
        Said::Leave(name.to_owned(), None)
    }

    fn read(dir: &tempfile::TempDir, path: impl AsRef<Path>) -> String {
        fs::read_to_string(dir.path().join("codebuild/agent").join(path)).unwrap()
    }

    #[test]
    fn variables_and_directory_go_from_command_to_command() {
        let (text, said, dir) = run("
version: 0.2
env: {exported-variables: [TAG, NONE]}
phases:
  pre_build:
    commands:
      - TAG=abc
      - mkdir sub; cd sub
      - export QUOTED=\"it's 'quoted'
        twice\"
  build:
    commands:
      - echo \"$TAG $QUOTED $(basename $PWD) $WORD $CODEBUILD_BUILD_SUCCEEDING $A$T$shell$user$name\"
      - unset WORD
  post_build:
    commands: ['echo [${WORD-gone}]', 'WORD=in the end']
"
        .replace("WORD=in the end", "WORD=\"in the end\"")
        .as_str());
        assert!(text.contains("abc it's 'quoted' twice sub from outside 1 atsun\n"), "{text}");
        assert!(text.contains("[gone]\n") && text.contains(" hello\n"), "{text}");
        let all = ["INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD"];
        let mut expected = vec![Said::Begin];
        expected.extend(all.iter().flat_map(|name| [enter(name), leave(name)]));
        expected.push(Said::Done(true));
        assert_eq!(said, expected);
        assert_eq!(
            (read(&dir, "exported/TAG"), read(&dir, "exported/NONE")),
            ("abc".into(), String::new())
        );
        assert_eq!(read(&dir, "names/0.out"), "n-in the end\"\\");
    }

    #[test]
    fn what_fails_ends_its_phase_and_finally_runs() {
        let (text, said, _dir) = run("
version: 0.2
phases:
  install: {commands: ['false'], on-failure: CONTINUE}
  build:
    commands: ['echo one', 'exit 7', 'echo never']
    finally: ['echo finally']
  post_build: {commands: ['echo post $CODEBUILD_BUILD_SUCCEEDING']}
");
        assert!(text.contains("finally\n") && text.contains("post 0\n"), "{text}");
        assert!(!text.contains("\nnever\n"), "{text}");
        let why = "Error while executing command: exit 7. Reason: exit status 7";
        assert!(text.contains(&format!("COMMAND_EXECUTION_ERROR Message: {why}")), "{text}");
        let failed =
            |name: &str, command, status| Said::Leave(name.to_owned(), Some((command, status)));
        assert_eq!(said[2], failed("INSTALL", 0, 1));
        assert_eq!(said[6], failed("BUILD", 2, 7));
        assert_eq!(said[9], Said::Done(false));
    }

    #[test]
    fn a_failed_beginning_ends_the_build() {
        let (text, said, _dir) = run("
version: 0.2
phases:
  pre_build: {commands: ['sh -c \"exit 3\"']}
  build: {commands: ['echo never']}
");
        assert!(!text.contains("\nnever\n"), "{text}");
        assert_eq!(said.last(), Some(&Said::Done(false)));
        assert!(!said.contains(&enter("BUILD")));
    }

    #[test]
    fn a_phase_is_tried_again_as_often_as_it_says() {
        for (policy, tries) in
            [("RETRY", 4), ("RETRY-1", 2), ("RETRY-status 7", 4), ("RETRY-5-status 8", 1)]
        {
            let (_, said, dir) = run(&format!(
                "
version: 0.2
phases:
  build: {{on-failure: {policy}, commands: ['echo x >> $CODEBUILD_SRC_DIR/tries', 'exit 7']}}
"
            ));
            let tried = fs::read_to_string(dir.path().join("codebuild/src/tries")).unwrap();
            assert_eq!(tried.lines().count(), tries, "{policy}");
            assert_eq!(said.last(), Some(&Said::Done(false)));
        }
    }

    #[test]
    fn version_1_begins_anew_with_each_command() {
        let (text, ..) = run(
            "version: 0.1\nphases: {build: {commands: ['B=1; cd /', 'echo [$B] $(basename $PWD)']}}",
        );
        assert!(text.contains("[] src\n"), "{text}");
    }

    #[test]
    fn a_shell_of_its_own() {
        let (text, ..) = run(
            "version: 0.2\nenv: {shell: bash}\nphases: {build: {commands: ['A=(1 2); B=x', 'echo ${B^^}']}}",
        );
        assert!(text.contains("\nX\n"), "{text}");
        let (_, said, _dir) =
            run("version: 0.2\nenv: {shell: fish}\nphases: {build: {commands: ['true']}}");
        assert_eq!(said, [Said::Lost("fish".into())]);
    }

    proptest! {
        #[test]
        fn any_line_is_understood_or_passed_over(line in ".{0,60}", number in any::<u64>()) {
            said(&line);
            said(&format!("{number} {line}"));
        }
    }
}
