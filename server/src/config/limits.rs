//! What a party allows its peers and clients to use.

use std::time::Duration;

use serde::Deserialize;

/// The longest frame on any link, in bytes: the format's limit.
pub const MAX_FRAME_BYTES: usize = 65_536;

/// The `[limits]` of `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The longest frame, in bytes: the format's, and no setting, since sessions cut their messages by it. The link's own
    /// tests use shorter ones.
    #[serde(skip)]
    pub(crate) frame_bytes: usize,
    /// What one channel of a link may have on its way, unread, in bytes: at least 131072.
    /// Default 4194304.
    pub window_bytes: usize,
    /// Sessions open at once with one peer. Default 64.
    pub sessions_per_peer: usize,
    /// Sessions open at once in all. Default 256.
    pub sessions: usize,
    /// What one session may receive, in bytes. Default 4294967296.
    pub session_bytes: u64,
    /// A session that receives nothing for this long ends. Default 30.
    pub idle_seconds: u64,
    /// A session ends after this long in any case. Default 600.
    pub session_seconds: u64,
    /// Samples for which correlated randomness is kept ready, for each model. Default 64.
    pub stock_units: usize,
    /// Whether a server asks to be dealt to while it answers a query. With `false` it does so only when the query has to wait
    /// for it: better for one query, worse for many. Default true.
    pub deal_while_computing: bool,
    /// Ephemeral programs that one deployer may hold at once. Default 8.
    pub programs_per_deployer: usize,
    /// Connections open at once, clients and peers together. Default 1024.
    pub connections: usize,
    /// New connections from one IP address in a minute; loopback is exempt. Default 600.
    pub handshakes_per_ip: u32,
    /// A connection must have finished its handshakes after this long. Default 10.
    pub handshake_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: MAX_FRAME_BYTES,
            window_bytes: 4 << 20,
            sessions_per_peer: 64,
            sessions: 256,
            session_bytes: 4 << 30,
            idle_seconds: 30,
            session_seconds: 600,
            stock_units: 64,
            deal_while_computing: true,
            programs_per_deployer: 8,
            connections: 1024,
            handshakes_per_ip: 600,
            handshake_seconds: 10,
        }
    }
}

impl Limits {
    /// See [`Self::idle_seconds`].
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    /// See [`Self::session_seconds`].
    #[must_use]
    pub fn session(&self) -> Duration {
        Duration::from_secs(self.session_seconds)
    }

    /// See [`Self::handshake_seconds`].
    #[must_use]
    pub fn handshake(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds)
    }

    /// The first key out of range, and what to write.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(131_072..=1 << 30).contains(&self.window_bytes) {
            return Err(("window_bytes", format!("{} is not in 131072..=1073741824", self.window_bytes)));
        }
        let positive = [
            ("sessions_per_peer", self.sessions_per_peer as u64),
            ("sessions", self.sessions as u64),
            ("session_bytes", self.session_bytes),
            ("idle_seconds", self.idle_seconds),
            ("session_seconds", self.session_seconds),
            ("stock_units", self.stock_units as u64),
            ("programs_per_deployer", self.programs_per_deployer as u64),
            ("connections", self.connections as u64),
            ("handshakes_per_ip", u64::from(self.handshakes_per_ip)),
            ("handshake_seconds", self.handshake_seconds),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err((key, "0 would refuse everything: write a positive number".to_owned())),
            None => Ok(()),
        }
    }
}
