//! Programs to look at: built, started, and ended.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    capture::registers::RegisterTable,
    event::Stack,
    inspect::{
        registers::{Registers, Snapshot},
        stacks::{BlockedStack, Inspector},
    },
};

const SOURCE: &str = include_str!("subject.c");
/// However slow the machine is.
const BACKSTOP: Duration = Duration::from_secs(30);

/// A folder that goes with its owner.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "observer-stacks-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Builds the subject; `None`, and the reason on the standard error, if there is no compiler.
pub(super) fn build(folder: &Folder, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let (source, program) = (folder.0.join("subject.c"), folder.0.join(name));
    fs::write(&source, SOURCE).unwrap();
    let gcc = Command::new("gcc")
        .args(flags)
        .arg("-pthread")
        .arg("-o")
        .args([&program, &source])
        .output();
    match gcc {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // A C library without its static form is the only thing that may be missing.
            assert!(flags.iter().any(|flag| flag.contains("static")), "{said}");
            eprintln!("skipped: gcc {flags:?}: {said}");
            None
        }
        Err(error) => {
            eprintln!("skipped: gcc: {error}");
            None
        }
    }
}

/// A running program, ended with its owner.
pub(super) struct Running(Child);

impl Running {
    pub(super) fn start(program: &Path, args: &[&str]) -> Running {
        Running(
            Command::new(program)
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Threads by name.
pub(super) fn threads(pid: u32) -> HashMap<String, u32> {
    let mut all = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        if let Ok(name) = fs::read_to_string(entry.path().join("comm")) {
            let tid = entry.file_name().to_string_lossy().parse().unwrap();
            all.insert(name.trim().to_owned(), tid);
        }
    }
    all
}

/// Where registers come from.
pub(super) enum Way {
    Proc,
    Iterator(Box<RegisterTable>),
}

impl Way {
    /// Those that this run allows.
    pub(super) fn all() -> Vec<(&'static str, Way)> {
        let mut all = vec![("proc", Way::Proc)];
        match RegisterTable::open() {
            Ok(table) => all.push(("iterator", Way::Iterator(Box::new(table)))),
            Err(error) => eprintln!("skipped: registers by the task iterator: {error:#}"),
        }
        all
    }

    pub(super) fn registers(&mut self, pid: u32, tid: u32) -> Option<Registers> {
        let Way::Iterator(table) = self else {
            return None;
        };
        let all = table.read(Some(pid)).unwrap();
        let found = all.iter().find(|thread| thread.tid == tid)?;
        assert_eq!(found.pid, pid);
        match found.snapshot {
            Snapshot::Blocked(registers) => Some(registers),
            Snapshot::Running => None,
        }
    }
}

/// Looks at the thread named `name` until `good` likes its stack.
pub(super) fn poll(
    way: &mut Way,
    inspector: &mut Inspector,
    pid: u32,
    name: &str,
    good: impl Fn(&BlockedStack, &Stack) -> bool,
) -> (BlockedStack, Stack) {
    let begun = Instant::now();
    loop {
        let mut seen = None;
        if let Some(&tid) = threads(pid).get(name) {
            let registers = way.registers(pid, tid);
            if let Ok(stack) = inspector.stack(pid, tid, registers) {
                let named = inspector.symbolize(&stack);
                if good(&stack, &named) {
                    return ((*stack).clone(), named);
                }
                seen = Some((stack, named));
            }
        }
        assert!(
            begun.elapsed() < BACKSTOP,
            "thread {name} of {pid}: {seen:#?}"
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Do functions whose names contain these follow one another, innermost first, with others between?
pub(super) fn has(stack: &Stack, names: &[&str]) -> bool {
    let mut frames = stack.user.iter().filter_map(|frame| frame.name.as_deref());
    names
        .iter()
        .all(|name| frames.any(|found| found.contains(name)))
}
