//! Training whose parties are killed: whatever happens, both servers go on from one version, and no run is lost or counted twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use selkie::graph::{Bounds, Graph};
use selkie::layers::{Dense, Initialiser, Layer, Owner, Sgd, mean_squared_error};
use selkie::program::{EntryPoints, Numbers, Weights};
use selkie::{Protocol, Role, Seed, clear};
use selkie_server::client::{Client, Question};
use selkie_server::deploy::{deploy, each};
use selkie_server::exit::Failure;
use selkie_server::identity::Identity;
use selkie_server::link::Me;

use crate::trial::{LONG, Trial};

const ROWS: usize = 8;

/// A linear model and a counter of its steps: `train` changes both, `show` shows both.
fn counted() -> (EntryPoints, Weights) {
    let graph = Graph::new();
    let owner = Owner::new(&graph, "model-owner", Seed::new([3; 32])).keeping([-2.0, 2.0]);
    let model = Dense::new(&owner, "linear", [2, 1], Initialiser::Zeros).unwrap();
    let steps = graph.kept_variable("model-owner", "steps", &[1], [0.0, 1e6]).unwrap();
    graph.initialise(&steps, ndarray::arr1(&[0.0]).view().into_dyn()).unwrap();
    let input = |name, columns| graph.private_input("data-owner", name, &[ROWS as u32, columns], [-1.0, 1.0]).unwrap();
    let (x, target) = (input("x", 2), input("target", 1));
    let one = graph.private_input("data-owner", "one", &[1], [0.0, 1.0]).unwrap();
    let pass = model.pass(&x).unwrap();
    let loss = mean_squared_error(&pass.y, &target).unwrap();
    let gradients = model.parameter_gradients(&pass, &loss.gradient).unwrap();
    let (train, show) = (graph.entry("train"), graph.entry("show"));
    let sgd = Sgd { rate: 0.02.into(), samples: ROWS as u32 };
    for (parameter, gradient) in model.parameters().iter().zip(&gradients) {
        train.assign(parameter, &sgd.step(parameter, gradient).unwrap()).unwrap();
        show.output("model-owner", parameter).unwrap();
    }
    let next = (&steps + &one).unwrap();
    train.assign(&steps, &next).unwrap();
    train.output("data-owner", &next).unwrap();
    show.output("model-owner", &steps).unwrap();
    let weights = graph.weights();
    (graph.compile_entries(Numbers::default(), Bounds::Proved(&weights)).unwrap(), weights)
}

/// What `train` is fed, in the program's order; the target is 0.5 x1 - 0.25 x2 + 0.1.
fn batch() -> Vec<Vec<f32>> {
    let x = Initialiser::Uniform { limit: 1.0 }.draw(ROWS * 2, [1, 1], &Seed::new([9; 32]));
    let target = x.chunks(2).map(|row| 0.5 * row[0] - 0.25 * row[1] + 0.1).collect();
    vec![x, target, vec![1.0]]
}

/// The variables, the counter last.
async fn show(client: &mut Client) -> (Vec<f32>, u64) {
    let question = Question { model: "linear:show", batch: 1, ..Question::default() };
    let mut values = client.ask(question).await.unwrap().outputs.concat();
    let steps = values.pop().unwrap();
    assert!((steps - steps.round()).abs() < 0.01 && steps >= 0.0, "shares of two versions: {steps}");
    (values, steps.round() as u64)
}

/// Steps until a party fails or `enough`: how many were reported as done, and the failure.
async fn train(client: &mut Client, mut enough: impl FnMut(u64) -> bool) -> (u64, Option<Failure>) {
    let mut done = 0;
    while !enough(done) {
        let question = Question { model: "linear:train", inputs: batch(), batch: 1, ..Question::default() };
        if let Err(failure) = client.ask(question).await {
            return (done, Some(failure));
        }
        done += 1;
    }
    (done, None)
}

#[test]
fn whoever_is_killed_in_training_both_servers_go_on_from_one_version() {
    let kills: u64 = std::env::var("SELKIE_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let mut random = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };

    let (programs, mut in_clear) = counted();
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cluster = trial.cluster();
    let deployer = Me::deployer(Identity::load(&trial.path("deployer.key")).unwrap()).unwrap();
    let protocols = [Protocol::Table];
    runtime.block_on(deploy(&cluster, &deployer, "linear", &each(&protocols, &programs), &in_clear)).unwrap();

    let (mut counted, mut clear_steps, mut in_doubt) = (0, 0, 0);
    let mut epochs = vec![trial.epoch(2)];
    let start = Instant::now();
    for kill in 1..=kills {
        let role = Role::ALL[draw(3) as usize];
        let moment = Duration::from_micros(draw(60_000));
        let (begun, mut client) = (AtomicBool::new(false), runtime.block_on(Client::connect(&cluster)).unwrap());
        let (done, failure) = std::thread::scope(|scope| {
            let training = scope.spawn(|| {
                let begin = |done| {
                    begun.store(done > 0, Ordering::Relaxed);
                    false
                };
                runtime.block_on(async { tokio::time::timeout(LONG, train(&mut client, begin)).await })
            });
            trial.until("training has begun", |_| training.is_finished() || begun.load(Ordering::Relaxed));
            std::thread::sleep(moment);
            trial.kill(role);
            training.join().unwrap().unwrap()
        });
        assert!(done > 0, "nothing was trained before {role} was killed: {failure:?}");
        trial.party(role);
        epochs.push(trial.epoch(2));

        // The run that the kill cut off counts at both servers or at neither; all before it count.
        let mut client = runtime.block_on(Client::connect(&cluster)).unwrap();
        let (weights, steps) = runtime.block_on(show(&mut client));
        let sure = counted + done;
        assert!((sure..=sure + 1).contains(&steps), "kill {kill}, {role}: {sure} done, {steps} found");
        in_doubt += steps - sure;
        let failure = failure.unwrap().message;
        let in_doubt_said = ["went away", "not known whether the run counts"].iter().any(|said| failure.contains(said));
        assert!(steps == sure || in_doubt_said, "a run that counts is not to be asked again: {failure}");
        // The model is what as many steps in clear make of it, whichever they were.
        while clear_steps < steps {
            let inputs = batch();
            let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
            clear::run(programs.get("train").unwrap(), &mut in_clear, &inputs).unwrap();
            clear_steps += 1;
        }
        let wanted: Vec<f32> =
            ["linear/weights", "linear/bias"].iter().flat_map(|name| in_clear.0[*name].values.clone()).collect();
        assert_eq!(weights.len(), wanted.len());
        for (got, wanted) in weights.iter().zip(&wanted) {
            assert!((got - wanted).abs() < 0.01, "kill {kill}, {role}, {steps} steps: {weights:?}, in clear {wanted}");
        }
        // Training goes on.
        let (more, failure) = runtime.block_on(train(&mut client, |done| done == 2));
        assert_eq!(more, 2, "{failure:?}");
        counted = steps + more;
    }
    let took = start.elapsed();
    println!("{kills} kills in {took:.1?}: {counted} steps, {in_doubt} cut off at their end and counted");

    // Masks belong to an epoch, so none was used twice.
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len() as u64, kills + 1, "every restart is a new epoch");
    for role in [Role::Server0, Role::Server1] {
        assert!(!trial.log(role).contains("in common"), "{role} lost its state");
    }
}
