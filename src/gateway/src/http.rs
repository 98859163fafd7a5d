//! Health, metrics, the list of streams, and a page for people over HTTP/1.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the page for people ([`crate::page`]) |
//! | `/healthz`, `/readyz` | alive; whether a job would be taken |
//! | `/metrics` | Prometheus' text |
//! | `/v1/streams` | a list of [`StreamLine`](crate::streams::StreamLine) |
//! | `/v1/devices` | a list of [`DeviceLine`](crate::status::DeviceLine) |
//! | `/v1/status` | both and the gateway itself: [`Status`](crate::status::Status) |
//!
//! Invariant: nothing here changes anything; every answer is made from what is in memory, so that
//! a scrape can't wait on a disk or a worker.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::gateway::Context;
use crate::{page, status};

/// Connections at once: scrapers and a few curious people.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send a request's head, also on a connection it keeps.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// As `session`'s accept: after a failure the next would fail too.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PAGES: &str =
    "/, /healthz, /readyz, /metrics, /v1/streams, /v1/devices, /v1/status, /v1/capacity";

pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                warn!(%error, "can't accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let context = context.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answer(&request, &context);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_LIMIT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = connection.await {
                debug!(%error, "HTTP connection");
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, context: &Context) -> Answer {
    let path = request.uri().path();
    let is_answered = matches!(
        path,
        "/healthz"
            | "/readyz"
            | "/metrics"
            | "/v1/streams"
            | "/v1/devices"
            | "/v1/status"
            | "/v1/capacity"
    );
    if !is_answered && page::file(path).is_none() {
        return not_found(path);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let error = format!("{} is not possible here", request.method());
        let body = json!({ "error": error, "hint": "every page is for GET alone" });
        let mut answer = json(StatusCode::METHOD_NOT_ALLOWED, &body);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match path {
        "/healthz" => json(StatusCode::OK, &json!({ "status": "alive" })),
        "/readyz" => match context.readiness() {
            Ok(()) => {
                let warm = context.pool.warm();
                json(StatusCode::OK, &json!({ "status": "ready", "warm_workers": warm }))
            }
            Err(reason) => json(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({ "status": "not ready", "reason": reason }),
            ),
        },
        "/v1/capacity" => {
            let capacity = context.admission.capacity(&context.streams, &context.gpus.working());
            json(StatusCode::OK, &json!(capacity))
        }
        "/metrics" => match context.render_metrics() {
            Ok(text) => with_type(StatusCode::OK, prometheus::TEXT_FORMAT, text),
            Err(error) => json(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({ "error": error.to_string(), "hint": "this is a defect of the gateway" }),
            ),
        },
        "/v1/streams" => json(StatusCode::OK, &json!(context.streams.lines())),
        "/v1/devices" => json(StatusCode::OK, &json!(status::devices(context))),
        "/v1/status" => json(StatusCode::OK, &json!(status::status(context))),
        path => page::file(path).map_or_else(|| not_found(path), page::answer),
    }
}

fn not_found(path: &str) -> Answer {
    json(
        StatusCode::NOT_FOUND,
        &json!({ "error": format!("there is no {path}"), "hint": format!("there are {PAGES}") }),
    )
}

fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    with_type(status, "application/json", format!("{body}\n").into_bytes())
}

pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Film names are in what is answered; no browser is to guess a page into it.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
