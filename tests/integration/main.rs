//! The server as strangers see it: real programs publish, play and judge.

mod abuse;
mod bench;
mod cdn;
mod compat;
mod cost;
#[cfg(feature = "mixer")]
mod demo;
mod description;
#[cfg(feature = "mixer")]
mod durable;
mod edge;
mod home;
mod hooks;
mod kit;
mod lessons;
#[cfg(feature = "mixer")]
mod links;
#[cfg(feature = "mixer")]
mod mix;
mod mutation;
mod needs;
mod numbers;
mod operate;
mod random;
#[cfg(feature = "mixer")]
mod soak;
mod studio;
