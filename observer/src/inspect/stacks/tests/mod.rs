mod hostile;
mod subject;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use self::subject::{Folder, Running, Way, build, has, poll};
use super::*;

/// Thread of the subject, and its functions.
const THREADS: [(&str, &[&str]); 5] = [
    ("first", &["wait_forever", "main"]),
    (
        "mutex",
        &[
            "lock_inner",
            "lock_outer",
            "lock_outer",
            "lock_outer",
            "in_mutex",
        ],
    ),
    ("alloca", &["wait_forever", "with_alloca", "in_alloca"]),
    (
        "signal",
        &["wait_forever", "in_handler", "interrupted", "in_signal"],
    ),
    ("altstack", &["in_handler", "on_other_stack", "in_altstack"]),
];
/// A line for each call.
const CXX: &str = "#include <unistd.h>
static inline __attribute__((always_inline)) void inner() {
pause(); }
static inline __attribute__((always_inline)) void middle() {
for (;;) inner(); }
namespace space {
template <typename T> struct Outer {
__attribute__((noinline)) void run(T) {
middle(); } };
}
int main() { space::Outer<int>().run(1); }
";
const USUAL: [&str; 3] = ["-O2", "-fomit-frame-pointer", "-g"];

/// All threads of a subject built with these flags reach their first functions.
fn check(flags: &[&str], named: bool) {
    let folder = Folder::new();
    let all: Vec<&str> = USUAL.iter().chain(flags).copied().collect();
    let Some(program) = build(&folder, "subject", &all) else {
        return;
    };
    let running = Running::start(&program, &[]);
    for (way_name, mut way) in Way::all() {
        let mut inspector = Inspector::default();
        for (thread, names) in THREADS {
            let (stack, _) = poll(
                &mut way,
                &mut inspector,
                running.pid(),
                thread,
                |stack, found| {
                    stack.end == StackEnd::Root
                        && if named {
                            has(found, names)
                        } else {
                            stack.frames.len() > names.len()
                        }
                },
            );
            // Room of a variable size is found by a register, which /proc does not give.
            let all_known = way_name == "iterator" || thread != "alloca";
            assert!(
                stack.is_whole() || !all_known,
                "{way_name} {thread} {stack:#x?}"
            );
            let outwards = stack.frames.is_sorted_by_key(|frame| frame.sp);
            assert!(outwards || thread == "altstack", "{stack:#x?}");
        }
    }
}

#[test]
fn usual_programs() {
    check(&[], true);
}

#[test]
fn programs_at_fixed_addresses() {
    check(&["-no-pie"], true);
}

#[test]
fn stripped_programs() {
    check(&["-s"], false);
}

#[test]
fn static_programs() {
    check(&["-static"], true);
}

#[test]
fn static_programs_at_any_address() {
    check(&["-static-pie"], true);
}

#[test]
fn programs_without_an_index_of_their_tables() {
    check(&["-static", "-Wl,--no-eh-frame-hdr"], true);
}

#[test]
fn programs_with_frame_pointers() {
    let folder = Folder::new();
    let flags = [
        "-O2",
        "-fno-omit-frame-pointer",
        "-fno-asynchronous-unwind-tables",
    ];
    let Some(program) = build(&folder, "subject", &flags) else {
        return;
    };
    let running = Running::start(&program, &[]);
    for (way_name, mut way) in Way::all() {
        let mut inspector = Inspector::default();
        let (stack, _) = poll(
            &mut way,
            &mut inspector,
            running.pid(),
            "mutex",
            |stack, found| {
                stack.end == StackEnd::Root && has(found, &["lock_outer", "in_mutex"])
                    || way_name == "proc" && stack.frames.len() > 1
            },
        );
        assert!(!stack.is_whole());
    }
}

#[test]
fn programs_without_tables_and_frame_pointers() {
    let folder = Folder::new();
    let flags = [
        "-O2",
        "-fomit-frame-pointer",
        "-fno-asynchronous-unwind-tables",
    ];
    let Some(program) = build(&folder, "subject", &flags) else {
        return;
    };
    let running = Running::start(&program, &[]);
    let mut inspector = Inspector::default();
    for (thread, names) in [&THREADS[1], &THREADS[3]] {
        let (stack, named) = poll(
            &mut Way::Proc,
            &mut inspector,
            running.pid(),
            thread,
            |stack, found| stack.end == StackEnd::Root && has(found, names),
        );
        assert!(!stack.is_whole());
        let marked = |name| {
            named
                .user
                .iter()
                .any(|frame| frame.scanned && frame.name.as_deref() == Some(name))
        };
        assert!(*thread != "mutex" || marked("lock_outer"), "{named:#?}");

        // The same where the stack was mapped after the list of mappings was read.
        let process = inspector.processes.get_mut(&running.pid()).unwrap();
        process.stacks.clear();
        process.unwinder.forget_data();
        let again = inspector.stack(running.pid(), stack.tid, None).unwrap();
        assert_eq!(again.end, StackEnd::Root, "{again:#?}");
    }
}

#[test]
fn both_ways_to_registers_agree() {
    let folder = Folder::new();
    let Some(program) = build(&folder, "subject", &USUAL) else {
        return;
    };
    let running = Running::start(&program, &[]);
    let mut ways = Way::all();
    let Some((_, way)) = ways.get_mut(1) else {
        return;
    };
    let mut inspector = Inspector::default();
    for (thread, names) in THREADS {
        let (stack, _) = poll(
            way,
            &mut inspector,
            running.pid(),
            thread,
            |stack, found| stack.is_whole() && has(found, names),
        );
        let mut kernel = stack.registers.unwrap();
        let Snapshot::Blocked(proc) = registers::from_proc(running.pid(), stack.tid).unwrap()
        else {
            panic!("{thread} runs");
        };
        assert!(kernel.bp.take().is_some() && kernel.saved.take().is_some());
        assert_eq!(kernel, proc, "{thread}");
    }
}

#[test]
fn source_lines_and_the_cache() {
    let folder = Folder::new();
    let Some(program) = build(&folder, "subject", &USUAL) else {
        return;
    };
    let running = Running::start(&program, &[]);
    let (mut way, mut inspector) = (Way::Proc, Inspector::default());
    let (stack, named) = poll(
        &mut way,
        &mut inspector,
        running.pid(),
        "mutex",
        |_, found| has(found, &["lock_inner", "lock_outer", "in_mutex"]),
    );
    let frame = named
        .user
        .iter()
        .find(|frame| frame.name.as_deref() == Some("lock_inner"))
        .unwrap();
    assert!(frame.file.as_deref().unwrap().ends_with("subject.c"));
    let line = include_str!("subject.c")
        .lines()
        .position(|line| line.contains("pthread_mutex_lock(&the_mutex);"));
    assert_eq!(frame.line, Some(line.unwrap() as u32 + 1));
    assert_eq!(frame.module.as_deref(), program.to_str());
    assert!(!frame.inlined && !frame.scanned);
    let call = stack.registers.unwrap().call.unwrap();
    assert_eq!(i64::from(call.nr), libc::SYS_futex);
    let registers = stack.registers.unwrap();
    let first = inspector
        .known(running.pid(), stack.tid, &registers)
        .unwrap();
    let again = inspector.stack(running.pid(), stack.tid, None).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    inspector.forget(running.pid());
    assert!(
        inspector
            .known(running.pid(), stack.tid, &registers)
            .is_none()
    );
}

/// Inlined functions come before the one that they were put into; names are as they were written.
#[test]
fn functions_of_cxx_inlined_into_others() {
    let folder = Folder::new();
    let source = folder.0.join("inlined.cc");
    fs::write(&source, CXX).unwrap();
    let program = folder.0.join("inlined");
    let built = Command::new("g++")
        .args(["-O2", "-g", "-o"])
        .args([&program, &source])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no g++");
        return;
    }
    let running = Running::start(&program, &[]);
    let mut inspector = Inspector::default();
    let names = ["inner", "middle", "space::Outer<int>::run"];
    let (_, named) = poll(
        &mut Way::Proc,
        &mut inspector,
        running.pid(),
        "inlined",
        |stack, found| stack.is_whole() && has(found, &names),
    );
    let at = |name: &str| {
        let found = named
            .user
            .iter()
            .find(|frame| frame.name.as_deref().is_some_and(|n| n.contains(name)));
        let frame = found.unwrap();
        (frame.inlined, frame.line.unwrap(), frame.addr)
    };
    let (inner, middle, outer) = (at("inner"), at("middle"), at("Outer"));
    assert!(inner.0 && middle.0 && !outer.0);
    assert_eq!((inner.1, middle.1, outer.1), (3, 5, 9), "{named:#?}");
    assert!(inner.2 == outer.2 && middle.2 == outer.2);
}

#[test]
fn a_deleted_program_keeps_its_names() {
    let folder = Folder::new();
    let Some(program) = build(&folder, "subject", &USUAL) else {
        return;
    };
    let running = Running::start(&program, &[]);
    fs::remove_file(&program).unwrap();
    if fs::read_dir(format!("/proc/{}/map_files", running.pid()))
        .and_then(|mut all| {
            all.next()
                .map_or(Ok(()), |one| fs::metadata(one?.path()).map(drop))
        })
        .is_err()
    {
        eprintln!("skipped: map_files needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE");
        return;
    }
    let mut inspector = Inspector::default();
    poll(
        &mut Way::Proc,
        &mut inspector,
        running.pid(),
        "signal",
        |stack, found| stack.is_whole() && has(found, &["in_handler", "interrupted", "in_signal"]),
    );
}

#[test]
fn python_asleep() {
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        eprintln!("skipped: no {}", python.display());
        return;
    }
    let running = Running::start(python, &["-c", "import time; time.sleep(100000)"]);
    let mut inspector = Inspector::default();
    let mut ways = Way::all();
    let (_, way) = ways.last_mut().unwrap();
    poll(
        way,
        &mut inspector,
        running.pid(),
        "python3",
        |stack, found| stack.is_whole() && has(found, &["_PyEval_EvalFrameDefault", "Py_RunMain"]),
    );
}

#[inline(never)]
fn receive_for_good(from: &mpsc::Receiver<()>) {
    let _ = from.recv();
    std::hint::black_box(());
}

#[test]
fn a_rust_thread() {
    let (end, from) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("rust-subject".into())
        .spawn(move || receive_for_good(&from))
        .unwrap();
    let names = ["receive_for_good", "__rust_begin_short_backtrace"];
    for (way_name, mut way) in Way::all() {
        let mut inspector = Inspector::default();
        let (stack, _) = poll(
            &mut way,
            &mut inspector,
            std::process::id(),
            "rust-subject",
            |stack, found| stack.end == StackEnd::Root && has(found, &names),
        );
        assert!(way_name == "proc" || stack.is_whole(), "{stack:#x?}");
    }
    drop(end);
    thread.join().unwrap();
}

#[test]
fn what_is_gone_or_runs() {
    let mut inspector = Inspector::default();
    assert!(inspector.stack(u32::MAX / 2, 1, None).is_err());
    let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let busy = thread::Builder::new().name("busy".into()).spawn({
        let stop = Arc::clone(&stop);
        move || while !stop.load(Ordering::Relaxed) {}
    });
    let stack = loop {
        let tid = subject::threads(std::process::id()).get("busy").copied();
        let stack = tid.map(|tid| inspector.stack(std::process::id(), tid, None).unwrap());
        if let Some(stack) = stack.filter(|stack| stack.end == StackEnd::Running) {
            break stack;
        }
        assert!(stopped.elapsed().as_secs() < 30);
    };
    stop.store(true, Ordering::Relaxed);
    busy.unwrap().join().unwrap();
    assert!(!stack.is_whole());
    let named = inspector.symbolize(&stack);
    assert_eq!(named.end, Some(StackEnd::Running));
}

#[cfg(feature = "measure")]
fn time(what: &str, count: u32, run: &mut dyn FnMut()) {
    let begun = Instant::now();
    for _ in 0..count {
        run();
    }
    eprintln!("{what}: {:?}", begun.elapsed() / count);
}

/// Prints what a stack costs; `cargo xtask bench --only stacks` runs it.
#[cfg(feature = "measure")]
#[test]
fn times() {
    let folder = Folder::new();
    let program = build(&folder, "subject", &USUAL).unwrap();
    let running = Running::start(&program, &[]);
    let pid = running.pid();
    let mut ways = Way::all();
    let (_, way) = ways.last_mut().unwrap();
    let mut inspector = Inspector::default();
    let mut all = Vec::new();
    for (thread, names) in THREADS {
        let (stack, _) = poll(way, &mut inspector, pid, thread, |_, found| {
            has(found, names)
        });
        all.push((stack.tid, stack.registers.unwrap(), stack.frames.len()));
    }
    time("new process and first stack", 200, &mut || {
        Inspector::default()
            .stack_at(pid, all[1].0, &all[1].1)
            .unwrap();
    });
    for (i, (thread, _)) in THREADS.iter().enumerate() {
        let (tid, registers, frames) = &all[i];
        time(
            &format!("warm, unwind only, {thread}, {frames} frames"),
            20_000,
            &mut || {
                inspector.stack_at(pid, *tid, registers).unwrap();
            },
        );
    }
    time("warm, with the check (kept)", 20_000, &mut || {
        inspector.stack(pid, all[1].0, Some(all[1].1)).unwrap();
    });
    time("warm, with the check (/proc, kept)", 5_000, &mut || {
        inspector.stack(pid, all[1].0, None).unwrap();
    });
    let stack = inspector.stack_at(pid, all[1].0, &all[1].1).unwrap();
    time("names, warm", 5_000, &mut || {
        inspector.symbolize(&stack);
    });
    let begun = Instant::now();
    let mut cold = Inspector::default();
    let stack = cold.stack(pid, all[1].0, Some(all[1].1)).unwrap();
    cold.symbolize(&stack);
    eprintln!("names, all files new: {:?}", begun.elapsed());
    if let Way::Iterator(table) = way {
        let threads = table.read(None).unwrap().len();
        time(
            &format!("registers of all {threads} threads"),
            200,
            &mut || {
                table.read(None).unwrap();
            },
        );
    }
}

/// A page of this process at a place of its own.
struct Page(*mut libc::c_void);

impl Page {
    fn at(addr: u64) -> Page {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: a new mapping, which replaces none.
        let page = unsafe {
            libc::mmap(
                addr as *mut libc::c_void,
                4_096,
                libc::PROT_READ,
                flags,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Page(page)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and nobody has a reference into it.
        unsafe { libc::munmap(self.0, 4_096) };
    }
}

/// One is unmapped below the code and another one mapped above it, as stacks of threads are: as many as before, but each
/// in another place among them.
#[test]
fn mappings_come_and_go() {
    let below = Page::at(0x1000_0000);
    let mut unwinder = Unwinder::of(std::process::id()).unwrap();
    let mut code: Vec<u64> = unwinder.mappings().iter().map(|one| one.start).collect();
    code.retain(|start| unwinder.in_file(*start).is_some());
    assert!(code.len() > 1, "{code:x?}");
    let stack = unwinder
        .mappings()
        .iter()
        .find(|one| &*one.path == "[stack]");
    let above = stack.unwrap().start - (64 << 20);
    drop(below);
    let _above = Page::at(above);
    unwinder.refresh().unwrap();
    for start in code {
        assert!(unwinder.in_file(start).is_some(), "{start:#x}");
    }
}
