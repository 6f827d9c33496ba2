//! CPython on 64-bit machines: its interpreter lock, its locks, and the Python functions of its threads.
//!
//! Everything is read from memory while the process goes on. `_PyRuntime`, which CPython exports, holds the
//! interpreters, they hold their threads, and these their frames. Releases differ in where a field is: [`Layout`]
//! has those that are known, from CPython's own headers.

pub mod frames;
pub mod gil;
mod tables;

use std::ops::Range;

pub use self::frames::{Function, Held};
use super::{Described, FutexCall, Owner, Process, Recognised, Runtime, Site};
use crate::{event::LockClass, inspect::memory::Memory};

/// Interpreters of a process, and threads of an interpreter, that are looked at.
const MAX_INTERPRETERS: usize = 64;
const MAX_THREADS: usize = 16_384;
/// The functions that count stand this near to the system call.
const DEPTH: usize = 12;

/// The first release that tells in memory which it is.
const TOLD: u64 = 0x030b;
/// Releases before that tell it in the name of a file of theirs: beginnings, before the second number.
const NAMES: [&str; 2] = ["python3.", "libpython3."];
/// `PyInterpreterState.runtime` of releases before 3.11.
const OF_RUNTIME: u64 = 16;

/// Where in CPython's structures a field is.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Release: `3.11` is 0x030b.
    release: u64,
    /// `_PyRuntimeState.interpreters.head`
    interpreters: u64,
    /// `PyInterpreterState.next`, `.threads.head`
    next_interpreter: u64,
    threads: u64,
    /// `PyThreadState.next` is 8 in all; `.thread_id`, with `.native_thread_id` behind it from 3.11 on.
    thread_id: u64,
    /// `PyThreadState.cframe` and `_PyCFrame.current_frame`; or `PyThreadState.current_frame`.
    cframe: Option<u64>,
    current_frame: u64,
    /// `_PyInterpreterFrame`: code, previous, instruction, owner, locals; before 3.11 `PyFrameObject`, whose
    /// instruction is a number of units from the first on.
    code: u64,
    previous: u64,
    instruction: u64,
    locals: u64,
    /// Before 3.11: bytes of a unit.
    unit: Option<u64>,
    /// `PyCodeObject.co_firstlineno`, `.co_nlocalsplus`, `.co_code_adaptive`
    first_line: u64,
    locals_count: u64,
    instructions: u64,
    /// `PyCodeObject.co_filename`, `.co_qualname` (before 3.11 `.co_name`), `.co_linetable` (`.co_lnotab`)
    file: u64,
    name: u64,
    lines: u64,
    /// Bytes of a `PyASCIIObject`, and of a `PyCompactUnicodeObject`: text is behind them.
    ascii: u64,
    compact: u64,
}

/// What 3.9 and 3.10 have in common. The values that a frame uses are found by its blocks, not behind its locals.
const BEFORE_3_11: Layout = Layout {
    release: 0,
    interpreters: 32,
    next_interpreter: 0,
    threads: 8,
    thread_id: 176,
    cframe: None,
    current_frame: 24,
    code: 32,
    previous: 24,
    instruction: 0,
    locals: 0,
    unit: None,
    first_line: 40,
    locals_count: 28,
    instructions: 48,
    file: 104,
    name: 112,
    lines: 120,
    ascii: 48,
    compact: 72,
};

/// By Include/cpython/{pystate,code,unicodeobject}.h and Include/internal/pycore_{runtime,interp,frame}.h of each
/// release.
static LAYOUTS: [Layout; 5] = [
    Layout {
        release: 0x0309,
        instruction: 104,
        unit: Some(1),
        ..BEFORE_3_11
    },
    Layout {
        release: 0x030a,
        instruction: 96,
        unit: Some(2),
        ..BEFORE_3_11
    },
    Layout {
        release: 0x030b,
        interpreters: 40,
        next_interpreter: 0,
        threads: 16,
        thread_id: 152,
        cframe: Some(56),
        current_frame: 8,
        code: 32,
        previous: 48,
        instruction: 56,
        locals: 72,
        unit: None,
        first_line: 72,
        locals_count: 76,
        instructions: 184,
        file: 112,
        name: 128,
        lines: 136,
        ascii: 48,
        compact: 72,
    },
    Layout {
        release: 0x030c,
        interpreters: 40,
        next_interpreter: 0,
        threads: 72,
        thread_id: 136,
        cframe: Some(56),
        current_frame: 0,
        code: 0,
        previous: 8,
        instruction: 56,
        locals: 72,
        unit: None,
        first_line: 68,
        locals_count: 72,
        instructions: 192,
        file: 112,
        name: 128,
        lines: 136,
        ascii: 40,
        compact: 56,
    },
    Layout {
        release: 0x030d,
        interpreters: 632,
        next_interpreter: 7_264,
        threads: 7_344,
        thread_id: 152,
        cframe: None,
        current_frame: 72,
        code: 0,
        previous: 8,
        instruction: 56,
        locals: 72,
        unit: None,
        first_line: 68,
        locals_count: 72,
        instructions: 200,
        file: 112,
        name: 128,
        lines: 136,
        ascii: 40,
        compact: 56,
    },
];

/// An interpreter of Python in a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Where `_PyRuntime` is.
    runtime: Range<u64>,
    /// `Py_Version`, from 3.11 on: `0x030b02f0` is 3.11.2. Before that the first two numbers, as far as they are known.
    version: Option<u64>,
    layout: Option<&'static Layout>,
}

/// A thread that an interpreter knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    state: u64,
    /// What Python calls `ident`: the C library's handle.
    ident: u64,
    /// Its number, as its own process knows it.
    pub native: u32,
}

impl Interpreter {
    /// By what the program or its library exports.
    pub fn of(process: &Process, memory: &dyn Memory) -> Option<Interpreter> {
        let runtime = process.symbols.get("_PyRuntime")?;
        let version = process
            .symbols
            .get("Py_Version")
            .and_then(|symbol| memory.u64(symbol.addr))
            .or_else(|| named(&process.files));
        let release = version.map(|version| version >> 16);
        Some(Interpreter {
            runtime: runtime.addr..runtime.addr.checked_add(runtime.size)?,
            version,
            layout: LAYOUTS
                .iter()
                .find(|layout| Some(layout.release) == release),
        })
    }

    /// `3.11.2`; before 3.11 `3.10`.
    pub fn release(&self) -> Option<String> {
        let version = self.version?;
        let part = |shift: u32| version >> shift & 0xff;
        if version >> 16 < TOLD {
            return Some(format!("{}.{}", part(24), part(16)));
        }
        Some(format!("{}.{}.{}", part(24), part(16), part(8)))
    }

    /// Its threads; none where the release is not known.
    pub fn threads(&self, memory: &dyn Memory) -> Vec<Thread> {
        let Some(layout) = self.layout else {
            return Vec::new();
        };
        let mut threads = Vec::new();
        let first = self.runtime.start.wrapping_add(layout.interpreters);
        let mut interpreter = memory.u64(first).unwrap_or(0);
        for _ in 0..MAX_INTERPRETERS {
            if interpreter == 0 {
                break;
            }
            let of = memory.u64(interpreter.wrapping_add(OF_RUNTIME));
            if layout.unit.is_some() && of != Some(self.runtime.start) {
                // The file's name was misleading.
                break;
            }
            let at = interpreter.wrapping_add(layout.threads);
            let mut state = memory.u64(at).unwrap_or(0);
            while state != 0 && threads.len() < MAX_THREADS {
                let id = state.wrapping_add(layout.thread_id);
                let ident = memory.u64(id);
                let native = match layout.unit {
                    None => memory.u64(id.wrapping_add(8)),
                    Some(_) => ident.and_then(|handle| gil::number(memory, handle)),
                };
                if let (Some(ident), Some(Ok(native))) = (ident, native.map(u32::try_from)) {
                    threads.push(Thread {
                        state,
                        ident,
                        native,
                    });
                }
                state = memory.u64(state.wrapping_add(8)).unwrap_or(0);
            }
            let at = interpreter.wrapping_add(layout.next_interpreter);
            interpreter = memory.u64(at).unwrap_or(0);
        }
        threads
    }
}

/// The release by the name of the program or its library, as `Py_Version` would have it: `python3.10`. None, if there
/// are several.
fn named(files: &[String]) -> Option<u64> {
    let minor = |file: &String| {
        let rest = NAMES.iter().find_map(|name| file.strip_prefix(name))?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u64>().ok().filter(|minor| *minor < 0x100)
    };
    let mut minors = files.iter().filter_map(minor);
    let first = minors.next()?;
    // From 3.11 on memory tells it; what does not is no such release.
    let told = 3 << 8 | first;
    (told < TOLD && minors.all(|other| other == first)).then_some(told << 16)
}

/// CPython.
pub struct Python;

impl Runtime for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn recognise(&self, process: &Process) -> Option<Recognised> {
        let python = process.python.as_ref()?;
        let release = python.release();
        let known = if python.layout.is_some() {
            "its functions, the interpreter lock, locks"
        } else {
            "the interpreter lock; the functions and locks of this release are not known (3.9 to 3.13 are)"
        };
        let release = release.unwrap_or_else(|| "a release before 3.11".to_owned());
        Some(Recognised::new(self.name(), format!("{release}: {known}")))
    }

    fn describe(&self, site: &Site<'_>) -> Option<Described> {
        let python = site.process.python.as_ref()?;
        if let Some(gil) = gil::around(site.memory, &python.runtime, site.call.addr) {
            let owner = gil::owner(site.memory, gil);
            return Some(Described::of(LockClass::PythonGil, gil, owner));
        }
        // What is made of these locks (`Condition`, `Event`) is told apart by the functions, where they are known.
        let near = &site.functions[..site.functions.len().min(DEPTH)];
        let locks = python.layout.is_some()
            && near
                .iter()
                .any(|name| name.starts_with("PyThread_acquire_lock"));
        locks.then(|| Described::of(LockClass::PythonLock, site.call.addr, Owner::Unrecorded))
    }
}

/// Is it a call of a lock that Python made?
pub fn is_lock(described: &Described, call: &FutexCall) -> bool {
    described.class == LockClass::PythonLock && described.base == Some(call.addr)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::inspect::{exports::Symbol, memory::fixture::Fixture};

    fn recognised(version: Option<u32>, files: &[&str]) -> (String, bool) {
        const AT: u64 = 0x1000;
        let memory = Fixture::words(AT, &[version.unwrap_or(0), 0]);
        let symbol = |addr| Symbol { addr, size: 64 };
        let mut symbols = HashMap::from([("_PyRuntime".to_owned(), symbol(0x5000))]);
        if version.is_some() {
            symbols.insert("Py_Version".to_owned(), symbol(AT));
        }
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        let process = Process::new(1, files, symbols, &memory);
        let python = process.python.as_ref().unwrap();
        assert!(python.threads(&memory).is_empty());
        let known = python.layout.is_some();
        (Python.recognise(&process).unwrap().detail, known)
    }

    #[test]
    fn releases_that_are_known_are_told_from_those_that_are_not() {
        for (version, files, release, is_known) in [
            (Some(0x030b_02f0), &["python3.11"][..], "3.11.2: ", true),
            (
                Some(0x030d_00f0),
                &["libpython3.13.so.1.0"],
                "3.13.0: ",
                true,
            ),
            (Some(0x030e_00f0), &["python3.14"], "3.14.0: ", false),
            (None, &["libc.so.6", "python3.10"], "3.10: ", true),
            (None, &["python3.9", "libpython3.9.so.1.0"], "3.9: ", true),
            (None, &["python3.8"], "3.8: ", false),
            (None, &["libpython3.7m.so.1.0"], "3.7: ", false),
            (
                None,
                &["python3.9", "libpython3.10.so.1.0"],
                "a release before 3.11: ",
                false,
            ),
            (
                None,
                &["uwsgi", "python3.12"],
                "a release before 3.11: ",
                false,
            ),
        ] {
            let (detail, known) = recognised(version, files);
            assert!(detail.starts_with(release), "{detail}");
            assert_eq!(known, is_known, "{detail}");
            let refused = detail.ends_with("are not known (3.9 to 3.13 are)");
            assert_eq!(refused, !is_known, "{detail}");
        }
    }
}
