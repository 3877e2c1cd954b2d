//! What a run cost, operation by operation: as a table, as data, and as a timeline for Chrome's viewer.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use crate::Role;
use crate::party::Timed;
use crate::plan::{LayerCost, Plan};
use crate::session::Moved;

/// A piece of one role's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose.
    pub role: Role,
    /// On what, and when.
    pub timed: Timed,
}

/// One operation's part of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// What it is and costs.
    #[serde(flatten)]
    pub cost: LayerCost,
    /// Milliseconds that server0, server1 and the crypto producer worked on it; zero without a clock.
    pub milliseconds: [f64; 3],
}

/// What one run cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// The longest chain of dependent messages among the parties, as measured.
    pub rounds: u32,
    /// Payload among the parties, as measured.
    pub online_bytes: u64,
    /// Payload dealt ahead, as measured.
    pub offline_bytes: u64,
    /// Payload on the clients' links, as measured.
    pub client_bytes: u64,
    /// Every operation of the program, in order.
    pub operations: Vec<Operation>,
    #[serde(skip)]
    timeline: Vec<Span>,
}

impl Statistics {
    pub(crate) fn new(plan: &Plan, batch: usize, moved: Moved, timeline: Vec<Span>) -> Self {
        let spent = |layer: u32, role: Role| {
            let own = timeline.iter().filter(|span| (span.role, span.timed.layer) == (role, layer));
            own.map(|span| span.timed.nanoseconds).sum::<u64>() as f64 / 1e6
        };
        let operations = (0..).zip(plan.layers(batch));
        let operations = operations
            .map(|(layer, cost)| Operation { cost, milliseconds: Role::ALL.map(|role| spent(layer, role)) })
            .collect();
        Self {
            rounds: moved.rounds,
            online_bytes: moved.online_bytes,
            offline_bytes: moved.offline_bytes,
            client_bytes: moved.client_bytes,
            operations,
            timeline,
        }
    }

    /// For people: a row for every operation that costs anything.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:>4}  {:<12} {:<18} {:>6} {:>12} {:>12} {:>9} {:>9} {:>9}\n",
            "", "operation", "shape", "rounds", "online B", "offline B", "server0", "server1", "producer"
        );
        for Operation { cost, milliseconds: [zero, one, producer] } in &self.operations {
            if cost.rounds == 0 && cost.offline_bytes == 0 && *zero + *one < 0.0005 {
                continue;
            }
            text += &format!(
                "{:>4}  {:<12} {:<18} {:>6} {:>12} {:>12} {zero:>6.3} ms {one:>6.3} ms {producer:>6.3} ms\n",
                cost.name,
                cost.op,
                format!("{:?}", cost.shape),
                cost.rounds,
                cost.online_bytes,
                cost.offline_bytes
            );
        }
        text + &format!(
            "in all {} rounds, {} bytes online, {} dealt ahead, {} on the clients' links\n",
            self.rounds, self.online_bytes, self.offline_bytes, self.client_bytes
        )
    }

    /// The timeline in Chrome's trace event format: open it in `chrome://tracing` or Perfetto. Empty without a clock.
    pub fn chrome_trace(&self) -> String {
        let origin = self.timeline.iter().map(|span| span.timed.start).min().unwrap_or(0);
        let named = Role::ALL.iter().map(|role| {
            format!(r#"{{"name":"thread_name","ph":"M","pid":1,"tid":{},"args":{{"name":"{role}"}}}}"#, *role as u32)
        });
        let spans = self.timeline.iter().filter(|span| span.timed.nanoseconds > 0).map(|span| {
            let Timed { layer, gate, work, start, nanoseconds } = span.timed;
            let op = self.operations.get(layer as usize).map_or("", |operation| operation.cost.op.as_str());
            // Operations' and gates' names are our own: nothing needs escaping.
            format!(
                r#"{{"name":"{op} {layer}","cat":"{gate} {work:?}","ph":"X","pid":1,"tid":{},"ts":{:.3},"dur":{:.3}}}"#,
                span.role as u32,
                (start - origin) as f64 / 1e3,
                nanoseconds as f64 / 1e3
            )
        });
        format!("{{\"traceEvents\":[\n{}\n]}}\n", named.chain(spans).collect::<Vec<_>>().join(",\n"))
    }
}
