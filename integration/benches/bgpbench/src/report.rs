//! Medians of runs, as a table.

use crate::bench::{Phase, Run};
use std::fmt::Write as _;

const HEAD: [&str; 16] = [
    "scenario",
    "dut",
    "runs",
    "conv s",
    "(min-max)",
    "settled s",
    "routes/s",
    "DUT cpu s",
    "bench cpu s",
    "others %",
    "peak MiB",
    "B/route",
    "upd rx",
    "withdraw s",
    "re-ann s",
    "flap s",
];

/// One row for every scenario and daemon, in the order of their first run.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut keys: Vec<(&str, &str)> = Vec::new();
    for r in runs {
        if !keys.contains(&(&r.scenario, &r.dut)) {
            keys.push((&r.scenario, &r.dut));
        }
    }
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let mut notes = String::new();
    for (scenario, dut) in keys {
        let group: Vec<&Run> = runs
            .iter()
            .filter(|r| r.scenario == scenario && r.dut == dut)
            .collect();
        rows.push(row(scenario, dut, &group));
        for r in &group {
            if !r.problem.is_empty() {
                // Writing to a String cannot fail.
                let _ = writeln!(notes, "! {scenario} {dut}: {}", r.problem);
            }
        }
    }
    render(&rows) + &notes
}

fn row(scenario: &str, dut: &str, group: &[&Run]) -> Vec<String> {
    let seconds = |pick: fn(&Run) -> &Phase| {
        median(group.iter().filter_map(|r| pick(r).converged_s)).map_or("-".into(), time)
    };
    let some = |pick: &dyn Fn(&Run) -> f64| median(group.iter().map(|r| pick(r))).unwrap_or(0.0);
    let mut conv: Vec<f64> = group.iter().filter_map(|r| r.announce.converged_s).collect();
    conv.sort_by(f64::total_cmp);
    let span = match conv.as_slice() {
        [] => "-".into(),
        [first, .., last] => format!("{}-{}", time(*first), time(*last)),
        [one] => time(*one),
    };
    let middle = median(conv.iter().copied());
    let prefixes = group[0].prefixes as f64;
    vec![
        scenario.into(),
        dut.into(),
        format!("{}/{}", conv.len(), group.len()),
        middle.map_or("-".into(), time),
        span,
        time(some(&|r| r.announce.settled_s)),
        middle.map_or("-".into(), |s| format!("{:.0}", prefixes / s)),
        format!("{:.2}", some(&|r| r.announce.dut_cpu_s)),
        format!("{:.2}", some(&|r| r.announce.bench_cpu_s)),
        format!("{:.0}", some(&|r| 100.0 * r.announce.other_cpu)),
        format!("{:.0}", some(&|r| r.announce.dut_peak_kb as f64) / 1024.0),
        format!("{:.0}", some(&|r| r.rss_per_route)),
        format!("{:.0}", some(&|r| r.announce.updates as f64)),
        seconds(|r| &r.withdraw),
        seconds(|r| &r.reannounce),
        seconds(|r| &r.flap),
    ]
}

fn time(s: f64) -> String {
    if s < 0.1 {
        format!("{s:.4}")
    } else {
        format!("{s:.3}")
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut v: Vec<f64> = values.collect();
    v.sort_by(f64::total_cmp);
    let mid = v.len() / 2;
    match v.len() {
        0 => None,
        n if n % 2 == 1 => Some(v[mid]),
        _ => Some((v[mid - 1] + v[mid]) / 2.0),
    }
}

/// A Markdown table with aligned columns.
fn render(rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|c| rows.iter().map(|r| r[c].len()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "| {cell:>width$} ");
        }
        out += "|\n";
        if i == 0 {
            for width in &widths {
                let _ = write!(out, "|{:-<1$}:", "", width + 1);
            }
            out += "|\n";
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }
}
