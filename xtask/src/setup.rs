//! The set-up that every command runs first: what a toolchain lacks for building kernel programs.
//!
//! When everything is there it costs two starts of rustc, and prints nothing.

use std::fs::{self, File};

use anyhow::{Context as _, Result};

use crate::cmd::say;
use crate::project::{self, Rustc};
use crate::{linker, rust_src};

/// One thing that building needs.
struct Part {
    is_there: fn(&Rustc) -> bool,
    install: fn(&Rustc) -> Result<()>,
}

const PARTS: [Part; 2] = [
    Part {
        is_there: rust_src::is_there,
        install: rust_src::install,
    },
    Part {
        is_there: linker::is_there,
        install: linker::install,
    },
];

/// Whether anything had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    WasThere,
    Installed,
}

/// Makes sure that the project can be built, and says what it does for that.
pub(crate) fn ensure() -> Result<Outcome> {
    let rustc = Rustc::find()?;
    if PARTS.iter().all(|part| (part.is_there)(&rustc)) {
        return Ok(Outcome::WasThere);
    }
    let _lock = lock()?;
    for part in &PARTS {
        // Asked anew: another set-up may have done it while this one waited.
        if !(part.is_there)(&rustc) {
            (part.install)(&rustc)?;
        }
    }
    Ok(Outcome::Installed)
}

/// Keeps a second set-up in the same checkout from doing the same at the same time.
fn lock() -> Result<File> {
    let tools = project::tools();
    fs::create_dir_all(&tools)
        .with_context(|| format!("cannot make the folder {}", tools.display()))?;
    let path = tools.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        say!("set-up: waiting for another one to end …\n");
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}
