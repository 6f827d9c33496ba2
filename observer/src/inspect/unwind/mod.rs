//! Stacks of blocked threads, from outside: the registers they left user mode with, their stack's memory, and
//! the tables that compilers write for exceptions (`.eh_frame`). No frame pointers are needed, and nothing is
//! stopped.
//!
//! | module | holds |
//! |---|---|
//! | [`image`] | a program or library in memory: where its code and its tables are |
//! | [`rule`] | what a table says of one address, and its application to a frame |
//! | [`pages`] | what was read of the process |
//! | [`fallback`] | what is done in code without tables |
//!
//! The process is not trusted: its memory may hold anything and may change at any time. Every count and length
//! is bounded, each frame must lie further out than the one before, and each must be in executable memory.

mod fallback;
mod image;
mod pages;
mod rule;

use std::{collections::HashMap, fs::File, io};

use gimli::UnwindContext;

use self::{
    image::Image,
    pages::{Pages, Window},
    rule::{Machine, R12, RBP, RBX, RSP, Rule},
};
use super::{
    files,
    maps::{self, Mapping},
    memory::{Memory, ProcessMemory},
    registers::Registers,
};
pub use crate::event::StackEnd;

/// Frames that are followed.
pub const MAX_FRAMES: usize = 512;
/// Addresses whose rules are kept of one process.
const MAX_RULES: usize = 16_384;
/// Signal frames in one stack: each may lead to another stack, and so back.
const MAX_SIGNALS: usize = 16;

/// How a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// It is where the thread left user mode.
    Registers,
    /// By the tables of the code it called.
    Tables,
    /// By the frame pointer, in code without tables.
    FramePointer,
    /// By looking for a return address on the stack: frames before it are missing.
    Scan,
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// The instruction: of the innermost frame and of one that a signal interrupted, the next to run; of the
    /// others, the one to return to.
    pub ip: u64,
    /// The stack pointer in this frame. What the function has on the stack lies from here up to the `sp` of
    /// the next frame.
    pub sp: u64,
    /// Is `ip` where the thread was interrupted, and not a return address?
    pub exact: bool,
    /// How it was found.
    pub found: Found,
}

impl RawFrame {
    /// The address to look names up with: inside the call, since what follows it may be another function.
    pub fn lookup(&self) -> u64 {
        if self.exact {
            self.ip
        } else {
            self.ip.saturating_sub(1)
        }
    }
}

/// A stack, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStack {
    /// The frames; the first is the one that the registers give.
    pub frames: Vec<RawFrame>,
    /// How it ended.
    pub end: StackEnd,
}

/// Unwinds the threads of one process.
#[derive(Debug)]
pub struct Unwinder<M> {
    memory: M,
    /// For the files behind the mappings; 0: none are asked for.
    pid: u32,
    mappings: Vec<Mapping>,
    /// By the mapping's start, when asked for: the image's index.
    image_of: HashMap<u64, Option<usize>>,
    images: Vec<Image>,
    rules: HashMap<(u64, bool), Rule>,
    pages: Pages,
    window: Window,
    context: UnwindContext<usize>,
}

impl Unwinder<ProcessMemory> {
    /// For process `pid`.
    ///
    /// # Errors
    /// The kernel's: no such process, or no permission.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut unwinder = Unwinder::new(ProcessMemory::of(pid), maps::read(pid)?);
        unwinder.pid = pid;
        Ok(unwinder)
    }

    /// Reads the mappings again. What is known of the code is kept unless code was mapped or unmapped. True:
    /// it was.
    ///
    /// # Errors
    /// The process is gone.
    pub fn refresh(&mut self) -> io::Result<bool> {
        let fresh = maps::read(self.pid)?;
        let code = |mapping: &&Mapping| mapping.executable;
        let changed = !fresh
            .iter()
            .filter(code)
            .eq(self.mappings.iter().filter(code));
        if changed {
            self.image_of.clear();
            self.images.clear();
            self.rules.clear();
            self.pages.clear();
        }
        self.mappings = fresh;
        Ok(changed)
    }
}

impl<M: Memory> Unwinder<M> {
    /// For memory with these mappings, in the order of their addresses.
    pub fn new(memory: M, mappings: Vec<Mapping>) -> Self {
        Unwinder {
            memory,
            pid: 0,
            mappings,
            image_of: HashMap::new(),
            images: Vec::new(),
            rules: HashMap::new(),
            pages: Pages::default(),
            window: Window::default(),
            context: UnwindContext::new(),
        }
    }

    /// Has it know of the code only, as if everything else had been mapped since.
    #[cfg(test)]
    pub(super) fn forget_data(&mut self) {
        self.mappings.retain(|mapping| mapping.executable);
    }

    /// The mappings, in the order of their addresses.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The memory.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The mapping that holds an address.
    pub fn mapping(&self, addr: u64) -> Option<&Mapping> {
        maps::holding(&self.mappings, addr).map(|index| &self.mappings[index])
    }

    /// The address as it is in the file of the code that is there; `None` if there is no such file.
    pub fn in_file(&mut self, addr: u64) -> Option<u64> {
        let image = self.image(addr)?;
        Some(addr.wrapping_sub(self.images[image].bias))
    }

    /// The stack of a thread with these registers. Nothing is said about whether the thread held still.
    pub fn unwind(&mut self, registers: &Registers) -> RawStack {
        let mut machine = Machine {
            ip: registers.ip,
            exact: true,
            ..Machine::default()
        };
        machine.regs[RSP] = Some(registers.sp);
        machine.regs[RBP] = registers.bp;
        if let Some([bx, rest @ ..]) = registers.saved {
            machine.regs[RBX] = Some(bx);
            for (number, value) in (R12..).zip(rest) {
                machine.regs[number] = Some(value);
            }
        }
        let mut stack = RawStack {
            frames: vec![frame(&machine, Found::Registers)],
            end: StackEnd::Root,
        };
        if !self.is_code(registers.ip) {
            stack.end = StackEnd::NotCode;
            return stack;
        }
        let Some(limit) = self.mapping(registers.sp).map(|mapping| mapping.end) else {
            stack.end = StackEnd::UnreadableMemory;
            return stack;
        };
        self.window.open(registers.sp, limit);
        self.pages.begin();
        stack.end = self.walk(machine, &mut stack.frames);
        stack
    }

    fn walk(&mut self, mut machine: Machine, frames: &mut Vec<RawFrame>) -> StackEnd {
        let (mut signals, mut scans) = (0, 0);
        loop {
            if frames.len() >= MAX_FRAMES {
                return StackEnd::TooDeep;
            }
            let (next, found) = match self.step(&machine) {
                Ok(next) => (next, Found::Tables),
                Err(end @ (StackEnd::NoUnwindInfo | StackEnd::UnknownRegister)) => {
                    match self.without_tables(&machine, end, &mut scans) {
                        Ok(next) => next,
                        Err(end) => return end,
                    }
                }
                Err(end) => return end,
            };
            signals += usize::from(next.exact);
            if signals > MAX_SIGNALS || (!next.exact && next.sp() <= machine.sp()) {
                return StackEnd::Loop;
            }
            if next.ip == 0 {
                return StackEnd::Root;
            }
            if !self.is_code(next.lookup()) {
                return StackEnd::NotCode;
            }
            if next.exact
                && let Some(limit) = self.mapping(next.sp()).map(|mapping| mapping.end)
            {
                // A signal may have had a stack of its own.
                self.window.open(next.sp(), limit);
            }
            frames.push(frame(&next, found));
            machine = next;
        }
    }

    /// One frame outwards, by the tables.
    fn step(&mut self, machine: &Machine) -> Result<Machine, StackEnd> {
        let rule = self.rule(machine);
        let Unwinder {
            memory,
            window,
            pages,
            context,
            ..
        } = self;
        let mut word = |addr| window.word(memory, addr);
        match rule {
            Rule::Simple {
                register,
                offset,
                return_at,
                places,
            } => {
                let base = machine.regs[register].ok_or(StackEnd::UnknownRegister)?;
                let cfa = base.wrapping_add_signed(offset);
                rule::apply(machine, cfa, return_at, &places, &mut word)
            }
            Rule::Expression { entry } => {
                rule::evaluate(memory, pages, context, entry, machine, &mut word)
            }
            Rule::Root => Err(StackEnd::Root),
            Rule::Unknown(end) => Err(end),
        }
    }

    /// The rule for a frame's address.
    fn rule(&mut self, machine: &Machine) -> Rule {
        let key = (machine.ip, machine.exact);
        if let Some(rule) = self.rules.get(&key) {
            return *rule;
        }
        let addr = machine.lookup();
        let rule = match self.image(addr) {
            None => Rule::Unknown(StackEnd::NoUnwindInfo),
            Some(image) => {
                let Unwinder {
                    memory,
                    pages,
                    context,
                    images,
                    ..
                } = self;
                match images[image].entry(memory, pages, addr) {
                    None => Rule::Unknown(StackEnd::NoUnwindInfo),
                    Some(entry) => rule::compile(memory, pages, context, entry, addr),
                }
            }
        };
        if self.rules.len() >= MAX_RULES {
            self.rules.clear();
        }
        self.rules.insert(key, rule);
        rule
    }

    /// Is the address in executable memory?
    fn is_code(&self, addr: u64) -> bool {
        self.mapping(addr).is_some_and(|mapping| mapping.executable)
    }

    /// The image whose code is at an address.
    fn image(&mut self, addr: u64) -> Option<usize> {
        let index = maps::holding(&self.mappings, addr)?;
        if !self.mappings[index].executable {
            return None;
        }
        let start = self.mappings[index].start;
        let found = if let Some(known) = self.image_of.get(&start) {
            *known
        } else {
            let found = self.find_image(index);
            self.image_of.insert(start, found);
            found
        };
        found.filter(|image| self.images[*image].has_code_at(addr))
    }

    fn find_image(&mut self, index: usize) -> Option<usize> {
        let code = &self.mappings[index];
        if let Some(known) = self
            .images
            .iter()
            .position(|image| image.has_code_at(code.start))
        {
            return Some(known);
        }
        let is_vdso = &*code.path == "[vdso]";
        // The beginning of the same file; or of the file before, whose code was moved to other memory (huge
        // pages).
        let before = self.mappings[..=index].iter().rev();
        let head = if is_vdso {
            Some(code)
        } else {
            before
                .clone()
                .find(|mapping| mapping.offset == 0 && mapping.inode != 0)
        };
        let head = head.filter(|head| is_vdso || code.inode == 0 || head.same_file(code));
        if head.is_none() && code.inode == 0 {
            return None;
        }
        let pid = self.pid;
        let file = || -> Option<File> { files::open_mapped(pid, code).ok().filter(|_| pid != 0) };
        let image = Image::find(&self.memory, &mut self.pages, code, head, file)?;
        self.images.push(image);
        Some(self.images.len() - 1)
    }
}

fn frame(machine: &Machine, found: Found) -> RawFrame {
    RawFrame {
        ip: machine.ip,
        sp: machine.sp(),
        exact: machine.exact,
        found,
    }
}
