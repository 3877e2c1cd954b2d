//! The party's one port: party links, clients with TLS, and on loopback clients without.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_tungstenite::accept_async_with_config;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Cluster, Emulation, Limits};
use crate::identity::PartyKey;
use selkie::Role;

use super::counted::{Counted, Traffic};
use super::emulate::Emulated;
use super::error::{LinkError, ListenError, Peer, Refusal};
use super::handshake::{EXPORTER, End, Knowns};
use super::http::HttpStream;
use super::rate::Rate;
use super::tls::{self, Acceptors};
use super::{LONGEST, Link, Me, establish, socket_config, terms};

/// The first byte of every TLS connection; of no HTTP request.
const TLS_HANDSHAKE: u8 = 0x16;
/// Connections that wait for [`Listener::accept`].
const BACKLOG: usize = 64;
/// What a client is told that speaks plain HTTP where it must not.
const TLS_ONLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\n\
    This address speaks TLS: use https:// and wss://. Plain connections are taken from this machine alone.\n";

/// What arrives at a party's port.
#[derive(Debug)]
pub enum Accepted {
    /// A link from a peer, authenticated.
    Party(Link),
    /// A client's HTTP connection.
    Http(HttpStream),
    /// Somebody was turned away.
    Refused(Refusal),
}

/// A party's open port. Handshakes run side by side, each within its time; dropping this closes
/// the port.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Accepted>,
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    /// Opens the port of the party that `me` is.
    ///
    /// # Errors
    /// When the address is in use or no address of this machine, or a certificate for clients is
    /// configured and cannot be used.
    pub async fn bind(cluster: &Arc<Cluster>, role: Role, me: &Me) -> Result<Self, ListenError> {
        let mut peers = HashMap::new();
        for other in role.others() {
            peers.insert(cluster.party(other).key, Peer::Party(other));
        }
        for key in cluster.deployers.values() {
            peers.insert(*key, Peer::Deployer(*key));
        }
        let acceptors = Acceptors::new(&me.identity, peers.keys().copied().collect(), cluster.clients(role))?;
        let listen = cluster.party(role).listen_address();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Busy { address: listen.to_string() },
            _ => ListenError::Bind { address: listen.to_string(), source },
        };
        let listener = TcpListener::bind((listen.host(), listen.port())).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (sender, accepted) = mpsc::channel(BACKLOG);
        let door = Arc::new(Door {
            acceptors,
            peers,
            role,
            me: me.clone(),
            limits: cluster.limits.clone(),
            emulation: cluster.emulation,
        });
        let task = tokio::spawn(serve(listener, door, sender));
        Ok(Self { accepted, address, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it really listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next arrival. Safe to cancel.
    pub async fn accept(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }
}

async fn serve(listener: TcpListener, door: Arc<Door>, sender: mpsc::Sender<Accepted>) {
    let connections = Arc::new(Semaphore::new(door.limits.connections));
    let mut rate = Rate::new(door.limits.handshakes_per_ip);
    loop {
        let (tcp, from) = match listener.accept().await {
            Ok(arrival) => arrival,
            Err(error) => {
                // Out of file descriptors, most likely: others must go before more can come.
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let refused = |reason: &str| {
            let refusal = Refusal { from, reason: reason.to_owned() };
            // Under a flood the count of refusals matters less than staying responsive.
            let _ = sender.try_send(Accepted::Refused(refusal));
        };
        if !rate.admits(from.ip(), Instant::now()) {
            refused("it opens connections faster than limits.handshakes_per_ip allows");
            continue;
        }
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            refused("limits.connections are open already");
            continue;
        };
        let (door, sender) = (door.clone(), sender.clone());
        tokio::spawn(async move {
            let limit = door.limits.handshake();
            let accepted = timeout(limit, door.welcome(tcp, from, permit))
                .await
                .unwrap_or_else(|_| Err(format!("its handshake took more than {} s", limit.as_secs())));
            let accepted = match accepted {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(reason) => Accepted::Refused(Refusal { from, reason }),
            };
            // The listener may be gone by now.
            let _ = sender.send(accepted).await;
        });
    }
}

/// Who is let in, and how.
struct Door {
    acceptors: Acceptors,
    peers: HashMap<PartyKey, Peer>,
    role: Role,
    me: Me,
    limits: Limits,
    emulation: Option<Emulation>,
}

impl Door {
    async fn welcome(
        &self,
        mut tcp: TcpStream,
        from: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<Option<Accepted>, String> {
        let lost = |e: io::Error| e.to_string();
        tcp.set_nodelay(true).map_err(lost)?;
        let mut first = [0];
        // Nothing at all: somebody looked whether the port is open.
        if tcp.peek(&mut first).await.map_err(lost)? == 0 {
            return Ok(None);
        }
        if first == [TLS_HANDSHAKE] {
            return self.welcome_tls(tcp, from, permit).await.map(Some);
        }
        if !from.ip().to_canonical().is_loopback() {
            let _ = tcp.write_all(TLS_ONLY).await;
            let _ = tcp.shutdown().await;
            return Err("it speaks without TLS, which is for loopback alone".to_owned());
        }
        let stream = Emulated::new(tcp, self.emulation);
        Ok(Some(Accepted::Http(HttpStream::new(stream, from, false, Some(permit)))))
    }

    async fn welcome_tls(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<Accepted, String> {
        let (tcp, traffic) = Counted::new(Emulated::new(tcp, self.emulation));
        let start = LazyConfigAcceptor::new(Acceptor::default(), tcp)
            .await
            .map_err(|e| format!("it began no TLS that can be read: {e}"))?;
        let hello = start.client_hello();
        let wanted = hello.server_name().and_then(tls::expected);
        let Some((config, kind)) = self.acceptors.choose(hello.alpn().into_iter().flatten()) else {
            return Err(format!(
                "it is a client that wants TLS, and cluster.toml has no tls_certificate in \
                 [clients.{}]",
                self.role
            ));
        };
        let stream = start.into_stream(config).await.map_err(|e| self.explain(&e, wanted))?;
        if kind == tls::PARTY {
            self.link(stream, traffic, from, permit).await.map(Accepted::Party).map_err(|e| e.to_string())
        } else {
            let stream = HttpStream::new(stream, from, true, Some(permit));
            Ok(Accepted::Http(stream))
        }
    }

    async fn link(
        &self,
        stream: TlsStream<Counted<Emulated<TcpStream>>>,
        traffic: Arc<Traffic>,
        from: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<Link, LinkError> {
        let tls = stream.get_ref().1;
        let shown = tls.peer_certificates().and_then(|chain| chain.first());
        let key = shown.and_then(tls::key_in);
        let Some((peer_key, peer)) = key.and_then(|key| Some((key, *self.peers.get(&key)?))) else {
            return Err(LinkError::Local("it showed no key that is pinned".to_owned()));
        };
        let binding =
            tls.export_keying_material([0; 32], EXPORTER, None).map_err(|e| LinkError::Local(e.to_string()))?;
        let address = from.to_string();
        let socket = accept_async_with_config(stream, Some(socket_config(LONGEST)))
            .await
            .map_err(|e| LinkError::Local(format!("{peer} did not go on after TLS: {e}")))?;
        let knowns = Knowns {
            end: End::Acceptor,
            identity: &self.me.identity,
            me: self.me.name,
            peer,
            peer_key,
            address: &address,
            nonce: self.me.nonce,
            terms: terms(&self.limits),
            binding,
        };
        let sessions = self.limits.sessions_per_peer;
        establish(socket, traffic, &knowns, sessions, Some(permit)).await
    }

    /// Who expected which key, and who showed which.
    fn explain(&self, error: &io::Error, wanted: Option<(Role, PartyKey)>) -> String {
        let ours = self.me.identity.public();
        match (tls::explain(error), wanted) {
            (tls::Failure::NotPinned(Some(got)), _) => {
                let known: Vec<_> = self.peers.iter().map(|(key, peer)| format!("{peer} {key}")).collect();
                format!(
                    "it shows the key {got}, which cluster.toml does not pin (it pins {}); if it \
                     is a party, correct its key here",
                    known.join(", ")
                )
            }
            (tls::Failure::NotPinned(None), _) => "it shows an ordinary certificate on a party link".to_owned(),
            (_, Some((role, key))) if (role, key) != (self.role, ours) => {
                format!(
                    "it expected {role} with the key {key}, and this is {} with the key {ours}; \
                     correct its cluster.toml",
                    self.role
                )
            }
            (tls::Failure::Alert(alert), _) => format!("it ended TLS: {alert}"),
            (tls::Failure::Other(cause), _) => cause,
        }
    }
}
