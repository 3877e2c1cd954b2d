//! Programs that keep variables from run to run.

use ndarray::{ArrayD, arr1};
use selkie::program::EntryPoints;

use super::*;
use crate::client::{Keys, Question};
use crate::remote::Session as Remote;

/// A counter: `add` changes it, `times` uses it in a product, `show` shows it.
fn counter() -> (EntryPoints, Weights) {
    let graph = Graph::new();
    let counter = graph.kept_variable("owner", "counter", &[1], [-1000.0, 1000.0]).unwrap();
    graph.initialise(&counter, arr1(&[1.0]).view().into_dyn()).unwrap();
    let by = graph.private_input("player", "by", &[1], [-10.0, 10.0]).unwrap();
    let add = graph.entry("add");
    let sum = (&counter + &by).unwrap();
    add.assign(&counter, &sum).unwrap();
    add.output("player", &sum).unwrap();
    graph.entry("show").output("owner", &counter).unwrap();
    let factor = graph.private_input("player", "factor", &[1], [-10.0, 10.0]).unwrap();
    graph.entry("times").output("player", &(&counter * &factor).unwrap()).unwrap();
    let weights = graph.weights();
    (graph.compile_entries(Numbers::default(), Bounds::Proved(&weights)).unwrap(), weights)
}

fn number(x: f32) -> ArrayD<f32> {
    arr1(&[x]).into_dyn()
}

fn rounded(x: &[f32]) -> f32 {
    (x[0] * 1000.0).round() / 1000.0
}

impl Three {
    async fn deploy_counter(&self, protocols: &[Protocol]) {
        let (programs, weights) = counter();
        deploy(&self.cluster, &self.deployer, "c", &each(protocols, &programs), &weights).await.unwrap();
        self.ready().await;
    }

    async fn ask(&self, model: &str, inputs: &[f32]) -> f32 {
        let mut client = Client::connect(&self.cluster).await.unwrap();
        let inputs = inputs.iter().map(|x| vec![*x]).collect();
        let answer = client.ask(Question { model, inputs, batch: 1, ..Question::default() }).await.unwrap();
        rounded(&answer.outputs[0])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_session_keeps_what_a_local_one_keeps() {
    let three = Three::new().await;
    for protocol in Protocol::ALL.iter().copied() {
        let (programs, weights) = counter();
        let deployer = three.deployer.identity.clone();
        let remote = Remote::remote(&three.cluster, deployer, Keys::new(), &programs, &weights, protocol);
        let mut remote = remote.await.unwrap();
        let mut local = selkie::Session::local(&programs, &weights, protocol, [1; 32]).unwrap();
        for step in [2.0, -3.5, 0.25] {
            for (entry, input) in [("add", Some("by")), ("times", Some("factor")), ("show", None)] {
                let value = number(step);
                let inputs: Vec<_> = input.map(|name| (name, value.view())).into_iter().collect();
                let (ran, run) = (remote.call(entry, &inputs).await.unwrap(), local.call(entry, &inputs).unwrap());
                let of = |outputs: &[(String, ArrayD<f32>)]| rounded(outputs[0].1.as_slice().unwrap());
                assert_eq!(of(&ran.outputs), of(&run.outputs), "{protocol} {entry} {step}");
                assert_eq!(ran.statistics.online_bytes, run.statistics.online_bytes);
                assert_eq!(ran.statistics.planned.online_bytes, run.statistics.online_bytes);
            }
        }
        let error = remote.call("subtract", &[]).await.unwrap_err().to_string();
        assert!(error.contains("add, show, times"), "{error}");
        let two = ndarray::arr2(&[[1.0f32], [2.0]]).into_dyn();
        let error = remote.call("add", &[("by", two.view())]).await.unwrap_err().to_string();
        assert!(error.contains("single sample"), "{error}");
        remote.close().await.unwrap();
    }
}

/// Runs that change a variable take turns, and predictions go on meanwhile, each on one version.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_change_a_variable_take_turns() {
    let three = Three::new().await;
    three.deploy_counter(&[Protocol::Table, Protocol::Fss]).await;
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..12u32 {
        let cluster = three.cluster.clone();
        asking.spawn(async move {
            let mut client = Client::connect(&cluster).await.unwrap();
            let model = ["c:add", "c:add@fss", "c:times", "c:show"][i as usize % 4];
            for _ in 0..5 {
                let inputs = if model == "c:show" { vec![] } else { vec![vec![1.0]] };
                let question = Question { model, inputs, batch: 1, ..Question::default() };
                let answer = client.ask(question).await.unwrap();
                let value = rounded(&answer.outputs[0]);
                assert!(value.fract().abs() < 0.002 && (1.0..=32.0).contains(&value), "{model} {value}");
            }
        });
    }
    timeout(LONG * 3, asking.join_all()).await.unwrap();
    assert_eq!(three.ask("c:show", &[]).await, 31.0);
    assert_eq!(three.ask("c:times@fss", &[2.0]).await, 62.0);
}

/// What is kept outlives the processes, and a new deployment of the name does not find it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_outlives_epochs() {
    let mut three = Three::new().await;
    three.deploy_counter(&[Protocol::Table]).await;
    assert_eq!(three.ask("c:add", &[4.0]).await, 5.0);
    for index in [1, 2, 0] {
        let old = three.services.remove(index);
        let (role, identity) = (old.node.role, three.identities[index].clone());
        old.stop().await;
        let me = Me::new(role, identity).unwrap();
        let service = Service::start(three.cluster.clone(), role, me, None).await.unwrap();
        three.services.insert(index, service);
        three.ready().await;
        assert_eq!(three.ask("c:times", &[1.0]).await, 5.0, "after {role}");
    }
    assert_eq!(three.ask("c:add", &[1.0]).await, 6.0);
    three.deploy_counter(&[Protocol::Table]).await;
    assert_eq!(three.ask("c:show", &[]).await, 1.0);
    assert_eq!(three.ask("c:add", &[1.0]).await, 2.0);
}
