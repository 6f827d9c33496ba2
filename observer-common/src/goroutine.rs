//! Parks of goroutines: what the kernel program is told of a runtime's functions, and what it makes of them.
//!
//! A place in the runtime says that a goroutine parks, or that one is made ready. The program finds the [`Spec`] of
//! the place that fired by its attach cookie.

/// Values of [`Spec::role`].
pub mod role {
    /// `runtime.gopark`: the running goroutine parks.
    pub const PARK: u32 = 0;
    /// `runtime.ready`: a goroutine is made runnable.
    pub const READY: u32 = 1;
    /// `runtime.netpollready`: those that wait for a descriptor are made runnable.
    pub const POLL: u32 = 2;
}

/// Reasons to park that can be told apart: one a bit of [`Spec::reasons`].
pub const REASONS: u32 = 64;

/// What a place means, and where the runtime has the fields that are read; offsets in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Reasons that are followed, a bit each.
    pub reasons: u64,
    /// One of [`role`].
    pub role: u32,
    /// `g.goid`
    pub goid: u32,
    /// `g.m`
    pub m: u32,
    /// `m.curg`
    pub curg: u32,
    /// `pollDesc.rg`
    pub rg: u32,
    /// `pollDesc.wg`
    pub wg: u32,
}

/// A goroutine of a process, by its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Address of the goroutine.
    pub g: u64,
    /// Process.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// A goroutine that has parked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// Its number.
    pub goid: u64,
    /// The lock that the runtime gives back once it is parked: that of the channel, of a channel's operation.
    pub lock: u64,
    /// Why, as the runtime numbers reasons.
    pub reason: u32,
    /// The thread that ran it.
    pub tid: u32,
}

/// A goroutine that was made ready, through the ring buffer: told from other records by its size.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// How it parked.
    pub parked: Parked,
    /// When it was made ready, `CLOCK_MONOTONIC` nanoseconds.
    pub end_ns: u64,
    /// The goroutine that made it ready; 0: the runtime itself.
    pub waker: u64,
    /// Process.
    pub tgid: u32,
    /// The thread that made it ready.
    pub waker_tid: u32,
}

const _: () = {
    assert!(size_of::<Spec>() == 32);
    assert!(size_of::<Key>() == 16);
    assert!(size_of::<Parked>() == 32);
    assert!(size_of::<Record>() == 56);
    assert!(size_of::<Record>() != size_of::<crate::WaitRecord>());
    assert!(size_of::<Record>() != size_of::<crate::WaitvRecord>());
    assert!(size_of::<Record>() != size_of::<crate::usdt::Record>());
};
