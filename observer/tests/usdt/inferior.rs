//! A call of a function in another process, as a debugger makes it. A debugger of the distribution is not used: it
//! writes vector registers too, which some hosts refuse to it, and at a system call no function expects them kept.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use libc::{c_int, pid_t, user_regs_struct};
use object::{Object as _, ObjectSymbol as _};

use crate::harness::poll;

/// Below the stack pointer leaf functions keep things (System V ABI for AMD64, 3.2.2).
const RED_ZONE: u64 = 128;

/// Traces a process while it lives, and lets it go on as it was.
pub(crate) struct Inferior {
    pid: pid_t,
    memory: File,
    program: PathBuf,
    /// Of the program's addresses over those of its file.
    bias: u64,
    saved: user_regs_struct,
}

impl Inferior {
    /// Stops a process in its sleep, for which this waits: at a system call nothing is half done.
    pub(crate) fn stop(pid: u64) -> Inferior {
        poll("the session to sleep", || {
            let inferior = Inferior::attach(pid);
            (inferior.saved.orig_rax == libc::SYS_epoll_wait as u64).then_some(inferior)
        })
    }

    fn attach(pid: u64) -> Inferior {
        let path = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let program = fs::read_link(path("exe")).unwrap();
        let maps = fs::read_to_string(path("maps")).unwrap();
        let first = maps
            .lines()
            .find(|line| line.ends_with(program.to_str().unwrap()));
        let bias = first.unwrap().split_once('-').unwrap().0;
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path("mem"))
            .unwrap();
        let pid = pid_t::try_from(pid).unwrap();
        request(libc::PTRACE_SEIZE, pid, 0).unwrap();
        let mut inferior = Inferior {
            pid,
            memory,
            program,
            bias: u64::from_str_radix(bias, 16).unwrap(),
            // SAFETY: numbers only, for which zero is a value.
            saved: unsafe { std::mem::zeroed() },
        };
        request(libc::PTRACE_INTERRUPT, pid, 0).unwrap();
        // A signal may come first, and is the process's.
        loop {
            match wait(pid) {
                0 => break,
                signal => request(libc::PTRACE_CONT, pid, signal as usize).unwrap(),
            }
        }
        inferior.saved = inferior.registers();
        inferior
    }

    /// The address of a symbol of its program.
    pub(crate) fn symbol(&self, name: &str) -> u64 {
        self.bias + address_in(&self.program, name)
    }

    pub(crate) fn read(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, address).unwrap();
        u64::from_ne_bytes(bytes)
    }

    /// Has it call a function with two arguments; the value that is returned.
    pub(crate) fn call(&self, function: u64, arguments: [u64; 2]) -> u64 {
        let mut registers = self.saved;
        registers.rip = function;
        [registers.rdi, registers.rsi] = arguments;
        // It returns to where nothing is, which stops it; at a call the stack is aligned to 16 bytes.
        registers.rsp = ((registers.rsp - RED_ZONE) & !15) - 8;
        self.memory.write_all_at(&[0; 8], registers.rsp).unwrap();
        // No system call that would be begun anew.
        registers.orig_rax = u64::MAX;
        self.set_registers(&registers);
        let mut signal = 0;
        loop {
            request(libc::PTRACE_CONT, self.pid, signal as usize).unwrap();
            signal = wait(self.pid);
            let registers = self.registers();
            if signal == libc::SIGSEGV && registers.rip == 0 {
                return registers.rax;
            }
            assert_ne!(signal, libc::SIGSEGV, "at {:#x}", registers.rip);
        }
    }

    fn registers(&self) -> user_regs_struct {
        // SAFETY: as above.
        let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, self.pid, &raw mut registers as usize).unwrap();
        registers
    }

    fn set_registers(&self, registers: &user_regs_struct) {
        request(
            libc::PTRACE_SETREGS,
            self.pid,
            &raw const *registers as usize,
        )
        .unwrap();
    }
}

impl Drop for Inferior {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.set_registers(&self.saved);
        }
        let _ = request(libc::PTRACE_DETACH, self.pid, 0);
    }
}

/// A request whose `data` is a number, or the address of a `user_regs_struct` that lives.
fn request(request: libc::c_uint, pid: pid_t, data: usize) -> io::Result<()> {
    // SAFETY: the kernel reads or writes at `data` for the two requests about registers only.
    match unsafe { libc::ptrace(request, pid, 0usize, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Waits for a traced process to stop; the signal that did it, or 0 for an event.
fn wait(pid: pid_t) -> c_int {
    let status = poll("the session to stop", || {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let stopped = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        assert!(stopped >= 0, "{}", io::Error::last_os_error());
        (stopped == pid).then_some(status)
    });
    assert!(libc::WIFSTOPPED(status), "{status:#x}");
    // A stop for an event is none for a signal (ptrace(2)).
    if status >> 16 == 0 {
        libc::WSTOPSIG(status)
    } else {
        0
    }
}

fn address_in(program: &Path, name: &str) -> u64 {
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let mut symbols = file.symbols().chain(file.dynamic_symbols());
    symbols
        .find(|one| one.name() == Ok(name))
        .unwrap()
        .address()
}
