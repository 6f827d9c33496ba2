//! Labels that a program gave its goroutines (`pprof.Do`).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    snapshot::Reading,
    target::Target,
    words::{AddrMap, u64_at},
};
use crate::inspect::memory::Memory;

/// Sets of labels read in one snapshot; goroutines inherit theirs, so there are few.
const MAX_SETS: usize = 4096;
/// Labels in one set.
const MAX_LABELS: u64 = 64;
/// Longest key or value; a longer one is cut.
const MAX_TEXT: u64 = 256;
/// From this minor number on a set is a list; before it is a map.
const LISTS_FROM: u32 = 24;
/// Entries in a bucket of a map.
const BUCKET: usize = 8;
/// Bytes of a key or value: address and length.
const HEADER: usize = 16;

/// Bytes of a bucket: a byte for each entry, keys, values, and the next bucket.
const SIZE: usize = BUCKET + 2 * BUCKET * HEADER + 8;

/// The labels at each address that goroutines have for them.
pub(super) fn read<M: Memory>(
    target: &Target<M>,
    reading: &Reading,
) -> AddrMap<Arc<BTreeMap<String, String>>> {
    let mut sets = AddrMap::default();
    for raw in &reading.goroutines {
        if raw.labels == 0 || sets.contains_key(&raw.labels) || sets.len() == MAX_SETS {
            continue;
        }
        let set = if target.layout_of >= LISTS_FROM {
            list(&target.memory, raw.labels)
        } else {
            map(&target.memory, raw.labels)
        };
        sets.insert(raw.labels, Arc::new(set.unwrap_or_default()));
    }
    sets
}

fn list(memory: &dyn Memory, addr: u64) -> Option<BTreeMap<String, String>> {
    let first = memory.u64(addr)?;
    let count = memory.u64(addr.checked_add(8)?)?.min(MAX_LABELS);
    let mut bytes = vec![0; count as usize * 2 * HEADER];
    if !memory.read(first, &mut bytes) {
        return None;
    }
    let (pairs, _) = bytes.as_chunks::<{ 2 * HEADER }>();
    pairs
        .iter()
        .map(|pair| Some((text(memory, pair, 0)?, text(memory, pair, HEADER)?)))
        .collect()
}

/// A map of the kind before 1.24: buckets of eight, each with a list of further ones.
fn map(memory: &dyn Memory, addr: u64) -> Option<BTreeMap<String, String>> {
    let header = memory.u64(addr)?;
    let count = memory.u64(header)?.min(MAX_LABELS);
    let mut shape = [0];
    if !memory.read(header.checked_add(9)?, &mut shape) {
        return None;
    }
    // More buckets than entries: this is no map of labels.
    let buckets = 1u64 << shape[0].min(5);
    let first = memory.u64(header.checked_add(16)?)?;
    let mut found = BTreeMap::new();
    for bucket in 0..buckets {
        let mut at = first.checked_add(bucket * SIZE as u64)?;
        for _ in 0..MAX_LABELS {
            let mut bytes = [0; SIZE];
            if at == 0 || found.len() as u64 >= count || !memory.read(at, &mut bytes) {
                break;
            }
            for entry in 0..BUCKET {
                let key = BUCKET + entry * HEADER;
                // Lower values say that there is no entry.
                if bytes[entry] >= 5
                    && let Some(name) = text(memory, &bytes, key)
                    && let Some(value) = text(memory, &bytes, key + BUCKET * HEADER)
                {
                    found.insert(name, value);
                }
            }
            at = u64_at(&bytes, SIZE - 8)?;
        }
    }
    Some(found)
}

fn text(memory: &dyn Memory, bytes: &[u8], at: usize) -> Option<String> {
    let length = u64_at(bytes, at + 8)?.min(MAX_TEXT);
    let mut text = vec![0; length as usize];
    if length > 0 && !memory.read(u64_at(bytes, at)?, &mut text) {
        return None;
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}
