//! Events as JSON Lines.
//!
//! Waits that ended are many: they are written field after field, without a general serializer, which takes each
//! quotation mark, name and colon to the writer by itself. A test holds both to the same line.

use std::io::{self, Write};

use serde::Serialize;

use crate::event::{Addr, Event, LockRef, TaskRef, Wait, Waker};

/// Most lines of waits are shorter.
const SHORT: usize = 640;

/// Writes one event and the end of its line.
///
/// # Errors
/// The writer's.
pub fn line(out: &mut impl Write, event: &Event) -> io::Result<()> {
    if let Event::Wait(of) = event {
        let mut line = Vec::with_capacity(SHORT);
        wait(&mut line, of)?;
        line.push(b'\n');
        return out.write_all(&line);
    }
    serde_json::to_writer(&mut *out, event)?;
    out.write_all(b"\n")
}

fn wait(out: &mut Vec<u8>, wait: &Wait) -> serde_json::Result<()> {
    // All of them by name: a new one cannot be forgotten here.
    let Wait {
        time,
        mono_ns,
        task,
        kind,
        dur_ns,
        blocked_ns,
        runqueue_ns,
        outcome,
        lock,
        locks,
        mode,
        holder,
        causes,
        waker,
        syscall,
        probe,
        ended_by,
        stack,
        at_least,
        end_unseen,
    } = wait;
    put(out, "{\"type\":\"wait\",\"time\":\"");
    out.extend_from_slice(&time.written());
    number(out, "\",\"mono_ns\":", *mono_ns);
    put(out, ",\"task\":");
    task_ref(out, task)?;
    word(out, ",\"kind\":\"", kind.name());
    number(out, ",\"dur_ns\":", *dur_ns);
    some(*blocked_ns, |ns| number(out, ",\"blocked_ns\":", ns));
    some(*runqueue_ns, |ns| number(out, ",\"runqueue_ns\":", ns));
    some(*outcome, |of| word(out, ",\"outcome\":\"", of.name()));
    if let Some(lock) = lock {
        put(out, ",\"lock\":");
        lock_ref(out, lock)?;
    }
    rest(out, ",\"locks\":", (!locks.is_empty()).then_some(locks))?;
    text(out, ",\"mode\":", mode.as_deref())?;
    rest(out, ",\"holder\":", holder.as_ref())?;
    rest(out, ",\"causes\":", (!causes.is_empty()).then_some(causes))?;
    if let Some(waker) = waker {
        put(out, ",\"waker\":");
        waker_ref(out, waker)?;
    }
    text(out, ",\"syscall\":", syscall.as_deref())?;
    text(out, ",\"probe\":", probe.as_deref())?;
    text(out, ",\"ended_by\":", ended_by.as_deref())?;
    rest(out, ",\"stack\":", stack.as_ref())?;
    if *at_least {
        put(out, ",\"at_least\":true");
    }
    if *end_unseen {
        put(out, ",\"end_unseen\":true");
    }
    out.push(b'}');
    Ok(())
}

fn task_ref(out: &mut Vec<u8>, task: &TaskRef) -> serde_json::Result<()> {
    let TaskRef {
        pid,
        tid,
        comm,
        process,
        container,
        ns_pid,
        ns_tid,
        goid,
    } = task;
    number(out, "{\"pid\":", u64::from(*pid));
    number(out, ",\"tid\":", u64::from(*tid));
    text(out, ",\"comm\":", comm.as_deref())?;
    text(out, ",\"process\":", process.as_deref())?;
    rest(out, ",\"container\":", container.as_ref())?;
    some(*ns_pid, |pid| number(out, ",\"ns_pid\":", u64::from(pid)));
    some(*ns_tid, |tid| number(out, ",\"ns_tid\":", u64::from(tid)));
    some(*goid, |goid| number(out, ",\"goid\":", goid));
    out.push(b'}');
    Ok(())
}

fn lock_ref(out: &mut Vec<u8>, lock: &LockRef) -> serde_json::Result<()> {
    let LockRef {
        id,
        class,
        name,
        addr,
        shared,
    } = lock;
    text(out, "{\"id\":", Some(id))?;
    word(out, ",\"class\":\"", class.name());
    text(out, ",\"name\":", name.as_deref())?;
    if !addr.is_none() {
        address(out, ",\"addr\":\"0x", *addr);
    }
    put(
        out,
        if *shared {
            ",\"shared\":true}"
        } else {
            ",\"shared\":false}"
        },
    );
    Ok(())
}

fn waker_ref(out: &mut Vec<u8>, waker: &Waker) -> serde_json::Result<()> {
    let Waker {
        pid,
        tid,
        comm,
        goid,
    } = waker;
    number(out, "{\"pid\":", u64::from(*pid));
    number(out, ",\"tid\":", u64::from(*tid));
    text(out, ",\"comm\":", comm.as_deref())?;
    some(*goid, |goid| number(out, ",\"goid\":", goid));
    out.push(b'}');
    Ok(())
}

fn some<T>(value: Option<T>, write: impl FnOnce(T)) {
    if let Some(value) = value {
        write(value);
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// What is written before it, and a number.
fn number(out: &mut Vec<u8>, before: &str, mut number: u64) {
    put(out, before);
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// What is written before it, an address's digits, and the quotation mark behind it.
fn address(out: &mut Vec<u8>, before: &str, addr: Addr) {
    put(out, before);
    let digits = (u64::BITS - addr.0.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(addr.0 >> (digit * 4)) as usize & 15]);
    }
    out.push(b'"');
}

/// What is written before it, with a quotation mark, and a word that needs no escapes.
fn word(out: &mut Vec<u8>, before: &str, word: &str) {
    put(out, before);
    put(out, word);
    out.push(b'"');
}

/// What is written before it, and a text, if there is one.
fn text(out: &mut Vec<u8>, before: &str, text: Option<&str>) -> serde_json::Result<()> {
    let Some(text) = text else { return Ok(()) };
    put(out, before);
    let is_escaped = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    if text.as_bytes().iter().any(is_escaped) {
        return serde_json::to_writer(out, text);
    }
    out.push(b'"');
    put(out, text);
    out.push(b'"');
    Ok(())
}

/// What is written before it, and a value that is rare, if there is one.
fn rest(out: &mut Vec<u8>, before: &str, value: Option<&impl Serialize>) -> serde_json::Result<()> {
    let Some(value) = value else { return Ok(()) };
    put(out, before);
    serde_json::to_writer(out, value)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        event::{Cause, Confidence, ContainerRef, Frame, Holder, Kind, LockClass, Outcome, Stack},
        time::WallTime,
    };

    const ODD: [&str; 6] = [
        "",
        "plain",
        "\"\\",
        "\n\u{1}\u{7f}",
        "ü…",
        "\u{2028}</script>",
    ];

    fn lock(odd: &str, addr: u64) -> LockRef {
        LockRef {
            id: odd.into(),
            class: LockClass::PthreadMutex,
            name: Some(odd.into()),
            addr: Addr(addr),
            shared: addr % 2 == 1,
        }
    }

    fn full(odd: &str, number: u64) -> Wait {
        let holder = Holder {
            pid: Some(1),
            tid: None,
            comm: Some(odd.into()),
            confidence: Confidence::Likely,
            evidence: odd.into(),
            state: None,
            doing: None,
        };
        Wait {
            time: WallTime(number),
            mono_ns: number,
            task: TaskRef {
                comm: Some(odd.into()),
                process: Some(odd.into()),
                container: Some(Arc::new(ContainerRef::new(odd))),
                ns_pid: Some(1),
                ns_tid: Some(u32::MAX),
                goid: Some(number),
                ..TaskRef::new(number as u32, 0)
            }
            .into(),
            kind: Kind::Lock,
            dur_ns: number,
            blocked_ns: Some(number),
            runqueue_ns: Some(0),
            outcome: Some(Outcome::Woken),
            lock: Some(lock(odd, number).into()),
            locks: vec![lock(odd, 0).into(), lock(odd, 1).into()],
            mode: Some(odd.into()),
            holder: Some(Box::new(holder)),
            causes: BTreeMap::from([(Cause::Unknown, number)]),
            waker: Some(
                Waker {
                    pid: 1,
                    tid: 2,
                    comm: Some(odd.into()),
                    goid: Some(3),
                }
                .into(),
            ),
            syscall: Some(odd.to_owned().into()),
            probe: Some(odd.into()),
            ended_by: Some(odd.into()),
            stack: Some(Box::new(Stack {
                user: [Frame::default()].into(),
                kernel: [].into(),
                end: None,
            })),
            at_least: true,
            end_unseen: true,
        }
    }

    fn empty(number: u64) -> Wait {
        Wait {
            task: TaskRef::new(1, 2).into(),
            blocked_ns: None,
            runqueue_ns: None,
            outcome: None,
            lock: None,
            locks: Vec::new(),
            mode: None,
            holder: None,
            causes: BTreeMap::new(),
            waker: None,
            syscall: None,
            probe: None,
            ended_by: None,
            stack: None,
            at_least: false,
            end_unseen: false,
            ..full("", number)
        }
    }

    #[test]
    fn waits_are_written_as_by_the_general_serializer() {
        let numbers = (0..64)
            .map(|bit| 1 << bit)
            .chain([0, 9, 10, 99, 100, u64::MAX]);
        for number in numbers {
            let odd = ODD.iter().map(|odd| full(odd, number));
            for event in odd.chain([empty(number)]).map(Event::from) {
                let mut quick = Vec::new();
                line(&mut quick, &event).unwrap();
                let mut general = serde_json::to_vec(&event).unwrap();
                general.push(b'\n');
                assert_eq!(
                    String::from_utf8(quick).unwrap(),
                    String::from_utf8(general).unwrap()
                );
            }
        }
    }
}
