//! The machine's whole file system: three static programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use crate::cmd::{self, Step};
use crate::project;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// `PT_INTERP`: the part of an executable that names its dynamic linker.
const INTERPRETER: u32 = 3;

/// The programs, static, so that they run where there are no libraries.
pub(super) struct Programs {
    pub(super) observer: PathBuf,
    pub(super) workload: PathBuf,
    pub(super) vmtest: PathBuf,
}

/// The folder for builds, images and consoles.
pub(super) fn folder() -> PathBuf {
    project::target().join("vm")
}

/// Builds the programs.
pub(super) fn build() -> Result<Programs> {
    let step = Step::noisy("vm", "building static programs");
    let mut build = project::cargo();
    build
        .args(["build", "--package", "observer", "--bin", "observer"])
        .args(["--example", "workload", "--example", "vmtest"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(folder())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // Emulated, code that is not optimised at all takes its time, and symbols have to be unpacked.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols");
    cmd::run(&mut build).context("cannot build observer and its test program")?;
    step.done();
    let built = folder().join(TARGET).join("debug");
    let programs = Programs {
        observer: built.join("observer"),
        workload: built.join("examples/workload"),
        vmtest: built.join("examples/vmtest"),
    };
    for path in [&programs.observer, &programs.workload, &programs.vmtest] {
        if !is_static(&read(path)?) {
            bail!("{} is not static", path.display());
        }
    }
    Ok(programs)
}

/// Makes the archive that the machine starts from, and says where it is.
pub(super) fn make(programs: &Programs) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for name in ["dev", "proc", "sys", "tmp"] {
        archive.folder(name);
    }
    // The first process finds its output there, before it has mounted anything.
    archive.device("dev/console", 5, 1);
    archive.program("init", &read(&programs.vmtest)?);
    archive.program("observer", &read(&programs.observer)?);
    archive.program("workload", &read(&programs.workload)?);
    let path = folder().join("initramfs.cpio");
    fs::write(&path, archive.finish())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Whether a 64-bit little-endian executable needs no dynamic linker (`man 5 elf`).
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        let slice = elf.get(at..at.checked_add(bytes)?)?;
        let number = slice
            .iter()
            .rev()
            .fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        usize::try_from(number).ok()
    };
    // e_phoff, e_phentsize and e_phnum; p_type is the first word of a program header.
    let headers = || {
        let (offset, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let types = (0..count).map(|i| number(offset.checked_add(i * size)?, 4));
        types.collect::<Option<Vec<_>>>()
    };
    elf.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|types| !types.contains(&(INTERPRETER as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_a_dynamic_linker_are_told_apart() {
        // This test is one of them.
        let own = read(&std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&own));
        let at = u64::from_le_bytes(own[32..40].try_into().unwrap()) as usize;
        let mut other = own.clone();
        let count = usize::from(u16::from_le_bytes(own[56..58].try_into().unwrap()));
        for header in other[at..].chunks_mut(56).take(count) {
            if header[..4] == INTERPRETER.to_le_bytes() {
                header[..4].fill(0);
            }
        }
        assert!(is_static(&other));
        assert!(!is_static(&other[..at]), "cut off");
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
