//! Opening a link, or a client's connection, to a party.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::config::{Cluster, PartyConfig};
use crate::identity::PartyKey;
use selkie::Role;

use super::counted::{Counted, Traffic};
use super::emulate::Emulated;
use super::error::{LinkError, Peer};
use super::handshake::{self, EXPORTER, End, Knowns};
use super::http::HttpStream;
use super::{LONGEST, Link, Me, PATH, establish, socket_config, terms, tls};

/// Opens a link to a party.
///
/// # Errors
/// When the party is not there, is somebody else, or refuses; the error names it, its address
/// and the cause.
pub async fn dial(cluster: &Cluster, me: &Me, to: Role) -> Result<Link, LinkError> {
    let limit = cluster.limits.handshake();
    timeout(limit, link(cluster, me, to)).await.unwrap_or_else(|_| Err(Target::new(cluster, to).slow(limit)))
}

/// Opens a connection to a party as a client who is nobody in particular. The party proves its
/// pinned key; so this is private on any network, and needs no ordinary certificate.
///
/// # Errors
/// As [`dial`].
pub async fn dial_client(cluster: &Cluster, to: Role) -> Result<HttpStream, LinkError> {
    let target = Target::new(cluster, to);
    let limit = cluster.limits.handshake();
    let connect = async {
        let tcp = target.connect().await?;
        let remote = tcp.peer_addr().map_err(|e| target.absent(e.to_string()))?;
        let config = tls::dialer(None, target.party.key).map_err(LinkError::Local)?;
        let name = target.name()?;
        let stream = TlsConnector::from(config)
            .connect(name, Emulated::new(tcp, cluster.emulation))
            .await
            .map_err(|e| target.tls(&e, None))?;
        Ok(HttpStream::new(stream, remote, true, None))
    };
    timeout(limit, connect).await.unwrap_or_else(|_| Err(target.slow(limit)))
}

async fn link(cluster: &Cluster, me: &Me, to: Role) -> Result<Link, LinkError> {
    let party = cluster.party(to);
    let (socket, traffic, binding) = socket(cluster, me, to).await?;
    let address = party.address.to_string();
    let knowns = Knowns {
        end: End::Dialer,
        identity: &me.identity,
        me: me.name,
        peer: to.into(),
        peer_key: party.key,
        address: &address,
        nonce: me.nonce,
        terms: terms(&cluster.limits),
        binding,
    };
    let sessions = cluster.limits.sessions_per_peer;
    establish(socket, traffic, &knowns, sessions, None).await
}

/// A WebSocket over mutually authenticated TLS.
pub(super) type PartySocket = WebSocketStream<TlsStream<Counted<Emulated<TcpStream>>>>;

/// All that comes before the signed handshake: the socket, its counters, and what the handshake
/// is bound to.
pub(super) async fn socket(
    cluster: &Cluster,
    me: &Me,
    to: Role,
) -> Result<(PartySocket, Arc<Traffic>, [u8; 32]), LinkError> {
    let target = Target::new(cluster, to);
    let ours = Some((me.name, me.identity.public()));
    let (tcp, traffic) = Counted::new(Emulated::new(target.connect().await?, cluster.emulation));
    let config = tls::dialer(Some(&me.identity), target.party.key).map_err(LinkError::Local)?;
    let stream = TlsConnector::from(config).connect(target.name()?, tcp).await.map_err(|e| target.tls(&e, ours))?;
    let binding = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], EXPORTER, None)
        .map_err(|e| LinkError::Local(e.to_string()))?;
    // In TLS 1.3 the dialer is done before the acceptor has seen its certificate: a refusal of
    // our key arrives only here, instead of the answer to the upgrade.
    let (socket, _) =
        client_async_with_config(PATH, stream, Some(socket_config(LONGEST))).await.map_err(|error| match error {
            WsError::Io(error) => target.tls(&error, ours),
            error => target.absent(error.to_string()),
        })?;
    Ok((socket, traffic, binding))
}

/// Whom we dial, for the errors.
struct Target<'a> {
    role: Role,
    party: &'a PartyConfig,
}

impl<'a> Target<'a> {
    fn new(cluster: &'a Cluster, role: Role) -> Self {
        Self { role, party: cluster.party(role) }
    }

    async fn connect(&self) -> Result<TcpStream, LinkError> {
        let address = &self.party.address;
        let tcp = TcpStream::connect((address.host(), address.port())).await.map_err(|e| {
            self.absent(match e.kind() {
                io::ErrorKind::ConnectionRefused => {
                    format!("nobody listens there; start it with `selkie {} --config …`", self.role)
                }
                _ => e.to_string(),
            })
        })?;
        // Rounds are short messages that somebody waits for.
        tcp.set_nodelay(true).map_err(|e| self.absent(e.to_string()))?;
        Ok(tcp)
    }

    fn name(&self) -> Result<rustls::pki_types::ServerName<'static>, LinkError> {
        tls::expectation(self.role, &self.party.key).map_err(|e| LinkError::Local(e.to_string()))
    }

    fn absent(&self, cause: String) -> LinkError {
        LinkError::Absent { peer: self.role.into(), address: self.party.address.to_string(), cause }
    }

    fn slow(&self, limit: Duration) -> LinkError {
        self.absent(format!("no link within {} s", limit.as_secs()))
    }

    fn tls(&self, error: &io::Error, ours: Option<(Peer, PartyKey)>) -> LinkError {
        match (tls::explain(error), ours) {
            (tls::Failure::NotPinned(Some(got)), _) => LinkError::WrongKey {
                peer: self.role.into(),
                address: self.party.address.to_string(),
                expected: self.party.key,
                got,
            },
            (tls::Failure::NotPinned(None), _) => {
                self.absent("whoever answers there has an ordinary certificate, not a party's".to_owned())
            }
            (tls::Failure::Alert(alert), Some((me, key))) => LinkError::Refused {
                peer: self.role.into(),
                address: self.party.address.to_string(),
                cause: handshake::refused_key(me, &key, &alert),
            },
            (tls::Failure::Alert(alert), None) => self.absent(format!("it ended TLS: {alert}")),
            (tls::Failure::Other(cause), _) => self.absent(cause),
        }
    }
}
