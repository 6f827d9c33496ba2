//! `observer agent`: the daemon.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::agent::{self, config::Config};

/// Arguments of `agent`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    sudo observer agent\n  \
    curl http://127.0.0.1:9464/metrics\n  \
    observer agent --config /etc/observer/agent.toml --check-config\n\n\
    docs/agent.md describes the configuration. SIGHUP reads it anew, SIGUSR1 writes an incident.")]
pub(crate) struct Args {
    /// The configuration, TOML; without one, defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where HTTP is served [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Check the configuration and what it names, and do no more
    #[arg(long)]
    check_config: bool,
    /// Show what the kernel programs say of themselves, on standard error
    #[arg(short, long)]
    verbose: bool,
}

/// Runs until stopped.
pub(crate) fn run(args: &Args) -> Result<()> {
    super::start_log(args.verbose);
    let config = match &args.config {
        Some(path) => Config::load(path, args.listen)?,
        None => Config::parse("", args.listen)?,
    };
    if args.check_config {
        agent::check(&config)?;
        writeln!(io::stdout(), "the configuration is good")?;
        return Ok(());
    }
    agent::run(config, args.config.clone())
}
