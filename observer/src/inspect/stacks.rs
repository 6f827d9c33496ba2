//! The stack of a blocked thread, on demand.
//!
//! [`Inspector::stack`] takes a thread's registers, or reads them from `/proc`, reads its stack's memory and
//! unwinds it. Nothing is stopped: a thread that ran meanwhile is found out by the kernel's count of its
//! switches, and looked at again. A stack is kept as long as the count is the same, since the thread then still
//! sleeps in the same place. [`Inspector::symbolize`] names it: later, and only if somebody looks.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    code::{Code, ModuleId},
    data,
    maps::Mapping,
    memory::ProcessMemory,
    perfmap::PerfMap,
    registers::{self, Registers, Snapshot},
    unwind::{Found, RawFrame, RawStack, StackEnd, Unwinder},
};
use crate::event::{Addr, Frame, Stack};

/// Times a thread that moves is looked at.
const TRIES: usize = 3;
/// Processes that are kept; the one that was asked for least recently goes.
const MAX_PROCESSES: usize = 64;
/// Stacks that are kept of one process.
const MAX_STACKS: usize = 4_096;
/// Stacks with names that are shared by all threads that wait in the same place; beyond it all are forgotten.
const MAX_SHARED: usize = 1_024;
/// Mappings are read again after this long.
const FRESH: Duration = Duration::from_millis(200);
/// And after this long where they are so many, a stack a thread, that it takes more than a hundredth of the time.
const FRESH_MANY: Duration = Duration::from_secs(1);
/// A map of run-time compiled code is read again after this long, if an address is not in it.
const FRESH_NAMES: Duration = Duration::from_secs(5);
/// Neither before this many times what reading it took.
const PATIENCE: u32 = 20;
const MORE_PATIENCE: u32 = 100;

/// Where a thread is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedStack {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What it left user mode with; `None`: it runs.
    pub registers: Option<Registers>,
    /// Its frames, innermost first. What a frame has on the stack lies from its `sp` to that of the next one.
    pub frames: Vec<RawFrame>,
    /// How the stack ended.
    pub end: StackEnd,
    /// The thread ran while it was looked at, each time: frames may be of different moments.
    pub torn: bool,
}

impl BlockedStack {
    fn new(pid: u32, tid: u32, registers: Registers, raw: RawStack) -> BlockedStack {
        BlockedStack {
            pid,
            tid,
            registers: Some(registers),
            frames: raw.frames,
            end: raw.end,
            torn: false,
        }
    }

    fn running(pid: u32, tid: u32) -> BlockedStack {
        BlockedStack {
            pid,
            tid,
            registers: None,
            frames: Vec::new(),
            end: StackEnd::Running,
            torn: false,
        }
    }

    /// Is it the whole stack, as the tables give it, without a gap?
    pub fn is_whole(&self) -> bool {
        let sure = |frame: &RawFrame| matches!(frame.found, Found::Registers | Found::Tables);
        self.end == StackEnd::Root && !self.torn && self.frames.iter().all(sure)
    }
}

/// One process that is looked at.
#[derive(Debug)]
struct Process {
    unwinder: Unwinder<ProcessMemory>,
    /// When the mappings are to be read again.
    stale_at: Instant,
    /// By the start of the mapping.
    modules: HashMap<u64, Option<ModuleId>>,
    /// With the time when it is to be read again.
    perf: Option<(PerfMap, Instant)>,
    /// By thread: the count of switches that the stack is of.
    stacks: HashMap<u32, Arc<BlockedStack>>,
    used: u64,
}

impl Process {
    fn open(pid: u32) -> io::Result<Process> {
        let begun = Instant::now();
        Ok(Process {
            unwinder: Unwinder::of(pid)?,
            stale_at: stale_at(begun, FRESH),
            modules: HashMap::new(),
            perf: None,
            stacks: HashMap::new(),
            used: 0,
        })
    }

    /// Reads the mappings again.
    fn refresh(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        if self.unwinder.refresh()? {
            self.modules.clear();
            self.stacks.clear();
            self.perf = None;
        }
        self.stale_at = stale_at(begun, FRESH);
        Ok(())
    }

    fn unwind(&mut self, registers: &Registers) -> io::Result<RawStack> {
        let raw = self.unwinder.unwind(registers);
        let suspect = matches!(
            raw.end,
            StackEnd::NotCode | StackEnd::NoUnwindInfo | StackEnd::UnreadableMemory
        );
        if !suspect {
            return Ok(raw);
        }
        // A library may have been loaded since, or this very stack mapped, which is no other code.
        self.refresh()?;
        Ok(self.unwinder.unwind(registers))
    }

    /// A name from the process's own map, for code that is in no file.
    fn made_here(&mut self, pid: u32, addr: u64) -> Option<Frame> {
        let begun = Instant::now();
        for again in [false, true] {
            if again && self.perf.as_ref().is_some_and(|(_, stale)| begun < *stale) {
                break;
            }
            if again || self.perf.is_none() {
                let map = PerfMap::of(pid);
                self.perf = Some((map, stale_at(begun, FRESH_NAMES)));
            }
            if let Some((name, offset)) = self.perf.as_ref().and_then(|(map, _)| map.find(addr)) {
                return Some(Frame {
                    name: Some(Arc::clone(name)),
                    offset: Some(offset),
                    ..Frame::default()
                });
            }
        }
        None
    }
}

/// When something that was read from `begun` until now is to be read again: never so often that reading it
/// takes a large share of the time.
fn stale_at(begun: Instant, at_least: Duration) -> Instant {
    let took = begun.elapsed();
    let rather = (took * MORE_PATIENCE).min(FRESH_MANY);
    begun + at_least.max(rather).max(took * PATIENCE)
}

/// Of ten thousand threads of a pool nearly all wait in the same place: its frames are there once, as long as somebody
/// has them. By a hash of their addresses.
#[derive(Debug, Default)]
struct Shared(HashMap<u64, Weak<[Frame]>>);

impl Shared {
    fn one(&mut self, frames: Vec<Frame>) -> Arc<[Frame]> {
        let mut hasher = DefaultHasher::new();
        for frame in &frames {
            frame.addr.0.hash(&mut hasher);
        }
        let hash = hasher.finish();
        if let Some(known) = self.0.get(&hash).and_then(Weak::upgrade)
            && known[..] == frames[..]
        {
            return known;
        }
        let frames: Arc<[Frame]> = frames.into();
        if self.0.len() >= MAX_SHARED {
            self.0.clear();
        }
        self.0.insert(hash, Arc::downgrade(&frames));
        frames
    }
}

/// Looks at blocked threads. It holds what it learned of processes and their files, all of it bounded.
#[derive(Debug, Default)]
pub struct Inspector {
    processes: HashMap<u32, Process>,
    code: Code,
    clock: u64,
    shared: Shared,
}

impl Inspector {
    /// The stack of thread `tid` of process `pid`. `given`: its registers with the count of switches, as
    /// [`crate::capture::registers`] gives them; without them, or if the thread has moved since, they are read
    /// from `/proc`, which does not tell `rbp`.
    ///
    /// # Errors
    /// The kernel's: the thread is gone, or no permission.
    pub fn stack(
        &mut self,
        pid: u32,
        tid: u32,
        given: Option<Registers>,
    ) -> io::Result<Arc<BlockedStack>> {
        let mut given = given.filter(|registers| registers.switches.is_some());
        let mut last = None;
        for _ in 0..TRIES {
            let registers = match given.take() {
                Some(registers) => registers,
                None => match registers::from_proc(pid, tid)? {
                    Snapshot::Blocked(registers) => registers,
                    Snapshot::Running => return Ok(BlockedStack::running(pid, tid).into()),
                },
            };
            if let Some(known) = self.known(pid, tid, &registers) {
                return Ok(known);
            }
            let stack = self.stack_at(pid, tid, &registers)?;
            if Some(registers::switches(pid, tid)?) == registers.switches {
                return Ok(self.keep(stack));
            }
            last = Some(stack);
        }
        let mut stack = last.unwrap_or_else(|| BlockedStack::running(pid, tid));
        stack.torn = true;
        Ok(stack.into())
    }

    /// The stack that these registers lead to, without a look whether the thread has moved, and not kept: for
    /// who looks at many threads and reads all their counts of switches once more at the end.
    ///
    /// # Errors
    /// The kernel's: the process is gone, or no permission.
    pub fn stack_at(
        &mut self,
        pid: u32,
        tid: u32,
        registers: &Registers,
    ) -> io::Result<BlockedStack> {
        let raw = self.process(pid)?.unwind(registers)?;
        Ok(BlockedStack::new(pid, tid, *registers, raw))
    }

    /// Keeps a stack of which it is known that its thread has not moved since its registers were read.
    pub fn keep(&mut self, stack: BlockedStack) -> Arc<BlockedStack> {
        let stack = Arc::new(stack);
        if let Some(process) = self.processes.get_mut(&stack.pid) {
            if process.stacks.len() >= MAX_STACKS {
                process.stacks.clear();
            }
            process.stacks.insert(stack.tid, Arc::clone(&stack));
        }
        stack
    }

    /// The stack that is kept for a thread, if these registers are still those of the same wait.
    pub fn known(
        &mut self,
        pid: u32,
        tid: u32,
        registers: &Registers,
    ) -> Option<Arc<BlockedStack>> {
        let known = self.processes.get(&pid)?.stacks.get(&tid)?;
        let before = known.registers.as_ref()?;
        let same = registers.switches.is_some()
            && (before.switches, before.sp, before.ip)
                == (registers.switches, registers.sp, registers.ip);
        // A better look is worth a second one.
        (same && (before.bp.is_some() || registers.bp.is_none())).then(|| Arc::clone(known))
    }

    /// The functions of a stack with source lines, as an event has them.
    pub fn symbolize(&mut self, stack: &BlockedStack) -> Stack {
        if self.code.trim() {
            for process in self.processes.values_mut() {
                process.modules.clear();
            }
        }
        let mut user = Vec::with_capacity(stack.frames.len());
        for frame in &stack.frames {
            self.name(stack.pid, frame, &mut user);
        }
        Stack {
            user: self.shared.one(user),
            kernel: Arc::default(),
            end: Some(if stack.torn {
                StackEnd::Torn
            } else {
                stack.end
            }),
        }
    }

    /// The function at an address of a process, not counting those that were inlined there, and the distance
    /// from its start.
    pub fn function(&mut self, pid: u32, addr: u64) -> Option<(Arc<str>, u64)> {
        self.process(pid).ok()?;
        let process = self.processes.get_mut(&pid)?;
        let frame = match module_of(process, &mut self.code, pid, addr) {
            Some((module, at)) => self.code.frames(module, at).last().cloned(),
            None => process.made_here(pid, addr),
        }?;
        Some((frame.name?, frame.offset?))
    }

    /// The file that the data at an address of a process was loaded from, and the address in it.
    pub fn data(&mut self, pid: u32, addr: u64) -> Option<(Mapping, u64)> {
        let process = self.process(pid).ok()?;
        let mappings = process.unwinder.mappings();
        let file = data::file_of(mappings, addr)?.clone();
        let code = mappings
            .iter()
            .find(|mapping| mapping.executable && mapping.same_file(&file))?
            .start;
        let bias = code.wrapping_sub(process.unwinder.in_file(code)?);
        Some((file, addr.wrapping_sub(bias)))
    }

    /// Where a process can be written to, for the check of an address.
    pub fn mapping(&mut self, pid: u32, addr: u64) -> Option<&Mapping> {
        self.process(pid).ok()?.unwinder.mapping(addr)
    }

    /// Reads files of this size at most at the same time for names.
    pub fn set_budget(&mut self, bytes: u64) {
        self.code.set_budget(bytes);
    }

    /// Sizes of the files that were read for names.
    pub fn bytes(&self) -> u64 {
        self.code.bytes()
    }

    /// Gives back what was read for names, if none were asked for lately. True: there was something.
    pub fn rest(&mut self) -> bool {
        self.code.rest()
    }

    /// Forgets a process that has ended.
    pub fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    /// Appends the functions at a frame, innermost first.
    fn name(&mut self, pid: u32, raw: &RawFrame, out: &mut Vec<Frame>) {
        let (from, addr) = (out.len(), raw.lookup());
        if let Some(process) = self.processes.get_mut(&pid) {
            match module_of(process, &mut self.code, pid, addr) {
                Some((module, at)) => out.extend(self.code.frames(module, at).iter().cloned()),
                None => out.extend(process.made_here(pid, addr)),
            }
        }
        if out.len() == from {
            out.push(Frame::default());
        }
        for (i, frame) in out[from..].iter_mut().enumerate() {
            frame.addr = Addr(raw.ip);
            // They were looked up inside of the call; the offset is that of the address.
            frame.offset = frame.offset.map(|at| at.saturating_add(raw.ip - addr));
            // The gap is in front of the innermost of them.
            frame.scanned = i == 0 && raw.found == Found::Scan;
        }
    }

    fn process(&mut self, pid: u32) -> io::Result<&mut Process> {
        self.clock += 1;
        if !self.processes.contains_key(&pid) {
            if self.processes.len() >= MAX_PROCESSES
                && let Some(oldest) = self
                    .processes
                    .iter()
                    .min_by_key(|(_, process)| process.used)
            {
                let oldest = *oldest.0;
                self.processes.remove(&oldest);
            }
            self.processes.insert(pid, Process::open(pid)?);
        }
        let process = self
            .processes
            .get_mut(&pid)
            .ok_or(io::ErrorKind::NotFound)?;
        process.used = self.clock;
        if Instant::now() > process.stale_at {
            process.refresh()?;
        }
        Ok(process)
    }
}

/// The file that the code at an address is from, and the address in it.
fn module_of(
    process: &mut Process,
    code: &mut Code,
    pid: u32,
    addr: u64,
) -> Option<(ModuleId, u64)> {
    let at = process.unwinder.in_file(addr)?;
    let mapping = process.unwinder.mapping(addr)?;
    let memory = process.unwinder.memory();
    let module = *process
        .modules
        .entry(mapping.start)
        .or_insert_with(|| code.module(pid, mapping, memory).ok());
    Some((module?, at))
}
