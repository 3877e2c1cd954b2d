//! The tutorials in `server/examples` print what they say, under every protocol.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test may panic")]

#[path = "processes/trial.rs"]
#[allow(dead_code, reason = "the process tests use all of it")]
mod trial;

use std::process::Command;

use selkie::Protocol;
use trial::Trial;

/// What a tutorial prints. Cargo builds examples with the tests, beside them.
fn tutorial(name: &str, arguments: &[&str], data: Option<&std::ffi::OsStr>) -> Vec<String> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p selkie-server --examples`",
        program.display()
    );
    let mut command = Command::new(program);
    command.args(arguments).env_remove("SELKIE_MNIST_DIR");
    if let Some(data) = data {
        command.env("SELKIE_MNIST_DIR", data);
    }
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {arguments:?}: {out}{err}");
    out.lines().map(str::to_owned).collect()
}

/// The numbers of a printed list.
fn numbers<T: std::str::FromStr<Err: std::fmt::Debug>>(line: &str, before: &str) -> Vec<T> {
    let list = line.strip_prefix(before).unwrap_or_else(|| panic!("{line:?} begins with {before:?}"));
    list.trim_matches(['[', ']']).split(", ").map(|number| number.parse().unwrap()).collect()
}

#[test]
fn getting_started() {
    for protocol in Protocol::ALL {
        let mut before: Option<Vec<i64>> = None;
        for _ in 0..2 {
            let lines = tutorial("getting_started", &["--protocol", protocol.name()], None);
            assert_eq!(lines.len(), 6, "{lines:?}");
            assert_eq!(lines[0], "variable: public [3]");
            assert_eq!(lines[1], "public variable * 2: receiver receives [2, 4, 6]");
            assert_eq!(lines[2], "variable: private [3]");
            let shares: [Vec<i64>; 2] =
                [numbers(&lines[3], "server0's share: "), numbers(&lines[4], "server1's share: ")];
            let sums: Vec<i64> = shares[0].iter().zip(&shares[1]).map(|(a, b)| a.wrapping_add(*b)).collect();
            assert_eq!(sums, [1 << 16, 2 << 16, 3 << 16]);
            assert_eq!(lines[5], "private variable * 2: receiver receives [2, 4, 6]");
            // Shared anew.
            assert!(before.replace(shares[0].clone()).is_none_or(|before| before != shares[0]));
        }
    }
}

/// Five batches of twenty predictions, and an accuracy that is what their lists say.
fn five_batches(lines: &[String], least: f64) {
    let start = lines.iter().position(|line| line.starts_with("EXPECT: ")).unwrap();
    let (batches, last) = lines[start..].split_at(15);
    let mut hits = 0;
    for batch in batches.chunks(3) {
        let (expected, actual): (Vec<u8>, Vec<u8>) = (numbers(&batch[0], "EXPECT: "), numbers(&batch[1], "ACTUAL: "));
        assert_eq!((expected.len(), actual.len()), (20, 20));
        let right = expected.iter().zip(&actual).filter(|(a, b)| a == b).count();
        assert_eq!(batch[2], format!("accuracy: {}", right as f64 / 20.0));
        hits += right;
    }
    assert_eq!(last, [format!("accuracy over all batches: {}", hits as f64 / 100.0)]);
    assert!(hits as f64 / 100.0 >= least, "{lines:?}");
}

#[test]
fn mnist() {
    for protocol in Protocol::ALL {
        let lines = tutorial("mnist", &["--protocol", protocol.name()], None);
        assert!(lines[0].starts_with("SELKIE_MNIST_DIR is not set"), "{lines:?}");
        assert!(lines.contains(&format!("protocol: {protocol}")));
        five_batches(&lines, if protocol.compares() { 0.95 } else { 0.9 });
    }
    let Some(data) = std::env::var_os("SELKIE_MNIST_DIR") else {
        eprintln!("SELKIE_MNIST_DIR is not set: the tutorial is tested with the project's own drawings alone");
        return;
    };
    for protocol in Protocol::ALL {
        let lines = tutorial("mnist", &["--protocol", protocol.name()], Some(&data));
        assert!(lines.iter().any(|line| line.starts_with("training complete")), "{lines:?}");
        five_batches(&lines, 0.93);
    }
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/models/demo.onnx");
    five_batches(&tutorial("mnist", &["--model", model], Some(&data)), 0.95);
}

/// Two numbers of a line, what was computed in private and the same in clear.
fn beside_clear(line: &str, before: &str) -> [f64; 2] {
    let rest = line.strip_prefix(before).unwrap_or_else(|| panic!("{line:?} begins with {before:?}"));
    let (private, clear) = rest.split_once(" in clear: ").unwrap();
    [private, clear].map(|number| number.trim().parse().unwrap())
}

/// Ten epochs, each with the cost that it has in clear, and predictions that are as good.
fn logistic_regression(flags: &[&str]) {
    let lines = tutorial("logistic_regression", flags, None);
    println!("{flags:?}: {}", lines.join("\n"));
    assert_eq!(lines.len(), 14, "{lines:?}");
    let costs = lines[1..11].iter().enumerate().map(|(i, line)| {
        let [private, clear] = beside_clear(line, &format!("Epoch: {:04} cost= ", i + 1));
        assert!((private - clear).abs() <= 0.02, "{lines:?}");
        private
    });
    assert!(costs.collect::<Vec<_>>().is_sorted_by(|a, b| a > b), "it learns: {lines:?}");
    assert_eq!(lines[11], "Optimization Finished!");
    let [private, clear] = beside_clear(&lines[12], "Accuracy: ");
    assert!((private - clear).abs() <= 0.01 + 1e-9 && clear > 0.8, "{lines:?}");
}

/// Steps whose loss is that in clear, and predictions that are as good.
fn private_training(flags: &[&str], data: Option<&std::ffi::OsStr>) {
    let flags = [flags, &["--epochs", "3", "--steps", "3", "--test", "100"]].concat();
    let lines = tutorial("private_training", &flags, data);
    println!("{flags:?}: {}", lines.join("\n"));
    let losses: Vec<[f64; 2]> = lines
        .iter()
        .filter(|line| line.starts_with("epoch "))
        .map(|line| beside_clear(line.split_once(": ").unwrap().1, "loss "))
        .collect();
    // The project's own drawings are one batch, MNIST is hundreds.
    assert_eq!(losses.is_empty(), data.is_some(), "{lines:?}");
    assert!(losses.iter().all(|[private, clear]| (private - clear).abs() <= 0.01 * clear), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("3 steps of 128: ")), "{lines:?}");
    let (before, accuracies) = lines.last().unwrap().split_once(" test images: ").unwrap();
    let [private, clear] = beside_clear(accuracies, "");
    let tested: f64 = before.strip_prefix("accuracy on ").unwrap().parse().unwrap();
    // After three large steps many images lie near a boundary: rounding moves a few across.
    assert!((private - clear).abs() * tested <= 5.0 + 1e-9, "{lines:?}");
}

/// A loss that falls to nothing, and the model that the data was made with.
fn two_owners(flags: &[&str]) {
    let lines = tutorial("two_owners", flags, None);
    println!("{flags:?}: {}", lines.join("\n"));
    let losses: Vec<f64> = [20, 40, 60]
        .iter()
        .zip(&lines[1..])
        .map(|(step, line)| line.strip_prefix(&format!("step {step}: mean squared error ")).unwrap().parse().unwrap())
        .collect();
    assert!(losses.is_sorted_by(|a, b| a >= b) && losses[2] < 0.001, "{lines:?}");
    let revealed: Vec<Vec<f64>> = lines[4..].iter().map(|line| numbers(line, "model-owner receives ")).collect();
    for (got, wanted) in revealed.concat().iter().zip([0.5, -0.25, 0.75, 0.1]) {
        assert!((got - wanted).abs() <= 0.011, "{lines:?}");
    }
    assert_eq!(revealed.concat().len(), 4, "{lines:?}");
}

#[test]
fn training() {
    for protocol in Protocol::ALL {
        let flags = ["--protocol", protocol.name()];
        logistic_regression(&flags);
        two_owners(&flags);
        if protocol.compares() {
            private_training(&flags, None);
            if let Some(data) = std::env::var_os("SELKIE_MNIST_DIR") {
                private_training(&flags, Some(&data));
            }
        }
    }
}

#[test]
fn all_over_three_processes() {
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    let cluster = trial.path("cluster.toml");
    for protocol in Protocol::ALL {
        let flags = ["--protocol", protocol.name(), "--remote", cluster.to_str().unwrap()];
        let lines = tutorial("getting_started", &flags, None);
        let wanted = [
            "variable: public [3]",
            "public variable * 2: receiver receives [2, 4, 6]",
            "variable: private [3]",
            "each server holds one share of it, and shows it to nobody",
            "private variable * 2: receiver receives [2, 4, 6]",
        ];
        assert_eq!(lines, wanted);
        five_batches(&tutorial("mnist", &flags, None), if protocol.compares() { 0.95 } else { 0.9 });
        logistic_regression(&flags);
        two_owners(&flags);
        if protocol.compares() {
            private_training(&flags, None);
            if let Some(data) = std::env::var_os("SELKIE_MNIST_DIR") {
                private_training(&flags, Some(&data));
            }
        }
    }
}
