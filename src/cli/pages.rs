//! What shells and `man` read: completions and pages, from the same description as the arguments themselves.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueEnum};

use super::{Cli, Error, Outcome};

const NAME: &str = "linkmic";

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to write them; made if it is not there.
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints completions.
///
/// # Errors
/// When they cannot be written.
pub fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> Result<Outcome, Error> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // The generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut text);
    out.write_all(&text)?;
    Ok(Outcome::Done)
}

/// Writes `linkmic.1` and a page for each command below it, and says how many.
///
/// # Errors
/// When the directory cannot be made or written to.
pub fn man(args: &ManArgs, out: &mut dyn Write) -> Result<Outcome, Error> {
    let directory = &args.directory;
    let failed = |source| Error::Man {
        path: directory.clone(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    // Every page says which options its command takes; there is no page for `help` itself.
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory).map_err(failed)?;
    writeln!(out, "{}: see man -l {NAME}.1", directory.display())?;
    Ok(Outcome::Done)
}
