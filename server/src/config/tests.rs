#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use super::*;

fn keys() -> [Identity; 4] {
    std::array::from_fn(|_| Identity::generate().unwrap())
}

fn text(keys: &[Identity; 4]) -> String {
    let [k0, k1, k2, deployer] = keys.each_ref().map(|k| k.public().to_string());
    let party = |port: u16, key| SampleParty { address: Address::loopback(port).to_string(), key };
    sample(&[party(7000, k0), party(7001, k1), party(7002, k2)], &deployer)
}

fn parse(text: &str) -> Result<Cluster, ConfigError> {
    Cluster::parse(text, Path::new("etc/cluster.toml"))
}

/// The error that a change to the sample makes, and the number of the changed line.
fn complaint(from: &str, to: &str) -> (String, usize) {
    let good = text(&keys());
    assert!(good.contains(from), "{from}");
    let bad = good.replacen(from, to, 1);
    let line = bad[..bad.find(to).unwrap()].matches('\n').count() + 1;
    (parse(&bad).unwrap_err().to_string(), line)
}

#[test]
fn the_sample_is_a_configuration_with_the_defaults() {
    let keys = keys();
    let cluster = parse(&text(&keys)).unwrap();
    assert_eq!(cluster.limits, Limits::default());
    assert_eq!(cluster.party(Role::Server1).key, keys[1].public());
    assert_eq!(cluster.deployer(&keys[3].public()), Some("owner"));
    assert_eq!(cluster.state(Role::Server0).unwrap(), Path::new("etc/state/server0"));
    let every_limit_is_shown =
        text(&keys).lines().skip_while(|l| *l != "[limits]").filter(|l| l.contains(" = ")).count();
    assert_eq!(every_limit_is_shown, 12);
}

#[test]
fn a_network_is_emulated_on_loopback_alone() {
    let good = text(&keys());
    assert_eq!(parse(&good).unwrap().emulation, None);
    let with = |lines: &str| format!("{good}\n[emulation]\n{lines}");
    let emulation = parse(&with("rtt_ms = 58\nbandwidth = \"100mbit\"")).unwrap().emulation.unwrap();
    assert_eq!(emulation.one_way().as_millis(), 29);
    assert_eq!(emulation.bandwidth.unwrap().time_for(12_500_000).as_millis(), 1000);
    for (lines, wants) in [
        ("rtt_ms = 1001", "0..=1000"),
        ("rtt_ms = -1", "0..=1000"),
        ("bandwidth = \"100\"", "kbit, mbit or gbit"),
        ("bandwidth = \"0mbit\"", "kbit, mbit or gbit"),
        ("bandwith = \"1mbit\"", "unknown field"),
    ] {
        let error = parse(&with(lines)).unwrap_err().to_string();
        assert!(error.contains(wants), "{error}");
    }
    let elsewhere = with("rtt_ms = 1").replace("127.0.0.1:7002", "party.example:7002");
    let error = parse(&elsewhere).unwrap_err().to_string();
    assert!(error.contains("crypto-producer") && error.contains("remove [emulation]"), "{error}");
}

#[test]
fn players_are_pinned_by_name_or_open() {
    let keys = keys();
    let good = text(&keys);
    assert_eq!(parse(&good).unwrap().players.get("model-trainer"), Some(&keys[3].public()));
    assert_eq!(parse(&good).unwrap().players.get("prediction-client"), None);
    let with = |line: &str| parse(&good.replacen("[players]", &format!("[players]\n{line}"), 1));
    let hospital = Identity::generate().unwrap().public();
    let cluster = with(&format!("hospital-a = \"{hospital}\"")).unwrap();
    assert_eq!(cluster.players.get("hospital-a"), Some(&hospital));
    for (line, wants) in [
        (format!("hospital-a = \"{}\"", keys[1].public()), ["`players.hospital-a`", "key of server1"]),
        ("hospital-a = \"x\"".to_owned(), ["`players.hospital-a`", "64 hexadecimal digits"]),
        (format!("{} = \"{hospital}\"", "a".repeat(129)), ["`players.", "1 to 128 bytes"]),
    ] {
        let error = with(&line).unwrap_err().to_string();
        assert!(wants.iter().all(|want| error.contains(want)), "{error}");
    }
    // The section is not needed.
    let without = good.split("[players]").next().unwrap();
    assert!(parse(without).unwrap().players.is_empty());
}

#[test]
fn errors_name_the_file_the_line_the_key_and_the_remedy() {
    for (from, to, wants) in [
        ("address = \"127.0.0.1:7001\"", "address = \"127.0.0.1\"", vec!["`server1.address`", "host:port"]),
        (
            "state = \"state/server1\"",
            "sate = \"state/server1\"",
            vec!["`server1.sate`", "unknown field `sate`", "--sample"],
        ),
        ("window_bytes = 4194304", "window_bytes = 1", vec!["`limits.window_bytes`", "131072..="]),
        ("sessions = 256", "sessions = 0", vec!["`limits.sessions`", "positive"]),
        (
            "address = \"127.0.0.1:7000\"",
            "address = \"a.example:7000\"",
            vec!["`server0.address`", "tls_certificate", "[clients.server0]"],
        ),
        ("address = \"127.0.0.1:7001\"", "address = \"127.0.0.1:7000\"", vec!["`server1.address`", "same address"]),
    ] {
        let (error, line) = complaint(from, to);
        // Two lines are equally to blame for a repeated address; any other error has one place.
        let place = format!("cluster.toml line {line},");
        assert!(error.contains(&place) || error.contains("same address"), "{place}: {error}");
        for want in wants {
            assert!(error.contains(want), "`{want}` is missing in: {error}");
        }
    }
}

#[test]
fn missing_tables_keys_and_files_are_named() {
    let (error, _) = complaint("[crypto-producer]", "[producer]");
    assert!(error.contains("producer"), "{error}");
    let error = Cluster::load(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(error.contains("no/such.toml") && error.contains("init --local"), "{error}");
    assert!(parse("\u{0}").is_err());
    assert!(parse("").is_err());
}

#[test]
fn a_key_in_two_places_is_refused() {
    let mut keys = keys();
    keys[1] = keys[0].clone();
    let error = parse(&text(&keys)).unwrap_err().to_string();
    assert!(error.contains("same key"), "{error}");
    keys[1] = Identity::generate().unwrap();
    keys[3] = keys[2].clone();
    let error = parse(&text(&keys)).unwrap_err().to_string();
    assert!(error.contains("`deployers.owner`") && error.contains("crypto-producer"), "{error}");
}

#[test]
fn client_tls_comes_whole_or_behind_a_proxy() {
    let good = text(&keys()).replace("127.0.0.1:7000", "a.example:7000");
    let with = |extra: &str| parse(&format!("{good}\n[clients.server0]\n{extra}\n"));
    assert!(with("proxy = true").is_ok());
    let cluster = with("tls_certificate = \"c.pem\"\ntls_key = \"/k.pem\"").unwrap();
    let access = cluster.clients(Role::Server0);
    assert_eq!(access.tls_certificate.as_deref(), Some(Path::new("etc/c.pem")));
    assert_eq!(access.tls_key.as_deref(), Some(Path::new("/k.pem")));
    let error = with("tls_certificate = \"c.pem\"").unwrap_err().to_string();
    assert!(error.contains("needs tls_key"), "{error}");
}

#[test]
fn a_private_key_must_be_the_pinned_one() {
    let keys = keys();
    let cluster = parse(&text(&keys)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    keys[1].save(&path, false).unwrap();
    let pem = std::fs::read_to_string(&path).unwrap();
    assert!(cluster.identity_from(Role::Server1, Some(pem.clone())).is_ok());
    let error = cluster.identity_from(Role::Server0, Some(pem)).unwrap_err().to_string();
    assert!(error.contains(&keys[0].public().to_string()) && error.contains(&keys[1].public().to_string()), "{error}");
    let error = cluster.identity_from(Role::Server0, Some("x".to_owned())).unwrap_err();
    assert!(error.to_string().contains(KEY_VARIABLE));
}

#[test]
fn addresses_are_hosts_with_ports() {
    for good in ["127.0.0.1:7001", "[::1]:7001", "a.example:443", "localhost:1"] {
        assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
    }
    for bad in ["", ":", "a", "a:", ":80", "a:0", "a:65536", "a b:1", "::1:80", "[x]:1", "a/b:1"] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
    assert!("[::1]:1".parse::<Address>().unwrap().is_loopback());
    assert!(!"0.0.0.0:1".parse::<Address>().unwrap().is_loopback());
}
