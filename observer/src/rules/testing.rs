//! Events for the tests of the rules.

use crate::{
    event::{
        Access, Addr, Blocked, Confidence, Event, GoFrame, GoroutineSite, Goroutines, Holder,
        HolderState, Kind, LockClass, LockRef, LockTotals, TaskRef, Wait,
    },
    model::Model,
    time::WallTime,
};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// When every test's events happen.
pub(crate) const NOW: u64 = 1_000 * SECOND;

pub(crate) fn model(events: &[Event]) -> Model {
    let mut model = Model::default();
    for event in events {
        model.apply(event.clone());
    }
    model
}

pub(crate) fn lock(addr: u64, class: LockClass) -> LockRef {
    LockRef {
        id: format!("1:{addr:#x}").into(),
        class,
        name: Some(format!("lock_{addr}").into()),
        addr: Addr(addr),
        shared: false,
    }
}

/// A task that waits for a mutex.
#[derive(Clone)]
pub(crate) struct Waiter(pub(crate) Blocked);

pub(crate) fn waiter(tid: u32) -> Waiter {
    Waiter(Blocked {
        time: WallTime(0),
        mono_ns: NOW,
        task: TaskRef {
            comm: Some(format!("t{tid}").into()),
            ..TaskRef::new(1, tid)
        }
        .into(),
        kind: Kind::Lock,
        age_ns: SECOND,
        blocked_ns: None,
        runqueue_ns: None,
        lock: Some(lock(1, LockClass::PthreadMutex).into()),
        locks: Vec::new(),
        access: None,
        holder: None,
        syscall: Some("futex".into()),
        probe: None,
        mode: None,
        stack: None,
        at_least: false,
    })
}

impl Waiter {
    /// For which lock.
    pub(crate) fn at(mut self, addr: u64) -> Waiter {
        self.0.lock = Some(lock(addr, LockClass::PthreadMutex).into());
        self
    }

    /// For how many seconds.
    pub(crate) fn long(mut self, seconds: u64) -> Waiter {
        self.0.age_ns = seconds * SECOND;
        self
    }

    pub(crate) fn class(mut self, class: LockClass) -> Waiter {
        self.0.kind = class.kind();
        let addr = self.0.lock.as_ref().map_or(1, |lock| lock.addr.0);
        self.0.lock = Some(lock(addr, class).into());
        self
    }

    /// Without a lock, in a system call.
    pub(crate) fn kind(mut self, kind: Kind, syscall: &'static str) -> Waiter {
        self.0.kind = kind;
        self.0.lock = None;
        self.0.syscall = Some(syscall.into());
        self
    }

    pub(crate) fn writing(mut self) -> Waiter {
        self.0.access = Some(Access::Write);
        self.class(LockClass::PthreadRwlock)
    }

    /// The holder, and what it does: a state's name, or what it waits in.
    pub(crate) fn held_by(mut self, tid: u32, doing: &str) -> Waiter {
        let state = match doing {
            "running" => HolderState::Running,
            "runnable" => HolderState::Runnable,
            "throttled" => HolderState::Throttled,
            "stopped" => HolderState::Stopped,
            "ended" => HolderState::Ended,
            _ => HolderState::Waiting,
        };
        self.0.holder = Some(Box::new(Holder {
            pid: Some(1),
            tid: Some(tid),
            comm: Some(format!("t{tid}").into()),
            confidence: Confidence::Exact,
            evidence: "owner in the lock's memory".into(),
            state: Some(state),
            doing: Some(doing.into()),
        }));
        self
    }

    pub(crate) fn held_by_readers(mut self) -> Waiter {
        self.0.holder = Some(Box::new(Holder {
            pid: None,
            tid: None,
            comm: None,
            confidence: Confidence::Unknown,
            evidence: "held by 3 readers, who are not recorded".into(),
            state: None,
            doing: None,
        }));
        self
    }

    /// One of several ways to be idle.
    pub(crate) fn idle(self, way: u32) -> Waiter {
        match way % 6 {
            0 => self.class(LockClass::PthreadCond),
            1 => self.kind(Kind::Poll, "epoll_wait"),
            2 => self.kind(Kind::Sleep, "clock_nanosleep"),
            3 => self.class(LockClass::Sem),
            4 => self.class(LockClass::RustPark),
            _ => self.class(LockClass::Futex),
        }
    }

    /// The same wait, over by now.
    pub(crate) fn ended_by(self, probe: Option<&str>) -> Event {
        let blocked = self.0;
        Event::from(Wait {
            time: blocked.time,
            mono_ns: blocked.mono_ns,
            task: blocked.task,
            kind: blocked.kind,
            dur_ns: blocked.age_ns,
            blocked_ns: None,
            runqueue_ns: None,
            outcome: None,
            lock: blocked.lock,
            locks: Vec::new(),
            mode: blocked.mode,
            holder: blocked.holder,
            causes: std::collections::BTreeMap::new(),
            waker: None,
            syscall: blocked.syscall,
            probe: blocked.probe,
            ended_by: probe.map(Into::into),
            stack: None,
            at_least: false,
            end_unseen: false,
        })
    }

    pub(crate) fn blocked(self) -> Event {
        Event::from(self.0)
    }
}

/// Totals of a lock, twice: in the second between them so many waits ended, and so many hundredths of a task waited
/// on average.
pub(crate) fn queue(addr: u64, class: LockClass, waits: u64, hundredths: u64) -> [Event; 2] {
    let totals = |mono_ns, waits, total_ns| {
        Event::from(LockTotals {
            time: WallTime(0),
            mono_ns,
            lock: lock(addr, class).into(),
            pid: Some(1),
            process: None,
            waits,
            total_ns,
            max_ns: 1,
            p50_ns: None,
            p99_ns: None,
            timeouts: 0,
            interrupted: 0,
            waiters_now: 0,
            holder: None,
            histogram: Vec::new(),
            callers: Vec::new(),
            estimated: false,
        })
    };
    [
        totals(NOW, 0, 0),
        totals(NOW + SECOND, waits, hundredths * SECOND / 100),
    ]
}

/// A Go process with nothing wrong.
pub(crate) fn goroutines() -> Goroutines {
    Goroutines {
        time: WallTime(0),
        mono_ns: NOW,
        pid: 1,
        process: Some("server".into()),
        container: None,
        release: "go1.24.1".into(),
        layout_of: None,
        untested: None,
        scheduler: None,
        took_ns: 1_000,
        total: 1,
        by_state: std::collections::BTreeMap::new(),
        groups: Vec::new(),
        groups_left_out: 0,
        sites: Vec::new(),
        locks: Vec::new(),
        channels: Vec::new(),
        deadlocks: Vec::new(),
        starved_writers: Vec::new(),
        lost_channels: Vec::new(),
        torn: 0,
        left_out: 0,
        notes: Vec::new(),
    }
}

/// A place that started so many goroutines, which all wait.
pub(crate) fn site(function: &str, count: u64) -> GoroutineSite {
    GoroutineSite {
        created_by: std::sync::Arc::new(GoFrame {
            function: function.into(),
            file: Some("server.go".into()),
            line: Some(7),
            inlined: false,
            addr: Addr(7),
        }),
        count,
        blocked: count,
        births: 0,
        deaths: 0,
        growth: None,
        oldest_ns: None,
    }
}
