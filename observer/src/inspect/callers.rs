//! Who made a call: the file and the function that a thread waits for, and where a call leads.

use std::sync::Arc;

use super::memory::Memory;
use crate::{event::Stack, runtimes};

/// Bytes before a return address in which the call is.
const CALL_BYTES: u64 = 7;
/// Steps from a call to the function behind it: a stub of the linker's, and the one that it fills in.
const MAX_STUBS: usize = 2;
/// The file of the first function outside of the C library.
pub(super) fn caller(stack: &Stack) -> Option<&str> {
    let files = stack.user.iter().map(|frame| frame.module.as_deref());
    let is_libc = |file: &&str| {
        let name = file.rsplit('/').next().unwrap_or_default();
        ["libc.so", "libc-", "libpthread", "ld-musl", "libc.musl"]
            .iter()
            .any(|beginning| name.starts_with(beginning))
    };
    // Code in no file ends the search: it is not known what lies behind it.
    files.map_while(|file| file).find(|file| !is_libc(file))
}

/// The function of the program's own that waits: the first beyond those of libraries of locks.
pub(super) fn first_caller(stack: &Stack) -> Option<Arc<str>> {
    const PLUMBING: [&str; 25] = [
        "syscall",
        // musl's.
        "sccp",
        "pthread_",
        "__pthread_",
        "___pthread_",
        "__GI_",
        "__lll",
        "futex",
        "__futex",
        "__new_sem",
        "sem_",
        "__gthread",
        "std::",
        "core::",
        "alloc::",
        "parking_lot",
        "lock_api::",
        "<parking_lot",
        "<lock_api::",
        "<std::",
        "<core::",
        "<alloc::",
        "__cxa_",
        "mtx_",
        "__internal_",
    ];
    stack.user.iter().find_map(|frame| {
        let name = frame.name.as_ref()?;
        let libc = frame
            .module
            .as_deref()
            .is_some_and(|module| module.contains("/libc.so") || module.contains("/libpthread"));
        let plain = runtimes::plain(name);
        (!libc && !PLUMBING.iter().any(|part| plain.starts_with(part))).then(|| plain.into())
    })
}

/// The function that a call before `back`, the address to return to, goes to.
pub(super) fn called(memory: &impl Memory, back: u64) -> Option<u64> {
    let mut code = [0; CALL_BYTES as usize];
    if !memory.read(back.checked_sub(CALL_BYTES)?, &mut code) {
        return None;
    }
    let relative =
        |bytes: [u8; 4], from: u64| from.wrapping_add_signed(i64::from(i32::from_le_bytes(bytes)));
    let [.., _, a, b, c, d] = code;
    let mut target = match code {
        // call *offset(%rip)
        [_, 0xff, 0x15, ..] => return memory.u64(relative([a, b, c, d], back)),
        // call offset
        [_, _, 0xe8, ..] => relative([a, b, c, d], back),
        _ => return None,
    };
    for _ in 0..MAX_STUBS {
        let mut stub = [0; 16];
        if !memory.read(target, &mut stub) {
            return Some(target);
        }
        // endbr64 and bnd may stand before jmp *offset(%rip).
        let mut at = if stub.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) {
            4
        } else {
            0
        };
        at += usize::from(stub[at] == 0xf2);
        let [0xff, 0x25, a, b, c, d] = stub[at..at + 6] else {
            break;
        };
        target = memory.u64(relative([a, b, c, d], target + at as u64 + 6))?;
    }
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::memory::fixture::Fixture;

    #[test]
    fn calls_are_followed_through_stubs() {
        // At 0x1000: call 0x1010; at 0x1010: endbr64, jmp *0x1030; at 0x1030: 0x5000.
        let mut bytes = vec![0x90; 0x40];
        bytes[2] = 0xe8;
        bytes[3..7].copy_from_slice(&9i32.to_le_bytes());
        bytes[0x10..0x16].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25]);
        bytes[0x16..0x1a].copy_from_slice(&0x16i32.to_le_bytes());
        bytes[0x30..0x38].copy_from_slice(&0x5000u64.to_le_bytes());
        // call *0x1030(%rip), ending at 0x1027.
        bytes[0x21..0x23].copy_from_slice(&[0xff, 0x15]);
        bytes[0x23..0x27].copy_from_slice(&9i32.to_le_bytes());
        let memory = Fixture { at: 0x1000, bytes };
        assert_eq!(called(&memory, 0x1007), Some(0x5000));
        assert_eq!(called(&memory, 0x1027), Some(0x5000));
        assert_eq!(called(&memory, 0x1030), None);
        assert_eq!(called(&memory, 3), None);
    }
}
