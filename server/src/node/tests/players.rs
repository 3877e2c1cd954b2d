//! Queries of several players: who may take part, who is waited for, who receives what.

use selkie::client::message::{Challenge, proof};
use selkie::client::{Answer, ClientSpec};

use super::*;
use crate::client::{Question, fresh_session};
use crate::exit::Failure;

/// Three parties whose configuration pins `hospital-a` and `hospital-b`, and the two keys.
pub(super) async fn pinned(extra: (&str, &str)) -> (Three, [Identity; 2]) {
    let hospitals = [0; 2].map(|_| Identity::generate().unwrap());
    let [a, b] = hospitals.each_ref().map(|identity| identity.public());
    let players = format!("[players]\nhospital-a = \"{a}\"\nhospital-b = \"{b}\"");
    let (from, to) = extra;
    let three = Three::changed(&[("[players]", &players), (from, to)]).await;
    three.deploy_program("joint", &joint()).await;
    (three, hospitals)
}

/// Both hospitals feed a row; `a` receives relu(x U), `b` relu(y V) and `auditor`, who is open and feeds nothing, relu(y V) too.
pub(super) fn joint() -> (Program, Weights) {
    let graph = Graph::new();
    let x = graph.private_input("hospital-a", "x", &[2], [-1.0, 1.0]).unwrap();
    let y = graph.private_input("hospital-b", "y", &[3], [-1.0, 1.0]).unwrap();
    let (u, v) =
        (graph.private_variable("o", "u", &[2, 2]).unwrap(), graph.private_variable("o", "v", &[3, 1]).unwrap());
    let (xu, yv) = (x.matmul(&u).unwrap().relu().unwrap(), y.matmul(&v).unwrap().relu().unwrap());
    graph.output("auditor", &yv).unwrap();
    graph.output("hospital-a", &xu).unwrap();
    graph.output("hospital-b", &yv).unwrap();
    let tensor = |shape: &[u32], values: &[f32]| Tensor { shape: shape.to_vec(), values: values.to_vec() };
    let (u, v) = (tensor(&[2, 2], &[2.0, 0.0, 0.0, 4.0]), tensor(&[3, 1], &[1.0, 2.0, 4.0]));
    let weights = Weights([("u".to_owned(), u), ("v".to_owned(), v)].into());
    (graph.compile(Numbers::default(), Bounds::Declared(5)).unwrap(), weights)
}

/// One client that acts for one player, or tries to.
async fn play(
    three: &Three,
    session: Session,
    name: &str,
    key: Option<&Identity>,
    input: &[f32],
) -> Result<Answer, Failure> {
    let keys = key.map(|key| (name.to_owned(), key.clone())).into_iter().collect();
    let mut client = Client::connect(&three.cluster).await.unwrap().with_keys(keys);
    let inputs = if input.is_empty() { vec![] } else { vec![input.to_vec()] };
    let players = Some(vec![name.to_owned()]);
    let question =
        Question { model: "joint", inputs, batch: 1, players, session: Some(session), ..Question::default() };
    timeout(LONG, client.ask(question)).await.unwrap()
}

fn close(got: &[Vec<f32>], wanted: &[&[f32]]) {
    assert_eq!(got.len(), wanted.len(), "{got:?}");
    for (got, wanted) in got.iter().zip(wanted) {
        assert_eq!(got.len(), wanted.len());
        assert!(got.iter().zip(*wanted).all(|(a, b)| (a - b).abs() < 1e-3), "{got:?} {wanted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_ask_together_and_each_receives_what_is_granted_to_it() {
    let (three, [a, b]) = pinned(("", "")).await;
    for _ in 0..3 {
        let session = fresh_session().unwrap();
        let (first, second, third) = tokio::join!(
            play(&three, session, "hospital-a", Some(&a), &[0.25, -0.5]),
            play(&three, session, "hospital-b", Some(&b), &[0.5, 0.25, 0.5]),
            play(&three, session, "auditor", None, &[]),
        );
        let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
        close(&first.outputs, &[&[0.5, 0.0]]);
        close(&second.outputs, &[&[3.0]]);
        close(&third.outputs, &[&[3.0]]);
        // Each sees its own part alone; together they have moved what the plan says.
        assert_eq!(second.spec.inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), ["y"]);
        let moved: u64 = [&first, &second, &third].map(|answer| answer.client_bytes).iter().sum();
        assert_eq!(moved, first.stats[0].planned.client_bytes);
        assert_eq!(first.stats, third.stats);
    }
    // One client that holds both keys acts for all.
    let keys = [("hospital-a".to_owned(), a), ("hospital-b".to_owned(), b)].into();
    let mut client = Client::connect(&three.cluster).await.unwrap().with_keys(keys);
    let inputs = vec![vec![0.25, -0.5], vec![0.5, 0.25, 0.5]];
    let answer = client.ask(Question { model: "joint", inputs, batch: 1, ..Question::default() }).await.unwrap();
    close(&answer.outputs, &[&[3.0], &[0.5, 0.0], &[3.0]]);
    assert!(three.services.iter().all(|service| service.node.gatherings.lock().unwrap().is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_players_are_named_and_the_session_ends() {
    let (three, [a, b]) = pinned(("idle_seconds = 30", "idle_seconds = 2")).await;
    let session = fresh_session().unwrap();
    let (first, third) = tokio::join!(
        play(&three, session, "hospital-a", Some(&a), &[0.25, -0.5]),
        play(&three, session, "auditor", None, &[])
    );
    for failed in [first.unwrap_err(), third.unwrap_err()] {
        assert_eq!(failed.exit, Exit::Refused);
        assert!(failed.message.contains("did not deliver") && failed.message.contains(": hospital-b;"), "{failed}");
    }
    // Another number of samples, or the same player twice, does not join.
    let session = fresh_session().unwrap();
    let waiting = play(&three, session, "hospital-a", Some(&a), &[0.25, -0.5]);
    let disturbing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let again = play(&three, session, "hospital-a", Some(&a), &[0.25, -0.5]).await.unwrap_err();
        assert!(again.message.contains("somebody acts for hospital-a"), "{again}");
        let keys = [("hospital-b".to_owned(), b.clone())].into();
        let mut client = Client::connect(&three.cluster).await.unwrap().with_keys(keys);
        let (players, session) = (Some(vec!["hospital-b".to_owned()]), Some(session));
        let two =
            Question { model: "joint", inputs: vec![vec![0.0; 6]], batch: 2, players, session, ..Question::default() };
        let other = client.ask(two).await.unwrap_err();
        assert!(other.message.contains("query of 1 samples, and here are 2"), "{other}");
    };
    let (waited, ()) = tokio::join!(waiting, disturbing);
    let waited = waited.unwrap_err();
    assert!(waited.message.contains(": hospital-b, auditor;"), "{waited}");
    // Who leaves ends it for those who wait.
    let session = fresh_session().unwrap();
    let leaving = async {
        let left = play(&three, session, "auditor", None, &[]);
        assert!(timeout(Duration::from_millis(500), left).await.is_err());
    };
    let (waited, ()) = tokio::join!(play(&three, session, "hospital-a", Some(&a), &[0.25, -0.5]), leaving);
    let waited = waited.unwrap_err();
    assert!(waited.message.contains("acts for auditor went away"), "{waited}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_plays_a_pinned_player_without_its_key() {
    let (three, [a, b]) = pinned(("", "")).await;
    for (name, key, input) in [
        // Without a key, with another player's, and with one that nobody knows; for an input and for an output.
        ("hospital-a", None, vec![0.25, -0.5]),
        ("hospital-a", Some(&b), vec![0.25, -0.5]),
        ("hospital-b", Some(&a), vec![0.25; 3]),
    ] {
        let refused = play(&three, fresh_session().unwrap(), name, key, &input).await.unwrap_err();
        assert_eq!(refused.exit, Exit::Refused, "{refused}");
        let pinned = if name == "hospital-a" { a.public() } else { b.public() };
        for wanted in [name, &pinned.short(), "private key", "operators of both servers"] {
            assert!(refused.message.contains(wanted), "{refused}");
        }
    }
    // As a browser does it: all players, without keys.
    let mut browser = Client::connect(&three.cluster).await.unwrap();
    let inputs = vec![vec![0.25, -0.5], vec![0.5, 0.25, 0.5]];
    let question = Question { model: "joint", inputs, batch: 1, ..Question::default() };
    let refused = browser.ask(question.clone()).await.unwrap_err();
    assert!(refused.message.contains("browsers hold no keys"), "{refused}");
    // Holding one's own key does not grant another's output.
    let keys = [("hospital-a".to_owned(), a.clone())].into();
    let mut greedy = Client::connect(&three.cluster).await.unwrap().with_keys(keys);
    let refused = greedy.ask(question).await.unwrap_err();
    assert!(refused.message.contains("the player hospital-b is pinned"), "{refused}");
    // One whom the program does not have.
    let unknown = play(&three, fresh_session().unwrap(), "mallory", None, &[]).await.unwrap_err();
    assert_eq!(unknown.exit, Exit::Usage);
    assert!(unknown.message.contains("its players are: hospital-a, hospital-b, auditor"), "{unknown}");
}

/// What a server says of the model, and its challenge.
async fn described(socket: &mut WebSocketStream<TcpStream>, session: Session) -> (ClientSpec, Challenge) {
    let describe = Request::Describe { version: VERSION, session, model: "joint".into(), protocol: None };
    say(socket, describe).await;
    match hear(socket).await {
        Reply::Spec { spec, challenge, .. } => (spec, challenge),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_good_once_for_one_server_and_one_query() {
    let (three, [a, _]) = pinned(("", "")).await;
    let session = fresh_session().unwrap();
    let mut socket = three.client(Role::Server0).await;
    let (spec, challenge) = described(&mut socket, session).await;
    let sign = |role, challenge: &Challenge, session: &Session, plan: &[u8; 32], player: &str| {
        a.sign(&proof(role, challenge, session, plan, player)).to_vec()
    };
    let ask = |session, signature| {
        let players = vec![Playing { player: "hospital-a".into(), signature: Some(signature) }];
        Request::Ask { session, model: "joint".into(), plan: spec.plan, batch: 1, players }
    };
    let good = sign(Role::Server0, &challenge, &session, &spec.plan, "hospital-a");
    // Taken: the refusal that comes is of what follows, a part that is none.
    say(&mut socket, ask(session, good.clone())).await;
    say(&mut socket, Request::Part { session, index: 7, bytes: vec![1] }).await;
    assert!(refusal(&mut socket).await.message.contains("part 0 comes next"));
    // Replayed on the same connection, on another one that has a challenge of its own, and at the other server.
    say(&mut socket, ask(session, good.clone())).await;
    let replayed = refusal(&mut socket).await;
    assert_eq!(replayed.code, Code::Refused);
    assert!(replayed.message.contains("signed twice"), "{replayed}");
    for role in [Role::Server0, Role::Server1] {
        let mut other = three.client(role).await;
        described(&mut other, session).await;
        say(&mut other, ask(session, good.clone())).await;
        assert!(refusal(&mut other).await.message.contains("made for another query"));
    }
    // Anything else that is signed over is not this query.
    type Sign<'a> = Box<dyn Fn(&Challenge) -> Vec<u8> + 'a>;
    let wrong: Vec<Sign<'_>> = vec![
        Box::new(|challenge| a.sign(challenge).to_vec()),
        Box::new(|challenge| sign(Role::Server1, challenge, &session, &spec.plan, "hospital-a")),
        Box::new(|challenge| sign(Role::Server0, challenge, &[9; 16], &spec.plan, "hospital-a")),
        Box::new(|challenge| sign(Role::Server0, challenge, &session, &[9; 32], "hospital-a")),
        Box::new(|challenge| sign(Role::Server0, challenge, &session, &spec.plan, "hospital-b")),
        Box::new(|_| sign(Role::Server0, &[9; 32], &session, &spec.plan, "hospital-a")),
        Box::new(|_| vec![0; 64]),
        Box::new(|_| vec![]),
        Box::new(|_| vec![1; 65]),
    ];
    for (index, signature) in wrong.iter().enumerate() {
        let (_, challenge) = described(&mut socket, session).await;
        say(&mut socket, ask(session, signature(&challenge))).await;
        assert!(refusal(&mut socket).await.message.contains("another key's"), "{index}");
    }
    // Challenges are few: the oldest one is forgotten.
    let (_, challenge) = described(&mut socket, session).await;
    for other in 0..three.cluster.limits.sessions_per_peer as u8 {
        described(&mut socket, [other; 16]).await;
    }
    say(&mut socket, ask(session, sign(Role::Server0, &challenge, &session, &spec.plan, "hospital-a"))).await;
    assert!(refusal(&mut socket).await.message.contains("did not describe the model"));
    // The same player twice, and nobody.
    let twice = vec![Playing { player: "auditor".into(), signature: None }; 2];
    for (players, says) in [(twice, "named twice"), (vec![], "a query for nobody")] {
        say(&mut socket, Request::Ask { session, model: "joint".into(), plan: spec.plan, batch: 1, players }).await;
        assert!(refusal(&mut socket).await.message.contains(says));
    }
}
