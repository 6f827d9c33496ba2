//! Threads that wait for each other.

use std::sync::{Arc, Mutex};

use crate::truth::{Point, Truth, asleep, start};

static FIRST: Mutex<u64> = Mutex::new(0);
static SECOND: Mutex<u64> = Mutex::new(0);
static POINTS: [Point; 2] = [Point::new(), Point::new()];

/// Takes one lock, and the other one when both threads have theirs.
fn take_both(own: &Mutex<u64>, next: &Mutex<u64>, number: usize) {
    let own = own.lock();
    POINTS[number].reach();
    POINTS[1 - number].wait();
    drop(next.lock());
    drop(own);
}

fn say(truth: &mut Truth, ab: u32, ba: u32, names: [&str; 2]) {
    asleep(ab);
    asleep(ba);
    truth.waits(ab, "rust_mutex", Some(names[1]), Some(ba));
    truth.waits(ba, "rust_mutex", Some(names[0]), Some(ab));
    truth.circle(&[ab, ba]);
}

pub(crate) fn mutexes(truth: &mut Truth) {
    let ab = start("ab", || take_both(&FIRST, &SECOND, 0));
    let ba = start("ba", || take_both(&SECOND, &FIRST, 1));
    let names = ["truth::crossed::FIRST", "truth::crossed::SECOND"];
    say(truth, ab, ba, names);
}

pub(crate) fn arcs(truth: &mut Truth) {
    let first = Arc::new(Mutex::new(0));
    let second = Arc::new(Mutex::new(0));
    let (one, two) = (Arc::clone(&first), Arc::clone(&second));
    let ab = start("ab", move || take_both(&one, &two, 0));
    let ba = start("ba", move || take_both(&second, &first, 1));
    let name = "lock in truth::crossed::take_both";
    say(truth, ab, ba, [name, name]);
}
