//! A client of both servers, over their WebSockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use selkie::client::message::{Code, MAX_MESSAGE, Refusal, SUBPROTOCOL, Session};
use selkie::client::{Answer, Prediction, Progress};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::config::Cluster;
use crate::exit::{Exit, Failure};
use crate::identity::Identity;
use crate::link::{Emulated, HttpStream, dial_client, socket_config};
use crate::node::fresh;
use selkie::Role;

/// A server that says nothing for this long, not even that it is alive, is gone.
const SILENCE: Duration = Duration::from_secs(3);
/// A quiet server is asked this often whether it is alive.
const PING: Duration = Duration::from_millis(500);

/// Either kind of connection.
enum Socket {
    Plain(Box<WebSocketStream<Emulated<TcpStream>>>),
    Secure(Box<WebSocketStream<HttpStream>>),
}

impl Socket {
    async fn feed(&mut self, message: Message) -> Result<(), WsError> {
        match self {
            Self::Plain(socket) => socket.feed(message).await,
            Self::Secure(socket) => socket.feed(message).await,
        }
    }

    async fn flush(&mut self) -> Result<(), WsError> {
        match self {
            Self::Plain(socket) => socket.flush().await,
            Self::Secure(socket) => socket.flush().await,
        }
    }

    async fn next(&mut self) -> Option<Result<Message, WsError>> {
        match self {
            Self::Plain(socket) => socket.next().await,
            Self::Secure(socket) => socket.next().await,
        }
    }
}

/// A server, as its client sees it.
struct Server {
    role: Role,
    address: String,
    socket: Socket,
    heard: tokio::time::Instant,
}

/// Players' private keys, by the players' names.
pub type Keys = BTreeMap<String, Identity>;

/// A connection to both servers.
pub struct Client {
    servers: [Server; 2],
    keys: Arc<Keys>,
}

/// What a client asks, and for whom.
#[derive(Clone, Default)]
pub struct Question<'a> {
    /// The deployed model's name.
    pub model: &'a str,
    /// Picks among the protocols under which it is deployed; `None`: the first one.
    pub protocol: Option<&'a str>,
    /// The inputs of those for whom the client acts, in the program's order: `batch` samples of each.
    pub inputs: Vec<Vec<f32>>,
    /// Samples.
    pub batch: usize,
    /// For whom the client acts; `None`: for all of the program's players.
    pub players: Option<Vec<String>>,
    /// The query's name, if other clients take part in it; `None`: a fresh one.
    pub session: Option<Session>,
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Question({}, {:?}, inputs hidden)", self.model, self.players)
    }
}

/// A fresh name for a query in which several clients take part: one of them draws it and tells the others.
///
/// # Errors
/// The operating system gives no randomness.
pub fn fresh_session() -> Result<Session, Failure> {
    fresh().map_err(Failure::other)
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [zero, one] = &self.servers;
        write!(f, "Client({}, {})", zero.address, one.address)
    }
}

/// What a refusal means for the exit code.
#[must_use]
pub fn failure(refusal: &Refusal) -> Failure {
    let exit = match refusal.code {
        Code::Usage => Exit::Usage,
        Code::Refused => Exit::Refused,
        Code::Peer => Exit::PeerFailed,
        Code::Internal => Exit::Other,
    };
    Failure::new(exit, &refusal.message)
}

impl Client {
    /// Connects to both servers: by plain WebSocket on loopback, elsewhere by TLS with the servers' pinned keys.
    ///
    /// # Errors
    /// A server is not there; the error names it and its address.
    pub async fn connect(cluster: &Cluster) -> Result<Self, Failure> {
        let (zero, one) =
            tokio::join!(Server::connect(cluster, Role::Server0), Server::connect(cluster, Role::Server1));
        Ok(Self { servers: [zero?, one?], keys: Arc::default() })
    }

    /// Proves with these keys who the players are for whom it acts.
    #[must_use]
    pub fn with_keys(mut self, keys: Keys) -> Self {
        self.keys = Arc::new(keys);
        self
    }

    /// One query: `batch` samples of the model's one input, for all of its players.
    ///
    /// # Errors
    /// The servers refuse, a party fails, or the samples do not fit the model.
    pub async fn predict(&mut self, model: &str, samples: Vec<f32>, batch: usize) -> Result<Answer, Failure> {
        self.ask(Question { model, inputs: vec![samples], batch, ..Question::default() }).await
    }

    /// One query, which begins when clients have asked it for all players.
    ///
    /// # Errors
    /// The servers refuse, a party fails, the inputs do not fit the model, or a player is missing.
    pub async fn ask(&mut self, question: Question<'_>) -> Result<Answer, Failure> {
        let Question { model, protocol, inputs, batch, players, session } = question;
        let session = session.map_or_else(fresh_session, Ok)?;
        let seed = fresh().map_err(Failure::other)?;
        let mut prediction = Prediction::new(session, model, protocol, inputs, batch, seed);
        if let Some(players) = players {
            prediction = prediction.playing(players);
        }
        if !self.keys.is_empty() {
            let keys = self.keys.clone();
            prediction = prediction
                .signed_by(Box::new(move |player, message| keys.get(player).map(|identity| identity.sign(message))));
        }
        let now = tokio::time::Instant::now();
        self.servers.iter_mut().for_each(|server| server.heard = now);
        let mut ticks = tokio::time::interval_at(now + PING, PING);
        let [zero, one] = &mut self.servers;
        loop {
            // What goes to one server leaves together, and to both at the same time.
            let mut messages = [Vec::new(), Vec::new()];
            while let Some((role, bytes)) = prediction.poll() {
                let [to_zero, to_one] = &mut messages;
                if role == selkie::Role::Server0 { to_zero } else { to_one }.push(Message::binary(bytes));
            }
            let [to_zero, to_one] = messages;
            tokio::try_join!(zero.send(to_zero), one.send(to_one))?;
            let (server, message) = tokio::select! {
                message = zero.socket.next() => (&mut *zero, message),
                message = one.socket.next() => (&mut *one, message),
                _ = ticks.tick() => {
                    for server in [&mut *zero, &mut *one] {
                        server.check().await?;
                    }
                    continue;
                }
            };
            server.heard = tokio::time::Instant::now();
            match message {
                Some(Ok(Message::Binary(bytes))) => {
                    match prediction.handle(server.role, &bytes).map_err(|refusal| failure(&refusal))? {
                        Progress::Going => {}
                        Progress::Done(answer) => return Ok(*answer),
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map_or_else(|| "it closed the connection".to_owned(), |f| f.reason.to_string());
                    return Err(server.gone(&why));
                }
                Some(Ok(_)) => return Err(server.gone("it sent something that is no message")),
                Some(Err(error)) => return Err(server.gone(&error.to_string())),
                None => return Err(server.gone("it closed the connection")),
            }
        }
    }
}

impl Server {
    async fn connect(cluster: &Cluster, role: Role) -> Result<Self, Failure> {
        let address = &cluster.party(role).address;
        let limit = cluster.limits.handshake().min(SILENCE);
        let absent = |why: String| Failure::new(Exit::PeerFailed, format!("{role} at {address} is not there: {why}"));
        let connecting = async {
            let socket = if address.is_loopback() {
                let tcp = TcpStream::connect((address.host(), address.port())).await.map_err(|error| {
                    absent(match error.kind() {
                        std::io::ErrorKind::ConnectionRefused => {
                            format!("nobody listens there; start it with `selkie {role} --config …`")
                        }
                        _ => error.to_string(),
                    })
                })?;
                // A query is a few short messages that somebody waits for.
                tcp.set_nodelay(true)?;
                Socket::Plain(Box::new(
                    open(Emulated::new(tcp, cluster.emulation), &address.to_string()).await.map_err(absent)?,
                ))
            } else {
                let stream = dial_client(cluster, role).await?;
                Socket::Secure(Box::new(open(stream, &address.to_string()).await.map_err(absent)?))
            };
            Ok(Self { role, address: address.to_string(), socket, heard: tokio::time::Instant::now() })
        };
        match timeout(limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(absent(format!("it did not answer within {} s", limit.as_secs()))),
        }
    }

    /// Sends these messages as one, if there are any. A long upload may take its time, as long as each message gets away.
    async fn send(&mut self, messages: Vec<Message>) -> Result<(), Failure> {
        if messages.is_empty() {
            return Ok(());
        }
        for message in messages {
            let fed = timeout(SILENCE, self.socket.feed(message)).await;
            self.left(fed)?;
        }
        let flushed = timeout(SILENCE, self.socket.flush()).await;
        self.left(flushed)
    }

    fn left(&self, sent: Result<Result<(), WsError>, tokio::time::error::Elapsed>) -> Result<(), Failure> {
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.gone(&error.to_string())),
            Err(_) => Err(self.gone("it takes nothing any more")),
        }
    }

    /// Whether it is alive; asks, if it has been quiet.
    async fn check(&mut self) -> Result<(), Failure> {
        if self.heard.elapsed() > SILENCE {
            return Err(self.gone(&format!("nothing was heard of it for {} s", SILENCE.as_secs())));
        }
        self.send(vec![Message::Ping(Vec::new().into())]).await
    }

    fn gone(&self, why: &str) -> Failure {
        Failure::new(Exit::PeerFailed, format!("{} at {} went away: {why}", self.role, self.address))
    }
}

async fn open<S>(stream: S, host: &str) -> Result<WebSocketStream<S>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut request = format!("ws://{host}/client").into_client_request().map_err(|e| e.to_string())?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    match client_async_with_config(request, stream, Some(socket_config(MAX_MESSAGE))).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) => {
            Err(format!("whoever answers there is no server of selkie ({})", response.status()))
        }
        Err(error) => Err(error.to_string()),
    }
}
