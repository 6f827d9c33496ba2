//! A host as large as observer is made for.

use super::scenes::*;
use crate::{
    event::{Event, Kind, Wait},
    model::{Limits, Model},
};

/// The largest host that observer is made for; how long a frame takes is printed.
#[test]
fn a_large_host_is_drawn_from_its_visible_rows() {
    let mut model = Model::new(Limits::default());
    model.apply(Event::Meta(meta()));
    for n in 0..100_000u64 {
        let mut totals = totals(
            START + SECOND,
            0x10_0000 + n * 64,
            None,
            n * 7919 % 100_003 + 1,
        );
        totals.histogram.clear();
        model.apply(Event::Lock(totals));
    }
    for n in 0..10_000u32 {
        let wait = blocked(
            START + SECOND,
            10_000 + n,
            "worker",
            Kind::Lock,
            u64::from(n) * MS,
        );
        model.apply(Event::Blocked(wait));
        model.apply(Event::Wait(wait_of(n)));
    }
    let mut driver = Driver::new(200, 50);
    driver.show(&model);
    for (what, keys) in [
        ("blocked", "1"),
        ("waits", "3"),
        ("locks", "2"),
        ("locks, selected", "jjj"),
        ("locks, last", "G"),
        ("locks, filtered", "/ledgerx"),
    ] {
        driver.keys(keys, &model);
        let start = std::time::Instant::now();
        let screen = driver.show(&model);
        println!("{what}: {:?}", start.elapsed());
        assert!(
            screen.contains("100000") || !what.starts_with("locks"),
            "{screen}"
        );
    }
}

fn wait_of(n: u32) -> Wait {
    wait(
        START + 2 * SECOND + u64::from(n),
        200_000 + n,
        "worker",
        5 * MS,
    )
}
