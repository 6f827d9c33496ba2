//! Each parser on what real programs have, damaged in one place after another; and lists that are too long.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use observer::{
    inspect::memory::{Memory, ProcessMemory},
    runtimes::go::{Limits, Refused, Target, table_in},
};
use serde_json::Value;

use crate::{
    layouts::TABLE,
    program::{Form, LIMIT, Scene, name, skip, with_each},
};

/// Xorshift: the same numbers from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % end
    }
}

/// Where a section lies in the file.
fn section(file: &[u8], name: &str) -> std::ops::Range<usize> {
    let parsed = object::File::parse(file).unwrap();
    let (at, size) = parsed.section_by_name(name).unwrap().file_range().unwrap();
    at as usize..(at + size) as usize
}

/// The address of a symbol.
fn symbol(path: &Path, name: &str) -> u64 {
    let file = fs::read(path).unwrap();
    let parsed = object::File::parse(&*file).unwrap();
    let mut symbols = parsed.symbols();
    symbols
        .find(|one| one.name() == Ok(name))
        .unwrap()
        .address()
}

#[test]
fn damaged_debug_information_is_survived() {
    with_each(name!(), &[Form::Normal], |program| {
        let whole = program.uncompressed();
        assert!(table_in(&whole).unwrap().is_some(), "{program:?}");
        let (info, abbrev) = (
            section(&whole, ".debug_info"),
            section(&whole, ".debug_abbrev"),
        );
        let mut random = Random(7);
        let mut refused = 0;
        let mut look = |file: &[u8]| refused += usize::from(table_in(file).is_err());
        let mut file = whole.clone();
        for i in 0..60 {
            let range = if i % 3 == 0 { &info } else { &abbrev };
            let at = range.start + random.below(range.len());
            let kept = file[at];
            file[at] ^= 1 << random.below(8);
            look(&file);
            file[at] = kept;
        }
        for _ in 0..20 {
            let end = random.below(whole.len());
            look(&whole[..end]);
            // All that comes later is zero.
            let from = abbrev.start + random.below(abbrev.len());
            file[from..abbrev.end].fill(0);
            look(&file);
            file.copy_from_slice(&whole);
        }
        assert!(refused > 10, "{program:?}: {refused}");
    });
}

#[test]
fn compressed_debug_information_may_lie_about_its_size() {
    with_each(name!(), &[Form::Normal], |program| {
        let mut file = fs::read(program.path()).unwrap();
        let at = section(&file, ".debug_info").start;
        for size in [0u64, 1, 1 << 40, u64::MAX] {
            file[at + 8..at + 16].copy_from_slice(&size.to_le_bytes());
            // None at all is an answer too.
            let said = table_in(&file);
            assert!(!matches!(said, Ok(Some(_))), "{program:?} {size}");
        }
    });
}

/// Memory with one word that is another, and none from an address on to another.
struct Damaged {
    memory: ProcessMemory,
    at: u64,
    xor: u64,
    missing: (u64, u64),
}

impl Memory for Damaged {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        let end = addr.saturating_add(into.len() as u64);
        if addr < self.missing.1 && end > self.missing.0 {
            return false;
        }
        if !self.memory.read(addr, into) {
            return false;
        }
        for (i, byte) in self.xor.to_le_bytes().into_iter().enumerate() {
            let at = self.at + i as u64;
            if (addr..end).contains(&at) {
                into[(at - addr) as usize] ^= byte;
            }
        }
        true
    }
}

/// Opens and looks: it may fail, but has to end.
fn look(scene: &Scene, memory: Damaged) -> bool {
    let limits = Limits {
        time: Duration::from_millis(300),
        ..Limits::default()
    };
    match scene.open_with(memory) {
        Ok(mut target) => {
            if let Ok(inventory) = target.snapshot(&limits) {
                serde_json::to_string(&inventory).unwrap();
            }
            true
        }
        Err(why) => {
            assert!(!why.to_string().is_empty());
            false
        }
    }
}

#[test]
fn damaged_tables_are_survived() {
    with_each(name!(), &[Form::Normal, Form::Arm64], |program| {
        let scene = program.play(&["channels"]);
        let pid = scene.pid();
        let module = symbol(program.path(), "runtime.firstmoduledata");
        let table = ProcessMemory::of(pid).u64(module).unwrap();
        let damaged = |at, xor, missing| {
            let memory = ProcessMemory::of(pid);
            look(
                &scene,
                Damaged {
                    memory,
                    at,
                    xor,
                    missing,
                },
            )
        };
        assert!(damaged(0, 0, (0, 0)), "{program:?}");
        let mut random = Random(11);
        let mut refused = 0;
        // The moduledata, word by word: near, far, and nowhere.
        for word in (0..600).step_by(16) {
            let xor = [1, 0x1_0000, 1 << 40, u64::MAX][random.below(4)];
            refused += u32::from(!damaged(module + word, xor, (0, 0)));
        }
        // The pclntab: its header, and anywhere.
        for i in 0..32 {
            let far = random.below(1 << 18) as u64;
            let at = if i < 10 { i * 8 } else { far };
            let xor = u64::MAX >> random.below(64);
            refused += u32::from(!damaged(table + at, xor, (0, 0)));
            // And from there on there is nothing.
            if i % 4 == 0 {
                let nothing = (table + at, table + (1 << 24));
                refused += u32::from(!damaged(0, 0, nothing));
            }
        }
        assert!(refused > 10, "{program:?}: {refused}");
    });
}

#[test]
fn forged_build_information_is_refused() {
    with_each(name!(), &[Form::Stripped], |program| {
        // A release that is longer than the section, and one that is none.
        for (at, bytes) in [(32, &[0xff, 0xff, 0xff, 0x7f][..]), (33, b"no1.")] {
            let scene = program.with_build_info(at, bytes).play(&["channels"]);
            match Target::open(scene.pid()) {
                Err(Refused::Odd(why)) => assert!(why.contains("release"), "{why}"),
                other => panic!("{program:?}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_program_that_only_says_it_is_go_is_refused() {
    let folder = std::env::temp_dir().join(format!("observer-go-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (source, program) = (folder.join("not.s"), folder.join("not"));
    // It waits for the end of standard input.
    let text = "
        .section .go.buildinfo, \"aw\"
        .ascii \"\\377 Go buildinf:\\010\\002\"
        .fill 16, 1, 0
        .ascii \"\\010go1.27.3\\0\"
        .text
        .globl _start
        _start: xor %eax, %eax
        xor %edi, %edi
        lea -8(%rsp), %rsi
        mov $1, %edx
        syscall
        mov $60, %eax
        syscall
    ";
    fs::write(&source, text).unwrap();
    let built = Command::new("gcc")
        .args(["-nostdlib", "-static", "-o"])
        .args([&program, &source])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        skip(name!(), "no gcc: `cargo xtask test` installs it");
        return;
    }
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let why = loop {
        let why = Target::open(child.id()).unwrap_err();
        // While it is being started it is this program, or none.
        if matches!(why, Refused::Layout { .. }) || start.elapsed() > LIMIT {
            break why;
        }
    };
    drop(child.stdin.take());
    child.wait().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let said = why.to_string();
    assert!(
        said.contains("go1.27.3") && said.contains("pclntab"),
        "{said}"
    );
}

#[test]
fn a_process_may_become_another_at_any_moment() {
    with_each(name!(), &[Form::Normal], |program| {
        let mut scene = program.play(&["again"]);
        let pid = scene.pid();
        let looks = Arc::new(AtomicU32::new(0));
        let (count, stop) = (Arc::clone(&looks), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let Ok(mut target) = Target::open(pid) else {
                    continue;
                };
                for _ in 0..5 {
                    let Ok(inventory) = target.snapshot(&Limits::default()) else {
                        break;
                    };
                    assert!(inventory.total < 100, "{inventory:#?}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let start = Instant::now();
        let mut rounds = 0;
        while rounds < 10 || looks.load(Ordering::Relaxed) == 0 {
            // One that is always just beginning is hardly ever seen.
            if rounds < 10 {
                scene.tell("grow");
                rounds += 1;
            }
            assert!(start.elapsed() < LIMIT && !reader.is_finished());
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert_eq!(scene.look().total, scene.truth.goroutines);
    });
}

/// Memory of a process with far more goroutines than it has: each looks like one that it has.
struct Crowd {
    memory: ProcessMemory,
    count: u64,
    one: Vec<u8>,
    goid: usize,
    own: usize,
    length: u64,
    first: u64,
}

/// Where the list and the goroutines seem to be.
const LIST: u64 = 0x2000_0000_0000;
const CROWD: u64 = 0x3000_0000_0000;
const ROOM: u64 = 512;

impl Memory for Crowd {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        if addr == self.length || addr == self.first {
            let word = if addr == self.length {
                self.count
            } else {
                LIST
            };
            into[..8].copy_from_slice(&word.to_le_bytes());
        } else if (LIST..LIST + self.count.min(1 << 30) * 8).contains(&addr) {
            for (i, word) in into.chunks_mut(8).enumerate() {
                let g = CROWD + ((addr - LIST) / 8 + i as u64) * ROOM;
                word.copy_from_slice(&g.to_le_bytes()[..word.len()]);
            }
        } else if (CROWD..CROWD + self.count.min(1 << 30) * ROOM).contains(&addr) {
            let mut done = 0;
            while done < into.len() {
                let at = addr + done as u64 - CROWD;
                let (number, from) = (at / ROOM, (at % ROOM) as usize);
                let mut one = self.one.clone();
                one[self.goid..self.goid + 8].copy_from_slice(&(number + 1_000).to_le_bytes());
                let own = CROWD + number * ROOM;
                one[self.own..self.own + 8].copy_from_slice(&own.to_le_bytes());
                one.resize(ROOM as usize, 0);
                let length = (into.len() - done).min(one.len() - from);
                into[done..done + length].copy_from_slice(&one[from..from + length]);
                done += length;
            }
        } else {
            return self.memory.read(addr, into);
        }
        true
    }
}

#[test]
fn a_million_goroutines_are_bounded() {
    let table: Value = serde_json::from_str(TABLE).unwrap();
    with_each(name!(), &[Form::Normal], |program| {
        let scene = program.play(&["channels"]);
        let memory = ProcessMemory::of(scene.pid());
        let (length, first) = (
            symbol(program.path(), "runtime.allglen"),
            symbol(program.path(), "runtime.allgptr"),
        );
        let minor: Vec<&str> = program.release.split('.').take(2).collect();
        let layout = &table["releases"][minor.join(".").trim_start_matches("go")];
        let at = |of: &str, field: &str| layout[of][field].as_u64().unwrap() as usize;
        let (goid, own) = (at("g", "goid"), at("g", "sched") + at("gobuf", "g"));
        let all = memory.u64(first).unwrap();
        let wanted = scene.truth.goid("sender");
        let addrs = (0..memory.u64(length).unwrap()).map(|i| memory.u64(all + i * 8).unwrap());
        let mut found = addrs.filter(|g| memory.u64(g + goid as u64) == Some(wanted));
        let mut one = vec![0; at("g", "size")];
        assert!(memory.read(found.next().unwrap(), &mut one));
        // All of them; as many as there is time for; and more than there can be.
        for (count, seconds) in [(50_000, 60), (1_000_000, 1), (1 << 40, 1)] {
            let crowd = Crowd {
                memory,
                count,
                one: one.clone(),
                goid,
                own,
                length,
                first,
            };
            let limits = Limits {
                time: Duration::from_secs(seconds),
                ..Limits::default()
            };
            let start = Instant::now();
            let mut target = Target::open_with(scene.pid(), crowd).unwrap();
            let inventory = target.snapshot(&limits).unwrap();
            let seen = (inventory.goroutines.len() + inventory.torn + inventory.left_out) as u64;
            assert_eq!(seen, count, "{program:?}");
            let groups = inventory.groups();
            let largest = groups.first().map_or(0, |group| group.count);
            assert_eq!(largest, inventory.goroutines.len(), "{program:?}");
            assert!(count > 50_000 || largest == 50_000, "{program:?}");
            assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
        }
    });
}
