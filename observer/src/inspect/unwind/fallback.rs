//! Frames of code without tables: hand-written assembly, C libraries built without them, code that a run-time
//! compiler made.
//!
//! In this order: a signal's return is known by its instructions; a frame pointer is followed where it is
//! plausible; at last the stack is searched for a return address that follows a call of the very function, or
//! from which the tables lead on. What is found
//! in the last two ways is marked, since it may be wrong: a register may hold something else, and a return
//! address may have been left behind by an earlier call.

use super::{
    Found, StackEnd, Unwinder,
    rule::{self, Machine, R12, RBP, RBX, RSP, Rule},
};
use crate::inspect::memory::Memory;

/// Words of the stack that are searched: 64 KB.
const MAX_WORDS: u64 = 8_192;
/// Return addresses that are tried.
const MAX_TRIES: usize = 40;
/// Frames that are looked at from each.
const MAX_AHEAD: usize = 16;
/// Searches in one stack.
const MAX_SCANS: usize = 32;
/// Bytes of a function, where its end is not known.
const MAX_FUNCTION: u64 = 16 << 10;
/// A frame pointer is at most this far up.
const MAX_FRAME: u64 = 1 << 20;

/// `mov $15, %rax; syscall` and `mov $15, %eax; syscall`: returning from a signal.
const SIGRETURN: [&[u8]; 2] = [
    &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05],
    &[0xb8, 15, 0, 0, 0, 0x0f, 0x05],
];
/// Registers as the kernel saves them for a signal (`struct sigcontext`, arch/x86/include/uapi/asm), from the
/// stack pointer at the return on: offset, DWARF number. `uc_mcontext` begins at 40, with `r8`.
const SAVED: [(u64, usize); 7] = [
    (40 + 32, R12),
    (40 + 40, 13),
    (40 + 48, 14),
    (40 + 56, 15),
    (40 + 80, RBP),
    (40 + 88, RBX),
    (40 + 120, RSP),
];
const SAVED_IP: u64 = 40 + 128;

impl<M: Memory> Unwinder<M> {
    /// The caller of a frame whose code has no tables, or whose tables need a register that is not known.
    pub(super) fn without_tables(
        &mut self,
        machine: &Machine,
        end: StackEnd,
        scans: &mut usize,
    ) -> Result<(Machine, Found), StackEnd> {
        if end == StackEnd::NoUnwindInfo {
            if self.is_sigreturn(machine.ip) {
                let next = self.signal(machine).ok_or(StackEnd::UnreadableMemory)?;
                return Ok((next, Found::Tables));
            }
            if let Some(next) = self.by_frame_pointer(machine) {
                return Ok((next, Found::FramePointer));
            }
        }
        *scans += 1;
        if *scans > MAX_SCANS {
            return Err(end);
        }
        self.scan(machine)
            .map(|next| (next, Found::Scan))
            .ok_or(end)
    }

    fn word(&mut self, addr: u64) -> Option<u64> {
        self.window.word(&self.memory, addr)
    }

    fn is_sigreturn(&mut self, ip: u64) -> bool {
        SIGRETURN.iter().any(|code| {
            let mut bytes = [0; 9];
            let bytes = &mut bytes[..code.len()];
            self.pages.read(&self.memory, ip, bytes) && bytes == *code
        })
    }

    fn signal(&mut self, machine: &Machine) -> Option<Machine> {
        let sp = machine.sp();
        let mut next = Machine {
            ip: self.word(sp.checked_add(SAVED_IP)?)?,
            exact: true,
            ..Machine::default()
        };
        for (offset, number) in SAVED {
            next.regs[number] = Some(self.word(sp.checked_add(offset)?)?);
        }
        Some(next)
    }

    /// The usual prologue puts the caller's frame pointer where `rbp` points to, and the return address above.
    fn by_frame_pointer(&mut self, machine: &Machine) -> Option<Machine> {
        let (sp, bp) = (machine.sp(), machine.regs[RBP]?);
        if bp < sp || bp - sp > MAX_FRAME || bp % 8 != 0 || bp >= self.window.limit() {
            return None;
        }
        let mut next = *machine;
        next.exact = false;
        next.regs[RBP] = Some(self.word(bp)?);
        next.regs[RSP] = Some(bp.checked_add(16)?);
        next.ip = self.word(bp + 8)?;
        // Compiled at run time: the code is not always entered by a call.
        let made_here = self
            .mapping(machine.ip)
            .is_some_and(|mapping| mapping.inode == 0);
        let plausible =
            next.ip == 0 || (self.is_code(next.ip) && (made_here || self.follows_call(next.ip)));
        plausible.then_some(next)
    }

    /// Looks up the stack for the place that the return address of this frame may be at.
    fn scan(&mut self, machine: &Machine) -> Option<Machine> {
        // With tables that only lack the register, all that they say applies to each place that is tried.
        let rule = match self.rule(machine) {
            Rule::Simple {
                return_at, places, ..
            } => Some((return_at, places)),
            _ => None,
        };
        let start = machine.sp().checked_add(7)? & !7;
        let mut best: Option<(usize, Machine)> = None;
        let mut tries = 0;
        for slot in (0..MAX_WORDS).map_while(|i| start.checked_add(8 * i)) {
            let Some(ip) = self.word(slot) else {
                break;
            };
            if slot >= self.window.limit() || tries >= MAX_TRIES {
                break;
            }
            if !self.is_code(ip) {
                continue;
            }
            // A signal's handler returns to where no call is.
            let signal = self.is_sigreturn(ip);
            if !signal && !self.follows_call(ip) {
                continue;
            }
            tries += 1;
            let Some(next) = self.caller_at(machine, slot, ip, rule) else {
                continue;
            };
            if rule.is_none() && self.calls(ip, machine.lookup()) {
                return Some(next);
            }
            let (ahead, whole) = self.look_ahead(next);
            if whole || signal && ahead > 0 {
                return Some(next);
            }
            if ahead > best.map_or(0, |(most, _)| most) {
                best = Some((ahead, next));
            }
        }
        best.map(|(_, next)| next)
    }

    /// The caller's frame if its return address is the word at `slot`.
    fn caller_at(
        &mut self,
        machine: &Machine,
        slot: u64,
        ip: u64,
        rule: Option<(i64, [rule::Place; 6])>,
    ) -> Option<Machine> {
        if let Some((return_at, places)) = rule {
            let cfa = slot.wrapping_sub(return_at.cast_unsigned());
            let Unwinder { memory, window, .. } = self;
            let mut word = |addr| window.word(memory, addr);
            let next = rule::apply(machine, cfa, return_at, &places, &mut word).ok()?;
            return (next.sp() > machine.sp()).then_some(next);
        }
        let mut next = *machine;
        next.ip = ip;
        next.exact = false;
        next.regs[RSP] = Some(slot.checked_add(8)?);
        Some(next)
    }

    /// How many frames the tables lead on from here, and whether to an end that makes sense.
    fn look_ahead(&mut self, mut machine: Machine) -> (usize, bool) {
        for ahead in 0..MAX_AHEAD {
            match self.step(&machine) {
                // The way some threads begin, and what is left of anything.
                Ok(next) if next.ip == 0 => return (ahead, false),
                Ok(next)
                    if self.is_code(next.lookup())
                        && (next.exact
                            || next.sp() > machine.sp() && self.follows_call(next.ip)) =>
                {
                    machine = next;
                }
                Err(StackEnd::Root) => return (ahead + 1, true),
                // Not less than what is found, but nothing is proved.
                Err(StackEnd::NoUnwindInfo | StackEnd::UnknownRegister) => return (ahead, false),
                _ => return (0, false),
            }
        }
        (MAX_AHEAD, true)
    }

    /// Is the instruction before `ip` a call of the function that `addr` is in, as far as can be told: of one
    /// that begins a little before it?
    fn calls(&mut self, ip: u64, addr: u64) -> bool {
        let mut bytes = [0; 5];
        if !self
            .pages
            .read(&self.memory, ip.saturating_sub(5), &mut bytes)
        {
            return false;
        }
        let [0xe8, distance @ ..] = bytes else {
            return false;
        };
        let target = ip.wrapping_add_signed(i64::from(i32::from_le_bytes(distance)));
        (target..target.saturating_add(MAX_FUNCTION)).contains(&addr)
            && self
                .mapping(addr)
                .is_some_and(|mapping| mapping.holds(target))
    }

    /// Is the instruction before `ip` a call?
    fn follows_call(&mut self, ip: u64) -> bool {
        let mut bytes = [0; 7];
        let Some(at) = ip.checked_sub(7) else {
            return false;
        };
        if !self.pages.read(&self.memory, at, &mut bytes) {
            return false;
        }
        is_call(bytes)
    }
}

/// Do these bytes end with a call? Of register and memory forms (`ff /2`) the lengths without and with an offset
/// are told by the second byte, as the processor's manual has it.
fn is_call(b: [u8; 7]) -> bool {
    let form = |at: usize, modes: std::ops::RangeInclusive<u8>, sib: bool| {
        let (op, modrm) = (b[at], b[at + 1]);
        op == 0xff
            && modrm >> 3 & 7 == 2
            && modes.contains(&(modrm >> 6))
            && (modrm >> 6 == 3 || (modrm & 7 == 4) == sib)
    };
    b[2] == 0xe8
        || form(5, 0..=0, false) && b[6] & 7 != 5
        || form(5, 3..=3, false)
        || form(4, 0..=0, true)
        || form(4, 1..=1, false)
        || form(3, 1..=1, true)
        || form(1, 2..=2, false)
        || b[1] == 0xff && b[2] == 0x15
        || b[0] == 0xff && b[1] >> 3 & 7 == 2 && b[1] >> 6 == 2 && b[1] & 7 == 4
}

#[cfg(test)]
mod tests {
    use super::is_call;

    #[test]
    fn calls_are_known_by_their_bytes() {
        let calls: [&[u8]; 8] = [
            &[0xe8, 1, 2, 3, 4],
            &[0xff, 0xd0],
            &[0xff, 0x10],
            &[0xff, 0x14, 0xc8],
            &[0xff, 0x50, 0x18],
            &[0xff, 0x54, 0x24, 8],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0xff, 0x90, 0, 1, 0, 0],
        ];
        for call in calls {
            let mut bytes = [0x90; 7];
            bytes[7 - call.len()..].copy_from_slice(call);
            assert!(is_call(bytes), "{call:x?}");
        }
        assert!(!is_call([0x90; 7]));
        assert!(!is_call([0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0]));
    }
}
