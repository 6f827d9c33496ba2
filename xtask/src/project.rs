//! Where things lie in the project, and which toolchain it pins.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The folder for build tools: the project's own, so that nothing of the user's is changed.
pub(crate) fn tools() -> PathBuf {
    root().join(".tools")
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    // A relative CARGO_TARGET_DIR counts from the root, where every cargo is started.
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A cargo command, started in the root: the cargo that started this program, when there was one.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// Whether this process may do everything on the machine.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes no arguments, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// What the compiler says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    /// Its version, as `1.95.0`.
    pub(crate) release: String,
    /// The commit that it was built from.
    pub(crate) commit: String,
    /// The machine that it runs on and compiles for.
    pub(crate) host: String,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
    /// The folder that holds its libraries.
    pub(crate) sysroot: PathBuf,
}

impl Rustc {
    /// Asks the compiler that builds this project, and holds it to the pinned version.
    pub(crate) fn find() -> Result<Self> {
        let rustc = |args: &[&str]| {
            let mut command = Command::new("rustc");
            command.args(args).current_dir(root());
            cmd::output(&mut command)
                .context("the project needs Rust: see rust-toolchain.toml for the version")
        };
        let verbose = rustc(&["-vV"])?;
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        let found = parse_verbose(&verbose, sysroot)
            .with_context(|| format!("cannot understand `rustc -vV`:\n{verbose}"))?;

        let pinned = pinned_toolchain()?;
        if found.release != pinned {
            // Without rustup nothing else reads the toolchain file.
            bail!(
                "rustc is {}, and the project pins {pinned}: install it with \
                 `rustup toolchain install {pinned}`",
                found.release
            );
        }
        Ok(found)
    }
}

/// The toolchain that rust-toolchain.toml pins.
fn pinned_toolchain() -> Result<String> {
    let path = root().join("rust-toolchain.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_channel(&text)
        .with_context(|| format!("{} has no line `channel = \"…\"`", path.display()))
}

fn parse_channel(toml: &str) -> Option<String> {
    toml.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        if key.trim() != "channel" {
            return None;
        }
        let (channel, _) = value.trim().strip_prefix('"')?.split_once('"')?;
        Some(channel.to_owned())
    })
}

fn parse_verbose(text: &str, sysroot: PathBuf) -> Option<Rustc> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    Some(Rustc {
        release: field("release")?.to_owned(),
        commit: field("commit-hash")?.to_owned(),
        host: field("host")?.to_owned(),
        llvm: field("LLVM version")?.split('.').next()?.parse().ok()?,
        sysroot,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_read_from_the_toolchain_file() {
        let file = "# why\n[toolchain]\nchannel = \"1.95.0\" # pinned\nprofile = \"minimal\"\n";
        assert_eq!(parse_channel(file).as_deref(), Some("1.95.0"));
        assert_eq!(parse_channel("[toolchain]\n# channel: none\n"), None);
        assert_eq!(parse_channel("channel = unquoted\n"), None);
    }

    #[test]
    fn the_project_pins_a_whole_version() {
        let channel = pinned_toolchain().unwrap();
        assert_eq!(channel.split('.').count(), 3, "{channel}");
    }

    #[test]
    fn the_compiler_is_understood() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e1\n\
                    commit-date: 2026-04-14\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n\
                    LLVM version: 22.1.2\n";
        let rustc = parse_verbose(text, PathBuf::from("/sysroot")).unwrap();
        assert_eq!(rustc.release, "1.95.0");
        assert_eq!(rustc.commit, "59807616e1");
        assert_eq!(rustc.llvm, 22);
        assert_eq!(parse_verbose("rustc 1.95.0\n", PathBuf::new()), None);
    }
}
