//! How a repository is named from outside.

use crate::{Ecr, model::Place};

/// What ECR's names look like on AWS.
const AWS_INFIX: &str = ".dkr.ecr.";
const AWS_SUFFIX: &str = ".amazonaws.com";

impl Ecr {
    /// `HOST:PORT/ACCOUNT/REGION/NAME`.
    pub(crate) fn uri(&self, place: &Place) -> String {
        format!("{}/{}/{}", self.host, place.realm, place.name)
    }

    /// The repository that `registry/repository` of an image's name means, if it is one of ours.
    pub(crate) fn place(&self, registry: &str, repository: &str) -> Option<Place> {
        if let Some(realm) = aws_realm(registry) {
            return Some(Place { realm, name: repository.to_owned() });
        }
        let ours = registry == self.host || registry == format!("localhost:{}", self.port);
        if ours { place(repository) } else { None }
    }
}

/// `ACCOUNT.dkr.ecr.REGION.amazonaws.com` as `ACCOUNT/REGION`.
pub(crate) fn aws_realm(host: &str) -> Option<String> {
    let (account, rest) = host.split_once(AWS_INFIX)?;
    let region = rest.strip_suffix(AWS_SUFFIX)?;
    (is_account(account) && is_region(region)).then(|| format!("{account}/{region}"))
}

/// `ACCOUNT/REGION/NAME`, read.
pub(crate) fn place(path: &str) -> Option<Place> {
    let mut parts = path.splitn(3, '/');
    let (account, region, name) = (parts.next()?, parts.next()?, parts.next()?);
    let valid = is_account(account) && is_region(region) && !name.is_empty();
    valid.then(|| Place { realm: format!("{account}/{region}"), name: name.to_owned() })
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_region(text: &str) -> bool {
    let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (1..=32).contains(&text.len()) && letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours() {
        let read = place("123456789012/eu-west-1/team/app").unwrap();
        assert_eq!(
            (read.account(), read.region(), &*read.name),
            ("123456789012", "eu-west-1", "team/app")
        );
        assert_eq!(read.arn(), "arn:aws:ecr:eu-west-1:123456789012:repository/team/app");
        for odd in
            ["", "app", "123/eu-west-1/app", "123456789012/EU/app", "123456789012/eu-west-1/"]
        {
            assert!(place(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn names_of_aws() {
        let realm = |host: &str| aws_realm(host);
        let host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        assert_eq!(realm(host).as_deref(), Some("123456789012/eu-west-1"));
        assert_eq!(realm("dkr.ecr.eu-west-1.amazonaws.com"), None);
        assert_eq!(realm("public.ecr.aws"), None);
    }
}
