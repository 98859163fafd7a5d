//! The page for people, at `/`: streams, GPUs, the gateway, and how the last streams ended.
//!
//! Plain files, embedded. They load nothing from elsewhere and fetch `/v1/status`; by relative names,
//! so that the page also works behind a proxy that serves it below a path.
//!
//! Invariant: names of films reach the document as text alone (`textContent`), and the content
//! security policy lets no script run but the page's own file.

use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
};

use crate::http::{Answer, with_type};

/// One of the page's files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    content_type: &'static str,
    text: &'static str,
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 3] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (REFERRER_POLICY, "no-referrer"),
    // A gateway that was updated serves another script to the same page.
    (CACHE_CONTROL, "no-cache"),
];

/// The file at that path.
pub(crate) fn file(path: &str) -> Option<File> {
    let (content_type, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "/page.css" => ("text/css; charset=utf-8", include_str!("page/page.css")),
        "/page.js" => ("text/javascript; charset=utf-8", include_str!("page/page.js")),
        "/icon.svg" => ("image/svg+xml", include_str!("page/icon.svg")),
        _ => return None,
    };
    Some(File { content_type, text })
}

pub(crate) fn answer(file: File) -> Answer {
    let mut answer = with_type(StatusCode::OK, file.content_type, file.text.into());
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
