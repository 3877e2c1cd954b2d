//! How many connections one address may open: a bucket of tokens for each, refilled in a minute.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

/// Addresses remembered at once. When there are more, those that have a full bucket are
/// forgotten, and if none has, newcomers wait.
const REMEMBERED: usize = 4096;

#[derive(Debug)]
pub(super) struct Rate {
    per_minute: f64,
    buckets: HashMap<IpAddr, (f64, Instant)>,
}

impl Rate {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute), buckets: HashMap::new() }
    }

    /// Whether `ip` may open one more connection. Loopback always may: behind a proxy on this
    /// machine, everybody comes from there.
    pub(super) fn admits(&mut self, ip: IpAddr, now: Instant) -> bool {
        let ip = ip.to_canonical();
        if ip.is_loopback() {
            return true;
        }
        let full = self.per_minute;
        let refilled = |(tokens, since): (f64, Instant)| {
            (tokens + now.duration_since(since).as_secs_f64() * full / 60.0).min(full)
        };
        if !self.buckets.contains_key(&ip) && self.buckets.len() >= REMEMBERED {
            self.buckets.retain(|_, bucket| refilled(*bucket) < full);
            if self.buckets.len() >= REMEMBERED {
                return false;
            }
        }
        let bucket = self.buckets.entry(ip).or_insert((full, now));
        let tokens = refilled(*bucket);
        let admitted = tokens >= 1.0;
        *bucket = (if admitted { tokens - 1.0 } else { tokens }, now);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_address_is_held_back_and_others_are_not() {
        let (mut rate, now) = (Rate::new(60), Instant::now());
        let [a, b] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        assert!((0..60).all(|_| rate.admits(a, now)));
        assert!(!rate.admits(a, now));
        assert!(rate.admits(b, now));
        let later = now + Duration::from_secs(2);
        assert!(rate.admits(a, later) && rate.admits(a, later) && !rate.admits(a, later));
        assert!((0..1000).all(|_| rate.admits(IpAddr::V4(Ipv4Addr::LOCALHOST), now)));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut rate, now) = (Rate::new(60), Instant::now());
        for n in 0..2 * REMEMBERED as u32 {
            rate.admits(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), now);
        }
        assert_eq!(rate.buckets.len(), REMEMBERED);
        let later = now + Duration::from_secs(60);
        assert!(rate.admits(IpAddr::from([11, 0, 0, 1]), later));
        assert_eq!(rate.buckets.len(), 1);
    }
}
