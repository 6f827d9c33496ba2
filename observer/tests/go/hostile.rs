//! Processes that end, looks that take too long, and memory that does not hold what it should.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use observer::{
    inspect::memory::{Memory, ProcessMemory},
    runtimes::go::{Limits, Refused, Target, Tracker, cycles, orphan_channels, writer_starvation},
};

use crate::program::{Form, name, with_each};

#[test]
fn a_process_that_ends_is_gone() {
    with_each(name!(), &[Form::Normal], |program| {
        let mut scene = program.play(&["channels"]);
        let mut target = scene.target();
        target.snapshot(&Limits::default()).unwrap();
        scene.kill();
        assert_eq!(
            target.snapshot(&Limits::default()).unwrap_err(),
            Refused::Gone
        );
    });
}

#[test]
fn a_process_that_becomes_another_is_gone() {
    with_each(name!(), &[Form::Normal], |program| {
        let mut scene = program.play(&["again"]);
        let mut target = scene.target();
        target.snapshot(&Limits::default()).unwrap();
        // The same program, in the same process, from its beginning.
        scene.tell("grow");
        assert_eq!(
            target.snapshot(&Limits::default()).unwrap_err(),
            Refused::Gone
        );
        assert_eq!(scene.look().total, scene.truth.goroutines);
    });
}

#[test]
fn a_process_may_end_at_any_moment() {
    with_each(name!(), &[Form::Stripped], |program| {
        for _ in 0..5 {
            let mut scene = program.play(&["many", "5000"]);
            let mut target = scene.target();
            let reader = std::thread::spawn(move || {
                let mut looks = 0;
                while let Ok(inventory) = target.snapshot(&Limits::default()) {
                    assert!(inventory.total <= 5_010);
                    looks += 1;
                }
                looks
            });
            std::thread::sleep(Duration::from_millis(20));
            scene.kill();
            reader.join().unwrap();
        }
    });
}

#[test]
fn limits_are_kept_and_what_is_left_out_is_counted() {
    with_each(name!(), &[Form::Normal], |program| {
        let scene = program.play(&["many", "5000"]);
        let mut target = scene.target();
        let few = Limits {
            goroutines: 100,
            ..Limits::default()
        };
        let inventory = target.snapshot(&few).unwrap();
        assert!(
            inventory.goroutines.len() <= 100 && inventory.left_out >= 4_900,
            "{program:?}"
        );
        let no_time = Limits {
            time: Duration::ZERO,
            ..Limits::default()
        };
        let inventory = target.snapshot(&no_time).unwrap();
        assert!(
            inventory.goroutines.is_empty() && inventory.left_out >= 5_000,
            "{program:?}"
        );
    });
}

/// Memory that lies: some of the bits that are read of it are others than those that are there.
struct Lying {
    memory: ProcessMemory,
    random: Cell<u64>,
    /// One bit in so many bytes is changed; 0: everything is noise.
    one_in: u64,
    /// One read in so many fails; 0: none.
    fails: u64,
    /// So many reads are true.
    honest: Cell<u64>,
}

impl Lying {
    fn about(pid: u32, seed: u64, one_in: u64, fails: u64, honest: u64) -> Lying {
        Lying {
            memory: ProcessMemory::of(pid),
            random: Cell::new(seed * 2 + 1),
            one_in,
            fails,
            honest: Cell::new(honest),
        }
    }

    /// Xorshift: the same numbers from the same seed.
    fn next(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Memory for Lying {
    fn read(&self, addr: u64, into: &mut [u8]) -> bool {
        if self.honest.get() > 0 {
            self.honest.set(self.honest.get() - 1);
            return self.memory.read(addr, into);
        }
        if self.fails > 0 && self.next().is_multiple_of(self.fails) {
            return false;
        }
        if self.one_in == 0 {
            for chunk in into.chunks_mut(8) {
                let word = self.next().to_le_bytes();
                chunk.copy_from_slice(&word[..chunk.len()]);
            }
            return true;
        }
        if !self.memory.read(addr, into) {
            return false;
        }
        let mut at = self.next() % (2 * self.one_in);
        while (at as usize) < into.len() {
            into[at as usize] ^= 1 << (self.next() % 8);
            at += 1 + self.next() % (2 * self.one_in);
        }
        true
    }
}

/// Two looks, which may fail, but have to end.
fn look_at(pid: u32, memory: Lying) -> (bool, usize) {
    let limits = Limits {
        time: Duration::from_millis(300),
        ..Limits::default()
    };
    let start = Instant::now();
    let target = Target::open_with(pid, memory);
    let is_open = target.is_ok();
    let mut found = 0;
    if let Ok(mut target) = target {
        for _ in 0..2 {
            if let Ok(mut inventory) = target.snapshot(&limits) {
                found = inventory.goroutines.len();
                Tracker::default().observe(&mut inventory);
                let _ = (
                    inventory.groups(),
                    cycles(&inventory),
                    orphan_channels(&inventory),
                    writer_starvation(&inventory),
                );
                serde_json::to_string(&inventory).unwrap();
            }
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    (is_open, found)
}

#[test]
fn memory_that_lies_is_survived() {
    with_each(name!(), &[Form::Stripped], |program| {
        for scene in ["channels", "writer", "labels"] {
            let scene = program.play(&[scene]);
            let pid = scene.pid();
            let mut opened = 0;
            for seed in 1..=12 {
                for one_in in [64, 1024, 16_384, 1 << 20] {
                    let (is_open, _) = look_at(pid, Lying::about(pid, seed, one_in, 0, 0));
                    opened += usize::from(is_open);
                }
            }
            assert!(
                opened > 0,
                "{program:?}: nothing got as far as the goroutines"
            );
        }
    });
}

#[test]
fn memory_that_turns_to_noise_is_survived() {
    with_each(name!(), &[Form::Stripped], |program| {
        let scene = program.play(&["channels"]);
        let pid = scene.pid();
        for honest in (1..24).chain((24..2_000).step_by(97)) {
            for (one_in, fails) in [(0, 0), (0, 3), (1 << 40, 2)] {
                look_at(pid, Lying::about(pid, honest, one_in, fails, honest));
            }
        }
    });
}
