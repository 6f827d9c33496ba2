//! Registers of blocked threads, and whether a thread has run since they were read.

use std::{
    fs::File,
    io::{self, Read},
};

/// Bytes of `/proc/…/status` that are read; it has about 1 500.
const MAX_STATUS: u64 = 16 << 10;

/// A system call that a thread sleeps in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Number, of x86-64's table.
    pub nr: u32,
    /// Arguments.
    pub args: [u64; 6],
}

/// What a thread left user mode with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer: behind the system call, or at what faulted.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// `rbp`, if known.
    pub bp: Option<u64>,
    /// `rbx`, `r12`, `r13`, `r14`, `r15`, if known.
    pub saved: Option<[u64; 5]>,
    /// The system call, if the thread is in one.
    pub call: Option<SystemCall>,
    /// Times the thread was switched from, when the registers were read; `None`: not known.
    pub switches: Option<u64>,
}

/// What a thread does, as far as its registers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// It is off the CPU.
    Blocked(Registers),
    /// It runs or is about to, so that its registers are not to be had.
    Running,
}

/// Reads `/proc/PID/task/TID/syscall`: works on every kernel, and gives neither `rbp` nor the others. The count
/// of switches is read first, so that a thread that moves meanwhile is found out later.
///
/// # Errors
/// The kernel's: the thread is gone, or no permission.
pub fn from_proc(pid: u32, tid: u32) -> io::Result<Snapshot> {
    let switches = switches(pid, tid)?;
    let mut bytes = [0; 256];
    let length = File::open(format!("/proc/{pid}/task/{tid}/syscall"))?.read(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    Ok(match parse(&text) {
        Some(mut registers) => {
            registers.switches = Some(switches);
            Snapshot::Blocked(registers)
        }
        None => Snapshot::Running,
    })
}

/// `NR ARG×6 SP IP`, or `-1 SP IP` outside of a system call, or `running`.
fn parse(text: &str) -> Option<Registers> {
    let mut fields = text.split_ascii_whitespace();
    let nr: i64 = fields.next()?.parse().ok()?;
    let mut word = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    let mut call = None;
    if let Ok(nr) = u32::try_from(nr) {
        let mut args = [0; 6];
        for arg in &mut args {
            *arg = word()?;
        }
        call = Some(SystemCall { nr, args });
    }
    let (sp, ip) = (word()?, word()?);
    Some(Registers {
        ip,
        sp,
        call,
        ..Registers::default()
    })
}

/// Times the thread was switched from, of its own accord and not.
///
/// # Errors
/// The kernel's: the thread is gone.
pub fn switches(pid: u32, tid: u32) -> io::Result<u64> {
    let mut bytes = Vec::with_capacity(2_048);
    File::open(format!("/proc/{pid}/task/{tid}/status"))?
        .take(MAX_STATUS)
        .read_to_end(&mut bytes)?;
    count_of(&bytes).ok_or_else(|| io::Error::other("no count of switches in /proc"))
}

fn count_of(status: &[u8]) -> Option<u64> {
    // The two are the last lines.
    let mut counts = status
        .split(|byte| *byte == b'\n')
        .rev()
        .filter_map(|line| {
            let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
            name.ends_with("voluntary_ctxt_switches")
                .then(|| value.trim().parse::<u64>().ok())?
        });
    Some(counts.next()?.wrapping_add(counts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_parsed() {
        let text = "202 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffd 0x55\n";
        let registers = parse(text).unwrap();
        assert_eq!(
            (registers.sp, registers.ip, registers.bp),
            (0x7ffd, 0x55, None)
        );
        assert_eq!(registers.call.unwrap().args, [1, 2, 3, 4, 5, 6]);
        let fault = parse("-1 0x7ffd 0x55\n").unwrap();
        assert_eq!((fault.sp, fault.ip, fault.call), (0x7ffd, 0x55, None));
        for text in ["", "running\n", "1 0x2", "x 0x1 0x2", "-1 7 8", "-1 0x1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn counts_are_added() {
        let status = b"Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(count_of(status), Some(42));
        assert_eq!(count_of(b"Name:\tx\n"), None);
        let own = std::process::id();
        assert!(switches(own, own).is_ok());
        assert!(switches(u32::MAX / 2, 1).is_err());
        assert!(from_proc(own, own).is_ok());
    }
}
