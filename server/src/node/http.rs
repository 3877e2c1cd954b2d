//! A party's HTTP: `/client`, upgraded to a client's WebSocket, `/healthz`, and the page if this process hosts one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use selkie::client::message::{MAX_MESSAGE, SUBPROTOCOL};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role as End;

use crate::link::{HttpStream, socket_config};

use super::{Node, client, hex};

/// What is answered.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Serves clients' connections.
pub(crate) async fn serve(node: Arc<Node>, mut clients: mpsc::Receiver<HttpStream>) {
    while let Some(stream) = clients.recv().await {
        let limit = node.cluster.limits.handshake();
        let shared = node.clone();
        node.spawn(connection(stream, limit, move |request| answer(shared.clone(), request)));
    }
}

/// Serves one connection.
pub(crate) async fn connection<S, F, A>(stream: S, limit: Duration, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a client's connection ended");
    }
}

/// A short answer in plain text.
pub(crate) fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

async fn answer(node: Arc<Node>, request: Request<Incoming>) -> Answer {
    match request.uri().path() {
        "/client" => upgrade(node, request),
        "/healthz" if matches!(*request.method(), Method::GET | Method::HEAD) => health(&node),
        _ => match &node.page {
            Some(page) => page.answer(&request),
            None => text(StatusCode::NOT_FOUND, "Here are /client, a WebSocket, and /healthz."),
        },
    }
}

/// Alive; and how things stand, for people.
fn health(node: &Node) -> Answer {
    let era = node.current_era();
    let models: Vec<_> = node
        .models()
        .iter()
        .map(|model| {
            let ready = era.as_ref().is_some_and(|era| node.serves(era, model));
            json!({
                "name": model.name, "protocol": model.protocol().name(), "plan": hex(&model.spec.plan), "ready": ready,
                "ephemeral": model.held_by.is_some(),
            })
        })
        .collect();
    let missing: Vec<_> = node
        .role
        .others()
        .into_iter()
        .filter_map(|other| node.links.link(other).err())
        .map(|e| e.to_string())
        .collect();
    let body = json!({
        "schema": 1,
        "role": node.role.name(),
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": era.as_ref().map(|era| hex(era.epoch.as_bytes())),
        "missing": missing,
        "models": models,
    });
    let mut answer = text(StatusCode::OK, &body.to_string());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn upgrade(node: Arc<Node>, mut request: Request<Incoming>) -> Answer {
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let websocket = has(header::UPGRADE, "websocket") && has(header::SEC_WEBSOCKET_VERSION, "13");
    let Some(key) = key.filter(|_| websocket && request.method() == Method::GET) else {
        return text(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket.");
    };
    let Ok(key) = HeaderValue::from_str(&key) else {
        return text(StatusCode::BAD_REQUEST, "The WebSocket's key cannot be read.");
    };
    if !has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let what = format!("The WebSocket's subprotocol must be {SUBPROTOCOL}: use the same release of selkie.");
        return text(StatusCode::BAD_REQUEST, &what);
    }
    let upgrading = hyper::upgrade::on(&mut request);
    let task_node = node.clone();
    node.spawn(async move {
        if let Ok(upgraded) = upgrading.await {
            let config = socket_config(MAX_MESSAGE);
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), End::Server, Some(config)).await;
            client::converse(task_node, socket).await;
        }
    });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    answer
}
