//! `--profile`: where each party's time goes, from its machine's own timeline.

use std::collections::BTreeMap;
use std::fmt;

use selkie::Role;
use serde::Serialize;

use crate::node::measured::Profile;
use crate::tools::table::{Align, Table};

/// Microseconds of one session, means over all of them, by party.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Profiles {
    /// Each phase: server0, server1, crypto producer.
    phases: Vec<(&'static str, [f64; 3])>,
    /// Each gate: server0, server1, crypto producer; the dearest first.
    gates: Vec<(String, [f64; 3])>,
}

impl Profiles {
    /// The means of what was seen in each session.
    pub(super) fn new(seen: &[(Role, Profile)], begin: [f64; 2]) -> Self {
        let mean = |role: Role, part: &dyn Fn(&Profile) -> u64| {
            let own: Vec<u64> = seen.iter().filter(|(of, _)| *of == role).map(|(_, profile)| part(profile)).collect();
            own.iter().sum::<u64>() as f64 / own.len().max(1) as f64 / 1e3
        };
        let of_all = |part: &dyn Fn(&Profile) -> u64| Role::ALL.map(|role| mean(role, part));
        let work = |place: usize| {
            move |profile: &Profile| profile.gates.values().filter_map(|times| times.get(place)).sum::<u64>()
        };
        let waited = |profile: &Profile| profile.wait.values().sum::<u64>();
        let worked = |profile: &Profile| profile.gates.values().flatten().sum::<u64>();
        let known =
            move |profile: &Profile| profile.start + profile.make + profile.send + waited(profile) + worked(profile);
        let total = of_all(&|profile| profile.total);
        let [begin0, begin1] = begin;
        let [total0, total1, _] = total;
        let phases = vec![
            ("before and after the session", [begin0 - total0, begin1 - total1, 0.0]),
            ("until the machine starts", of_all(&|profile| profile.start)),
            ("inputs and material", of_all(&|profile| profile.make)),
            ("waiting for peers", of_all(&waited)),
            ("giving frames to links", of_all(&|profile| profile.send)),
            ("computing messages", of_all(&work(0))),
            ("computing the rest", of_all(&work(1))),
            ("packing", of_all(&work(2))),
            ("unpacking", of_all(&work(3))),
            ("not accounted for", of_all(&|profile| profile.total.saturating_sub(known(profile)))),
            ("the session", total),
        ];
        let mut names: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
        for name in seen.iter().flat_map(|(_, profile)| profile.gates.keys()) {
            names
                .entry(name)
                .or_insert_with(|| of_all(&|profile| profile.gates.get(name).map_or(0, |times| times.iter().sum())));
        }
        let mut gates: Vec<_> = names.into_iter().map(|(name, times)| (name.to_owned(), times)).collect();
        gates.sort_by(|(_, a), (_, b)| b.iter().sum::<f64>().total_cmp(&a.iter().sum()));
        Self { phases, gates }
    }
}

impl fmt::Display for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[Align::Left, Align::Right, Align::Right, Align::Right]);
        table.header(["µs in one session", "server0", "server1", "producer"]);
        let cell = |us: f64| if us == 0.0 { String::new() } else { format!("{us:.1}") };
        let phases = self.phases.iter().map(|(name, times)| ((*name).to_owned(), times));
        for (name, times) in phases.chain(self.gates.iter().map(|(name, times)| (format!("  {name}"), times))) {
            let [zero, one, producer] = times.map(cell);
            table.row([name, zero, one, producer]);
        }
        write!(f, "{table}")
    }
}
