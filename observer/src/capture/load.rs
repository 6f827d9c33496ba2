//! Loads the kernel programs and attaches them: the only place, with the rest of `capture`, that knows
//! aya.

use std::{io::Read, os::fd::AsFd};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray, RingBuf, Stack},
    programs::{BtfTracePoint, Iter, TracePoint},
};
use aya_log::EbpfLogger;
use observer_common::{
    COMM_LEN, Config, LockStat, MAX_CGROUPS, Settings, TaskHead, TaskSlot, TaskStat, WaitVector,
    counter, filter,
};

use super::{
    FutexMode, Options, Unsupported, cgroup, goroutines,
    host::{self, Host},
    mapped::{MappedArray, Plain},
    registers,
    stacks::Stacks,
    usdt::{self, Usdt},
};
use crate::event::{self, Missing};

/// The kernel programs, built by the build script and carried in the executable.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("OBSERVER_BPF_OBJECT"));

/// Tables for tasks are at least as large as the first number; as large as the second where the host can have so many
/// threads, and larger only where it has so many.
const TASK_SLOTS: (u32, u32) = (32_768, 1 << 17);
/// Stripes of lock statistics at most, as a power of two.
const MAX_STRIPE_SHIFT: u32 = 3;
/// Calls of `futex_waitv` at the same time that are followed.
const VECTORS: u32 = 512;

/// Stacks that are kept, without and with those of waits: 1 KiB each.
const STACKS: (u32, u32) = (512, 8_192);

/// Futex calls whose tracepoints are used where the kernel has them: the later ones are optional.
const FUTEX_CALLS: [(&str, bool); 3] = [
    ("futex", true),
    ("futex_wait", false),
    ("futex_waitv", false),
];

/// A vector of `futex_waitv`, as a type that the map may hold.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Vector(pub(super) WaitVector);

// SAFETY: the type is integers only, without padding.
unsafe impl aya::Pod for Vector {}

/// What may change while the programs run, as a type that the map may hold.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Tunables(pub(super) Config);

// SAFETY: the type is integers only, without padding.
unsafe impl aya::Pod for Tunables {}

/// Totals of a task as aya reads them.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct StatOfTask(TaskStat);

// SAFETY: the type is integers only, without padding.
unsafe impl aya::Pod for StatOfTask {}

/// Totals of tasks. The table is as large as all others that are mapped, and few entries change between two readings,
/// so it is read by look-ups.
pub(super) enum TaskStats {
    ByLookUp(aya::maps::Array<MapData, StatOfTask>),
    /// While the kernel does a look-up it runs no program at a tracepoint of perf or, before 6.0, at a uprobe
    /// (`bpf_disable_instrumentation`): where there are such programs, a task that takes the CPU meanwhile would be missed.
    Mapped(MappedArray<TaskStat>),
}

impl TaskStats {
    fn new(ebpf: &mut Ebpf, tasks: u32, is_mapped: bool) -> Result<TaskStats> {
        Ok(if is_mapped {
            TaskStats::Mapped(mapped(ebpf, "TASK_STATS", tasks)?)
        } else {
            TaskStats::ByLookUp(take(ebpf, "TASK_STATS")?.try_into()?)
        })
    }

    pub(super) fn get(&self, index: usize) -> Option<TaskStat> {
        match self {
            TaskStats::ByLookUp(map) => Some(map.get(&u32::try_from(index).ok()?, 0).ok()?.0),
            TaskStats::Mapped(array) => array.get(index),
        }
    }
}

/// Everything that is loaded. Dropping it detaches the programs.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) logger: Option<EbpfLogger<&'static dyn log::Log>>,
    pub(super) heads: MappedArray<TaskHead>,
    pub(super) slots: MappedArray<TaskSlot>,
    pub(super) task_stats: TaskStats,
    pub(super) lock_stats: MappedArray<LockStat>,
    pub(super) locks: aya::maps::HashMap<MapData, [u64; 2], u32>,
    pub(super) free: Stack<MapData, u32>,
    pub(super) ring: RingBuf<MapData>,
    pub(super) stacks: Stacks,
    pub(super) config: aya::maps::Array<MapData, Tunables>,
    pub(super) vectors: aya::maps::HashMap<MapData, u32, Vector>,
    pub(super) counters: PerCpuArray<MapData, [u64; counter::COUNT]>,
    pub(super) stripes: usize,
    /// Can threads' registers be asked for?
    pub(super) registers: bool,
    /// And those of one thread by itself, as far as is known?
    pub(super) single_threads: bool,
    pub(super) usdt: Option<Usdt>,
    pub(super) goroutines: Option<goroutines::Goroutines>,
    pub(super) capture: event::Capture,
}

/// What to attach beside the scheduler's hooks.
#[derive(Clone, Copy)]
struct Ways {
    by_syscall: bool,
    kernel_locks: bool,
}

/// Sizes of the tables.
struct Sizes {
    tasks: u32,
    locks: u32,
    stripe_shift: u32,
    ring: u32,
}

impl Sizes {
    fn new(options: &Options, host: &Host) -> Sizes {
        let (pid_max, threads) = host::thread_limits();
        let wanted = threads.saturating_mul(4).next_power_of_two();
        // As many entries as there can be threads, where that is affordable: then none ever collide, and more are of
        // no use.
        let can_be = pid_max.next_power_of_two().max(TASK_SLOTS.0);
        let tasks = wanted.max(TASK_SLOTS.1).min(can_be);
        let page = 4096;
        Sizes {
            tasks: options
                .task_slots
                .map_or(tasks, |n| n.max(64).next_power_of_two()),
            locks: options.lock_slots.max(64),
            stripe_shift: host.cpus.next_power_of_two().ilog2().min(MAX_STRIPE_SHIFT),
            ring: options.ring_bytes.next_power_of_two().max(page),
        }
    }
}

/// Loads and attaches.
///
/// # Errors
/// [`Unsupported`] where privileges or the kernel do not allow it.
pub(super) fn load(options: &Options, host: &Host) -> Result<Loaded> {
    let (mut settings, kernel_locks) = kernel_settings(host)?;
    let by_syscall = by_syscall(options, &settings, host)?;
    let sizes = Sizes::new(options, host);
    settings.task_mask = sizes.tasks - 1;
    settings.stripe_shift = sizes.stripe_shift;
    settings.shared_stripes = u32::from(host.cpus > 1 << sizes.stripe_shift);
    settings.self_tgid = std::process::id();
    settings.log = u32::from(options.log);
    set_filters(options, &mut settings)?;
    let mut ebpf = load_object(&settings, &sizes, options).map_err(|error| refused(&error))?;
    fill_filters(options, &mut ebpf)?;
    let tunables = Tunables(options.tunables());
    aya::maps::Array::try_from(borrow(&mut ebpf, "CONFIG")?)?.set(0, tunables, 0)?;
    let free = free_indices(&mut ebpf, sizes.locks)?;
    let logger = options
        .log
        .then(|| EbpfLogger::init(&mut ebpf).ok())
        .flatten();
    let mut missing = Vec::new();
    let btf = aya::Btf::from_sys_fs().map_err(|error| refused(&error.into()))?;
    let ways = Ways {
        by_syscall,
        kernel_locks,
    };
    let mut attached = attach(&mut ebpf, &btf, ways, &mut missing)?;
    let registers = iterators(&mut ebpf, &btf, &settings, &mut attached, &mut missing);
    let usdt = usdt::start(
        &mut ebpf,
        options,
        &host.kernel,
        &mut attached,
        &mut missing,
    )?;
    let goroutines = goroutines::start(
        &mut ebpf,
        options,
        &host.kernel,
        &mut attached,
        &mut missing,
    )?;
    missing.extend(missing_budget(options, host));
    let capture = event::Capture {
        futex: if by_syscall { "tracepoint" } else { "sched" }.into(),
        attached,
        missing,
        runtimes: Vec::new(),
        task_slots: sizes.tasks,
        lock_slots: sizes.locks,
        ring_bytes: sizes.ring,
    };
    drop(btf);
    give_back_memory();
    let has_perf_programs = by_syscall || usdt.is_some() || goroutines.is_some();
    let mut loaded = tables(ebpf, logger, free, &sizes, has_perf_programs, capture)?;
    loaded.usdt = usdt;
    loaded.goroutines = goroutines;
    loaded.registers = registers;
    Ok(loaded)
}

/// There is no overhead budget without the privilege to measure.
fn missing_budget(options: &Options, host: &Host) -> Option<Missing> {
    let missing = options.max_overhead.is_some() && !host.has_capability(host::CAP_SYS_ADMIN);
    missing.then(|| Missing {
        feature: "overhead budget".into(),
        why: "without CAP_SYS_ADMIN the run time of the kernel programs is not known".into(),
    })
}

/// The kernel's types take tens of megabytes while they are parsed, and so do programs' debug information and looks at
/// thousands of threads at once, which the allocator would keep.
pub(crate) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no precondition; it returns free pages of the heap to the system.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the kernel's types tell, if the privileges are there to use it; and whether the kernel tells of
/// its own locks.
pub(super) fn kernel_settings(host: &Host) -> Result<(Settings, bool)> {
    let missing_caps = host.missing_to_load();
    if !missing_caps.is_empty() {
        return Err(Unsupported(format!(
            "cannot load kernel programs: this process has not {}. observer needs CAP_BPF and \
             CAP_PERFMON (and CAP_SYS_PTRACE for other users' processes): run it with sudo, or see \
             `observer doctor`",
            missing_caps.join(" and ")
        ))
        .into());
    }
    let btf = host::kernel_btf().map_err(|error| {
        Unsupported(format!(
            "{error:#}. observer needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y), 5.10 or later; \
             see `observer doctor`"
        ))
    })?;
    let settings = host::settings_from(&btf).map_err(|error| Unsupported(format!("{error:#}")))?;
    Ok((settings, btf.tracepoint_args("contention_begin").is_some()))
}

/// Takes hold of the tables, now that the programs that use them are loaded.
fn tables(
    mut ebpf: Ebpf,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    free: Stack<MapData, u32>,
    sizes: &Sizes,
    has_perf_programs: bool,
    capture: event::Capture,
) -> Result<Loaded> {
    Ok(Loaded {
        heads: mapped(&mut ebpf, "HEADS", sizes.tasks)?,
        slots: mapped(&mut ebpf, "SLOTS", sizes.tasks)?,
        task_stats: TaskStats::new(&mut ebpf, sizes.tasks, has_perf_programs)?,
        lock_stats: mapped(&mut ebpf, "LOCK_STATS", sizes.locks << sizes.stripe_shift)?,
        locks: take(&mut ebpf, "LOCKS")?.try_into()?,
        ring: take(&mut ebpf, "RING")?.try_into()?,
        config: take(&mut ebpf, "CONFIG")?.try_into()?,
        stacks: Stacks::new(take(&mut ebpf, "STACKS")?)?,
        vectors: take(&mut ebpf, "VECTORS")?.try_into()?,
        counters: take(&mut ebpf, "COUNTERS")?.try_into()?,
        free,
        registers: false,
        single_threads: true,
        stripes: 1 << sizes.stripe_shift,
        usdt: None,
        goroutines: None,
        capture,
        ebpf,
        logger,
    })
}

/// Which of the two ways to know a futex wait.
fn by_syscall(options: &Options, settings: &Settings, host: &Host) -> Result<bool> {
    let registers = settings.has_pt_regs == 1 || settings.regs_on_stack == 1;
    let tracepoint = host.has_tracepoint("syscalls", "sys_enter_futex");
    match options.futex {
        FutexMode::Sched if !registers => Err(Unsupported(
            "this kernel does not give a sleeping task's registers: use --futex tracepoint".into(),
        )
        .into()),
        FutexMode::Tracepoint if !tracepoint => Err(Unsupported(format!(
            "no tracepoint syscalls/sys_enter_futex below {}: mount the tracing file system with \
             `mount -t tracefs tracefs {}`, or use --futex sched",
            host::TRACEFS.join(" or "),
            host::TRACEFS[0]
        ))
        .into()),
        FutexMode::Sched => Ok(false),
        FutexMode::Tracepoint => Ok(true),
        FutexMode::Auto if registers => Ok(false),
        FutexMode::Auto if tracepoint => Ok(true),
        FutexMode::Auto => Err(Unsupported(format!(
            "this kernel gives neither a sleeping task's registers nor system call tracepoints; if \
             the tracing file system is not mounted: `mount -t tracefs tracefs {}`",
            host::TRACEFS[0]
        ))
        .into()),
    }
}

fn set_filters(options: &Options, settings: &mut Settings) -> Result<()> {
    if !options.pids.is_empty() {
        settings.filters |= filter::PID;
    }
    if !options.comms.is_empty() {
        settings.filters |= filter::COMM;
    }
    // A container: its group is for what it starts, its processes for what has slept since before.
    if !options.containers.is_empty() && !options.pids.is_empty() && !options.cgroups.is_empty() {
        settings.filters |= filter::EITHER;
    }
    if options.cgroups.len() > MAX_CGROUPS {
        return Err(anyhow!(
            "{} control groups asked for, at most {MAX_CGROUPS} can be; name one that holds them all",
            options.cgroups.len()
        ));
    }
    for (i, path) in options.cgroups.iter().enumerate() {
        settings.filters |= filter::CGROUP;
        (settings.cgroup_id[i], settings.cgroup_level[i]) = cgroup::identify(path)?;
    }
    Ok(())
}

/// The settings as the kernel programs see them.
pub(super) fn as_bytes(settings: &Settings) -> &[u8] {
    // SAFETY: `Settings` is integers without padding, and the slice does not outlive it.
    unsafe {
        std::slice::from_raw_parts(
            std::ptr::from_ref(settings).cast::<u8>(),
            size_of::<Settings>(),
        )
    }
}

/// The indices of all entries for locks.
fn free_indices(ebpf: &mut Ebpf, locks: u32) -> Result<Stack<MapData, u32>> {
    let mut free = Stack::try_from(take(ebpf, "FREE")?)?;
    // The lowest index comes out first, so that those in use stay together.
    for index in (0..locks).rev() {
        free.push(index, 0)?;
    }
    Ok(free)
}

fn load_object(settings: &Settings, sizes: &Sizes, options: &Options) -> Result<Ebpf> {
    let filters = |wanted: usize| (wanted as u32).max(1);
    let mut loader = EbpfLoader::new();
    loader
        .override_global("SETTINGS", as_bytes(settings), true)
        .map_max_entries("HEADS", sizes.tasks)
        .map_max_entries("SLOTS", sizes.tasks)
        .map_max_entries("TASK_STATS", sizes.tasks)
        .map_max_entries("LOCKS", sizes.locks)
        .map_max_entries("LOCK_STATS", sizes.locks << sizes.stripe_shift)
        .map_max_entries("FREE", sizes.locks)
        .map_max_entries("RING", sizes.ring)
        .map_max_entries("PIDS", filters(options.pids.len()))
        .map_max_entries("COMMS", filters(options.comms.len()))
        .map_max_entries("VECTORS", VECTORS)
        .map_max_entries("STACKS", if options.stacks { STACKS.1 } else { STACKS.0 });
    usdt::size(&mut loader, options);
    goroutines::size(&mut loader, options);
    Ok(loader.load(OBJECT)?)
}

fn fill_filters(options: &Options, ebpf: &mut Ebpf) -> Result<()> {
    let mut pids = aya::maps::HashMap::<_, u32, u8>::try_from(borrow(ebpf, "PIDS")?)?;
    for pid in &options.pids {
        pids.insert(pid, 1, 0)?;
    }
    let mut comms = aya::maps::HashMap::<_, [u8; COMM_LEN], u8>::try_from(borrow(ebpf, "COMMS")?)?;
    for comm in &options.comms {
        let mut key = [0; COMM_LEN];
        let length = comm.len().min(COMM_LEN - 1);
        key[..length].copy_from_slice(&comm.as_bytes()[..length]);
        comms.insert(key, 1, 0)?;
    }
    Ok(())
}

/// Loads and attaches the programs that this run uses; says which.
fn attach(
    ebpf: &mut Ebpf,
    btf: &aya::Btf,
    ways: Ways,
    missing: &mut Vec<Missing>,
) -> Result<Vec<String>> {
    let mut attached = Vec::new();
    // The waker first: a wait that begins must not miss its end.
    for name in ["sched_waking", "sched_switch"] {
        let program: &mut BtfTracePoint = program(ebpf, name)?.try_into()?;
        program
            .load(name, btf)
            .map_err(|error| refused(&anyhow!(error).context(format!("program {name}"))))?;
        program
            .attach()
            .map_err(|error| refused(&anyhow!(error).context(format!("tracepoint {name}"))))?;
        attached.push(format!("tp_btf/{name}"));
    }
    attach_kernel_locks(ebpf, btf, ways.kernel_locks, &mut attached, missing);
    if !ways.by_syscall {
        return Ok(attached);
    }
    for (call, required) in FUTEX_CALLS {
        for side in ["sys_exit_", "sys_enter_"] {
            let name = format!("{side}{call}");
            let program: &mut TracePoint = program(ebpf, &name)?.try_into()?;
            let result = program
                .load()
                .and_then(|()| program.attach("syscalls", &name).map(drop));
            match result {
                Ok(()) => attached.push(format!("tracepoint/syscalls/{name}")),
                Err(error) if required => {
                    return Err(refused(
                        &anyhow!(error).context(format!("tracepoint {name}")),
                    ));
                }
                Err(error) => missing.push(Missing {
                    feature: format!("tracepoint syscalls/{name}"),
                    why: format!(
                        "{error}: waits in {call} are known by registers, without a return code"
                    ),
                }),
            }
        }
    }
    Ok(attached)
}

/// Attaches to the locks inside the kernel, where it tells of them.
fn attach_kernel_locks(
    ebpf: &mut Ebpf,
    btf: &aya::Btf,
    kernel_tells: bool,
    attached: &mut Vec<String>,
    missing: &mut Vec<Missing>,
) {
    if !kernel_tells {
        missing.push(Missing {
            feature: "locks inside the kernel".into(),
            why: "this kernel has no tracepoint contention_begin: Linux 5.19 and later have".into(),
        });
        return;
    }
    // The end first: a wait whose beginning is seen must not miss it.
    for name in ["contention_end", "contention_begin"] {
        let result = program(ebpf, name).and_then(|program| {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(name, btf)?;
            program.attach()?;
            Ok(())
        });
        match result {
            Ok(()) => attached.push(format!("tp_btf/{name}")),
            Err(error) => {
                missing.push(Missing {
                    feature: "locks inside the kernel".into(),
                    why: first_line(&error),
                });
                return;
            }
        }
    }
}

/// An error without the verifier's log, which may be long.
pub(super) fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().to_owned()
}

/// Loads and runs what looks at tasks that sleep. True: their registers can be asked for.
fn iterators(
    ebpf: &mut Ebpf,
    btf: &aya::Btf,
    settings: &Settings,
    attached: &mut Vec<String>,
    missing: &mut Vec<Missing>,
) -> bool {
    match seed(ebpf, btf, settings) {
        Ok(()) => attached.push("iter/task".into()),
        Err(error) => missing.push(Missing {
            feature: "waits older than observer".into(),
            why: format!("{error:#}: a task is seen from its next sleep on"),
        }),
    }
    let registers = registers::load(ebpf, btf, settings);
    if let Err(error) = &registers {
        missing.push(registers::missing(error));
    }
    registers.is_ok()
}

/// Attaches programs that do nothing to the scheduler's hooks, for the benchmark. Dropping the result
/// detaches them.
///
/// # Errors
/// [`Unsupported`] where privileges or the kernel do not allow it.
pub(crate) fn attach_empty() -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new()
        .load(OBJECT)
        .map_err(|error| refused(&error.into()))?;
    let btf = aya::Btf::from_sys_fs().map_err(|error| refused(&error.into()))?;
    for (name, hook) in [
        ("empty_waking", "sched_waking"),
        ("empty_switch", "sched_switch"),
    ] {
        let program: &mut BtfTracePoint = program(&mut ebpf, name)?.try_into()?;
        program
            .load(hook, &btf)
            .and_then(|()| program.attach().map(drop))
            .map_err(|error| refused(&anyhow!(error).context(format!("program {name}"))))?;
    }
    Ok(ebpf)
}

/// Enters the tasks that sleep already.
fn seed(ebpf: &mut Ebpf, btf: &aya::Btf, settings: &Settings) -> Result<()> {
    if settings.filters & (filter::CGROUP | filter::EITHER) == filter::CGROUP {
        return Err(anyhow!("the control group of a sleeping task is not known"));
    }
    let program: &mut Iter = program(ebpf, "seed")?.try_into()?;
    program.load("task", btf)?;
    let link = program.attach()?;
    let mut file = program.take_link(link)?.into_file()?;
    // The program writes nothing: reading to the end is what makes it run.
    let mut nothing = [0; 64];
    while file.read(&mut nothing)? > 0 {}
    Ok(())
}

pub(super) fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the kernel object has no program {name}"))
}

pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("the kernel object has no map {name}"))
}

/// A map that stays with the object: a map that is dropped before the programs are loaded is gone.
pub(super) fn borrow<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the kernel object has no map {name}"))
}

fn mapped<T: Plain>(ebpf: &mut Ebpf, name: &str, len: u32) -> Result<MappedArray<T>> {
    let Map::Array(data) = take(ebpf, name)? else {
        return Err(anyhow!("the map {name} is no array"));
    };
    MappedArray::new(data.fd().as_fd(), len).with_context(|| format!("cannot map the table {name}"))
}

/// An error of the kernel while loading: says what to look at.
pub(super) fn refused(error: &anyhow::Error) -> anyhow::Error {
    Unsupported(format!(
        "the kernel refused observer's programs: {error:#}. `observer doctor` says what is missing"
    ))
    .into()
}
