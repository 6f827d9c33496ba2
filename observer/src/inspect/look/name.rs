//! What a lock is called.

use std::sync::Arc;

use super::{Looker, MAX_INSIDE};
use crate::{
    event::{LockClass, Stack},
    inspect::{
        callers::first_caller,
        files, proc, python,
        registers::{self, Snapshot},
        stacks::BlockedStack,
    },
    runtimes::{self, Described, python::Function},
};

/// Threads on whose stacks a lock is looked for.
const MAX_OWNERS: usize = 64;

impl Looker {
    /// A symbol; else the file and the address in it; else the function that has it on its stack; else the first
    /// function that waited for it.
    pub(super) fn lock_name(
        &mut self,
        pid: u32,
        described: &Described,
        futex: u64,
        stack: &Stack,
        functions: &[Function],
    ) -> Option<Arc<str>> {
        if described.class == LockClass::PythonGil {
            return Some("the interpreter lock".into());
        }
        let base = described.base.unwrap_or(futex);
        if let Some((mapping, at)) = self.inspector.data(pid, base) {
            let file = files::open_mapped(pid, &mapping).ok()?;
            if let Some(found) = self.data.name(&file, mapping.name(), at) {
                // Where in the lock the futex is depends on the release of the library: no part of the name.
                let inside = described.base.is_none()
                    && described.class != LockClass::Futex
                    && found.symbol
                    && found.offset < MAX_INSIDE;
                return Some(match found.offset {
                    0 => found.name,
                    _ if inside => found.name,
                    offset => format!("{}+{offset:#x}", found.name).into(),
                });
            }
        }
        if matches!(
            described.class,
            LockClass::Futex
                | LockClass::GoRuntime
                | LockClass::JvmMonitor
                | LockClass::JvmPark
                | LockClass::JvmRuntime
        ) {
            return None;
        }
        let name = match described.class {
            LockClass::PythonLock => python::name(functions)?,
            LockClass::PythonCondition => return None,
            _ => match self.function_with(pid, base) {
                Some(function) => format!("lock on the stack of {function}").into(),
                None => format!("lock in {}", first_caller(stack)?).into(),
            },
        };
        let name = self.by_caller.entry((pid, base)).or_insert(name);
        Some(Arc::clone(name))
    }

    /// The function that has a lock among its own variables: that of the frame, on some thread's stack, that the
    /// address is in.
    fn function_with(&mut self, pid: u32, address: u64) -> Option<Arc<str>> {
        let mapping = self.inspector.mapping(pid, address)?.clone();
        if mapping.inode != 0 {
            return None;
        }
        let threads = proc::threads(pid);
        threads.iter().take(MAX_OWNERS).find_map(|tid| {
            // Stacks may lie side by side in one mapping: it is in that of one thread's frames only.
            match registers::from_proc(pid, *tid) {
                Ok(Snapshot::Blocked(at)) if mapping.holds(at.sp) && at.sp <= address => {
                    self.frame_with(pid, *tid, address)
                }
                _ => None,
            }
        })
    }

    /// The function whose frame on a thread's stack an address is in.
    fn frame_with(&mut self, pid: u32, tid: u32, address: u64) -> Option<Arc<str>> {
        let stack = self.inspector.stack(pid, tid, None).ok()?;
        let mut frames = stack.frames.windows(2);
        let frame = frames.find(|pair| (pair[0].sp..pair[1].sp).contains(&address))?[0];
        if stack.torn {
            return None;
        }
        let frame = BlockedStack {
            frames: vec![frame],
            ..BlockedStack::clone(&stack)
        };
        let named = self.inspector.symbolize(&frame);
        // Those that were inlined there come first: the variables are the whole function's.
        let name = named.user.last()?.name.as_ref()?;
        Some(runtimes::plain(name).into())
    }
}
