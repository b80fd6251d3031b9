//! Answers of the load balancer's own.

use crate::{config::Action, matching, reply::Own};
use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};

const SERVER: HeaderValue = HeaderValue::from_static("awselb/2.0");

/// More than 30 addresses in X-Forwarded-For.
pub(crate) const TOO_MANY_FORWARDERS: StatusCode = match StatusCode::from_u16(463) {
    Ok(status) => status,
    Err(_) => panic!("463 is between 100 and 999"),
};

/// The targets do not speak what the client speaks.
pub(crate) const OTHER_PROTOCOL: StatusCode = match StatusCode::from_u16(464) {
    Ok(status) => status,
    Err(_) => panic!("464 is between 100 and 999"),
};

/// An error, as an Application Load Balancer shows it.
pub(crate) fn page(status: StatusCode) -> Response<Own> {
    let reason = status.canonical_reason().unwrap_or_default();
    let title = format!("{} {reason}", status.as_u16());
    let title = title.trim_end();
    let html = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n\
         </body>\r\n</html>\r\n"
    );
    own(status, "text/html", html.into())
}

/// A fixed response.
pub(crate) fn fixed(status: u16, content_type: &str, body: &str) -> Response<Own> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    own(status, content_type, Bytes::copy_from_slice(body.as_bytes()))
}

fn own(status: StatusCode, content_type: &str, body: Bytes) -> Response<Own> {
    let mut answer = Response::new(Own((!body.is_empty()).then_some(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::SERVER, SERVER);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    answer
}

/// Sends the client elsewhere.
pub(crate) fn redirect(
    action: &Action,
    parts: &Parts,
    scheme: &str,
    own_port: u16,
) -> Response<Own> {
    let Action::Redirect { status, protocol, host, port, path, query } = action else {
        return page(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let asked = matching::host(parts).unwrap_or_default();
    let own_port = own_port.to_string();
    let known = [
        ("#{protocol}", scheme),
        ("#{host}", &*asked),
        ("#{port}", &*own_port),
        ("#{path}", parts.uri.path().trim_start_matches('/')),
        ("#{query}", parts.uri.query().unwrap_or_default()),
    ];
    let fill = |text: &str| known.iter().fold(text.to_owned(), |t, (k, v)| t.replace(k, v));
    let (protocol, host, port) = (fill(protocol).to_lowercase(), fill(host), fill(port));
    let (path, query) = (fill(path), fill(query));
    let mark = if query.is_empty() { "" } else { "?" };
    let location = format!("{protocol}://{host}:{port}{path}{mark}{query}");
    let Ok(location) = HeaderValue::try_from(location) else {
        return page(StatusCode::BAD_REQUEST);
    };
    let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::FOUND);
    let mut answer = page(status);
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}
