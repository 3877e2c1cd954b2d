use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::super::dial::{PartySocket, socket};
use super::super::frame::Frame;
use super::super::handshake::{self, End, Knowns};
use super::*;

/// A server0 with the right key that writes what it likes, and server1's end of the link.
async fn hostile(trial: &Trial) -> (PartySocket, Link, Listener) {
    let mut listener = trial.listen(Role::Server1).await;
    let (cluster, me) = (trial.cluster(), trial.me(Role::Server0));
    let dial = async {
        let (mut socket, _, binding) = socket(&cluster, &me, Role::Server1).await.unwrap();
        let knowns = Knowns {
            end: End::Dialer,
            identity: &me.identity,
            me: me.name,
            peer: Role::Server1.into(),
            peer_key: cluster.party(Role::Server1).key,
            address: "there",
            nonce: me.nonce,
            terms: terms(&cluster.limits),
            binding,
        };
        handshake::run(&mut socket, &knowns).await.unwrap();
        socket
    };
    let (socket, accepted) = tokio::join!(dial, listener.accept());
    let Some(Accepted::Party(link)) = accepted else { panic!("{accepted:?}") };
    (socket, link, listener)
}

async fn send(socket: &mut PartySocket, frame: Frame) {
    let message = Message::binary(frame.encode());
    socket.send(message).await.unwrap();
}

async fn open(socket: &mut PartySocket, link: &Link, id: u32) -> Channel {
    send(socket, Frame::Open { id, hello: vec![] }).await;
    soon(LONG, link.accept()).await.unwrap().1
}

/// Sends what should cost channel 1 its life, and sees that channel 3 and the link live on.
async fn costs_one_channel(frames: Vec<Frame>, says: &str) {
    let trial = Trial::new().with("window_bytes = 4194304", "window_bytes = 131072").with_frames(60_000);
    let (mut socket, link, _listener) = hostile(&trial).await;
    let mut bad = open(&mut socket, &link, 1).await;
    let mut good = open(&mut socket, &link, 3).await;
    for frame in frames {
        send(&mut socket, frame).await;
    }
    let payload = b"still here".to_vec();
    send(&mut socket, Frame::Data { id: 3, payload }).await;
    assert_eq!(soon(LONG, good.recv()).await.unwrap(), b"still here");
    let error = loop {
        if let Err(error) = soon(LONG, bad.recv()).await {
            break error.to_string();
        }
    };
    assert!(error.contains("server0 at 127.0.0.1") && error.contains(says), "{error}");
    // The hostile peer is told, too.
    let told = loop {
        let message = soon(LONG, socket.next()).await.unwrap().unwrap();
        if let Frame::End { id: 1, reason } = Frame::decode(&message.into_data()).unwrap() {
            break reason;
        }
    };
    assert!(told.contains(says), "{told}");
    assert!(link.death().is_none());
}

/// Sends what should cost the link its life.
async fn costs_the_link(message: Message, says: &str) {
    let trial = Trial::new();
    let (mut socket, link, mut listener) = hostile(&trial).await;
    let mut channel = open(&mut socket, &link, 1).await;
    socket.feed(message).await.unwrap();
    let _ = socket.flush().await;
    let error = soon(LONG, channel.recv()).await.unwrap_err().to_string();
    assert!(error.contains("server0 at 127.0.0.1") && error.contains(says), "{error}");
    // Nobody else is disturbed: the party takes the next link.
    let (cluster, me) = (trial.cluster(), trial.me(Role::CryptoProducer));
    let (next, _) = tokio::join!(dial(&cluster, &me, Role::Server1), listener.accept());
    assert!(next.is_ok());
}

fn data(bytes: usize) -> Frame {
    Frame::Data { id: 1, payload: vec![0; bytes] }
}

#[tokio::test]
async fn a_frame_over_the_limit_costs_its_channel() {
    costs_one_channel(vec![data(60_001)], "60001 bytes is longer than 60000").await;
}

#[tokio::test]
async fn more_than_a_window_costs_the_channel() {
    costs_one_channel(vec![data(60_000); 3], "window").await;
    costs_one_channel(vec![data(0); 131_072 / 64 + 1], "window").await;
}

#[tokio::test]
async fn credit_out_of_nothing_costs_the_channel() {
    let credit = Frame::Credit { id: 1, bytes: u32::MAX };
    costs_one_channel(vec![credit], "more credit").await;
}

#[tokio::test]
async fn a_message_over_any_limit_costs_the_link() {
    costs_the_link(Message::binary(vec![2; 140_000]), "too long").await;
}

#[tokio::test]
async fn malformed_messages_cost_the_link() {
    costs_the_link(Message::binary(vec![]), "shorter than a header").await;
    costs_the_link(Message::binary(vec![77, 1, 0, 0, 0]), "unknown kind 77").await;
    costs_the_link(Message::text("hello"), "text").await;
    let twice = Frame::Open { id: 1, hello: vec![] };
    costs_the_link(Message::binary(twice.encode()), "not its to open").await;
    let ours = Frame::Open { id: 2, hello: vec![] };
    costs_the_link(Message::binary(ours.encode()), "not its to open").await;
}

#[tokio::test]
async fn a_frame_for_an_unknown_channel_is_answered_and_harms_nobody() {
    let trial = Trial::new();
    let (mut socket, link, _listener) = hostile(&trial).await;
    let mut good = open(&mut socket, &link, 1).await;
    let payload = vec![1];
    send(&mut socket, Frame::Data { id: 99, payload }).await;
    let payload = vec![2];
    send(&mut socket, Frame::Data { id: 1, payload }).await;
    assert_eq!(soon(LONG, good.recv()).await.unwrap(), [2]);
    let reason = loop {
        let message = soon(LONG, socket.next()).await.unwrap().unwrap();
        if let Frame::End { id: 99, reason } = Frame::decode(&message.into_data()).unwrap() {
            break reason;
        }
    };
    assert_eq!(reason, "channel 99 was never opened");
    // A channel that was is another matter: what was under way when it closed is dropped.
    drop(good);
    send(&mut socket, data(1)).await;
    open(&mut socket, &link, 3).await;
    assert!(link.death().is_none());
}

#[tokio::test]
async fn a_killed_peer_ends_every_channel_at_once() {
    let trial = Trial::new();
    let (mut socket, link, _listener) = hostile(&trial).await;
    let mut channels = Vec::new();
    for id in [1, 3, 5] {
        channels.push(open(&mut socket, &link, id).await);
    }
    drop(socket);
    for channel in &mut channels {
        let error = soon(Duration::from_secs(2), channel.recv()).await.unwrap_err();
        assert!(matches!(error, LinkError::Gone { .. }), "{error}");
        let error = error.to_string();
        assert!(error.starts_with("server0 at 127.0.0.1:") && error.contains("went away"), "{error}");
        assert!(channel.send(vec![]).await.is_err());
    }
    assert!(link.open_channel(vec![]).is_err());
    assert!(link.accept().await.is_err());
}

#[tokio::test]
async fn a_silent_peer_is_noticed_within_two_seconds() {
    let trial = Trial::new();
    let (mut socket, link, _listener) = hostile(&trial).await;
    let mut channel = open(&mut socket, &link, 1).await;
    let waiting_to_send = async {
        // A whole window of frames, and then one that has to wait.
        while channel.send(vec![0; 60_000]).await.is_ok() {}
    };
    // It keeps the connection and says nothing, as a stopped process does.
    soon(Duration::from_millis(2000), waiting_to_send).await;
    let error = channel.recv().await.unwrap_err().to_string();
    assert!(error.contains("nothing was heard"), "{error}");
}

#[tokio::test]
async fn an_idle_link_stays() {
    let trial = Trial::new();
    let (a, b, _listener) = trial.pair().await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (x, mut y) = channel(&a, &b).await;
    x.send(vec![1]).await.unwrap();
    assert_eq!(y.recv().await.unwrap(), [1]);
}
