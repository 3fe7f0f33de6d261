//! The program: arguments in, exit code out. Everything else is in the library.
//!
//! Exit codes: 0 done; 1 the answer is no, or something failed; 2 arguments or configuration must change.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::Parser;
use linkmic::cli::{Cli, Error, Outcome};
use linkmic::config::Env;

/// The allocator of the whole process, GStreamer and other C libraries included. Threads of mixes come and go and fill each of glibc's 16
/// heaps in turn, which keep what was freed in their midst: when all had left after six minutes of four mixes, 116 MB of 192 were held
/// for nobody. This one gives pages back that have been free for some seconds: 105 MB at rest after five minutes of the same, 102 after one.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long calls that may block, like stopping a decoder, can take after all else is down.
const LAST_CALLS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Negative) => ExitCode::FAILURE,
        Err(error) => {
            // Every error of ours says its cause itself; `{:#}` would say it again.
            eprintln!("linkmic: {error}");
            let code = error.downcast_ref::<Error>().map_or(1, Error::exit_code);
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // What the rooms' tasks pass on is waited for; threads that compute ask for other slices themselves.
        .on_thread_start(linkmic::net::slice::short)
        .build()
        .map_err(|error| anyhow!("cannot start the runtime: {error}"))?;
    let outcome = runtime.block_on(cli.run(&Env::process(), &mut std::io::stdout()));
    // Dropping the runtime would wait for ever for a blocking call that hangs in somebody's codec.
    runtime.shutdown_timeout(LAST_CALLS);
    Ok(outcome?)
}
