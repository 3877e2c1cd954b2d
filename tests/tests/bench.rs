//! `selkie bench`, as scripts use it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::process::{Command, Output};

use serde_json::Value;

/// The program under test, beside this test's own executable.
fn selkie(args: &[&str]) -> Output {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("selkie");
    assert!(program.exists(), "{} is missing: build it with `cargo build -p selkie-server`", program.display());
    Command::new(program).arg("bench").args(args).output().unwrap()
}

fn bench(args: &[&str]) -> Value {
    let out = selkie(args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn the_document_has_the_fields_that_scripts_rely_on_and_measures_what_was_planned() {
    let directory = tempfile::tempdir().unwrap();
    let svg = directory.path().join("bench.svg");
    let drawn = svg.display().to_string();
    let document = bench(&["--quick", "--only", "matmul_784x128", "--runs", "3", "--json", "--svg", &drawn]);
    assert_eq!(document["schema"], 1);
    assert!(document["machine"]["cores"].as_u64().unwrap() > 0);
    assert!(document["hop_ms_p50"].as_f64().unwrap() > 0.0);
    assert_eq!(document["failures"].as_array().unwrap().len(), 0);
    let rows = document["rows"].as_array().unwrap();
    let of = |row: &Value| format!("{} {}", row["protocol"].as_str().unwrap(), row["ring_bits"]);
    let wanted = ["pond", "securenn", "fss", "table"].into_iter();
    for wanted in wanted.flat_map(|protocol| [32, 64].map(|ring| format!("{protocol} {ring}"))) {
        assert_eq!(rows.iter().filter(|row| of(row) == wanted).count(), 1, "{wanted}");
    }
    for row in rows {
        assert_eq!((&row["name"], &row["batch"], &row["runs"]), (&"matmul_784x128".into(), &1.into(), &3.into()));
        assert_eq!(row["variant"], "default");
        for time in ["online_ms_p50", "offline_ms_p50", "end_to_end_ms_p50", "plaintext_ms_p50"] {
            assert!(row[time].as_f64().unwrap() > 0.0, "{time}: {row}");
        }
        for cost in ["online_bytes", "offline_bytes", "client_bytes", "rounds"] {
            assert!(row[cost].as_u64().unwrap() > 0, "{cost}: {row}");
            assert_eq!(row[cost], row[format!("planned_{cost}")], "{cost}: {row}");
        }
        for role in ["server0", "server1", "crypto-producer"] {
            let peak = &row["memory_peak_bytes"][role];
            assert_eq!(peak.is_u64(), cfg!(target_os = "linux"), "{role}: {row}");
        }
        assert!(row["max_abs_error"].as_f64().unwrap() < 0.05, "{row}");
    }
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg "));
}

#[test]
fn an_emulated_network_is_felt_in_every_hop() {
    let args = ["--only", "network_a", "--protocol", "table", "--ring", "32", "--batch", "1", "--runs", "2"];
    let document = bench(&[&args[..], &["--rtt", "20", "--bandwidth", "100mbit", "--json"]].concat());
    let row = &document["rows"][0];
    let hops = |ms: &Value| ms.as_f64().unwrap() / 10.0;
    assert!(hops(&document["hop_ms_p50"]) >= 1.0, "{document}");
    assert!(hops(&row["online_ms_p50"]) >= row["rounds"].as_f64().unwrap(), "{row}");
    // The client asks for the description, then for the answer.
    assert!(hops(&row["end_to_end_ms_p50"]) >= row["rounds"].as_f64().unwrap() + 4.0, "{row}");
}

#[test]
fn bytes_and_rounds_grow_as_they_should() {
    let document = bench(&["--growth", "depth", "--protocol", "table", "--runs", "1", "--json"]);
    assert_eq!(document["failures"].as_array().unwrap().len(), 0);
    let curves = document["growth"].as_array().unwrap();
    let variants: Vec<_> = curves.iter().map(|curve| curve["variant"].as_str().unwrap()).collect();
    assert_eq!(variants, ["latency", "bytes"]);
    let points: usize = curves.iter().map(|curve| curve["sizes"].as_array().unwrap().len()).sum();
    assert_eq!(document["rows"].as_array().unwrap().len(), points);
    for curve in curves {
        assert_eq!(
            (&curve["sweep"], &curve["protocol"], &curve["ring_bits"]),
            (&"depth".into(), &"table".into(), &32.into())
        );
        for cost in ["online_bytes", "offline_bytes", "rounds"] {
            assert_eq!(curve[cost]["expected"], serde_json::json!([1.0, 1.0]));
            assert!((curve[cost]["exponent"].as_f64().unwrap() - 1.0).abs() < 0.005, "{cost}: {curve}");
        }
        // How times grow is the machine's to say.
        for time in ["online_ms", "offline_ms"] {
            assert!(curve[time]["exponent"].is_f64() && curve[time]["expected"].is_array(), "{time}: {curve}");
        }
    }
}

#[test]
fn growth_is_not_drawn() {
    let out = selkie(&["--growth", "--svg", "growth.svg"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("'--growth") && said.contains("'--svg <FILE>'"), "{said}");
}
