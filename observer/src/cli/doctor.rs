//! `observer doctor`: what this kernel and these privileges allow.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use crate::capture::{
    Unsupported,
    doctor::{self, Status},
};

/// Arguments of `doctor`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
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
    let report = doctor::examine()?;
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
        }
    }
    if report.usable {
        Ok(())
    } else {
        Err(Unsupported("observer cannot run here; see what is missing above".into()).into())
    }
}
