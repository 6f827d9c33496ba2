//! Parks of goroutines, from their runtime's own functions.
//!
//! One program serves all places; the attach cookie tells which one fired. The places are behind the functions'
//! checks of the stack, where the arguments are still in their registers and the instruction is one that the kernel
//! need not single-step. Loaded only when asked for, and for machines of the type amd64.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user},
    macros::{map, uprobe},
    maps::{Array, HashMap},
    programs::ProbeContext,
};
use observer_common::{
    counter,
    goroutine::{Key, Parked, REASONS, Record, Spec, role},
};

use crate::{cpu, filter, maps, task::current, wait};

/// `BPF_RB_NO_WAKEUP`: the reader polls.
const NO_WAKEUP: u64 = 1;
/// Values of a descriptor's fields that are no goroutine: nobody, ready, about to wait.
const LOWEST: u64 = 4096;

/// Places of amd64's registers in the kernel's `pt_regs`: the first three arguments, and the goroutine that runs.
mod register {
    pub(super) const AX: usize = 80;
    pub(super) const BX: usize = 40;
    pub(super) const CX: usize = 88;
    pub(super) const G: usize = 8;
}

/// Places, by attach cookie.
#[map]
static GO_SPECS: Array<Spec> = Array::with_max_entries(1, 0);
/// Goroutines that have parked.
#[map]
static GO_PARKED: HashMap<Key, Parked> = HashMap::with_max_entries(1, 0);

#[uprobe]
pub(crate) fn goroutine(ctx: ProbeContext) -> u32 {
    maps::lose_on(fired(&ctx));
    0
}

/// The same for kernels that attach to many places at a time: their programs are of another type.
#[uprobe]
pub(crate) fn goroutine_multi(ctx: ProbeContext) -> u32 {
    maps::lose_on(fired(&ctx));
    0
}

#[inline(always)]
fn fired(ctx: &ProbeContext) -> Result<(), u32> {
    let (tid, tgid) = current();
    if !filter::passes(tgid) {
        return Ok(());
    }
    // SAFETY: the helper takes the context of the running program.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let spec = GO_SPECS.get_ptr(cookie as u32).ok_or(counter::GO_READ)?;
    // SAFETY: a pointer to a map entry, which user space filled before it attached and never changes.
    let spec = unsafe { &*spec };
    match spec.role {
        role::PARK => park(ctx, spec, tid, tgid),
        role::READY => ready(
            spec,
            register(ctx, register::AX),
            register(ctx, register::G),
            tid,
            tgid,
        ),
        _ => poll(ctx, spec, tid, tgid),
    }
}

/// A register of the program that hit the place.
#[inline(always)]
fn register(ctx: &ProbeContext, offset: usize) -> u64 {
    // SAFETY: the context is the kernel's `pt_regs`, and the offset that of a register in it.
    unsafe { core::ptr::read_volatile(ctx.as_ptr().cast::<u8>().add(offset).cast()) }
}

/// A word of the program's memory.
#[inline(always)]
fn word(at: u64) -> Result<u64, u32> {
    let mut value = 0u64;
    // SAFETY: the helper reads user memory without faulting, into a word.
    let read = unsafe {
        bpf_probe_read_user(
            (&raw mut value).cast(),
            size_of::<u64>() as u32,
            at as *const _,
        )
    };
    if read == 0 {
        Ok(value)
    } else {
        Err(counter::GO_READ)
    }
}

#[inline(always)]
fn park(ctx: &ProbeContext, spec: &Spec, tid: u32, tgid: u32) -> Result<(), u32> {
    // An argument of one byte: what is above it is left over.
    let reason = (register(ctx, register::CX) & 0xff) as u32;
    if reason >= REASONS || spec.reasons >> reason & 1 == 0 {
        return Ok(());
    }
    let g = register(ctx, register::G);
    let parked = Parked {
        start_ns: cpu::clock_ns(),
        goid: word(g.wrapping_add(u64::from(spec.goid)))?,
        lock: register(ctx, register::BX),
        reason,
        tid,
    };
    let key = Key { g, tgid, pad: 0 };
    // One that was about to park and went on left its entry behind: it is overwritten.
    GO_PARKED
        .insert(key, parked, 0)
        .map_err(|_| counter::GO_PARKED_FULL)
}

/// A goroutine is made ready by whatever runs on the thread of `by`.
#[inline(always)]
fn ready(spec: &Spec, g: u64, by: u64, tid: u32, tgid: u32) -> Result<(), u32> {
    let key = Key { g, tgid, pad: 0 };
    let Some(parked) = GO_PARKED.get_ptr(key) else {
        // It has parked before this was attached, or for a reason that is not followed.
        return Ok(());
    };
    // SAFETY: a pointer to a map entry, which only the goroutine's next park writes.
    let parked = unsafe { *parked };
    let _ = GO_PARKED.remove(key);
    let end_ns = cpu::clock_ns();
    if end_ns.saturating_sub(parked.start_ns) < wait::threshold() {
        return Ok(());
    }
    let waker = if by == 0 { 0 } else { waker(spec, by)? };
    let Some(mut space) = maps::RING.reserve::<Record>(0) else {
        return Err(counter::RING_FULL);
    };
    space.write(Record {
        parked,
        end_ns,
        waker,
        tgid,
        waker_tid: tid,
    });
    space.submit(NO_WAKEUP);
    Ok(())
}

/// The number of the goroutine on whose behalf the thread runs; 0: on nobody's.
#[inline(always)]
fn waker(spec: &Spec, by: u64) -> Result<u64, u32> {
    let m = word(by.wrapping_add(u64::from(spec.m)))?;
    let running = word(m.wrapping_add(u64::from(spec.curg)))?;
    if running == 0 {
        return Ok(0);
    }
    word(running.wrapping_add(u64::from(spec.goid)))
}

/// The poller makes those ready that wait to read (`r`), to write (`w`), or both (the sum).
#[inline(always)]
fn poll(ctx: &ProbeContext, spec: &Spec, tid: u32, tgid: u32) -> Result<(), u32> {
    const READ: u32 = b'r' as u32;
    const WRITE: u32 = b'w' as u32;
    let (descriptor, mode) = (
        register(ctx, register::BX),
        register(ctx, register::CX) as u32,
    );
    if mode == READ || mode == READ + WRITE {
        let g = word(descriptor.wrapping_add(u64::from(spec.rg)))?;
        if g >= LOWEST {
            ready(spec, g, 0, tid, tgid)?;
        }
    }
    if mode == WRITE || mode == READ + WRITE {
        let g = word(descriptor.wrapping_add(u64::from(spec.wg)))?;
        if g >= LOWEST {
            ready(spec, g, 0, tid, tgid)?;
        }
    }
    Ok(())
}
