//! The tasks that move a link's bytes, and how they notice that the other end is gone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::counted::Traffic;
use super::error::LinkError;
use super::frame::Frame;
use super::mux::{Next, Shared};
use super::tls;

/// An idle link says this often that it is alive.
pub(super) const BEAT: Duration = Duration::from_millis(300);
/// A peer from which not one byte came for this long is dead. With [`TICK`], less than 2 s.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);
/// How often silence is measured.
const TICK: Duration = Duration::from_millis(200);
/// How long a closed link may take to send what is queued.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a parting word may take.
const PARTING: Duration = Duration::from_millis(500);

/// Moves bytes until the link ends, and tells every channel why it did.
pub(super) async fn run<S>(socket: WebSocketStream<S>, traffic: Arc<Traffic>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let error = tokio::select! {
        error = write(&mut sink, &shared) => error,
        error = read(&mut stream, &shared) => error,
        error = watch(&traffic, &shared) => error,
    };
    if let LinkError::Misbehaved { what, .. } = &error {
        tracing::warn!(peer = %shared.peer, address = %shared.address, what, "link ended");
        let bye = Frame::Bye { reason: format!("you misbehaved: {what}") };
        let _ = timeout(PARTING, sink.send(Message::binary(bye.encode()))).await;
    }
    shared.die(error);
}

async fn write<S>(sink: &mut SplitSink<WebSocketStream<S>, Message>, shared: &Shared) -> LinkError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let result = match shared.next() {
            Next::Send(bytes) => sink.feed(Message::binary(bytes)).await,
            Next::Leave(reason) => {
                let bye = Frame::Bye { reason: reason.clone() };
                let _ = timeout(PARTING, async {
                    sink.send(Message::binary(bye.encode())).await?;
                    sink.close().await
                })
                .await;
                return LinkError::Local(format!("this process closed its link to {}: {reason}", shared.peer));
            }
            Next::Wait => match sink.flush().await {
                Ok(()) => match timeout(BEAT, shared.writable.notified()).await {
                    Ok(()) => Ok(()),
                    Err(_) => sink.feed(Message::binary(Frame::Beat.encode())).await,
                },
                error => error,
            },
        };
        if let Err(error) = result {
            return shared.gone(cause(error));
        }
    }
}

async fn read<S>(stream: &mut SplitStream<WebSocketStream<S>>, shared: &Shared) -> LinkError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let misbehaved = |what| LinkError::Misbehaved { peer: shared.peer, address: shared.address.clone(), what };
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(bytes))) => match shared.deliver(&bytes) {
                Ok(None) => {}
                Ok(Some(reason)) => return shared.gone(reason),
                Err(what) => return misbehaved(what),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => {
                return shared.gone("it closed the connection");
            }
            Some(Ok(_)) => return misbehaved("it sent text on a party link".to_owned()),
            Some(Err(error @ (WsError::Capacity(_) | WsError::Protocol(_) | WsError::Utf8(_))))
                if !is_reset(&error) =>
            {
                return misbehaved(error.to_string());
            }
            Some(Err(error)) => return shared.gone(cause(error)),
        }
    }
}

/// Measures silence in bytes, not messages: a long frame on a slow link is a sign of life.
async fn watch(traffic: &Traffic, shared: &Shared) -> LinkError {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut since, mut last) = (0, Instant::now(), Instant::now());
    let mut leaving = 0;
    loop {
        let now = ticks.tick().await;
        let received = traffic.received();
        // When this process itself was held up, the silence is not the peer's.
        let held_up = now.duration_since(last) > TICK * 3;
        if received != seen || held_up {
            (seen, since) = (received, now);
        }
        last = now;
        // What is queued may still leave, but not for ever.
        leaving += u32::from(shared.leaving());
        if TICK * leaving > DRAIN {
            return shared.gone("it did not read what was left for it");
        }
        if now.duration_since(since) >= SILENCE {
            return shared.gone(format!("nothing was heard of it for {} ms", SILENCE.as_millis()));
        }
    }
}

fn is_reset(error: &WsError) -> bool {
    use tokio_tungstenite::tungstenite::error::ProtocolError;
    matches!(error, WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))
}

fn cause(error: WsError) -> String {
    match error {
        WsError::Io(error) => match tls::explain(&error) {
            tls::Failure::Alert(alert) => format!("it ended TLS: {alert}"),
            tls::Failure::Other(cause) => cause,
            tls::Failure::NotPinned(_) => "it changed its key".to_owned(),
        },
        WsError::ConnectionClosed | WsError::AlreadyClosed => "it closed the connection".to_owned(),
        error if is_reset(&error) => "it closed the connection".to_owned(),
        error => error.to_string(),
    }
}
