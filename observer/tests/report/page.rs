//! The page in a browser: opened, clicked, and given what it must not believe.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::json;

use crate::{
    browser::Browser,
    harness::{TempDir, Workload, alone, name, output, poll, together},
};

fn report(recording: &Path, page: &Path) {
    let (from, to) = (recording.to_str().unwrap(), page.to_str().unwrap());
    let made = output(&["report", from, "--format", "html", "-o", to]);
    assert!(made.status.success(), "{made:?}");
}

/// Opens a page in a window of this width and scheme of colours, in which it need not be scrolled sideways.
fn fits(browser: &mut Browser, page: &Path, (width, scheme): (u32, &str), photo: &str) {
    browser.window(width, scheme);
    browser.open(page);
    let wide = browser.eval("document.documentElement.scrollWidth");
    assert!(
        wide.as_u64().unwrap() <= u64::from(width),
        "{wide} at {width}"
    );
    browser.photograph(photo);
}

/// What is seen when one is paged: a look at every thread is in it too.
fn of_triage(browser: &mut Browser, pids: &[&str; 2], folder: &Path) {
    let page = folder.join("triage.html");
    let args = ["-p", pids[0], "-p", pids[1], "-d", "2s", "--format", "html"];
    let made = output(&[&["triage"], &args[..]].concat());
    assert!(made.status.success(), "{made:?}");
    fs::write(&page, made.stdout).unwrap();
    for width in [390, 1280] {
        fits(browser, &page, (width, "light"), &format!("triage-{width}"));
    }
    let answer = browser.eval("document.querySelector('.answer p').textContent");
    let answer = answer.as_str().unwrap();
    assert!(answer.starts_with("Deadlock in "), "{answer}");
}

#[test]
fn of_a_deadlock_and_a_contended_mutex() {
    alone(name!(), || {
        let mut browser = Browser::start()?;
        let deadlock = Workload::start(&["deadlock"])?;
        let mutex = Workload::start(&["mutex", "--threads", "4", "--hold-ms", "20"])?;
        let folder = TempDir::new();
        let path = folder.path().join("run.jsonl.zst");
        let (one, two) = (deadlock.pid().to_string(), mutex.pid().to_string());
        let file = path.to_str().unwrap();
        let made = output(&["record", "-o", file, "-p", &one, "-p", &two, "-d", "3s"]);
        assert!(made.status.success(), "{made:?}");
        let page = folder.path().join("report.html");
        report(&path, &page);

        for (width, scheme) in [
            (390, "dark"),
            (390, "light"),
            (1280, "dark"),
            (1280, "light"),
        ] {
            let name = format!("deadlock-{width}-{scheme}");
            fits(&mut browser, &page, (width, scheme), &name);
        }
        let answer = browser.eval("document.querySelector('.answer p').textContent");
        assert!(
            answer.as_str().unwrap().starts_with("Deadlock in "),
            "{answer}"
        );
        assert_eq!(
            browser.eval("document.querySelectorAll('.box.bad').length"),
            2
        );
        tables(&mut browser);
        zooms(&mut browser);
        of_triage(&mut browser, &[&one, &two], folder.path());
        assert_eq!(browser.complaints, Vec::<String>::new());
        Ok(())
    });
}

/// Sorts and filters the table of locks, and follows a link to what is folded.
fn tables(browser: &mut Browser) {
    let first = "document.querySelector('#locks-by-total-wait tbody tr').cells[1].textContent";
    let count = "document.querySelectorAll('#locks-by-total-wait tbody tr').length";
    assert!(browser.eval(count).as_u64().unwrap() >= 3);
    let column = "#locks-by-total-wait th:nth-child(2)";
    browser.click(&format!("{column} button"));
    let sorted = format!("document.querySelector('{column}').ariaSort");
    assert_eq!(browser.eval(&sorted), "descending");
    let most = browser.eval(first);
    browser.click(&format!("{column} button"));
    assert_eq!(browser.eval(&sorted), "ascending");
    let least = browser.eval(first);
    let number = |value: &serde_json::Value| value.as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&most) > number(&least), "{most} {least}");

    let shown = "[...document.querySelectorAll('#longest-waits tbody tr')].filter(row => !row.hidden).length";
    browser.click("#longest-waits input");
    let before = browser.eval(shown).as_u64().unwrap();
    browser.write("lock holder");
    let after = browser.eval(shown).as_u64().unwrap();
    assert!(after >= 1 && after < before, "{after} of {before}");

    assert_eq!(
        browser.eval("document.querySelector('#lock-0').open"),
        false
    );
    browser.click("a[href='#lock-0']");
    poll("the lock is unfolded", || {
        let open = browser.eval("document.querySelector('#lock-0').open");
        (open == true).then_some(())
    });
}

/// Zooms into the line of time and the flame graph, and back.
fn zooms(browser: &mut Browser) {
    let view = "document.querySelector('.row > svg').getAttribute('viewBox')";
    let all = browser.eval(view);
    browser.click("[data-zoom=in]");
    assert_eq!(browser.eval(view), "250000 0 500000 20");
    browser.click("[data-zoom=all]");
    assert_eq!(browser.eval(view), all);
    browser.click("#tl rect");
    let what = browser.eval("document.querySelector('#tl-what').textContent");
    assert!(what.as_str().unwrap().contains("lock"), "{what}");

    let drawn =
        "[...document.querySelectorAll('.f')].filter(f => f.style.display !== 'none').length";
    let before = browser.eval(drawn).as_u64().unwrap();
    // One thread hides the others.
    browser.click(".f-t rect");
    let after = browser.eval(drawn).as_u64().unwrap();
    assert!(after < before, "{after} of {before}");
    browser.click("#flame-all");
    assert_eq!(browser.eval(drawn), before);
}

/// Names as somebody chooses them who knows that they will stand in a page.
const HOSTILE: [&str; 6] = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"><svg/onload=alert(3)>",
    "' onmouseover='alert(4)",
    "\u{202e}gpj.exe\n\u{1b}[2J",
    "{{7*7}}</title></style>&lt;b&gt;",
];

fn hostile_recording() -> String {
    let mut lines = String::new();
    let time = "2026-01-01T00:00:00.000000000Z";
    let meta = json!({"type": "meta", "time": time, "mono_ns": 0, "schema": 1, "observer": HOSTILE[0],
        "host": HOSTILE[0], "kernel": HOSTILE[1], "cpus": 2,
        "filters": {"pids": [1], "comms": HOSTILE, "min_wait_ns": 1, "long_wait_ns": 1, "interval_ns": 1},
        "capture": {"futex": HOSTILE[2], "attached": HOSTILE, "task_slots": 1, "lock_slots": 1, "ring_bytes": 1,
            "missing": [{"feature": HOSTILE[0], "why": HOSTILE[1]}]}});
    writeln!(lines, "{meta}").unwrap();
    for (at, name) in HOSTILE.iter().enumerate() {
        let tid = 100 + at;
        let mono = 1_000_000_000 * (at + 1);
        let task = json!({"pid": 100, "tid": tid, "comm": name, "process": name});
        let lock = json!({"id": format!("{name}{at}"), "class": "pthread_mutex", "name": name, "addr": "0x10", "shared": false});
        let holder = json!({"pid": 100, "tid": 100 + (at + 1) % HOSTILE.len(), "comm": name, "confidence": "exact",
            "evidence": name, "doing": name});
        let stack = json!({"user": [{"addr": "0x1", "name": name, "file": name, "line": 3, "module": name}]});
        let common = |kind: &str| {
            json!({"type": kind, "time": time, "mono_ns": mono, "task": task, "kind": "lock", "lock": lock,
            "holder": holder, "stack": stack, "syscall": name})
        };
        let mut wait = common("wait");
        wait["dur_ns"] = json!(500_000_000);
        let mut blocked = common("blocked");
        blocked["age_ns"] = json!(400_000_000);
        let totals = json!({"type": "lock", "time": time, "mono_ns": mono, "lock": lock, "pid": 100, "process": name,
            "waits": 3, "total_ns": 30, "max_ns": 20, "timeouts": 0, "interrupted": 0, "waiters_now": 1, "holder": holder,
            "histogram": [{"lt_ns": 16, "count": 3}], "callers": [{"stack": stack, "samples": 1, "total_ns": 5}]});
        let finding = json!({"type": "finding", "time": time, "mono_ns": mono, "rule": name, "severity": "critical",
            "title": name, "evidence": HOSTILE, "advice": name, "subjects": []});
        let goroutines = json!({"type": "goroutines", "time": time, "mono_ns": mono, "pid": 200 + at, "process": name,
            "release": name, "took_ns": 1, "total": 1, "by_state": {"waiting": 1}, "torn": 0, "sites": [], "notes": [name],
            "groups": [{"count": 1, "state": "waiting", "wait_reason": name, "goids": [1],
                "stack": [{"function": name, "file": name, "line": 1, "addr": "0x1"}]}]});
        for event in [wait, blocked, totals, finding, goroutines] {
            writeln!(lines, "{event}").unwrap();
        }
    }
    lines
}

#[test]
fn believes_no_name() {
    together(name!(), || {
        let mut browser = Browser::start()?;
        let folder = TempDir::new();
        let path = folder.path().join("run.jsonl");
        fs::write(&path, hostile_recording()).unwrap();
        let page = folder.path().join("report.html");
        report(&path, &page);
        browser.window(1280, "light");
        browser.open(&page);
        browser.photograph("hostile");
        assert_eq!(browser.eval("document.scripts.length"), 1);
        assert_eq!(
            browser.eval("document.querySelectorAll('img, iframe, link').length"),
            0
        );
        let handlers = "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length";
        assert_eq!(browser.eval(handlers), 0);
        let text = browser.eval("document.body.textContent");
        let text = text.as_str().unwrap();
        for name in &HOSTILE[..4] {
            assert!(text.contains(name), "{name} is not shown as it is");
        }
        assert!(!text.contains(['\u{202e}', '\u{1b}']));
        // Every section is there, so nothing was read as an end of it.
        for id in [
            "findings",
            "graph",
            "timeline",
            "locks-by-total-wait",
            "goroutines",
            "flame",
            "not-seen",
        ] {
            assert_eq!(
                browser.eval(&format!("!!document.getElementById('{id}')")),
                true,
                "{id}"
            );
        }
        // Moving over everything starts nothing.
        browser.click("#tl rect");
        browser.click(".f-p rect");
        assert_eq!(browser.complaints, Vec::<String>::new());
        Ok(())
    });
}

#[test]
fn of_very_many_events_stays_small() {
    together(name!(), || {
        let mut browser = Browser::start()?;
        let folder = TempDir::new();
        let path = folder.path().join("run.jsonl");
        let mut lines = hostile_recording();
        let time = "2026-01-01T00:00:00.000000000Z";
        for at in 0..160_000_u64 {
            // A few wait often, many seldom.
            let tid = 1_000 + if at % 2 == 0 { at % 50 } else { at % 3_000 };
            let wait = json!({"type": "wait", "time": time, "mono_ns": 10_000_000_000 + at * 1_000_000,
                "task": {"pid": 7, "tid": tid, "comm": format!("worker-{tid}"), "process": "server"},
                "kind": "lock", "dur_ns": 1_000_000 + at, "syscall": "futex",
                "lock": {"id": format!("7:{at}"), "class": "pthread_mutex", "name": format!("lock-{at}"), "addr": "0x10", "shared": false},
                "stack": {"user": [{"addr": "0x1", "name": format!("f{}", at % 9_000)}]}});
            writeln!(lines, "{wait}").unwrap();
        }
        assert!(lines.len() > 50 << 20, "{}", lines.len());
        fs::write(&path, lines).unwrap();
        let page = folder.path().join("report.html");
        report(&path, &page);
        let size = page.metadata().unwrap().len();
        assert!(size < 1_000_000, "{size} bytes");
        browser.window(390, "light");
        browser.open(&page);
        let took = "performance.getEntriesByType('navigation')[0].loadEventEnd";
        let took = browser.eval(took).as_f64().unwrap();
        println!("{size} bytes, open in {took} ms");
        browser.photograph("many");
        let notes = browser
            .eval("[...document.querySelectorAll('.note')].map(n => n.textContent).join('; ')");
        for said in [
            "tasks that waited less",
            "shorter waits of these tasks",
            "frames that are too narrow",
        ] {
            assert!(notes.as_str().unwrap().contains(said), "{said}: {notes}");
        }
        assert_eq!(browser.complaints, Vec::<String>::new());
        Ok(())
    });
}
