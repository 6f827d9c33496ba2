//! One run of the test program: in an emulated machine, or on this one's own kernel.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::image::{self, Programs};
use super::kernel::Kernel;
use super::outcome::{self, Outcome};
use crate::cmd::die_with_parent;
use crate::cmd::{self, say};

/// The emulator.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// How long a run may take: it takes a fifth of that.
const WITHIN: Duration = Duration::from_mins(5);

/// How long it may take until the test begins.
const BEGUN_WITHIN: Duration = Duration::from_secs(40);

/// Boots of one kernel at most. Emulated, 6.12 crashes or hangs now and then while it starts, with any
/// number of CPUs. Nothing of observer runs yet, so that is tried again; a crash later on is a failure.
const BOOTS: u32 = 4;

/// So many lines of the console are shown when a run went wrong.
const TAIL: usize = 40;

/// Boots a kernel with the test program as its first process.
pub(super) fn boot(kernel: &Kernel, initramfs: &Path, keep: bool) -> Result<Outcome> {
    let mut qemu = qemu(kernel, initramfs);
    die_with_parent(&mut qemu, libc::SIGKILL);
    for boot in 1..BOOTS {
        match run(&mut qemu, &kernel.release, keep)? {
            Run::Ended(outcome) => return Ok(outcome),
            Run::NotBegun(_) => say!("boot {boot} of {BOOTS} came to nothing before the test … "),
            Run::Broken(why) => bail!(why),
        }
    }
    run(&mut qemu, &kernel.release, keep)?.outcome()
}

fn qemu(kernel: &Kernel, initramfs: &Path) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu
        // One thread for all CPUs: with more the emulator lets kernels fail that are not to blame.
        .args(["-accel", "tcg,thread=single", "-cpu", "max"])
        .args(["-m", "1024", "-smp", "2"])
        .args(["-nodefaults", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // A panic ends the machine, which -no-reboot keeps from starting anew. Without random
        // addresses the emulator fails in one boot of 14 and not in one of 4.
        .args(["-append", "console=ttyS0 panic=-1 quiet nokaslr"]);
    qemu
}

/// Runs the test program beside everything else on this machine.
pub(super) fn on_host(programs: &Programs, keep: bool) -> Result<Outcome> {
    let mut test = Command::new(&programs.vmtest);
    test.args([&programs.observer, &programs.workload]);
    run(&mut test, "host", keep)?.outcome()
}

/// What became of a run.
enum Run {
    /// The test came to its end.
    Ended(Outcome),
    /// It did not even begin.
    NotBegun(String),
    /// It broke off.
    Broken(String),
}

impl Run {
    fn outcome(self) -> Result<Outcome> {
        match self {
            Self::Ended(outcome) => Ok(outcome),
            Self::NotBegun(why) | Self::Broken(why) => bail!(why),
        }
    }
}

/// Runs to the end, or to the end of the patience.
fn run(command: &mut Command, name: &str, keep: bool) -> Result<Run> {
    let path = image::folder().join(format!("console-{name}.log"));
    let console = || -> io::Result<(File, File)> {
        let file = File::create(&path)?;
        Ok((file.try_clone()?, file))
    };
    let (stdout, stderr) = console().with_context(|| format!("cannot write {}", path.display()))?;
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", cmd::line(command)))?;
    let ended = wait(child, &path)?;
    let seconds = started.elapsed().as_secs_f64();
    let console = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let console = String::from_utf8_lossy(&console);
    if let Some(outcome) = Outcome::parse(&console, seconds) {
        if !keep && outcome.is_good() {
            let _ = fs::remove_file(&path);
        }
        return Ok(Run::Ended(outcome));
    }
    let why = if ended {
        "the run ended before its last line".to_owned()
    } else {
        let age = started.elapsed().as_secs();
        format!("the run was ended after {age} s")
    };
    let place = path.display();
    let why = format!(
        "{why}; the console ({place}) ends with:\n{}",
        tail(&console)
    );
    Ok(if outcome::has_begun(&console) {
        Run::Broken(why)
    } else {
        Run::NotBegun(why)
    })
}

/// Waits for the end; `false` when it had to be forced.
fn wait(mut child: Child, console: &Path) -> Result<bool> {
    let started = Instant::now();
    let mut begun = false;
    loop {
        if child
            .try_wait()
            .context("cannot wait for the run")?
            .is_some()
        {
            return Ok(true);
        }
        let age = started.elapsed();
        if !begun && age >= BEGUN_WITHIN {
            let text =
                fs::read(console).with_context(|| format!("cannot read {}", console.display()))?;
            begun = outcome::has_begun(&String::from_utf8_lossy(&text));
        }
        if age >= WITHIN || (!begun && age >= BEGUN_WITHIN) {
            let _ = child.kill();
            child.wait().context("cannot wait for the run")?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The last lines of a console, without what would move the cursor of another one.
fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL)..];
    let plain = |line: &&str| line.replace(|c: char| c.is_control() && c != '\t', "");
    tail.iter().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_plain_text() {
        let lines: Vec<_> = (0..100).map(|n| format!("\x1b[2Jline {n}")).collect();
        let console = lines.join("\r\n");
        let tail = tail(&console);
        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.ends_with("[2Jline 99"), "{tail}");
        assert!(!tail.contains('\x1b'));
    }
}
