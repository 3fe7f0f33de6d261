//! What is wrong with what players got and with what the server counts of itself. Pure: figures in, complaints out.

use super::crowd::Seen;
use super::world::FPS;
use crate::numbers::Numbers;

/// How far behind players may be, in 99 of 100 pictures, peers first: the class's budget, and a GOP to be back in it.
const LAG_MS: [f64; 2] = [400.0 + 1000.0, 3000.0 + 1000.0];
/// How far behind half of the pictures may be, of either class: nobody is behind by design, and a machine that cannot keep up
/// judges nothing else either.
const MEDIAN_MS: f64 = 250.0;
/// Pictures that players may miss, of all: who is behind for a moment skips.
const MISSED: f64 = 0.01;
/// Of the pictures that there were while a class read it has been given so many: anchors are silent at times.
const GIVEN: f64 = 0.9;
/// Ends of connections that acts lead to. All others are nobody's doing.
const CAUSED: &[&str] = &[
    // Players and anchors that go, in order or without a word.
    "deleted",
    "closed",
    "disconnected",
    "socket_error",
    // Players of a stream that is over, or that does not come.
    "stream_ended",
    "not_found",
    // Players that stall.
    "too_slow",
    // The operator's doing; who is banned tries to come back.
    "dropped",
    "banned",
    "forbidden",
    "taken_over",
    // Strangers.
    "bad_name",
    "signature_expired",
];
/// Counters of what no act leads to, in all their series.
const ZERO: &[&str] = &[
    "linkmic_hooks_lost_total",
    "linkmic_limits_refused_total",
    "linkmic_mixer_restarts_total",
    "linkmic_mixer_steps_total",
    "linkmic_push_takeovers_total",
    "linkmic_store_failures_total",
];

/// What is wrong with what players got in a minute.
pub fn wrong_with_players(seen: &[Seen], playing: u64, places: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((seen, most), class) in seen.iter().zip(LAG_MS).zip(CLASSES) {
        if seen.pictures == 0 {
            wrong.push(format!("{class} got no pictures"));
        }
        for (quantile, ms, most) in [("p50", seen.p50_ms, MEDIAN_MS), ("p99", seen.p99_ms, most)] {
            if ms > most {
                wrong.push(format!(
                    "{class} were {ms:.0} ms behind ({quantile}), {most:.0} are allowed"
                ));
            }
        }
        if seen.missed as f64 > MISSED * seen.pictures as f64 {
            wrong.push(format!(
                "{class} missed {} of {} pictures",
                seen.missed, seen.pictures
            ));
        }
    }
    if playing * 10 < places * 8 {
        wrong.push(format!("only {playing} of {places} players play"));
    }
    wrong
}

const CLASSES: [&str; 2] = ["peers", "viewers"];

/// What is wrong with all that players got in the whole soak: pictures given, and expected, by class.
pub fn wrong_with_all_given(classes: [(u64, u64); 2]) -> Vec<String> {
    let classes = CLASSES.into_iter().zip(classes);
    let few = classes.filter(|(_, (given, expected))| (*given as f64) < GIVEN * *expected as f64);
    let few = few.map(|(class, (given, expected))| {
        format!("{class} were given {given} pictures of the {expected} that {FPS} a second are")
    });
    few.collect()
}

/// What is wrong with how many players the operator found whom he was to disconnect; fewer than three may all have gone.
pub fn wrong_with_kicks(asked: u64, found: u64) -> Option<String> {
    (asked >= 3 && found * 2 < asked)
        .then(|| format!("the operator found {found} of {asked} players whom he was to disconnect"))
}

/// What the server counts that nobody caused, since its start.
pub fn wrong_with_counts(numbers: &Numbers) -> Vec<String> {
    let ends = numbers.counted("linkmic_ingest_disconnects_total");
    let ends = ends
        .into_iter()
        .filter(|(reason, _)| !CAUSED.contains(reason));
    let ends = ends.map(|(reason, count)| {
        format!("{count} connections ended so far with {reason}, and nobody did anything")
    });
    let counters = ZERO.iter().flat_map(|name| {
        let series = numbers.series(name).into_iter();
        series
            .filter(|(_, count)| *count > 0.0)
            .map(move |(labels, count)| format!("{name}{{{labels}}} is {count}"))
    });
    ends.chain(counters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_that_are_late_miss_pictures_or_stay_away_are_told() {
        let good = Seen {
            pictures: 1000,
            missed: 2,
            p50_ms: 3.0,
            p99_ms: 300.0,
            worst_ms: 900.0,
        };
        let wrong = |seen: [Seen; 2], playing| wrong_with_players(&seen, playing, 100).len();
        let late = Seen {
            p99_ms: 2000.0,
            ..good
        };
        let always_late = Seen {
            p50_ms: 251.0,
            ..good
        };
        let holes = Seen { missed: 20, ..good };
        let nothing = Seen {
            pictures: 0,
            missed: 0,
            ..good
        };
        for (name, seen, playing, complaints) in [
            ("all is well", [good, good], 95, 0),
            ("peers late", [late, good], 95, 1),
            ("viewers may be", [good, late], 95, 0),
            ("late all the time", [good, always_late], 95, 1),
            ("holes", [good, holes], 95, 1),
            ("nothing", [nothing, nothing], 10, 3),
        ] {
            assert_eq!(wrong(seen, playing), complaints, "{name}");
        }
    }

    #[test]
    fn players_that_are_given_too_little_in_the_whole_are_told() {
        assert_eq!(
            wrong_with_all_given([(95, 100), (0, 0)]),
            Vec::<String>::new()
        );
        assert_eq!(wrong_with_all_given([(95, 100), (800, 1000)]).len(), 1);
    }

    #[test]
    fn an_operator_who_finds_nobody_is_told() {
        assert_eq!(wrong_with_kicks(0, 0), None);
        assert_eq!(wrong_with_kicks(10, 6), None);
        assert!(wrong_with_kicks(10, 4).is_some());
        assert!(wrong_with_kicks(3, 0).is_some());
        assert_eq!(wrong_with_kicks(2, 0), None);
    }

    #[test]
    fn what_is_counted_and_was_not_caused_is_told_whatever_it_is() {
        let page = |reason: &str, lost: u64| {
            let mut page = format!("linkmic_ingest_disconnects_total{{reason=\"{reason}\"}} 2\n");
            for name in ZERO {
                let count = if *name == "linkmic_hooks_lost_total" {
                    lost
                } else {
                    0
                };
                page += &format!("{name} {count}\n");
            }
            Numbers::from(page.as_str())
        };
        assert_eq!(wrong_with_counts(&page("deleted", 0)), Vec::<String>::new());
        let wrong = wrong_with_counts(&page("never_heard_of", 3));
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("never_heard_of"), "{wrong:?}");
        assert!(wrong[1].contains("lost_total{} is 3"), "{wrong:?}");
    }
}
