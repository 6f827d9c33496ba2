//! HotSpot's threads and what they wait for, from its memory: monitors, which name their owners, and what a thread
//! that parks says that it parks for.

use std::sync::OnceLock;

use super::{Way, layout::Layout, objects::Objects};
use crate::{inspect::memory::Memory, runtimes::Process};

/// Threads of a machine that are looked at.
const MAX_THREADS: usize = 16_384;
/// Bits of a thread's state, as the tool interface defines them (`jvmtiThreadState` in jvmti.h).
const ENTERS_MONITOR: u32 = 0x400;
const PARKED: u32 = 0x200;
/// What locks of `java.util.concurrent` that have one owner are made of.
const OWNABLE: &str = "java/util/concurrent/locks/AbstractOwnableSynchronizer";

/// A Java virtual machine in a process.
#[derive(Clone, Debug)]
pub struct Machine {
    layout: Layout,
    fields: Fields,
}

/// Where in Java's objects fields are; found when one is met for the first time.
#[derive(Clone, Debug, Default)]
struct Fields {
    thread_name: OnceLock<u64>,
    thread_status: OnceLock<u64>,
    thread_blocker: OnceLock<u64>,
    thread_native: OnceLock<u64>,
    string_value: OnceLock<u64>,
    string_coder: OnceLock<u64>,
    owner: OnceLock<u64>,
}

/// What a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// In which way.
    pub way: Way,
    /// The monitor; of a parked thread the object.
    pub lock: u64,
    /// Class of the object; a collector that moves objects while the program runs may hide it.
    pub class: Option<String>,
    /// Who has it.
    pub owner: OwnedBy,
}

/// Who has a monitor or a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnedBy {
    /// No thread, by what is recorded.
    Nobody,
    /// The `JavaThread` at this address, which is in the machine's list.
    Thread(u64),
    /// What is recorded is no thread of the list.
    Other,
}

impl Machine {
    /// The machine of a process, if its library is mapped; or why it cannot be read.
    pub(in crate::runtimes) fn of(
        process: &Process,
        memory: &dyn Memory,
    ) -> Option<Result<Machine, String>> {
        let mut files = process.files.iter();
        files.find(|name| name.starts_with("libjvm.so"))?;
        Some(Layout::of(process, memory).map(|layout| Machine {
            layout,
            fields: Fields::default(),
        }))
    }

    /// `17.0.15+6`
    pub fn release(&self) -> &str {
        &self.layout.release
    }

    /// Is more known than monitors that threads are about to enter?
    pub fn is_whole(&self) -> bool {
        self.layout.whole
    }

    /// Addresses of its threads.
    pub fn threads(&self, memory: &dyn Memory) -> Vec<u64> {
        let read = || {
            let list = memory.u64(self.layout.thread_list)?;
            let length = memory.u32(list.wrapping_add(self.layout.list_length))? as usize;
            let array = memory.u64(list.wrapping_add(self.layout.list_threads))?;
            let mut bytes = vec![0; 8 * length.min(MAX_THREADS)];
            memory.read(array, &mut bytes).then(|| words(&bytes))
        };
        read().unwrap_or_default()
    }

    /// For each of the threads its number, as its own process knows it.
    pub fn natives(&self, memory: &dyn Memory, threads: &[u64]) -> Vec<Option<u32>> {
        let at = |of: &[u64], offset: u64| {
            let places: Vec<u64> = of.iter().map(|one| one.wrapping_add(offset)).collect();
            many(memory, &places)
        };
        let os: Vec<u64> = at(threads, self.layout.osthread)
            .into_iter()
            .map(|one| one.unwrap_or(0))
            .collect();
        at(&os, self.layout.thread_id)
            .into_iter()
            .map(|one| one.map(|one| one as u32).filter(|native| *native != 0))
            .collect()
    }

    /// A thread's name.
    pub fn name(&self, memory: &dyn Memory, thread: u64) -> Option<String> {
        let objects = Objects::of(memory, &self.layout)?;
        let object = objects.behind(thread.wrapping_add(self.layout.thread_object))?;
        let at = of_thread(&objects, object, &self.fields.thread_name, "name")?;
        let name = objects.reference(object, at)?;
        let class = objects.ancestor(objects.class_of(name)?, "java/lang/String")?;
        let value = known(&self.fields.string_value, || objects.field(class, "value"))?;
        let coder = known(&self.fields.string_coder, || objects.field(class, "coder"))?;
        objects
            .text(name, value, coder)
            .filter(|name| !name.is_empty())
    }

    /// What a thread waits for, if it is something of Java's. `threads`: all of the machine's.
    pub fn wait(&self, memory: &dyn Memory, thread: u64, threads: &[u64]) -> Option<Wait> {
        let objects = Objects::of(memory, &self.layout)?;
        let monitor = |field: u64| memory.u64(thread.wrapping_add(field));
        let pending = monitor(self.layout.pending)?;
        if pending != 0 {
            return self.monitor(memory, &objects, pending, Way::Enter, threads);
        }
        let object = objects.behind(thread.wrapping_add(self.layout.thread_object))?;
        let at = of_thread(&objects, object, &self.fields.thread_status, "threadStatus")?;
        let status = memory.u32(object.wrapping_add(at))?;
        let waiting = monitor(self.layout.waiting)?;
        if waiting != 0 {
            // Who was notified has to enter the monitor again.
            let way = if status & ENTERS_MONITOR != 0 {
                Way::Enter
            } else {
                Way::Notified
            };
            return self.monitor(memory, &objects, waiting, way, threads);
        }
        if status & PARKED == 0 {
            return None;
        }
        let at = of_thread(&objects, object, &self.fields.thread_blocker, "parkBlocker")?;
        let blocker = objects.reference(object, at)?;
        Some(Wait {
            way: Way::Parked,
            lock: blocker,
            class: Some(objects.class_name(blocker)?),
            owner: self
                .owner(memory, &objects, blocker, threads)
                .unwrap_or(OwnedBy::Nobody),
        })
    }

    fn monitor(
        &self,
        memory: &dyn Memory,
        objects: &Objects<'_>,
        monitor: u64,
        way: Way,
        threads: &[u64],
    ) -> Option<Wait> {
        let object = objects.behind(monitor.wrapping_add(self.layout.monitor_object));
        let owner = memory.u64(monitor.wrapping_add(self.layout.monitor_owner))?;
        let owner = if owner == 0 {
            OwnedBy::Nobody
        } else if threads.contains(&owner) {
            OwnedBy::Thread(owner)
        } else {
            // It was locked before somebody else wanted it: then the owner is told by a place on its stack.
            self.on_stack(memory, threads, owner)
        };
        Some(Wait {
            way,
            lock: monitor,
            class: object.and_then(|object| objects.class_name(object)),
            owner,
        })
    }

    /// The only thread whose stack an address is on.
    fn on_stack(&self, memory: &dyn Memory, threads: &[u64], address: u64) -> OwnedBy {
        let places: Vec<u64> = threads
            .iter()
            .flat_map(|thread| {
                [self.layout.stack_base, self.layout.stack_size]
                    .map(|field| thread.wrapping_add(field))
            })
            .collect();
        let read = many(memory, &places);
        let mut found = OwnedBy::Other;
        for (thread, stack) in threads.iter().zip(read.chunks_exact(2)) {
            if let [Some(base), Some(size)] = stack
                && address < *base
                && base - address <= *size
            {
                if found != OwnedBy::Other {
                    return OwnedBy::Other;
                }
                found = OwnedBy::Thread(*thread);
            }
        }
        found
    }

    /// The thread that a lock of `java.util.concurrent` records; `None`: the object is none that does.
    fn owner(
        &self,
        memory: &dyn Memory,
        objects: &Objects<'_>,
        lock: u64,
        threads: &[u64],
    ) -> Option<OwnedBy> {
        let class = objects.ancestor(objects.class_of(lock)?, OWNABLE)?;
        let at = known(&self.fields.owner, || {
            objects.field(class, "exclusiveOwnerThread")
        })?;
        let Some(owner) = objects.reference(lock, at) else {
            return Some(OwnedBy::Nobody);
        };
        let at = of_thread(objects, owner, &self.fields.thread_native, "eetop")?;
        let thread = memory.u64(owner.wrapping_add(at))?;
        // The two name each other.
        let same = threads.contains(&thread)
            && objects.behind(thread.wrapping_add(self.layout.thread_object)) == Some(owner);
        Some(if same {
            OwnedBy::Thread(thread)
        } else {
            OwnedBy::Other
        })
    }
}

/// Where in `java.lang.Thread`, of which `object` is one, a field is.
fn of_thread(objects: &Objects<'_>, object: u64, cell: &OnceLock<u64>, name: &str) -> Option<u64> {
    known(cell, || {
        let class = objects.class_of(object)?;
        objects.field(objects.ancestor(class, "java/lang/Thread")?, name)
    })
}

/// What is found once, and is the same from then on.
fn known(cell: &OnceLock<u64>, find: impl FnOnce() -> Option<u64>) -> Option<u64> {
    match cell.get() {
        Some(value) => Some(*value),
        None => find().map(|value| *cell.get_or_init(|| value)),
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks_exact(8);
    words
        .filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)))
        .collect()
}

/// Many words in few system calls.
fn many(memory: &dyn Memory, places: &[u64]) -> Vec<Option<u64>> {
    let mut buffers = vec![[0; 8]; places.len()];
    let mut parts: Vec<(u64, &mut [u8])> = places
        .iter()
        .copied()
        .zip(buffers.iter_mut().map(|buffer| &mut buffer[..]))
        .collect();
    let read = memory.read_many(&mut parts);
    let all = read.into_iter().zip(buffers);
    all.map(|(read, word)| read.then(|| u64::from_le_bytes(word)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{inspect::exports::Symbol, runtimes::jvm::EXPORTS};

    /// Memory that is all there, and in which anything may be; of each seed another.
    struct Noise {
        seed: u64,
        /// Words point to the memory itself, as far as they are not small numbers.
        pointers: bool,
    }

    impl Noise {
        fn word(&self, at: u64) -> u64 {
            let mut x = at ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^= x >> 31;
            match x % 4 {
                _ if !self.pointers => x,
                0 => x >> 60,
                1 => x >> 58 << 3,
                _ => x & 0xffff8,
            }
        }
    }

    impl Memory for Noise {
        fn read(&self, addr: u64, into: &mut [u8]) -> bool {
            for (i, byte) in into.iter_mut().enumerate() {
                let at = addr.wrapping_add(i as u64);
                *byte = self.word(at & !7).to_le_bytes()[(at & 7) as usize];
            }
            true
        }
    }

    fn look(machine: &Machine, memory: &dyn Memory) {
        let threads = machine.threads(memory);
        assert!(threads.len() <= MAX_THREADS);
        let natives = machine.natives(memory, &threads);
        assert_eq!(natives.len(), threads.len());
        for thread in threads.into_iter().take(8).chain([0, 8, u64::MAX]) {
            let all = [thread, 16];
            let _ = machine.name(memory, thread);
            if let Some(wait) = machine.wait(memory, thread, &all) {
                assert!(wait.class.is_none_or(|class| !class.is_empty()));
                if let OwnedBy::Thread(owner) = wait.owner {
                    assert!(all.contains(&owner));
                }
            }
        }
    }

    #[test]
    fn any_memory_is_survived() {
        for seed in 0..100 {
            let memory = Noise {
                seed,
                pointers: seed % 2 == 0,
            };
            let word = |i: u64| memory.word(seed << 20 | i << 3) & 0xfff8;
            let machine = Machine {
                layout: Layout::any(word),
                fields: Fields::default(),
            };
            look(&machine, &memory);
        }
    }

    #[test]
    fn any_tables_are_survived() {
        let symbols: HashMap<String, Symbol> = EXPORTS
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let addr = 0x1000 + 8 * i as u64;
                ((*name).to_owned(), Symbol { addr, size: 8 })
            })
            .collect();
        for seed in 0..100 {
            let process = Process {
                files: vec!["libjvm.so".to_owned()],
                symbols: symbols.clone(),
                ..Process::default()
            };
            let memory = Noise {
                seed,
                pointers: true,
            };
            if let Ok(machine) = Machine::of(&process, &memory).unwrap() {
                look(&machine, &memory);
            }
        }
    }

    #[test]
    fn without_a_library_there_is_no_machine() {
        let memory = Noise {
            seed: 1,
            pointers: true,
        };
        assert!(Machine::of(&Process::default(), &memory).is_none());
        let process = Process {
            files: vec!["libjvm.so".to_owned()],
            ..Process::default()
        };
        let why = Machine::of(&process, &memory).unwrap().unwrap_err();
        assert!(why.contains("gHotSpotVMStructs"), "{why}");
    }
}
