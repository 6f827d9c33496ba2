//! Reading other processes: memory, mappings, registers, stacks and names; and the kernel's symbols. Everything
//! read is bounded and checked.

pub mod attach;
mod backend;
mod callers;
pub mod code;
pub mod container;
pub mod data;
pub mod exports;
mod filelocks;
pub mod files;
pub mod holders;
mod java;
pub mod kallsyms;
pub mod lockwords;
pub mod look;
pub mod maps;
pub mod memory;
pub mod names;
pub mod perfmap;
pub mod proc;
pub mod process;
mod python;
pub mod registers;
mod rest;
pub mod sched;
pub mod sockets;
pub mod stacks;
pub mod symbols;
pub mod unwind;
pub mod usdt;

pub use self::backend::Told;
