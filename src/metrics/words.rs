//! The label values that there are, and the buckets of histograms: nothing else becomes a series.

/// The label value for anything that is not in a fixed list: a mistake on our side, which must not become a series each.
pub(super) const OTHER: &str = "other";

pub(super) const ACTIONS: [&str; 2] = ["publish", "play"];
pub(super) const GRANTED: &str = "granted";
pub(super) const DROP_CAUSES: [&str; 4] = ["time", "bytes", "lost", OTHER];
pub(super) const ANOMALIES: [&str; 6] = ["ahead", "back", "reset", "unordered", "apart", OTHER];
pub(super) const FEEDS: [&str; 2] = ["source", "program"];
pub(super) const CLASSES: [&str; 2] = ["low_latency", "viewer"];
pub(super) const PUSH_STATES: [&str; 6] = [
    "waiting",
    "standby",
    "connecting",
    "live",
    "backoff",
    "ended",
];
pub(super) const MIX_STATES: [&str; 7] = [
    "waiting", "passing", "starting", "live", "ending", "failed", OTHER,
];
pub(super) const MIX_INPUT_STATES: [&str; 6] =
    ["waiting", "live", "held", "hidden", "placeholder", OTHER];
pub(super) const MIX_DECODERS: [&str; 2] = ["audio", "video"];
pub(super) const NEAR_MISSES: [&str; 2] = ["forgiven", "refused"];

/// Dense around 0.4 s, the budget of the low latency class; then the viewers' 3 s.
pub(super) const LAG_BUCKETS: [f64; 14] = [
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 3.0, 10.0,
];

/// The mixer is built to add about 10 ms; over 0.1 s something is wrong.
pub(super) const MIX_LATENCY_BUCKETS: [f64; 11] = [
    0.002, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0,
];
