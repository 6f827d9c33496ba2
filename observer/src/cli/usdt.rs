//! `observer usdt list`: the probes of a program, or of all files that a process maps.

use std::{
    io::{self, BufWriter, Write, stdout},
    path::Path,
};

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    capture::Unsupported,
    inspect::usdt::{self, Argument, Binary, Probe, files},
    text::printable,
};

/// Arguments of `usdt`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The USDT probes of a file, or of each file whose code a process maps
    #[command(after_help = "Examples:\n  \
        observer usdt list /usr/lib/postgresql/15/bin/postgres\n  \
        observer usdt list 1234 --format json\n  \
        observer usdt list ./1234                       a file whose name is a number")]
    List {
        /// A program or library, or the number of a process
        #[arg(value_name = "PATH|PID")]
        target: String,
        /// Form of the list
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// One file that was looked at.
struct Listed {
    path: String,
    deleted: bool,
    result: Result<Binary, String>,
}

/// Prints the list.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Command::List { target, format } = &args.command;
    let (pid, listed) = match target.parse::<u32>() {
        Ok(pid) => (Some(pid), of_process(pid)?),
        Err(_) => (None, vec![of_path(target)?]),
    };
    let mut out = BufWriter::new(stdout().lock());
    match format {
        Format::Text => text(&mut out, &listed, pid)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &object(&listed, pid))?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn of_path(path: &str) -> Result<Listed> {
    let failed = |what: &str, why: &dyn std::fmt::Display, advice: &str| {
        format!("cannot {what} {path}: {why}. {advice}")
    };
    let file = match files::open(Path::new(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let advice = "It needs the right to read the file: run observer with sudo";
            return Err(Unsupported(failed("open", &error, advice)).into());
        }
        Err(error) => bail!(failed(
            "open",
            &error,
            "Name a program or library, or the number of a process"
        )),
    };
    match usdt::probes(&file) {
        Ok(binary) => Ok(Listed {
            path: path.to_owned(),
            deleted: false,
            result: Ok(binary),
        }),
        Err(why) => bail!(failed(
            "read the probes of",
            &why,
            "Name a program or library for Linux on x86-64 or arm64"
        )),
    }
}

fn of_process(pid: u32) -> Result<Vec<Listed>> {
    let mapped = match files::mapped(pid) {
        Ok(mapped) => mapped,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Unsupported(format!(
                "cannot read /proc/{pid}/maps: {error}. The mappings of another user's process need \
                 CAP_SYS_PTRACE: run observer with sudo"
            ))
            .into());
        }
        Err(error) if gone(&error) => bail!(
            "cannot read /proc/{pid}/maps: there is no process {pid}. `ps -e` lists those there are; a \
             file of that name is written ./{pid}"
        ),
        Err(error) => bail!("cannot read /proc/{pid}/maps: {error}"),
    };
    Ok(mapped
        .into_iter()
        .map(|file| Listed {
            result: file
                .open(pid)
                .map_err(|error| error.to_string())
                .and_then(|opened| usdt::probes(&opened)),
            path: file.path,
            deleted: file.deleted,
        })
        .collect())
}

/// Is there no such process, or none any more?
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn text(out: &mut impl Write, listed: &[Listed], pid: Option<u32>) -> io::Result<()> {
    let mut probes = 0;
    for file in listed {
        let deleted = if file.deleted { " (deleted)" } else { "" };
        match &file.result {
            Ok(binary) if binary.probes.is_empty() && binary.malformed == 0 => {}
            Ok(binary) => {
                writeln!(out, "{}{deleted}", printable(&file.path))?;
                for probe in &binary.probes {
                    line(out, probe)?;
                }
                if binary.malformed > 0 {
                    writeln!(
                        out,
                        "  {} notes are malformed and left out",
                        binary.malformed
                    )?;
                }
                probes += binary.probes.len();
            }
            Err(why) => writeln!(
                out,
                "{}{deleted}: {}",
                printable(&file.path),
                printable(why)
            )?,
        }
    }
    match pid {
        _ if probes > 0 => Ok(()),
        Some(pid) => writeln!(
            out,
            "no USDT probes in the {} files whose code process {pid} maps",
            listed.len()
        ),
        None => writeln!(out, "no USDT probes in this file"),
    }
}

fn line(out: &mut impl Write, probe: &Probe) -> io::Result<()> {
    let name = format!("{}:{}", probe.provider, probe.name);
    write!(out, "  {:<40} {:#x}", printable(&name), probe.location)?;
    if let Some(semaphore) = &probe.semaphore {
        write!(out, "  semaphore {:#x}", semaphore.address)?;
    }
    if !probe.argument_text.is_empty() {
        write!(out, "  {}", printable(&probe.argument_text))?;
    }
    for why in probe.refused.iter().chain(probe.arguments.as_ref().err()) {
        write!(out, "  refused: {}", printable(why))?;
    }
    writeln!(out)
}

fn object(listed: &[Listed], pid: Option<u32>) -> Value {
    let files: Vec<Value> = listed
        .iter()
        .map(|file| {
            let mut object = json!({ "path": file.path });
            if file.deleted {
                object["deleted"] = true.into();
            }
            match &file.result {
                Ok(binary) => {
                    object["machine"] = binary.machine.name().into();
                    object["probes"] = binary.probes.iter().map(probe_object).collect();
                    if binary.malformed > 0 {
                        object["malformed"] = binary.malformed.into();
                    }
                }
                Err(why) => object["error"] = why.as_str().into(),
            }
            object
        })
        .collect();
    let mut object = json!({ "files": files });
    if let Some(pid) = pid {
        object["pid"] = pid.into();
    }
    object
}

fn probe_object(probe: &Probe) -> Value {
    let hexadecimal = |number: u64| Value::from(format!("{number:#x}"));
    let mut object = json!({
        "provider": probe.provider,
        "name": probe.name,
        "location": hexadecimal(probe.location),
    });
    if let Some(offset) = probe.offset {
        object["offset"] = hexadecimal(offset);
    }
    if let Some(semaphore) = &probe.semaphore {
        object["semaphore"] = hexadecimal(semaphore.address);
    }
    match &probe.arguments {
        Ok(arguments) => object["arguments"] = arguments.iter().map(argument_object).collect(),
        Err(_) => object["argument_text"] = probe.argument_text.as_str().into(),
    }
    if let Some(why) = probe.refused.as_ref().or(probe.arguments.as_ref().err()) {
        object["refused"] = why.as_str().into();
    }
    object
}

fn argument_object(argument: &Argument) -> Value {
    json!({
        "text": argument.text,
        "size": argument.size,
        "signed": argument.signed,
        "place": argument.place.name(),
    })
}
