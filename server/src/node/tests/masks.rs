//! Inputs that their owner masks: what is burnt for them, who is handed which masks, and clients who take them and go.

use std::collections::HashSet;

use selkie::client::message::Secret;
use selkie::client::{Answer, Prediction, Progress};

use super::*;

/// relu(x W) as [`network`] has it, its input masked.
fn masked(scale: f32) -> (Program, Weights) {
    let graph = Graph::new();
    let x = graph.masked_input("c", "x", &[4], [-1.0, 1.0]).unwrap();
    let w = graph.private_variable("o", "w", &[4, 3]).unwrap();
    graph.output("c", &x.matmul(&w).unwrap().relu().unwrap()).unwrap();
    (graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap(), network(scale).1)
}

/// One client of both servers that can be looked at, stopped, and made to lie.
struct Raw {
    sockets: [WebSocketStream<TcpStream>; 2],
    prediction: Prediction,
    /// What each server has handed out.
    masks: [Vec<u8>; 2],
    /// What each server was sent of the inputs.
    inputs: [Vec<u8>; 2],
}

fn index(role: Role) -> usize {
    usize::from(role == Role::Server1)
}

impl Raw {
    async fn new(three: &Three, session: Session, batch: usize) -> Self {
        let sockets = [three.client(Role::Server0).await, three.client(Role::Server1).await];
        let prediction = Prediction::new(session, "m", None, vec![vec![0.5; 4 * batch]], batch, [9; 32]);
        Self { sockets, prediction, masks: Default::default(), inputs: Default::default() }
    }

    /// Goes on until both servers have handed out their masks; nothing of the inputs has left then.
    async fn masks(&mut self) -> Result<(), Refusal> {
        while self.masks.iter().any(Vec::is_empty) {
            assert_eq!(self.step(&mut |_, _| ()).await?, None);
        }
        assert!(self.inputs.iter().all(Vec::is_empty));
        Ok(())
    }

    /// Goes on to the answer; `change` may change what is sent of the inputs.
    async fn finish(&mut self, change: &mut dyn FnMut(Role, &mut Vec<u8>)) -> Result<Answer, Refusal> {
        loop {
            if let Some(answer) = self.step(change).await? {
                return Ok(answer);
            }
        }
    }

    /// Sends all that is to be sent and hears one message of the server that has something to say.
    async fn step(&mut self, change: &mut dyn FnMut(Role, &mut Vec<u8>)) -> Result<Option<Answer>, Refusal> {
        while let Some((to, bytes)) = self.prediction.poll() {
            let mut request = Request::decode(&bytes).unwrap();
            if let Request::Part { bytes, .. } = &mut request {
                change(to, bytes);
                self.inputs[index(to)].extend_from_slice(bytes);
            }
            say(&mut self.sockets[index(to)], request).await;
        }
        let [zero, one] = &mut self.sockets;
        let (from, reply) = tokio::select! {
            reply = hear(zero) => (Role::Server0, reply),
            reply = hear(one) => (Role::Server1, reply),
        };
        if let Reply::Masks { bytes: Secret(bytes), .. } = &reply {
            self.masks[index(from)].extend_from_slice(bytes);
        }
        match self.prediction.handle(from, &reply.encode())? {
            Progress::Going => Ok(None),
            Progress::Done(answer) => Ok(Some(*answer)),
        }
    }
}

impl Three {
    async fn masking() -> Self {
        let three = Self::new().await;
        three.deploy_program("m", &masked(2.0)).await;
        three
    }

    /// The next unit of the model that a server would burn.
    fn next(&self, role: usize) -> u64 {
        let node = &self.services[role].node;
        let version = node.model("m").unwrap().version;
        node.current_era().unwrap().current(version).unwrap().stock().next()
    }

    /// Somebody who behaves is answered.
    async fn answers(&self) {
        let mut client = Client::connect(&self.cluster).await.unwrap();
        let answer = timeout(LONG, client.predict("m", vec![0.5; 4], 1)).await.unwrap().unwrap();
        assert!((answer.outputs[0][0] - 1.0).abs() < 1e-3);
        assert_eq!(answer.client_bytes, answer.stats[0].planned.client_bytes);
        assert_eq!(answer.online_bytes(), answer.stats[0].planned.online_bytes);
        assert_eq!(answer.rounds(), answer.stats[0].planned.rounds);
    }
}

/// Equal inputs, asked again and again, by clients of whom every other one goes away with its masks.
#[tokio::test(flavor = "multi_thread")]
async fn masks_are_burnt_when_they_are_handed_out_and_none_is_handed_out_twice() {
    let three = Three::masking().await;
    let (mut seen, mut hats, batch) = (HashSet::new(), HashSet::new(), 3);
    for query in 0..6u8 {
        let mut raw = Raw::new(&three, [query + 1; 16], batch).await;
        raw.masks().await.unwrap();
        assert_eq!(three.next(0), 3 * (u64::from(query) + 1), "burnt before anything came of it");
        assert_eq!(three.next(1), three.next(0));
        for seed in raw.masks.iter().flat_map(|masks| masks.chunks(32)) {
            assert_eq!(seed.len(), 32);
            assert!(seen.insert(seed.to_vec()), "query {query}: a sub-seed that was handed out before");
        }
        if query % 2 == 0 {
            let answer = raw.finish(&mut |_, _| ()).await.unwrap();
            assert!(answer.outputs[0].chunks(3).all(|row| (row[0] - 1.0).abs() < 1e-3), "{:?}", answer.outputs);
            assert_eq!(raw.inputs[0], raw.inputs[1]);
            for row in raw.inputs[0].chunks(4 * 8) {
                assert!(hats.insert(row.to_vec()), "query {query}: one input looks like another");
            }
        }
    }
    assert_eq!((seen.len(), hats.len()), (6 * 2 * batch, 3 * batch));
    three.answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_with_its_masks_is_forgotten_but_not_at_once() {
    let three = Three::changed(&[("sessions = 256", "sessions = 4")]).await;
    three.deploy_program("m", &masked(2.0)).await;
    for session in 1..=4 {
        let mut raw = Raw::new(&three, [session; 16], 1).await;
        raw.masks().await.unwrap();
    }
    // Asking and leaving burns no faster than limits.sessions allow.
    let burnt = three.next(0);
    assert_eq!(burnt, 4);
    let mut fifth = Raw::new(&three, [5; 16], 1).await;
    let refused = fifth.masks().await.unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    assert!(refused.message.contains("busy"), "{refused}");
    assert_eq!(three.next(0), burnt);
    tokio::time::sleep(session::ONE_HALF + Duration::from_millis(500)).await;
    three.answers().await;
    for service in &three.services {
        assert!(service.node.gatherings.lock().unwrap().is_empty());
        assert_eq!(service.node.sessions.available_permits(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_cannot_ask_for_masks_and_give_up_at_will() {
    let three = Three::changed(&[("sessions_per_peer = 64", "sessions_per_peer = 8")]).await;
    three.deploy_program("m", &masked(2.0)).await;
    let mut raw = Raw::new(&three, [1; 16], 1).await;
    raw.masks().await.unwrap();
    let plan = three.services[0].node.model("m").unwrap().spec.plan;
    let [mut socket, _] = raw.sockets;
    say(&mut socket, Request::Part { session: [1; 16], index: 9, bytes: vec![1] }).await;
    assert!(refusal(&mut socket).await.message.contains("part 0 comes next"));
    for session in 2..=8 {
        let players = vec![Playing { player: "c".into(), signature: None }];
        say(&mut socket, Request::Ask { session: [session; 16], model: "m".into(), plan, batch: 1, players }).await;
        // Before or after the masks have come, this part is none.
        say(&mut socket, Request::Part { session: [session; 16], index: 9, bytes: vec![1] }).await;
        let mut reply = hear(&mut socket).await;
        if matches!(reply, Reply::Masks { .. }) {
            reply = hear(&mut socket).await;
        }
        assert!(matches!(reply, Reply::Refused { .. }), "{reply:?}");
    }
    let players = vec![Playing { player: "c".into(), signature: None }];
    say(&mut socket, Request::Ask { session: [9; 16], model: "m".into(), plan, batch: 1, players }).await;
    let busy = refusal(&mut socket).await;
    assert!(busy.message.contains("sessions_per_peer"), "{busy}");
    tokio::time::sleep(session::ONE_HALF + Duration::from_millis(500)).await;
    three.answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_take_its_time_but_not_for_ever() {
    let three = Three::with("idle_seconds = 30", "idle_seconds = 2").await;
    // Its crypto producer takes part, and waits for the inputs without seeing them.
    let (program, weights) = masked(2.0);
    let protocols = [Protocol::SecureNn];
    deploy(&three.cluster, &three.deployer, "m", &each(&protocols, &program.into()), &weights).await.unwrap();
    three.ready().await;
    let mut slow = Raw::new(&three, [1; 16], 1).await;
    slow.masks().await.unwrap();
    let spec = three.services[0].node.model("m").unwrap().spec.clone();
    let hats = spec.share_under(&[&[0.5; 4]], 1, [0; 32], slow.masks.each_ref().map(Vec::as_slice)).unwrap();
    for (index, half) in (0..).zip(hats.server0[0].chunks(16)) {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for socket in &mut slow.sockets {
            say(socket, Request::Part { session: [1; 16], index, bytes: half.to_vec() }).await;
        }
    }
    for socket in &mut slow.sockets {
        assert!(matches!(hear(socket).await, Reply::Part { .. }));
        assert!(matches!(hear(socket).await, Reply::Finished { .. }));
    }
    let mut silent = Raw::new(&three, [2; 16], 1).await;
    silent.masks().await.unwrap();
    // The server that notices first tells the other, which may tell the client before its own time is up.
    let [zero, one] = &mut silent.sockets;
    let late = [refusal(zero).await.message, refusal(one).await.message];
    assert!(late.iter().any(|late| late.contains("no more input came for 2 s")), "{late:?}");
    assert!(late.iter().all(|late| late.contains("no more input came") || late.contains("gave up")), "{late:?}");
    three.answers().await;
    assert!(three.services.iter().all(|service| service.node.gatherings.lock().unwrap().is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_come_early_twice_or_too_large_are_refused() {
    let three = Three::masking().await;
    let plan = three.services[0].node.model("m").unwrap().spec.plan;
    let players = vec![Playing { player: "c".into(), signature: None }];
    let ask = |session| Request::Ask { session, model: "m".into(), plan, batch: 1, players: players.clone() };
    // server1 has no masks before server0 has said which units are burnt, and nobody has asked that one.
    let mut early = three.client(Role::Server1).await;
    say(&mut early, ask([1; 16])).await;
    say(&mut early, Request::Part { session: [1; 16], index: 0, bytes: vec![0; 32] }).await;
    let refused = refusal(&mut early).await;
    assert!(refused.message.contains("before its masks were handed out"), "{refused}");
    // One who asks either server alone hears whom it did not ask.
    let mut alone = three.client(Role::Server1).await;
    say(&mut alone, ask([2; 16])).await;
    let refused = refusal(&mut alone).await;
    assert!(refused.message.contains("server0") && refused.message.contains("did not begin"), "{refused}");
    let mut alone = three.client(Role::Server0).await;
    say(&mut alone, ask([2; 16])).await;
    assert!(matches!(hear(&mut alone).await, Reply::Masks { .. }));
    let refused = refusal(&mut alone).await;
    assert!(refused.message.contains("never server1"), "{refused}");

    for (session, sizes, says) in [
        (3, &[33][..], "more input than the 32 bytes"),
        (4, &[MAX_PART], "more input than the 32 bytes"),
        (5, &[16, 17], "more input than the 32 bytes"),
        (6, &[0], "an empty part"),
    ] {
        let mut raw = Raw::new(&three, [session; 16], 1).await;
        raw.masks().await.unwrap();
        for (index, size) in (0..).zip(sizes) {
            say(&mut raw.sockets[0], Request::Part { session: [session; 16], index, bytes: vec![0; *size] }).await;
        }
        let refused = refusal(&mut raw.sockets[0]).await;
        assert!(refused.code == Code::Usage && refused.message.contains(says), "{refused}");
    }
    let mut twice = Raw::new(&three, [7; 16], 1).await;
    twice.masks().await.unwrap();
    for _ in 0..2 {
        say(&mut twice.sockets[0], Request::Part { session: [7; 16], index: 0, bytes: vec![0; 16] }).await;
    }
    assert!(refusal(&mut twice.sockets[0]).await.message.contains("part 0 of the inputs, where part 1 comes next"));
    // The same session again, while it is asked, by the same client and by another: no second masks.
    let mut first = Raw::new(&three, [8; 16], 1).await;
    first.masks().await.unwrap();
    let mut other = three.client(Role::Server0).await;
    say(&mut other, ask([8; 16])).await;
    assert!(refusal(&mut other).await.message.contains("in use"));
    first.finish(&mut |_, _| ()).await.unwrap();
    three.answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_the_servers_different_inputs_is_found_out() {
    let three = Three::masking().await;
    for liar in [Role::Server0, Role::Server1] {
        let mut raw = Raw::new(&three, [1 + index(liar) as u8; 16], 1).await;
        raw.masks().await.unwrap();
        let refused = raw.finish(&mut |to, bytes| bytes[5] ^= u8::from(to == liar)).await.unwrap_err();
        assert_eq!(refused.code, Code::Usage);
        assert!(refused.message.contains("the client sent the two servers different values"), "{refused}");
        let other = refusal(&mut raw.sockets[1 - index(liar)]);
        drop(timeout(Duration::from_secs(1), other).await);
    }
    three.answers().await;
}

/// `c` feeds a private and two masked inputs, `d` a masked one between them.
fn joint() -> (Program, Weights) {
    let graph = Graph::new();
    let p = graph.private_input("c", "p", &[2], [-1.0, 1.0]).unwrap();
    let x = graph.masked_input("c", "x", &[2], [-1.0, 1.0]).unwrap();
    let y = graph.masked_input("d", "y", &[2], [-1.0, 1.0]).unwrap();
    let z = graph.masked_input("c", "z", &[2], [-1.0, 1.0]).unwrap();
    graph.output("c", &(&(&p + &x).unwrap() - &z).unwrap()).unwrap();
    graph.output("d", &(&y * &x).unwrap()).unwrap();
    graph.output("auditor", &z.square().unwrap()).unwrap();
    (graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap(), Weights::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_handed_masks_of_another_players_inputs() {
    let three = Three::new().await;
    three.deploy_program("m", &joint()).await;
    let (session, batch) = ([7; 16], 2);
    let raw = async |player: &str, inputs: Vec<Vec<f32>>| {
        let sockets = [three.client(Role::Server0).await, three.client(Role::Server1).await];
        let prediction = Prediction::new(session, "m", None, inputs, batch, [9; 32]).playing(vec![player.to_owned()]);
        Raw { sockets, prediction, masks: Default::default(), inputs: Default::default() }
    };
    let of = |values: [f32; 2]| values.repeat(batch);
    let mut c = raw("c", vec![of([0.5, 0.25]), of([0.25, -0.5]), of([-1.0, 1.0])]).await;
    let mut d = raw("d", vec![of([1.0, 0.5])]).await;
    let mut auditor = raw("auditor", vec![]).await;
    // The auditor needs none, and is handed none; of the others each its own alone.
    let no_change = &mut |_: Role, _: &mut Vec<u8>| ();
    let (first, second, third) = {
        let (mut one, mut two, mut three) = (|_: Role, _: &mut Vec<u8>| (), |_: Role, _: &mut Vec<u8>| (), no_change);
        tokio::join!(c.finish(&mut one), d.finish(&mut two), auditor.finish(&mut three))
    };
    let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
    let close = |got: &[f32], wanted: [f32; 2]| {
        assert!(got.iter().zip(wanted.repeat(batch)).all(|(a, b)| (a - b).abs() < 1e-3), "{got:?}");
    };
    close(&first.outputs[0], [1.75, -1.25]);
    close(&second.outputs[0], [0.25, -0.25]);
    close(&third.outputs[0], [1.0, 1.0]);
    let lengths = [&c, &d, &auditor].map(|raw| raw.masks.each_ref().map(Vec::len));
    assert_eq!(lengths, [[2 * batch * 32; 2], [batch * 32; 2], [0; 2]]);
    let all = [&c, &d].map(|raw| raw.masks.concat()).concat();
    assert_eq!(all.chunks(32).collect::<HashSet<_>>().len(), 2 * 3 * batch);
    let moved: u64 = [&first, &second, &third].map(|answer| answer.client_bytes).iter().sum();
    assert_eq!(moved, first.stats[0].planned.client_bytes);
}

/// One of several takes its masks and leaves: the others hear so, and nothing stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_player_that_leaves_with_its_masks_ends_the_query_for_all() {
    let three = Three::new().await;
    three.deploy_program("m", &joint()).await;
    let players = |player: &str| vec![Playing { player: player.into(), signature: None }];
    let plan = three.services[0].node.model("m").unwrap().spec.plan;
    let ask =
        |player: &str| Request::Ask { session: [1; 16], model: "m".into(), plan, batch: 1, players: players(player) };
    let mut c = [three.client(Role::Server0).await, three.client(Role::Server1).await];
    let mut auditor = three.client(Role::Server0).await;
    say(&mut auditor, ask("auditor")).await;
    for socket in &mut c {
        say(socket, ask("c")).await;
    }
    for socket in &mut c {
        assert!(matches!(hear(socket).await, Reply::Masks { .. }));
    }
    drop(c);
    let told = refusal(&mut auditor).await;
    assert!(told.message.contains("acts for c went away"), "{told}");
}
