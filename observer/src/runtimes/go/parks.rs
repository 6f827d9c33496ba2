//! Where a Go runtime parks goroutines and makes them ready: places for probes, and what they mean.
//!
//! A probe on a function's first instruction would be single-stepped, which costs twelve times as much as one
//! that the kernel carries out itself. Behind the check of the stack Go 1.21 and later have such a one, and the
//! arguments are still in their registers. Never at a return: that would break stacks that move.

use std::sync::Arc;

use observer_common::goroutine::{REASONS, Spec, role};

use super::{
    code::Code,
    image::Image,
    machine::Machine,
    pclntab::Function,
    target::{Refused, Target},
};
use crate::event::{Kind, LockClass};

/// The functions, and what a probe in each means: those that end a wait first.
const FUNCTIONS: [(&str, u32); 3] = [
    ("runtime.netpollready", role::POLL),
    ("runtime.ready", role::READY),
    ("runtime.gopark", role::PARK),
];
/// `push %rbp`: the kernel need not single-step it.
const PUSH: u8 = 0x55;
/// A channel ends with its lock.
const LOCK: usize = 8;

/// Places in a Go process that tell of its goroutines' waits.
#[derive(Clone, Debug)]
pub struct Parks {
    /// The release that it was built by.
    pub release: String,
    /// Offsets in the program's file, and what each means.
    pub places: Vec<(u64, u32)>,
    /// Where fields lie; without a role.
    pub spec: Spec,
    /// The texts of reasons, by number.
    reasons: Vec<Arc<str>>,
    /// Where a channel has its lock.
    lock: u64,
}

/// What a wait is by its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The reason in the runtime's words.
    pub reason: Arc<str>,
    /// What the goroutine waits in.
    pub kind: Kind,
    /// The channel that it waits for, if it is one.
    pub channel: Option<u64>,
}

impl Parks {
    /// Finds the places.
    ///
    /// # Errors
    /// Why the process's goroutines cannot be followed in this way.
    pub fn find(pid: u32) -> Result<Parks, Refused> {
        let mut target = Target::open(pid)?;
        let image = Image::of(pid)?;
        let release = target.release.text.clone();
        let odd = |what: &str| Refused::Odd(format!("{release}: {what}"));
        if image.machine != Machine::X86_64 {
            return Err(odd("where probes may stand on arm64 is not known"));
        }
        if target.layout_of != target.release.minor && target.debug_info != Ok(true) {
            return Err(odd("where its runtime has its fields is not known"));
        }
        let curg = target.layout.m.curg;
        let curg = curg.ok_or_else(|| odd("where a thread has its goroutine is not known"))?;
        if target.reasons.is_empty() {
            return Err(odd("the texts of the reasons to wait were not found"));
        }
        let names = FUNCTIONS.map(|(name, _)| name);
        let functions = target.stacks.functions(&target.memory, &names);
        let mut places = Vec::new();
        for ((name, role), function) in FUNCTIONS.iter().zip(functions) {
            let function = function.ok_or_else(|| odd(&format!("it has no function {name}")))?;
            let at = place(&target, &function)
                .ok_or_else(|| odd(&format!("no cheap place for a probe in {name}")))?;
            let offset = image
                .offset(at)
                .ok_or_else(|| odd(&format!("{name} is in no section of its file")))?;
            places.push((offset, *role));
        }
        let followed = target.reasons.iter().take(REASONS as usize).enumerate();
        let followed = followed.filter(|(_, reason)| kind(reason).is_some());
        let layout = &target.layout;
        Ok(Parks {
            places,
            spec: Spec {
                reasons: followed.fold(0, |bits, (number, _)| bits | 1 << number),
                role: 0,
                goid: layout.g.goid as u32,
                m: layout.g.m as u32,
                curg: curg as u32,
                rg: layout.poll_desc.rg as u32,
                wg: layout.poll_desc.wg as u32,
            },
            lock: layout.hchan.size.saturating_sub(LOCK) as u64,
            reasons: target.reasons,
            release,
        })
    }

    /// What a wait means: `lock` is what the runtime gave back when the goroutine was parked.
    pub fn meaning(&self, reason: u32, lock: u64) -> Option<Meaning> {
        let reason = self.reasons.get(reason as usize)?;
        let is_channel = reason.starts_with("chan ") && lock != 0;
        Some(Meaning {
            kind: kind(reason)?,
            channel: is_channel.then(|| lock.wrapping_sub(self.lock)),
            reason: Arc::clone(reason),
        })
    }
}

impl Meaning {
    /// The class of the channel.
    pub const CLASS: LockClass = LockClass::GoChan;
}

/// What a goroutine waits in; none: waits of the runtime's own, and those that never end.
fn kind(reason: &str) -> Option<Kind> {
    Some(match reason {
        "chan receive" | "chan send" | "select" => Kind::GoroutineChannel,
        "sync.Mutex.Lock" | "sync.RWMutex.Lock" | "sync.RWMutex.RLock" => Kind::GoroutineMutex,
        // Of mutexes too, before Go 1.20.
        "semacquire" | "sync.WaitGroup.Wait" => Kind::Semaphore,
        "sync.Cond.Wait" => Kind::Condvar,
        "sleep" => Kind::Sleep,
        "IO wait" => Kind::Io,
        _ => return None,
    })
}

/// The address of the cheap instruction.
fn place(target: &Target, function: &Function) -> Option<u64> {
    let code = Code::of(&target.memory, function)?;
    Some(function.entry + cheap(code.bytes())? as u64)
}

/// Where the first cheap instruction is, with the arguments still in their registers.
fn cheap(code: &[u8]) -> Option<usize> {
    /// `cmp $'r',%ecx` and a short `je`: a function of Go 1.21 that saves nothing begins with its first question.
    const COMPARE_MODE: &[u8] = &[0x83, 0xf9, b'r'];
    const JUMP: u8 = 0x74;
    let at = behind_check(code)?;
    let rest = code.get(at..)?;
    match rest.strip_prefix(COMPARE_MODE) {
        Some([JUMP, ..]) => Some(at + COMPARE_MODE.len()),
        _ => (rest.first() == Some(&PUSH)).then_some(at),
    }
}

/// Where a function goes on once it has seen that its stack is large enough.
fn behind_check(code: &[u8]) -> Option<usize> {
    /// `lea x(%rsp),%r12`, in two lengths; `cmp 0x10(%r14),%r12` and `cmp 0x10(%r14),%rsp`.
    const SMALL: &[u8] = &[0x4c, 0x8d, 0x64, 0x24];
    const LARGE: &[u8] = &[0x4c, 0x8d, 0xa4, 0x24];
    const COMPARE_FRAME: &[u8] = &[0x4d, 0x3b, 0x66, 0x10];
    const COMPARE: &[u8] = &[0x49, 0x3b, 0x66, 0x10];
    let (at, compare) = if code.starts_with(SMALL) {
        (SMALL.len() + 1, COMPARE_FRAME)
    } else if code.starts_with(LARGE) {
        (LARGE.len() + 4, COMPARE_FRAME)
    } else if code.starts_with(COMPARE) {
        (0, COMPARE)
    } else {
        // It has no check.
        return Some(0);
    };
    let rest = code.get(at..)?.strip_prefix(compare)?;
    // `jbe`, near or far.
    let jump = match rest {
        [0x76, ..] => 2,
        [0x0f, 0x86, ..] => 6,
        _ => return None,
    };
    Some(at + compare.len() + jump)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_behind_the_check_of_the_stack() {
        let near = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x40, 0x55, 0x48];
        assert_eq!(behind_check(&near), Some(6));
        let far = [0x49, 0x3b, 0x66, 0x10, 0x0f, 0x86, 1, 2, 3, 4, 0x55];
        assert_eq!(behind_check(&far), Some(10));
        let large = [
            0x4c, 0x8d, 0x64, 0x24, 0x80, 0x4d, 0x3b, 0x66, 0x10, 0x76, 1, 0x55,
        ];
        assert_eq!(behind_check(&large), Some(11));
        assert_eq!(behind_check(&[0x55, 0x48]), Some(0));
        assert_eq!(behind_check(&near[..4]), None);
        assert_eq!(behind_check(&large[..6]), None);
        assert_eq!(behind_check(&[]), Some(0));
    }

    #[test]
    fn only_cheap_instructions_are_taken() {
        assert_eq!(cheap(&[0x49, 0x3b, 0x66, 0x10, 0x76, 0x40, 0x55]), Some(6));
        assert_eq!(cheap(&[0x83, 0xf9, b'r', 0x74, 8]), Some(3));
        // `sub $0x18,%rsp`, as before Go 1.21.
        assert_eq!(
            cheap(&[0x49, 0x3b, 0x66, 0x10, 0x76, 0x40, 0x48, 0x83, 0xec, 0x18]),
            None
        );
        assert_eq!(cheap(&[0x83, 0xf9, b'r', 0x75]), None);
        assert_eq!(cheap(&[]), None);
    }

    #[test]
    fn waits_of_the_runtimes_own_are_left_out() {
        assert_eq!(kind("chan receive"), Some(Kind::GoroutineChannel));
        assert_eq!(kind("sync.Mutex.Lock"), Some(Kind::GoroutineMutex));
        for reason in [
            "GC worker (idle)",
            "force gc (idle)",
            "select (no cases)",
            "",
        ] {
            assert_eq!(kind(reason), None, "{reason}");
        }
    }
}
