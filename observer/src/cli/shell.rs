//! `observer completions` and `observer man`: what shells and `man` need to know, from the command line itself.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer completions bash > /etc/bash_completion.d/observer\n  \
    observer completions fish > ~/.config/fish/completions/observer.fish")]
pub(crate) struct Completions {
    /// For this shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn completions(args: &Completions) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::Cli::command(),
        "observer",
        &mut text,
    );
    stdout().write_all(&text)?;
    Ok(())
}

/// Arguments of `man`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer man | man -l -\n  \
    observer man trace > observer-trace.1")]
pub(crate) struct Man {
    /// Of this command [default: the page that names all]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Prints a page.
pub(crate) fn man(args: &Man) -> Result<()> {
    let mut all = super::Cli::command();
    all.build();
    let command = match &args.command {
        None => all,
        Some(name) => {
            let found = all
                .get_subcommands()
                .find(|command| command.get_name() == name);
            found.cloned().ok_or_else(|| {
                anyhow::anyhow!("there is no command `{name}`; `observer help` lists them")
            })?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    stdout().write_all(&text)?;
    Ok(())
}
