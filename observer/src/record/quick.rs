//! Reads the events that are many exactly as observer writes them: field after field, in their order.
//!
//! A general parser asks of each field which one it is, and of each string whether it is written in a way of its own.
//! Here the answers are known. Whatever is written in another way (blanks, escapes, another order, a field that is
//! not known) is none, and goes the general way, so that a line means the same either way: a test holds both to the
//! same answers.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, sync::Arc};

use super::known::{Known, Objects};
use crate::{
    de::{Place, Seen},
    digits,
    event::{
        Access, Addr, Blocked, Bucket, Caller, Cause, Confidence, ContainerRef, ContainerRuntime,
        Frame, Holder, HolderState, Kind, LockClass, LockRef, LockTotals, Outcome, Stack, StackEnd,
        TaskRef, TaskTotals, Wait, WaitTotals, Waker,
    },
    time::WallTime,
};

/// Digits that are a number of 64 bits in any case.
const DIGITS: u32 = 19;
/// Powers of ten.
const TENS: [u64; 9] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
];
/// What each byte is worth as a hexadecimal digit, as observer writes them; more than 15 if it is none.
const HEXADECIMAL: [u8; 256] = {
    let mut worth = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        worth[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    worth
};

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What can be read so.
pub(super) trait Quick: Sized {
    /// Takes it from the beginning of a text; none: the general way it goes.
    fn take(text: &mut Text) -> Option<Self>;
}

/// What has fields.
trait Object: Sized {
    /// Takes it by its fields.
    fn anew(text: &mut Text) -> Option<Self>;
}

/// An object, and nothing else.
pub(super) fn read<T: Quick>(object: &[u8]) -> Option<T> {
    let rest = if digits::is_ascii(object) {
        // SAFETY: ASCII is UTF-8. To ask for no more takes a third of the time.
        unsafe { std::str::from_utf8_unchecked(object) }
    } else {
        std::str::from_utf8(object).ok()?
    };
    let read = |seen: &mut Seen, known: &mut Known| {
        let mut text = Text { rest, seen, known };
        let value = T::take(&mut text)?;
        text.rest.is_empty().then_some(value)
    };
    KNOWN.with_borrow_mut(|known| Seen::with(|seen| read(seen, known)))
}

/// What is left of a line.
pub(super) struct Text<'a> {
    rest: &'a str,
    seen: &'a mut Seen,
    known: &'a mut Known,
}

impl<'a> Text<'a> {
    #[expect(
        clippy::inline_always,
        reason = "what is skipped is known where it is called"
    )]
    #[inline(always)]
    fn skip(&mut self, begins: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(begins)?;
        Some(())
    }

    /// What stands between quotation marks, without escapes and control characters, and its place among strings.
    #[inline]
    fn string(&mut self) -> Option<(&'a str, Place)> {
        self.skip("\"")?;
        let bytes = self.rest.as_bytes();
        let mut place = Place::default();
        let mut at = 0;
        loop {
            let word = digits::word(bytes, at);
            let stops =
                digits::equal(word, b'"') | digits::equal(word, b'\\') | digits::below(word, b' ');
            let before = digits::unmarked(stops);
            if before < 8 {
                place.add(digits::lowest(word, before));
                at += before as usize;
                break;
            }
            place.add(word);
            at += 8;
        }
        let (string, rest) = self.rest.split_at_checked(at)?;
        self.rest = rest.strip_prefix('"')?;
        Some((string, place))
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        let bytes = self.rest.as_bytes();
        let (length, value) = match digits::number(digits::word(bytes, 0)) {
            (8, first) => Self::long_number(bytes, first)?,
            short => short,
        };
        // JSON has no leading zeros.
        if length == 0 || (length > 1 && bytes.first() == Some(&b'0')) {
            return None;
        }
        self.rest = self.rest.get(length as usize..)?;
        Some(value)
    }

    /// How many digits there are, eight at least, and what they are. `first`: the first eight.
    fn long_number(bytes: &[u8], first: u64) -> Option<(u32, u64)> {
        let (mut length, mut value, mut more) = (8, first, 8);
        while more == 8 {
            let next;
            (more, next) = digits::number(digits::word(bytes, length as usize));
            length += more;
            if length > DIGITS {
                return None;
            }
            value = value * TENS[more as usize] + next;
        }
        Some((length, value))
    }

    /// Elements between `open` and `close`.
    fn all(
        &mut self,
        open: &str,
        close: &str,
        mut take: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.skip(open)?;
        if self.skip(close).is_some() {
            return Some(());
        }
        loop {
            take(self)?;
            if self.skip(close).is_some() {
                return Some(());
            }
            self.skip(",")?;
        }
    }
}

/// The fields of an object, each after `{` or a comma.
struct Fields(char);

impl Fields {
    // The length of each key is known where it is asked for, so the comparison is one of a few words.
    /// `key` has its quotation marks and its colon. The outer none: not as expected; the inner: another field is next.
    #[expect(
        clippy::inline_always,
        reason = "so is each key, which makes it twice as fast"
    )]
    #[expect(clippy::option_option, reason = "three answers, and `?` takes one")]
    #[inline(always)]
    fn next<T: Quick>(&mut self, text: &mut Text, key: &str) -> Option<Option<T>> {
        let Some(value) = text
            .rest
            .strip_prefix(self.0)
            .and_then(|rest| rest.strip_prefix(key))
        else {
            return Some(None);
        };
        (text.rest, self.0) = (value, ',');
        T::take(text).map(Some)
    }

    fn end(self, text: &mut Text) -> Option<()> {
        // An object without any field is not written.
        (self.0 == ',').then_some(())?;
        text.skip("}")
    }
}

/// Objects with all of their fields, in their order, and whether they may be absent: the compiler asks for one that
/// is added.
macro_rules! objects {
    ($($type:ident $(in $memory:ident)? { $($field:ident: $need:ident,)* })*) => {
        $(
            impl Object for objects!(type $type $($memory)?) {
                fn anew(text: &mut Text) -> Option<Self> {
                    let mut fields = Fields('{');
                    $(
                        let key = concat!("\"", stringify!($field), "\":");
                        let $field = objects!($need fields.next(text, key)?);
                    )*
                    fields.end(text)?;
                    Some(objects!(new $($memory)? $type { $($field,)* }))
                }
            }
        )*
    };
    (type $type:ident) => { $type };
    (type $type:ident $memory:ident) => { $memory<$type> };
    // What is large or shared is put where it stays at once, and not moved.
    (new $type:ident { $($field:ident,)* }) => { $type { $($field,)* } };
    (new $memory:ident $type:ident { $($field:ident,)* }) => { $memory::new($type { $($field,)* }) };
    (must $value:expr) => { $value? };
    (may $value:expr) => { $value };
    (default $value:expr) => { $value.unwrap_or_default() };
}

objects! {
    Wait in Arc {
        time: must, mono_ns: must, task: must, kind: must, dur_ns: must, blocked_ns: may, runqueue_ns: may,
        outcome: may, lock: may, locks: default, mode: may, holder: may, causes: default, waker: may,
        syscall: may, probe: may, ended_by: may, stack: may, at_least: default, end_unseen: default,
    }
    Blocked in Box {
        time: must, mono_ns: must, task: must, kind: must, age_ns: must, blocked_ns: may, runqueue_ns: may,
        lock: may, locks: default, access: may, mode: may, holder: may, syscall: may, probe: may, stack: may,
        at_least: default,
    }
    LockTotals in Box {
        time: must, mono_ns: must, lock: must, pid: may, process: may, waits: must, total_ns: must, max_ns: must,
        p50_ns: may, p99_ns: may, timeouts: must, interrupted: must, waiters_now: must, holder: may,
        histogram: must, callers: default, estimated: default,
    }
    TaskTotals in Arc {
        time: must, mono_ns: must, task: must, kinds: must, runqueue: may, estimated: default,
    }
    TaskRef in Arc {
        pid: must, tid: must, comm: may, process: may, container: may, ns_pid: may, ns_tid: may, goid: may,
    }
    ContainerRef in Arc {
        id: must, runtime: may, name: may, image: may, pod: may, namespace: may, pod_uid: may, workload: may,
    }
    LockRef in Arc { id: must, class: must, name: may, addr: default, shared: must, }
    Holder { pid: may, tid: may, comm: may, confidence: must, evidence: must, state: may, doing: may, }
    Waker in Arc { pid: must, tid: must, comm: may, goid: may, }
    Stack { user: default, kernel: default, end: may, }
    Frame {
        addr: must, name: may, offset: may, module: may, file: may, line: may, inlined: default, scanned: default,
    }
    WaitTotals { waits: must, total_ns: must, max_ns: must, }
    Bucket { lt_ns: may, count: must, }
    Caller { stack: must, samples: must, total_ns: must, }
}

/// Objects that are rarely the same.
macro_rules! different {
    ($($type:ty,)*) => {
        $(
            impl Quick for $type {
                fn take(text: &mut Text) -> Option<$type> {
                    Object::anew(text)
                }
            }
        )*
    };
}

different! {
    Arc<Wait>, Box<Blocked>, Box<LockTotals>, Arc<TaskTotals>, Arc<ContainerRef>, Holder, Stack, Frame, WaitTotals,
    Bucket, Caller,
}

/// Objects that come again and again.
macro_rules! known {
    ($($type:ident: $objects:ident,)*) => {
        $(
            impl Quick for Arc<$type> {
                fn take(text: &mut Text) -> Option<Arc<$type>> {
                    let Some(place) = Objects::<$type>::place(text.rest) else {
                        return Object::anew(text);
                    };
                    if let Some((known, rest)) = text.known.$objects.find(text.rest, place) {
                        text.rest = rest;
                        return Some(Arc::clone(known));
                    }
                    let before = text.rest;
                    let object: Arc<$type> = Object::anew(text)?;
                    let read = before.get(..before.len() - text.rest.len())?;
                    text.known.$objects.note(read, place, &object);
                    Some(object)
                }
            }
        )*
    };
}

known! { TaskRef: tasks, LockRef: locks, Waker: wakers, }

/// Enumerations that have names.
macro_rules! names {
    ($($type:ident)*) => {
        $(
            impl Quick for $type {
                fn take(text: &mut Text) -> Option<$type> {
                    $type::of_name(text.string()?.0)
                }
            }
        )*
    };
}

names! { Kind Outcome LockClass Access Confidence HolderState Cause ContainerRuntime StackEnd }

impl Quick for u64 {
    fn take(text: &mut Text) -> Option<u64> {
        text.number()
    }
}

impl Quick for u32 {
    fn take(text: &mut Text) -> Option<u32> {
        text.number()?.try_into().ok()
    }
}

impl Quick for bool {
    fn take(text: &mut Text) -> Option<bool> {
        match text.skip("true") {
            Some(()) => Some(true),
            None => text.skip("false").map(|()| false),
        }
    }
}

impl Quick for WallTime {
    fn take(text: &mut Text) -> Option<WallTime> {
        let written = text.rest.as_bytes().first_chunk::<32>()?;
        let [b'"', time @ .., b'"'] = written else {
            return None;
        };
        let time = text.seen.seconds.read(time)?;
        text.rest = text.rest.get(written.len()..)?;
        Some(time)
    }
}

impl Quick for Addr {
    fn take(text: &mut Text) -> Option<Addr> {
        let (string, _) = text.string()?;
        let digits = string.strip_prefix("0x")?.as_bytes();
        if !(1..=16).contains(&digits.len()) {
            return None;
        }
        let (mut number, mut all) = (0, 0);
        for byte in digits {
            let digit = HEXADECIMAL[usize::from(*byte)];
            (number, all) = (number << 4 | u64::from(digit), all | digit);
        }
        (all < 16).then_some(Addr(number))
    }
}

impl Quick for Arc<str> {
    fn take(text: &mut Text) -> Option<Arc<str>> {
        let (string, place) = text.string()?;
        Some(text.seen.shared(string, place))
    }
}

/// A system call: those in which tasks wait most need no memory of their own.
impl Quick for Cow<'static, str> {
    fn take(text: &mut Text) -> Option<Cow<'static, str>> {
        macro_rules! known {
            ($name:ident: $($known:literal)*) => {
                match $name {
                    $($known => Cow::Borrowed($known),)*
                    other => Cow::Owned(other.to_owned()),
                }
            };
        }
        let (name, _) = text.string()?;
        Some(known!(name:
            "futex" "futex_wait" "futex_waitv" "epoll_wait" "epoll_pwait" "poll" "ppoll" "select" "pselect6"
            "read" "write" "pread64" "pwrite64" "readv" "writev" "recvfrom" "recvmsg" "sendto" "sendmsg"
            "accept" "accept4" "connect" "fsync" "fdatasync" "clock_nanosleep" "nanosleep" "wait4" "waitid"
            "rt_sigtimedwait" "io_uring_enter" "flock" "fcntl" "openat"
        ))
    }
}

impl<T: Quick> Quick for Vec<T> {
    fn take(text: &mut Text) -> Option<Vec<T>> {
        let mut all = Vec::new();
        text.all("[", "]", |text| {
            all.push(T::take(text)?);
            Some(())
        })?;
        Some(all)
    }
}

impl<T: Quick> Quick for Box<T> {
    fn take(text: &mut Text) -> Option<Box<T>> {
        T::take(text).map(Box::new)
    }
}

impl Quick for Arc<[Frame]> {
    fn take(text: &mut Text) -> Option<Arc<[Frame]>> {
        Vec::take(text).map(Arc::from)
    }
}

impl<K: Quick + Ord, V: Quick> Quick for BTreeMap<K, V> {
    fn take(text: &mut Text) -> Option<BTreeMap<K, V>> {
        let mut all = BTreeMap::new();
        text.all("{", "}", |text| {
            let key = K::take(text)?;
            text.skip(":")?;
            all.insert(key, V::take(text)?);
            Some(())
        })?;
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Serialize, de::DeserializeOwned};

    use super::{
        super::sweep::{Random, change, sample},
        *,
    };
    use crate::event::Event;

    /// Everything that a wait can say.
    const WAIT: &str = r#"{"time":"2026-11-21T09:56:54.659353195Z","mono_ns":3604124595438,"task":{"pid":1,"tid":2,"comm":"wärter","process":"p","container":{"id":"abc","runtime":"cri-o","name":"n","image":"i","pod":"p","namespace":"s","pod_uid":"u","workload":"Deployment/shop"},"ns_pid":7,"ns_tid":8,"goid":9},"kind":"lock","dur_ns":18446744073709,"blocked_ns":0,"runqueue_ns":13,"outcome":"woken","lock":{"id":"1:0xe0","class":"futex_pi","name":"shop","addr":"0x55807411eae0","shared":true},"locks":[{"id":"1:0x1","class":"futex","shared":false},{"id":"1:0x2","class":"kernel_mutex","addr":"0xffffffffffffffff","shared":false}],"mode":"write","holder":{"pid":1,"tid":3,"comm":"h","confidence":"exact","evidence":"the owner's word","state":"waiting","doing":"waits"},"causes":{"holder_running":5,"unknown":6},"waker":{"pid":1,"tid":3,"comm":"h","goid":4},"syscall":"futex","probe":"a:b","ended_by":"a:c","stack":{"user":[{"addr":"0x7f1cc54e8829","name":"f(int, char)","offset":25,"module":"/lib/libc.so.6","file":"a.c","line":3,"inlined":true,"scanned":true},{"addr":"0x25"}],"kernel":[{"addr":"0xffffffff821f8c03"}],"end":"no_unwind_info"},"at_least":true,"end_unseen":true}"#;

    /// The same of the other types.
    const BLOCKED: &str = r#"{"time":"2026-11-21T09:56:54.659353195Z","mono_ns":3604124595438,"task":{"pid":1,"tid":2},"kind":"lock","age_ns":5,"blocked_ns":6,"runqueue_ns":7,"lock":{"id":"1:0xe0","class":"pthread_rwlock","addr":"0xe0","shared":false},"locks":[{"id":"1:0x1","class":"futex","shared":false}],"access":"read","mode":"ExclusiveLock","holder":{"pid":1,"tid":3,"confidence":"likely","evidence":"e"},"syscall":"futex","probe":"a:b","stack":{"user":[{"addr":"0x25"}]},"at_least":true}"#;
    const LOCK: &str = r#"{"time":"2026-11-21T09:56:54.000000000Z","mono_ns":1,"lock":{"id":"1:0x1","class":"futex","addr":"0x1","shared":false},"pid":1,"process":"p","waits":1,"total_ns":2,"max_ns":3,"p50_ns":4,"p99_ns":5,"timeouts":6,"interrupted":7,"waiters_now":8,"holder":{"confidence":"likely","evidence":"e"},"histogram":[{"lt_ns":1,"count":2},{"count":3}],"callers":[{"stack":{"kernel":[{"addr":"0x1"}]},"samples":1,"total_ns":2}],"estimated":true}"#;
    const TASK: &str = r#"{"time":"2026-11-21T09:56:54.000000000Z","mono_ns":1,"task":{"pid":1,"tid":2},"kinds":{"lock":{"waits":1,"total_ns":2,"max_ns":3},"io":{"waits":4,"total_ns":5,"max_ns":6}},"runqueue":{"waits":7,"total_ns":8,"max_ns":9},"estimated":true}"#;

    fn general<T: DeserializeOwned>(object: &str) -> Option<T> {
        serde_json::from_str(object).ok()
    }

    /// The quick way reads what is written, and it is what the general way reads.
    fn same<T: Quick + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(object: &str) {
        let quick: T = read(object.as_bytes()).unwrap_or_else(|| panic!("not read: {object}"));
        assert_eq!(Some(&quick), general(object).as_ref());
        assert_eq!(serde_json::to_string(&quick).unwrap(), object);
    }

    fn each_same(event: &Event) {
        match event {
            Event::Wait(wait) => same::<Arc<Wait>>(&serde_json::to_string(wait).unwrap()),
            Event::Blocked(blocked) => {
                same::<Box<Blocked>>(&serde_json::to_string(blocked).unwrap());
            }
            Event::Lock(totals) => same::<Box<LockTotals>>(&serde_json::to_string(totals).unwrap()),
            Event::Task(totals) => same::<Arc<TaskTotals>>(&serde_json::to_string(totals).unwrap()),
            _ => {}
        }
    }

    #[test]
    fn what_is_written_is_read_as_by_the_general_way() {
        same::<Arc<Wait>>(WAIT);
        sample().iter().for_each(each_same);
        same::<Box<Blocked>>(BLOCKED);
        same::<Box<LockTotals>>(LOCK);
        let empty = LOCK.replace(r#"[{"lt_ns":1,"count":2},{"count":3}]"#, "[]");
        same::<Box<LockTotals>>(&empty);
        same::<Arc<TaskTotals>>(TASK);
    }

    /// A thread's first time is read no other way than its later ones.
    #[test]
    fn a_time_of_zeroes_is_none() {
        let text = TASK.replace("2026-11-21T09:56:54", &"\0".repeat(19));
        let first = std::thread::spawn(move || read::<Arc<TaskTotals>>(text.as_bytes()).is_some());
        assert!(!first.join().unwrap());
    }

    /// What the quick way leaves to the general way.
    #[test]
    fn other_ways_to_write_are_left_alone() {
        let plain = r#"{"pid":1,"tid":2,"comm":"a"}"#;
        assert!(read::<Arc<TaskRef>>(plain.as_bytes()).is_some());
        for other in [
            r#"{"pid":1,"tid":2,"comm":"\u0061"}"#,
            r#"{"pid":1,"tid":2,"comm":null}"#,
            r#"{"tid":2,"pid":1,"comm":"a"}"#,
            r#"{"pid":1,"tid":2,"new":3,"comm":"a"}"#,
            r#"{"pid": 1,"tid":2}"#,
            r#"{"pid":01,"tid":2}"#,
            r#"{"pid":1.0,"tid":2}"#,
            r#"{"pid":4294967296,"tid":2}"#,
            r#"{"pid":1}"#,
            r#"{"pid":1,"tid":2,}"#,
            r#"{"pid":1,"tid":2}}"#,
            r#"{"pid":1,"tid":2,"pid":1}"#,
            r#"{"pid":1,"tid":2"#,
            r#"{"pid":,"tid":2}"#,
            "{}",
            "",
            "{\"pid\":1,\"tid\":2,\"comm\":\"\u{1}\"}",
        ] {
            assert!(read::<Arc<TaskRef>>(other.as_bytes()).is_none(), "{other}");
        }
        assert!(read::<Arc<TaskRef>>(b"{\"pid\":1,\"tid\":2,\"comm\":\"\xff\"}").is_none());
        for number in ["18446744073709551615", "99999999999999999999"] {
            let bucket = format!("{{\"count\":{number}}}");
            assert!(read::<Bucket>(bucket.as_bytes()).is_none());
        }
    }

    /// What the quick way reads of a line that was changed at random, the general way reads too, and as the same.
    fn changed<T: Quick + DeserializeOwned + PartialEq + std::fmt::Debug>(line: &str) {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut read_quickly = 0;
        for _ in 0..10_000 {
            let mut bytes = line.as_bytes().to_vec();
            change(&mut bytes, &mut random);
            if let Some(quick) = read::<T>(&bytes) {
                read_quickly += 1;
                let general: Option<T> = serde_json::from_slice(&bytes).ok();
                assert_eq!(Some(quick), general, "{}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(read_quickly > 100, "{read_quickly}");
    }

    #[test]
    fn changed_at_random_it_is_the_same() {
        changed::<Arc<Wait>>(WAIT);
        changed::<Box<Blocked>>(BLOCKED);
        changed::<Box<LockTotals>>(LOCK);
        changed::<Arc<TaskTotals>>(TASK);
    }
}
