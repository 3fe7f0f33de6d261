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

use crate::edge::SOON;
use linkmic::probe::process;

/// Through kill(1): the system call would need `unsafe` or one more crate.
pub async fn signal(name: &str, id: &str) {
    let kill = format!("kill -{name} {id}");
    let sent = process::output("sh", &["-c", &kill], SOON).await;
    sent.expect("a signal");
}
