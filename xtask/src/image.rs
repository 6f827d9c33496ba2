//! The container image: a static binary on nothing, made without a registry.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{cmd, project};

/// A target that is named is built apart: what the build itself runs stays as it is.
const TARGET: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

/// Builds a static observer, and an image of it.
pub(crate) fn image() -> Result<()> {
    let mut build = project::cargo();
    build
        .args([
            "build",
            "--package",
            "observer",
            "--release",
            "--target",
            TARGET,
        ])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // What the image has no room for.
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    cmd::run(&mut build).context("cannot build a static observer")?;
    let binary = project::target().join(TARGET).join("release/observer");
    let mut script = Command::new(project::root().join("deploy/image.sh"));
    script.arg(binary).arg(archive());
    cmd::run(&mut script).context("cannot make the image")
}

fn archive() -> PathBuf {
    project::target().join("image/observer.tar")
}
