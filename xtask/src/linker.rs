//! bpf-linker, which makes the kernel object, in the project's own folder.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, Step};
use crate::project::{self, Rustc};

/// The version. It borrows the LLVM that the pinned rustc carries, so it must be one that is made
/// for the same LLVM; 0.10.4 is the last: from 0.11 on a system-wide LLVM would be needed.
const VERSION: &str = "0.10.4";

/// The major version of LLVM that [`VERSION`] is made for.
const LLVM: u32 = 22;

/// Whether the linker is there, in this version and built by this compiler. Nothing is started to
/// find out.
pub(crate) fn is_there(rustc: &Rustc) -> bool {
    is_there_in(&project::tools(), rustc)
}

fn is_there_in(tools: &Path, rustc: &Rustc) -> bool {
    cmd::is_program(&tools.join("bin/bpf-linker"))
        && fs::read_to_string(tools.join("bpf-linker.stamp"))
            .is_ok_and(|found| found == stamp(rustc))
}

/// What the file beside an installed linker says.
fn stamp(rustc: &Rustc) -> String {
    let Rustc {
        release, commit, ..
    } = rustc;
    format!("bpf-linker {VERSION}\nrustc {release} {commit}\n")
}

/// Builds the linker and puts it into the project's folder.
pub(crate) fn install(rustc: &Rustc) -> Result<()> {
    install_into(&project::tools(), rustc)
}

fn install_into(tools: &Path, rustc: &Rustc) -> Result<()> {
    if rustc.llvm != LLVM {
        bail!(
            "bpf-linker {VERSION} works with LLVM {LLVM}, and rustc {} has LLVM {}: choose the \
             version to match in xtask/src/linker.rs",
            rustc.release,
            rustc.llvm
        );
    }
    let step = Step::noisy(
        &format!("set-up: bpf-linker {VERSION}"),
        "building it into .tools (a minute or two)",
    );
    let mut install = project::cargo();
    install
        .args(["install", "bpf-linker", "--version", VERSION])
        // --force: what lies there without a stamp may be of another compiler.
        .args(["--locked", "--force", "--root"])
        .arg(tools)
        // Otherwise cargo ends by asking the user to extend PATH; the build needs no such thing.
        .env("PATH", path_with(&tools.join("bin"))?);
    cmd::run(&mut install).context(
        "cannot install bpf-linker, which makes the kernel object: it is fetched and built by \
         cargo, so a network or a filled cargo cache is needed",
    )?;
    let path = tools.join("bpf-linker.stamp");
    fs::write(&path, stamp(rustc)).with_context(|| format!("cannot write {}", path.display()))?;
    step.done();
    Ok(())
}

fn path_with(dir: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([dir.to_owned()]);
    std::env::join_paths(dirs).context("PATH cannot be extended by .tools/bin")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    fn rustc(commit: &str, llvm: u32) -> Rustc {
        Rustc {
            release: "1.95.0".to_owned(),
            commit: commit.to_owned(),
            host: "x86_64-unknown-linux-gnu".to_owned(),
            llvm,
            sysroot: PathBuf::new(),
        }
    }

    #[test]
    fn the_stamp_tells_compilers_apart() {
        let tools = std::env::temp_dir().join(format!("observer-xtask-{}", std::process::id()));
        let linker = tools.join("bin/bpf-linker");
        fs::create_dir_all(tools.join("bin")).unwrap();
        fs::write(&linker, "").unwrap();
        fs::write(tools.join("bpf-linker.stamp"), stamp(&rustc("a", LLVM))).unwrap();
        assert!(!is_there_in(&tools, &rustc("a", LLVM)), "not a program yet");
        fs::set_permissions(&linker, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_there_in(&tools, &rustc("a", LLVM)));
        assert!(!is_there_in(&tools, &rustc("b", LLVM)));
        fs::remove_dir_all(&tools).unwrap();
    }

    #[test]
    fn another_llvm_is_refused_before_anything_is_built() {
        let error = install_into(Path::new("/nowhere"), &rustc("a", LLVM + 1)).unwrap_err();
        assert!(error.to_string().contains("choose the version"), "{error}");
    }
}
