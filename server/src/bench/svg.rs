//! `--svg`: the times as bars on a logarithmic scale, for the docs. Readable on light and on dark pages.

use std::fmt::Write;

use super::report::{Report, Row, ms};

/// The best other system's milliseconds for a row, offline and online together, and which one it was, as measured on a machine
/// of two cores with all parties on it (November 2026).
const OTHERS: [(&str, usize, f64, &str); 6] = [
    ("network_a", 1, 6.1, "MP-SPDZ, replicated ring"),
    ("network_a", 128, 109.0, "MP-SPDZ, dealer ring"),
    ("network_b", 1, 60.0, "tf-encrypted ABY3, one process"),
    ("network_b", 128, 11_585.0, "CrypTen"),
    ("logistic_regression_step", 100, 2.3, "tf-encrypted SecureNN, one process"),
    ("matmul_784x128", 1, 1.31, "MP-SPDZ, replicated ring"),
];

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 14.0;
const GAP: f64 = 22.0;
const TOP: f64 = 44.0;

/// What is drawn of one row.
struct Bar<'a> {
    class: &'static str,
    what: String,
    ms: f64,
    who: &'a str,
}

/// The drawing: for each computation, batch and ring the best protocol's online time and its time with all dealing, beside
/// the same in clear and the best other system.
pub(super) fn draw(report: &Report) -> String {
    let groups = groups(&report.rows);
    let shown = groups.iter().flat_map(|(_, bars)| bars.iter().map(|bar| bar.ms)).filter(|ms| *ms > 0.0);
    let (low, high) = shown.fold((1.0f64, 10.0f64), |(low, high), ms| (low.min(ms), high.max(ms)));
    let (first, last) = (low.log10().floor(), high.log10().ceil());
    let x = |ms: f64| {
        let part = (ms.max(10f64.powf(first)).log10() - first) / (last - first).max(1.0);
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    };
    let bars: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let height = TOP + bars as f64 * BAR + groups.len() as f64 * GAP + 24.0;

    // Writing to a string does not fail.
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>Milliseconds, by computation</title>\n<style>\n\
         text {{ fill: #24292f }} .grid {{ stroke: #8c959f; stroke-opacity: .35 }} .clear {{ fill: #8c959f }} \
         .online {{ fill: #0969da }} .all {{ fill: #54aeff }} .other {{ fill: #bc4c00 }} .head {{ font-weight: 600 }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .online {{ fill: #58a6ff }} .all {{ fill: #1f6feb }} \
         .other {{ fill: #f0883e }} }}\n</style>\n"
    );
    let legend = [
        ("clear", "in clear, f32"),
        ("online", "online"),
        ("all", "offline and online"),
        ("other", "best other system"),
    ];
    for (index, (class, text)) in legend.into_iter().enumerate() {
        let at = LEFT + index as f64 * 140.0;
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{at}\" y=\"6\" width=\"10\" height=\"10\"/><text x=\"{}\" y=\"15\">{text}</text>",
            at + 14.0
        );
    }
    let mut power = first;
    while power <= last {
        let (at, ms) = (x(10f64.powf(power)), 10f64.powf(power));
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{:.1}\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{ms} ms</text>",
            TOP - 6.0,
            height - 8.0,
            TOP - 12.0
        );
        power += 1.0;
    }
    let mut y = TOP;
    for (title, bars) in &groups {
        let _ = writeln!(out, "<text class=\"head\" x=\"8\" y=\"{:.1}\">{}</text>", y + 10.0, escape(title));
        for Bar { class, what, ms: time, who } in bars {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" \
                 width=\"{:.1}\" height=\"{}\"><title>{}</title></rect><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + 10.0,
                escape(what),
                (x(*time) - LEFT).max(1.0),
                BAR - 3.0,
                escape(who),
                x(*time) + 4.0,
                y + 10.0,
                ms(*time)
            );
            y += BAR;
        }
        y += GAP;
    }
    out.push_str("</svg>\n");
    out
}

fn groups(rows: &[Row]) -> Vec<(String, Vec<Bar<'_>>)> {
    let mut kinds: Vec<(&'static str, usize, u32)> = Vec::new();
    for row in rows {
        let kind = (row.name, row.batch, row.ring_bits);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let group = |(name, batch, ring): (&'static str, usize, u32)| {
        let own = rows.iter().filter(|row| (row.name, row.batch, row.ring_bits) == (name, batch, ring));
        let best = |key: fn(&Row) -> f64| own.clone().min_by(|a, b| key(a).total_cmp(&key(b)));
        let mut bars = Vec::new();
        if let Some((online, all)) = best(|row| row.online_ms_p50).zip(best(Row::in_all_ms)) {
            let who = |row: &Row| match row.variant.as_str() {
                "default" => row.protocol.to_owned(),
                variant => format!("{} {variant}", row.protocol),
            };
            bars.push(Bar {
                class: "clear",
                what: String::new(),
                ms: online.plaintext_ms_p50,
                who: online.plaintext_by,
            });
            bars.push(Bar { class: "online", what: who(online), ms: online.online_ms_p50, who: "online" });
            bars.push(Bar { class: "all", what: who(all), ms: all.in_all_ms(), who: "offline and online" });
        }
        if let Some((.., ms, who)) = OTHERS.iter().find(|(of, at, ..)| (*of, *at) == (name, batch)) {
            bars.push(Bar { class: "other", what: String::new(), ms: *ms, who });
        }
        (format!("{name}, {batch}, k = {ring}"), bars)
    };
    kinds.into_iter().map(group).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::report::{Machine, Memory};
    use super::*;

    fn row(name: &'static str, protocol: &'static str, online: f64) -> Row {
        Row {
            name,
            protocol,
            variant: "flat < & \"x\"".to_owned(),
            batch: 1,
            size: None,
            ring_bits: 32,
            fraction_bits: 10,
            slices: 1,
            online_ms_p50: online,
            online_ms_min: online,
            online_as_told_ms_p50: online,
            offline_ms_p50: 1.0,
            offline_ms_min: 1.0,
            dealing_ms_p50: 0.5,
            end_to_end_ms_p50: 2.0,
            plaintext_ms_p50: 0.01,
            plaintext_by: "tract",
            max_abs_error: 0.0,
            online_bytes: 1,
            offline_bytes: 1,
            client_bytes: 1,
            rounds: 1,
            planned_online_bytes: 1,
            planned_offline_bytes: 1,
            planned_client_bytes: 1,
            planned_rounds: 1,
            memory_peak_bytes: Memory::default(),
            runs: 1,
            profile: None,
        }
    }

    /// Whether every tag that is opened is closed in order, and no text holds a bare `<` or `&`.
    fn is_well_formed(text: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('<') {
            let entities = before.split('&').skip(1);
            if before.contains('>')
                || entities
                    .into_iter()
                    .any(|e| !["amp;", "lt;", "gt;", "quot;"].iter().any(|known| e.starts_with(known)))
            {
                return false;
            }
            let Some((tag, next)) = after.split_once('>') else { return false };
            if tag.matches('"').count() % 2 == 1 {
                return false;
            }
            match (tag.strip_prefix('/'), tag.ends_with('/')) {
                (Some(name), _) if open.pop() != Some(name) => return false,
                (None, false) => open.extend(tag.split_whitespace().next()),
                _ => {}
            }
            rest = next;
        }
        open.is_empty() && rest.trim().is_empty()
    }

    #[test]
    fn the_drawing_is_well_formed_and_shows_the_best() {
        let mut report = Report {
            schema: 1,
            machine: Machine::here(),
            rtt_ms: 0.0,
            bandwidth: None,
            hop_ms_p50: 0.04,
            growth: None,
            rows: vec![row("network_a", "fss", 0.7), row("network_a", "table", 0.5), row("relu_1m", "table", 1e4)],
            failures: vec![],
        };
        let drawn = draw(&report);
        assert!(is_well_formed(&drawn), "{drawn}");
        assert!(drawn.contains("MP-SPDZ") && drawn.contains("0.500") && !drawn.contains("0.700"), "{drawn}");
        assert!(drawn.contains("table flat &lt; &amp; &quot;x&quot;") && drawn.contains("10000 ms"), "{drawn}");
        // The least value is below the second line, and the lines are as far apart as any two.
        report.rows.iter_mut().for_each(|row| row.plaintext_ms_p50 = 0.003);
        let drawn = draw(&report);
        let lines = drawn.split("<line class=\"grid\" x1=\"").skip(1);
        let at: Vec<f64> = lines.filter_map(|line| line.split('"').next()?.parse().ok()).collect();
        let apart: Vec<f64> = at.iter().zip(at.iter().skip(1)).map(|(a, b)| b - a).collect();
        let even = apart.iter().zip(apart.iter().skip(1)).all(|(a, b)| (a - b).abs() < 0.2);
        assert!(at.len() > 2 && even, "{at:?}");
        report.rows.clear();
        assert!(is_well_formed(&draw(&report)));
        assert!(
            !is_well_formed("<svg><a></svg>")
                && !is_well_formed("<svg>a & b</svg>")
                && !is_well_formed("<svg x=\"1></svg>")
        );
    }
}
