//! What test and coverage tools write, read into what a report says.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/test-reporting.html>,
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/code-coverage-report.html>

use crate::api::ReportType;
use roxmltree::{Document, Node, ParsingOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// The most elements of one file.
const MOST_NODES: u32 = 1_000_000;
/// The longest name and the longest message that are kept, in characters.
const LONGEST_NAME: usize = 1000;
const LONGEST_MESSAGE: usize = 2000;
/// How far out of an element, and how far into it, something is looked for.
const FARTHEST: usize = 100;

/// How a file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Format {
    Junit,
    Nunit,
    Nunit3,
    TestNg,
    VisualStudio,
    Cucumber,
    Clover,
    Cobertura,
    Jacoco,
    SimpleCov,
}

impl Format {
    /// The format of a name of AWS's, whose documentation has them in capitals and not.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "JUNITXML" => Self::Junit,
            "NUNITXML" => Self::Nunit,
            "NUNIT3XML" => Self::Nunit3,
            "TESTNGXML" => Self::TestNg,
            "VISUALSTUDIOTRX" => Self::VisualStudio,
            "CUCUMBERJSON" => Self::Cucumber,
            "CLOVERXML" => Self::Clover,
            "COBERTURAXML" => Self::Cobertura,
            "JACOCOXML" => Self::Jacoco,
            "SIMPLECOV" => Self::SimpleCov,
            _ => return None,
        })
    }

    /// What kind of report it is for.
    pub(crate) fn kind(self) -> ReportType {
        match self {
            Self::Clover | Self::Cobertura | Self::Jacoco | Self::SimpleCov => {
                ReportType::CodeCoverage
            }
            _ => ReportType::Test,
        }
    }
}

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Outcome {
    Succeeded,
    Failed,
    Error,
    Skipped,
    Unknown,
}

impl Outcome {
    /// AWS's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Error => "ERROR",
            Self::Skipped => "SKIPPED",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Of a tool's word for it.
    fn of(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "passed" | "pass" | "success" | "true" => Self::Succeeded,
            "failed" | "fail" | "failure" | "false" => Self::Failed,
            "error" | "timeout" | "aborted" => Self::Error,
            "skipped" | "skip" | "ignored" | "notexecuted" | "pending" => Self::Skipped,
            _ => Self::Unknown,
        }
    }
}

/// A test, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// The file that says so.
    pub file: String,
    /// What it is part of.
    pub suite: String,
    /// What its name begins with: a class, a feature.
    pub prefix: String,
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, in nanoseconds.
    pub nanoseconds: i64,
    /// What it says of its failure.
    pub message: String,
}

/// How much of a file was run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The file.
    pub path: String,
    /// Lines run and not run.
    pub lines: (i32, i32),
    /// Branches taken and not taken.
    pub branches: (i32, i32),
}

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub cases: Vec<Case>,
    pub coverage: Vec<Coverage>,
    /// Whether a test failed, be it among the cases or not.
    pub bad: bool,
}

impl Content {
    fn of(cases: Vec<Case>, coverage: Vec<Coverage>) -> Self {
        let bad = |case: &Case| matches!(case.outcome, Outcome::Failed | Outcome::Error);
        Self { bad: cases.iter().any(bad), cases, coverage }
    }

    /// With what another file says, to so many of each.
    pub(crate) fn add(&mut self, other: Self, most: usize) {
        self.bad |= other.bad;
        self.cases.extend(other.cases);
        self.coverage.extend(other.coverage);
        self.cases.truncate(most);
        self.coverage.truncate(most);
    }
}

/// Reads a file; why it cannot be, otherwise.
pub(crate) fn read(format: Format, file: &str, text: &str) -> Result<Content, String> {
    if let Format::Cucumber | Format::SimpleCov = format {
        let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        return Ok(match format {
            Format::Cucumber => Content::of(cucumber(file, &json), Vec::new()),
            _ => Content::of(Vec::new(), simplecov(&json)),
        });
    }
    let options =
        ParsingOptions { allow_dtd: true, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text.trim_start_matches('\u{feff}'), options);
    let document = document.map_err(|error| error.to_string())?;
    let root = document.root_element();
    let (mut cases, mut coverage) = (Vec::new(), Vec::new());
    for node in root.descendants().filter(Node::is_element) {
        match format {
            Format::Junit => cases.extend(junit(file, node)),
            Format::Nunit | Format::Nunit3 => cases.extend(nunit(file, node)),
            Format::TestNg => cases.extend(testng(file, node)),
            Format::VisualStudio => cases.extend(trx(file, node)),
            Format::Clover => coverage.extend(clover(node)),
            Format::Jacoco => coverage.extend(jacoco(node)),
            Format::Cobertura => cobertura(node, &mut coverage),
            Format::Cucumber | Format::SimpleCov => {}
        }
    }
    Ok(Content::of(cases, coverage))
}

fn cut(text: &str, most: usize) -> String {
    text.trim().chars().take(most).collect()
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    node.attribute(name).unwrap_or_default()
}

fn number(node: Node, name: &str) -> i32 {
    node.attribute(name).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// The nearest element of a name that something is in.
fn within<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.ancestors().skip(1).take(FARTHEST).find(|node| node.tag_name().name() == name)
}

/// Seconds as text, in nanoseconds.
fn nanoseconds(seconds: &str) -> i64 {
    let seconds: f64 = seconds.replace(',', "").parse().unwrap_or_default();
    (seconds.max(0.0) * 1e9) as i64
}

/// All text within an element.
fn words(node: Node) -> String {
    let texts = node.descendants().take(FARTHEST).filter(Node::is_text);
    texts.filter_map(|node| node.text()).collect()
}

fn case(file: &str, suite: &str, prefix: &str, name: &str, outcome: Outcome) -> Case {
    Case {
        file: file.to_owned(),
        suite: cut(suite, LONGEST_NAME),
        prefix: cut(prefix, LONGEST_NAME),
        name: cut(name, LONGEST_NAME),
        outcome,
        nanoseconds: 0,
        message: String::new(),
    }
}

fn junit(file: &str, node: Node) -> Option<Case> {
    let kinds =
        [("failure", Outcome::Failed), ("error", Outcome::Error), ("skipped", Outcome::Skipped)];
    if node.tag_name().name() != "testcase" {
        return None;
    }
    let told = kinds.iter().find_map(|(name, kind)| Some((child(node, name)?, *kind)));
    let suite = within(node, "testsuite").map_or("", |suite| attribute(suite, "name"));
    let outcome = told.map_or(Outcome::Succeeded, |(_, outcome)| outcome);
    let message = told.map(|(told, _)| match attribute(told, "message") {
        "" => words(told),
        message => message.to_owned(),
    });
    Some(Case {
        nanoseconds: nanoseconds(attribute(node, "time")),
        message: cut(&message.unwrap_or_default(), LONGEST_MESSAGE),
        ..case(file, suite, attribute(node, "classname"), attribute(node, "name"), outcome)
    })
}

/// Both versions: the older says in `success` and `executed` what the newer says in `result`.
fn nunit(file: &str, node: Node) -> Option<Case> {
    if node.tag_name().name() != "test-case" {
        return None;
    }
    let outcome = match (node.attribute("result"), node.attribute("executed")) {
        (_, Some("False")) => Outcome::Skipped,
        (Some(result), _) => Outcome::of(result),
        (None, _) => Outcome::of(attribute(node, "success")),
    };
    let suite = within(node, "test-suite").map_or("", |suite| attribute(suite, "name"));
    let time = node.attribute("duration").or(node.attribute("time")).unwrap_or_default();
    let message = child(node, "failure").or_else(|| child(node, "reason")).map(words);
    Some(Case {
        nanoseconds: nanoseconds(time),
        message: cut(&message.unwrap_or_default(), LONGEST_MESSAGE),
        ..case(file, suite, attribute(node, "classname"), attribute(node, "name"), outcome)
    })
}

fn testng(file: &str, node: Node) -> Option<Case> {
    // What sets tests up is no test.
    if node.tag_name().name() != "test-method" || attribute(node, "is-config") == "true" {
        return None;
    }
    let named = |name| within(node, name).map_or("", |node| attribute(node, "name"));
    let message = child(node, "exception").map(words).unwrap_or_default();
    let milliseconds: i64 = attribute(node, "duration-ms").parse().unwrap_or_default();
    Some(Case {
        nanoseconds: milliseconds.saturating_mul(1_000_000),
        message: cut(&message, LONGEST_MESSAGE),
        ..case(
            file,
            named("test"),
            named("class"),
            attribute(node, "name"),
            Outcome::of(attribute(node, "status")),
        )
    })
}

fn trx(file: &str, node: Node) -> Option<Case> {
    if node.tag_name().name() != "UnitTestResult" {
        return None;
    }
    // hh:mm:ss.fffffff
    let parts = attribute(node, "duration").split(':');
    let time = parts.fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap_or_default());
    let message =
        node.descendants().take(FARTHEST).find(|node| node.tag_name().name() == "Message");
    let outcome = Outcome::of(attribute(node, "outcome"));
    Some(Case {
        nanoseconds: (time * 1e9) as i64,
        message: cut(&message.map(words).unwrap_or_default(), LONGEST_MESSAGE),
        ..case(file, "", "", attribute(node, "testName"), outcome)
    })
}

/// Each scenario of a feature is a test, which fails with its first step that does.
fn cucumber(file: &str, json: &Json) -> Vec<Case> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let mut cases = Vec::new();
    for feature in json.as_array().into_iter().flatten() {
        for scenario in feature["elements"].as_array().into_iter().flatten() {
            if scenario["type"] == "background" {
                continue;
            }
            let (mut outcome, mut time, mut message) = (Outcome::Succeeded, 0, String::new());
            for step in scenario["steps"].as_array().into_iter().flatten() {
                let result = &step["result"];
                time += result["duration"].as_i64().unwrap_or_default();
                let of = Outcome::of(&text(&result["status"]));
                if outcome == Outcome::Succeeded && of != Outcome::Succeeded {
                    outcome = of;
                    message = text(&result["error_message"]);
                }
            }
            cases.push(Case {
                nanoseconds: time.max(0),
                message: cut(&message, LONGEST_MESSAGE),
                ..case(file, &text(&feature["name"]), "", &text(&scenario["name"]), outcome)
            });
        }
    }
    cases
}

fn clover(node: Node) -> Option<Coverage> {
    let metrics = child(node, "metrics").filter(|_| node.tag_name().name() == "file")?;
    let pair = |of: &str, all: &str| {
        let (of, all) = (number(metrics, of), number(metrics, all));
        (of, (all - of).max(0))
    };
    let path = node.attribute("path").unwrap_or(attribute(node, "name"));
    Some(Coverage {
        path: cut(path, LONGEST_NAME),
        lines: pair("coveredstatements", "statements"),
        branches: pair("coveredconditionals", "conditionals"),
    })
}

fn jacoco(node: Node) -> Option<Coverage> {
    if node.tag_name().name() != "sourcefile" {
        return None;
    }
    let counter = |kind: &str| {
        let mut counters = node.children().filter(|node| node.has_tag_name("counter"));
        let found = counters.find(|counter| attribute(*counter, "type") == kind);
        found.map_or((0, 0), |found| (number(found, "covered"), number(found, "missed")))
    };
    let package = within(node, "package").map_or("", |package| attribute(package, "name"));
    Some(Coverage {
        path: cut(&format!("{package}/{}", attribute(node, "name")), LONGEST_NAME),
        lines: counter("LINE"),
        branches: counter("BRANCH"),
    })
}

/// A file may have several classes, each with lines of its own.
fn cobertura(node: Node, all: &mut Vec<Coverage>) {
    let Some(lines) = child(node, "lines").filter(|_| node.tag_name().name() == "class") else {
        return;
    };
    let path = cut(attribute(node, "filename"), LONGEST_NAME);
    let at = all.iter().position(|one| one.path == path).unwrap_or_else(|| {
        all.push(Coverage { path, ..Coverage::default() });
        all.len() - 1
    });
    let coverage = &mut all[at];
    for line in lines.children().filter(|node| node.has_tag_name("line")) {
        match attribute(line, "hits").parse::<u64>() {
            Ok(1..) => coverage.lines.0 += 1,
            _ => coverage.lines.1 += 1,
        }
        // `50% (1/2)`
        let conditions = attribute(line, "condition-coverage").split_once('(');
        let conditions =
            conditions.and_then(|(_, rest)| rest.trim_end_matches(')').split_once('/'));
        if let Some((taken, of)) = conditions {
            let (taken, of): (i32, i32) =
                (taken.parse().unwrap_or_default(), of.parse().unwrap_or_default());
            coverage.branches.0 += taken.clamp(0, of.max(0));
            coverage.branches.1 += of.saturating_sub(taken).max(0);
        }
    }
}

fn simplecov(json: &Json) -> Vec<Coverage> {
    let mut all = Vec::new();
    for suite in json.as_object().into_iter().flat_map(|suites| suites.values()) {
        for (path, file) in suite["coverage"].as_object().into_iter().flatten() {
            // The lines themselves, or, as newer versions have it, an object with them.
            let lines = file.as_array().or_else(|| file["lines"].as_array());
            let hits = lines.into_iter().flatten().filter_map(Json::as_u64);
            let (run, not) = hits.fold((0, 0), |(run, not), hits| match hits {
                0 => (run, not + 1),
                _ => (run + 1, not),
            });
            let branches = file["branches"].as_object().into_iter().flat_map(|all| all.values());
            let branches = branches.flat_map(|one| one.as_object().into_iter().flatten());
            let taken = branches.filter_map(|(_, hits)| hits.as_u64());
            let (taken, not_taken) = taken.fold((0, 0), |(taken, not), hits| match hits {
                0 => (taken, not + 1),
                _ => (taken + 1, not),
            });
            all.push(Coverage {
                path: cut(path, LONGEST_NAME),
                lines: (run, not),
                branches: (taken, not_taken),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMATS: [&str; 10] = [
        "JUNITXML",
        "NUNITXML",
        "NUNIT3XML",
        "TESTNGXML",
        "VISUALSTUDIOTRX",
        "CUCUMBERJSON",
        "CLOVERXML",
        "COBERTURAXML",
        "JACOCOXML",
        "SIMPLECOV",
    ];
    const XML: &str =
        r#"(<[a-z-]{1,9}( [a-z]{1,9}="[^<&"]{0,9}")?/?>|</[a-z-]{1,9}>|[a-z&;]{1,5}){0,40}"#;

    fn cases(format: Format, text: &str) -> Vec<(String, String, String, Outcome, i64, String)> {
        let told = |case: Case| {
            (case.suite, case.prefix, case.name, case.outcome, case.nanoseconds, case.message)
        };
        read(format, "f", text).unwrap().cases.into_iter().map(told).collect()
    }

    fn case(
        (suite, prefix, name): (&str, &str, &str),
        outcome: Outcome,
        nanoseconds: i64,
        message: &str,
    ) -> (String, String, String, Outcome, i64, String) {
        let of = str::to_owned;
        (of(suite), of(prefix), of(name), outcome, nanoseconds, of(message))
    }

    #[test]
    fn tests_are_read_in_every_format() {
        let junit = r#"<?xml version="1.0"?><testsuites><testsuite name="s" tests="4">
            <testcase classname="c" name="a" time="0.5"/>
            <testcase classname="c" name="b"><failure message="1 &lt; 2">trace</failure></testcase>
            <testcase name="d"><error>out of
order</error></testcase><testcase name="e"><skipped/></testcase></testsuite></testsuites>"#;
        assert_eq!(
            cases(Format::Junit, junit),
            [
                case(("s", "c", "a"), Outcome::Succeeded, 500_000_000, ""),
                case(("s", "c", "b"), Outcome::Failed, 0, "1 < 2"),
                case(("s", "", "d"), Outcome::Error, 0, "out of\norder"),
                case(("s", "", "e"), Outcome::Skipped, 0, ""),
            ]
        );
        let nunit = r#"<test-results><test-suite name="s"><results>
            <test-case name="a" executed="True" success="True" time="0.25"/>
            <test-case name="b" executed="True" success="False"><failure><message>no</message></failure></test-case>
            <test-case name="c" executed="False"/></results></test-suite></test-results>"#;
        assert_eq!(
            cases(Format::Nunit, nunit),
            [
                case(("s", "", "a"), Outcome::Succeeded, 250_000_000, ""),
                case(("s", "", "b"), Outcome::Failed, 0, "no"),
                case(("s", "", "c"), Outcome::Skipped, 0, ""),
            ]
        );
        let nunit3 = r#"<test-run><test-suite name="s"><test-case classname="c" name="a" result="Passed" duration="1"/>
            <test-case name="b" result="Skipped"/></test-suite></test-run>"#;
        assert_eq!(
            cases(Format::Nunit3, nunit3),
            [
                case(("s", "c", "a"), Outcome::Succeeded, 1_000_000_000, ""),
                case(("s", "", "b"), Outcome::Skipped, 0, ""),
            ]
        );
        let testng = r#"<testng-results><suite name="x"><test name="t"><class name="c">
            <test-method status="PASS" name="set-up" is-config="true"/>
            <test-method status="FAIL" name="a" duration-ms="3"><exception><message>no</message></exception>
            </test-method>
            </class></test></suite></testng-results>"#;
        assert_eq!(
            cases(Format::TestNg, testng),
            [case(("t", "c", "a"), Outcome::Failed, 3_000_000, "no")]
        );
        let trx = r#"<TestRun xmlns="http://microsoft.com/schemas/VisualStudio/TeamTest/2010"><Results>
            <UnitTestResult testName="a" outcome="Failed" duration="00:01:01.5"><Output><ErrorInfo><Message>no</Message>
            </ErrorInfo></Output></UnitTestResult></Results></TestRun>"#;
        assert_eq!(
            cases(Format::VisualStudio, trx),
            [case(("", "", "a"), Outcome::Failed, 61_500_000_000, "no")]
        );
        let cucumber = r#"[{"name": "f", "elements": [{"type": "background", "name": "x"},
            {"type": "scenario", "name": "a",
            "steps": [{"result": {"status": "passed", "duration": 5}},
                      {"result": {"status": "failed", "duration": 6, "error_message": "no"}},
                      {"result": {"status": "skipped"}}]}]}]"#;
        assert_eq!(
            cases(Format::Cucumber, cucumber),
            [case(("f", "", "a"), Outcome::Failed, 11, "no")]
        );
    }

    #[test]
    fn coverage_is_read_in_every_format() {
        let clover = r#"<coverage><project><file name="a.c" path="/s/a.c"><metrics statements="10" coveredstatements="7"
            conditionals="4" coveredconditionals="1"/></file></project></coverage>"#;
        let jacoco = r#"<!DOCTYPE report PUBLIC "-//JACOCO//DTD Report 1.1//EN" "report.dtd"><report><package name="p">
            <sourcefile name="A.java"><counter type="LINE" missed="3" covered="7"/>
            <counter type="BRANCH" missed="3" covered="1"/></sourcefile></package></report>"#;
        let line = r#"<line number="1" hits="1"/><line number="2" hits="0" condition-coverage="25% (1/4)"/>"#;
        let cobertura = format!(
            r#"<coverage><classes><class filename="a.py"><lines>{line}</lines></class>
            <class filename="a.py"><lines>{line}</lines></class></classes></coverage>"#
        );
        let simplecov = r#"{"RSpec": {"coverage": {"a.rb": {"lines": [1, null, 0],
            "branches": {"if": {"then": 1, "else": 0}}}, "b.rb": [2, 2]}}}"#;
        let of = |path: &str, lines, branches| Coverage { path: path.to_owned(), lines, branches };
        for (format, text, expected) in [
            (Format::Clover, clover, vec![of("/s/a.c", (7, 3), (1, 3))]),
            (Format::Jacoco, jacoco, vec![of("p/A.java", (7, 3), (1, 3))]),
            (Format::Cobertura, &cobertura, vec![of("a.py", (2, 2), (2, 6))]),
            (
                Format::SimpleCov,
                simplecov,
                vec![of("a.rb", (1, 1), (1, 1)), of("b.rb", (2, 0), (0, 0))],
            ),
        ] {
            assert_eq!(read(format, "f", text).unwrap().coverage, expected, "{format:?}");
        }
    }

    #[test]
    fn what_means_harm_is_refused() {
        let bomb = r#"<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
            <!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
            <!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">]><a>&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;</a>"#;
        let _ = read(Format::Junit, "f", bomb);
        let deep = "<testcase><failure>".repeat(100_000);
        assert!(read(Format::Junit, "f", &deep).is_err());
        let ends = "</failure></testcase>".repeat(100_000);
        let _ = read(Format::Junit, "f", &format!("{deep}{ends}"));
        assert!(read(Format::Cucumber, "f", &"[".repeat(200_000)).is_err());
        let outside =
            r#"<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><testcase name="&x;"/>"#;
        assert!(read(Format::Junit, "f", outside).is_err());
    }

    proptest! {
        #[test]
        fn anything_at_all_may_be_in_a_file(text in ".{0,400}", xml in XML) {
            for format in FORMATS {
                let format = Format::of(format).unwrap();
                let _ = read(format, "f", &text);
                let _ = read(format, "f", &xml);
            }
        }
    }
}
