//! The server as those see it who operate it, and what they run beside it.

mod book;
mod chaos;
mod cli;
mod deploy;
mod disk;
mod doctor;
#[cfg(feature = "mixer")]
mod insight;
mod logs;
#[cfg(feature = "mixer")]
mod metrics;
mod pages;
#[cfg(feature = "mixer")]
mod papers;
#[cfg(feature = "mixer")]
mod prometheus;
mod run;
mod running;
mod standstill;
mod start;
mod streams;
