use proptest::prelude::*;

use super::*;

fn run(steps: &[(Kind, u32)]) -> Vec<i64> {
    let mut repair = Repair::new();
    steps
        .iter()
        .map(|&(k, t)| repair.map(k, 0, t, true).0.0)
        .collect()
}

/// What each message came out as, and what was counted.
fn mended(steps: &[(Kind, u32)]) -> (Vec<i64>, Vec<&'static str>) {
    let mut repair = Repair::new();
    let all = steps.iter().map(|&(k, t)| repair.map(k, 0, t, true));
    let (times, what): (Vec<_>, Vec<_>) = all.unzip();
    (
        times.into_iter().map(|t| t.0).collect(),
        what.into_iter().flatten().map(|a| a.as_str()).collect(),
    )
}

use Kind::{Audio as A, Video as V};

#[test]
fn time_runs_on_across_24_and_32_bits() {
    assert_eq!(
        run(&[(V, 0xFF_FFFE), (V, 0x100_0001)]),
        [0xFF_FFFE, 0x100_0001]
    );
    let max = i64::from(u32::MAX);
    assert_eq!(
        run(&[(V, u32::MAX - 19), (A, u32::MAX), (V, 20), (A, 3)]),
        [max - 19, max, (1 << 32) + 20, (1 << 32) + 3]
    );
}

#[test]
fn a_clock_that_wraps_at_24_bits_has_begun_again() {
    // What an encoder with a 24-bit counter sends after 4 h 40 min.
    let steps = [
        (V, 0xFF_FFD8),
        (A, 0xFF_FFE0),
        (V, 0),
        (A, 8),
        (V, 40),
        (A, 31),
    ];
    let (times, what) = mended(&steps);
    let from = |t: i64| t - 0xFF_FFD8;
    // The second step's rhythm is not known yet: 20 ms.
    assert_eq!(
        times.into_iter().map(from).collect::<Vec<_>>(),
        [0, 8, 20, 28, 60, 51]
    );
    assert_eq!(what, ["reset"]);
}

#[test]
fn a_jump_is_mended_once_for_both_tracks_in_the_rhythm_of_the_first() {
    let steps = [
        (V, 1_000),
        (A, 1_010),
        (V, 1_040),
        (A, 1_033),
        (V, 500_080),
        (A, 500_056),
    ];
    assert_eq!(
        mended(&steps),
        (
            vec![1_000, 1_010, 1_040, 1_033, 1_080, 1_056],
            vec!["ahead"]
        )
    );
}

#[test]
fn a_track_that_has_not_jumped_yet_goes_on_where_it_was() {
    // Two sounds of the old clock come behind the first picture of the new one.
    let steps = [
        (V, 0),
        (A, 5),
        (V, 40),
        (V, 900_080),
        (A, 28),
        (A, 51),
        (A, 900_074),
    ];
    assert_eq!(
        mended(&steps),
        (vec![0, 5, 40, 80, 28, 51, 74], vec!["ahead"])
    );
}

#[test]
fn a_reset_to_zero_is_mended() {
    let steps = [(V, 60_000), (A, 60_010), (A, 60_033), (A, 0), (V, 5)];
    assert_eq!(
        mended(&steps),
        (vec![60_000, 60_010, 60_033, 60_056, 60_061], vec!["reset"])
    );
}

#[test]
fn a_single_wild_timestamp_is_followed_by_a_return_to_the_old_clock() {
    let steps = [(V, 0), (V, 40), (V, 7_000_000), (V, 120), (V, 160)];
    assert_eq!(mended(&steps), (vec![0, 40, 80, 120, 160], vec!["ahead"]));
}

#[test]
fn a_track_with_a_zero_of_its_own_moves_no_other() {
    // Pictures count from the encoder's start, sound from its own.
    let steps = [
        (V, 3_600_000),
        (A, 0),
        (V, 3_600_040),
        (A, 23),
        (V, 3_600_080),
    ];
    assert_eq!(
        mended(&steps),
        (
            vec![3_600_000, 3_600_000, 3_600_040, 3_600_023, 3_600_080],
            vec!["apart"]
        )
    );
}

#[test]
fn sound_seconds_ahead_of_pictures_stays_so_also_after_a_jump() {
    let steps = [
        (A, 3_000),
        (V, 0),
        (A, 3_023),
        (V, 40),
        (A, 3_046),
        (V, 80),
        // Both clocks go on a day later.
        (V, 86_400_120),
        (A, 86_403_069),
        (V, 86_400_160),
    ];
    let (times, what) = mended(&steps);
    assert_eq!(times[6..], [120, 3_069, 160]);
    assert_eq!(what, ["ahead"]);
}

#[test]
fn a_track_that_pauses_comes_back_beside_the_other() {
    let mut steps = vec![(V, 0), (A, 0)];
    steps.extend((1..=1_500).map(|n| (V, n * 40)));
    steps.push((A, 60_000));
    let (times, what) = mended(&steps);
    assert_eq!(times.last(), Some(&60_000));
    assert_eq!(what, [""; 0]);
    // Its clock stood still meanwhile, or is another: it is put where the other is.
    for (time, expected) in [
        (7, "apart"),
        (5_000_000, "ahead"),
        (u32::MAX - 9_999, "back"),
    ] {
        steps.pop();
        steps.push((A, time));
        let (times, what) = mended(&steps);
        assert_eq!(times.last(), Some(&60_000), "{time}");
        assert_eq!(what, [expected], "{time}");
    }
}

#[test]
fn one_track_alone_is_enough() {
    for kind in [A, V] {
        let steps = [
            (kind, 5),
            (kind, 28),
            (kind, 51),
            (kind, 40_000),
            (kind, 40_023),
        ];
        assert_eq!(mended(&steps).0, [5, 28, 51, 74, 97]);
    }
}

#[test]
fn tracks_of_one_kind_have_clocks_of_their_own() {
    let mut repair = Repair::new();
    let mut at = |id, time| repair.map(V, id, time, true);
    assert_eq!(at(0, 1_000), (MediaTime(1_000), None));
    assert_eq!(at(1, 1_000), (MediaTime(1_000), None));
    assert_eq!(at(2, 900_000).1, Some(Anomaly::Apart(899_000)));
    assert_eq!(at(2, 900_040).0, MediaTime(1_040));
    assert_eq!(at(0, 1_040), (MediaTime(1_040), None));
    assert_eq!(at(1, 1_040), (MediaTime(1_040), None));
}

#[test]
fn strangers_track_ids_fill_no_memory_and_crowd_out_nobody() {
    let mut repair = Repair::new();
    repair.map(A, 0, 100, true);
    for id in 0..=255 {
        repair.map(V, id, 100, true);
    }
    assert_eq!(repair.tracks.len(), MAX_TRACKS);
    assert_eq!(repair.map(A, 0, 123, true), (MediaTime(123), None));
}

#[test]
fn script_data_with_time_zero_moves_no_clock() {
    let mut repair = Repair::new();
    repair.map(V, 0, 60_000, true);
    let data = repair.map(Kind::Data, 0, 0, false);
    assert_eq!(data, (MediaTime(60_000), None));
    let next = repair.map(V, 0, 60_040, true);
    assert_eq!(next, (MediaTime(60_040), None));
}

#[test]
fn a_header_with_time_zero_moves_no_clock() {
    let mut repair = Repair::new();
    assert_eq!(repair.map(V, 0, 0, false), (MediaTime(0), None));
    let first = repair.map(V, 0, 3_600_000, true);
    assert_eq!(first, (MediaTime(3_600_000), None));
    let again = repair.map(V, 0, 0, false);
    assert_eq!(again, (MediaTime(3_600_000), None));
    let next = repair.map(V, 0, 3_600_040, true);
    assert_eq!(next, (MediaTime(3_600_040), None));
}

#[test]
fn small_steps_back_are_reordering_and_wait_for_their_time() {
    let steps = [(V, 1_000), (A, 1_020), (A, 990), (A, 1_013), (A, 1_036)];
    assert_eq!(
        mended(&steps),
        (vec![1_000, 1_020, 1_020, 1_020, 1_036], vec!["unordered"])
    );
}

#[test]
fn every_kind_has_a_counter() {
    let metrics = crate::metrics::Metrics::new();
    Anomaly::KINDS
        .iter()
        .for_each(|kind| metrics.anomalies(kind));
    let text = String::from_utf8(metrics.encode()).unwrap();
    for kind in Anomaly::KINDS {
        let line = format!("linkmic_ingest_timestamp_anomalies_total{{kind=\"{kind}\"}} 1");
        assert!(text.contains(&line), "{line}");
    }
}

fn any_step() -> impl Strategy<Value = (Kind, u8, u32)> {
    let near = (0u32..200).prop_map(|d| d.wrapping_sub(60));
    let far = prop_oneof![
        near.clone(),
        near.clone(),
        near,
        0u32..20_000,
        (0u32..20_000).prop_map(|d| d.wrapping_neg()),
        any::<u32>(),
    ];
    (prop_oneof![Just(A), Just(V)], 0u8..3, far)
}

proptest! {
    #[test]
    fn whatever_comes_no_track_goes_back_or_leaps(
        begin in any::<u32>(),
        steps in prop::collection::vec(any_step(), 1..200),
    ) {
        let mut repair = Repair::new();
        let mut last = std::collections::HashMap::new();
        let (mut wire, mut newest) = (begin, None::<i64>);
        for (kind, id, step) in steps {
            wire = wire.wrapping_add(step);
            let out = repair.map(kind, id, wire, true).0.0;
            if let Some(before) = last.insert((kind, id), out) {
                prop_assert!(out >= before, "{before} then {out}");
            }
            if let Some(newest) = newest {
                prop_assert!(out <= newest + MAX_STEP_MS, "{newest} then {out}");
                prop_assert!(out >= newest - NEAR_MS || last.len() > 1);
            }
            newest = newest.max(Some(out));
        }
    }

    /// Sound and pictures of one encoder, whose clock jumps at any moments by any amounts, for both at once. Judged
    /// when both have sent at the clock's last place for 2 s.
    #[test]
    fn jumps_that_both_tracks_make_leave_sound_with_its_pictures(
        begin in any::<u32>(),
        lead in -2_000i64..2_000,
        jumps in prop::collection::vec((1_500i64..9_000, prop_oneof![
            -20_000i64..20_000,
            9_800i64..10_200,
            -1_200i64..-400,
            -5_000_000i64..5_000_000,
        ]), 0..5),
    ) {
        let mut moments = Vec::new();
        let (mut at, mut offset) = (0, 0);
        for (pause, by) in jumps {
            at += pause;
            offset += by;
            moments.push((at, offset));
        }
        let end = at + 4_000;
        // Sent at `at`, with the time that each track gives to that moment.
        let mut sent: Vec<_> = (0..end / 40).map(|n| (n * 40, V, 0)).collect();
        sent.extend((0..end / 23).map(|n| (n * 23, A, lead)));
        sent.sort_by_key(|(at, ..)| *at);
        let mut repair = Repair::new();
        let (mut picture, mut sound) = (None, None);
        for (at, kind, ahead) in sent {
            let offset = moments.iter().rev().find(|(from, _)| *from <= at).map_or(0, |(_, o)| *o);
            let raw = i64::from(begin) + at + ahead + offset;
            let out = repair.map(kind, 0, raw as u32, true).0.0;
            match kind {
                V => picture = Some(out - at),
                _ => sound = Some(out - at - ahead),
            }
        }
        let apart = picture.unwrap() - sound.unwrap();
        prop_assert!(apart.abs() <= 1, "{apart} ms apart");
    }
}
