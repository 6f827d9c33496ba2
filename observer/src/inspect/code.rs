//! Names, source lines and inlined functions of addresses in programs and libraries, by blazesym.
//!
//! Unlike [`super::symbols`], which names many stacks at little cost, this reads debug information. blazesym
//! maps files into memory, and who cuts a mapped file short ends its reader; its links to other files may name
//! anything. So only root's own files are mapped as they are. Of others a copy in memory is used, up to a size,
//! and without its links.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
};

use blazesym::symbolize::{
    CodeInfo, Input, Sym, Symbolizer,
    source::{Elf, Source},
};

use super::{files, maps::Mapping, memory::Memory, rest::Rest, symbols};
use crate::event::Frame;

/// Files up to this size are searched for source lines. The debug information of larger ones takes seconds and
/// gigabytes: they give names only.
const MAX_LINES: u64 = 3 << 29;
/// Files beyond this size give nothing.
const MAX_FILE: u64 = 16 << 30;
/// Files of others than root are copied up to this size.
const MAX_COPY: u64 = 512 << 20;
/// Files that are held open before all is forgotten.
const MAX_MODULES: usize = 256;
/// What is read of files for names at the same time, by the files' sizes, unless it is set otherwise.
const BUDGET: u64 = 512 << 20;
/// Addresses whose names are kept.
const MAX_KNOWN: usize = 65_536;
/// Functions that were put into one another at one address.
const MAX_INLINED: usize = 64;
/// Bytes of the vDSO.
const MAX_VDSO: u64 = 64 << 10;
/// Sections that name other files: `.gnu_debuglink`, `.gnu_debugaltlink`, `.debug_sup`.
const LINKS: [&[u8]; 2] = [b".gnu_debug", b".debug_sup"];
/// Bytes that are searched for them at a time.
const CHUNK: usize = 1 << 20;

/// What tells a file from another one, or from itself after a change.
type Key = (u64, u64, i64, i64, u64);

/// A file that is held open.
#[derive(Debug)]
struct Module {
    path: PathBuf,
    name: Arc<str>,
    size: u64,
    /// What was read of it: each file has a reader of its own, so that it can be given back alone.
    reader: Option<Symbolizer>,
    /// When it was last asked, in the order of questions.
    asked: u64,
    _held: File,
}

/// Which file; valid until [`Code::trim`] says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModuleId(usize);

/// Names addresses in files.
#[derive(Debug)]
pub struct Code {
    modules: Vec<Module>,
    by_key: HashMap<Key, ModuleId>,
    known: HashMap<(ModuleId, u64), Arc<[Frame]>>,
    /// Sizes of the files that were read, of those that were copied, and what they may be.
    read: u64,
    copied: u64,
    budget: u64,
    /// Files up to this size are searched for source lines.
    lines: u64,
    questions: u64,
    rest: Rest,
}

impl Default for Code {
    fn default() -> Self {
        Code {
            modules: Vec::new(),
            by_key: HashMap::new(),
            known: HashMap::new(),
            read: 0,
            copied: 0,
            budget: BUDGET,
            lines: MAX_LINES,
            questions: 0,
            rest: Rest::default(),
        }
    }
}

fn symbolizer() -> Symbolizer {
    Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .build()
}

impl Code {
    /// Reads, and copies, files of this size at most at the same time. One that is larger gives names only.
    pub fn set_budget(&mut self, bytes: u64) {
        (self.budget, self.lines) = (bytes, bytes.min(MAX_LINES));
        self.shrink(None);
    }

    /// Sizes of the files that were read or copied, and are not given back yet.
    pub fn bytes(&self) -> u64 {
        self.read + self.copied
    }

    /// Forgets all if it has become too much. True: modules that were given out are no longer valid.
    pub fn trim(&mut self) -> bool {
        let full = self.modules.len() >= MAX_MODULES || self.copied > self.budget;
        if full {
            *self = Code {
                budget: self.budget,
                lines: self.lines,
                ..Code::default()
            };
        }
        full
    }

    /// Gives back what was read of the files that nobody has asked for the longest, until the rest is within the
    /// budget; not that of `but`.
    fn shrink(&mut self, but: Option<ModuleId>) {
        while self.read > self.budget {
            let read = self.modules.iter_mut().enumerate();
            let oldest = read
                .filter(|(at, module)| module.reader.is_some() && Some(ModuleId(*at)) != but)
                .min_by_key(|(_, module)| module.asked);
            let Some((_, module)) = oldest else {
                return;
            };
            module.reader = None;
            self.read -= module.size;
        }
    }

    /// Gives back what was read of the files if nobody asks for new names, or if it is too much; names that are
    /// known are kept. True: there was something to give back.
    pub fn rest(&mut self) -> bool {
        let due = self.rest.is_due();
        if due {
            for module in &mut self.modules {
                module.reader = None;
            }
            self.read = 0;
        }
        due
    }

    /// The file behind a mapping of process `pid`.
    ///
    /// # Errors
    /// It cannot be opened, or is too large.
    pub fn module(
        &mut self,
        pid: u32,
        mapping: &Mapping,
        memory: &impl Memory,
    ) -> io::Result<ModuleId> {
        if &*mapping.path == "[vdso]" {
            return self.vdso(mapping, memory);
        }
        let file = files::open_mapped(pid, mapping)?;
        let meta = file.metadata()?;
        let key = (
            meta.dev(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.size(),
        );
        if let Some(known) = self.by_key.get(&key) {
            return Ok(*known);
        }
        // The owner may cut it short; and so may who may write.
        let trusted = meta.uid() == 0 && meta.mode() & 0o022 == 0;
        let limit = if trusted {
            MAX_FILE
        } else {
            MAX_COPY.min(self.budget)
        };
        if meta.size() > limit {
            return Err(io::Error::other(format!(
                "{}: larger than {} MiB",
                mapping.name(),
                limit >> 20
            )));
        }
        let held = if trusted {
            file
        } else {
            self.copied += meta.size();
            copy(file.take(limit))?
        };
        Ok(self.hold(key, held, mapping.name(), meta.size()))
    }

    fn vdso(&mut self, mapping: &Mapping, memory: &impl Memory) -> io::Result<ModuleId> {
        // One kernel has one, apart from containers with a kernel of their own.
        let size = (mapping.end - mapping.start).min(MAX_VDSO);
        let key = (0, 0, 0, 0, size);
        if let Some(known) = self.by_key.get(&key) {
            return Ok(*known);
        }
        let mut bytes = vec![0; size as usize];
        if !memory.read(mapping.start, &mut bytes) {
            return Err(io::Error::other("the vDSO cannot be read"));
        }
        Ok(self.hold(key, copy(&bytes[..])?, "[vdso]", size))
    }

    fn hold(&mut self, key: Key, held: File, name: &str, size: u64) -> ModuleId {
        let id = ModuleId(self.modules.len());
        self.modules.push(Module {
            // Whatever becomes of the process and of the file's name, this leads to it.
            path: format!("/proc/self/fd/{}", held.as_raw_fd()).into(),
            name: name.into(),
            size,
            reader: None,
            asked: 0,
            _held: held,
        });
        self.by_key.insert(key, id);
        id
    }

    /// A file that is nobody's.
    #[cfg(test)]
    pub(super) fn of_bytes(&mut self, bytes: &[u8]) -> io::Result<ModuleId> {
        let key = (1, self.modules.len() as u64, 0, 0, 0);
        Ok(self.hold(key, copy(bytes)?, "bytes", bytes.len() as u64))
    }

    /// The functions at an address in the file, innermost first: those that were inlined, then the one that they
    /// were put into. At least one frame, without a name if there is none. `Frame::addr` is left empty.
    pub fn frames(&mut self, module: ModuleId, addr: u64) -> Arc<[Frame]> {
        if let Some(known) = self.known.get(&(module, addr)) {
            return Arc::clone(known);
        }
        let mut frames = Vec::new();
        let begun = self.rest.begin();
        self.questions += 1;
        if let Some(of) = self.modules.get_mut(module.0) {
            of.asked = self.questions;
            let new = of.reader.is_none();
            if new {
                self.read += of.size;
            }
            frames = named(of, addr, of.size <= self.lines);
            if new {
                self.shrink(Some(module));
            }
        }
        self.rest.end(begun);
        let frames: Arc<[Frame]> = frames.into();
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert((module, addr), Arc::clone(&frames));
        frames
    }
}

/// At least one frame.
fn named(module: &mut Module, addr: u64, lines: bool) -> Vec<Frame> {
    // Debug information that makes no sense leaves the names.
    let ways = if lines {
        &[true, false][..]
    } else {
        &[false][..]
    };
    for lines in ways {
        let reader = module.reader.take().unwrap_or_else(symbolizer);
        // What panicked is dropped, and nothing else is shared with it.
        let found = catch_unwind(AssertUnwindSafe(|| {
            let found = symbolize(&reader, module, addr, *lines);
            (found, reader)
        }));
        module.reader = Some(match found {
            Ok((Some(found), reader)) => {
                module.reader = Some(reader);
                return found;
            }
            Ok((None, reader)) => reader,
            Err(_) => symbolizer(),
        });
    }
    vec![Frame {
        module: Some(Arc::clone(&module.name)),
        ..Frame::default()
    }]
}

fn symbolize(
    symbolizer: &Symbolizer,
    module: &Module,
    addr: u64,
    lines: bool,
) -> Option<Vec<Frame>> {
    let mut elf = Elf::new(&module.path);
    elf.debug_syms = lines;
    let found = symbolizer
        .symbolize_single(&Source::Elf(elf), Input::VirtOffset(addr))
        .ok()?;
    let symbol = found.as_sym()?;
    Some(expand(symbol, &module.name))
}

/// One frame for each function that the compiler put at the address, innermost first.
fn expand(symbol: &Sym<'_>, module: &Arc<str>) -> Vec<Frame> {
    let base = Frame {
        module: Some(Arc::clone(module)),
        ..Frame::default()
    };
    let inlined = symbol.inlined.iter().rev().take(MAX_INLINED);
    let mut frames: Vec<Frame> = inlined
        .map(|function| {
            let mut frame = base.clone();
            frame.name = Some(function.name.as_ref().into());
            frame.inlined = true;
            place(&mut frame, function.code_info.as_ref());
            frame
        })
        .collect();
    let mut outer = base;
    symbols::name(&mut outer, symbol);
    place(&mut outer, symbol.code_info.as_deref());
    frames.push(outer);
    frames
}

fn place(frame: &mut Frame, info: Option<&CodeInfo<'_>>) {
    if let Some(info) = info {
        frame.file = Some(info.to_path().to_string_lossy().as_ref().into());
        frame.line = info.line;
    }
}

/// A copy in memory, without links to other files.
fn copy(mut from: impl Read) -> io::Result<File> {
    // SAFETY: a string that ends, and flags.
    let fd = unsafe { libc::memfd_create(c"observer".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor, which nobody else has.
    let mut copy = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    io::copy(&mut from, &mut copy)?;
    copy.flush()?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let length = copy.read_at(&mut chunk, at)?;
        for link in LINKS {
            for found in memchr::memmem::find_iter(&chunk[..length], link) {
                copy.write_all_at(b"?", at + found as u64)?;
            }
        }
        if length < CHUNK {
            return Ok(copy);
        }
        // A name may lie across the end of the chunk.
        at += (CHUNK - 16) as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::inspect::{maps, memory::ProcessMemory};

    #[test]
    fn a_copy_has_no_links_to_other_files() {
        let mut bytes = vec![b'x'; CHUNK + 100];
        bytes[10..24].copy_from_slice(b".gnu_debuglink");
        bytes[CHUNK - 5..CHUNK + 5].copy_from_slice(b".debug_sup");
        let copy = copy(&bytes[..]).unwrap();
        let mut back = vec![0; bytes.len()];
        copy.read_exact_at(&mut back, 0).unwrap();
        assert_eq!((back[10], back[CHUNK - 5]), (b'?', b'?'));
        assert_eq!(copy.metadata().unwrap().len(), bytes.len() as u64);
    }

    #[test]
    fn names_outlive_what_was_read_for_them() {
        let mut code = Code::default();
        let module = code.of_bytes(b"no program").unwrap();
        let named = code.frames(module, 16);
        let earlier = Instant::now().checked_sub(Duration::from_secs(10));
        (code.rest.asked, code.rest.spent) = (earlier, Duration::ZERO);
        assert_eq!(code.rest(), earlier.is_some());
        assert!(Arc::ptr_eq(&named, &code.frames(module, 16)));
        // What is known costs nothing.
        assert_eq!(code.rest.asked, None);
    }

    #[test]
    fn what_is_read_of_many_files_is_bounded() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        // A program of some size, without what it could be debugged with: that takes long to read.
        let bytes = &bytes[..bytes.len().min(1 << 20)];
        let size = bytes.len() as u64;
        let mut code = Code::default();
        code.set_budget(3 * size + 1);
        let modules: Vec<_> = (0..20).map(|_| code.of_bytes(bytes).unwrap()).collect();
        for (asked, module) in modules.iter().enumerate() {
            code.frames(*module, 16);
            assert_eq!(code.bytes(), size * (asked as u64 + 1).min(3));
        }
        let read = |code: &Code| -> Vec<usize> {
            let all = code.modules.iter().enumerate();
            all.filter(|(_, one)| one.reader.is_some())
                .map(|(at, _)| at)
                .collect()
        };
        assert_eq!(read(&code), [17, 18, 19]);
        // What was asked for last stays.
        code.frames(modules[17], 32);
        code.frames(modules[0], 32);
        assert_eq!(read(&code), [0, 17, 19]);
        // One that is larger than all that may be is alone.
        code.set_budget(size / 2);
        assert_eq!(code.bytes(), 0);
        code.frames(modules[5], 32);
        assert_eq!((read(&code), code.bytes()), (vec![5], size));
        code.frames(modules[6], 32);
        assert_eq!(read(&code), [6]);
    }

    #[test]
    fn the_vdso_has_names() {
        let own = std::process::id();
        let all = maps::read(own).unwrap();
        let vdso = all.iter().find(|m| &*m.path == "[vdso]").unwrap();
        let mut code = Code::default();
        let memory = ProcessMemory::of(own);
        let module = code.module(own, vdso, &memory).unwrap();
        let frames = code.frames(module, 0);
        assert_eq!(
            (frames.len(), frames[0].module.as_deref()),
            (1, Some("[vdso]"))
        );
        assert_eq!(code.module(own, vdso, &memory).unwrap(), module);
        assert!(!code.trim());
    }
}
