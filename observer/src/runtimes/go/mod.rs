//! Goroutines of Go processes, read from outside while they go on.
//!
//! Nothing is stopped and nothing is asked of the process: its memory is read with `process_vm_readv`. The
//! runtime keeps a list of all goroutines, and each says where it stands; the table that Go programs print
//! their own stacks with is also in stripped ones. So [`Target::open`] finds the tables once, and
//! [`Target::snapshot`] gives an [`Inventory`]: every goroutine, what it waits for, who else has to do with it.
//!
//! Where the fields of the runtime's structs lie is read from the program's debug information; for programs
//! without it `layouts.json` has it, for the releases that it names. Others are tried with their neighbours'
//! layouts and held against what must be true of every goroutine.
//!
//! Programs for arm64 are read too, but untested ([`Machine::is_untested_for_go`]).

mod arm64;
mod channels;
mod code;
mod dwarf;
mod follow;
mod futex;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gather;
mod groups;
mod heap;
mod holders;
mod image;
mod inventory;
mod labels;
mod layout;
mod locks;
mod machine;
mod module;
mod parks;
mod pclntab;
mod poll;
mod quiet;
mod raw;
mod reach;
mod reasons;
mod release;
mod resolve;
mod scheduler;
mod snapshot;
mod stacks;
mod stuck;
mod target;
mod told;
mod tracker;
mod variables;
mod words;

pub use self::{
    dwarf::{table_in, table_of},
    follow::Follower,
    futex::{BEHIND_FUTEX, Go},
    groups::Group,
    inventory::{
        Channel, ChannelOperation, GoFrame, GoStack, Goroutine, Holder, Inventory, IoOperation,
        Lock, LockMode, LockState, MutexState, Processor, Scheduler, State, WaitsFor,
    },
    machine::Machine,
    parks::{Meaning, Parks},
    release::Release,
    snapshot::Limits,
    stuck::{Cycle, Orphan, StarvedWriter, Step, cycles, orphan_channels, writer_starvation},
    target::{Program, Refused, Target, recognise},
    tracker::{Leak, Sample, Site, Tracker, leaks},
};
