//! Goroutines' calls: from the stack's words to functions, files and lines.
//!
//! Each program counter is looked up once, and goroutines with the same calls share one stack: of a hundred
//! thousand there are rarely more than a few hundred.

use std::{collections::HashMap, sync::Arc, time::Instant};

use super::{
    inventory::{GoFrame, GoStack, IoOperation},
    pclntab::{Function, Pclntab},
    words::{AddrMap, u64_at},
};
use crate::{event::Addr, inspect::memory::Memory};

/// Calls kept of one stack, the innermost.
const MAX_CALLS: usize = 128;
/// Calls kept of one stack once [`MAX_KEPT`] is reached.
const FEW_CALLS: usize = 4;
/// Addresses kept of all stacks together.
const MAX_KEPT: usize = 4 << 20;
/// Addresses that are remembered from one snapshot to the next.
const MAX_REMEMBERED: usize = 1 << 18;

/// Walks that are remembered.
const MAX_TRAILS: usize = 4096;

/// Number of a stack in [`Stacks`].
pub(super) type StackId = u32;

/// How far a walk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// To the beginning.
    Whole,
    /// As far as is kept.
    Cut,
    /// To the end of the words given.
    Short,
    /// To something that is no call.
    Broken,
}

/// What the calls say of the reason to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing that is known here.
    #[default]
    Other,
    /// In a semaphore of this kind.
    Semaphore(Semaphore),
    /// In the network poller.
    Poll(IoOperation),
    /// In `time.Sleep`.
    Sleep,
}

/// What a semaphore belongs to, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Semaphore {
    Mutex,
    /// The mutex at the beginning of an RWMutex.
    Writers,
    /// A writer waits for readers to leave.
    Writer,
    Reader,
    WaitGroup,
    Other,
}

/// A stack, and what it tells.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) stack: Arc<GoStack>,
    pub(super) doing: Doing,
    /// It does not lead back to its beginning, though all of it was there.
    pub(super) broken: bool,
}

/// What an address in the code means to a walk.
#[derive(Clone, Copy, Debug)]
struct Pc {
    size: u64,
    top: bool,
    /// A signal made it look as if it had been called: see [`INJECTED`].
    is_injected: bool,
}

/// Functions that a signal makes the goroutine begin with. Where calls leave the return address in a register, which
/// may be in use, its handler saves that on the stack, in so many bytes (`pushCall` in `runtime/signal_arm64.go`).
const INJECTED: [&str; 3] = [
    "runtime.asyncPreempt",
    "runtime.sigpanic",
    "runtime.debugCallV2",
];
const INJECTED_SIZE: usize = 16;

/// Where a walk is.
#[derive(Clone, Copy, Debug)]
struct Here {
    pc: u64,
    /// The stack pointer, counted from the first word.
    at: usize,
    /// Where it returns to, if that is not on the stack; or 0.
    link: u64,
}

/// A walk that came to the beginning: where each return address was, and what it was. A stack that begins with
/// the same call and has the same addresses there is the same stack.
#[derive(Debug)]
struct Trail {
    steps: Box<[(usize, u64)]>,
    id: StackId,
}

/// Everything that is known of addresses in the code of one program.
#[derive(Debug)]
pub(super) struct Stacks {
    table: Pclntab,
    pcs: AddrMap<Option<Pc>>,
    frames: AddrMap<Arc<[Arc<GoFrame>]>>,
    ids: HashMap<Box<[u64]>, StackId>,
    /// The last whole walk that began at each address: most goroutines wait where another does.
    trails: AddrMap<Trail>,
    steps: Vec<(usize, u64)>,
    /// The last walk began with what was in a register: words of the stack do not tell that it is the same again.
    by_register: bool,
    known: Vec<Known>,
    kept: usize,
    /// When to stop looking things up: a forged table can make that take long.
    until: Option<Instant>,
}

impl Stacks {
    pub(super) fn new(table: Pclntab) -> Stacks {
        Stacks {
            table,
            pcs: AddrMap::default(),
            frames: AddrMap::default(),
            ids: HashMap::new(),
            trails: AddrMap::default(),
            steps: Vec::new(),
            by_register: false,
            known: Vec::new(),
            kept: 0,
            until: None,
        }
    }

    /// Before a snapshot: numbers of an earlier one mean nothing any more.
    pub(super) fn begin(&mut self, until: Instant) {
        self.until = Some(until);
        if self.kept > MAX_REMEMBERED {
            self.ids.clear();
            self.trails.clear();
            self.known.clear();
            self.kept = 0;
        }
        if self.pcs.len() > MAX_REMEMBERED || self.frames.len() > MAX_REMEMBERED {
            self.pcs.clear();
            self.frames.clear();
        }
    }

    /// The stack of this number.
    pub(super) fn get(&self, id: StackId) -> Option<&Known> {
        self.known.get(id as usize)
    }

    /// The stack, if it is the one that was walked last from this address.
    pub(super) fn again(&self, pc: u64, link: u64, words: &[u8]) -> Option<StackId> {
        let trail = self.trails.get(&pc).filter(|_| link == 0)?;
        let mut steps = trail.steps.iter();
        let same = steps.all(|(at, caller)| u64_at(words, *at) == Some(*caller));
        same.then_some(trail.id)
    }

    /// Keeps the last walk, which led to this stack, for [`Stacks::again`].
    pub(super) fn remember(&mut self, pc: u64, id: StackId) {
        let has_room = self.trails.len() < MAX_TRAILS || self.trails.contains_key(&pc);
        if has_room && !self.by_register {
            let steps = self.steps.as_slice().into();
            self.trails.insert(pc, Trail { steps, id });
        }
    }

    /// Walks from the innermost call outwards. `words` are the stack's bytes from `sp` on; `link` is where the call
    /// returns to if it has not put that on the stack yet, or 0.
    pub(super) fn walk(
        &mut self,
        memory: &dyn Memory,
        (pc, link): (u64, u64),
        words: &[u8],
        calls: &mut Vec<u64>,
    ) -> Walk {
        calls.clear();
        self.steps.clear();
        self.by_register = link != 0;
        let most = if self.kept > MAX_KEPT {
            FEW_CALLS
        } else {
            MAX_CALLS
        };
        let has_link = self.table.machine().has_link_register();
        let mut here = Here { pc, at: 0, link };
        loop {
            let Some(found) = self.pc(memory, here.pc) else {
                return Walk::Broken;
            };
            if found.top {
                return Walk::Whole;
            }
            if calls.len() == most {
                return Walk::Cut;
            }
            calls.push(here.pc);
            let next = if has_link {
                self.out_by_link(memory, here, found, words)
            } else {
                self.out(here, found, words)
            };
            match next {
                Ok(next) => here = next,
                Err(end) => return end,
            }
        }
    }

    /// To the caller, where a call puts the return address on the stack, before the frame.
    fn out(&mut self, here: Here, found: Pc, words: &[u8]) -> Result<Here, Walk> {
        let back = usize::try_from(found.size).ok();
        let back = back.and_then(|size| here.at.checked_add(size));
        let back = back.ok_or(Walk::Broken)?;
        let caller = self.word(words, back)?;
        Ok(Here {
            pc: caller,
            at: back + 8,
            link: 0,
        })
    }

    /// To the caller, where the return address is in a register until the function puts it at the end of its frame
    /// (`unwinder.resolveInternal` and `next` in `runtime/traceback.go`).
    fn out_by_link(
        &mut self,
        memory: &dyn Memory,
        here: Here,
        found: Pc,
        words: &[u8],
    ) -> Result<Here, Walk> {
        let is_leaf = found.size == 0 && here.link != 0;
        let caller = if is_leaf {
            here.link
        } else {
            self.word(words, here.at)?
        };
        let size = usize::try_from(found.size).ok();
        let mut at = size.and_then(|size| here.at.checked_add(size));
        let mut link = 0;
        if let Some(saved) = at.filter(|_| found.is_injected) {
            let word = self.word(words, saved)?;
            at = saved.checked_add(INJECTED_SIZE);
            if self.pc(memory, caller).is_some_and(|pc| pc.size == 0) {
                link = word;
            }
        }
        let at = at.ok_or(Walk::Broken)?;
        // Neither the place nor the stack would be another.
        if caller == here.pc && at == here.at && link == here.link {
            return Err(Walk::Broken);
        }
        Ok(Here {
            pc: caller,
            at,
            link,
        })
    }

    /// A word of the stack that the walk depends on.
    fn word(&mut self, words: &[u8], at: usize) -> Result<u64, Walk> {
        let word = u64_at(words, at).ok_or(Walk::Short)?;
        self.steps.push((at, word));
        Ok(word)
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn pc(&mut self, memory: &dyn Memory, pc: u64) -> Option<Pc> {
        if let Some(known) = self.pcs.get(&pc) {
            return *known;
        }
        if self.is_late() {
            return None;
        }
        let found = self.table.function(memory, pc).and_then(|function| {
            let size = self.table.frame_size(memory, &function, pc);
            let top = function.top;
            (top || size.is_some()).then(|| Pc {
                size: size.unwrap_or_default(),
                top,
                is_injected: self.table.is_named(memory, &function, &INJECTED),
            })
        });
        // A hostile stack is full of addresses that are none.
        if found.is_some() || self.pcs.len() < MAX_REMEMBERED {
            self.pcs.insert(pc, found);
        }
        found
    }

    /// The number of the stack with these calls.
    pub(super) fn intern(&mut self, memory: &dyn Memory, calls: &[u64], end: Walk) -> StackId {
        // A stack that was cut differs from a whole one with the same calls.
        let mut key = calls.to_vec();
        key.push(end as u64);
        if let Some(id) = self.ids.get(key.as_slice()) {
            return *id;
        }
        let mut frames = Vec::new();
        for pc in calls {
            frames.extend(self.frames(memory, *pc).iter().map(Arc::clone));
        }
        let id = self.known.len() as StackId;
        self.kept += key.len();
        self.known.push(Known {
            doing: doing(&frames),
            stack: Arc::new(GoStack {
                frames,
                cut: end != Walk::Whole,
            }),
            broken: matches!(end, Walk::Broken | Walk::Short),
        });
        self.ids.insert(key.into(), id);
        id
    }

    /// The places that a return address stands for, the innermost first.
    pub(super) fn frames(&mut self, memory: &dyn Memory, pc: u64) -> Arc<[Arc<GoFrame>]> {
        if let Some(frames) = self.frames.get(&pc) {
            return Arc::clone(frames);
        }
        if self.is_late() {
            return Arc::new([]);
        }
        let frames: Arc<[Arc<GoFrame>]> = match self.table.function(memory, pc) {
            Some(function) => self.named(memory, &function, pc),
            None => Arc::new([]),
        };
        self.frames.insert(pc, Arc::clone(&frames));
        frames
    }

    fn named(&mut self, memory: &dyn Memory, function: &Function, pc: u64) -> Arc<[Arc<GoFrame>]> {
        // The call lies before the address that it returns to; a function that did not begin has none.
        let call = if pc > function.entry { pc - 1 } else { pc };
        let places = self.table.places(memory, function, call);
        let frame = |place: super::pclntab::Place| {
            Arc::new(GoFrame {
                function: place.function,
                file: place.file,
                line: place.line,
                inlined: place.inlined,
                addr: Addr(pc),
            })
        };
        places.into_iter().map(frame).collect()
    }

    /// The functions of these names, as [`Pclntab::named`].
    pub(super) fn functions(
        &mut self,
        memory: &dyn Memory,
        names: &[&str],
    ) -> Vec<Option<Function>> {
        self.table.named(memory, names)
    }

    /// Hands over the calls of a stack, the innermost first, and the table to look them up in.
    pub(super) fn with_calls<T: Default>(
        &mut self,
        id: StackId,
        look: impl FnOnce(&mut Pclntab, &[u64]) -> T,
    ) -> T {
        let Some(known) = self.known.get(id as usize).filter(|_| !self.is_late()) else {
            return T::default();
        };
        let mut calls: Vec<u64> = known
            .stack
            .frames
            .iter()
            .map(|frame| frame.addr.0)
            .collect();
        // Those that are inlined into each other share one.
        calls.dedup();
        look(&mut self.table, &calls)
    }

    /// The name of the function at an address.
    pub(super) fn function(&mut self, memory: &dyn Memory, pc: u64) -> Option<Arc<str>> {
        let frames = self.frames(memory, pc);
        frames.last().map(|frame| frame.function.as_str().into())
    }
}

/// What a goroutine with these calls does.
fn doing(frames: &[Arc<GoFrame>]) -> Doing {
    let names = || frames.iter().map(|frame| frame.function.as_str());
    // What waits is among the innermost calls.
    for (i, name) in names().enumerate().take(12) {
        match name {
            "runtime.netpollblock" => return Doing::Poll(poll(names().skip(i))),
            "time.Sleep" => return Doing::Sleep,
            "runtime.semacquire1" => return Doing::Semaphore(semaphore(names().skip(i + 1))),
            _ => {}
        }
    }
    Doing::Other
}

/// Waits to write have a call that says so; all others read.
fn poll<'a>(mut names: impl Iterator<Item = &'a str>) -> IoOperation {
    let writes = |name: &str| {
        name.ends_with(".waitWrite") || name.ends_with(".WaitWrite") || name.ends_with(".Write")
    };
    if names.by_ref().take(6).any(writes) {
        IoOperation::Write
    } else {
        IoOperation::Read
    }
}

/// What the semaphore belongs to, by the calls outwards from `semacquire1`.
fn semaphore<'a>(names: impl Iterator<Item = &'a str>) -> Semaphore {
    let mut names = names.take(8).filter_map(|name| {
        name.strip_prefix("internal/sync.")
            .or_else(|| name.strip_prefix("sync."))
    });
    let mut inner = None;
    for name in names.by_ref() {
        match name {
            "(*Mutex).lockSlow" | "(*Mutex).Lock" => inner = Some(Semaphore::Mutex),
            "(*RWMutex).Lock" if inner.is_some() => return Semaphore::Writers,
            "(*RWMutex).Lock" => return Semaphore::Writer,
            "(*RWMutex).RLock" => return Semaphore::Reader,
            "(*WaitGroup).Wait" => return Semaphore::WaitGroup,
            _ => {}
        }
    }
    inner.unwrap_or(Semaphore::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semaphores_are_told_by_their_callers() {
        let of = |names: &[&str]| semaphore(names.iter().copied());
        let park = "sync.runtime_SemacquireMutex";
        assert_eq!(
            of(&[
                park,
                "sync.(*Mutex).lockSlow",
                "sync.(*Mutex).Lock",
                "main.f"
            ]),
            Semaphore::Mutex
        );
        assert_eq!(
            of(&[
                "internal/sync.runtime_SemacquireMutex",
                "internal/sync.(*Mutex).lockSlow",
                "internal/sync.(*Mutex).Lock",
                "sync.(*Mutex).Lock",
                "sync.(*RWMutex).Lock",
            ]),
            Semaphore::Writers
        );
        assert_eq!(of(&[park, "sync.(*RWMutex).Lock"]), Semaphore::Writer);
        assert_eq!(
            of(&["sync.runtime_SemacquireRWMutexR", "sync.(*RWMutex).RLock"]),
            Semaphore::Reader
        );
        assert_eq!(
            of(&["sync.runtime_Semacquire", "sync.(*WaitGroup).Wait"]),
            Semaphore::WaitGroup
        );
        assert_eq!(of(&["internal/poll.runtime_Semacquire"]), Semaphore::Other);
    }
}
