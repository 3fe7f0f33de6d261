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
    ("pushed sound p50 ms", &["pushed sound p50"], 1),
    ("RSS, MB", &["rss"], 1),
    ("start ms", &["start"], 0),
    ("fps", &["fps"], 2),
    ("main's frame repeated", &["repeated"], 0),
    ("likeness (SSIM)", &["likeness"], 4),
    ("kbit/s", &["kbps"], 0),
    ("pictures until a move shows", &["moved"], 0),
    ("mixes", &["mixes"], 0),
    ("machine busy %", &["busy"], 0),
    ("peers alone p50 ms", &["alone p50"], 2),
    ("peers alone p99 ms", &["alone p99"], 2),
    ("beside mixes p50 ms", &["beside p50"], 2),
    ("beside mixes p99 ms", &["beside p99"], 2),
    ("p99 beside ÷ alone", &["peers p99"], 2),
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
    for column in COLUMNS
        .iter()
        .filter(|column| value(run, column).is_finite())
    {
        let _ = write!(out, "  {} {:.*}", column.0, column.2, value(run, column));
    }
    out.push_str(if run.is_valid() { "" } else { ", discarded" });
    out
}

/// All runs; what none of them has is no column.
pub fn markdown(runs: &[Run], what: &str) -> String {
    let of = |who| {
        runs.iter()
            .filter(move |run| run.who == who && run.is_valid())
    };
    let is_shown = |column: &&Column| runs.iter().any(|run| value(run, column).is_finite());
    let columns: Vec<&Column> = COLUMNS.iter().filter(is_shown).collect();
    let names: Vec<_> = columns.iter().map(|column| column.0).collect();
    let mut out = format!("| {what} | {} | runs |\n", names.join(" | "));
    let _ = writeln!(out, "|{}", "---|".repeat(columns.len() + 2));
    for who in [Who::Ours, Who::Beside, Who::Ffmpeg] {
        let count = of(who).count();
        if count == 0 {
            continue;
        }
        let cells = columns.iter().map(|column| {
            let values = of(who).map(|run| value(run, column));
            spread(values.filter(|value| value.is_finite()).collect(), column.2)
        });
        let cells: Vec<String> = cells.collect();
        let _ = writeln!(out, "| {} | {} | {count} |", name(who), cells.join(" | "));
    }
    out.push('\n');
    for other in [Who::Beside, Who::Ffmpeg] {
        let ratios: Vec<f64> = of(Who::Ours)
            .filter_map(|ours| {
                let other = of(other).find(|run| run.round == ours.round)?;
                Some(ours.figures.get("cpu")? / other.figures.get("cpu")?)
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
