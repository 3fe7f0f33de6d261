//! Numbers as a scraper sees them.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::reason::Reason;

fn push<'a>(by_state: &'a [(&'a str, usize)]) -> Push<'a> {
    Push {
        by_state,
        stalled: Duration::from_millis(1_500),
        connects: 1,
        failures: 2,
        bytes: 3,
        messages: 4,
        dropped: 5,
        skips: 6,
        takeovers: 7,
        lag: Duration::from_millis(250),
    }
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.encode()).unwrap()
}

/// Series names with labels, without values.
fn series(metrics: &Metrics) -> Vec<String> {
    text(metrics)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

#[test]
fn every_reason_reads_zero_before_anything_happened() {
    let text = text(&Metrics::new());
    for reason in Reason::ALL {
        let line = format!("linkmic_ingest_disconnects_total{{reason=\"{reason}\"}} 0\n");
        assert!(text.contains(&line), "{line}");
        let line =
            format!("linkmic_auth_decisions_total{{action=\"play\",outcome=\"{reason}\"}} 0\n");
        assert!(text.contains(&line), "{line}");
    }
}

#[test]
fn the_number_of_series_does_not_grow_whatever_is_reported() {
    let metrics = Metrics::new();
    let before = series(&metrics);
    for n in 0..100 {
        metrics.auth("publish", &format!("made up {n}"));
        metrics.auth(&format!("made up {n}"), "granted");
        metrics.playback_drops(&format!("made up {n}"), 1);
        metrics.anomalies(&format!("made up {n}"));
        metrics.lag(&format!("made up {n}"), Duration::ZERO);
        metrics.set_subscribers("source", &format!("made up {n}"), 1);
        metrics.set_push(&push(&[("made up", n)]));
        metrics.set_mixes(&[("made up", n)], &[("made up", n)]);
        metrics.set_mix_decoders(&[("made up", n)]);
        metrics.mix_stage(&format!("made up {n}"), Duration::ZERO);
    }
    assert_eq!(series(&metrics), before);
}

#[test]
fn what_is_counted_is_what_is_shown() {
    let metrics = Metrics::new();
    metrics.connections_open.set(3);
    metrics.auth("publish", "granted");
    metrics.auth("play", Reason::SignatureExpired.code());
    metrics.disconnected(Reason::TooSlow);
    metrics.http_turned(Reason::Timeout);
    metrics.playback_drops("time", 7);
    metrics.anomalies("back");
    metrics.lag("viewer", Duration::from_millis(350));
    metrics.set_streams(5, 2);
    metrics.set_subscribers("source", "low_latency", 4);
    metrics.set_near_misses(2, 5);
    metrics.set_near_misses(2, 6);
    metrics.set_store_failures(3);
    metrics.set_store_failures(3);
    metrics.set_certificate_expiry(Some(UNIX_EPOCH + Duration::from_secs(2_000_000_000)));
    metrics.set_push(&push(&[("live", 2), ("backoff", 1)]));
    metrics.set_push(&push(&[("live", 2), ("backoff", 1)]));
    metrics.set_mixes(&[("passing", 1)], &[("live", 3), ("unheard of", 1)]);
    metrics.set_mix_decoders(&[("video", 4), ("audio", 3)]);
    metrics.mix_stage("hold", Duration::from_millis(4));
    metrics.mix_av_offset(-0.007);
    metrics.mix_stepped(true);
    metrics.mix_restarted();
    metrics.set_mix_load(&MixLoad {
        by_preset: 2,
        by_pictures: 1,
        budget: 150,
        cost: 125,
        can_accept: true,
    });
    let text = text(&metrics);
    for line in [
        "linkmic_ingest_connections 3",
        "linkmic_auth_decisions_total{action=\"publish\",outcome=\"granted\"} 1",
        "linkmic_auth_decisions_total{action=\"play\",outcome=\"signature_expired\"} 1",
        "linkmic_ingest_disconnects_total{reason=\"too_slow\"} 1",
        "linkmic_playback_http_turned_total{reason=\"timeout\"} 1",
        "linkmic_playback_dropped_messages_total{cause=\"time\"} 7",
        "linkmic_ingest_timestamp_anomalies_total{kind=\"back\"} 1",
        "linkmic_playback_lag_seconds_bucket{class=\"viewer\",le=\"0.3\"} 0",
        "linkmic_playback_lag_seconds_bucket{class=\"viewer\",le=\"0.4\"} 1",
        "linkmic_mixer_stage_seconds_bucket{stage=\"hold\",le=\"0.002\"} 0",
        "linkmic_mixer_stage_seconds_bucket{stage=\"hold\",le=\"0.005\"} 1",
        "linkmic_mixer_av_offset_seconds_bucket{le=\"-0.01\"} 0",
        "linkmic_mixer_av_offset_seconds_bucket{le=\"-0.005\"} 1",
        "linkmic_mixer_steps_total{direction=\"down\"} 1",
        "linkmic_mixer_steps_total{direction=\"up\"} 0",
        "linkmic_mixer_restarts_total 1",
        "linkmic_mixer_degraded{by=\"preset\"} 2",
        "linkmic_mixer_degraded{by=\"pictures\"} 1",
        "linkmic_mixer_budget_units 150",
        "linkmic_mixer_cost_units 125",
        "linkmic_mixer_can_accept 1",
        "linkmic_relay_streams 5",
        "linkmic_relay_publishers 2",
        "linkmic_relay_subscribers{class=\"low_latency\",feed=\"source\"} 4",
        "linkmic_auth_near_misses_total{outcome=\"forgiven\"} 2",
        "linkmic_auth_near_misses_total{outcome=\"refused\"} 6",
        "linkmic_store_failures_total 3",
        "linkmic_tls_certificate_expiry_timestamp_seconds 2000000000",
        "linkmic_push_targets{state=\"live\"} 2",
        "linkmic_push_targets{state=\"waiting\"} 0",
        "linkmic_push_last_progress_seconds 1.5",
        "linkmic_push_connects_total 1",
        "linkmic_push_failures_total 2",
        "linkmic_push_bytes_total 3",
        "linkmic_push_messages_total 4",
        "linkmic_push_dropped_messages_total 5",
        "linkmic_push_skips_total 6",
        "linkmic_push_takeovers_total 7",
        "linkmic_push_lag_seconds 0.25",
        "linkmic_push_targets{state=\"standby\"} 0",
        "linkmic_mixer_mixes 1",
        "linkmic_mixer_states{state=\"passing\"} 1",
        "linkmic_mixer_inputs{state=\"live\"} 3",
        "linkmic_mixer_decoders{kind=\"video\"} 4",
        "linkmic_mixer_decoders{kind=\"audio\"} 3",
        "linkmic_mixer_inputs{state=\"other\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let built = format!(
        "linkmic_build_info{{mixer=\"{}\",version=\"{}\"}} 1\n",
        cfg!(feature = "mixer"),
        env!("CARGO_PKG_VERSION")
    );
    assert!(text.contains(&built), "{built} is not in\n{text}");
}

#[test]
fn names_keep_to_the_pattern() {
    for line in series(&Metrics::new()) {
        let name = line.split('{').next().unwrap();
        let words = name.split('_').count();
        match name.starts_with("process_") {
            true => assert!(words >= 2, "{name}"),
            false => assert!(name.starts_with("linkmic_") && words >= 3, "{name}"),
        }
    }
}
