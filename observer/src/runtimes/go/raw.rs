//! A goroutine as its bytes have it.

use super::{
    inventory::State,
    layout::Layout,
    module::Module,
    stacks::StackId,
    words::{u32_at, u64_at},
};

/// Set while the garbage collector looks at the stack.
const SCAN: u32 = 0x1000;
/// Largest stack believed; the runtime's own limit is 1 GB.
const MAX_STACK: u64 = 2 << 30;

/// Goroutines that are not there: never started, ended, or kept for threads of C.
const NOT_ALIVE: [u32; 3] = [0, 6, 11];

/// The fields that are used, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    pub(super) addr: u64,
    pub(super) goid: u64,
    pub(super) state: State,
    pub(super) reason: u8,
    pub(super) lo: u64,
    pub(super) hi: u64,
    pub(super) sp: u64,
    pub(super) pc: u64,
    /// Where it returns to, if that is in a register yet: on machines where calls leave it there.
    pub(super) link: u64,
    pub(super) m: u64,
    pub(super) locked: bool,
    pub(super) parent: u64,
    pub(super) gopc: u64,
    pub(super) startpc: u64,
    pub(super) waiting: u64,
    pub(super) labels: u64,
    pub(super) timer: u64,
    pub(super) sleep_when: u64,
    /// Filled in when its stack was walked.
    pub(super) stack: Option<StackId>,
    /// Words of its stack that may be addresses of something, as a range of the snapshot's.
    pub(super) words: (u32, u32),
}

impl Raw {
    /// Reads the bytes at `addr`. None: no goroutine that lives.
    pub(super) fn parse(
        bytes: &[u8],
        addr: u64,
        layout: &Layout,
        module: &Module,
    ) -> Result<Option<Raw>, &'static str> {
        let g = &layout.g;
        let word = |at: usize| u64_at(bytes, at).unwrap_or_default();
        let status = u32_at(bytes, g.atomicstatus).unwrap_or(u32::MAX) & !SCAN;
        if NOT_ALIVE.contains(&status) {
            return Ok(None);
        }
        let state = state(status).ok_or("its state is not known")?;
        let (lo, hi) = (word(g.stack), word(g.stack + 8));
        if lo >= hi || hi - lo > MAX_STACK || hi > module.machine.memory_end() {
            return Err("its stack has no extent");
        }
        if word(g.sched + layout.gobuf.g) != addr {
            return Err("its registers are another's");
        }
        let goid = word(g.goid);
        if goid == 0 || goid >> 48 != 0 {
            return Err("its number is none");
        }
        let (gopc, startpc) = (word(g.gopc), word(g.startpc));
        if (gopc != 0 && !module.is_code(gopc)) || !module.is_code(startpc) {
            return Err("it does not begin in the code");
        }
        let (sp, pc) = (
            word(g.sched + layout.gobuf.sp),
            word(g.sched + layout.gobuf.pc),
        );
        let link = layout.gobuf.lr;
        let link = link.filter(|_| module.machine.has_link_register());
        let link = link.map_or(0, |at| word(g.sched + at));
        if state != State::Running && !(lo..hi).contains(&sp) {
            return Err("it is not on its stack");
        }
        Ok(Some(Raw {
            addr,
            goid,
            state,
            reason: bytes.get(g.waitreason).copied().unwrap_or_default(),
            lo,
            hi,
            sp,
            pc,
            link,
            m: word(g.m),
            locked: word(g.lockedm) != 0,
            parent: g.parent_goid.map_or(0, word),
            gopc,
            startpc,
            waiting: word(g.waiting),
            labels: word(g.labels),
            timer: word(g.timer),
            sleep_when: g.sleep_when.map_or(0, word),
            stack: None,
            words: (0, 0),
        }))
    }

    /// Is it where it was? Of one that runs only that it still does.
    pub(super) fn is_same(&self, later: &Raw) -> bool {
        self.goid == later.goid
            && self.state == later.state
            && (self.state == State::Running
                || (
                    self.sp,
                    self.pc,
                    self.link,
                    self.waiting,
                    self.reason,
                    self.lo,
                    self.hi,
                ) == (
                    later.sp,
                    later.pc,
                    later.link,
                    later.waiting,
                    later.reason,
                    later.lo,
                    later.hi,
                ))
    }

    /// Does its stack hold still?
    pub(super) fn has_stack(&self) -> bool {
        !matches!(self.state, State::Running | State::Copying)
    }
}

fn state(status: u32) -> Option<State> {
    Some(match status {
        1 => State::Runnable,
        2 => State::Running,
        3 => State::Syscall,
        4 => State::Waiting,
        8 => State::Copying,
        9 => State::Preempted,
        10 => State::Leaked,
        _ => return None,
    })
}
