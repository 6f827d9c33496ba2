//! What the agent may do: after its start only what observing needs, and where HTTP is served, nothing.
//!
//! Capabilities are a thread's own. The agent drops what is not needed when it observes; the thread that starts the process
//! that serves HTTP has dropped all of them before, for good, so that the process has none.

use std::io;

use serde::Deserialize;

/// A capability (capabilities(7)) that may be kept.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Open any file and folder for reading.
    DacReadSearch = 2,
    /// Read the memory of other processes.
    SysPtrace = 19,
    /// Measure the run time of the kernel programs.
    SysAdmin = 21,
    /// Names of the kernel's functions where `kptr_restrict` hides them.
    Syslog = 34,
    /// Tracing programs.
    Perfmon = 38,
    /// Kernel programs and their tables.
    Bpf = 39,
}

/// What observing needs as long as it goes on.
const NEEDED: [Capability; 4] = [
    Capability::Bpf,
    Capability::Perfmon,
    Capability::SysPtrace,
    Capability::DacReadSearch,
];

/// `_LINUX_CAPABILITY_VERSION_3` (include/uapi/linux/capability.h): two words of 32 capabilities.
const VERSION: u32 = 0x2008_0522;
/// Capabilities that a kernel may have: more than any has by now.
const MOST: libc::c_ulong = 63;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// This thread.
static THIS: Header = Header {
    version: VERSION,
    pid: 0,
};

#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops all capabilities of this thread, and of threads that it starts, but for those that observing needs and
/// `keep`; no program that is started from here can have more again.
///
/// # Errors
/// The system calls fail.
pub fn drop_to_needed(keep: &[Capability]) -> io::Result<()> {
    no_new_privileges()?;
    let kept = NEEDED
        .iter()
        .chain(keep)
        .fold(0, |all, one| all | bit(*one));
    bound(kept);
    limit(kept)
}

/// Drops all capabilities of this thread, and of programs that it starts.
///
/// # Errors
/// The system calls fail.
pub fn drop_for_good() -> io::Result<()> {
    no_new_privileges()?;
    bound(0);
    limit(0)
}

/// What this thread, and what it starts, could ever have again.
fn bound(kept: u64) {
    for capability in 0..=MOST {
        if kept & (1 << capability) == 0 {
            // SAFETY: the call takes integers. It fails without CAP_SETPCAP, and then there is nothing to drop
            // for: what was not given cannot come back.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
    }
}

fn bit(capability: Capability) -> u64 {
    1 << capability as u64
}

fn no_new_privileges() -> io::Result<()> {
    // SAFETY: the call takes integers.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The sets of this thread.
fn held() -> io::Result<[Word; 2]> {
    let mut words = [Word::default(); 2];
    // SAFETY: header and words are of the layout that this version asks for, and live during the call.
    match unsafe { libc::syscall(libc::SYS_capget, &raw const THIS, words.as_mut_ptr()) } {
        0 => Ok(words),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has this thread no capability, in no set?
///
/// # Errors
/// The system call fails.
pub fn has_none() -> io::Result<bool> {
    Ok(held()? == [Word::default(); 2])
}

/// Leaves of this thread's capabilities those in `kept`.
fn limit(kept: u64) -> io::Result<()> {
    let mut words = held()?;
    for (word, kept) in words.iter_mut().zip([kept as u32, (kept >> 32) as u32]) {
        word.permitted &= kept;
        word.effective = word.permitted;
        word.inheritable = 0;
    }
    // SAFETY: header and words are of the layout that this version asks for, and live during the call.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const THIS, words.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_this_thread(name: &str) -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    }

    #[test]
    fn a_thread_keeps_what_is_needed_and_then_nothing() {
        let before = of_this_thread("CapPrm");
        std::thread::spawn(move || {
            drop_to_needed(&[]).unwrap();
            let needed = NEEDED.iter().fold(0, |all, one| all | bit(*one));
            assert_eq!(of_this_thread("CapEff"), before & needed);
            assert_eq!(of_this_thread("CapBnd") & !needed & before, 0);
            assert_eq!(of_this_thread("NoNewPrivs"), 1);
            drop_for_good().unwrap();
            assert_eq!(of_this_thread("CapPrm") | of_this_thread("CapEff"), 0);
            assert!(has_none().unwrap());
            assert!(drop_to_needed(&[]).is_ok());
            assert_eq!(of_this_thread("CapPrm"), 0);
        })
        .join()
        .unwrap();
        // Others are not affected.
        assert_eq!(of_this_thread("CapPrm"), before);
    }
}
