//! The staged look at goroutines: how many and in which states, then what blocks them, then the locks and channels
//! that they wait for.

use super::{
    document::Block,
    incident::{ROWS, more},
};
use crate::{
    event::{GoState, GoroutineGroup, Goroutines, LockRef},
    time::human,
};

/// Calls written out of a stack.
const CALLS: usize = 12;
/// Goroutines named as holders.
const HOLDERS: usize = 3;

/// All processes, one after the other.
pub(super) fn blocks(all: &[&Goroutines]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for one in all.iter().take(ROWS) {
        count(&mut blocks, one);
        blocking(&mut blocks, one);
        mutexes(&mut blocks, one);
    }
    more(&mut blocks, all.len());
    blocks
}

/// First: how many, in which states, from which places.
fn count(blocks: &mut Vec<Block>, all: &Goroutines) {
    let states: Vec<String> = all
        .by_state
        .iter()
        .map(|(state, count)| format!("{count} {}", state.name()))
        .collect();
    blocks.push(Block::Text(format!(
        "{} {} ({}): {} goroutines: {}.",
        all.process.as_deref().unwrap_or("process"),
        all.pid,
        all.told_release(),
        all.total,
        states.join(", ")
    )));
    if all.torn + all.left_out > 0 {
        blocks.push(Block::Text(format!(
            "Not in these numbers: {} that changed while they were read, {} beyond the limits.",
            all.torn, all.left_out
        )));
    }
    let rows: Vec<_> = all
        .sites
        .iter()
        .take(ROWS)
        .map(|site| {
            vec![
                site.count.to_string(),
                site.blocked.to_string(),
                site.growth
                    .map_or_else(|| "-".to_owned(), |growth| format!("{growth:+.0}")),
                site.oldest_ns.map_or_else(|| "-".to_owned(), human),
                site.created_by.to_string(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        blocks.push(Block::Table(
            vec![">count", ">blocked", ">per minute", ">oldest", "started by"],
            rows,
        ));
    }
    if !all.notes.is_empty() {
        blocks.push(Block::List(all.notes.clone()));
    }
}

/// Second: what those that wait are waiting in, the most first, with their calls.
fn blocking(blocks: &mut Vec<Block>, all: &Goroutines) {
    let waits = |group: &&GoroutineGroup| !group.system && group.state == GoState::Waiting;
    let groups: Vec<_> = all.groups.iter().filter(waits).collect();
    for group in groups.iter().take(ROWS) {
        let longest = group
            .longest_wait_ns
            .map_or_else(String::new, |ns| format!(", the longest for {}", human(ns)));
        let locks: Vec<String> = group
            .waits_for
            .iter()
            .filter_map(|wait| wait.lock.as_ref())
            .take(HOLDERS)
            .map(LockRef::to_string)
            .collect();
        let on = if locks.is_empty() {
            String::new()
        } else {
            format!(" on {}", locks.join(", "))
        };
        blocks.push(Block::Text(format!(
            "{} blocked in {}{on}{longest}",
            group.count,
            group.wait_reason.as_deref().unwrap_or("an unknown wait"),
        )));
        let calls = group.stack.iter().take(CALLS);
        let mut lines: Vec<String> = calls.map(ToString::to_string).collect();
        if let Some(site) = &group.created_by {
            lines.push(format!("started by {site}"));
        }
        blocks.push(Block::Lines(lines));
    }
    let left_out = groups.len().saturating_sub(ROWS) as u64 + all.groups_left_out;
    if left_out > 0 {
        blocks.push(Block::Text(format!("… and {left_out} smaller groups.")));
    }
}

/// Third: locks with their holders, and channels.
fn mutexes(blocks: &mut Vec<Block>, all: &Goroutines) {
    let locks = all.locks.iter().map(|lock| {
        let holders: Vec<String> = lock
            .holders
            .iter()
            .take(HOLDERS)
            .map(|holder| {
                let doing = holder.doing.as_deref().unwrap_or("?");
                format!(
                    "goroutine {} ({}, {doing})",
                    holder.goid,
                    holder.confidence.name()
                )
            })
            .collect();
        vec![
            lock.waiters_now.to_string(),
            lock.mean_wait_ns.map_or_else(|| "-".to_owned(), human),
            lock.lock.to_string(),
            lock.lock.class.name().to_owned(),
            if holders.is_empty() {
                "-".to_owned()
            } else {
                holders.join(", ")
            },
        ]
    });
    let channels = all.channels.iter().map(|channel| {
        let closed = if channel.closed { ", closed" } else { "" };
        vec![
            (channel.receivers + channel.senders).to_string(),
            channel
                .mean_send_ns
                .max(channel.mean_receive_ns)
                .map_or_else(|| "-".to_owned(), human),
            channel.lock.to_string(),
            channel.lock.class.name().to_owned(),
            format!(
                "{} of {} in it{closed}; {} receive, {} send",
                channel.len, channel.cap, channel.receivers, channel.senders
            ),
        ]
    });
    let count = all.locks.len() + all.channels.len();
    if count > 0 {
        let rows = locks.chain(channels).take(ROWS).collect();
        blocks.push(Block::Table(
            vec![">waiting", ">mean wait", "lock", "class", "holder or state"],
            rows,
        ));
        more(blocks, count);
    }
}
