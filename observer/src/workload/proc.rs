//! Whether threads of this process, or its children, have really gone to sleep, as /proc shows them.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// A generous bound: blocking takes microseconds, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where /proc does not tell the system call, a thread must be found asleep this often in a row.
const ASLEEP_IN_A_ROW: u32 = 20;
const POLL: Duration = Duration::from_millis(1);

/// Returns once thread `tid` sleeps in a futex call on the word at `address`.
pub(crate) fn wait_until_blocked(tid: libc::pid_t, address: usize) -> io::Result<()> {
    let give_up = Instant::now() + PATIENCE;
    let mut asleep = 0;
    while Instant::now() < give_up {
        match sleeps_on(tid, address) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(_) if is_asleep(tid)? => {
                asleep += 1;
                if asleep == ASLEEP_IN_A_ROW {
                    return Ok(());
                }
            }
            Err(_) => asleep = 0,
        }
        thread::sleep(POLL);
    }
    let text = format!("thread {tid} did not block on {address:#x} within {PATIENCE:?}");
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// Whether the thread sleeps in `futex` on that word. The file says `running` for a thread that
/// does not sleep, so a system call number in it means that the thread is off the CPU.
fn sleeps_on(tid: libc::pid_t, address: usize) -> io::Result<bool> {
    let text = fs::read_to_string(format!("/proc/{tid}/syscall"))?;
    let mut fields = text.split_whitespace();
    let number = fields.next().and_then(|field| field.parse().ok());
    let word = fields.next().and_then(|field| field.strip_prefix("0x"));
    let word = word.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    Ok(number == Some(libc::SYS_futex) && word == Some(address))
}

/// Whether the thread is in interruptible sleep, whatever it sleeps on.
fn is_asleep(tid: libc::pid_t) -> io::Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat"))?;
    // The name stands in parentheses and may itself contain some: the state follows the last.
    Ok(stat
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S')))
}
