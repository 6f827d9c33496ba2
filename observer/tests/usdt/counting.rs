//! Counts, sums and names are those of the program.

use serde_json::Value;

use crate::{
    harness::{
        Mode, Observer, alone, assert_close_around,
        event::{number, of, sum},
        name,
    },
    shop::{self, Shop, WAIT, in_both_ways, totals, waits},
};

#[test]
fn long_waits_are_told_and_all_are_counted() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let observer = shop.watched(way, &["--interval", "100ms"]);
            let long = shop.tell("threads 1 20 5000 7", "truth");
            let short = shop.tell("threads 1 200 100 8", "truth");
            let many = shop.tell("threads 8 25 3000 9", "truth");
            shop.close();
            let run = observer.target_ended();

            for (resource, truth) in [(7u64, &long), (8, &short), (9, &many)] {
                let name = format!("till {resource}");
                let totals = totals(&run.events, &name);
                assert_eq!(totals["waits"], truth["waits"], "{totals}");
                let (total, sum_ns) = (number(totals, "total_ns"), number(truth, "sum_ns"));
                assert_close_around(&name, total, sum_ns, 1);
                assert!(number(totals, "max_ns") <= total, "{totals}");
                let buckets = totals["histogram"].as_array().unwrap();
                let counted: u64 = buckets.iter().map(|bucket| number(bucket, "count")).sum();
                assert_eq!(totals["waits"], counted, "{totals}");
                assert_eq!(totals["lock"]["class"], "usdt");
                assert_eq!(totals["lock"]["addr"], format!("{resource:#x}"));
            }
            for (name, truth) in [("till 7", &long), ("till 9", &many)] {
                let told: Vec<&Value> = waits(&run.events, WAIT)
                    .filter(|wait| wait["lock"]["name"] == name)
                    .collect();
                assert_eq!(told.len() as u64, number(truth, "waits"));
                assert_eq!(told[0]["kind"], "semaphore");
                let total = sum(told.iter().copied(), "dur_ns");
                assert_eq!(total, number(totals(&run.events, name), "total_ns"));
            }
            run.assert_complete();
            Ok(())
        })
    });
}

#[test]
fn every_form_of_an_argument_is_read() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let observer = shop.watched(way, &["--min-wait", "0"]);
            let truth = shop.tell("forms", "forms");
            shop.close();
            let run = observer.target_ended();
            for (probe, name) in ["forms__a", "forms__b", "forms__c", "forms__d"]
                .iter()
                .zip(truth.as_array().unwrap())
            {
                let probe = format!("shop:{probe}");
                let told = waits(&run.events, &probe).next();
                let told = told.unwrap_or_else(|| panic!("no {probe} in {}", run.events[0]));
                assert_eq!(told["lock"]["name"], *name, "{probe}");
            }
            run.assert_complete();
            Ok(())
        })
    });
}

#[test]
fn a_wait_in_progress_is_told() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let observer = shop.watched(way, &["--long-wait", "50ms"]);
            shop.tell("begin 77", "begun");
            let blocked = observer.wait_for("the wait in progress", |events| {
                of(events, "blocked")
                    .find(|event| event["probe"] == WAIT)
                    .cloned()
            });
            assert_eq!(blocked["lock"]["name"], "till 77", "{blocked}");
            assert!(number(&blocked, "age_ns") >= 50_000_000, "{blocked}");
            shop.tell("end", "ended");
            observer.wait_until("its end", |events| waits(events, WAIT).count() == 1);
            shop.close();
            let run = observer.target_ended();
            let wait = waits(&run.events, WAIT).next().unwrap();
            assert!(number(wait, "dur_ns") >= 50_000_000, "{wait}");
            run.assert_complete();
            Ok(())
        })
    });
}

/// Attached to the file: a process that starts later is seen, and so are several at a time.
#[test]
fn a_process_that_starts_later_is_seen() {
    alone(name!(), || {
        in_both_ways(|way| {
            let early = Shop::open()?;
            let folder = crate::harness::TempDir::new();
            let pack = folder.path().join("by-path.toml");
            let path = shop::program()?.display();
            let text = shop::PACK.replace(
                "begin = \"wait__start\"",
                &format!("begin = \"wait__start\"\npath = \"{path}\""),
            );
            std::fs::write(&pack, text).unwrap();
            // Nobody maps the file now.
            early.close();
            let pack = pack.to_string_lossy();
            let args = [
                "--comm",
                "usdt-shop",
                "--usdt-attach",
                way,
                "--usdt",
                &pack,
                "--interval",
                "100ms",
            ];
            let observer = Observer::trace(Mode::Sched, &args);
            let mut shops = [Shop::open()?, Shop::open()?];
            for (i, shop) in shops.iter_mut().enumerate() {
                assert_eq!(shop.semaphore(), 2, "raised by begin and by end");
                shop.tell(&format!("threads 1 5 2000 {}", i + 1), "truth");
            }
            observer.wait_until("all waits", |events| waits(events, WAIT).count() == 10);
            let run = observer.stop();
            for (i, mut shop) in shops.into_iter().enumerate() {
                assert_eq!(totals(&run.events, &format!("till {}", i + 1))["waits"], 5);
                shop.wait_until_nobody_listens();
            }
            run.assert_complete();
            Ok(())
        })
    });
}
