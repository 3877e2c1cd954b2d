//! The system as its operators meet it: three processes, real sockets, real keys, through the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test that cannot go on has failed"
)]

mod training;
mod trial;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ndarray::arr2;
use selkie::graph::{Bounds, Graph};
use selkie::program::{Numbers, Tensor, Weights};
use selkie::{Protocol, Role};
use selkie_server::Session;
use selkie_server::identity::Identity;
use selkie_server::onnx;
use selkie_server::train::Net;
use trial::{Trial, copy, request, selkie};

#[test]
fn a_model_is_deployed_and_asked_and_survives_restarts() {
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    trial.deploy("model.onnx", "a").is(0, &[]);
    let first = trial.predict(&["--model", "a", "--count", "5", "--batch", "2", "--reference", "model.onnx"]).json();
    assert_eq!(first["agreement"], 1.0);
    assert!(first["max_abs_error"].as_f64().unwrap() < 0.02);
    for field in ["rounds", "online_bytes", "offline_bytes", "client_bytes"] {
        assert_eq!(first[field], first[format!("planned_{field}")], "{field}");
    }
    assert!(first["wire_bytes"].as_u64() > first["online_bytes"].as_u64());

    // Deployed again under the same name: the new one answers.
    trial.deploy("other.onnx", "a").is(0, &[]);
    let reference = ["--model", "a", "--count", "5", "--reference", "other.onnx"];
    assert_eq!(trial.predict(&reference).json()["agreement"], 1.0);

    let before = trial.epoch(1);
    for role in Role::ALL {
        assert_eq!(trial.terminate(role), 0, "SIGTERM ends a party in good order");
    }
    trial.parties();
    assert_ne!(trial.epoch(1), before);
    assert_eq!(trial.predict(&reference).json()["agreement"], 1.0);
    for role in Role::ALL {
        let log = trial.log(role);
        assert!(!log.contains("PRIVATE") && !log.contains("seed"), "{log}");
    }
}

#[test]
fn a_party_that_is_killed_in_a_prediction_is_named_at_once_and_welcomed_back() {
    let mut trial = Trial::new();
    // One query that takes seconds, so that every kill comes in the middle of it: a network with many ReLUs, and a batch that
    // the default stock would refuse.
    fs::write(trial.path("model.onnx"), onnx::write(&Net::D.untrained(7)).unwrap()).unwrap();
    trial.configure("stock_units = 64", "stock_units = 256");
    trial.parties();
    trial.epoch(0);
    trial.deploy("model.onnx", "a").is(0, &[]);
    let mut epochs = vec![trial.epoch(1)];
    for role in Role::ALL {
        // server1 begins last: it waits for server0's word and for the material.
        let queries = |trial: &Trial| trial.log(Role::Server1).matches("begun").count();
        let before = queries(&trial);
        let config = ["--config", "cluster.toml", "--images", "images", "--model", "a", "--batch", "256"];
        let mut asking = trial.start(&[&["predict"][..], &config].concat());
        trial.until("a prediction runs", |trial| asking.has_ended() || queries(trial) > before);
        trial.kill(role);
        let killed = Instant::now();
        let ended = asking.wait();
        let took = killed.elapsed();
        let named = format!("{role} at {}", trial.address(role));
        ended.is(4, &[&named, "went away"]);
        assert!(took < Duration::from_secs(5), "{took:?}");

        // Without it nothing works, and it is named, too.
        let start = Instant::now();
        trial.predict(&["--model", "a", "--count", "1"]).is(4, &[&named, "is not there"]);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

        trial.party(role);
        epochs.push(trial.epoch(1));
        let answer = trial.predict(&["--model", "a", "--count", "3", "--reference", "model.onnx"]).json();
        assert_eq!(answer["agreement"], 1.0);
    }
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), 4, "every restart is a new epoch");
}

#[test]
fn bad_requests_are_refused_and_disturb_nobody() {
    let mut trial = Trial::new();
    // Nobody is there yet.
    let zero = format!("server0 at {}", trial.address(Role::Server0));
    trial.deploy("model.onnx", "a").is(4, &[&zero, "crypto-producer at", "nothing was deployed"]);
    trial.predict(&["--model", "a"]).is(4, &[&zero, "selkie server0"]);
    trial.parties();
    trial.epoch(0);
    trial.deploy("model.onnx", "a").is(0, &[]);

    trial.predict(&["--model", "b", "--count", "1"]).is(2, &["\"b\"", "those deployed are: a"]);
    trial.predict(&["--model", "../a"]).is(2, &["cannot be a model's name"]);
    trial.predict(&["--model", "a", "--count", "999"]).is(2, &["256 images"]);
    trial.predict(&["--model", "a", "--batch", "100"]).is(2, &["a takes 1 to 64 at a time"]);
    trial.deploy("model.onnx", "../a").is(2, &["cannot be a model's name"]);
    trial.deploy("images", "a").is(2, &[]);

    // Images of another size.
    let mut small = vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 5];
    small.extend([9; 25]);
    fs::write(trial.path("small"), small).unwrap();
    let args = ["predict", "--config", "cluster.toml", "--model", "a", "--images", "small"];
    trial.run(&args).is(2, &["25 values"]);

    // A deployer whom nobody knows.
    Identity::generate().unwrap().save(&trial.path("stranger.key"), false).unwrap();
    let stranger =
        ["deploy", "model.onnx", "--name", "a", "--config", "cluster.toml", "--deployer-key", "stranger.key"];
    trial.run(&stranger).is(3, &["refused"]);

    let answer = trial.predict(&["--model", "a", "--count", "3", "--reference", "model.onnx"]).json();
    assert_eq!(answer["agreement"], 1.0);
    let page = request(&trial.address(Role::Server0), "/client").unwrap();
    assert!(page.starts_with("HTTP/1.1 426"), "{page}");
}

#[test]
fn a_party_with_another_key_is_not_let_in() {
    let mut trial = Trial::new();
    // server1's process holds another key than the others pin.
    let old = trial.cluster().party(Role::Server1).key.to_string();
    let other = Identity::generate().unwrap();
    other.save(&trial.path("other.key"), false).unwrap();
    let text = fs::read_to_string(trial.path("cluster.toml")).unwrap();
    let text = text.replacen(&old, &other.public().to_string(), 1).replacen("\"server1.key\"", "\"other.key\"", 1);
    fs::write(trial.path("wrong.toml"), text).unwrap();
    trial.party(Role::Server0);
    trial.party(Role::CryptoProducer);
    trial.party_with(Role::Server1, "wrong.toml");
    trial.until("server0 says whom it met", |trial| trial.log(Role::Server0).contains(&other.public().to_string()));
    assert!(trial.health(Role::Server0)["epoch"].is_null());
    trial.deploy("model.onnx", "a").is(3, &["is not server1"]);
    trial.kill(Role::Server1);
    // A private key that does not belong to the pinned one does not even start.
    trial.configure("\"server1.key\"", "\"other.key\"");
    trial.run(&["server1", "--config", "cluster.toml"]).is(2, &["server1.key", "belongs to the public key"]);
}

#[test]
fn damaged_state_is_reported_and_the_rest_is_served() {
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    trial.deploy("model.onnx", "good").is(0, &[]);
    trial.deploy("other.onnx", "bad").is(0, &[]);
    trial.epoch(2);
    trial.kill(Role::Server1);
    let path = trial.path("state/server1/bad.model");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    // A file of another party, one of a later release, and one that is nothing.
    copy(&trial.path("state/server0/good.model"), &trial.path("state/server1/foreign.model"));
    let mut newer = fs::read(trial.path("state/server1/good.model")).unwrap();
    newer[b"selkie model\n".len()] = 9;
    fs::write(trial.path("state/server1/newer.model"), newer).unwrap();
    fs::write(trial.path("state/server1/nothing.model"), b"hello").unwrap();
    trial.party(Role::Server1);
    trial.epoch(1);
    let log = trial.log(Role::Server1);
    for (file, what) in [
        ("bad.model", "checksum is wrong"),
        ("foreign.model", "belongs to server0"),
        ("newer.model", "format 9"),
        ("nothing.model", "no model of selkie's"),
    ] {
        let line = log.lines().find(|line| line.contains(file) && line.contains("ERROR")).unwrap_or_default();
        assert!(line.contains(what) && line.contains("deploy it again"), "{file}: {log}");
    }
    let good = trial.predict(&["--model", "good", "--count", "2", "--reference", "model.onnx"]).json();
    assert_eq!(good["agreement"], 1.0);
    trial.predict(&["--model", "bad", "--count", "1"]).is(2, &["\"bad\"", "server1"]);
    trial.deploy("other.onnx", "bad").is(0, &[]);
    trial.predict(&["--model", "bad", "--count", "1"]).is(0, &[]);
}

#[test]
fn versions_that_differ_are_never_mixed() {
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    for role in [Role::Server1, Role::CryptoProducer] {
        trial.deploy("model.onnx", "a").is(0, &[]);
        let state = trial.path(&format!("state/{role}/a.model"));
        copy(&state, &trial.path("old"));
        trial.deploy("other.onnx", "a").is(0, &[]);
        trial.epoch(1);
        trial.kill(role);
        copy(&trial.path("old"), &state);
        trial.party(role);
        trial.until("the others refuse", |trial| trial.log(role).contains("than its peer"));
        let ended = trial.predict(&["--model", "a", "--count", "1"]);
        ended.is(3, &["deploy it again"]);
        assert!(ended.err.matches("program").count() >= 2, "both are shown: {ended:?}");
        trial.deploy("model.onnx", "a").is(0, &[]);
        let good = trial.predict(&["--model", "a", "--count", "2", "--reference", "model.onnx"]).json();
        assert_eq!(good["agreement"], 1.0);
    }
}

#[test]
fn a_party_that_hangs_is_named_and_welcomed_back() {
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    trial.deploy("model.onnx", "a").is(0, &[]);
    for role in Role::ALL {
        let before = trial.epoch(1);
        trial.signal(role, "-STOP");
        let start = Instant::now();
        let ended = trial.predict(&["--model", "a", "--count", "4"]);
        let took = start.elapsed();
        trial.signal(role, "-CONT");
        ended.is(4, &[&format!("{role} at {}", trial.address(role))]);
        assert!(took < Duration::from_secs(6), "{took:?}");
        trial.until("a new epoch", |trial| trial.health(Role::Server0)["epoch"] != before);
        trial.epoch(1);
        trial.predict(&["--model", "a", "--count", "1"]).is(0, &[]);
    }
}

#[test]
fn a_session_runs_a_program_over_three_processes_and_leaves_nothing() {
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    let graph = Graph::new();
    let x = graph.private_input("prediction-client", "x", &[2], [-1.0, 1.0]).unwrap();
    let w = graph.private_variable("model-trainer", "w", &[2, 2]).unwrap();
    let y = x.matmul(&w).unwrap().relu().unwrap();
    graph.output("prediction-client", &y).unwrap();
    graph.output("model-trainer", &y.argmax(0).unwrap()).unwrap();
    let program = graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap();
    let w = Tensor { shape: vec![2, 2], values: vec![2.0, 0.0, 0.0, -4.0] };
    let weights = Weights([("w".to_owned(), w)].into());
    let input = arr2(&[[0.5, 0.5], [-0.5, -0.25]]).into_dyn();
    let deployer = Identity::load(&trial.path("deployer.key")).unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let run = async {
        let cluster = trial.cluster();
        // `init --local` pins the model trainer to the deployer's key.
        let keys = |held: bool| held.then(|| ("model-trainer".to_owned(), deployer.clone())).into_iter().collect();
        for protocol in Protocol::ALL.iter().copied().filter(|protocol| protocol.compares()) {
            let remote = |held| Session::remote(&cluster, deployer.clone(), keys(held), &program, &weights, protocol);
            let mut session = remote(true).await.unwrap();
            for _ in 0..3 {
                let ran = session.run(&[("x", input.view())]).await.unwrap();
                assert_eq!(ran.outputs[0].1, arr2(&[[1.0, 0.0], [0.0, 1.0]]).into_dyn());
                assert_eq!(ran.outputs[1].1, arr2(&[[0.0], [1.0]]).into_dyn());
                let cost = ran.statistics;
                assert_eq!(cost.rounds, cost.planned.rounds);
                assert_eq!(cost.online_bytes, cost.planned.online_bytes);
                assert_eq!(cost.offline_bytes, cost.planned.offline_bytes);
                assert_eq!(cost.client_bytes, cost.planned.client_bytes);
            }
            session.close().await.unwrap();
            let mut keyless = remote(false).await.unwrap();
            let refused = keyless.run(&[("x", input.view())]).await.unwrap_err();
            assert!(refused.message.contains("model-trainer is pinned"), "{refused}");
        }
    };
    runtime.block_on(async { tokio::time::timeout(trial::LONG, run).await.unwrap() });
    trial.until("the programs are gone", |trial| {
        Role::ALL.iter().all(|role| trial.health(*role)["models"].as_array().is_some_and(Vec::is_empty))
    });
    for role in Role::ALL {
        assert_eq!(fs::read_dir(trial.path(&format!("state/{role}"))).unwrap().count(), 0);
        let log = trial.log(role);
        assert!(log.contains("retired") && !log.contains("PRIVATE"), "{log}");
    }
}

#[test]
fn a_busy_port_is_said() {
    let trial = Trial::new();
    let address = trial.address(Role::Server0);
    let _held = TcpListener::bind(&address).unwrap();
    trial.run(&["server0", "--config", "cluster.toml"]).is(1, &[&address, "in use"]);
}

#[test]
fn the_demo_predicts_and_serves_its_page() {
    let once = Command::new(selkie()).args(["demo", "--once"]).output().unwrap();
    let ended = trial::Ended::from(once);
    assert_eq!(ended.code, 0, "{ended:?}");
    for line in ["digit ", "the same as in clear", "rounds "] {
        assert!(ended.out.contains(line), "{ended:?}");
    }

    let mut demo = Command::new(selkie()).arg("demo").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready http://").map(str::to_owned)).unwrap();
    let host = ready.trim_end_matches('/');
    let page = request(host, "/").unwrap();
    assert!(
        page.contains("content-security-policy: default-src 'none'; script-src 'self' 'wasm-unsafe-eval'"),
        "{page}"
    );
    assert!(page.contains("x-content-type-options: nosniff"));
    let cluster: serde_json::Value = serde_json::from_str(&trial::http(host, "/cluster.json").unwrap()).unwrap();
    assert_eq!(cluster["model"], "mnist");
    assert_eq!(cluster["refused"].as_object().map(serde_json::Map::len), Some(0), "every protocol is offered");
    let server0 = cluster["server0"].as_str().unwrap().strip_prefix("ws://").unwrap().strip_suffix("/client").unwrap();
    assert!(page.contains(&format!("ws://{server0}")), "the page may talk to server0");
    assert!(trial::http(server0, "/healthz").unwrap().contains("\"ready\":true"));
    assert!(request(host, "/demo/model.bin").unwrap().contains("application/octet-stream"));
    assert!(request(host, "/../../etc/passwd").unwrap().starts_with("HTTP/1.1 404"));
    let sent = Command::new("kill").args(["-TERM", &demo.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert!(demo.wait().unwrap().success());
}
