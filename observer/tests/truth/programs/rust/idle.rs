//! Threads that wait for work.

use std::sync::{Barrier, Condvar, Mutex, mpsc};

use crate::truth::{Truth, asleep, start};

static QUEUE: Mutex<u64> = Mutex::new(0);
static WORK: Condvar = Condvar::new();
static PARKING_QUEUE: parking_lot::Mutex<u64> = parking_lot::Mutex::new(0);
static PARKING_WORK: parking_lot::Condvar = parking_lot::Condvar::new();

fn idle(truth: &mut Truth, class: &str, body: impl FnOnce() + Send + 'static) {
    let worker = start("idle", body);
    asleep(worker);
    truth.idle(worker, class);
}

pub(crate) fn std(truth: &mut Truth) {
    static PHASE: std::sync::LazyLock<Barrier> = std::sync::LazyLock::new(|| Barrier::new(3));
    for _ in 0..2 {
        idle(truth, "rust_condvar", || {
            let mut queue = QUEUE
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            while let Ok(again) = WORK.wait(queue) {
                queue = again;
            }
        });
        // Made of a condition variable.
        idle(truth, "rust_condvar", || {
            PHASE.wait();
        });
    }
    idle(truth, "rust_park", std::thread::park);
    let (send, receive) = mpsc::channel::<u64>();
    // Nobody ever sends.
    std::mem::forget(send);
    idle(truth, "rust_park", move || {
        let _ = receive.recv();
    });
    idle(truth, "rust_park", || {
        std::thread::scope(|scope| {
            scope.spawn(|| crate::truth::rest());
        });
    });
}

pub(crate) fn parking(truth: &mut Truth) {
    for _ in 0..2 {
        idle(truth, "parking_lot_condvar", || {
            let mut queue = PARKING_QUEUE.lock();
            loop {
                PARKING_WORK.wait(&mut queue);
            }
        });
    }
}
