//! Programs that live only as long as their deployer's link, and sessions that use them.

use ndarray::{ArrayD, IxDyn};
use selkie::Session as Local;

use super::*;
use crate::client::Keys;
use crate::deploy::{Held, each, hold};
use crate::exit::Failure;
use crate::remote::Session as Remote;

impl Three {
    async fn remote(&self, (program, weights): &(Program, Weights), keys: Keys) -> Result<Remote, Failure> {
        let deployer = self.deployer.identity.clone();
        Remote::remote(&self.cluster, deployer, keys, program, weights, Protocol::default()).await
    }

    async fn hold(&self, name: &str, version: u64) -> Result<Held, Failure> {
        let (program, weights) = network(1.0);
        let programs = (&program).into();
        let runs = &each(&[Protocol::default()], &programs);
        let offer = Offer { name, version, runs, weights: &weights, variant: Variant::default() };
        hold(&self.cluster, &self.deployer, &offer).await
    }

    /// Waits until no party knows any model, and sees that nothing is left of any: in the era, or on disk.
    async fn empty(&self) {
        let empty = async {
            while !self.services.iter().all(|service| service.node.models().is_empty()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, empty).await.unwrap();
        for service in &self.services {
            let era = service.node.current_era().unwrap();
            assert!(era.is_empty(), "{}", service.node.role);
        }
        self.nothing_stored();
    }

    fn nothing_stored(&self) {
        for role in Role::ALL {
            let stored: Vec<_> = std::fs::read_dir(self.cluster.state(role).unwrap()).unwrap().collect();
            assert!(stored.is_empty(), "{stored:?}");
        }
    }
}

fn array(shape: &[usize], values: Vec<f32>) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_run_gives_and_costs_what_a_local_one_does() {
    let three = Three::new().await;
    let network = network(2.0);
    let mut remote = three.remote(&network, Keys::new()).await.unwrap();
    let mut local = Local::local(&network.0, &network.1, Protocol::default(), [3; 32]).unwrap();
    for batch in [1, 3, 2] {
        let values: Vec<f32> = (0..4 * batch).map(|i| (i as f32 * 0.37).sin()).collect();
        let ran = remote.run(&[("x", array(&[batch, 4], values.clone()).view())]).await.unwrap();
        let (wanted, moved) = local.run_rows(&[&values], batch, &mut |_, _, _| ()).unwrap();
        assert_eq!(ran.outputs.len(), 1);
        assert_eq!(ran.outputs[0].0, "c");
        // Neither has rounded anything: products leave at full scale.
        assert_eq!(ran.outputs[0].1, array(&[batch, 3], wanted[0].clone()));
        let cost = ran.statistics;
        let costs = [cost.online_bytes, cost.offline_bytes, cost.client_bytes];
        assert_eq!((cost.rounds, costs), (moved.rounds, [moved.online_bytes, moved.offline_bytes, moved.client_bytes]));
        let planned = [cost.planned.online_bytes, cost.planned.offline_bytes, cost.planned.client_bytes];
        assert_eq!((cost.rounds, costs), (cost.planned.rounds, planned));
        assert!(cost.wire_bytes > costs.iter().sum() && cost.micros > 0);
        three.nothing_stored();
    }
    for (inputs, says) in [
        (vec![], "the input x not at all"),
        (vec![("y", array(&[1, 4], vec![0.0; 4]))], "the input y, which the program does not have"),
        (vec![("x", array(&[1, 4], vec![0.0; 4])), ("x", array(&[1, 4], vec![0.0; 4]))], "or twice"),
        (vec![("x", array(&[5], vec![0.0; 5]))], "shape [5]"),
        (vec![("x", array(&[0, 4], vec![]))], "shape [0, 4]"),
    ] {
        let given: Vec<_> = inputs.iter().map(|(name, values)| (*name, values.view())).collect();
        let failed = remote.run(&given).await.unwrap_err();
        assert_eq!(failed.exit, Exit::Usage);
        assert!(failed.message.contains(says), "{failed}");
    }
    let name = remote.name().to_owned();
    remote.close().await.unwrap();
    // All three have said that it is gone.
    three.empty().await;
    let mut client = Client::connect(&three.cluster).await.unwrap();
    let gone = client.predict(&name, vec![0.0; 4], 1).await.unwrap_err();
    assert!(gone.message.contains("no model is called"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_goes_with_the_link_of_its_deployer() {
    let three = Three::new().await;
    let mut remote = three.remote(&network(2.0), Keys::new()).await.unwrap();
    let x = array(&[1, 4], vec![0.5; 4]);
    let ran = remote.run(&[("x", x.view())]).await.unwrap();
    assert_eq!(ran.outputs[0].1, array(&[1, 3], vec![1.0; 3]));
    // Other clients may ask it by its name, and it stands in no list.
    let mut client = Client::connect(&three.cluster).await.unwrap();
    assert_eq!(client.predict(remote.name(), vec![0.5; 4], 1).await.unwrap().outputs[0], [1.0; 3]);
    let mut socket = three.client(Role::Server0).await;
    say(&mut socket, Request::List { session: [1; 16] }).await;
    assert_eq!(hear(&mut socket).await, Reply::Models { session: [1; 16], models: vec![] });
    drop(remote);
    three.empty().await;
    // One that is dropped before it could be set up leaves nothing, either.
    for version in 0..4 {
        drop(three.hold("short", version).await.unwrap());
        three.empty().await;
    }
    three.deploy("m", 2.0).await;
    assert_eq!(client.predict("m", vec![0.5; 4], 1).await.unwrap().outputs[0], [1.0; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_programs_are_few_have_names_of_their_own_and_fresh_versions() {
    let three = Three::with("programs_per_deployer = 8", "programs_per_deployer = 2").await;
    let refused = |result: Result<Held, Failure>, says: &str| {
        let failure = result.err().unwrap();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains(says), "{failure}");
    };
    let one = three.hold("one", 1).await.unwrap();
    refused(three.hold("other", 1).await, "masks must not be used twice");
    refused(three.hold("one", 2).await, "a model called \"one\" already");
    let two = three.hold("two", 3).await.unwrap();
    refused(three.hold("three", 4).await, "holds 2 ephemeral programs");
    // Lasting models do not count, and neither kind takes the other's name.
    three.deploy("lasting", 2.0).await;
    refused(three.hold("fresh", 5).await, "holds 2 ephemeral");
    let (program, weights) = network(3.0);
    let (cluster, me) = (&three.cluster, &three.deployer);
    let taking =
        deploy(cluster, me, "one", &each(&[Protocol::default()], &(&program).into()), &weights).await.unwrap_err();
    assert!(taking.message.contains("already: use another name"), "{taking}");
    two.retire(&three.cluster).await.unwrap();
    refused(three.hold("lasting", 5).await, "a model called \"lasting\" already");
    // A version is taken also when its program is gone.
    one.retire(&three.cluster).await.unwrap();
    refused(three.hold("one", 1).await, "masks must not be used twice");
    drop(three.hold("one", 6).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_new_epoch_and_ends_with_a_party() {
    let mut three = Three::new().await;
    let mut remote = three.remote(&network(2.0), Keys::new()).await.unwrap();
    let x = array(&[1, 4], vec![0.5; 4]);
    remote.run(&[("x", x.view())]).await.unwrap();
    // The epoch ends; the program is set up anew in the next one.
    let before = *three.services[0].node.current_era().unwrap().epoch.as_bytes();
    three.services[1].node.links.link(Role::Server0).unwrap().close("a test");
    let next = async {
        while three.services[0].node.current_era().is_none_or(|era| *era.epoch.as_bytes() == before) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, next).await.unwrap();
    three.ready().await;
    assert_eq!(remote.run(&[("x", x.view())]).await.unwrap().outputs[0].1, array(&[1, 3], vec![1.0; 3]));
    // A party goes, and with it the program.
    three.services.pop().unwrap().stop().await;
    let failed = timeout(LONG, remote.run(&[("x", x.view())])).await.unwrap().unwrap_err();
    assert_eq!(failed.exit, Exit::PeerFailed);
    assert!(
        failed.message.contains("crypto-producer at") && failed.message.contains("begin a new session"),
        "{failed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_acts_for_pinned_players_with_their_keys() {
    let (three, [a, b]) = players::pinned(("", "")).await;
    let joint = players::joint();
    let (x, y) = (array(&[1, 2], vec![0.25, -0.5]), array(&[1, 3], vec![0.5, 0.25, 0.5]));
    let inputs = [("y", y.view()), ("x", x.view())];
    let mut without = three.remote(&joint, Keys::new()).await.unwrap();
    let refused = without.run(&inputs).await.unwrap_err();
    assert!(refused.exit == Exit::Refused && refused.message.contains("hospital-a is pinned"), "{refused}");
    let keys = [("hospital-a".to_owned(), a), ("hospital-b".to_owned(), b)].into();
    let mut remote = three.remote(&joint, keys).await.unwrap();
    let ran = remote.run(&inputs).await.unwrap();
    let received: Vec<_> = ran.outputs.iter().map(|(player, values)| (player.as_str(), values.clone())).collect();
    let one = array(&[1, 1], vec![3.0]);
    assert_eq!(
        received,
        [("auditor", one.clone()), ("hospital-a", array(&[1, 2], vec![0.5, 0.0])), ("hospital-b", one)]
    );
}
