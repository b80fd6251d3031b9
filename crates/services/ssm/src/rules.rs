//! What names, labels and values may be.
//! <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html>

use crate::faults;
use wire::Fault;

/// The deepest hierarchy.
const MOST_LEVELS: usize = 15;
/// The longest ARN, in characters; a name may fill what its ARN leaves.
const LONGEST_ARN: usize = 1011;
/// The largest value of the standard tier, in bytes.
pub(crate) const STANDARD_BYTES: usize = 4096;
/// The largest value of the advanced tier, in bytes.
pub(crate) const ADVANCED_BYTES: usize = 8192;
/// The most versions that are kept.
pub(crate) const MOST_VERSIONS: usize = 100;
/// The most labels on one version.
pub(crate) const MOST_LABELS: usize = 10;
/// The most tags on one parameter.
pub(crate) const MOST_TAGS: usize = 50;

fn begins_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_')
}

/// Whether a new parameter may have this name, whose ARN is `arn`.
pub(crate) fn name(name: &str, arn: &str) -> Result<(), Fault> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if begins_with(bare, "aws") {
        let message = format!("No access to reserved parameter name: {name}.");
        return Err(Fault::new("AccessDeniedException", message));
    }
    let parts: Vec<&str> = bare.split('/').collect();
    if begins_with(bare, "ssm")
        || parts.iter().any(|part| part.is_empty() || !part.chars().all(is_letter))
    {
        return Err(faults::invalid(
            "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can \
             consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, \
             numbers and the following 3 symbols .-_",
        ));
    }
    if parts.len() > 1 && !name.starts_with('/') {
        return Err(faults::invalid("Parameter name must be a fully qualified name."));
    }
    if parts.len() > MOST_LEVELS {
        return Err(Fault::new(
            "HierarchyLevelLimitExceededException",
            format!("A hierarchy can have a maximum of {MOST_LEVELS} levels."),
        ));
    }
    if arn.len() > LONGEST_ARN {
        return Err(faults::invalid(format!(
            "The parameter's name is too long: its ARN can have at most {LONGEST_ARN} characters."
        )));
    }
    Ok(())
}

/// Whether a version may have this label.
pub(crate) fn is_label(label: &str) -> bool {
    label.chars().all(is_letter)
        && !label.starts_with(|first: char| first.is_ascii_digit())
        && !begins_with(label, "aws")
        && !begins_with(label, "ssm")
}

/// The tier that `value` gets: what was asked for, or what it needs, or what the parameter had before.
pub(crate) fn tier(
    asked: Option<&str>,
    before: Option<&str>,
    bytes: usize,
    has_policies: bool,
) -> Result<&'static str, Fault> {
    let needs_advanced = bytes > STANDARD_BYTES || has_policies;
    let advanced = match asked.or(before) {
        Some("Advanced") => true,
        Some("Intelligent-Tiering") => needs_advanced || before == Some("Advanced"),
        _ => false,
    };
    if !advanced && before == Some("Advanced") {
        return Err(faults::invalid(
            "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the \
             advanced-parameter tier to the standard-parameter tier. If necessary, you can delete the advanced \
             parameter and recreate it as a standard parameter.",
        ));
    }
    if !advanced && bytes > STANDARD_BYTES {
        return Err(faults::invalid(format!(
            "Standard tier parameters support a maximum parameter value of {STANDARD_BYTES} characters. To create \
             a larger parameter value, upgrade the parameter to use the advanced-parameter tier. For more \
             information, see https://docs.aws.amazon.com/systems-manager/latest/userguide/\
             parameter-store-advanced-parameters.html"
        )));
    }
    if !advanced && has_policies {
        return Err(faults::invalid(
            "Parameter policies are only supported with the advanced-parameter tier.",
        ));
    }
    if bytes > ADVANCED_BYTES {
        return Err(faults::invalid(format!(
            "Advanced tier parameters support a maximum parameter value of {ADVANCED_BYTES} characters."
        )));
    }
    Ok(if advanced { "Advanced" } else { "Standard" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let code = |text: &str| name(text, "arn").err().map(|fault| fault.code.into_owned());
        for good in ["a", "/a", "/a/b.c-d_e", "/app/aws/ssm", &"/x".repeat(15)] {
            assert_eq!(code(good), None, "{good}");
        }
        for reserved in ["aws", "/AWS/x", "aws-x"] {
            assert_eq!(code(reserved).as_deref(), Some("AccessDeniedException"), "{reserved}");
        }
        for bad in ["ssm", "/SSM/x", "a/b", "/a//b", "/a/", "/", "a b", "ä", "/a:b"] {
            assert_eq!(code(bad).as_deref(), Some("ValidationException"), "{bad}");
        }
        let deep = code(&"/x".repeat(16));
        assert_eq!(deep.as_deref(), Some("HierarchyLevelLimitExceededException"));
        assert!(name("a", &"x".repeat(1012)).is_err());
    }

    #[test]
    fn labels() {
        assert!(["prod", "a.b-c_d", "x1"].iter().all(|label| is_label(label)));
        assert!(["1x", "aws-x", "SSM", "a b", "ü"].iter().all(|label| !is_label(label)));
    }

    #[test]
    fn tiers() {
        assert_eq!(tier(None, None, 4096, false).unwrap(), "Standard");
        assert!(tier(None, None, 4097, false).is_err());
        assert_eq!(tier(Some("Intelligent-Tiering"), None, 4097, false).unwrap(), "Advanced");
        assert_eq!(tier(Some("Intelligent-Tiering"), None, 1, true).unwrap(), "Advanced");
        assert_eq!(tier(Some("Intelligent-Tiering"), None, 1, false).unwrap(), "Standard");
        assert_eq!(tier(None, Some("Advanced"), 1, false).unwrap(), "Advanced");
        assert!(tier(Some("Standard"), Some("Advanced"), 1, false).is_err());
        assert!(tier(Some("Advanced"), None, 8193, false).is_err());
        assert!(tier(Some("Standard"), None, 1, true).is_err());
    }
}
