//! Callers of locks: which of the sampled stacks waited for each.

use std::collections::HashMap;

use observer_common::{LockKey, WaitRecord};

use super::{convert::Converter, stacks::Stacks};
use crate::event::{Caller, Stack};

/// Locks whose callers are kept, and callers of each.
const MAX_LOCKS: usize = 4_096;
const MAX_CALLERS: usize = 16;
/// Callers that are reported of each lock.
const REPORTED: usize = 3;

#[derive(Clone, Copy, Debug)]
struct Sampled {
    pid: u32,
    user: u32,
    kernel: u32,
    samples: u64,
    total_ns: u64,
}

/// Sampled stacks by lock.
#[derive(Debug, Default)]
pub(super) struct Callers(HashMap<LockKey, Vec<Sampled>>);

impl Callers {
    /// Adds the stack of a wait, if one was taken.
    pub(super) fn add(&mut self, key: LockKey, record: &WaitRecord) {
        let slot = &record.slot;
        if slot.user_stack == 0 || (self.0.len() >= MAX_LOCKS && !self.0.contains_key(&key)) {
            return;
        }
        let callers = self.0.entry(key).or_default();
        let dur_ns = slot.blocked_ns + slot.runqueue_ns;
        if let Some(known) = callers.iter_mut().find(|c| c.user == slot.user_stack) {
            known.samples += 1;
            known.total_ns += dur_ns;
        } else if callers.len() < MAX_CALLERS {
            callers.push(Sampled {
                pid: slot.tgid,
                user: slot.user_stack,
                kernel: slot.kernel_stack,
                samples: 1,
                total_ns: dur_ns,
            });
        }
    }

    /// The most frequent callers of a lock.
    pub(super) fn of(
        &mut self,
        key: &LockKey,
        stacks: &Stacks,
        converter: &mut Converter,
    ) -> Vec<Caller> {
        let Some(callers) = self.0.get_mut(key) else {
            return Vec::new();
        };
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.samples));
        callers
            .iter()
            .take(REPORTED)
            .map(|caller| Caller {
                stack: stack(caller.pid, caller.user, caller.kernel, stacks, converter)
                    .unwrap_or_default(),
                samples: caller.samples,
                total_ns: caller.total_ns,
            })
            .collect()
    }

    /// Forgets a lock.
    pub(super) fn forget(&mut self, key: &LockKey) {
        self.0.remove(key);
    }
}

/// The stack that a wait began with, if it was taken; identifiers plus one.
pub(super) fn stack(
    pid: u32,
    user: u32,
    kernel: u32,
    stacks: &Stacks,
    converter: &mut Converter,
) -> Option<Stack> {
    if user == 0 && kernel == 0 {
        return None;
    }
    Some(Stack {
        user: converter.symbols.frames(pid, user, || stacks.frames(user)),
        kernel: converter
            .symbols
            .frames(0, kernel, || stacks.frames(kernel)),
        end: None,
    })
}
