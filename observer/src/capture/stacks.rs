//! Stacks that the kernel programs kept, by identifier.

use anyhow::Result;
use aya::maps::{Map, MapData, StackTraceMap};

/// The map of stacks.
pub(super) struct Stacks(StackTraceMap<MapData>);

impl Stacks {
    pub(super) fn new(map: Map) -> Result<Self> {
        Ok(Stacks(map.try_into()?))
    }

    /// Addresses of a stack, innermost first; `stack` is its identifier plus one, and 0 has none.
    pub(super) fn frames(&self, stack: u32) -> Vec<u64> {
        let Some(id) = stack.checked_sub(1) else {
            return Vec::new();
        };
        match self.0.get(&id, 0) {
            Ok(stack) => stack.frames().iter().map(|frame| frame.ip).collect(),
            Err(_) => Vec::new(),
        }
    }
}
