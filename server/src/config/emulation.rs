//! A slower network than loopback, for trials on one machine.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// The longest round trip: links notice within two seconds that nothing comes any more.
const LONGEST_RTT_MS: f64 = 1000.0;

/// The `[emulation]` of `cluster.toml`, for addresses on loopback alone: every process holds back what it receives, on party
/// links and clients' connections alike, as a network between them would.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emulation {
    /// A round trip, in milliseconds: every byte is half of it on its way, to the next whole millisecond of the clock. At most
    /// 1000. Default 0.
    #[serde(default)]
    pub rtt_ms: f64,
    /// What one direction of one connection carries, such as "100mbit". Default: as much as it can.
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
}

impl Emulation {
    /// How long every byte is on its way.
    #[must_use]
    pub fn one_way(&self) -> Duration {
        Duration::from_secs_f64(self.rtt_ms.clamp(0.0, LONGEST_RTT_MS) / 2000.0)
    }

    /// The key out of range, and what to write.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if (0.0..=LONGEST_RTT_MS).contains(&self.rtt_ms) {
            return Ok(());
        }
        Err(("rtt_ms", format!("{} is not in 0..={LONGEST_RTT_MS}", self.rtt_ms)))
    }
}

/// A rate, in bits a second: "64kbit", "100mbit", "2.5gbit".
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Bandwidth(f64);

impl Bandwidth {
    /// How long a connection is busy with so many bytes.
    #[must_use]
    pub fn time_for(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.0)
    }
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complain =
            || format!("a bandwidth is a number and kbit, mbit or gbit, such as \"100mbit\", and `{text}` is not");
        let units = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
        let (number, unit) =
            units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit))).ok_or_else(complain)?;
        let rate = number.trim().parse::<f64>().map_err(|_| complain())? * unit;
        // A frame must pass within the time after which a link counts as dead.
        if (1e3..=1e12).contains(&rate) { Ok(Self(rate)) } else { Err(complain()) }
    }
}

impl TryFrom<String> for Bandwidth {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}kbit", self.0 / 1e3)
    }
}
