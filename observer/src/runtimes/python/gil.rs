//! The interpreter lock: who has it.
//!
//! `struct _gil_runtime_state` (Include/internal/pycore_gil.h) has been the same from 3.7 to 3.13: interval, last
//! holder, locked, count of switches, and a condition variable that is waited on. It is a part of `_PyRuntime`, in
//! which its place differs. So it is found from the futex, and believed if it makes sense.

use std::ops::Range;

use crate::{inspect::memory::Memory, runtimes::Owner};

/// Where it has the last holder, the lock itself and the condition variable.
const LAST_HOLDER: u64 = 8;
const LOCKED: u64 = 16;
const COND: u64 = 32;
/// Where the words that are waited on are in a condition variable of glibc before 2.41, and from then on.
const SIGNALS: [u64; 4] = [40, 44, 32, 36];
/// Microseconds that a thread waits before it asks for the lock (`sys.setswitchinterval`).
const INTERVALS: Range<u64> = 1..60_000_001;
/// Bytes of a `PyThreadState` in which the thread's handle is.
const STATE_BYTES: usize = 512;
/// Handles of glibc's threads point to structures that are aligned like this, have their own address here, and
/// the thread's number there (`struct pthread`, x86-64).
const ALIGN: u64 = 64;
const SELF: u64 = 16;
const TID: u64 = 0x2d0;
/// No thread has a number of this size.
const MAX_TID: u64 = 1 << 22;

/// The interpreter lock on whose condition variable `futex` is waited for.
pub(super) fn around(memory: &dyn Memory, runtime: &Range<u64>, futex: u64) -> Option<u64> {
    if !runtime.contains(&futex) {
        return None;
    }
    SIGNALS.into_iter().find_map(|signals| {
        let gil = futex.checked_sub(signals + COND)?;
        let inside = runtime.contains(&gil) && gil.is_multiple_of(8);
        let interval = memory.u64(gil).filter(|_| inside)?;
        let holder = memory.u64(gil + LAST_HOLDER)?;
        let locked = memory.u32(gil + LOCKED)?;
        (INTERVALS.contains(&interval) && locked <= 1 && holder.is_multiple_of(8)).then_some(gil)
    })
}

/// The thread that has the lock at `gil`.
pub fn owner(memory: &dyn Memory, gil: u64) -> Owner {
    let locked = memory.u32(gil.wrapping_add(LOCKED));
    let holder = memory.u64(gil.wrapping_add(LAST_HOLDER));
    match (locked, holder) {
        (Some(1), Some(state)) if state != 0 => {
            thread(memory, state).map_or(Owner::Unrecorded, Owner::Thread)
        }
        _ => Owner::Unrecorded,
    }
}

/// The number of a thread, by its state: behind the handle from 3.11 on, or in what the handle points to.
fn thread(memory: &dyn Memory, state: u64) -> Option<u32> {
    let mut bytes = [0; STATE_BYTES];
    if !memory.read(state, &mut bytes) {
        return None;
    }
    let words: Vec<u64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .collect();
    words.windows(2).find_map(|pair| {
        let [handle, native] = *pair else {
            return None;
        };
        if !is_handle(memory, handle) {
            return None;
        }
        if (1..MAX_TID).contains(&native) {
            return Some(native as u32);
        }
        number(memory, handle).map(|tid| tid as u32)
    })
}

fn is_handle(memory: &dyn Memory, handle: u64) -> bool {
    let own = || memory.u64(handle.checked_add(SELF)?);
    handle >= ALIGN && handle.is_multiple_of(ALIGN) && own() == Some(handle)
}

/// The number of the thread that the C library has this handle for.
pub(super) fn number(memory: &dyn Memory, handle: u64) -> Option<u64> {
    if !is_handle(memory, handle) {
        return None;
    }
    let tid = memory.u32(handle.checked_add(TID)?)?;
    Some(u64::from(tid)).filter(|tid| (1..MAX_TID).contains(tid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::memory::fixture::Fixture;

    const BASE: u64 = 0x1_0000;
    const GIL: u64 = BASE + 0x100;
    const STATE: u64 = BASE + 0x400;
    const HANDLE: u64 = BASE + 0x800;

    fn memory(interval: u64, locked: u32, native: u64) -> Fixture {
        let mut bytes = vec![0; 0x1000];
        let mut set = |at: u64, value: u64| {
            let at = (at - BASE) as usize;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        };
        set(GIL, interval);
        set(GIL + LAST_HOLDER, STATE);
        set(GIL + LOCKED, u64::from(locked));
        set(STATE + 152, HANDLE);
        set(STATE + 160, native);
        set(HANDLE + SELF, HANDLE);
        set(HANDLE + TID, 77);
        Fixture { at: BASE, bytes }
    }

    #[test]
    fn its_futex_leads_to_it_and_it_to_its_holder() {
        let runtime = BASE..BASE + 0x400;
        for signals in SIGNALS {
            let futex = GIL + COND + signals;
            let memory = memory(5_000, 1, 42);
            assert_eq!(around(&memory, &runtime, futex), Some(GIL), "{signals}");
        }
        assert_eq!(owner(&memory(5_000, 1, 42), GIL), Owner::Thread(42));
        // Before 3.11 the number is only with the C library.
        assert_eq!(owner(&memory(5_000, 1, 0), GIL), Owner::Thread(77));
        assert_eq!(owner(&memory(5_000, 0, 42), GIL), Owner::Unrecorded);
    }

    #[test]
    fn what_makes_no_sense_is_none() {
        let runtime = BASE..BASE + 0x400;
        let futex = GIL + COND + SIGNALS[0];
        assert_eq!(around(&memory(0, 1, 42), &runtime, futex), None);
        assert_eq!(around(&memory(5_000, 2, 42), &runtime, futex), None);
        assert_eq!(around(&memory(5_000, 1, 42), &(0..8), futex), None);
        assert_eq!(around(&memory(5_000, 1, 42), &runtime, BASE), None);
        assert_eq!(
            owner(&memory(5_000, 1, 42), u64::MAX - 8),
            Owner::Unrecorded
        );
    }
}
