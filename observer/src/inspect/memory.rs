//! Memory of another process, read without stopping it (`process_vm_readv`).
//!
//! Nothing read is trusted: the process writes at the same time, and may have put anything anywhere. A
//! reader gets bytes and a yes or no, never a panic, and every length is bounded by the caller's buffer.

use std::{fmt, io};

/// Vectors in one system call (`UIO_MAXIOV`).
const MAX_VECTORS: usize = 1024;
/// Bytes of a text that ends with a NUL, which is one of them.
pub const MAX_TEXT: usize = 96;

/// Something with addresses that can be read: a process, or a fixture in a test.
pub trait Memory {
    /// Fills `into` from `addr` on. False: not all of it could be read, and what `into` holds is of no use.
    fn read(&self, addr: u64, into: &mut [u8]) -> bool;

    /// Fills each buffer from its address; the answer says which were read. Many in one system call where
    /// the source can.
    fn read_many(&self, parts: &mut [(u64, &mut [u8])]) -> Vec<bool> {
        parts
            .iter_mut()
            .map(|(addr, into)| self.read(*addr, into))
            .collect()
    }

    /// A little-endian word.
    fn u64(&self, addr: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    /// Half a word.
    fn u32(&self, addr: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)
            .then(|| u32::from_le_bytes(bytes))
    }
}

/// A name: text that ends with a NUL, of fewer than [`MAX_TEXT`] bytes and more than none.
pub fn text(memory: &dyn Memory, at: u64) -> Option<String> {
    let mut bytes = [0; MAX_TEXT];
    // What is behind it need not be mapped.
    if !memory.read(at, &mut bytes) {
        bytes = [0; MAX_TEXT];
        for (i, part) in bytes.chunks_exact_mut(8).enumerate() {
            if !memory.read(at.wrapping_add(8 * i as u64), part) || part.contains(&0) {
                break;
            }
        }
    }
    until_nul(&bytes)
}

/// The text at the beginning of these bytes, up to a NUL.
pub fn until_nul(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The memory of a live process. Its identifier may come to mean another process: who keeps one of these
/// for long checks that it is still the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProcessMemory {
    pid: u32,
}

impl fmt::Debug for ProcessMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory of process {}", self.pid)
    }
}

impl ProcessMemory {
    /// That of process `pid`; nothing is opened.
    pub fn of(pid: u32) -> ProcessMemory {
        ProcessMemory { pid }
    }

    /// May its memory be read at all? `addr` is one that is mapped.
    ///
    /// # Errors
    /// The kernel's: no such process, or no permission (`PTRACE_MODE_ATTACH_REALCREDS`).
    pub fn check(&self, addr: u64) -> io::Result<()> {
        self.read_part(addr, &mut [0]).map(drop)
    }

    /// Fills `into` as far as the memory is mapped.
    ///
    /// # Errors
    /// The kernel's, when nothing could be read.
    pub fn read_part(&self, addr: u64, into: &mut [u8]) -> io::Result<usize> {
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let remote = libc::iovec {
            iov_base: addr as *mut libc::c_void,
            iov_len: into.len(),
        };
        // SAFETY: one local vector that is exactly the caller's buffer; the kernel checks the remote one.
        let read = unsafe {
            libc::process_vm_readv(
                self.pid.cast_signed(),
                &raw const local,
                1,
                &raw const remote,
                1,
                0,
            )
        };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// One system call for at most [`MAX_VECTORS`] parts; bytes read before the first part that failed.
    fn read_vectors(&self, parts: &mut [(u64, &mut [u8])]) -> usize {
        let local: Vec<libc::iovec> = parts
            .iter_mut()
            .map(|(_, into)| libc::iovec {
                iov_base: into.as_mut_ptr().cast(),
                iov_len: into.len(),
            })
            .collect();
        let remote: Vec<libc::iovec> = parts
            .iter()
            .map(|(addr, into)| libc::iovec {
                iov_base: *addr as *mut libc::c_void,
                iov_len: into.len(),
            })
            .collect();
        // SAFETY: each local vector is exactly one of the callers' buffers, which outlive the call; the
        // kernel checks the remote ones.
        let read = unsafe {
            libc::process_vm_readv(
                self.pid.cast_signed(),
                local.as_ptr(),
                local.len() as libc::c_ulong,
                remote.as_ptr(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        usize::try_from(read).unwrap_or(0)
    }
}

impl Memory for ProcessMemory {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        into.is_empty()
            || self
                .read_part(addr, into)
                .is_ok_and(|read| read == into.len())
    }

    fn read_many(&self, parts: &mut [(u64, &mut [u8])]) -> Vec<bool> {
        let mut done = vec![false; parts.len()];
        let mut from = 0;
        while from < parts.len() {
            let to = parts.len().min(from + MAX_VECTORS);
            // The kernel stops at the first part that it cannot read: the next call goes on behind it.
            let mut read = self.read_vectors(&mut parts[from..to]);
            while from < to && read >= parts[from].1.len() {
                read -= parts[from].1.len();
                done[from] = true;
                from += 1;
            }
            if from < to {
                from += 1;
            }
        }
        done
    }
}

/// Memory for the tests of what is read from it.
#[cfg(test)]
pub(crate) mod fixture {
    use super::Memory;

    /// Bytes at one address.
    #[derive(Debug, Default)]
    pub(crate) struct Fixture {
        pub(crate) at: u64,
        pub(crate) bytes: Vec<u8>,
    }

    impl Fixture {
        pub(crate) fn words(at: u64, words: &[u32]) -> Fixture {
            let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            Fixture { at, bytes }
        }
    }

    impl Memory for Fixture {
        fn read(&self, addr: u64, into: &mut [u8]) -> bool {
            let from = addr.checked_sub(self.at).map(|from| from as usize);
            let part = from.and_then(|from| self.bytes.get(from..from.checked_add(into.len())?));
            part.map(|part| into.copy_from_slice(part)).is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_read_and_what_is_not_there_is_not() {
        let memory = ProcessMemory::of(std::process::id());
        let value = 0x1122_3344_5566_7788_u64;
        let at = &raw const value as u64;
        assert_eq!(memory.u64(at), Some(value));
        assert_eq!(memory.u32(at), Some(0x5566_7788));
        assert_eq!(memory.u64(8), None);
        assert_eq!(memory.u64(u64::MAX - 3), None);
        assert!(memory.check(at).is_ok());
        assert!(memory.check(8).is_err());
        assert!(ProcessMemory::of(u32::MAX / 2).check(at).is_err());
    }

    #[test]
    fn text_ends_with_a_nul_wherever_that_is() {
        let memory = fixture::Fixture {
            at: 0x1000,
            bytes: b"name\0\0\0\0\xff\0\0\0\0\0\0\0without".to_vec(),
        };
        assert_eq!(text(&memory, 0x1000).as_deref(), Some("name"));
        assert_eq!(text(&memory, 0x1004), None);
        assert_eq!(text(&memory, 0x1008), None);
        assert_eq!(text(&memory, 0x1010), None);
        assert_eq!(text(&memory, u64::MAX - 2), None);
        let own = c"text of this process";
        let live = ProcessMemory::of(std::process::id());
        let read = text(&live, own.as_ptr() as u64);
        assert_eq!(read.as_deref(), own.to_str().ok());
    }

    #[test]
    fn a_part_that_cannot_be_read_does_not_spoil_the_others() {
        let memory = ProcessMemory::of(std::process::id());
        let value = 7u64;
        let at = &raw const value as u64;
        let mut buffers = vec![[0u8; 8]; 3_000];
        let mut parts: Vec<(u64, &mut [u8])> = buffers
            .iter_mut()
            .enumerate()
            .map(|(i, buffer)| (if i % 1_000 == 500 { 8 } else { at }, &mut buffer[..]))
            .collect();
        let done = memory.read_many(&mut parts);
        assert_eq!(done.iter().filter(|done| !**done).count(), 3);
        for (i, buffer) in buffers.iter().enumerate() {
            assert_eq!(done[i], i % 1_000 != 500);
            assert!(!done[i] || u64::from_le_bytes(*buffer) == 7);
        }
    }
}
