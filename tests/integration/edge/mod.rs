//! The RTMP edge: what goes in comes out unchanged, for every client, and who may not come in hears why.
//!
//! Real programs (ffmpeg, GStreamer, librtmp) wherever a client's own behaviour is the point; a client of our own
//! ([`client`]) where every message and its timestamp must be seen.

pub mod client;
pub mod clip;
pub mod house;
pub mod live;
pub mod network;
pub mod programs;
pub mod throttle;
pub mod tunnel;

mod access;
mod addresses;
mod apps;
pub mod breadth;
mod clocks;
mod distance;
mod download;
mod ends;
mod epochs;
mod http_flv;
mod joining;
mod lifetimes;
mod limits;
mod matrix;
mod merging;
mod obs;
pub mod page;
mod proxy;
mod readers;
mod refusals;
mod reload;
mod round_trip;
mod stalls;
mod streams;
mod tls;

use std::time::Duration;

/// As generous as a busy machine needs; nothing passes by waiting this long.
pub const SOON: Duration = Duration::from_secs(30);
