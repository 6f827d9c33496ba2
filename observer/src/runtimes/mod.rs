//! What runtimes know of their waits: one module each, behind one trait.
//!
//! A thread that sleeps in a futex call says only an address. Which lock that is, and who holds it, the
//! runtime knows that made the call: by the functions above it, by the call's own arguments, and by the
//! lock's memory. No one of these is enough: memory alone takes look-alikes for locks, so a class is
//! named only where the function or the call agrees.

pub mod go;
pub mod jvm;
pub mod packs;
pub mod postgres;
pub mod pthread;
pub mod python;
pub mod rust;
pub mod sessions;

use std::collections::HashMap;

use crate::{
    event::LockClass,
    inspect::{exports::Symbol, memory::Memory},
};

/// The futex call that a thread sleeps in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FutexCall {
    /// Address of the word.
    pub addr: u64,
    /// Operation without its flags (`FUTEX_CMD_MASK`).
    pub command: u32,
    /// Is the futex this process's own (`FUTEX_PRIVATE_FLAG`)?
    pub private: bool,
    /// The value that the word was expected to have.
    pub val: u32,
    /// Was a time limit given?
    pub timed: bool,
}

/// A thread that sleeps in a futex call, with what can be asked about it.
pub struct Site<'a> {
    /// The call.
    pub call: FutexCall,
    /// Names of the functions above the call, innermost first, as [`plain`] gives them.
    pub functions: &'a [String],
    /// The file of the first function that is not the C library's, if that made the call.
    pub caller: Option<&'a str>,
    /// Does Go's runtime make the call itself?
    pub by_go: bool,
    /// The process's memory.
    pub memory: &'a dyn Memory,
    /// What its files tell of it.
    pub process: &'a Process,
}

/// What the files that a process maps tell of it.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Names of its files.
    pub files: Vec<String>,
    /// Where what its files export is; of [`EXPORTS`].
    pub symbols: HashMap<String, Symbol>,
    /// A backend of PostgreSQL.
    pub postgres: Option<postgres::Backend>,
    /// An interpreter of Python.
    pub python: Option<python::Interpreter>,
    /// A Java virtual machine; or why it cannot be read.
    pub java: Option<Result<jvm::Machine, String>>,
}

impl Process {
    /// Asks the runtimes that are told by what files export.
    pub fn new(
        pid: u32,
        files: Vec<String>,
        symbols: HashMap<String, Symbol>,
        memory: &dyn Memory,
    ) -> Process {
        let mut process = Process {
            pid,
            files,
            symbols,
            postgres: None,
            python: None,
            java: None,
        };
        process.postgres = postgres::Backend::of(&process);
        process.python = python::Interpreter::of(&process, memory);
        process.java = jvm::Machine::of(&process, memory);
        process
    }
}

/// Beginnings of the names of files that export what is looked for, beside the program's own.
pub const FILES: [&str; 2] = ["libpython", "libjvm.so"];
/// What is looked for, beside what HotSpot publishes ([`jvm::EXPORTS`]).
pub const EXPORTS: [&str; 6] = [
    "MyProc",
    "IndividualLWLockNames",
    "pgStatLocal",
    "my_wait_event_info",
    "_PyRuntime",
    "Py_Version",
];

/// A runtime that a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Its name.
    pub runtime: &'static str,
    /// Its release, where that is known, and what can be told of its waits.
    pub detail: String,
}

impl Recognised {
    /// With these words.
    pub fn new(runtime: &'static str, detail: impl Into<String>) -> Recognised {
        Recognised {
            runtime,
            detail: detail.into(),
        }
    }
}

/// Who has to act before a wait can end, as far as memory tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This sort of lock does not record it, or is not held by anybody.
    Unrecorded,
    /// This thread, by the number that its own process knows it by. The reader has to check that there is
    /// such a thread.
    Thread(u32),
    /// The thread that held it ended without giving it back.
    Died(u32),
    /// So many readers, who are not recorded one by one.
    Readers(u32),
}

/// What a runtime says of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The lock's class.
    pub class: LockClass,
    /// Address of the lock itself, of which the futex is a part; `None` where it cannot be told.
    pub base: Option<u64>,
    /// Who has to act.
    pub owner: Owner,
    /// Does the thread want to write? Locks that know readers and writers only.
    pub writer: Option<bool>,
}

impl Described {
    fn of(class: LockClass, base: u64, owner: Owner) -> Described {
        Described {
            class,
            base: Some(base),
            owner,
            writer: None,
        }
    }
}

/// A runtime, or a library of locks.
pub trait Runtime: Sync {
    /// Its name, as `doctor` shows it.
    fn name(&self) -> &'static str;

    /// Does a process have it, by the files that it maps?
    fn recognise(&self, process: &Process) -> Option<Recognised>;

    /// What a thread that sleeps in a futex call waits for; `None`: not in this runtime's code.
    fn describe(&self, _site: &Site<'_>) -> Option<Described> {
        None
    }
}

/// Every runtime. The order matters where one is built on another: what is asked first is nearer to the
/// program.
static ALL: [&dyn Runtime; 6] = [
    &postgres::Postgres,
    &python::Python,
    &go::Go,
    &jvm::Jvm,
    &rust::Rust,
    &pthread::Pthread,
];

/// The runtimes that a process has.
pub fn recognise(process: &Process) -> Vec<Recognised> {
    let found = ALL.iter().filter_map(|runtime| runtime.recognise(process));
    found.collect()
}

/// What a thread waits for, by the first runtime that knows.
pub fn describe(site: &Site<'_>) -> Option<Described> {
    ALL.iter().find_map(|runtime| runtime.describe(site))
}

/// Who the lock's memory says has it, read once more.
pub fn owner_again(described: &Described, call: &FutexCall, memory: &dyn Memory) -> Option<Owner> {
    if described.class == LockClass::PythonGil {
        return Some(python::gil::owner(memory, described.base?));
    }
    pthread::owner(described, call, memory)
}

/// A function's name without what only its linker needs: a version, the marks of internal aliases, the
/// hash of a Rust symbol; and without the type of the result, which the names of C++ templates have.
pub fn plain(name: &str) -> &str {
    let result = ["void ", "bool "]
        .iter()
        .find(|word| name.starts_with(**word));
    let name = &name[result.map_or(0, |word| word.len())..];
    let name = name.split('@').next().unwrap_or(name);
    let name = name.strip_prefix("__GI_").unwrap_or(name);
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_plain() {
        for (name, expected) in [
            ("pthread_mutex_lock@@GLIBC_2.2.5", "pthread_mutex_lock"),
            ("__GI___pthread_mutex_lock", "__pthread_mutex_lock"),
            ("std::thread::park::h0123456789abcdef", "std::thread::park"),
            ("a::hello", "a::hello"),
            (
                "void std::wait<int>(int const*)",
                "std::wait<int>(int const*)",
            ),
            ("", ""),
        ] {
            assert_eq!(plain(name), expected);
        }
    }
}
