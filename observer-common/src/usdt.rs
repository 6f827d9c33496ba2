//! USDT probes: what the kernel program is told of each, and what it makes of them.
//!
//! A pair of probes says that a wait begins and that it ends. The program finds the [`Spec`] of the probe
//! that fired by its attach cookie.

use crate::{BUCKETS, Comm};

/// Arguments of a probe that a pair can use.
pub const SLOTS: usize = 8;
/// Words of text that are kept of a wait.
pub const TEXT_WORDS: usize = 8;
/// The same in bytes, the final NUL included.
pub const TEXT: usize = TEXT_WORDS * 8;
/// No register: value of [`Argument::base`] and [`Argument::index`].
pub const NONE: u16 = u16::MAX;

/// Values of [`Spec::role`].
pub mod role {
    /// The wait begins.
    pub const BEGIN: u8 = 0;
    /// The wait ends.
    pub const END: u8 = 1;
    /// A thread of a Java virtual machine begins to wait for a monitor: see [`Monitor`](super::Monitor).
    pub const MONITOR: u8 = 2;
}

/// Bits of [`Argument::flags`].
pub mod flag {
    /// The value has a sign.
    pub const SIGNED: u8 = 1;
    /// The sum is an address, and the value is there.
    pub const MEMORY: u8 = 2;
}

/// Where the value of an argument is: `base + (index << scale) + displacement`, or in memory there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    /// Added to the registers.
    pub displacement: u64,
    /// Offset of a register in the kernel's `pt_regs`; [`NONE`]: none.
    pub base: u16,
    /// The same.
    pub index: u16,
    /// Power of two that the index is multiplied with.
    pub scale: u8,
    /// Bytes of the value: 1, 2, 4 or 8.
    pub size: u8,
    /// Bits below the value in its register.
    pub shift: u8,
    /// Bits of [`flag`].
    pub flags: u8,
}

/// What a probe means.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Arguments to read.
    pub args: [Argument; SLOTS],
    /// The pair that the probe belongs to.
    pub pair: u32,
    /// One of [`role`].
    pub role: u8,
    /// Entries of `args` in use.
    pub count: u8,
    /// Those that identify the resource, a bit each.
    pub key: u8,
    /// The one that points to text, plus one; 0: none.
    pub text: u8,
    /// The one that holds the text's length, plus one; 0: the text ends with a NUL.
    pub text_len: u8,
    /// The one that tells what sort of resource it is, plus one; 0: none.
    pub by: u8,
    /// Of a probe that ends a wait: which of its pair's ends it is, counted from 0.
    pub end: u8,
    /// Zero.
    pub pad: u8,
    /// Sorts of resources that are many and live shortly, a bit each: all of a sort count as one.
    pub fleeting: u32,
}

/// Of a place with the role [`role::MONITOR`]: how the program finds the class of the monitor, whose address is the
/// first argument of the function there. What is at a fixed address in the file is told by its distance from the
/// place, so that it is right wherever the file is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Monitor {
    /// Distance of a byte: the machine's own probes tell of monitors, if it is not 0.
    pub probes: u64,
    /// The same: references to objects may be out of date, or they have their classes elsewhere. 0: there is none.
    pub hides: [u64; 2],
    /// The same: references to classes are compressed. 0: there is none.
    pub narrow: u64,
    /// Distance of the word that is added to compressed references.
    pub base: u64,
    /// Distance of the half a word that they are shifted by.
    pub shift: u64,
    /// Is what follows known?
    pub named: u32,
    /// Offset in a monitor of the handle of its object.
    pub object: u32,
    /// Offsets in an object of its first word, and of the reference to its class.
    pub mark: u32,
    /// The same.
    pub klass: u32,
    /// Offset in a class of the pointer to its name.
    pub name: u32,
    /// Offsets in a name of its length and of its text.
    pub length: u32,
    /// The same.
    pub body: u32,
    /// Zero.
    pub pad: u32,
}

/// A wait in progress is that of a thread in a pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WaitKey {
    /// Thread.
    pub tid: u32,
    /// Pair.
    pub pair: u32,
}

/// A wait in progress.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// What identifies the resource in the totals: the value of one argument, a hash of several, or the sort of
    /// a fleeting one.
    pub resource: u64,
    /// Values of the arguments.
    pub args: [u64; SLOTS],
    /// Text that one of them points to, zeros behind it.
    pub text: [u64; TEXT_WORDS],
    /// Thread.
    pub tid: u32,
    /// Process.
    pub tgid: u32,
    /// Pair.
    pub pair: u32,
    /// Which of the pair's ends it was that ended it, counted from 0; 0 while it is in progress.
    pub end: u32,
}

/// A wait that ended, through the ring buffer: told from other records by its size.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The wait.
    pub wait: Wait,
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub end_ns: u64,
    /// The thread's name then.
    pub comm: Comm,
}

/// A resource of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceKey {
    /// As in [`Wait`].
    pub resource: u64,
    /// Process.
    pub tgid: u32,
    /// Pair.
    pub pair: u32,
}

/// Totals of the waits for one resource; all but the first two fields only grow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Values of the arguments, those of the first wait.
    pub args: [u64; SLOTS],
    /// Text, likewise.
    pub text: [u64; TEXT_WORDS],
    /// Waits that ended; 0: the entry is being made.
    pub count: u64,
    /// Their durations' sum.
    pub total_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Durations by [`bucket`](crate::bucket).
    pub histogram: [u32; BUCKETS],
}

const _: () = {
    assert!(size_of::<Argument>() == 16);
    assert!(size_of::<Spec>() == SLOTS * 16 + 16);
    assert!(size_of::<Monitor>() == 6 * 8 + 8 * 4);
    assert!(size_of::<Wait>() == 32 + SLOTS * 8 + TEXT);
    assert!(size_of::<Record>() == size_of::<Wait>() + 24);
    assert!(size_of::<Record>() != size_of::<crate::WaitRecord>());
    assert!(size_of::<Stat>() == SLOTS * 8 + TEXT + 24 + 4 * BUCKETS);
};
