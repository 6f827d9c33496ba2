//! Hosts to look at, and a terminal to look with.

use std::{collections::BTreeMap, sync::Arc};

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};

use crate::{
    event::{
        Addr, Blocked, Bucket, Capture, Confidence, Cost, CostReport, Event, Filters, Holder, Kind,
        LockClass, LockRef, LockTotals, Loss, Meta, Missing, Outcome, SCHEMA, TaskRef, Wait, Waker,
    },
    model::Model,
    time::WallTime,
    tui::{Action, Options, Ui},
};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// When the scenes begin.
pub(super) const START: u64 = 1_000 * SECOND;
/// Wall-clock time minus `CLOCK_MONOTONIC`.
const EPOCH: u64 = 1_795_251_496 * SECOND;

pub(super) fn wall(mono_ns: u64) -> WallTime {
    WallTime(EPOCH + mono_ns)
}

pub(super) fn meta() -> Meta {
    Meta {
        time: wall(START),
        mono_ns: START,
        schema: SCHEMA,
        observer: "0.1.0".into(),
        host: "db-7".into(),
        kernel: "6.8.0-45-generic".into(),
        cpus: 8,
        filters: Filters {
            min_wait_ns: MS,
            long_wait_ns: 100 * MS,
            ..Filters::default()
        },
        capture: Capture::default(),
    }
}

pub(super) fn missing(n: usize) -> Vec<Missing> {
    let missing = Missing {
        feature: "lock:contention_begin".into(),
        why: "the kernel is older than 5.19".into(),
    };
    vec![missing; n]
}

pub(super) fn task(tid: u32, comm: &str) -> Arc<TaskRef> {
    Arc::new(TaskRef {
        comm: Some(comm.into()),
        process: Some("ledger".into()),
        ..TaskRef::new(4000, tid)
    })
}

pub(super) fn lock(addr: u64, name: Option<&str>) -> Arc<LockRef> {
    Arc::new(LockRef {
        id: format!("4000:{addr:#x}").into(),
        class: LockClass::Futex,
        name: name.map(Arc::from),
        addr: Addr(addr),
        shared: false,
    })
}

pub(super) fn mutex(addr: u64, name: Option<&str>) -> Arc<LockRef> {
    let mut lock = lock(addr, name);
    Arc::make_mut(&mut lock).class = LockClass::PthreadMutex;
    lock
}

pub(super) fn holder(tid: u32, comm: &str, doing: &str) -> Holder {
    Holder {
        pid: Some(4000),
        tid: Some(tid),
        comm: Some(comm.into()),
        confidence: Confidence::Exact,
        evidence: "owner in the lock's memory".into(),
        state: None,
        doing: Some(doing.into()),
    }
}

/// A wait in progress that began `age_ns` before the time `at_ns`.
pub(super) fn blocked(at_ns: u64, tid: u32, comm: &str, kind: Kind, age_ns: u64) -> Blocked {
    Blocked {
        time: wall(at_ns),
        mono_ns: at_ns,
        task: task(tid, comm),
        kind,
        age_ns,
        blocked_ns: None,
        runqueue_ns: None,
        lock: None,
        locks: Vec::new(),
        access: None,
        holder: None,
        syscall: Some("futex".into()),
        probe: None,
        mode: None,
        stack: None,
        at_least: false,
    }
}

pub(super) fn wait(end_ns: u64, tid: u32, comm: &str, dur_ns: u64) -> Wait {
    Wait {
        time: wall(end_ns),
        mono_ns: end_ns,
        task: task(tid, comm),
        kind: Kind::Futex,
        dur_ns,
        blocked_ns: Some(dur_ns - dur_ns / 10),
        runqueue_ns: Some(dur_ns / 10),
        outcome: Some(Outcome::Woken),
        lock: Some(lock(0x7f12_3456_7890, Some("accounts_mu"))),
        locks: Vec::new(),
        holder: None,
        causes: std::collections::BTreeMap::new(),
        waker: Some(
            Waker {
                pid: 4000,
                tid: 4009,
                comm: Some("writer".into()),
                goid: None,
            }
            .into(),
        ),
        syscall: Some("futex".into()),
        probe: None,
        mode: None,
        ended_by: None,
        stack: None,
        at_least: false,
        end_unseen: false,
    }
}

pub(super) fn totals(at_ns: u64, addr: u64, name: Option<&str>, waits: u64) -> LockTotals {
    LockTotals {
        time: wall(at_ns),
        mono_ns: at_ns,
        lock: lock(addr, name),
        pid: Some(4000),
        process: Some("ledger".into()),
        waits,
        total_ns: waits * 2 * MS,
        max_ns: 40 * MS,
        p50_ns: Some(MS),
        p99_ns: Some(30 * MS),
        timeouts: 1,
        interrupted: 0,
        waiters_now: 2,
        holder: None,
        histogram: vec![
            Bucket {
                lt_ns: Some(2 * MS),
                count: waits - 1,
            },
            Bucket {
                lt_ns: None,
                count: 1,
            },
        ],
        callers: Vec::new(),
        estimated: false,
    }
}

pub(super) fn loss(at_ns: u64, counters: &[(&'static str, u64)]) -> Loss {
    let counters: BTreeMap<_, _> = counters.iter().map(|(k, n)| ((*k).into(), *n)).collect();
    Loss {
        time: wall(at_ns),
        mono_ns: at_ns,
        total: counters.values().sum(),
        counters,
    }
}

/// A service with a deadlock, a slow lock, a pool that is idle, and event loops.
pub(super) fn busy() -> Model {
    let mut model = Model::default();
    let now = START + 65 * SECOND;
    model.apply(Event::from(meta()));
    model.apply(Event::from(loss(
        now,
        &[("ring_full", 0), ("slots_full", 0)],
    )));
    for (ns, cpu_ns) in [(now - SECOND, 60 * MS), (now, 64 * MS)] {
        model.apply(Event::from(CostReport {
            time: wall(ns),
            mono_ns: ns,
            cost: Cost {
                cpu_ns,
                rss_bytes: 21 << 20,
                bpf_run_ns: Some(12 * MS),
            },
        }));
    }
    let mut waits = vec![
        blocked(now, 4101, "transfer-1", Kind::Futex, 41 * SECOND),
        blocked(now, 4102, "transfer-2", Kind::Futex, 40 * SECOND),
        blocked(now, 4103, "reader", Kind::Io, 3_100 * MS),
        blocked(now, 4104, "pool-worker-0", Kind::Condvar, 3_700 * SECOND),
        blocked(now, 4105, "accept-loop", Kind::Poll, 65 * SECOND),
        blocked(now, 4106, "timer", Kind::Sleep, 2 * SECOND),
    ];
    waits[0].lock = Some(lock(0x55d0_0000_1040, Some("account_a.mu")));
    waits[1].lock = Some(lock(0x55d0_0000_1080, None));
    waits[1].locks = vec![
        lock(0x55d0_0000_1080, None),
        lock(0x55d0_0000_1040, Some("account_a.mu")),
        lock(0x55d0_0000_10c0, None),
    ];
    waits[2].runqueue_ns = Some(3_100_000);
    waits[2].syscall = Some("pread64".into());
    waits[3].at_least = true;
    for wait in waits {
        model.apply(Event::from(wait));
    }
    for (addr, name, waits) in [
        (0x7f12_3456_7890, Some("accounts_mu"), 12_400),
        (0x55d0_0000_1040, Some("account_a.mu"), 310),
        (0x55d0_0000_1080, None, 42),
    ] {
        model.apply(Event::from(totals(now, addr, name, waits)));
    }
    for n in 0..30 {
        let end = now - 3 * SECOND + n * 100 * MS;
        model.apply(Event::from(wait(
            end,
            4200 + n as u32,
            "writer-pool",
            (n + 2) * MS,
        )));
    }
    model
}

/// A screen of a size, driven by keys.
pub(super) struct Driver {
    pub(super) ui: Ui,
    terminal: Terminal<TestBackend>,
}

impl Driver {
    pub(super) fn new(columns: u16, rows: u16) -> Self {
        Driver::with(Options::default(), columns, rows)
    }

    /// A screen that shows blocked tasks.
    pub(super) fn blocked(columns: u16, rows: u16) -> Self {
        let mut driver = Driver::new(columns, rows);
        driver.press(KeyCode::Char('2'), &Model::default());
        driver
    }

    pub(super) fn with(options: Options, columns: u16, rows: u16) -> Self {
        Driver {
            ui: Ui::new(options),
            terminal: Terminal::new(TestBackend::new(columns, rows)).unwrap(),
        }
    }

    pub(super) fn resize(&mut self, columns: u16, rows: u16) {
        self.terminal.backend_mut().resize(columns, rows);
    }

    pub(super) fn press(&mut self, code: KeyCode, model: &Model) -> Action {
        let key = KeyEvent::new(code, KeyModifiers::NONE);
        self.ui.on_event(Input::Key(key), model)
    }

    /// Types each character.
    pub(super) fn keys(&mut self, keys: &str, model: &Model) {
        for c in keys.chars() {
            self.press(KeyCode::Char(c), model);
        }
    }

    /// A tick and a frame, as lines of text.
    pub(super) fn show(&mut self, model: &Model) -> String {
        self.ui.tick(model);
        self.frame(model)
    }

    /// A frame, as lines of text.
    pub(super) fn frame(&mut self, model: &Model) -> String {
        self.terminal
            .draw(|frame| self.ui.draw(frame, model))
            .unwrap();
        let buffer = self.terminal.backend().buffer();
        let columns = usize::from(buffer.area.width);
        if columns == 0 {
            return String::new();
        }
        let lines = buffer.content().chunks(columns).map(|cells| {
            let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
            format!("{}\n", line.trim_end())
        });
        lines.collect()
    }

    /// Does any cell have a colour?
    pub(super) fn is_colored(&self) -> bool {
        use ratatui::style::Color::Reset;
        let cells = self.terminal.backend().buffer().content();
        cells
            .iter()
            .any(|cell| cell.fg != Reset || cell.bg != Reset)
    }

    /// The line that is marked as selected.
    pub(super) fn selected(&mut self, model: &Model) -> String {
        let text = self.show(model);
        let line = text.lines().find(|line| line.starts_with("> "));
        line.unwrap_or_default().to_owned()
    }
}

/// All parts are in the text.
pub(super) fn assert_has(screen: &str, parts: &[&str]) {
    for part in parts {
        assert!(screen.contains(part), "{part:?} is not in:\n{screen}");
    }
}

/// The first line with a part in it.
pub(super) fn line<'a>(screen: &'a str, part: &str) -> &'a str {
    let found = screen.lines().find(|line| line.contains(part));
    found.unwrap_or_else(|| panic!("{part:?} is not in:\n{screen}"))
}
