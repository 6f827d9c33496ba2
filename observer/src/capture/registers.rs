//! Registers of threads, from the task iterator: of all of them in one read, `rbp` and the rest included.
//!
//! `/proc/PID/task/TID/syscall` is the other way ([`crate::inspect::registers::from_proc`]): it works on every
//! kernel, takes a system call or three a thread, and gives no `rbp`, without which code with frame pointers
//! cannot be unwound.

use std::{fmt, fs::File, io::Read, os::fd::AsFd};

use anyhow::{Context, Result, ensure};
use aya::{Ebpf, EbpfLoader, maps::Array, programs::Iter};
use observer_common::{ABSENT, Settings, TaskRegs};

use super::{
    host::Host,
    iterator::{self, Only},
    load::{self, as_bytes, borrow, first_line, program},
    mapped::record,
};
use crate::{
    event::Missing,
    inspect::registers::{Registers, Snapshot, SystemCall},
};

/// The program, and what it is called where it is missing.
const PROGRAM: &str = "regs";
/// Bytes that are read at a time; the kernel gives whole records.
const BUFFER: usize = 256 << 10;
/// States of a task that is off the CPU and stays there: asleep, stopped, traced.
const OFF_CPU: u32 = 0xf;

/// A thread's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadRegisters {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What it does.
    pub snapshot: Snapshot,
    /// When it left its CPU at the latest, `CLOCK_MONOTONIC` nanoseconds, where the kernel tells.
    pub since_ns: Option<u64>,
}

/// The iterator by itself, for one look without observing.
pub struct RegisterTable {
    ebpf: Ebpf,
}

impl fmt::Debug for RegisterTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegisterTable")
    }
}

impl RegisterTable {
    /// Loads the iterator.
    ///
    /// # Errors
    /// [`super::Unsupported`] where the privileges or the kernel do not allow it.
    pub fn open() -> Result<RegisterTable> {
        let (settings, _) = load::kernel_settings(&Host::look()?)?;
        let btf = aya::Btf::from_sys_fs().map_err(|error| load::refused(&error.into()))?;
        let mut loader = EbpfLoader::new();
        let loader = loader.override_global("SETTINGS", as_bytes(&settings), true);
        let mut ebpf = loader
            .load(load::OBJECT)
            .map_err(|error| load::refused(&error.into()))?;
        self::load(&mut ebpf, &btf, &settings).map_err(|error| load::refused(&error))?;
        Ok(RegisterTable { ebpf })
    }

    /// Registers of all threads, or of those of one process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self, pid: Option<u32>) -> Result<Vec<ThreadRegisters>> {
        read(&mut self.ebpf, pid)
    }
}

/// Loads the program, where the kernel has what it needs.
pub(super) fn load(ebpf: &mut Ebpf, btf: &aya::Btf, settings: &Settings) -> Result<()> {
    ensure!(
        settings.has_pt_regs == 1,
        "the kernel has no bpf_task_pt_regs: Linux 5.15 and later have"
    );
    ensure!(
        settings.off_nvcsw != ABSENT,
        "the kernel's types have no count of switches"
    );
    let iterator: &mut Iter = program(ebpf, PROGRAM)?.try_into()?;
    iterator.load("task", btf)?;
    Ok(())
}

/// What is to be said where it is not there.
pub(super) fn missing(error: &anyhow::Error) -> Missing {
    Missing {
        feature: "registers of all threads in one read".into(),
        why: format!(
            "{}: they come from /proc, without rbp, so that stacks of code with frame pointers have gaps",
            first_line(error)
        ),
    }
}

/// One read of the iterator, of one process or of all.
pub(super) fn read(ebpf: &mut Ebpf, pid: Option<u32>) -> Result<Vec<ThreadRegisters>> {
    let made = pid.and_then(|pid| made_for(ebpf, Only::Process(pid)).ok());
    if let Some(file) = made {
        return take(file);
    }
    want(ebpf, pid.unwrap_or(0))?;
    let all = of_all_tasks(ebpf);
    // Whatever came of it: the readings that are made for some tasks go by it too.
    want(ebpf, 0)?;
    all
}

fn of_all_tasks(ebpf: &mut Ebpf) -> Result<Vec<ThreadRegisters>> {
    let iterator: &mut Iter = program(ebpf, PROGRAM)?.try_into()?;
    let link = iterator.attach()?;
    take(iterator.take_link(link)?.into_file()?)
}

/// Has the program leave out all but one process; 0: none.
fn want(ebpf: &mut Ebpf, pid: u32) -> Result<()> {
    Ok(Array::try_from(borrow(ebpf, "REGS_OF")?)?.set(0, pid, 0)?)
}

/// The registers of one thread; `None`: it is not there, or the kernel does not find it (6.1 to 6.11 look for processes
/// unless that was mended).
///
/// # Errors
/// The kernel's: it makes no iterator of one thread. Before 6.1 it makes one of all tasks instead.
pub(super) fn read_thread(ebpf: &mut Ebpf, tid: u32) -> Result<Option<ThreadRegisters>> {
    let mut file = made_for(ebpf, Only::Thread(tid))?;
    let mut buffer = [0; size_of::<TaskRegs>()];
    let got = file
        .read(&mut buffer)
        .context("cannot read the task iterator")?;
    if got == 0 {
        return Ok(None);
    }
    let record = record(&buffer[..got]).context("half a record of the task iterator")?;
    let thread = convert(&record);
    ensure!(thread.tid == tid, "an iterator of all tasks");
    Ok(Some(thread))
}

fn made_for(ebpf: &mut Ebpf, only: Only) -> Result<File> {
    let iterator: &mut Iter = program(ebpf, PROGRAM)?.try_into()?;
    Ok(iterator::open(iterator.fd()?.as_fd(), only)?)
}

/// All that a reading of the iterator tells.
fn take(mut file: File) -> Result<Vec<ThreadRegisters>> {
    let mut buffer = vec![0; BUFFER];
    let (mut have, mut all) = (0, Vec::new());
    loop {
        let got = file
            .read(&mut buffer[have..])
            .context("cannot read the task iterator")?;
        if got == 0 {
            return Ok(all);
        }
        have += got;
        let whole = have - have % size_of::<TaskRegs>();
        let records = buffer[..whole].chunks_exact(size_of::<TaskRegs>());
        all.extend(records.filter_map(record).map(|record| convert(&record)));
        buffer.copy_within(whole..have, 0);
        have -= whole;
    }
}

fn convert(record: &TaskRegs) -> ThreadRegisters {
    let call = u32::try_from(record.nr).ok().filter(|_| record.compat == 0);
    let registers = Registers {
        ip: record.ip,
        sp: record.sp,
        bp: Some(record.bp),
        saved: Some(record.saved),
        call: call.map(|nr| SystemCall {
            nr,
            args: record.args,
        }),
        switches: Some(record.switches),
    };
    ThreadRegisters {
        pid: record.tgid,
        tid: record.tid,
        snapshot: if record.state & OFF_CPU == 0 {
            Snapshot::Running
        } else {
            Snapshot::Blocked(registers)
        },
        since_ns: (record.since_ns != 0).then_some(record.since_ns),
    }
}
