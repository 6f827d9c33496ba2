//! Why goroutines wait, in the runtime's own words: the numbers differ from release to release, the texts
//! are in the program.

use std::sync::Arc;

use super::{
    image::Image,
    module::{Module, search},
    words::u64_at,
};
use crate::inspect::memory::Memory;

/// The second reason, in all releases; the first is no reason.
const SECOND: &[u8] = b"GC assist marking";
/// Reasons there are at least.
const FEW: usize = 16;
/// Reasons read at most: the number is a byte.
const MANY: usize = 256;
/// Longest reason believed.
const MAX_TEXT: u64 = 64;
/// Bytes of a string's header: address and length.
const HEADER: usize = 16;

/// Finds the texts; none if they are not where every release had them.
pub(super) fn find(memory: &dyn Memory, image: &Image, module: &Module) -> Vec<Arc<str>> {
    let mut spans: Vec<(u64, u64)> = module.data[..2].to_vec();
    if let Some(section) = image.section(&[".data.rel.ro"]) {
        spans.push((section.addr, section.addr.saturating_add(section.size)));
    }
    for (from, to) in spans {
        let headers = search(memory, from, to - from, |bytes| {
            u64_at(bytes, 8) == Some(0) && u64_at(bytes, 24) == Some(SECOND.len() as u64)
        });
        for table in headers {
            let reasons = read(memory, table);
            if reasons.len() >= FEW && *reasons[1].as_bytes() == *SECOND {
                return reasons;
            }
        }
    }
    Vec::new()
}

/// The texts from an address on, to the first that cannot be one.
fn read(memory: &dyn Memory, table: u64) -> Vec<Arc<str>> {
    let mut reasons = Vec::new();
    for index in 0..MANY {
        let Some(text) = text(memory, table, index) else {
            break;
        };
        let is_end = index > 0 && text.is_empty();
        // Most places that look like the table are none: the second text tells.
        if is_end || (index == 1 && text.as_bytes() != SECOND) {
            break;
        }
        reasons.push(text.into());
    }
    reasons
}

fn text(memory: &dyn Memory, table: u64, index: usize) -> Option<String> {
    let mut header = [0; HEADER];
    if !memory.read(table.checked_add((index * HEADER) as u64)?, &mut header) {
        return None;
    }
    let length = u64_at(&header, 8).filter(|length| *length <= MAX_TEXT)?;
    let mut bytes = vec![0; length as usize];
    if !memory.read(u64_at(&header, 0)?, &mut bytes) && length > 0 {
        return None;
    }
    let text = String::from_utf8(bytes).ok()?;
    text.chars().all(|c| matches!(c, ' '..='~')).then_some(text)
}
