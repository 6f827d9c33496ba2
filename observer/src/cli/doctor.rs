//! `observer doctor`: what this kernel and these privileges allow.

use std::io::{self, Write, stdout};

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, ValueEnum};

use crate::{
    capture::{
        Unsupported,
        doctor::{self, Report, Status},
    },
    inspect::{proc, process},
    text::printable,
};

/// Arguments of `doctor`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Processes whose runtimes are to be told
    #[arg(short, long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Prints the report; fails if observer cannot run here.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut report = doctor::examine()?;
    for &pid in &args.pids {
        if proc::stat(pid, pid).is_none() {
            bail!("there is no process {pid}; `ps -e` lists those there are");
        }
    }
    report.runtimes = process::runtimes(&args.pids);
    let mut out = stdout().lock();
    match args.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        Format::Text => {
            writeln!(
                out,
                "observer {} on Linux {}",
                report.observer, report.kernel
            )?;
            for check in &report.checks {
                let mark = match check.status {
                    Status::Ok => "ok      ",
                    Status::Degraded => "degraded",
                    Status::Missing => "MISSING ",
                };
                writeln!(out, "  {mark}  {}: {}", check.name, check.detail)?;
                if let Some(advice) = &check.advice {
                    writeln!(out, "            → {advice}")?;
                }
            }
            writeln!(out, "{}", report.verdict)?;
            runtimes(&mut out, &args.pids, &report)?;
        }
    }
    if report.usable {
        Ok(())
    } else {
        Err(Unsupported("observer cannot run here; see what is missing above".into()).into())
    }
}

fn runtimes(out: &mut impl Write, pids: &[u32], report: &Report) -> io::Result<()> {
    for pid in pids {
        writeln!(out, "process {pid}")?;
        let mut known = report
            .runtimes
            .iter()
            .filter(|one| one.pid == *pid)
            .peekable();
        if known.peek().is_none() {
            writeln!(out, "  no runtime is recognised, or it may not be read")?;
        }
        for one in known {
            writeln!(out, "  {}: {}", one.runtime, printable(&one.detail))?;
        }
    }
    Ok(())
}
