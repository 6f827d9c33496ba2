//! Names for the addresses of stacks: user code by blazesym, kernel code by the kernel's own table.

use std::{collections::HashMap, fs, ops::Range, sync::Arc};

use blazesym::{
    Pid,
    symbolize::{
        Input, Sym, Symbolizer,
        source::{Process, Source},
    },
};

use super::{kallsyms::Kallsyms, rest::Rest};
use crate::event::{Addr, Frame};

/// Stacks whose frames are kept; beyond it the cache starts anew.
const MAX_STACKS: usize = 8_192;

/// What is read of files at the same time, by the files' sizes, unless it is set otherwise.
const BUDGET: u64 = 512 << 20;

/// Addresses that user code can have: above the first page, below the hole in the address space.
const USER_CODE: Range<u64> = 0x1000..1 << 47;

/// Names addresses, and remembers stacks.
#[derive(Debug)]
pub struct Symbols {
    user: Symbolizer,
    kernel: Option<Kallsyms>,
    kernel_rest: Rest,
    stacks: HashMap<(u32, u32), Arc<[Frame]>>,
    /// Files that were read, with their sizes, and what these may be together.
    read: HashMap<Arc<str>, u64>,
    budget: u64,
    rest: Rest,
}

/// Source lines would have each program's debug information parsed and kept in memory.
fn symbolizer() -> Symbolizer {
    Symbolizer::builder()
        .enable_code_info(false)
        .enable_inlined_fns(false)
        .build()
}

impl Default for Symbols {
    fn default() -> Self {
        Symbols {
            user: symbolizer(),
            kernel: None,
            kernel_rest: Rest::default(),
            stacks: HashMap::new(),
            read: HashMap::new(),
            budget: BUDGET,
            rest: Rest::default(),
        }
    }
}

impl Symbols {
    /// The kernel's table, read when it is asked for.
    pub fn kernel(&mut self) -> &Kallsyms {
        let begun = self.kernel_rest.begin();
        let kernel = self.kernel.get_or_insert_with(Kallsyms::load);
        self.kernel_rest.end(begun);
        kernel
    }

    /// Gives back what was read of programs' files, and the kernel's table, if nobody asks for new names, or if it is
    /// too much. True: there was something to give back.
    pub fn rest(&mut self) -> bool {
        let (user, kernel) = (self.rest.is_due(), self.kernel_rest.is_due());
        if user {
            self.give_back();
        }
        if kernel {
            self.kernel = None;
        }
        user | kernel
    }

    /// Reads files of this size at most at the same time, or a single one.
    pub fn set_budget(&mut self, bytes: u64) {
        self.budget = bytes;
    }

    /// Sizes of the files that were read, and are not given back yet.
    pub fn bytes(&self) -> u64 {
        self.read.values().sum()
    }

    fn give_back(&mut self) {
        self.user = symbolizer();
        self.read.clear();
    }

    /// Forgets all but what was set.
    pub fn forget(&mut self) {
        *self = Symbols {
            budget: self.budget,
            ..Symbols::default()
        };
    }

    /// Notes the files of frames that were just named. blazesym gives back all of them or none.
    fn count(&mut self, pid: u32, frames: &[Frame]) {
        for module in frames.iter().filter_map(|frame| frame.module.as_ref()) {
            if !self.read.contains_key(module) {
                let file = fs::metadata(format!("/proc/{pid}/root{module}"));
                let size = file.map_or(0, |file| file.len());
                self.read.insert(Arc::clone(module), size);
            }
        }
        if self.read.len() > 1 && self.bytes() > self.budget {
            self.give_back();
        }
    }

    /// Frames of the stack `id` of process `pid` (0: of the kernel), whose addresses `addresses` gives
    /// when they are not known yet.
    pub fn frames(
        &mut self,
        pid: u32,
        id: u32,
        addresses: impl FnOnce() -> Vec<u64>,
    ) -> Arc<[Frame]> {
        if let Some(frames) = self.stacks.get(&(pid, id)) {
            return Arc::clone(frames);
        }
        let addresses = addresses();
        let frames: Arc<[Frame]> = if pid == 0 {
            self.kernel_frames(&addresses).into()
        } else {
            let begun = self.rest.begin();
            let frames = self.user_frames(pid, &addresses);
            self.count(pid, &frames);
            self.rest.end(begun);
            frames.into()
        };
        if self.stacks.len() >= MAX_STACKS {
            self.stacks.clear();
        }
        self.stacks.insert((pid, id), Arc::clone(&frames));
        frames
    }

    /// From the call of the scheduler on outwards: what is further in is this program's own doing.
    fn kernel_frames(&mut self, addresses: &[u64]) -> Vec<Frame> {
        let kernel = self.kernel();
        let all: Vec<Frame> = addresses
            .iter()
            .map(|&ip| {
                let function = kernel.function(ip);
                Frame {
                    addr: Addr(ip),
                    name: function.map(|(name, _)| name.into()),
                    offset: function.map(|(_, offset)| offset),
                    ..Frame::default()
                }
            })
            .collect();
        let named = |frame: &Frame, what: &str| frame.name.as_deref() == Some(what);
        let skip = all
            .iter()
            .rposition(|frame| named(frame, "__schedule") || named(frame, "schedule"))
            .unwrap_or(0);
        all[skip..].to_vec()
    }

    fn user_frames(&self, pid: u32, addresses: &[u64]) -> Vec<Frame> {
        let mut process = Process::new(Pid::from(pid));
        // Maps that a run-time compiler leaves behind are another user's claim, and one that is malformed
        // would spoil the whole stack.
        process.perf_map = false;
        let found = self
            .user
            .symbolize(&Source::Process(process), Input::AbsAddr(addresses));
        let mut found = found.map(Vec::into_iter).unwrap_or_default();
        addresses
            .iter()
            // Where code keeps no frame pointer, what follows is whatever else lay in the register.
            .take_while(|ip| USER_CODE.contains(ip))
            .map(|&ip| {
                let mut frame = Frame {
                    addr: Addr(ip),
                    ..Frame::default()
                };
                if let Some(symbol) = found.next().as_ref().and_then(|found| found.as_sym()) {
                    name(&mut frame, symbol);
                    frame.module = symbol
                        .module
                        .as_ref()
                        .map(|path| path.to_string_lossy().as_ref().into());
                }
                frame
            })
            .collect()
    }
}

/// Puts a symbol's name into a frame.
pub(super) fn name(frame: &mut Frame, symbol: &Sym<'_>) {
    frame.name = Some(symbol.name.as_ref().into());
    frame.offset = Some(symbol.offset as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_functions_have_names_and_what_is_not_code_has_none() {
        let mut symbols = Symbols::default();
        let here = own_functions_have_names_and_what_is_not_code_has_none as fn() as usize as u64;
        let frames = symbols.frames(std::process::id(), 1, || vec![here, 0x1000, 0x10]);
        assert!(
            frames[0]
                .name
                .as_deref()
                .is_some_and(|name| name.contains("own_functions_have_names")),
            "{frames:?}"
        );
        assert_eq!((frames[1].name.as_ref(), frames.len()), (None, 2));
        // Known from now on.
        let again = symbols.frames(std::process::id(), 1, || unreachable!());
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn what_is_read_of_files_is_bounded() {
        let mut symbols = Symbols::default();
        let here = what_is_read_of_files_is_bounded as fn() as usize as u64;
        let libc = libc::getpid as *const () as usize as u64;
        symbols.frames(std::process::id(), 1, || vec![here]);
        let one = symbols.bytes();
        assert!(one > 0);
        // Together with the C library, where that is a file of its own, it is too much.
        symbols.set_budget(one);
        let frames = symbols.frames(std::process::id(), 2, || vec![here, libc]);
        assert_eq!(frames.len(), 2);
        assert!(symbols.bytes() <= one);
        assert!(
            !symbols
                .frames(std::process::id(), 3, || vec![here])
                .is_empty()
        );
        symbols.forget();
        assert_eq!((symbols.bytes(), symbols.budget), (0, one));
    }

    #[test]
    fn a_process_that_is_gone_leaves_addresses() {
        let frames = Symbols::default().frames(u32::MAX / 2, 1, || vec![0x1000]);
        assert_eq!(
            (frames[0].addr, frames[0].name.as_ref()),
            (Addr(0x1000), None)
        );
    }
}
