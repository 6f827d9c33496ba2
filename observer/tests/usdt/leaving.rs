//! What is left behind: nothing, however observer or the program ends.

use crate::{
    harness::{Mode, Observer, Skip, Tested, alone, event::of, name, signal},
    shop::{Shop, WAIT, in_both_ways, waits},
};

#[test]
fn the_semaphore_is_zero_again() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            assert_eq!(shop.semaphore(), 0);
            let observer = shop.watched(way, &[]);
            assert!(shop.semaphore() > 0);
            observer.stop();
            shop.wait_until_nobody_listens();
            Ok(())
        })
    });
}

#[test]
fn the_semaphore_is_zero_after_observer_was_killed() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let mut observer = shop.watched(way, &[]);
            assert!(shop.semaphore() > 0);
            shop.tell("begin 1", "begun");
            signal(observer.pid(), libc::SIGKILL);
            observer.collect();
            shop.wait_until_nobody_listens();
            // And it can be watched again.
            let observer = shop.watched(way, &[]);
            shop.tell("threads 1 3 2000 5", "truth");
            observer.wait_until("its waits", |events| waits(events, WAIT).count() == 3);
            observer.stop();
            shop.wait_until_nobody_listens();
            Ok(())
        })
    });
}

#[test]
fn a_process_may_end_in_its_wait() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let observer = shop.watched(way, &["--long-wait", "20ms"]);
            shop.tell("begin 1", "begun");
            observer.wait_until("the wait in progress", |events| {
                of(events, "blocked").any(|event| event["probe"] == WAIT)
            });
            shop.close();
            let run = observer.target_ended();
            assert_eq!(
                waits(&run.events, WAIT)
                    .filter(|wait| wait["end_unseen"] != true)
                    .count(),
                0
            );
            Ok(())
        })
    });
}

/// Its waits are seen and its semaphore is given back, wherever its file is.
fn is_attached_to(open: fn() -> Result<Shop, Skip>) -> Tested {
    in_both_ways(|way| {
        let mut shop = open()?;
        let observer = shop.watched(way, &[]);
        assert!(shop.semaphore() > 0);
        shop.tell("threads 1 3 2000 5", "truth");
        observer.wait_until("its waits", |events| waits(events, WAIT).count() == 3);
        observer.stop();
        shop.wait_until_nobody_listens();
        Ok(())
    })
}

#[test]
fn a_deleted_file_is_attached_to() {
    alone(name!(), || is_attached_to(Shop::of_deleted_file));
}

#[test]
fn a_file_that_was_replaced_is_attached_to() {
    alone(name!(), || is_attached_to(Shop::of_replaced_file));
}

#[test]
fn a_library_that_was_replaced_is_attached_to() {
    alone(name!(), || is_attached_to(Shop::of_replaced_library));
}

/// Processes that map one file.
const CROWD: u64 = 3_000;

#[test]
fn thousands_of_processes_that_map_one_file() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let there = shop.tell(&format!("crowd {CROWD}"), "crowd");
            let args = ["--comm", "usdt-shop", "--usdt", &shop.pack];
            let more = ["--usdt-attach", way];
            let observer = Observer::trace(Mode::Sched, &[&args[..], &more[..]].concat());
            assert!(shop.semaphore() > 0);
            shop.tell("threads 1 3 2000 5", "truth");
            observer.wait_until("its waits", |events| waits(events, WAIT).count() == 3);
            let run = observer.stop();
            let attached = run.events[0]["capture"]["attached"].as_array().unwrap();
            let to_it =
                |one: &&serde_json::Value| one.as_str().is_some_and(|one| one.contains(WAIT));
            assert_eq!(attached.iter().filter(to_it).count(), 1, "{attached:?}");
            shop.wait_until_nobody_listens();
            assert_eq!(shop.tell("disperse", "listened"), 0, "of {there}");
            Ok(())
        })
    });
}

#[test]
fn a_file_of_another_file_system_is_attached_to() {
    alone(name!(), || is_attached_to(Shop::of_another_file_system));
}
