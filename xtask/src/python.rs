//! Python packages that only tests need: readers of other people's formats, Helm, the schemas of Kubernetes, the
//! messages of OpenTelemetry.
//!
//! They go into the project's own folder, so no privileges are needed and nothing of the machine's is changed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cmd::{self, Step, say};
use crate::project;

/// Perfetto traces (its own messages) and Parquet are read with the first three; Helm itself as a library; the
/// messages of OTLP.
const PACKAGES: [&str; 6] = [
    "perfetto==0.59.1",
    "protobuf==7.36.2",
    "duckdb==2.0.0",
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
    "opentelemetry-proto==1.45.2",
];

fn folder() -> PathBuf {
    project::tools().join("python")
}

/// The packages that are there, as they were asked for.
fn stamp() -> PathBuf {
    folder().join("packages.txt")
}

fn is_there() -> bool {
    fs::read_to_string(stamp()).is_ok_and(|there| there == PACKAGES.join("\n"))
}

/// Is pip there? Debian has it apart from Python.
pub(crate) fn has_pip() -> bool {
    let mut pip = Command::new("python3");
    cmd::output(pip.args(["-m", "pip", "--version"])).is_ok()
}

/// Fetches what is missing, and says so before. The tests skip themselves without it.
pub(crate) fn ensure(install: bool) {
    if is_there() {
        return;
    }
    let list = PACKAGES.join(", ");
    say!("test set-up: {list} are missing, for tests of exports, of OTLP and of the chart\n");
    if !install {
        say!("test set-up: they are not fetched, as --no-install was given: not tested\n");
    } else if let Err(error) = fetch() {
        say!("test set-up: {error:#}\ntest set-up: those tests will be skipped\n");
    }
}

fn fetch() -> Result<()> {
    let into = folder();
    let unfinished = into.with_extension("part");
    // The rest of an earlier run that was interrupted.
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make the folder {}", unfinished.display()))?;
    let step = Step::quiet(
        "test set-up",
        &format!("pip install {}", PACKAGES.join(" ")),
    );
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--no-compile"])
        .arg("--target")
        .arg(&unfinished)
        .args(PACKAGES);
    cmd::output(&mut pip)?;
    fs::write(unfinished.join("packages.txt"), PACKAGES.join("\n"))
        .with_context(|| format!("cannot write to {}", unfinished.display()))?;
    let _ = fs::remove_dir_all(&into);
    fs::rename(&unfinished, &into)
        .with_context(|| format!("cannot make the folder {}", into.display()))?;
    step.done();
    Ok(())
}
