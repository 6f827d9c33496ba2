//! Takes a dump.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use observer_common::{kind, syscall};

use super::{Dump, Lock, Task, goroutines, java};
use crate::{
    capture::{
        host::Host,
        registers::{RegisterTable, ThreadRegisters},
    },
    event::{
        Addr, Blocked, Capture, Event, Filters, Goroutines, HolderState, Kind, LockClass, LockRef,
        Loss, Meta, Missing, SCHEMA, TaskRef,
    },
    inspect::{
        container::Containers,
        holders,
        look::Looker,
        maps, proc,
        proc::State,
        process,
        registers::{self, Registers, Snapshot, SystemCall},
    },
    model::{Model, graph::Graph},
    rules::{Rules, Thresholds},
    time::{self, Clock},
    watch::{self, circles},
};

/// Circles are looked at again after this.
const CONFIRM: Duration = Duration::from_millis(50);

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// These processes; every process, when empty.
    pub pids: Vec<u32>,
    /// Without processes: threads blocked for at least this long.
    pub long_wait: Duration,
    /// Ask Java virtual machines for their thread dumps.
    pub jvm_attach: bool,
    /// Use `/proc` only, as if the kernel allowed no programs.
    pub no_bpf: bool,
    /// What the rules go by.
    pub thresholds: Thresholds,
}

/// Looks at everything once; at circles twice.
///
/// # Errors
/// A process that was asked for is not there, or may not be read.
pub fn take(options: &Options) -> Result<Dump> {
    let mut taker = Taker::new(options)?;
    for pid in taker.processes()? {
        taker.process(pid);
    }
    if taker.tasks.is_empty() && taker.refused > 0 && !options.pids.is_empty() {
        return Err(crate::capture::Unsupported(
            "cannot read the process: permission denied. observer needs CAP_SYS_PTRACE for the processes of \
             others: run it with sudo, or see `observer doctor`"
                .into(),
        )
        .into());
    }
    Ok(taker.finish())
}

/// A thread, and the event that the rules are to see of it.
pub(super) struct Looked {
    pub(super) task: Task,
    pub(super) blocked: Option<Blocked>,
    /// All this is of one moment: a runtime that stood still told it.
    pub(super) told: bool,
}

struct Taker<'a> {
    options: &'a Options,
    clock: Clock,
    now_ns: u64,
    capture: Capture,
    registers: HashMap<u32, ThreadRegisters>,
    looker: Looker,
    containers: Containers,
    tasks: Vec<Looked>,
    goroutines: Vec<Goroutines>,
    gone: u64,
    torn: u64,
    refused: u64,
}

impl<'a> Taker<'a> {
    fn new(options: &'a Options) -> Result<Taker<'a>> {
        for &pid in &options.pids {
            if proc::stat(pid, pid).is_none() {
                match proc::process_of(pid) {
                    Some(process) => bail!(
                        "{pid} is a thread of process {process}; name the process: observer dump {process}"
                    ),
                    None => bail!("there is no process {pid}; `ps -e` lists those there are"),
                }
            }
        }
        let mut capture = Capture {
            futex: "none".into(),
            ..Capture::default()
        };
        let one = match options.pids[..] {
            [pid] => Some(pid),
            _ => None,
        };
        let table = if options.no_bpf {
            Err(anyhow::anyhow!("not asked for"))
        } else {
            RegisterTable::open().and_then(|mut table| table.read(one))
        };
        let registers = match table {
            Ok(all) => {
                capture.attached.push("iter/task".into());
                all.into_iter().map(|one| (one.tid, one)).collect()
            }
            Err(error) => {
                capture.attached.push("/proc".into());
                capture.missing.push(Missing {
                    feature: "registers of all threads in one read".into(),
                    why: format!("{error:#}: ages are not known, and some stacks have gaps"),
                });
                HashMap::new()
            }
        };
        let mut looker = Looker::default();
        looker.activity.patient = true;
        Ok(Taker {
            options,
            clock: Clock::now(),
            now_ns: time::mono_ns(),
            capture,
            registers,
            looker,
            containers: Containers::default(),
            tasks: Vec::new(),
            goroutines: Vec::new(),
            gone: 0,
            torn: 0,
            refused: 0,
        })
    }

    fn processes(&self) -> Result<Vec<u32>> {
        if !self.options.pids.is_empty() {
            return Ok(self.options.pids.clone());
        }
        let own = std::process::id();
        let mut all = proc::processes();
        all.retain(|pid| *pid != own && !proc::is_kernel_thread(*pid));
        all.sort_unstable();
        if all.is_empty() {
            bail!("no process can be seen in /proc: is it mounted?");
        }
        Ok(all)
    }

    fn process(&mut self, pid: u32) {
        let name: Option<Arc<str>> = proc::stat(pid, pid).map(|stat| stat.comm.into());
        let mut threads = proc::threads(pid);
        threads.sort_unstable();
        for tid in threads {
            match self.thread(pid, tid, name.as_ref()) {
                Ok(Some(looked)) => self.tasks.push(looked),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.refused += 1,
                Err(_) => self.gone += 1,
            }
        }
        if self.options.jvm_attach
            && let Err(why) = java::tell(pid, &mut self.tasks, &mut self.looker.activity)
        {
            self.capture.missing.push(Missing {
                feature: format!("Java threads of process {pid}"),
                why,
            });
        }
        if self.options.pids.is_empty() {
            // Of a whole host, what was learned of each process would fill the memory.
            self.looker.forget(pid);
        } else {
            match goroutines::look(pid, self.clock) {
                Some(Ok(found)) => self.goroutines.push(found),
                Some(Err(missing)) => self.capture.missing.push(missing),
                None => {}
            }
        }
    }

    fn thread(
        &mut self,
        pid: u32,
        tid: u32,
        process: Option<&Arc<str>>,
    ) -> io::Result<Option<Looked>> {
        let stat = proc::stat(pid, tid).ok_or(io::ErrorKind::NotFound)?;
        if stat.state == State::Ended {
            return Ok(None);
        }
        let (registers, since_ns) = self.registers_of(pid, tid)?;
        let waits = matches!(stat.state, State::Sleeping | State::Uninterruptible);
        let age_ns = since_ns
            .filter(|_| waits)
            .map(|since_ns| self.now_ns.saturating_sub(since_ns));
        let shown = !self.options.pids.is_empty()
            || waits
                && (self.is_long(age_ns, registers.as_ref())
                    || self.looker.is_backend(pid, Some(&stat.comm))
                    || self.looker.is_entering(pid, tid, registers.as_ref()));
        if !shown {
            return Ok(None);
        }
        let mut named = TaskRef {
            comm: Some(stat.comm.as_str().into()),
            process: process.cloned(),
            ..TaskRef::new(pid, tid)
        };
        self.containers.complete(&mut named);
        let mut task = Task {
            task: named.into(),
            state: Some(match stat.state {
                State::Sleeping | State::Uninterruptible => HolderState::Waiting,
                State::Stopped => HolderState::Stopped,
                _ => HolderState::Runnable,
            }),
            kind: None,
            age_ns,
            at_least: age_ns.is_some(),
            lock: None,
            access: None,
            mode: None,
            holder: None,
            chain: Vec::new(),
            syscall: None,
            file: None,
            stack: None,
        };
        if !waits {
            task.state = holders::doing(pid, tid, &mut self.looker.activity).state;
            return Ok(Some(Looked {
                task,
                blocked: None,
                told: false,
            }));
        }
        wait(&mut task, registers.as_ref());
        let blocked = self.blocked(&task, registers.as_ref());
        self.look(task, blocked, registers).map(Some)
    }

    /// Registers of a thread that is blocked, and since when it is, where that is known.
    fn registers_of(&self, pid: u32, tid: u32) -> io::Result<(Option<Registers>, Option<u64>)> {
        let given = self.registers.get(&tid).filter(|one| one.pid == pid);
        let snapshot = match given {
            Some(given) => given.snapshot,
            None => registers::from_proc(pid, tid)?,
        };
        let registers = match snapshot {
            Snapshot::Blocked(registers) => Some(registers),
            Snapshot::Running => None,
        };
        Ok((registers, given.and_then(|given| given.since_ns)))
    }

    /// Of a whole host only what has been blocked for long is told; without ages, what is not idle.
    fn is_long(&self, age_ns: Option<u64>, registers: Option<&Registers>) -> bool {
        let long_ns = u64::try_from(self.options.long_wait.as_nanos()).unwrap_or(u64::MAX);
        let call = registers.and_then(|registers| registers.call);
        let idle = call.is_none_or(|call| kind_of(call.nr).is_idle());
        !idle && age_ns.is_none_or(|age_ns| age_ns >= long_ns)
    }

    /// The event that a live run would have of the wait.
    fn blocked(&self, task: &Task, registers: Option<&Registers>) -> Blocked {
        let call = registers.and_then(crate::inspect::look::futex_call);
        Blocked {
            time: self.clock.wall(self.now_ns),
            mono_ns: self.now_ns,
            task: task.task.clone(),
            kind: task.kind.unwrap_or(Kind::Other),
            age_ns: task.age_ns.unwrap_or(0),
            blocked_ns: None,
            runqueue_ns: None,
            lock: call.map(|call| {
                let shared = (!call.private)
                    .then(|| maps::find(task.task.pid, call.addr))
                    .flatten()
                    .filter(|mapping| mapping.shared);
                Arc::new(LockRef {
                    id: maps::lock_id(task.task.pid, call.addr, shared.as_ref()).into(),
                    class: LockClass::Futex,
                    name: None,
                    addr: Addr(call.addr),
                    shared: shared.is_some(),
                })
            }),
            locks: Vec::new(),
            access: None,
            holder: None,
            syscall: task
                .syscall
                .as_deref()
                .map(|name| Cow::Owned(name.to_owned())),
            probe: None,
            mode: None,
            stack: None,
            at_least: task.at_least,
        }
    }

    fn look(
        &mut self,
        mut task: Task,
        mut blocked: Blocked,
        registers: Option<Registers>,
    ) -> io::Result<Looked> {
        let (pid, tid) = (task.task.pid, task.task.tid);
        let look = self.looker.look(pid, tid, registers, Some(&|_| None))?;
        if look.torn {
            self.torn += 1;
        }
        watch::take(&mut blocked, &look);
        task.task = blocked.task.clone();
        task.kind = Some(blocked.kind);
        task.lock.clone_from(&blocked.lock);
        task.access = blocked.access;
        task.mode.clone_from(&blocked.mode);
        task.holder.clone_from(&blocked.holder);
        task.stack.clone_from(&blocked.stack);
        Ok(Looked {
            task,
            blocked: Some(blocked),
            told: false,
        })
    }

    fn finish(mut self) -> Dump {
        let meta = self.meta();
        let mut model = Model::default();
        model.apply(Event::from(meta.clone()));
        for looked in &self.tasks {
            if let Some(blocked) = &looked.blocked {
                model.apply(Event::from(blocked.clone()));
            }
        }
        let graph = model.graph();
        let deadlocks = self.deadlocks(&graph);
        for deadlock in &deadlocks {
            model.apply(Event::from(deadlock.clone()));
        }
        for looked in &mut self.tasks {
            let chain = graph.chain(looked.task.task.tid);
            if chain.len() > 1 {
                let first = std::iter::once(looked.task.task.tid);
                looked.task.chain = first.chain(chain.iter().map(|edge| edge.to)).collect();
            }
            describe_holder(&mut looked.task, &model);
        }
        for goroutines in &self.goroutines {
            model.apply(Event::from(goroutines.clone()));
        }
        let findings = Rules::new(self.options.thresholds).check(&model);
        for finding in &findings {
            model.apply(Event::from(finding.clone()));
        }
        Dump {
            meta,
            locks: locks(&self.tasks),
            deadlocks,
            findings,
            loss: self.loss(),
            goroutines: self.goroutines,
            tasks: self.tasks.into_iter().map(|looked| looked.task).collect(),
            model,
        }
    }

    /// Circles that a second look confirms.
    fn deadlocks(&mut self, graph: &Graph) -> Vec<crate::event::Deadlock> {
        let cycles = graph.cycles();
        if cycles.is_empty() {
            return Vec::new();
        }
        thread::sleep(CONFIRM);
        let mut known: HashMap<u32, Blocked> = HashMap::new();
        let members: HashSet<u32> = cycles.iter().flatten().map(|edge| edge.from).collect();
        for looked in &self.tasks {
            if let Some(blocked) = &looked.blocked
                && members.contains(&blocked.task.tid)
            {
                let mut blocked = blocked.clone();
                if looked.told {
                    known.insert(blocked.task.tid, blocked);
                    continue;
                }
                blocked.holder = None;
                let (pid, tid) = (blocked.task.pid, blocked.task.tid);
                if let Ok(look) = self.looker.look(pid, tid, None, Some(&|_| None)) {
                    watch::take(&mut blocked, &look);
                    known.insert(tid, blocked);
                }
            }
        }
        let holder = |tid: u32| known.get(&tid)?.holder.as_ref()?.tid;
        cycles
            .iter()
            .filter(|cycle| cycle.iter().all(|edge| holder(edge.from) == Some(edge.to)))
            .map(|cycle| {
                let time = self.clock.wall(self.now_ns);
                circles::deadlock(cycle, |tid| known.get(&tid), time, self.now_ns)
            })
            .collect()
    }

    fn meta(&self) -> Meta {
        let host = Host::look();
        let (name, kernel, cpus) = match host {
            Ok(host) => (host.name, host.kernel, host.cpus),
            Err(_) => (String::new(), String::new(), 1),
        };
        Meta {
            time: self.clock.wall(self.now_ns),
            mono_ns: self.now_ns,
            schema: SCHEMA,
            observer: env!("CARGO_PKG_VERSION").to_owned(),
            host: name,
            kernel,
            cpus,
            filters: Filters {
                pids: self.options.pids.clone(),
                long_wait_ns: u64::try_from(self.options.long_wait.as_nanos()).unwrap_or(u64::MAX),
                thresholds: self.options.thresholds.changed(),
                ..Filters::default()
            },
            capture: Capture {
                runtimes: process::runtimes(&self.options.pids),
                ..self.capture.clone()
            },
        }
    }

    fn loss(&self) -> Loss {
        let counters: BTreeMap<Cow<'static, str>, u64> = [
            ("threads_gone".into(), self.gone),
            ("threads_refused".into(), self.refused),
            ("threads_torn".into(), self.torn),
        ]
        .into();
        Loss {
            time: self.clock.wall(self.now_ns),
            mono_ns: self.now_ns,
            total: counters.values().sum(),
            counters,
        }
    }
}

/// What the system call says.
fn wait(task: &mut Task, registers: Option<&Registers>) {
    let Some(registers) = registers else { return };
    let Some(SystemCall { nr, args }) = registers.call else {
        task.kind = Some(Kind::PageFault);
        return;
    };
    let name = syscall::name(nr.cast_signed());
    task.syscall = Some(name.map_or_else(|| format!("syscall_{nr}").into(), Into::into));
    task.kind = Some(kind_of(nr));
    if is_on_file(nr)
        && let Some(file) = proc::file(task.task.pid, args[0])
    {
        task.kind = Some(kind_of_file(&file));
        task.file = Some(file.into());
    }
}

/// A holder that waits for a lock itself: which.
fn describe_holder(task: &mut Task, model: &Model) {
    let Some(holder) = &mut task.holder else {
        return;
    };
    if let Some(wait) = holder.tid.and_then(|tid| model.blocked_task(tid))
        && let Some(lock) = &wait.event.lock
        && lock.class != LockClass::Futex
    {
        holder.doing = Some(format!("waiting for {lock}").into());
    }
}

fn locks(tasks: &[Looked]) -> Vec<Lock> {
    let mut locks: BTreeMap<Arc<str>, Lock> = BTreeMap::new();
    for looked in tasks {
        let Some(lock) = &looked.task.lock else {
            continue;
        };
        let entry = locks.entry(Arc::clone(&lock.id)).or_insert_with(|| Lock {
            lock: lock.clone(),
            pid: looked.task.task.pid,
            waiters_now: 0,
            holder: looked.task.holder.clone(),
        });
        entry.waiters_now += 1;
    }
    let mut locks: Vec<Lock> = locks.into_values().collect();
    locks.sort_by_key(|lock| std::cmp::Reverse(lock.waiters_now));
    locks
}

fn kind_of(nr: u32) -> Kind {
    let number = syscall::KINDS.get(nr as usize).copied();
    match number {
        Some(_) if nr.cast_signed() == syscall::FUTEX => Kind::Futex,
        Some(number) => Kind::of(number),
        None => Kind::Other,
    }
}

fn is_on_file(nr: u32) -> bool {
    let number = syscall::KINDS.get(nr as usize);
    number
        .is_some_and(|number| matches!(*number, kind::FILE | kind::SOCKET | kind::PIPE | kind::IO))
}

/// By what `/proc` calls it.
fn kind_of_file(name: &str) -> Kind {
    match name.split(':').next() {
        Some("socket") => Kind::Socket,
        Some("pipe") => Kind::Pipe,
        Some("anon_inode") => Kind::Poll,
        _ => Kind::Io,
    }
}
