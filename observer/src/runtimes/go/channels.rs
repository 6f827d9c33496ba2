//! Channels that goroutines wait for.

use std::time::Instant;

use super::{
    gather,
    inventory::{Channel, ChannelOperation, State, WaitsFor},
    layout::Layout,
    resolve::Waits,
    snapshot::Reading,
    target::Target,
    words::{AddrMap, u32_at, u64_at},
};
use crate::{event::Addr, inspect::memory::Memory};

/// Cases of one `select`: the language's own limit.
const MAX_CASES: usize = 1 << 16;
/// Places in queues looked at: a hostile target may have all of them in a ring.
const MAX_PLACES: usize = 8 << 20;

/// A goroutine's place in a channel's queue.
#[derive(Clone, Copy)]
struct Place {
    /// Number of the goroutine in the reading.
    of: u32,
    addr: u64,
    channel: u64,
    next: u64,
    select: bool,
    operation: Option<ChannelOperation>,
}

/// Places in queues: where they are in memory, and the number of the goroutine in the reading.
#[derive(Debug, Default)]
pub(super) struct Queued {
    pub(super) places: Vec<(u32, u64)>,
    /// Not all were followed.
    pub(super) partial: bool,
}

/// Finds what each goroutine's places lead to. Gives the channels by address, and the places.
pub(super) fn resolve<M: Memory>(
    target: &Target<M>,
    reading: &Reading,
    waits: &mut Waits,
) -> (Vec<Channel>, Queued) {
    let (mut places, partial) = places(target, reading);
    let mut addrs: Vec<u64> = places.iter().map(|place| place.channel).collect();
    addrs.sort_unstable();
    addrs.dedup();
    let layout = &target.layout;
    let mut found = vec![None; addrs.len()];
    gather::each(&target.memory, &addrs, layout.hchan.size, |i, bytes| {
        found[i] = parse(bytes, addrs[i], layout);
    });
    let index: AddrMap<u32> = places
        .iter()
        .enumerate()
        .map(|(i, place)| (place.addr, i as u32))
        .collect();
    let mut channels = Vec::with_capacity(addrs.len());
    for (channel, queues) in found.into_iter().flatten() {
        let addr = channel.addr.0;
        channels.push(channel);
        // Whoever waits is in the queue, and every one that waits has been read.
        for (first, operation) in queues {
            mark(&mut places, &index, addr, first, operation);
        }
    }
    for place in &mut places {
        if place.operation.is_none() && !place.select {
            let raw = &reading.goroutines[place.of as usize];
            let reason = target.reasons.get(usize::from(raw.reason));
            place.operation = reason.and_then(|reason| operation(reason));
        }
    }
    count(&places, &mut channels);
    let queued = Queued {
        places: places.iter().map(|place| (place.of, place.addr)).collect(),
        partial,
    };
    for place in places {
        if channels
            .binary_search_by_key(&place.channel, |c| c.addr.0)
            .is_ok()
        {
            waits.of[place.of as usize].push(WaitsFor::Channel {
                addr: Addr(place.channel),
                operation: place.operation,
                select: place.select,
            });
        }
    }
    (channels, queued)
}

fn operation(reason: &str) -> Option<ChannelOperation> {
    if reason.starts_with("chan receive") {
        Some(ChannelOperation::Receive)
    } else if reason.starts_with("chan send") {
        Some(ChannelOperation::Send)
    } else {
        None
    }
}

/// The places of all goroutines that wait: one each, or as many as a `select` has cases. And whether some were
/// left out.
fn places<M: Memory>(target: &Target<M>, reading: &Reading) -> (Vec<Place>, bool) {
    let layout = &target.layout.sudog;
    let mut todo: Vec<(u32, u64)> = reading
        .goroutines
        .iter()
        .enumerate()
        .filter(|(_, raw)| matches!(raw.state, State::Waiting | State::Leaked) && raw.waiting != 0)
        .map(|(i, raw)| (i as u32, raw.waiting))
        .collect();
    let mut places = Vec::with_capacity(todo.len());
    for _ in 0..MAX_CASES {
        if todo.is_empty() || places.len() > MAX_PLACES || Instant::now() >= reading.until {
            break;
        }
        let addrs: Vec<u64> = todo.iter().map(|(_, addr)| *addr).collect();
        let mut next = Vec::new();
        gather::each(&target.memory, &addrs, layout.size, |i, bytes| {
            let (of, addr) = todo[i];
            let word = |at| u64_at(bytes, at).unwrap_or_default();
            // One that is another's by now belongs to a later wait.
            if word(layout.g) != reading.goroutines[of as usize].addr || word(layout.c) == 0 {
                return;
            }
            places.push(Place {
                of,
                addr,
                channel: word(layout.c),
                next: word(layout.next),
                select: bytes.get(layout.is_select).is_some_and(|byte| *byte == 1),
                operation: None,
            });
            if word(layout.waitlink) != 0 {
                next.push((of, word(layout.waitlink)));
            }
        });
        todo = next;
    }
    (places, !todo.is_empty())
}

/// What a channel's bytes say, and the first places of its queues; none if they contradict themselves.
fn parse(
    bytes: &[u8],
    addr: u64,
    layout: &Layout,
) -> Option<(Channel, [(u64, ChannelOperation); 2])> {
    let hchan = &layout.hchan;
    let (len, cap) = (u64_at(bytes, hchan.qcount)?, u64_at(bytes, hchan.dataqsiz)?);
    let closed = u32_at(bytes, hchan.closed)?;
    if len > cap || cap >> 40 != 0 || closed > 1 {
        return None;
    }
    let queues = [
        (u64_at(bytes, hchan.recvq)?, ChannelOperation::Receive),
        (u64_at(bytes, hchan.sendq)?, ChannelOperation::Send),
    ];
    let timer = hchan.timer.and_then(|at| u64_at(bytes, at));
    let channel = Channel {
        addr: Addr(addr),
        len,
        cap,
        elem_size: u32_at(bytes, hchan.elemsize)? as u16,
        closed: closed == 1,
        timer: timer.is_some_and(|timer| timer != 0),
        receivers: 0,
        senders: 0,
        on_stacks_of: Vec::new(),
        reachable: None,
    };
    Some((channel, queues))
}

/// Says of each place in a queue what it waits for.
fn mark(
    places: &mut [Place],
    index: &AddrMap<u32>,
    channel: u64,
    first: u64,
    operation: ChannelOperation,
) {
    let mut at = first;
    while let Some(i) = index.get(&at) {
        let place = &mut places[*i as usize];
        // A place that was seen already ends a ring.
        if place.channel != channel || place.operation.is_some() {
            return;
        }
        place.operation = Some(operation);
        at = place.next;
    }
}

fn count(places: &[Place], channels: &mut [Channel]) {
    for place in places {
        let Ok(at) = channels.binary_search_by_key(&place.channel, |c| c.addr.0) else {
            continue;
        };
        match place.operation {
            Some(ChannelOperation::Receive) => channels[at].receivers += 1,
            Some(ChannelOperation::Send) => channels[at].senders += 1,
            None => {}
        }
    }
}
