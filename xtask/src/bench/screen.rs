//! What the screen costs: frames of the largest host, and CPU with very many threads.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::goals::Goal;
use super::room::Room;
use crate::run;
use crate::tmux::Terminal;
use crate::{cmd, project};

/// A frame's name, and its median and its longest time in milliseconds.
pub(super) type Frame = (String, f64, f64);

/// The goal for a frame.
pub(super) const FRAME: Goal = Goal::AtMost(16.0);
/// The goal for CPU, in percent of a core.
pub(super) const CPU: Goal = Goal::AtMost(3.0);

/// Times of frames with 10 000 threads and 100 000 locks, by the test among the screen's own.
pub(super) fn frames() -> Result<Vec<Frame>> {
    let mut test = project::cargo();
    test.args(["test", "--release", "--package", "observer", "--lib"]);
    test.args(["--features", "measure", "--", "--nocapture", "--exact"]);
    test.arg("tui::tests::large::measure_frames");
    let output = cmd::output(&mut test).context("cannot measure the screen's frames")?;
    Ok(output.lines().filter_map(frame).collect())
}

/// `frame locks 5391785 6587759`, in nanoseconds.
fn frame(line: &str) -> Option<Frame> {
    let mut words = line.strip_prefix("frame ")?.split_whitespace();
    let name = words.next()?.replace('_', " ");
    let mut ms = || Some(words.next()?.parse::<f64>().ok()? / 1e6);
    Some((name, ms()?, ms()?))
}

/// CPU of a whole run of the screen beside a workload, in percent of a core. The start is left out.
pub(super) fn cpu(room: &Room, time: Duration) -> Result<Option<f64>> {
    let file = room.path("screen.pid");
    let observer = run::released("observer");
    let script = format!(
        "echo $$ > {}; exec {} top",
        file.display(),
        observer.display()
    );
    let terminal = Terminal::open(200, 60, &script)?;
    terminal.wait_for("[1 Overview]")?;
    // Waits that were there before are read at the start.
    thread::sleep(Duration::from_secs(3));
    let pid: u32 = fs::read_to_string(&file)
        .context("the screen has not told its process")?
        .trim()
        .parse()
        .context("the screen has not told its process")?;
    let (began, before) = (Instant::now(), cpu_s(pid));
    thread::sleep(time);
    let after = cpu_s(pid);
    let elapsed = began.elapsed().as_secs_f64();
    terminal.key("q")?;
    Ok(before
        .zip(after)
        .map(|(before, after)| (after - before) * 100.0 / elapsed))
}

/// CPU that a process has used, in seconds.
fn cpu_s(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    // Field 3 is the state; 14 and 15 are the times of the process.
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    // SAFETY: sysconf takes an integer and touches no memory.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Some((ticks()? + ticks()?) / a_second)
}

/// Is there what the measurement needs?
pub(super) fn is_there() -> bool {
    Command::new("tmux").arg("-V").output().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read() {
        let read = frame("frame blocked_by_lock 3250636 4369828");
        assert_eq!(read, Some(("blocked by lock".into(), 3.250_636, 4.369_828)));
        assert_eq!(frame("test result: ok"), None);
        assert!(cpu_s(std::process::id()).is_some());
    }
}
