//! Holds observer's answers against ground truth, as the first process of a virtual machine or beside
//! others: `vmtest [OBSERVER WORKLOAD]`.
//!
//! It prints a line a check (`ok …`, `FAIL …: why`, `skipped …: why`), the reports of `observer verify` and
//! `observer doctor`, each between two markers, and `N passed, N failed, N skipped`. As process 1 it mounts first what a
//! system has mounted, and powers the machine off in the end. `cargo xtask vm` starts it and reads it.

mod checks;
mod offline;
mod scene;
mod system;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use checks::Check;
use scene::Scene;

/// The first line.
const BEGINS: &str = "---- vmtest";

/// Lines around the report of `observer doctor`.
const DOCTOR_BEGINS: &str = "---- doctor";
const DOCTOR_ENDS: &str = "---- end of doctor";

/// The same of `observer verify`.
const VERIFY_BEGINS: &str = "---- verify";
const VERIFY_ENDS: &str = "---- end of verify";

/// Emulated, everything takes ten times as long.
const EMULATED: &str = "10";

/// Ways to know a futex wait, and what `observer doctor` calls that which each needs.
const MODES: [(&str, &str); 2] = [
    ("sched", "registers of sleeping tasks"),
    (
        "tracepoint",
        "tracepoints syscalls/sys_enter_futex and sys_exit_futex",
    ),
];

fn main() -> ExitCode {
    let first = std::process::id() == 1;
    // The firmware has left its last line open.
    println!("\n{BEGINS}");
    if first {
        system::mount_all();
    } else {
        system::mount_tracing();
    }
    // The kernel hands its own parameters on to the first process.
    let given = if first { 0 } else { 2 };
    let mut args = std::env::args_os().skip(1).take(given).map(PathBuf::from);
    let observer = args.next().unwrap_or_else(|| "/observer".into());
    let workload = args.next().unwrap_or_else(|| "/workload".into());
    let good = test(&observer, &workload).unwrap_or_else(|error| {
        println!("FAIL vmtest: {error:#}");
        false
    });
    if first {
        system::power_off();
    }
    ExitCode::from(u8::from(!good))
}

/// Makes all checks; `true` when all is well.
fn test(observer: &Path, workload: &Path) -> Result<bool> {
    let doctor = doctor(observer)?;
    let mut tally = Tally::default();
    for (mode, need) in MODES {
        if let Some(why) = lacks(&doctor, need) {
            for check in checks::ALL {
                tally.skip(check.name, mode, &why);
            }
            continue;
        }
        match run(observer, workload, mode, &mut tally) {
            Ok(()) => {}
            Err(error) => tally.fail("run", mode, &format!("{error:#}")),
        }
        // Somebody else's machine keeps its CPUs.
        if std::process::id() == 1 {
            offline(observer, workload, mode, &mut tally);
        }
    }
    verify(observer, &mut tally);
    println!("{DOCTOR_BEGINS}\n{doctor:#}\n{DOCTOR_ENDS}");
    println!("{}", tally.closing_line());
    Ok(tally.failed == 0)
}

/// All workloads at once under one observer, and each held against its truth.
fn run(observer: &Path, workload: &Path, mode: &str, tally: &mut Tally) -> Result<()> {
    let mut scenes: BTreeMap<&str, Scene> = BTreeMap::new();
    for check in checks::ALL {
        match Scene::prepare(workload, check.name, check.args)? {
            Ok(scene) => {
                scenes.insert(check.name, scene);
            }
            Err(why) => tally.skip(check.name, mode, &why),
        }
    }
    let events = scene::observe(observer, mode, &mut scenes)?;
    for Check { name, holds, .. } in checks::ALL {
        if let Some(scene) = scenes.get(name) {
            tally.note(name, mode, holds(scene, &events));
        }
    }
    for (name, holds) in checks::OF_ALL {
        tally.note(name, mode, holds(&events));
    }
    Ok(())
}

/// A workload while a CPU comes and goes.
fn offline(observer: &Path, workload: &Path, mode: &str, tally: &mut Tally) {
    const NAME: &str = "offline";
    let check = checks::ALL.iter().find(|check| check.name == "bitset");
    match (offline::missing(), check) {
        (Some(why), _) => tally.skip(NAME, mode, &why),
        (None, None) => tally.fail(NAME, mode, "no workload"),
        (None, Some(check)) => {
            match offline::observe(observer, workload, mode, check, checks::losses) {
                Ok(result) => tally.note(NAME, mode, result),
                Err(error) => tally.fail(NAME, mode, &format!("{error:#}")),
            }
        }
    }
}

fn doctor(observer: &Path) -> Result<Value> {
    // Its exit code says whether observer can run: the checks below find that out.
    let output = Command::new(observer)
        .args(["doctor", "--format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", observer.display()))?;
    serde_json::from_slice(&output.stdout).context("`observer doctor` printed no JSON")
}

/// What `observer verify` says of itself on this kernel.
fn verify(observer: &Path, tally: &mut Tally) {
    const NAME: &str = "verify";
    match verified(observer) {
        Ok((report, result)) => {
            println!("{VERIFY_BEGINS}\n{report}\n{VERIFY_ENDS}");
            tally.note(NAME, "auto", result);
        }
        Err(error) => tally.fail(NAME, "auto", &format!("{error:#}")),
    }
}

/// Its report, and whether all promises hold.
fn verified(observer: &Path) -> Result<(Value, Result<(), String>)> {
    let emulated = std::process::id() == 1;
    let output = Command::new(observer)
        .args(["verify", "--format", "json", "--slack"])
        .arg(if emulated { EMULATED } else { "1" })
        .output()
        .with_context(|| format!("cannot start {}", observer.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // On one line, as each check.
    let said = said.trim().replace('\n', "; ");
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`observer verify` printed no JSON, but said: {said}"))?;
    let result = if output.status.success() {
        Ok(())
    } else {
        Err(said)
    };
    Ok((report, result))
}

/// Why a feature is not there, if it is not.
fn lacks(doctor: &Value, feature: &str) -> Option<String> {
    let found = doctor["checks"]
        .as_array()?
        .iter()
        .find(|check| check["name"] == feature);
    match found {
        Some(check) if check["status"] == "ok" => None,
        Some(check) => Some(format!("{feature}: {}", check["detail"])),
        None => Some(format!("{feature}: not there")),
    }
}

/// Results so far; each is printed as it comes.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Tally {
    fn note(&mut self, name: &str, mode: &str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                println!("ok {name} {mode}");
                self.passed += 1;
            }
            Err(why) => self.fail(name, mode, &why),
        }
    }

    fn fail(&mut self, name: &str, mode: &str, why: &str) {
        println!("FAIL {name} {mode}: {why}");
        self.failed += 1;
    }

    fn skip(&mut self, name: &str, mode: &str, why: &str) {
        println!("skipped {name} {mode}: {why}");
        self.skipped += 1;
    }

    fn closing_line(&self) -> String {
        let Tally {
            passed,
            failed,
            skipped,
        } = self;
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }
}
