//! Prints the table of layouts of the Go runtime's structs, from programs that each release built with its debug
//! information, for amd64 and for arm64: `go_layouts go1.24.11=PROGRAM go1.24.11/arm64=PROGRAM …`.
//! `cargo xtask go-layouts` runs it.

use std::{collections::BTreeMap, path::Path, process::ExitCode};

use observer::runtimes::go::table_of;
use serde_json::{Map, Value};

/// What the programs for the other machine are marked with, and the part of a release that its structs are in.
const ARM64: &str = "arm64";

fn main() -> ExitCode {
    match table(std::env::args().skip(1)) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table(programs: impl Iterator<Item = String>) -> Result<String, String> {
    let mut releases: BTreeMap<u32, Map<String, Value>> = BTreeMap::new();
    // Those for arm64 are held against the first ones.
    let mut others: Vec<(u32, Map<String, Value>)> = Vec::new();
    let mut names = Vec::new();
    for program in programs {
        let (release, path) = program
            .split_once('=')
            .ok_or_else(|| format!("{program}: not RELEASE=PROGRAM"))?;
        let (release, machine) = release.split_once('/').unwrap_or((release, ""));
        let release = release.strip_prefix("go").unwrap_or(release);
        let minor = release.split('.').nth(1);
        let minor: u32 = minor
            .and_then(|minor| minor.parse().ok())
            .ok_or_else(|| format!("{release}: not a release"))?;
        let layout = table_of(Path::new(path)).map_err(|error| format!("{path}: {error}"))?;
        let Some(Value::Object(structs)) = layout else {
            return Err(format!("{path}: no debug information"));
        };
        if machine == ARM64 {
            others.push((minor, structs));
        } else {
            names.push((minor, release.to_owned()));
            releases.insert(minor, structs);
        }
    }
    for (minor, structs) in others {
        let release = releases.get_mut(&minor);
        let release = release.ok_or_else(|| format!("1.{minor}: for arm64 only"))?;
        let differ = structs.into_iter();
        let differ = differ.filter(|(name, fields)| release.get(name) != Some(fields));
        release.insert(ARM64.to_owned(), Value::Object(differ.collect()));
    }
    names.sort();
    let names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
    let about = format!(
        "Byte offsets of those fields of the Go runtime's structs that are read, on linux/amd64, and the \
         structs' sizes; those structs that differ on linux/arm64 are in `arm64`, the others are the same there; read from the DWARF of programs built by each release ({}). From 1.26 on sudog.elem and \
         sudog.c are pairs of words of which the second is the address: its offset is given. A field that a \
         release does not have is absent. Made by `cargo xtask go-layouts`.",
        names.join(", ")
    );
    let lines: Vec<String> = releases
        .into_iter()
        .map(|(minor, layout)| release(minor, &layout))
        .collect();
    Ok(format!(
        "{{\n \"about\": {},\n \"releases\": {{\n{}\n }}\n}}\n",
        Value::from(about),
        lines.join(",\n")
    ))
}

/// A release: one line a struct, and one for all that differ on the other machine.
fn release(minor: u32, structs: &Map<String, Value>) -> String {
    let structs: Vec<String> = structs
        .iter()
        .map(|(name, fields)| format!("   {}: {fields}", Value::from(name.as_str())))
        .collect();
    format!("  \"1.{minor}\": {{\n{}\n  }}", structs.join(",\n"))
}
