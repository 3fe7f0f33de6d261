//! A track read at its own pace, at others, and with holes.

use super::*;
use std::f64::consts::TAU;

const RATE: u32 = 48_000;

fn due(samples: usize) -> i64 {
    (samples as f64 * 1e6 / f64::from(RATE)) as i64
}

fn at(start_us: i64) -> Span {
    Span {
        start_us,
        stretch: 1.0,
        lead: None,
    }
}

/// Stereo samples `from..from + count` of a tone of amplitude 0.5, sampled at `rate`.
fn tone(hz: f64, rate: f64, from: usize, count: usize) -> Vec<f32> {
    (from..from + count)
        .flat_map(|n| {
            let v = (0.5 * (TAU * hz * n as f64 / rate).sin()) as f32;
            [v, v]
        })
        .collect()
}

/// Largest change from one sample to the next.
fn roughest(samples: &[Frame]) -> f32 {
    samples
        .windows(2)
        .map(|w| (w[1][0] - w[0][0]).abs())
        .fold(0.0, f32::max)
}

/// Amplitude of a tone in mono samples.
fn level(samples: &[Frame], hz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, s) in samples.iter().enumerate() {
        let phase = TAU * hz * n as f64 / f64::from(RATE);
        re += f64::from(s[0]) * phase.cos();
        im += f64::from(s[0]) * phase.sin();
    }
    2.0 * re.hypot(im) / samples.len() as f64
}

/// A tone of 440 Hz and amplitude 0.5 changes by at most 0.5 × 2π × 440 / 48000 = 0.029 per sample; a ramp of a
/// residual of up to 1 over 240 samples adds at most π / 2 / 240 = 0.0066.
const SMOOTH: f32 = 0.036;

#[test]
fn sound_on_time_passes_bit_by_bit() {
    let mut track = Track::new(RATE);
    let whole = tone(440.0, 48_000.0, 0, 20 * BLOCK);
    let mut out = vec![];
    for n in 0..20 {
        track.push(
            &whole[n * 2 * BLOCK..(n + 1) * 2 * BLOCK],
            due(n * BLOCK),
            0,
        );
        if n > 0 {
            let mut sum = vec![[0.0; 2]; BLOCK];
            track.mix(at(due((n - 1) * BLOCK)), 1.0, &mut sum);
            out.extend(sum);
        }
    }
    let (expected, _) = whole.as_chunks::<2>();
    // Times are whole microseconds, so the start may be one sample off.
    let from = RAMP + 10;
    let matches = |shift: usize| {
        out[from..from + 10_000] == expected[from + shift - 1..from + shift - 1 + 10_000]
    };
    assert!((0..3).any(matches));
    assert_eq!(track.faults(), Faults::default());
}

#[test]
fn running_dry_and_coming_back_makes_no_click() {
    let mut track = Track::new(RATE);
    let mut out = vec![];
    for n in 0..60usize {
        if !(20..30).contains(&n) {
            track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK), 0);
        }
        let mut sum = vec![[0.0; 2]; BLOCK];
        if let Some(block) = n.checked_sub(1) {
            track.mix(at(due(block * BLOCK)), 1.0, &mut sum);
            out.extend(sum);
        }
    }
    assert_eq!(track.faults().underruns, 1);
    assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
    assert!(out[25 * BLOCK][0].abs() < 1e-6);
    let after = &out[40 * BLOCK..55 * BLOCK];
    assert!((level(after, 440.0) - 0.5).abs() < 0.01);
}

#[test]
fn a_clock_one_percent_fast_is_followed_by_resampling() {
    let mut track = Track::new(RATE);
    let mut out: Vec<Frame> = vec![];
    // The publisher's 48 kHz run 1 % fast: its frame n is due at 0.99 × n frames, as the clock map says.
    let wall = |n: usize| (due(n * BLOCK) as f64 * 0.99) as i64;
    let mut pushed = 0;
    for block in 0..1_500usize {
        while wall(pushed) < due((block + 2) * BLOCK) {
            track.push(
                &tone(440.0, 48_000.0, pushed * BLOCK, BLOCK),
                wall(pushed),
                0,
            );
            pushed += 1;
        }
        let mut sum = vec![[0.0; 2]; BLOCK];
        track.mix(at(due(block * BLOCK)), 1.0, &mut sum);
        out.extend(sum);
    }
    assert_eq!(track.faults(), Faults::default());
    assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
    // 440 Hz by its clock are 444.4 Hz by ours.
    let late = &out[1_000 * BLOCK..1_400 * BLOCK];
    assert!(
        level(late, 440.0 / 0.99) > 0.45,
        "{}",
        level(late, 440.0 / 0.99)
    );
    // And by the samples that were pushed, not by what the track makes of their times, it stands in the dead band.
    let behind = track.ring.len() as f64 - 1.0 - track.fraction;
    let stands_at = (wall(pushed) as f64) - behind * 1e6 / f64::from(RATE) * 0.99;
    let off_ms = (stands_at - due(1_500 * BLOCK) as f64) / 1_000.0;
    assert!(off_ms.abs() < 3.0, "{off_ms}");
}

#[test]
fn a_block_that_is_said_to_be_here_never_runs_dry() {
    for pace in [0.99, 0.997, 1.0, 1.003, 1.01] {
        let mut track = Track::new(RATE);
        let wall = |n: usize| (due(n * BLOCK) as f64 * pace) as i64;
        let mut pushed = 0;
        for block in 0..1_500usize {
            // Not a sample more than needed.
            while !track.covers(at(due(block * BLOCK))) {
                track.push(
                    &tone(440.0, 48_000.0, pushed * BLOCK, BLOCK),
                    wall(pushed),
                    0,
                );
                pushed += 1;
            }
            let mut sum = vec![[0.0; 2]; BLOCK];
            track.mix(at(due(block * BLOCK)), 1.0, &mut sum);
        }
        assert_eq!(track.faults(), Faults::default(), "{pace}");
    }
}

#[test]
fn a_corrected_clock_moves_the_sound_at_once() {
    let mut track = Track::new(RATE);
    let mut out = vec![];
    for n in 0..40usize {
        // Said to be due 40 ms too late until block 20.
        let wrong = if n < 20 { 40_000 } else { 0 };
        if n == 20 {
            track.shift(-40_000);
        }
        track.push(
            &tone(440.0, 48_000.0, n * BLOCK, BLOCK),
            due(n * BLOCK) + wrong,
            0,
        );
        let mut sum = vec![[0.0; 2]; BLOCK];
        if let Some(block) = n.checked_sub(1) {
            track.mix(at(due(block * BLOCK)), 1.0, &mut sum);
            out.extend(sum);
        }
    }
    assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
    // Sample for sample where it belongs, without a bent note.
    let wanted = tone(440.0, 48_000.0, 25 * BLOCK, 10 * BLOCK);
    let (wanted, _) = wanted.as_chunks::<2>();
    let got = &out[25 * BLOCK..35 * BLOCK];
    let off = wanted.iter().zip(got).map(|(w, g)| (w[0] - g[0]).abs());
    // Times are whole microseconds: a sample may be one off.
    assert!(off.fold(0.0, f32::max) < 0.03);
}

#[test]
fn far_off_it_jumps_once_and_smoothly() {
    let mut track = Track::new(RATE);
    let mut out = vec![];
    for n in 0..80usize {
        // After 40 blocks all time stamps are 50 ms + 20 ms earlier: repeated sound, then ahead of time.
        let shift = if n < 40 { 0 } else { -80_000 };
        track.push(
            &tone(440.0, 48_000.0, n * BLOCK, BLOCK),
            due((n + 4) * BLOCK) + shift,
            0,
        );
        let mut sum = vec![[0.0; 2]; BLOCK];
        track.mix(at(due(n * BLOCK)), 1.0, &mut sum);
        out.extend(sum);
    }
    assert!(roughest(&out) < SMOOTH, "{}", roughest(&out));
    assert!((level(&out[60 * BLOCK..], 440.0) - 0.5).abs() < 0.01);
}

#[test]
fn lost_sound_becomes_silence_of_its_length() {
    let mut track = Track::new(RATE);
    let mut out = vec![];
    for n in (0..40usize).filter(|n| !(15..20).contains(n)) {
        track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK), 0);
    }
    for n in 0..38 {
        let mut sum = vec![[0.0; 2]; BLOCK];
        track.mix(at(due(n * BLOCK)), 1.0, &mut sum);
        out.extend(sum);
    }
    assert_eq!(track.faults(), Faults::default());
    let silent = out.iter().filter(|f| f[0].abs() < 1e-6).count();
    assert!(
        (5 * BLOCK - 600..5 * BLOCK + 600).contains(&silent),
        "{silent}"
    );
    assert!((level(&out[25 * BLOCK..35 * BLOCK], 440.0) - 0.5).abs() < 0.02);
}

#[test]
fn nobody_reading_does_not_grow_memory() {
    let mut track = Track::new(RATE);
    for n in 0..1_000usize {
        track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK), 0);
    }
    assert!(track.ring.len() <= 2 * RATE as usize);
    assert!(track.faults().overflowed > 0);
    assert!(track.covers(at(due(998 * BLOCK))) && !track.covers(at(due(1_000 * BLOCK))));
}

#[test]
fn gains_move_without_steps_and_loud_sums_stay_inside() {
    let mut tracks = [Track::new(RATE), Track::new(RATE), Track::new(RATE)];
    let mut out = vec![];
    for n in 0..30usize {
        let mut sum = vec![[0.0; 2]; BLOCK];
        for track in &mut tracks {
            track.push(&tone(440.0, 48_000.0, n * BLOCK, BLOCK), due(n * BLOCK), 0);
            let gain = if n < 10 { 0.0 } else { 1.0 };
            if let Some(block) = n.checked_sub(1) {
                track.mix(at(due(block * BLOCK)), gain, &mut sum);
            }
        }
        soft_clip(&mut sum);
        out.extend(sum);
    }
    let peak = out.iter().map(|f| f[0].abs()).fold(0.0, f32::max);
    assert!(peak > 0.9 && peak <= 1.0, "{peak}");
    assert!(roughest(&out) < 3.0 * SMOOTH, "{}", roughest(&out));
    let mut quiet = [[0.5, -0.79]];
    soft_clip(&mut quiet);
    assert_eq!(quiet, [[0.5, -0.79]]);
}

/// As the beat asks for it of the lead.
fn led(start_us: i64, speed: f64) -> Span {
    Span {
        lead: Some(Lead { speed, leaves: 448 }),
        ..at(start_us)
    }
}

#[test]
fn the_leads_sound_keeps_its_place_in_blocks_whatever_its_clock() {
    for pace in [0.99, 0.9999, 1.0, 1.01] {
        let mut track = Track::new(RATE);
        let wall = |n: usize| (due(n * BLOCK) as f64 * pace) as i64;
        let whole = tone(440.0, 48_000.0, 0, 500 * BLOCK);
        let (whole_frames, _) = whole.as_chunks::<2>();
        // Stamps are whole ms, and the first block begins about where it should.
        let (mut pushed, mut out, mut start) = (0, vec![], 54_500.0);
        for _ in 0..400 {
            while !track.covers(led(start as i64, 1.0)) {
                let samples = &whole[pushed * 2 * BLOCK..(pushed + 1) * 2 * BLOCK];
                track.push(samples, wall(pushed) / 1_000 * 1_000, 0);
                pushed += 1;
            }
            let mut sum = vec![[0.0; 2]; BLOCK];
            track.mix(led(start as i64, 1.0), 1.0, &mut sum);
            let place = track.place().expect("it plays");
            assert_eq!((place.unread, place.length), (448.0, BLOCK), "{pace}");
            start += BLOCK as f64 * 1e6 / f64::from(RATE) / place.speed;
            out.extend(sum);
        }
        // Bit by bit, from a block's beginning that is 448 samples before a frame's.
        let from = out.len() - 100 * BLOCK;
        let at = (pushed * BLOCK - 448) - 100 * BLOCK;
        assert_eq!(
            out[from..from + 10_000],
            whole_frames[at..at + 10_000],
            "{pace}"
        );
        let off_ms = (track.position_us() - start) / 1_000.0;
        assert!(off_ms.abs() < 6.0, "{pace}: {off_ms}");
        assert_eq!(track.faults(), Faults::default(), "{pace}");
    }
}
