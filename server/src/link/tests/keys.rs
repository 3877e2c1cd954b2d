use tokio::io::{AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use super::super::handshake::{self, End, Knowns, Terms};
use super::super::tls;
use super::*;

async fn refusal(listener: &mut Listener) -> String {
    match soon(LONG, listener.accept()).await {
        Some(Accepted::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_acceptor_with_the_wrong_key_is_refused_and_both_know_why() {
    let trial = Trial::new();
    let mut listener = trial.listen(Role::Server1).await;
    let expected = Identity::generate().unwrap();
    let mistaken = trial.believing(Role::Server1, &expected);
    let error = dial(&mistaken, &trial.me(Role::Server0), Role::Server1).await.unwrap_err();
    let real = trial.identities[1].public();
    assert!(
        matches!(&error, LinkError::WrongKey { expected: e, got, .. }
            if *e == expected.public() && *got == real),
        "{error}"
    );
    let refusal = refusal(&mut listener).await;
    for part in [
        &format!("expected server1 with the key {}", expected.public())[..],
        &format!("this is server1 with the key {real}"),
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }
}

#[tokio::test]
async fn a_dialer_with_the_wrong_key_is_refused_and_both_know_why() {
    let trial = Trial::new();
    let mut listener = trial.listen(Role::Server1).await;
    let stranger = Identity::generate().unwrap();
    let me = Me::new(Role::Server0, stranger.clone()).unwrap();
    let error = dial(&trial.cluster(), &me, Role::Server1).await.unwrap_err();
    assert!(matches!(error, LinkError::Refused { .. }), "{error}");
    let error = error.to_string();
    let shown = stranger.public().to_string();
    assert!(error.contains("server1 at 127.0.0.1") && error.contains(&shown), "{error}");
    let refusal = refusal(&mut listener).await;
    let pinned = format!("server0 {}", trial.identities[0].public());
    assert!(refusal.contains(&shown) && refusal.contains(&pinned), "{refusal}");
}

#[tokio::test]
async fn a_key_is_good_for_its_own_role_only() {
    let trial = Trial::new();
    let mut listener = trial.listen(Role::Server1).await;
    // A deployer, whom TLS lets in, calls itself server0.
    let me = Me::new(Role::Server0, trial.deployer.clone()).unwrap();
    let error = dial(&trial.cluster(), &me, Role::Server1).await.unwrap_err().to_string();
    assert!(error.contains("it takes this process for deployer") && error.contains("this is server0"), "{error}");
    let refusal = refusal(&mut listener).await;
    assert!(refusal.contains("it says that it is server0") && refusal.contains("TLS showed deployer"), "{refusal}");
    // As what it is, it is welcome.
    let me = Me::deployer(trial.deployer.clone()).unwrap();
    let cluster = trial.cluster();
    let (link, accepted) = tokio::join!(dial(&cluster, &me, Role::Server1), listener.accept());
    assert!(link.is_ok());
    let Some(Accepted::Party(link)) = accepted else { panic!("{accepted:?}") };
    assert_eq!(link.peer(), Peer::Deployer(trial.deployer.public()));
}

#[tokio::test]
async fn the_right_key_at_the_wrong_address_is_named() {
    let trial = Trial::new();
    let mut listener = trial.listen(Role::Server1).await;
    let wrong = format!("\"{}\"", trial.cluster().party(Role::Server1).address);
    let swapped = Trial {
        text: trial
            .text
            .replace(&format!("\"{}\"", trial.cluster().party(Role::CryptoProducer).address), "\"127.0.0.1:1\"")
            .replace(&wrong, "\"127.0.0.1:2\"")
            .replace("\"127.0.0.1:1\"", &wrong),
        identities: trial.identities.clone(),
        deployer: trial.deployer.clone(),
        frame_bytes: MAX_FRAME_BYTES,
    };
    let error = dial(&swapped.cluster(), &trial.me(Role::Server0), Role::CryptoProducer).await.unwrap_err();
    assert!(matches!(error, LinkError::WrongKey { .. }), "{error}");
    let refusal = refusal(&mut listener).await;
    assert!(refusal.contains("expected crypto-producer") && refusal.contains("this is server1"), "{refusal}");
}

#[tokio::test]
async fn party_links_demand_a_certificate_and_clients_need_none() {
    let trial = Trial::new();
    let mut listener = trial.listen(Role::Server1).await;
    let party = trial.cluster().party(Role::Server1).clone();
    // A caller without a certificate that asks for a party link.
    let mut config = (*tls::dialer(None, party.key).unwrap()).clone();
    config.alpn_protocols = vec![tls::PARTY.to_vec()];
    let tcp = TcpStream::connect((party.address.host(), party.address.port())).await.unwrap();
    let name = tls::expectation(Role::Server1, &party.key).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let refusal = refusal(&mut listener).await;
    assert!(refusal.contains("no certificates"), "{refusal}");
    // The same caller as a client.
    let cluster = trial.cluster();
    let (client, accepted) = tokio::join!(dial_client(&cluster, Role::Server1), listener.accept());
    assert!(client.unwrap().is_secure());
    assert!(matches!(accepted, Some(Accepted::Http(s)) if s.is_secure()));
    // And as one that pins another key.
    let mistaken = trial.believing(Role::Server1, &Identity::generate().unwrap());
    let error = dial_client(&mistaken, Role::Server1).await.unwrap_err();
    assert!(matches!(error, LinkError::WrongKey { .. }), "{error}");
}

/// Both ends of a handshake without TLS beneath, bound to what each believes TLS to be, and each
/// with the key it has and the key it expects.
async fn agree(
    bindings: [[u8; 32]; 2],
    keys: [&Identity; 2],
    expected: [&Identity; 2],
) -> [Result<handshake::Agreed, LinkError>; 2] {
    let (near, far) = duplex(1 << 16);
    let mut near = WebSocketStream::from_raw_socket(near, Side::Client, None).await;
    let mut far = WebSocketStream::from_raw_socket(far, Side::Server, None).await;
    let knowns = |i: usize| Knowns {
        end: [End::Dialer, End::Acceptor][i],
        identity: keys[i],
        me: Role::ALL[i].into(),
        peer: Role::ALL[1 - i].into(),
        peer_key: expected[1 - i].public(),
        address: "there",
        nonce: EpochNonce([7; 32]),
        terms: Terms { frame_bytes: 65_536, window_bytes: 1 << 20 },
        binding: bindings[i],
    };
    let (dialer, acceptor) = (knowns(0), knowns(1));
    let (a, b) = tokio::join!(handshake::run(&mut near, &dialer), handshake::run(&mut far, &acceptor));
    [a, b]
}

#[tokio::test]
async fn the_signed_handshake_stands_without_tls() {
    let [a, b, c] = std::array::from_fn(|_| Identity::generate().unwrap());
    let [x, y] = agree([[1; 32]; 2], [&a, &b], [&a, &b]).await;
    assert_eq!(x.unwrap().seed.as_bytes(), y.unwrap().seed.as_bytes());
    // Relayed from one TLS connection into another.
    for result in agree([[1; 32], [2; 32]], [&a, &b], [&a, &b]).await {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("signature"), "{error}");
    }
    // Another key than TLS showed.
    for result in agree([[1; 32]; 2], [&a, &c], [&a, &b]).await {
        assert!(result.is_err());
    }
}
