//! Files that nobody maps when observer starts are attached to when somebody does.

use serde_json::Value;

use crate::{
    harness::{Group, Mode, Observer, Skip, TempDir, alone, event::of, name, signal},
    shop::{self, Shop, WAIT, in_both_ways, totals, waits},
};

/// observer, watching all processes of this name.
fn all(comm: &str, way: &str) -> Result<Observer, Skip> {
    let pack = shop::pack()?;
    let args = ["--comm", comm, "--usdt", &pack, "--usdt-attach", way];
    let more = ["--interval", "100ms"];
    Ok(Observer::trace(Mode::Sched, &[&args[..], &more].concat()))
}

/// Waits until it is told that a file with this in its name is attached to: the semaphore is raised a little before.
#[track_caller]
fn wait_until_told(observer: &Observer, file: &str) {
    observer.wait_until("the file to be attached to", |events| {
        let hook = format!("usdt/{WAIT} in ");
        of(events, "attached")
            .flat_map(|event| event["attached"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .any(|one| one.starts_with(&hook) && one.contains(file))
    });
}

/// The shop's waits are seen and counted, and the semaphore is given back.
fn is_attached_to(mut shop: Shop, observer: Observer, file: &str) {
    wait_until_told(&observer, file);
    assert_eq!(shop.semaphore(), 2, "raised by begin and by end");
    shop.tell("threads 1 5 2000 3", "truth");
    observer.wait_until("its waits", |events| waits(events, WAIT).count() == 5);
    let run = observer.stop();
    assert_eq!(totals(&run.events, "till 3")["waits"], 5);
    run.assert_complete();
    shop.wait_until_nobody_listens();
}

#[test]
fn a_program_that_starts_later_is_attached_to() {
    alone(name!(), || {
        in_both_ways(|way| {
            let observer = all("later-shop", way)?;
            let shop = Shop::of_new_file()?;
            wait_until_told(&observer, "later-shop");
            // From now on nothing of the file is missed.
            let mut sibling = shop.sibling()?;
            assert_eq!(sibling.semaphore(), 2, "raised by begin and by end");
            sibling.close();
            is_attached_to(shop, observer, "later-shop");
            Ok(())
        })
    });
}

#[test]
fn a_process_that_maps_the_file_later_is_attached_to() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::to_be()?;
            let observer = all("later-shop", way)?;
            shop.tell("go", "ready");
            is_attached_to(shop, observer, "later-shop");
            Ok(())
        })
    });
}

#[test]
fn a_process_that_was_asked_for_maps_the_file_later() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::to_be()?;
            let observer = shop.watched(way, &["--interval", "100ms"]);
            shop.tell("go", "ready");
            // Another one of the same file is none of those that were asked for.
            let mut sibling = shop.sibling()?;
            wait_until_told(&observer, "later-shop");
            assert_eq!(sibling.semaphore(), 0);
            sibling.close();
            is_attached_to(shop, observer, "later-shop");
            Ok(())
        })
    });
}

#[test]
fn a_file_of_another_file_system_is_attached_to_later() {
    alone(name!(), || {
        in_both_ways(|way| {
            let observer = all("inside", way)?;
            is_attached_to(Shop::of_another_file_system()?, observer, "/mnt/inside");
            Ok(())
        })
    });
}

#[test]
fn a_deleted_file_is_attached_to_later() {
    alone(name!(), || {
        in_both_ways(|way| {
            let observer = all("shop", way)?;
            is_attached_to(Shop::of_deleted_file()?, observer, "/shop");
            Ok(())
        })
    });
}

#[test]
fn a_library_that_was_replaced_is_attached_to_later() {
    alone(name!(), || {
        in_both_ways(|way| {
            let observer = all("usdt-loader", way)?;
            is_attached_to(Shop::of_replaced_library()?, observer, "/libshop.so");
            Ok(())
        })
    });
}

/// Processes that map one library.
const CROWD: u64 = 1_200;

/// It is attached to once, for all of them, and not one is left with its semaphore raised.
#[test]
fn a_library_of_a_thousand_processes_is_attached_to_later() {
    alone(name!(), || {
        in_both_ways(|way| {
            let observer = all("usdt-loader", way)?;
            let mut shop = Shop::of_library()?;
            let there = shop.tell(&format!("crowd {CROWD}"), "crowd");
            assert_eq!(there, CROWD);
            wait_until_told(&observer, "/libshop.so");
            shop.wait_until_observer_listens();
            shop.tell("threads 1 5 2000 3", "truth");
            observer.wait_until("its waits", |events| waits(events, WAIT).count() == 5);
            let run = observer.stop();
            let hook = format!("usdt/{WAIT} in ");
            let told = of(&run.events, "attached")
                .flat_map(|event| event["attached"].as_array().into_iter().flatten())
                .filter(|one| one.as_str().is_some_and(|one| one.starts_with(&hook)));
            assert_eq!(told.count(), 1);
            run.assert_complete();
            shop.wait_until_nobody_listens();
            assert_eq!(shop.tell("disperse", "listened"), 0);
            Ok(())
        })
    });
}

/// A filter tells whose files are attached to: those of others are left alone.
#[test]
fn files_of_others_are_left_alone() {
    alone(name!(), || {
        in_both_ways(|way| {
            let id = format!("{:064x}", std::process::id());
            let group = Group::named(&format!("docker-{id}.scope"))?;
            let folder = TempDir::new();
            let file = folder.copy(shop::program()?, "stranger");
            let pack = shop::pack()?;
            for filter in [
                ["--container", &id],
                ["--cgroup", group.path()],
                ["--comm", "later-shop"],
            ] {
                println!("{filter:?}");
                let first = Shop::to_be()?;
                group.add(first.pid());
                let mut before = Shop::at(&file)?;
                let args = ["--usdt", &pack, "--usdt-attach", way];
                let args = [&filter[..], &args, &["--interval", "100ms"]].concat();
                let observer = Observer::trace(Mode::Sched, &args);
                let mut after = Shop::at(&file)?;
                let mut own = Shop::to_be()?;
                group.add(own.pid());
                own.tell("go", "ready");
                wait_until_told(&observer, "later-shop");
                for stranger in [&mut before, &mut after] {
                    assert_eq!(stranger.semaphore(), 0, "{filter:?}");
                }
                is_attached_to(own, observer, "later-shop");
                for shop in [first, before, after] {
                    shop.close();
                }
            }
            Ok(())
        })
    });
}

/// Not only the processes that are in it at the start are those of a container.
#[test]
fn what_a_container_starts_later_is_seen() {
    alone(name!(), || {
        in_both_ways(|way| {
            let id = format!("{:064x}", std::process::id());
            let group = Group::named(&format!("docker-{id}.scope"))?;
            let first = Shop::to_be()?;
            group.add(first.pid());
            let pack = shop::pack()?;
            let args = ["--container", &id, "--usdt", &pack, "--usdt-attach", way];
            let more = ["--interval", "100ms"];
            let observer = Observer::trace(Mode::Sched, &[&args[..], &more].concat());
            let mut second = Shop::to_be()?;
            group.add(second.pid());
            second.tell("go", "ready");
            is_attached_to(second, observer, "later-shop");
            first.close();
            Ok(())
        })
    });
}

/// However observer ends.
#[test]
fn the_semaphore_of_a_later_file_is_zero_after_observer_was_killed() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut observer = all("later-shop", way)?;
            let mut shop = Shop::of_new_file()?;
            shop.wait_until_observer_listens();
            shop.tell("begin 1", "begun");
            signal(observer.pid(), libc::SIGKILL);
            observer.collect();
            shop.wait_until_nobody_listens();
            // One process of it alone, likewise.
            let mut to_be = Shop::to_be()?;
            let mut observer = to_be.watched(way, &[]);
            to_be.tell("go", "ready");
            to_be.wait_until_observer_listens();
            signal(observer.pid(), libc::SIGKILL);
            observer.collect();
            to_be.wait_until_nobody_listens();
            Ok(())
        })
    });
}

#[test]
fn a_probe_of_a_later_file_is_refused_by_name() {
    alone(name!(), || {
        let observer = all("later-shop", "single")?;
        let shop = Shop::of_new_file()?;
        let missing = observer.wait_for("what is missing", |events| {
            of(events, "attached")
                .flat_map(|event| event["missing"].as_array().into_iter().flatten())
                .filter_map(|missing| missing["feature"].as_str())
                .find(|feature| feature.contains("later-shop"))
                .map(str::to_owned)
        });
        assert!(missing.contains("shop:strange"), "{missing}");
        shop.close();
        observer.stop();
        Ok(())
    });
}
