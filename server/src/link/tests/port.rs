use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;

async fn connect(trial: &Trial, role: Role) -> TcpStream {
    let address = trial.cluster().party(role).address.clone();
    TcpStream::connect((address.host(), address.port())).await.unwrap()
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let trial = Trial::new();
    let _first = trial.listen(Role::Server0).await;
    let error =
        Listener::bind(&trial.cluster(), Role::Server0, &trial.me(Role::Server0)).await.unwrap_err().to_string();
    let address = trial.cluster().party(Role::Server0).address.to_string();
    for part in [&address[..], "in use", "another selkie", "cluster.toml"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_named_with_address_and_remedy() {
    let trial = Trial::new();
    let error = dial(&trial.cluster(), &trial.me(Role::Server0), Role::Server1).await.unwrap_err().to_string();
    let address = trial.cluster().party(Role::Server1).address.to_string();
    for part in ["server1 at ", &address, "selkie server1 --config"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn plain_http_shares_the_port_with_party_links() {
    let trial = Trial::new();
    let (a, b, mut listener) = trial.pair().await;
    let mut client = connect(&trial, Role::Server1).await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let Some(Accepted::Http(mut server)) = soon(LONG, listener.accept()).await else { panic!("no client") };
    assert!(!server.is_secure());
    let mut request = [0; 16];
    server.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"GET / HTTP/1.1\r\n");
    server.write_all(b"HTTP/1.1 200 OK").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    channel(&a, &b).await;
}

#[tokio::test]
async fn callers_that_dawdle_or_babble_hold_up_nobody() {
    let trial = Trial::new().with("handshake_seconds = 10", "handshake_seconds = 1");
    let mut listener = trial.listen(Role::Server1).await;
    let _silent = connect(&trial, Role::Server1).await;
    let mut babbling = connect(&trial, Role::Server1).await;
    babbling.write_all(&[0x16; 100]).await.unwrap();
    let (cluster, me) = (trial.cluster(), trial.me(Role::Server0));
    let (mut linked, mut refused) = (false, Vec::new());
    let arrivals = async {
        while !linked || refused.len() < 2 {
            match listener.accept().await.unwrap() {
                Accepted::Party(_) => linked = true,
                Accepted::Refused(refusal) => refused.push(refusal.reason),
                Accepted::Http(_) => panic!("nobody spoke HTTP"),
            }
        }
    };
    let (link, ()) = soon(LONG, async { tokio::join!(dial(&cluster, &me, Role::Server1), arrivals) }).await;
    assert!(link.is_ok());
    assert!(
        refused.iter().any(|r| r.contains("more than 1 s")) && refused.iter().any(|r| r.contains("no TLS")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn so_many_connections_and_no_more() {
    let trial = Trial::new().with("connections = 1024", "connections = 1");
    let mut listener = trial.listen(Role::Server1).await;
    let mut first = connect(&trial, Role::Server1).await;
    first.write_all(b"GET").await.unwrap();
    let held = soon(LONG, listener.accept()).await.unwrap();
    assert!(matches!(held, Accepted::Http(_)));
    let _second = connect(&trial, Role::Server1).await;
    let refused = soon(LONG, listener.accept()).await.unwrap();
    assert!(matches!(&refused, Accepted::Refused(r) if r.reason.contains("limits.connections")), "{refused:?}");
    // A connection counts until it closes.
    drop(held);
    let mut third = connect(&trial, Role::Server1).await;
    third.write_all(b"GET").await.unwrap();
    assert!(matches!(soon(LONG, listener.accept()).await, Some(Accepted::Http(_))));
}

/// An ordinary certificate in files, as a certificate authority hands it out.
fn certificate(dir: &Path, name: &str) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), certified.cert.pem()).unwrap();
    let key = certified.signing_key.serialize_pem();
    std::fs::write(dir.join(format!("{name}.key")), key).unwrap();
    certified
}

fn with_certificate(dir: &Path, chain: &str, key: &str) -> Trial {
    let dir = dir.display();
    let table = format!(
        "[clients.server1]\ntls_certificate = \"{dir}/{chain}\"\ntls_key = \"{dir}/{key}\"\n\n\
         [deployers]"
    );
    Trial::new().with("[deployers]", &table)
}

#[tokio::test]
async fn browsers_get_the_ordinary_certificate_and_show_none() {
    let dir = tempfile::tempdir().unwrap();
    let ordinary = certificate(dir.path(), "a");
    let trial = with_certificate(dir.path(), "a.pem", "a.key");
    let mut listener = trial.listen(Role::Server1).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ordinary.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tcp = connect(&trial, Role::Server1).await;
    let name = "localhost".try_into().unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let (browser, accepted) = tokio::join!(connector.connect(name, tcp), listener.accept());
    let browser = browser.unwrap();
    assert_eq!(browser.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(matches!(accepted, Some(Accepted::Http(s)) if s.is_secure()));
    // Party links go on beside it.
    let (cluster, me) = (trial.cluster(), trial.me(Role::Server0));
    let (link, _) = tokio::join!(dial(&cluster, &me, Role::Server1), listener.accept());
    assert!(link.is_ok());
}

#[tokio::test]
async fn an_unusable_certificate_is_named_at_start() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path(), "a");
    certificate(dir.path(), "b");
    for (chain, key, says) in [
        ("a.pem", "b.key", "do not go together"),
        ("none.pem", "a.key", "cannot be read"),
        ("a.key", "a.key", "holds no certificate"),
        ("a.pem", "a.pem", "holds no private key"),
    ] {
        let trial = with_certificate(dir.path(), chain, key);
        let error =
            Listener::bind(&trial.cluster(), Role::Server1, &trial.me(Role::Server1)).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
