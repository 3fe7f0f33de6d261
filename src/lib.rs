//! linkmic: a self-hosted, low-latency RTMP edge and mixing server for live co-hosting.
//!
//! The rooms of the house, lowest row first. A row may use only the rows below it;
//! `tests/architecture.rs` holds us to that, and ARCHITECTURE.md says why.

#![deny(unsafe_code)] // but for one line each of `net::queue` and `net::scheduler`

pub mod logging;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod reason;

pub mod media;

pub mod rtmp;

pub mod store;

pub mod auth;
pub mod relay;

pub mod capture;
pub mod hooks;
pub mod ingest;
#[cfg(feature = "mixer")]
pub mod mixer;
pub mod playback;
pub mod push;

pub mod api;
pub mod compat;
pub mod links;

pub mod config;
pub mod server;

pub mod cli;
#[cfg(feature = "mixer")]
pub mod demo;
pub mod load;
pub mod probe;
