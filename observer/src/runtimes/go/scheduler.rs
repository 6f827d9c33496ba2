//! What the scheduler is at: what `GODEBUG=schedtrace` prints, from outside.
//!
//! The variables have no names in a stripped program. The function that prints them has one, and refers to
//! them: the scheduler's own struct is where all fields that it prints lie at the distances that they must have,
//! and the list of processors is a list of structs that are numbered from 0.

use super::{
    code::{Code, Use},
    gather::{self, Gathered},
    inventory::{Processor, Scheduler},
    layout::{Layout, Schedt},
    module::Module,
    pclntab::Function,
    target::Target,
    words::{AddrSet, u32_at, u64_at},
};
use crate::{
    event::{GoGc, GoProcessorState},
    inspect::memory::Memory,
};

/// Processors believed.
const MAX_PROCESSORS: u64 = 8192;
/// Room in a processor's queue.
const QUEUE: u32 = 256;
/// Numbers of threads and goroutines that are believed.
const MAX_COUNT: i64 = 1 << 32;

/// Functions whose code refers to the variables.
pub(super) const FUNCTIONS: [&str; 3] = [
    "runtime.schedtrace",
    "runtime.gcTrigger.test",
    "runtime.gcMarkDone",
];

/// Where the variables are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    sched: u64,
    /// The slice of the processors.
    processors: u64,
    /// The garbage collector's phase.
    phase: Option<u64>,
}

/// Finds the variables by the code of [`FUNCTIONS`].
pub(super) fn find(
    memory: &dyn Memory,
    module: &Module,
    layout: &Layout,
    functions: &[Option<Function>],
) -> Option<Places> {
    let [trace, trigger, done] = functions else {
        return None;
    };
    let code = Code::of(memory, trace.as_ref()?)?;
    let sched = sched(&code, module, layout.schedt.as_ref()?)?;
    let slices = code.variables(module, Use::Load);
    let processors = slices.iter().copied().find(|addr| {
        slices.contains(&addr.wrapping_add(8)) && processors(memory, layout, *addr).is_some()
    });
    // One function asks if it is off, the other if it is the first.
    let compared = |function: &Option<Function>, with| {
        let code = Code::of(memory, function.as_ref()?)?;
        Some(code.variables(module, Use::Compare(with)))
    };
    let (off, marking) = (compared(trigger, 0), compared(done, 1));
    let phase = off
        .unwrap_or_default()
        .into_iter()
        .find(|addr| marking.as_ref().is_some_and(|all| all.contains(addr)));
    Some(Places {
        sched,
        processors: processors?,
        phase,
    })
}

/// The struct whose lock is taken, and all of whose fields are used.
fn sched(code: &Code, module: &Module, layout: &Schedt) -> Option<u64> {
    let used: AddrSet = code.anything(module);
    let fields = [
        layout.nmidle,
        layout.mnext,
        layout.nmfreed,
        layout.npidle,
        layout.nmspinning,
        layout.runqsize,
    ];
    let locks = code.variables(module, Use::Address).into_iter();
    let mut structs = locks.map(|lock| lock.wrapping_sub(layout.lock as u64));
    structs.find(|at| {
        let mut fields = fields.iter().map(|field| at.wrapping_add(*field as u64));
        fields.all(|field| used.contains(&field))
    })
}

/// The addresses of all processors, if this is their slice.
fn processors(memory: &dyn Memory, layout: &Layout, slice: u64) -> Option<Vec<u64>> {
    let id = layout.p.as_ref()?.id as u64;
    let (first, count) = (memory.u64(slice)?, memory.u64(slice.checked_add(8)?)?);
    if count == 0 || count > MAX_PROCESSORS || first == 0 || first % 8 != 0 {
        return None;
    }
    let mut bytes = vec![0; count as usize * 8];
    if !memory.read(first, &mut bytes) {
        return None;
    }
    let words = bytes.as_chunks::<8>().0.iter();
    let all: Vec<u64> = words.map(|word| u64::from_le_bytes(*word)).collect();
    let addrs: Vec<u64> = all.iter().map(|addr| addr.wrapping_add(id)).collect();
    let mut numbered = 0;
    gather::each(memory, &addrs, 4, |i, bytes| {
        numbered += usize::from(u32_at(bytes, 0) == Some(i as u32));
    });
    (numbered == all.len()).then_some(all)
}

/// Where each processor keeps addresses for the collector that mean nothing any more, as far as that is known.
pub(super) fn leftovers<M: Memory>(target: &Target<M>) -> Vec<(u64, u64)> {
    let (layout, memory) = (&target.layout, &target.memory);
    let Some((p, places)) = layout.p.as_ref().zip(target.scheduler.as_ref()) else {
        return Vec::new();
    };
    let Some(at) = p.wb_buf else {
        return Vec::new();
    };
    let all = processors(memory, layout, places.processors).unwrap_or_default();
    let span = |p_addr: &u64| {
        // Where the next one goes, where the room ends, the room.
        let next = p_addr.wrapping_add(at as u64);
        let room = next.wrapping_add(16);
        let end = memory.u64(next.wrapping_add(8))?;
        let is_room = end > room && end - room <= p.size as u64;
        is_room.then_some((room, end))
    };
    all.iter().filter_map(span).collect()
}

/// Looks once. None: not found, or what is there contradicts itself.
pub(super) fn read<M: Memory>(target: &Target<M>) -> Option<Scheduler> {
    let (places, layout) = (target.scheduler.as_ref()?, &target.layout);
    let (sched, memory) = (layout.schedt.as_ref()?, &target.memory);
    let fields = [
        sched.nmidle,
        sched.mnext,
        sched.nmfreed,
        sched.npidle,
        sched.nmspinning,
        sched.runqsize,
        sched.gcwaiting,
    ];
    let size = fields.iter().max()? + 8;
    let mut bytes = vec![0; size];
    if !memory.read(places.sched, &mut bytes) {
        return None;
    }
    let half = |at: usize| u32_at(&bytes, at).filter(|count| count.cast_signed() >= 0);
    let word = |at: usize| u64_at(&bytes, at).map(u64::cast_signed);
    let threads = word(sched.mnext)?.checked_sub(word(sched.nmfreed)?)?;
    if !(1..MAX_COUNT).contains(&threads) {
        return None;
    }
    let processors = all_processors(target, &processors(memory, layout, places.processors)?);
    Some(Scheduler {
        idle_processors: half(sched.npidle)?,
        run_queue: half(sched.runqsize)?,
        threads: threads as u64,
        idle_threads: half(sched.nmidle)?,
        spinning_threads: half(sched.nmspinning)?,
        syscall_threads: 0,
        stopping: *bytes.get(sched.gcwaiting)? != 0,
        gc: places.phase.and_then(|phase| gc(memory.u32(phase)?)),
        processors,
    })
}

fn gc(phase: u32) -> Option<GoGc> {
    Some(match phase {
        0 => GoGc::Off,
        1 => GoGc::Mark,
        2 => GoGc::MarkTermination,
        _ => return None,
    })
}

fn all_processors<M: Memory>(target: &Target<M>, addrs: &[u64]) -> Vec<Processor> {
    let Some(layout) = &target.layout.p else {
        return Vec::new();
    };
    let fields = [
        layout.id,
        layout.status,
        layout.m,
        layout.runqhead,
        layout.runqtail,
        layout.runnext,
    ];
    let size = fields.iter().max().map_or(0, |last| last + 8);
    let wanted: Vec<_> = addrs.iter().map(|addr| (*addr, size as u32)).collect();
    let mut all = Gathered::default();
    all.read(&target.memory, &wanted);
    let mut found = Vec::with_capacity(addrs.len());
    let mut threads = Vec::new();
    for i in 0..addrs.len() {
        let Some(bytes) = all.get(i) else {
            continue;
        };
        let half = |at| u32_at(bytes, at).unwrap_or_default();
        let word = |at| u64_at(bytes, at).unwrap_or_default();
        let queue = half(layout.runqtail).wrapping_sub(half(layout.runqhead));
        found.push(Processor {
            id: i as u32,
            state: state(half(layout.status)),
            // The two ends are not read at the same moment.
            run_queue: queue.min(QUEUE),
            next: word(layout.runnext) != 0,
            tid: None,
        });
        threads.push(word(layout.m).wrapping_add(target.layout.m.procid as u64));
    }
    gather::each(&target.memory, &threads, 8, |i, bytes| {
        let tid = u64_at(bytes, 0).and_then(|tid| u32::try_from(tid).ok());
        found[i].tid = tid.filter(|tid| *tid != 0);
    });
    // One that is idle has no thread, and the address of none is close to zero.
    for processor in &mut found {
        if processor.state == Some(GoProcessorState::Idle) {
            processor.tid = None;
        }
    }
    found
}

fn state(status: u32) -> Option<GoProcessorState> {
    Some(match status {
        0 => GoProcessorState::Idle,
        1 => GoProcessorState::Running,
        2 => GoProcessorState::Syscall,
        3 => GoProcessorState::Stopped,
        _ => return None,
    })
}
