//! `observer verify`: is observer right on this kernel?

use std::{
    io::{BufWriter, IsTerminal, Write, stderr, stdout},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, ValueEnum};

use crate::{
    report::document::{Block, Document, Section, text},
    time::human,
    verify::{self, Report, Row, Slack},
};

/// Arguments of `verify`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    observer verify                              exits with 1 if a promise does not hold\n  \
    observer verify --format json > verify.json  for a bug report")]
pub(crate) struct Args {
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Make promises about time so many times as wide, for a machine that is emulated
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    slack: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Arguments of `workload`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Workload {
    /// Its name and options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Becomes the program.
pub(crate) fn workload(args: Workload) -> ExitCode {
    crate::workload::main(args.args.into_iter())
}

/// Observes and judges.
pub(crate) fn run(args: &Args) -> Result<()> {
    let terminal = stderr().is_terminal();
    let report = verify::verify(Slack::new(args.slack), &mut |doing| {
        if terminal {
            super::note(&format!("{doing} …"));
        }
    })?;
    let mut out = BufWriter::new(stdout().lock());
    match args.format {
        Format::Text => text(&mut out, &document(&report))?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &report)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    match report.broken() {
        0 => Ok(()),
        count => bail!(
            "promises that do not hold on this kernel: {count}. If the host is busy, try again when it is not; else please report it, with `observer verify --format json` and `observer doctor`"
        ),
    }
}

fn document(report: &Report) -> Document {
    let summary = match report.broken() {
        0 => "All promises hold on this kernel.".to_owned(),
        1 => "One promise does not hold on this kernel.".to_owned(),
        count => format!("{count} promises do not hold on this kernel."),
    };
    let section = |title: &str, blocks| Section {
        title: title.to_owned(),
        blocks,
    };
    Document {
        title: "Is observer right on this kernel?".to_owned(),
        facts: facts(report),
        summary: vec![summary],
        sections: vec![
            section("How right", vec![capabilities(report)]),
            section(
                "What it costs at worst",
                vec![
                    costs(report),
                    Block::Text(
                        "A round of two threads that do nothing but wake each other and wait."
                            .to_owned(),
                    ),
                ],
            ),
        ],
    }
}

fn facts(report: &Report) -> Vec<String> {
    let meta = &report.meta;
    let mut facts = vec![
        format!(
            "observer {} on {}, Linux {}, {} CPUs; futexes by {}",
            meta.observer, meta.host, meta.kernel, meta.cpus, meta.capture.futex
        ),
        format!(
            "took {}; observer used {:.1} % of a CPU while it observed",
            human(report.took_ns),
            report.cpu_percent
        ),
    ];
    if report.slack > 1 {
        facts.push(format!(
            "promises about time are {} times as wide as usually",
            report.slack
        ));
    }
    let missing = meta.capture.missing.iter();
    facts.extend(missing.map(|missing| format!("missing: {}: {}", missing.feature, missing.why)));
    facts
}

fn verdict(holds: bool) -> String {
    if holds { "yes" } else { "NO" }.to_owned()
}

fn capabilities(report: &Report) -> Block {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let share = |share: Option<f64>| or_dash(share.map(|share| format!("{:.1} %", share * 100.0)));
    let rows = report.capabilities.iter().map(|row: &Row| {
        vec![
            verdict(row.holds),
            row.capability.to_owned(),
            row.truth.to_string(),
            row.told.to_string(),
            row.right.to_string(),
            share(row.precision),
            share(row.recall),
            or_dash(row.error_percent.map(|error| format!("{error:+.2} %"))),
            row.note.clone().unwrap_or_default(),
        ]
    });
    let head = vec![
        "holds",
        "capability",
        ">truth",
        ">told",
        ">right",
        ">precision",
        ">recall",
        ">sum is off",
        "",
    ];
    Block::Table(head, rows.collect())
}

fn costs(report: &Report) -> Block {
    let rows = report.overhead.iter().map(|one| {
        vec![
            verdict(one.holds),
            one.program.to_owned(),
            format!("{:.0} ns", one.alone_ns),
            format!("{:.0} ns", one.observed_ns),
            format!("{:+.1} %", one.percent),
            format!("{:+.0} %", one.limit_percent),
        ]
    });
    let head = vec![
        "holds",
        "program",
        ">alone",
        ">observed",
        ">dearer",
        ">at most",
    ];
    Block::Table(head, rows.collect())
}
