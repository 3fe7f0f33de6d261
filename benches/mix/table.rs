//! Runs as Markdown: medians with the least and the most of them, and ratios within a round.

use std::fmt::Write;

use super::{MAX_STEAL_PCT, Run, Who};

/// A column: heading, the names of its figures, digits after the point. Several figures are shown as one: the worst.
type Column = (&'static str, &'static [&'static str], usize);

const COLUMNS: &[Column] = &[
    ("CPU, cores", &["cpu"], 3),
    ("the server before the mix", &["relay"], 3),
    ("main p50 ms", &["main p50"], 1),
    ("main p99 ms", &["main p99"], 1),
    ("worst sub p50 ms", &["sub1 p50", "sub2 p50", "sub3 p50"], 1),
    ("worst sub p99 ms", &["sub1 p99", "sub2 p99", "sub3 p99"], 1),
    ("sound p50 ms", &["sound p50"], 1),
    ("sound max ms", &["sound max"], 1),
    ("RSS, MB", &["rss"], 1),
    ("start ms", &["start"], 0),
    ("fps", &["fps"], 2),
    ("main's frame repeated", &["repeated"], 0),
    ("kbit/s", &["kbps"], 0),
    ("steal %", &["steal"], 1),
];

fn name(who: Who) -> &'static str {
    match who {
        Who::Ours => "ours",
        Who::Beside => "ours, the other build",
        Who::Ffmpeg => "ffmpeg's filter graph",
    }
}

fn value(run: &Run, (_, figures, _): &Column) -> f64 {
    let values = figures.iter().filter_map(|name| run.figures.get(*name));
    values.copied().fold(f64::NAN, f64::max)
}

/// A run in a line.
pub fn brief(run: &Run) -> String {
    let mut out = format!("{}:", name(run.who));
    for column in COLUMNS {
        let _ = write!(out, "  {} {:.*}", column.0, column.2, value(run, column));
    }
    out.push_str(if run.is_valid() { "" } else { ", discarded" });
    out
}

pub fn markdown(runs: &[Run]) -> String {
    let of = |who| {
        runs.iter()
            .filter(move |run| run.who == who && run.is_valid())
    };
    let names: Vec<_> = COLUMNS.iter().map(|column| column.0).collect();
    let mut out = format!("| 1+3, 720p30 | {} | runs |\n", names.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(COLUMNS.len() + 2));
    for who in [Who::Ours, Who::Beside, Who::Ffmpeg] {
        let count = of(who).count();
        if count == 0 {
            continue;
        }
        let cells = COLUMNS.iter().map(|column| {
            let values = of(who).map(|run| value(run, column));
            spread(values.collect(), column.2)
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(out, "| {} | {} | {count} |", name(who), cells.join(" | "));
    }
    out.push('\n');
    for other in [Who::Beside, Who::Ffmpeg] {
        let ratios: Vec<f64> = of(Who::Ours)
            .filter_map(|ours| {
                let other = of(other).find(|run| run.round == ours.round)?;
                Some(ours.figures["cpu"] / other.figures["cpu"])
            })
            .collect();
        if !ratios.is_empty() {
            let pairs = ratios.len();
            let ratio = spread(ratios, 3);
            let _ = writeln!(
                out,
                "CPU, ours / {}: {ratio} in {pairs} pairs  ",
                name(other)
            );
        }
    }
    let discarded = runs.iter().filter(|run| !run.is_valid()).count();
    if discarded > 0 {
        let _ = writeln!(
            out,
            "\n{discarded} runs had more than {MAX_STEAL_PCT} % of CPU time stolen and were discarded."
        );
    }
    out
}

/// Median (least–most), or the value when they are one.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else {
        return "–".into();
    };
    let show = |value: f64| format!("{value:.digits$}");
    let upper = values[values.len() / 2];
    let lower = values[(values.len() - 1) / 2];
    let median = show((upper + lower) / 2.0);
    match show(*least) == show(*most) {
        true => median,
        false => format!("{median} ({}–{})", show(*least), show(*most)),
    }
}
