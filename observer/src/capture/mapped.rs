//! Tables of the kernel programs, mapped into this process: read without a system call.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
};

use observer_common::{
    LockStat, TaskHead, TaskRegs, TaskSlot, TaskStat, WaitRecord, WaitvRecord, goroutine, usdt,
};

/// Types that any bytes are a valid value of.
///
/// # Safety
/// Implementors are `repr(C)`, of integers only, without padding.
pub(crate) unsafe trait Plain: Copy + 'static {}

// SAFETY: observer-common keeps its records to fixed-width integers with explicit padding and asserts
// their sizes.
unsafe impl Plain for TaskHead {}
// SAFETY: as above.
unsafe impl Plain for TaskSlot {}
// SAFETY: as above.
unsafe impl Plain for TaskStat {}
// SAFETY: as above.
unsafe impl Plain for LockStat {}
// SAFETY: as above.
unsafe impl Plain for WaitRecord {}
// SAFETY: as above.
unsafe impl Plain for WaitvRecord {}
// SAFETY: as above.
unsafe impl Plain for TaskRegs {}
// SAFETY: as above.
unsafe impl Plain for usdt::Record {}
// SAFETY: integers without padding.
unsafe impl Plain for goroutine::Record {}

/// The bytes as a record, if there are exactly as many.
pub(crate) fn record<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: the length was checked, `Plain` allows any bytes, and the read needs no alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// An array map created with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub(crate) struct MappedArray<T> {
    base: NonNull<T>,
    len: usize,
    bytes: usize,
    _entries: PhantomData<T>,
}

impl<T: Plain> MappedArray<T> {
    /// Maps all `len` entries of the map behind `fd`.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        // The kernel lays entries out at multiples of eight bytes.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let len = len as usize;
        let bytes = len * size_of::<T>();
        // SAFETY: a new shared mapping of a file; no memory of ours is touched.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<T>())
            .ok_or_else(|| io::Error::other("a mapping at address zero"))?;
        Ok(MappedArray {
            base,
            len,
            bytes,
            _entries: PhantomData,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Copies an entry, which the kernel may be changing: the caller checks that the copy makes sense.
    pub(crate) fn get(&self, index: usize) -> Option<T> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the index is within the mapping, which lives as long as `self`; any bytes are a valid
        // `T`; volatile, because the kernel writes at the same time.
        Some(unsafe { self.base.as_ptr().add(index).read_volatile() })
    }

    /// Overwrites an entry that the kernel programs do not use at present.
    pub(crate) fn set(&mut self, index: usize, value: T) {
        if index < self.len {
            // SAFETY: as in `get`.
            unsafe { self.base.as_ptr().add(index).write_volatile(value) };
        }
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this address and size, and nothing borrows from it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_exactly_its_size() {
        let bytes = [0u8; size_of::<WaitRecord>() + 1];
        assert!(record::<WaitRecord>(&bytes).is_none());
        assert!(record::<WaitRecord>(&bytes[1..]).is_some());
        assert!(record::<WaitRecord>(&[]).is_none());
    }
}
