//! USDT probes in pairs: one says that a wait begins, the other that it ends.
//!
//! One program serves all probes; the attach cookie tells which one fired. Arguments are read from the
//! registers and the memory that the probe's note names. Loaded only when pairs were asked for.
//!
//! The programs may be preempted, so nothing is kept by CPU here. The tables are touched by these programs
//! alone: a contended lock of theirs, of which [`crate::klock`] is told, leads back to none of them.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_get_attach_cookie, bpf_get_current_comm, bpf_probe_read_kernel, bpf_probe_read_user,
        bpf_probe_read_user_str,
    },
    macros::{map, uprobe},
    maps::{Array, HashMap},
    programs::ProbeContext,
};
use observer_common::{
    BUCKETS, Comm, bucket, counter,
    usdt::{
        Argument, Monitor, NONE, Record, ResourceKey, SLOTS, Spec, Stat, TEXT, Wait, WaitKey, flag,
        role,
    },
};

use crate::{cpu, filter, maps, task::current, wait};

/// `BPF_NOEXIST`.
const NEW: u64 = 1;
/// `BPF_RB_NO_WAKEUP`: the reader polls.
const NO_WAKEUP: u64 = 1;
/// No register lies behind this in any machine's `pt_regs`.
const REGISTERS: u16 = 320;

/// Registers of amd64 in the kernel's `pt_regs`: the first argument of a function, and where it is.
const FIRST: u16 = 112;
const IP: u16 = 128;
/// Bits of a Java object's first word that say that it is elsewhere now (`markWord::marked_value`).
const MOVED: u64 = 3;

/// Probes, by attach cookie.
#[map]
static USDT_SPECS: Array<Spec> = Array::with_max_entries(1, 0);
/// Places where monitors of Java are waited for, likewise.
#[map]
static USDT_MONITORS: HashMap<u32, Monitor> = HashMap::with_max_entries(1, 0);
/// Waits in progress.
#[map]
static USDT_WAITS: HashMap<WaitKey, Wait> = HashMap::with_max_entries(1, 0);
/// Totals by resource.
#[map]
static USDT_STATS: HashMap<ResourceKey, Stat> = HashMap::with_max_entries(1, 0);
/// What a new entry of `USDT_STATS` is made from: too large for the stack of a program.
#[map]
static USDT_EMPTY: Array<Stat> = Array::with_max_entries(1, 0);

#[uprobe]
pub(crate) fn usdt(ctx: ProbeContext) -> u32 {
    maps::lose_on(fired(&ctx));
    0
}

/// The same for kernels that attach to many places at a time: their programs are of another type.
#[uprobe]
pub(crate) fn usdt_multi(ctx: ProbeContext) -> u32 {
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
    let spec = USDT_SPECS
        .get_ptr(cookie as u32)
        .ok_or(counter::USDT_READ)?;
    // SAFETY: pointers to map entries, which user space filled before it attached and never changes.
    unsafe {
        let key = WaitKey {
            tid,
            pair: (*spec).pair,
        };
        if (*spec).role == role::END {
            end(&key, tgid, u32::from((*spec).end))
        } else {
            begin(ctx, spec, &key, tgid, cookie as u32)
        }
    }
}

/// Notes that a wait begins.
#[inline(always)]
unsafe fn begin(
    ctx: &ProbeContext,
    spec: *const Spec,
    key: &WaitKey,
    tgid: u32,
    cookie: u32,
) -> Result<(), u32> {
    let mut wait = Wait {
        tid: key.tid,
        tgid,
        pair: key.pair,
        ..Wait::default()
    };
    // SAFETY: `spec` is a map entry.
    unsafe {
        if (*spec).role == role::MONITOR {
            if !monitor(ctx, cookie, &mut wait)? {
                return Ok(());
            }
        } else {
            arguments(ctx, spec, &mut wait)?;
        }
    }
    wait.start_ns = cpu::clock_ns();
    // SAFETY: a look-up whose value is not read.
    if unsafe { USDT_WAITS.get(key) }.is_some() {
        // An exception or a jump led past the probe that ends it.
        maps::lose(counter::USDT_UNENDED);
    }
    USDT_WAITS
        .insert(key, wait, 0)
        .map_err(|_| counter::USDT_WAITS_FULL)
}

/// Reads what the probe passes.
#[inline(always)]
unsafe fn arguments(ctx: &ProbeContext, spec: *const Spec, wait: &mut Wait) -> Result<(), u32> {
    // SAFETY: `spec` is a map entry.
    unsafe {
        let count = (*spec).count as usize;
        let identifying = (*spec).key;
        let mut i = 0;
        while i < SLOTS {
            if i < count {
                let value = value(ctx, &raw const (*spec).args[i])?;
                wait.args[i] = value;
                if identifying == 1 << i {
                    wait.resource = value;
                } else if identifying & (1 << i) != 0 {
                    wait.resource = mix(wait.resource, value);
                }
            }
            i += 1;
        }
        let by = (*spec).by;
        let sort = argument_at(wait, by);
        if by != 0 && sort < 32 && (*spec).fleeting >> sort & 1 != 0 {
            wait.resource = sort;
        }
        read_text(spec, wait);
    }
    Ok(())
}

/// The monitor that a Java thread begins to wait for. False: the machine's own probes tell of it.
#[inline(always)]
unsafe fn monitor(ctx: &ProbeContext, cookie: u32, wait: &mut Wait) -> Result<bool, u32> {
    let places = USDT_MONITORS.get_ptr(cookie).ok_or(counter::USDT_READ)?;
    let ip = register(ctx, IP)?;
    let monitor = register(ctx, FIRST)?;
    // SAFETY: a pointer to a map entry, which user space filled before it attached and never changes.
    unsafe {
        if word(ip.wrapping_add((*places).probes), 1)? != 0 {
            return Ok(false);
        }
        wait.args[0] = monitor;
        wait.resource = monitor;
        // Without it the wait has no name, and is one all the same.
        if class_name(&*places, ip, monitor, wait).is_err() {
            maps::lose(counter::USDT_TEXT);
        }
    }
    Ok(true)
}

/// Reads the name of the class of a monitor's object, as far as it can be told.
#[inline(always)]
fn class_name(places: &Monitor, ip: u64, monitor: u64, wait: &mut Wait) -> Result<(), u32> {
    let offset = |at: u64, offset: u32| at.wrapping_add(u64::from(offset));
    let is_set =
        |distance: u64| Ok::<_, u32>(distance != 0 && word(ip.wrapping_add(distance), 1)? != 0);
    if places.named == 0 || is_set(places.hides[0])? || is_set(places.hides[1])? {
        return Ok(());
    }
    let object = word(word(offset(monitor, places.object), 8)?, 8)?;
    // Nobody refers to it any more, or what is here was left behind.
    if object == 0 || word(offset(object, places.mark), 8)? & MOVED == MOVED {
        return Ok(());
    }
    let class = if is_set(places.narrow)? {
        let base = word(ip.wrapping_add(places.base), 8)?;
        let shift = word(ip.wrapping_add(places.shift), 4)? as u32;
        base.wrapping_add(word(offset(object, places.klass), 4)?.wrapping_shl(shift))
    } else {
        word(offset(object, places.klass), 8)?
    };
    let name = word(offset(class, places.name), 8)?;
    let length = word(offset(name, places.length), 2)?;
    let length = if length >= TEXT as u64 {
        TEXT as u64 - 1
    } else {
        length
    };
    let length = at_most::<63>(length as u32);
    // SAFETY: the helper writes at most 63 bytes of the field's 64.
    let read = unsafe {
        bpf_probe_read_user(
            (&raw mut wait.text).cast(),
            length,
            offset(name, places.body) as *const _,
        )
    };
    if read == 0 {
        Ok(())
    } else {
        Err(counter::USDT_TEXT)
    }
}

/// `size` bytes of the program's memory, at most eight.
#[inline(always)]
fn word(at: u64, size: u32) -> Result<u64, u32> {
    let mut value = 0u64;
    // SAFETY: the helper reads user memory without faulting, at most the eight bytes of a word.
    let read = unsafe { bpf_probe_read_user((&raw mut value).cast(), size, at as *const _) };
    if read == 0 {
        Ok(value)
    } else {
        Err(counter::USDT_READ)
    }
}

/// Mixes values that identify a resource together (the multiplier is that of FNV-1a).
#[inline(always)]
fn mix(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(23) ^ value).wrapping_mul(0x0000_0100_0000_01b3)
}

/// A register of the program that hit the probe.
#[inline(always)]
fn register(ctx: &ProbeContext, offset: u16) -> Result<u64, u32> {
    if offset == NONE {
        return Ok(0);
    }
    if offset >= REGISTERS {
        return Err(counter::USDT_READ);
    }
    let mut value = 0u64;
    // SAFETY: the helper reads kernel memory without faulting, into a word. Where in the registers is not
    // known to the verifier, so it would not let the program load it itself.
    let read = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<u64>() as u32,
            ctx.as_ptr().cast::<u8>().add(offset as usize).cast(),
        )
    };
    if read == 0 {
        Ok(value)
    } else {
        Err(counter::USDT_READ)
    }
}

/// The value of an argument, widened to 64 bits.
#[inline(always)]
unsafe fn value(ctx: &ProbeContext, argument: *const Argument) -> Result<u64, u32> {
    // SAFETY: `argument` is part of a map entry.
    let argument = unsafe { *argument };
    let index = register(ctx, argument.index)?;
    let mut value = register(ctx, argument.base)?
        .wrapping_add(index.wrapping_shl(u32::from(argument.scale)))
        .wrapping_add(argument.displacement);
    if argument.flags & flag::MEMORY != 0 {
        let mut bytes = [0u64; 2];
        let size = at_most::<15>(u32::from(argument.size));
        // SAFETY: the helper reads user memory without faulting, at most 15 bytes of the 16.
        let read = unsafe { bpf_probe_read_user((&raw mut bytes).cast(), size, value as *const _) };
        if read != 0 {
            return Err(counter::USDT_READ);
        }
        value = bytes[0];
    }
    value >>= u32::from(argument.shift) & 63;
    let unused = 64u32.wrapping_sub(u32::from(argument.size) * 8) & 63;
    value <<= unused;
    Ok(if argument.flags & flag::SIGNED != 0 {
        ((value as i64) >> unused) as u64
    } else {
        value >> unused
    })
}

/// Masks a number by an instruction that the compiler cannot see to be needless.
#[inline(always)]
fn at_most<const MASK: u32>(number: u32) -> u32 {
    #[cfg_attr(
        not(target_arch = "bpf"),
        expect(unused_mut, reason = "the instruction is the kernel's")
    )]
    let mut number = u64::from(number & MASK);
    #[cfg(target_arch = "bpf")]
    // SAFETY: the instruction changes one register, which it is given.
    unsafe {
        core::arch::asm!("{number} &= {mask}", number = inout(reg) number, mask = const MASK);
    }
    number as u32
}

/// Reads the text that an argument points to. Without it the wait has no name, and is one all the same.
#[inline(always)]
unsafe fn read_text(spec: *const Spec, wait: &mut Wait) {
    // SAFETY: `spec` is a map entry.
    let (text, len) = unsafe { ((*spec).text, (*spec).text_len) };
    if text == 0 {
        return;
    }
    let from = argument_at(wait, text);
    let to = (&raw mut wait.text).cast();
    let read = if len == 0 {
        // SAFETY: the helper writes at most the size it is given, that of the field.
        unsafe { bpf_probe_read_user_str(to, TEXT as u32, from as *const _) }
    } else {
        let len = argument_at(wait, len);
        let len = if len >= TEXT as u64 {
            TEXT as u64 - 1
        } else {
            len
        };
        let len = at_most::<63>(len as u32);
        // SAFETY: as above: at most 63 bytes of 64.
        unsafe { bpf_probe_read_user(to, len, from as *const _) }
    };
    if read < 0 {
        maps::lose(counter::USDT_TEXT);
    }
}

/// The value in slot `number - 1`.
#[inline(always)]
fn argument_at(wait: &Wait, number: u8) -> u64 {
    let mut i = 0;
    let mut value = 0;
    // No index that the verifier would have to follow into the stack.
    while i < SLOTS {
        if number as usize == i + 1 {
            value = wait.args[i];
        }
        i += 1;
    }
    value
}

/// The wait ends, if its beginning was seen.
#[inline(always)]
fn end(key: &WaitKey, tgid: u32, which: u32) -> Result<(), u32> {
    let Some(wait) = USDT_WAITS.get_ptr(key) else {
        return Ok(());
    };
    let now = cpu::clock_ns();
    // SAFETY: a pointer to a map entry of the running task, which only itself and its end change.
    let result = unsafe {
        // A thread that ended inside its wait left it behind, and another has its number.
        if (*wait).tgid == tgid {
            let dur_ns = now.saturating_sub((*wait).start_ns);
            let sent = send(wait, dur_ns, now, which);
            count(wait, dur_ns).and(sent)
        } else {
            Ok(())
        }
    };
    let _ = USDT_WAITS.remove(key);
    result
}

/// Sends a long wait through the ring buffer.
#[inline(always)]
unsafe fn send(wait: *const Wait, dur_ns: u64, now: u64, which: u32) -> Result<(), u32> {
    if dur_ns < wait::threshold() {
        return Ok(());
    }
    let Some(mut space) = maps::RING.reserve::<Record>(0) else {
        return Err(counter::RING_FULL);
    };
    let to = space.as_mut_ptr();
    // SAFETY: the reservation has room for the whole record, all of which is written; `wait` is a map entry;
    // the helper fills the name, whose size it is given.
    unsafe {
        (*to).wait = *wait;
        (*to).wait.end = which;
        (*to).end_ns = now;
        bpf_get_current_comm((&raw mut (*to).comm).cast(), size_of::<Comm>() as u32);
    }
    space.submit(NO_WAKEUP);
    Ok(())
}

/// Adds to a counter that several CPUs share. The compiler knows no atomic addition for this target.
macro_rules! adder {
    ($name:ident, $type:ty, $instruction:literal) => {
        #[inline(always)]
        unsafe fn $name(to: *mut $type, value: $type) {
            #[cfg(target_arch = "bpf")]
            // SAFETY: the caller passes an aligned field of a map entry.
            unsafe {
                core::arch::asm!($instruction, to = in(reg) to, value = in(reg) u64::from(value));
            }
            #[cfg(not(target_arch = "bpf"))]
            // SAFETY: as above.
            unsafe {
                *to += value;
            }
        }
    };
}

adder!(add64, u64, "lock *(u64 *)({to} + 0) += {value}");
adder!(add32, u32, "lock *(u32 *)({to} + 0) += {value}");

/// Adds a wait to the totals of its resource.
#[inline(always)]
unsafe fn count(wait: *const Wait, dur_ns: u64) -> Result<(), u32> {
    // SAFETY: pointers to map entries.
    unsafe {
        let key = ResourceKey {
            resource: (*wait).resource,
            tgid: (*wait).tgid,
            pair: (*wait).pair,
        };
        let stat = match USDT_STATS.get_ptr_mut(key) {
            Some(stat) => stat,
            None => new_stat(wait, &key)?,
        };
        add64(&raw mut (*stat).count, 1);
        add64(&raw mut (*stat).total_ns, dur_ns);
        // Of two at the same time one may be missed.
        if dur_ns > (*stat).max_ns {
            (*stat).max_ns = dur_ns;
        }
        let bucket = bucket(dur_ns) as usize & (BUCKETS - 1);
        add32(&raw mut (*stat).histogram[bucket], 1);
    }
    Ok(())
}

/// The totals of a resource that has none yet. Two CPUs may make them at the same time: one wins, and both
/// write the same into it.
#[inline(always)]
unsafe fn new_stat(wait: *const Wait, key: &ResourceKey) -> Result<*mut Stat, u32> {
    let empty = USDT_EMPTY.get(0).ok_or(counter::USDT_RESOURCES_FULL)?;
    let _ = USDT_STATS.insert(key, empty, NEW);
    let stat = USDT_STATS
        .get_ptr_mut(key)
        .ok_or(counter::USDT_RESOURCES_FULL)?;
    // SAFETY: pointers to map entries.
    unsafe {
        (*stat).args = (*wait).args;
        (*stat).text = (*wait).text;
    }
    Ok(stat)
}
