//! Cookies that keep a client with its group and its target.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/sticky-sessions.html>

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};
use std::time::Duration;

/// Names a target.
pub(crate) const TARGET: &str = "AWSALB";
/// Names a group.
pub(crate) const GROUP: &str = "AWSALBTG";

/// The value of a cookie that the client sent.
pub(crate) fn given<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The headers that give it to the client: one for its own pages, and one for those of other sites.
pub(crate) fn set(name: &str, value: &str, lasts: Duration) -> Vec<HeaderValue> {
    let age = lasts.as_secs();
    let own = format!("{name}={value}; Max-Age={age}; Path=/");
    let cors = format!("{name}CORS={value}; Max-Age={age}; Path=/; SameSite=None");
    [own, cors].into_iter().filter_map(|text| HeaderValue::try_from(text).ok()).collect()
}
