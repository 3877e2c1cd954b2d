//! Three parties in this process, and clients and deployers who do not behave.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use selkie::client::message::{Code, MAX_PART, Playing, Refusal, Reply, Request, SUBPROTOCOL, Session, VERSION};
use selkie::graph::{Bounds, Graph};
use selkie::program::{Numbers, Program, Tensor, Weights};
use selkie::{Protocol, Variant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

mod ephemeral;
mod keeping;
mod masks;
mod players;

use super::*;
use crate::client::{Client, Question};
use crate::config::{Address, SampleParty, sample};
use crate::deploy::{Offer, deploy, deploy_as, each};
use crate::exit::Exit;
use crate::identity::Identity;
use crate::init::free_ports;

const LONG: Duration = Duration::from_secs(20);

struct Three {
    cluster: Arc<Cluster>,
    services: Vec<Service>,
    deployer: Me,
    identities: [Identity; 3],
    _state: tempfile::TempDir,
}

impl Three {
    async fn new() -> Self {
        Self::with("", "").await
    }

    async fn with(from: &str, to: &str) -> Self {
        Self::changed(&[(from, to)]).await
    }

    /// Parties whose configuration is changed in some places.
    async fn changed(changes: &[(&str, &str)]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let identities = [0; 3].map(|_| Identity::generate().unwrap());
        let deployer = Identity::generate().unwrap();
        let ports = free_ports().unwrap();
        let party = |i: usize| SampleParty {
            address: Address::loopback(ports[i]).to_string(),
            key: identities[i].public().to_string(),
        };
        let mut text = sample(&[party(0), party(1), party(2)], &deployer.public().to_string());
        for (from, to) in changes {
            assert!(text.contains(from));
            text = text.replacen(from, to, 1);
        }
        let cluster = Arc::new(Cluster::parse(&text, &state.path().join("cluster.toml")).unwrap());
        let mut services = Vec::new();
        for (role, identity) in Role::ALL.into_iter().zip(&identities) {
            let me = Me::new(role, identity.clone()).unwrap();
            services.push(Service::start(cluster.clone(), role, me, None).await.unwrap());
        }
        let deployer = Me::deployer(deployer).unwrap();
        let three = Self { cluster, services, deployer, identities, _state: state };
        three.ready().await;
        three
    }

    async fn ready(&self) {
        let ready = async {
            while !self.services.iter().all(Service::is_ready) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, ready).await.unwrap();
    }

    async fn deploy(&self, name: &str, scale: f32) {
        self.deploy_program(name, &network(scale)).await;
    }

    async fn deploy_program(&self, name: &str, (program, weights): &(Program, Weights)) {
        let programs = program.into();
        deploy(&self.cluster, &self.deployer, name, &each(&[Protocol::default()], &programs), weights).await.unwrap();
        self.ready().await;
    }

    async fn deploy_under(&self, name: &str, scale: f32, protocols: &[Protocol]) {
        let (program, weights) = network(scale);
        deploy(&self.cluster, &self.deployer, name, &each(protocols, &program.into()), &weights).await.unwrap();
        self.ready().await;
    }

    async fn client(&self, role: Role) -> WebSocketStream<TcpStream> {
        let address = self.cluster.party(role).address.to_string();
        let tcp = TcpStream::connect(&address).await.unwrap();
        let mut request = format!("ws://{address}/client").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        client_async(request, tcp).await.unwrap().0
    }
}

/// relu(x W) for four inputs and three outputs; W is `scale` on its diagonal.
fn network(scale: f32) -> (Program, Weights) {
    let graph = Graph::new();
    let x = graph.private_input("c", "x", &[4], [-1.0, 1.0]).unwrap();
    let w = graph.private_variable("o", "w", &[4, 3]).unwrap();
    graph.output("c", &x.matmul(&w).unwrap().relu().unwrap()).unwrap();
    let values = (0..12).map(|i| if i / 3 == i % 3 { scale } else { 0.0 }).collect();
    let weights = Weights([("w".to_owned(), Tensor { shape: vec![4, 3], values })].into());
    (graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap(), weights)
}

async fn say(socket: &mut WebSocketStream<TcpStream>, request: Request) {
    socket.send(Message::binary(request.encode())).await.unwrap();
}

async fn hear(socket: &mut WebSocketStream<TcpStream>) -> Reply {
    loop {
        match timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Binary(bytes) => return Reply::decode(selkie::Role::Server0, &bytes).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn refusal(socket: &mut WebSocketStream<TcpStream>) -> Refusal {
    match hear(socket).await {
        Reply::Refused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_are_answered_each_with_its_own() {
    let three = Three::with("stock_units = 64", "stock_units = 8").await;
    three.deploy("m", 2.0).await;
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..24u32 {
        let cluster = three.cluster.clone();
        asking.spawn(async move {
            let mut client = Client::connect(&cluster).await.unwrap();
            let batch = 1 + i as usize % 8;
            let x = i as f32 / 24.0;
            let answer = client.predict("m", [x, -x, x / 2.0, 1.0].repeat(batch), batch).await.unwrap();
            for row in answer.outputs[0].chunks(3) {
                for (got, wanted) in row.iter().zip([2.0 * x, 0.0, x]) {
                    assert!((got - wanted).abs() < 1e-3, "{row:?} for {x}");
                }
            }
        });
    }
    while let Some(done) = timeout(LONG, asking.join_next()).await.unwrap() {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_batch_is_dealt_for_also_when_little_of_the_stock_is_used() {
    let three = Three::new().await;
    three.deploy("m", 2.0).await;
    let mut client = Client::connect(&three.cluster).await.unwrap();
    for batch in [1, 64, 3, 64, 64] {
        let answered = client.predict("m", [0.5; 4].repeat(batch), batch);
        assert_eq!(timeout(LONG, answered).await.unwrap().unwrap().outputs[0].len(), 3 * batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn impolite_clients_disturb_nobody() {
    let three = Three::new().await;
    three.deploy("m", 2.0).await;
    let mut socket = three.client(Role::Server0).await;
    let session = [1; 16];

    say(&mut socket, Request::Describe { version: VERSION + 1, session, model: "m".into(), protocol: None }).await;
    assert!(refusal(&mut socket).await.message.contains("same release"));
    say(&mut socket, Request::Describe { version: VERSION, session, model: "m".into(), protocol: Some("x".into()) })
        .await;
    assert!(refusal(&mut socket).await.message.contains(Protocol::default().name()));
    say(&mut socket, Request::Part { session, index: 0, bytes: vec![0] }).await;
    assert_eq!(refusal(&mut socket).await.code, Code::Usage);
    say(&mut socket, Request::Describe { version: VERSION, session, model: "m".into(), protocol: None }).await;
    let Reply::Spec { spec, .. } = hear(&mut socket).await else { panic!() };
    let players = vec![Playing { player: "c".into(), signature: None }];
    let ask = |batch| Request::Ask { session, model: "m".into(), plan: spec.plan, batch, players: players.clone() };
    for batch in [0, 65, u32::MAX] {
        say(&mut socket, ask(batch)).await;
        assert!(refusal(&mut socket).await.message.contains("at a time"));
    }
    let nobody = Vec::new();
    say(&mut socket, Request::Ask { session, model: "m".into(), plan: [0; 32], batch: 1, players: nobody }).await;
    assert_eq!(refusal(&mut socket).await.code, Code::Refused);

    // The same session twice; parts out of order, empty, or too many.
    say(&mut socket, ask(1)).await;
    let mut other = three.client(Role::Server0).await;
    say(&mut other, ask(1)).await;
    assert!(refusal(&mut other).await.message.contains("in use"));
    say(&mut socket, Request::Part { session, index: 1, bytes: vec![0; 32] }).await;
    assert!(refusal(&mut socket).await.message.contains("part 0 comes next"));
    for bytes in [vec![], vec![0; 33], vec![0; MAX_PART]] {
        say(&mut socket, ask(1)).await;
        say(&mut socket, Request::Part { session, index: 0, bytes }).await;
        assert_eq!(refusal(&mut socket).await.code, Code::Usage);
    }
    // One who asks server0 alone.
    say(&mut socket, ask(2)).await;
    say(&mut socket, Request::Part { session, index: 0, bytes: vec![7; 32] }).await;
    assert!(refusal(&mut socket).await.message.contains("never server1"));

    // What is no message ends that connection alone.
    for bytes in [Message::text("hello"), Message::binary(vec![0xff; 9]), Message::binary(vec![0; 70_000])] {
        let mut rude = three.client(Role::Server1).await;
        let _ = rude.send(bytes).await;
        let ended = timeout(LONG, async { while let Some(Ok(Message::Binary(_))) = rude.next().await {} }).await;
        ended.unwrap();
    }
    let mut producer = three.client(Role::CryptoProducer).await;
    say(&mut producer, Request::List { session }).await;
    assert!(refusal(&mut producer).await.message.contains("server0 and server1"));

    let mut client = Client::connect(&three.cluster).await.unwrap();
    let answer = client.predict("m", vec![0.5; 4], 1).await.unwrap();
    assert!((answer.outputs[0][0] - 1.0).abs() < 1e-3);
    let failed = client.predict("m", vec![f32::NAN; 4], 1).await.unwrap_err();
    assert_eq!(failed.exit, Exit::Usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_picks_among_the_protocols_of_a_deployment() {
    use Protocol::{Fss, Pond, SecureNn, Table};
    let three = Three::new().await;
    three.deploy_under("m", 2.0, &[SecureNn, Table, Fss]).await;
    // Neither is a part of it, though one's name begins with the same letters, and the other's program is the same.
    three.deploy_under("m-2", 3.0, &[Pond]).await;
    three.deploy_under("n", 2.0, &[Pond]).await;
    let mut client = Client::connect(&three.cluster).await.unwrap();
    let asked = [
        ("m", None, SecureNn),
        ("m", Some("securenn"), SecureNn),
        ("m", Some("table"), Table),
        ("m", Some("fss"), Fss),
        ("m@fss", None, Fss),
        ("m@fss", Some("fss"), Fss),
        ("m-2", Some("pond"), Pond),
    ];
    let mut online = std::collections::BTreeMap::new();
    for (model, protocol, runs) in asked {
        let question = Question { model, protocol, inputs: vec![vec![0.5; 4]], batch: 1, ..Question::default() };
        let answer = client.ask(question).await.unwrap();
        assert_eq!(answer.spec.protocol, runs.name(), "{model} by {protocol:?}");
        let wanted = if model == "m-2" { 1.5 } else { 1.0 };
        let off = (answer.outputs[0][0] - wanted).abs();
        assert!(off < if runs.compares() { 1e-3 } else { 0.5 }, "{model} by {protocol:?}: {off}");
        assert_eq!(*online.entry(runs.name()).or_insert(answer.online_bytes()), answer.online_bytes());
    }
    assert_eq!(
        online.values().collect::<std::collections::BTreeSet<_>>().len(),
        4,
        "each costs something else: {online:?}"
    );

    let refused = [("m", "pond"), ("m", ""), ("m@fss", "table"), ("m-2", "fss")];
    for (model, protocol) in refused {
        // Both servers refuse, and a client reads no further than the first of them.
        let mut client = Client::connect(&three.cluster).await.unwrap();
        let (inputs, protocol) = (vec![vec![0.5; 4]], Some(protocol));
        let failed =
            client.ask(Question { model, protocol, inputs, batch: 1, ..Question::default() }).await.unwrap_err();
        assert_eq!(failed.exit, Exit::Usage);
        let there = match model {
            "m" => "but for securenn, fss, table;",
            "m@fss" => "but for fss;",
            _ => "but for pond;",
        };
        assert!(failed.message.contains(there), "{model} by {protocol:?}: {failed}");
    }

    // A plan of another model's is none of this one's.
    let mut socket = three.client(Role::Server0).await;
    let session = [3; 16];
    say(&mut socket, Request::Describe { version: VERSION, session, model: "n".into(), protocol: None }).await;
    let Reply::Spec { spec, .. } = hear(&mut socket).await else { panic!() };
    let players = vec![Playing { player: "c".into(), signature: None }];
    say(&mut socket, Request::Ask { session, model: "m".into(), plan: spec.plan, batch: 1, players }).await;
    assert!(refusal(&mut socket).await.message.contains("deployed anew"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_never_taken_twice() {
    let three = Three::new().await;
    let ((program, two), (_, three_times)) = (network(2.0), network(3.0));
    let deploy = async |name, weights| {
        let programs = (&program).into();
        let runs = &each(&[Protocol::default()], &programs);
        let offer = Offer { name, version: 42, runs, weights, variant: Variant::default() };
        deploy_as(&three.cluster, &three.deployer, &offer).await
    };
    deploy("m", &two).await.unwrap();
    three.ready().await;
    for name in ["m", "n"] {
        let refused = deploy(name, &three_times).await.unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.message.contains("masks must not be used twice"), "{refused}");
    }
    let mut client = Client::connect(&three.cluster).await.unwrap();
    let answer = client.predict("m", vec![0.5; 4], 1).await.unwrap();
    assert!((answer.outputs[0][0] - 1.0).abs() < 1e-3, "the first one still answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn redeploying_while_clients_ask_mixes_nothing() {
    let three = Three::new().await;
    three.deploy("m", 1.0).await;
    let cluster = three.cluster.clone();
    let asking = tokio::spawn(async move {
        let mut client = Client::connect(&cluster).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..60 {
            let answer = client.predict("m", vec![0.25; 4], 1).await.unwrap();
            let factor = answer.outputs[0][0] * 4.0;
            assert!((factor - factor.round()).abs() < 1e-2, "{factor}");
            seen.push(factor.round() as u32);
        }
        seen
    });
    for scale in [2.0, 3.0, 4.0] {
        three.deploy("m", scale).await;
    }
    let seen = timeout(LONG, asking).await.unwrap().unwrap();
    assert!(seen.is_sorted(), "versions only move on: {seen:?}");
    let mut client = Client::connect(&three.cluster).await.unwrap();
    let answer = client.predict("m", vec![0.25; 4], 1).await.unwrap();
    assert!((answer.outputs[0][0] - 1.0).abs() < 1e-3);
}
