//! TLS 1.3 for the three kinds of connection that share a party's port.
//!
//! | ALPN | certificate shown | certificate demanded |
//! |---|---|---|
//! | `selkie-party/1` | the party's Ed25519 key | the dialer's Ed25519 key, pinned |
//! | `selkie-client/1` | the party's Ed25519 key | none |
//! | `http/1.1` or none | the ordinary one for browsers | none |
//!
//! No certificate authority has a say in the first two: the certificate is a wrapping for the
//! key that `cluster.toml` pins, and nothing else in it counts. There is no resumption, so that
//! every link proves both keys afresh.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, Error, OtherError, ServerConfig, version::TLS13};

use crate::config::ClientAccess;
use crate::identity::{Identity, PartyKey};
use selkie::Role;

use super::error::ListenError;
pub(super) use super::pins::key_in;
use super::pins::{NotPinned, Pins, TlsKey};

/// Party links.
pub(super) const PARTY: &[u8] = b"selkie-party/1";
/// Clients that know the parties' pinned keys.
pub(super) const CLIENT: &[u8] = b"selkie-client/1";
/// Browsers.
pub(super) const HTTP: &[u8] = b"http/1.1";

/// The name a dialer asks for tells the acceptor whom it expected, so that both ends can say
/// what went wrong: the pinned key in two halves (a label has at most 63 letters), and the role.
pub(super) fn expectation(role: Role, key: &PartyKey) -> Result<ServerName<'static>, Error> {
    let key = key.to_string();
    let (left, right) = key.split_at(32);
    ServerName::try_from(format!("{left}.{right}.{role}.selkie"))
        .map_err(|_| Error::General("no server name".to_owned()))
}

/// Reads what [`expectation`] wrote.
pub(super) fn expected(name: &str) -> Option<(Role, PartyKey)> {
    let mut labels = name.split('.');
    let key = format!("{}{}", labels.next()?, labels.next()?);
    let role = labels.next()?.parse().ok()?;
    (labels.next()? == "selkie").then_some((role, key.parse().ok()?))
}

/// What a failed TLS connection means.
pub(super) enum Failure {
    /// We refused the peer's key.
    NotPinned(Option<PartyKey>),
    /// The peer refused ours, or something else that we sent.
    Alert(String),
    /// Anything else.
    Other(String),
}

/// Looks for the cause of a failure.
pub(super) fn explain(error: &io::Error) -> Failure {
    match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) => {
            match other.downcast_ref::<NotPinned>() {
                Some(NotPinned(key)) => Failure::NotPinned(*key),
                None => Failure::Other(error.to_string()),
            }
        }
        Some(Error::AlertReceived(alert)) => Failure::Alert(format!("{alert:?}")),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => Failure::Other("it closed the connection".to_owned()),
        _ => Failure::Other(error.to_string()),
    }
}

/// The party's self-signed certificate, made at start.
fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, String> {
    let key = TlsKey { public: identity.public(), identity: identity.clone() };
    let certificate = rcgen::CertificateParams::new(vec!["selkie".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .map_err(|e| e.to_string())?;
    let chain = vec![certificate.der().clone()];
    Ok(Arc::new(CertifiedKey::new(chain, Arc::new(key))))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn pins(keys: Vec<PartyKey>) -> Arc<Pins> {
    Arc::new(Pins { keys, provider: provider() })
}

/// How one dials a party whose key is pinned: as a party or deployer with `identity`, or
/// as an unnamed client without.
pub(super) fn dialer(identity: Option<&Identity>, expected: PartyKey) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(pins(vec![expected]));
    let (mut config, alpn) = match identity {
        Some(identity) => {
            let resolver = Arc::new(SingleCertAndKey::from(certified(identity)?));
            (builder.with_client_cert_resolver(resolver), PARTY)
        }
        None => (builder.with_no_client_auth(), CLIENT),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// What a party shows to each kind of caller.
#[derive(Debug, Clone)]
pub(super) struct Acceptors {
    party: Arc<ServerConfig>,
    client: Arc<ServerConfig>,
    browser: Option<Arc<ServerConfig>>,
}

impl Acceptors {
    /// `allowed` may open party links.
    pub(super) fn new(identity: &Identity, allowed: Vec<PartyKey>, access: &ClientAccess) -> Result<Self, ListenError> {
        let bug = |e: Error| ListenError::Tls(e.to_string());
        let builder = || ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(bug);
        let resolver = Arc::new(SingleCertAndKey::from(certified(identity).map_err(ListenError::Tls)?));
        let party = builder()?.with_client_cert_verifier(pins(allowed)).with_cert_resolver(resolver.clone());
        let client = builder()?.with_no_client_auth().with_cert_resolver(resolver);
        let browser = match (&access.tls_certificate, &access.tls_key) {
            (Some(chain), Some(key)) => {
                let config = builder()?
                    .with_no_client_auth()
                    .with_single_cert(read_chain(chain)?, read_key(key)?)
                    .map_err(|e| {
                        ListenError::Clients(format!(
                            "tls_certificate {} and tls_key {} do not go together: {e}",
                            chain.display(),
                            key.display()
                        ))
                    })?;
                Some(fresh(config, HTTP))
            }
            _ => None,
        };
        Ok(Self { party: fresh(party, PARTY), client: fresh(client, CLIENT), browser })
    }

    /// The configuration for a caller that offers these protocols, and which of the three it is.
    /// `None`: a browser, and there is no certificate for browsers.
    pub(super) fn choose<'a>(
        &self,
        mut offered: impl Iterator<Item = &'a [u8]>,
    ) -> Option<(Arc<ServerConfig>, &'static [u8])> {
        match offered.find(|name| *name == PARTY || *name == CLIENT) {
            Some(name) if name == PARTY => Some((self.party.clone(), PARTY)),
            Some(_) => Some((self.client.clone(), CLIENT)),
            None => Some((self.browser.clone()?, HTTP)),
        }
    }
}

fn fresh(mut config: ServerConfig, alpn: &[u8]) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(ListenError::Clients(format!(
            "tls_certificate {} holds no certificate: it must be the PEM chain",
            path.display()
        ))),
        Err(e) => Err(ListenError::Clients(format!("tls_certificate {} cannot be read: {e}", path.display()))),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, ListenError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|e| ListenError::Clients(format!("tls_key {} holds no private key in PEM: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot unwrap has failed")]

    use super::*;

    #[test]
    fn the_certificate_carries_the_partys_key() {
        let identity = Identity::generate().unwrap();
        let certified = certified(&identity).unwrap();
        assert_eq!(key_in(&certified.cert[0]), Some(identity.public()));
        assert_eq!(key_in(&CertificateDer::from(vec![0x30, 0x03, 1, 1, 1])), None);
    }

    #[test]
    fn an_expectation_is_read_back() {
        let key = Identity::generate().unwrap().public();
        let ServerName::DnsName(name) = expectation(Role::CryptoProducer, &key).unwrap() else {
            unreachable!("it is a name")
        };
        assert_eq!(expected(name.as_ref()), Some((Role::CryptoProducer, key)));
        assert_eq!(expected("a.example"), None);
    }

    #[test]
    fn callers_are_told_apart_by_what_they_offer() {
        let identity = Identity::generate().unwrap();
        let acceptors = Acceptors::new(&identity, vec![], &ClientAccess::default()).unwrap();
        let kind = |offer: &[&'static [u8]]| acceptors.choose(offer.iter().copied()).map(|(_, kind)| kind);
        assert_eq!(kind(&[PARTY]), Some(PARTY));
        assert_eq!(kind(&[HTTP, CLIENT]), Some(CLIENT));
        assert_eq!(kind(&[HTTP]), None, "there is no certificate for browsers");
        assert_eq!(kind(&[]), None);
    }
}
