//! The documented `cluster.toml` that `selkie init` writes.

use std::fmt::Write;

use super::Limits;
use selkie::Role;

/// What the sample says of one party.
#[derive(Debug, Clone)]
pub struct SampleParty {
    /// Its `host:port`.
    pub address: String,
    /// Its public key.
    pub key: String,
}

/// A `cluster.toml` with every key in it explained. `parties` are server0, server1,
/// crypto-producer; `deployer` is the public key of whoever may deploy.
#[must_use]
pub fn sample(parties: &[SampleParty; 3], deployer: &str) -> String {
    let mut text = String::from(
        "# Selkie: where the three parties are, which keys they have, what they allow.
# Everybody uses the same file. It holds no secret: private keys are in files of their own
# (key_file), or in the environment variable SELKIE_KEY of the process that needs one.
# Relative paths start at this file's directory.
",
    );
    for (role, party) in Role::ALL.into_iter().zip(parties) {
        let _ = write!(
            text,
            "
[{role}]
# Where the others and the clients reach it; HTTP, WebSockets and party links share the port.
address = \"{}\"
# Where it listens, if that is not `address`:
# listen = \"0.0.0.0:{}\"
# Its public key, as `selkie init --role {role}` prints it.
key = \"{}\"
# Used on {role}'s own machine alone: its private key (mode 0600) and what it remembers.
key_file = \"{role}.key\"
state = \"state/{role}\"
",
            party.address,
            party.address.rsplit(':').next().unwrap_or("7000"),
            party.key
        );
    }
    let limits = Limits::default();
    let _ = write!(
        text,
        "
# Browsers reach a server by plain WebSocket on loopback addresses only. Elsewhere they need an
# ordinary certificate (browsers accept no Ed25519 ones), or a proxy on the same machine that
# ends their TLS and connects over loopback. Party links need neither.
# [clients.server0]
# tls_certificate = \"server0-chain.pem\"
# tls_key = \"server0-tls.key\"
# proxy = true

# A slower network than loopback, for trials on one machine; refused where a party has another address. All parties and
# clients hold back what they receive: for half a round trip, and as a line of this bandwidth would (kbit, mbit, gbit).
# [emulation]
# rtt_ms = 58
# bandwidth = \"100mbit\"

[deployers]
# Who may deploy models: a name of your choice, and a public key.
owner = \"{deployer}\"

[players]
# Programs say which player feeds each input and receives each output. Whoever acts for one of those listed here must prove
# its key to both servers; one that is not listed anybody may play: that is what a browser does.
# hospital-a = \"<what `selkie init --role player` prints>\"
model-trainer = \"{deployer}\"

[limits]
# What one session may have on its way between two parties, unread, in bytes.
window_bytes = {}
# Sessions open at once with one peer, and in all.
sessions_per_peer = {}
sessions = {}
# What one session may receive, in bytes.
session_bytes = {}
# A session ends after this long without a frame, and after this long in any case.
idle_seconds = {}
session_seconds = {}
# Samples for which correlated randomness is kept ready, for each model.
stock_units = {}
# Whether the crypto producer deals while a query runs: false gives queries the processor, true gives more of them in all.
deal_while_computing = {}
# Ephemeral programs that one deployer may hold at once: those that live in memory as long as its link.
programs_per_deployer = {}
# Connections open at once; new ones from one IP address in a minute (loopback is exempt);
# how long one may take over its handshakes.
connections = {}
handshakes_per_ip = {}
handshake_seconds = {}
",
        limits.window_bytes,
        limits.sessions_per_peer,
        limits.sessions,
        limits.session_bytes,
        limits.idle_seconds,
        limits.session_seconds,
        limits.stock_units,
        limits.deal_while_computing,
        limits.programs_per_deployer,
        limits.connections,
        limits.handshakes_per_ip,
        limits.handshake_seconds,
    );
    text
}
