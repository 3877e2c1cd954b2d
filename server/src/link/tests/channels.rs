use super::super::error::Peer;
use super::super::handshake::{End, Terms};
use super::super::mux::{Next, Shared};
use super::*;

#[tokio::test]
async fn frames_of_many_channels_arrive_whole_and_in_order() {
    let trial = Trial::new();
    let (a, b, _listener) = trial.pair().await;
    assert_eq!(a.peer(), Peer::Party(Role::Server1));
    assert_eq!(b.peer(), Peer::Party(Role::Server0));
    let mut pairs = Vec::new();
    for i in 0..8 {
        // Either side opens.
        pairs.push(if i % 2 == 0 {
            channel(&a, &b).await
        } else {
            let (theirs, ours) = channel(&b, &a).await;
            (ours, theirs)
        });
    }
    let lengths = [0, 1, 125, 126, 1000, 65_535, 65_536];
    for (i, (x, y)) in (0..).zip(&mut pairs) {
        for length in lengths {
            x.send(vec![i; length]).await.unwrap();
            y.send(vec![i + 100; length]).await.unwrap();
        }
    }
    for (i, (x, y)) in (0..).zip(&mut pairs) {
        for length in lengths {
            assert_eq!(y.recv().await.unwrap(), vec![i; length]);
            assert_eq!(x.recv().await.unwrap(), vec![i + 100; length]);
        }
        let payload = lengths.iter().sum::<usize>() as u64;
        let (sent, received) = (x.bytes(), y.bytes());
        assert_eq!(sent.payload_sent, payload);
        assert_eq!(received.payload_received, payload);
        assert_eq!(sent.wire_sent, received.wire_received);
        assert_eq!(sent.wire_received, received.wire_sent);
        assert!(sent.wire_sent > payload + 27 * lengths.len() as u64);
    }
    let counted: u64 = pairs.iter().map(|(x, _)| x.bytes().wire_sent).sum();
    // What was counted for each channel is what crossed the socket, but for handshakes, beats,
    // and the records that messages shared.
    let really = a.traffic().0;
    assert!(really.abs_diff(counted) < counted / 50, "{really} and {counted}");
}

#[tokio::test]
async fn both_ends_share_a_seed_that_no_other_link_has() {
    let trial = Trial::new();
    let (a, b, _listener) = trial.pair().await;
    assert_eq!(a.pair_seed().as_bytes(), b.pair_seed().as_bytes());
    let ((ours, theirs), (others, mine)) = (a.epoch_nonces(), b.epoch_nonces());
    assert_eq!((ours, theirs), (mine, others));
    let (cluster, me) = (trial.cluster(), trial.me(Role::Server0));
    let c = dial(&cluster, &me, Role::Server1).await.unwrap();
    assert_ne!(a.pair_seed().as_bytes(), c.pair_seed().as_bytes());
}

#[tokio::test]
async fn a_dropped_channel_ends_after_its_frames() {
    let trial = Trial::new();
    let (a, b, _listener) = trial.pair().await;
    let (x, mut y) = channel(&a, &b).await;
    for i in 0..20 {
        x.send(vec![i; 60_000]).await.unwrap();
    }
    // The link goes with its last handle, and still everything arrives.
    drop((x, a));
    for i in 0..20 {
        assert_eq!(y.recv().await.unwrap()[0], i);
    }
    let error = soon(LONG, y.recv()).await.unwrap_err();
    assert!(matches!(error, LinkError::Closed { .. } | LinkError::Gone { .. }), "{error}");
    let gone = soon(LONG, b.closed()).await.to_string();
    assert!(gone.contains("server0") && gone.contains("no longer needed"));
}

#[tokio::test]
async fn a_failed_channel_tells_its_peer_why() {
    let trial = Trial::new();
    let (a, b, _listener) = trial.pair().await;
    let (x, mut y) = channel(&a, &b).await;
    let (mut p, q) = channel(&a, &b).await;
    x.fail("program hashes differ");
    let error = soon(LONG, y.recv()).await.unwrap_err();
    assert_eq!(error.to_string(), "server0 ended this channel: program hashes differ");
    assert!(y.send(vec![]).await.is_err());
    let (sender, mut receiver) = q.split();
    let waiting = tokio::spawn(async move { receiver.recv().await });
    tokio::task::yield_now().await;
    sender.fail("enough");
    assert!(soon(LONG, waiting).await.unwrap().is_err());
    assert!(soon(LONG, p.recv()).await.is_err());
}

#[tokio::test]
async fn a_frame_too_long_is_the_callers_fault() {
    let trial = Trial::new().with_frames(2048);
    let (a, b, _listener) = trial.pair().await;
    let (x, mut y) = channel(&a, &b).await;
    let error = x.send(vec![0; 2049]).await.unwrap_err();
    assert!(matches!(error, LinkError::TooLong { bytes: 2049, limit: 2048 }));
    assert!(a.open_channel(vec![0; 2049]).is_err());
    x.send(vec![0; 2048]).await.unwrap();
    assert_eq!(y.recv().await.unwrap().len(), 2048);
}

#[tokio::test]
async fn a_slow_reader_holds_back_its_own_channel_only() {
    let trial = Trial::new().with("window_bytes = 4194304", "window_bytes = 131072");
    let (a, b, _listener) = trial.pair().await;
    let (slow, mut reader) = channel(&a, &b).await;
    let (other, mut other_reader) = channel(&a, &b).await;
    let stuck = tokio::spawn(async move {
        for i in 0..50u8 {
            slow.send(vec![i; 60_000]).await.unwrap();
        }
        slow
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!stuck.is_finished());
    // Two frames fill the window; nothing more has left.
    assert_eq!(reader.bytes().payload_received, 120_000);
    for i in 0..20 {
        other.send(vec![i; 60_000]).await.unwrap();
        let frame = soon(LONG, other_reader.recv()).await.unwrap();
        assert_eq!(frame[0], i);
    }
    for i in 0..50 {
        assert_eq!(soon(LONG, reader.recv()).await.unwrap()[0], i);
    }
    soon(LONG, stuck).await.unwrap();
}

#[tokio::test]
async fn a_peer_opens_so_many_sessions_and_no_more() {
    let trial = Trial::new().with("sessions_per_peer = 64", "sessions_per_peer = 2");
    let (a, b, _listener) = trial.pair().await;
    let (_x, y) = channel(&a, &b).await;
    let (_p, _q) = channel(&a, &b).await;
    let mut third = a.open_channel(vec![]).unwrap();
    let error = soon(LONG, third.recv()).await.unwrap_err().to_string();
    assert!(error.contains("2 sessions are open"), "{error}");
    drop(y);
    channel(&a, &b).await;
}

fn terms() -> Terms {
    Terms { frame_bytes: 65_536, window_bytes: 1 << 20 }
}

#[test]
fn channels_take_turns() {
    let shared = Shared::new(Role::Server1.into(), String::new(), End::Dialer, (terms(), terms()), 9);
    let ids: Vec<u32> = (0..3).map(|_| shared.open(vec![]).unwrap()).collect();
    for (id, frames) in ids.iter().zip([6, 2, 3]) {
        for _ in 0..frames {
            assert!(shared.send(*id, vec![0]).unwrap().is_none());
        }
    }
    let mut order = Vec::new();
    while let Next::Send(bytes) = shared.next() {
        if bytes[0] == 2 {
            order.push(bytes[1]);
        }
    }
    assert_eq!(order, [1, 3, 5, 1, 3, 5, 1, 5, 1, 1, 1]);
}
