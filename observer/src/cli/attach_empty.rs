//! `observer attach-empty`: programs that do nothing, on the scheduler's hooks. For the benchmark.

use std::time::Duration;

use anyhow::Result;
use clap::Args as ClapArgs;

use super::live::{Pulse, runtime};
use crate::{capture, time::parse_duration};

/// It has nothing to do but to look at its end.
const PERIOD: Duration = Duration::from_secs(1);

/// Arguments of `attach-empty`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// End after this time
    #[arg(short, long, value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
}

/// Runs until stopped.
pub(crate) fn run(args: &Args) -> Result<()> {
    let attached = capture::attach_empty()?;
    runtime()?.block_on(async {
        let mut pulse = Pulse::new(PERIOD, args.duration, false)?;
        while pulse.beat().await.is_none() {}
        anyhow::Ok(())
    })?;
    drop(attached);
    Ok(())
}
