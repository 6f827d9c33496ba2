//! The standard library's source, which the kernel programs' `core` is built from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::apt::PrivateApt;
use crate::cmd::{self, Step};
use crate::project::{self, Rustc};

/// Suites that may have the pinned version, after the running release's own backports.
const SUITES: [&str; 4] = ["trixie-backports", "forky-backports", "forky", "sid"];

/// Where the source belongs in a toolchain.
fn library(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

/// Whether the source is there, and whole: the lock file is the one part that cargo needs and that
/// an unlucky hand-made copy lacks.
pub(crate) fn is_there(rustc: &Rustc) -> bool {
    let library = library(&rustc.sysroot);
    library.join("core/src/lib.rs").is_file() && library.join("Cargo.lock").is_file()
}

/// Puts the source into the toolchain, from the distribution or else from rustup.
pub(crate) fn install(rustc: &Rustc) -> Result<()> {
    let version = &rustc.release;
    let subject = format!("set-up: rust-src {version}");
    let library = library(&rustc.sysroot);
    make_parent(&library)?;

    let step = Step::quiet(&subject, "installing the distribution's package");
    let distribution = from_distribution(version, &library);
    let Err(distribution) = distribution else {
        step.done();
        return Ok(());
    };
    drop(step);

    let step = Step::noisy(&subject, "adding rustup's component");
    let rustup = from_rustup(version);
    let Err(rustup) = rustup else {
        step.done();
        return Ok(());
    };
    drop(step);

    Err(anyhow!(
        "cannot install rust-src {version}, the standard library's source, which the kernel \
         programs are built with\n\
         - the distribution's package: {distribution:#}\n\
         - rustup: {rustup:#}\n\
         Run `rustup component add rust-src --toolchain {version}` where there is a network, or put \
         the folder `library` of the distribution's package rust-src, in exactly this version, at {}",
        library.display()
    ))
}

/// Makes the folder that the source goes into: the first thing to fail in a toolchain that belongs
/// to somebody else, and then neither way can work.
fn make_parent(library: &Path) -> Result<()> {
    let parent = library.parent().unwrap_or(library);
    let probe = parent.join(format!(".writable-{}", std::process::id()));
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&probe, ""))
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| {
            format!(
                "rust-src is missing, and its place {} cannot be written: run `cargo xtask setup` \
                 as the owner of this toolchain, or use a toolchain of your own",
                parent.display()
            )
        })
}

fn from_distribution(version: &str, library: &Path) -> Result<()> {
    let apt = PrivateApt::new(project::tools().join("apt"))?;
    let mut refusals = Vec::new();
    for suite in suites() {
        match apt.download(&suite, "rust-src", version) {
            Ok(package) => {
                let unpacked = apt.unpack(&package, "./usr/src/rustc-*/library")?;
                let source = unpacked.join(format!("usr/src/rustc-{version}/library"));
                return put(&source, library);
            }
            Err(error) => refusals.push(format!("{suite}: {}", last_line(&format!("{error:#}")))),
        }
    }
    bail!("no suite has this version ({})", refusals.join("; "))
}

fn from_rustup(version: &str) -> Result<()> {
    if !cmd::exists("rustup") {
        bail!("no rustup here");
    }
    let mut command = Command::new("rustup");
    command.args(["component", "add", "rust-src", "--toolchain", version]);
    cmd::run(&mut command)
}

/// The suites to try, in order.
fn suites() -> Vec<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut suites: Vec<String> = codename(&release)
        .map(|name| format!("{name}-backports"))
        .into_iter()
        .collect();
    for suite in SUITES {
        if !suites.iter().any(|known| known == suite) {
            suites.push(suite.to_owned());
        }
    }
    suites
}

fn codename(os_release: &str) -> Option<&str> {
    os_release.lines().find_map(|line| {
        let name = line.strip_prefix("VERSION_CODENAME=")?.trim_matches('"');
        (!name.is_empty()).then_some(name)
    })
}

/// The line of an error that says why: apt's last.
fn last_line(error: &str) -> &str {
    error.trim_end().lines().next_back().unwrap_or(error)
}

/// Puts the source in its place at once, so that an interruption leaves no half of it behind.
fn put(source: &Path, library: &Path) -> Result<()> {
    let partial = library.with_file_name(format!("library.partial-{}", std::process::id()));
    let mut copy = Command::new("cp");
    copy.arg("-R").args([source, &partial]);
    let placed = cmd::output(&mut copy).and_then(|_| {
        remove(library)
            .and_then(|()| fs::rename(&partial, library))
            .with_context(|| format!("cannot put the source at {}", library.display()))
    });
    if placed.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    placed
}

/// Removes an incomplete source, be it a folder or a link that leads nowhere.
fn remove(library: &Path) -> io::Result<()> {
    match library.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(library),
        Ok(_) => fs::remove_file(library),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codename_is_read_from_os_release() {
        let release = "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n";
        assert_eq!(codename(release), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n"), Some("trixie"));
        assert_eq!(codename("VERSION_CODENAME=\n"), None);
    }

    #[test]
    fn every_suite_is_tried_once() {
        let suites = suites();
        for suite in &suites {
            assert_eq!(suites.iter().filter(|other| *other == suite).count(), 1);
        }
        assert!(suites.len() >= SUITES.len());
    }

    #[test]
    fn the_reason_is_the_last_line() {
        assert_eq!(
            last_line("`apt-get` failed\nW: x\nE: no such suite\n"),
            "E: no such suite"
        );
    }
}
