//! What cannot be read is refused by name or counted, and the rest goes on.

use serde_json::Value;

use crate::{
    harness::{alone, event::number, name, output, together},
    shop::{Shop, WAIT, in_both_ways, totals, waits},
};

#[test]
fn a_probe_with_an_unknown_argument_is_refused_by_name() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let observer = shop.watched(way, &["--min-wait", "0"]);
            shop.tell("strange", "done");
            shop.tell("threads 1 2 1000 3", "truth");
            shop.close();
            let run = observer.target_ended();
            let capture = &run.events[0]["capture"];
            let missing: Vec<&Value> = capture["missing"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|missing| missing["feature"].as_str().unwrap().starts_with("usdt"))
                .collect();
            assert_eq!(missing.len(), 1, "{capture}");
            let (feature, why) = (&missing[0]["feature"], missing[0]["why"].as_str().unwrap());
            assert!(
                feature.as_str().unwrap().contains("shop:strange"),
                "{feature}"
            );
            assert!(why.contains("16f@%xmm0"), "{why}");
            assert_eq!(waits(&run.events, "shop:strange").count(), 0);
            assert_eq!(waits(&run.events, WAIT).count(), 2);
            Ok(())
        })
    });
}

#[test]
fn what_is_not_there_is_counted() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let observer = shop.watched(way, &["--min-wait", "0"]);
            shop.tell("unreadable 4", "done");
            // Two beginnings and one end.
            shop.tell("begin 5", "begun");
            shop.tell("begin 6", "begun");
            shop.tell("end", "ended");
            shop.tell("end", "ended");
            shop.close();
            let run = observer.target_ended();
            let counters = &run.loss()["counters"];
            for (cause, count) in [("usdt_text", 1), ("usdt_read", 1), ("usdt_unended", 1)] {
                assert_eq!(number(counters, cause), count, "{cause}: {counters}");
            }
            // A wait whose name could not be read is one all the same.
            let told: Vec<&Value> = waits(&run.events, WAIT).collect();
            assert_eq!(told.len(), 2, "{told:?}");
            assert_eq!(told[0]["lock"]["name"], "? 4");
            assert_eq!(totals(&run.events, "till 6")["waits"], 1);
            Ok(())
        })
    });
}

#[test]
fn packs_that_are_wrong() {
    together(name!(), || {
        for (pack, words) in [
            ("nonsense", ["nonsense", "postgresql"]),
            ("/proc", ["/proc", "folder"]),
            ("/dev/null", ["/dev/null", "docs/usdt.md"]),
        ] {
            let output = output(&["trace", "--usdt", pack]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            for word in words {
                assert!(stderr.contains(word), "no {word:?} in {stderr:?}");
            }
        }
        Ok(())
    });
}
