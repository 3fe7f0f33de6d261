//! Runs as Markdown: medians with the least and the most of them, and ratios within a round.

use std::fmt::Write;

use super::{MAX_STEAL_PCT, Run, Subject, Who};

/// A column: heading, where its number is in the report, digits after the point.
type Column = (&'static str, &'static str, usize);

const PLAY: &[Column] = &[
    ("CPU-s/GB", "/server/cpu_s_per_gb", 2),
    ("p50 ms", "/latency_ms/p50", 1),
    ("p99 ms", "/latency_ms/p99", 1),
    ("first video p50 ms", "/first_video_ms/p50", 1),
    ("RSS at N, MB", "/server/rss_max_kb", 1),
    ("delivered", "/delivered_ratio", 4),
    ("missed", "/missed_frames", 0),
    ("lost", "/lost", 0),
    ("client CPU %", "/client/cpu_pct", 0),
    ("load", "/machine/load_1m", 1),
    ("steal %", "/machine/steal_pct", 1),
];

const INGEST: &[Column] = &[
    ("CPU % of a core per stream", "/server/cpu_pct_each", 3),
    ("CPU-s/GB in", "/server/cpu_s_per_gb", 2),
    ("KB per stream", "/server/rss_each_kb", 0),
    ("granted", "/granted", 0),
    ("lost", "/lost", 0),
    ("latest send ms", "/latest_send_ms", 1),
    ("load", "/machine/load_1m", 1),
    ("steal %", "/machine/steal_pct", 1),
];

/// Subjects that belong into one table.
pub fn groups(subjects: &[Subject]) -> Vec<Vec<Subject>> {
    let mut groups: Vec<Vec<Subject>> = Vec::new();
    for &subject in subjects {
        let same = |s: &Subject| (s.players, s.publishers) == (subject.players, subject.publishers);
        match groups.iter_mut().find(|group| same(&group[0])) {
            Some(group) => group.push(subject),
            None => groups.push(vec![subject]),
        }
    }
    groups
}

/// Who, and under what load.
pub fn heading(subject: &Subject) -> String {
    match subject.players {
        0 => format!("{} publishers at {subject}", subject.publishers),
        players => format!("{players} players at {subject}"),
    }
}

/// A run in a few words.
pub fn brief(run: &Run) -> String {
    let mut out = String::new();
    for (name, pointer, digits) in columns(&run.subject).iter().take(4) {
        let value = run.number(pointer);
        let value = value.map_or("–".into(), |value| format!("{value:.digits$}"));
        let _ = write!(out, "{name} {value}  ");
    }
    out.trim_end().to_owned()
}

/// The table of one group, with the machine above it and the ratios below.
pub fn markdown(group: &[Subject], runs: &[Run]) -> String {
    let of = |subject: &Subject, valid: bool| -> Vec<&Run> {
        let mine = runs.iter().filter(|run| run.subject == *subject);
        mine.filter(|run| run.is_valid() == valid).collect()
    };
    let mut out = String::new();
    let first = group.iter().flat_map(|s| of(s, true)).next();
    if let Some(run) = first {
        let machine = &run.report["machine"];
        let (cpu, cores) = (machine["cpu"].as_str().unwrap_or("?"), &machine["cores"]);
        let _ = writeln!(
            out,
            "{cores} × {cpu}; median (least–most) of the valid runs\n"
        );
    }
    let Some(columns) = group.first().map(columns) else {
        return out;
    };
    let what = match group[0].players {
        0 => format!("{} publishers", group[0].publishers),
        players => format!("N = {players}"),
    };
    let names: Vec<_> = columns.iter().map(|column| column.0).collect();
    let _ = writeln!(
        out,
        "| {what} | {} | RSS idle, MB | KB above idle each | runs |",
        names.join(" | ")
    );
    let _ = writeln!(out, "|{}", "---|".repeat(columns.len() + 4));
    let mut discarded = 0;
    for subject in group {
        discarded += of(subject, false).len();
        let valid = of(subject, true);
        let mut cells: Vec<String> = columns
            .iter()
            .map(|(_, pointer, digits)| {
                let scale = if pointer.ends_with("rss_max_kb") {
                    1024.0
                } else {
                    1.0
                };
                // A floor's players wait for each other: their first video says nothing.
                let nothing = matches!(subject.who, Who::Floor | Who::Floors)
                    && pointer.contains("first_video");
                let values = valid.iter().filter_map(|run| run.number(pointer));
                match nothing {
                    true => "–".into(),
                    false => spread(values.map(|value| value / scale).collect(), *digits),
                }
            })
            .collect();
        let idle = valid.iter().map(|run| run.idle_kb as f64);
        cells.push(spread(idle.map(|kb| kb / 1024.0).collect(), 1));
        let count = subject.players.max(subject.publishers) as f64;
        let each = valid.iter().filter_map(|run| {
            Some((run.number("/server/rss_max_kb")? - run.idle_kb as f64) / count)
        });
        cells.push(spread(each.collect(), 1));
        let _ = writeln!(
            out,
            "| {subject} | {} | {} |",
            cells.join(" | "),
            valid.len()
        );
    }
    out.push('\n');
    let compared = |one: &Subject, other: &Subject| match (one.who, other.who) {
        (Who::Ours | Who::Http, Who::Floor | Who::Floors) | (Who::Http, Who::Ours) => {
            one.merge_ms == other.merge_ms
        }
        (Who::Ours, Who::Nginx) => true,
        _ => false,
    };
    for ours in group {
        for other in group.iter().filter(|other| compared(ours, other)) {
            let ratios: Vec<String> = columns
                .iter()
                .take(3)
                .map(|(name, pointer, _)| {
                    let pairs = of(ours, true).into_iter().filter_map(|a| {
                        let b = of(other, true).into_iter().find(|b| b.round == a.round)?;
                        Some(a.number(pointer)? / b.number(pointer)?)
                    });
                    format!("{name} {}", spread(pairs.collect(), 2))
                })
                .collect();
            let _ = writeln!(out, "{ours} / {other}: {}  ", ratios.join(", "));
        }
    }
    if discarded > 0 {
        let _ = writeln!(
            out,
            "\n{discarded} runs had more than {MAX_STEAL_PCT} % of CPU time stolen and were discarded."
        );
    }
    out
}

fn columns(subject: &Subject) -> &'static [Column] {
    match subject.players {
        0 => INGEST,
        _ => PLAY,
    }
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
