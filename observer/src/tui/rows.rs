//! What a table is made of: records of the model, how they are told apart, sorted and filtered, and
//! the columns that show them. Plain data and functions from data to text.

use std::{cell::RefCell, cmp::Ordering, sync::Arc};

use super::{goroutines::GoKey, groups::GroupKey, text::Glyphs};
use crate::{
    event::{Holder, Kind, LockClass, LockRef, TaskRef},
    model::InProgress,
};

/// Identity of a row: what a selection holds on to while rows come, go and change places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowId {
    /// A wait in progress, by its thread.
    Task(u32),
    /// A lock, by its id.
    Lock(Arc<str>),
    /// A wait that ended.
    Wait { tid: u32, end_ns: u64 },
    /// A diagnosis, by its time and its sentence.
    Finding { mono_ns: u64, title: String },
    /// Findings that there was no room for.
    MoreFindings,
    /// Waits in progress that have something in common.
    Group(GroupKey),
    /// Goroutines that do the same.
    GoGroup(GoKey),
    /// One goroutine.
    Goroutine { pid: u32, goid: u64 },
    /// A lock or a channel of Go, by its id.
    GoResource { pid: u32, id: Arc<str> },
}

/// Is a wait of this kind most often no trouble? Views fold such waits away until asked for them: pools that
/// wait for work would hide everything else.
pub(super) fn is_idle(kind: Kind) -> bool {
    kind.is_mostly_idle()
}

/// Is a wait looked for?
pub(super) fn is_found(wait: &InProgress, filter: &Filter) -> bool {
    let event = &wait.event;
    filter.is_in_task(&event.task)
        || filter.is_in(event.kind.name())
        || filter.is_in_some(event.syscall.as_deref())
        || filter.is_in_holder(event.holder.as_deref())
        || event.lock.iter().any(|lock| filter.is_in_lock(lock))
        || event.locks.iter().any(|lock| filter.is_in_lock(lock))
}

/// Order of waits that sort alike: the oldest first.
pub(super) fn tie(a: &InProgress, b: &InProgress) -> Ordering {
    (a.start_ns, a.event.task.tid).cmp(&(b.start_ns, b.event.task.tid))
}

/// What a column sorts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'a> {
    Number(u64),
    Text(&'a str),
    /// Comes last, whatever the direction.
    Unknown,
}

impl<'a> Key<'a> {
    pub(super) fn number(value: Option<u64>) -> Self {
        value.map_or(Key::Unknown, Key::Number)
    }

    pub(super) fn text(value: Option<&'a str>) -> Self {
        value.map_or(Key::Unknown, Key::Text)
    }

    /// A rate or a share: never negative, and then the order of the bits is the order of the values.
    pub(super) fn rate(value: f64) -> Self {
        Key::Number(value.max(0.0).to_bits())
    }

    pub(super) fn lock(lock: Option<&'a LockRef>) -> Self {
        match lock {
            Some(LockRef {
                name: Some(name), ..
            }) => Key::Text(name),
            Some(lock) => Key::Number(lock.addr.0),
            None => Key::Unknown,
        }
    }

    pub(super) fn order(self, other: Self, descending: bool) -> Ordering {
        match (self, other) {
            (Key::Unknown, _) | (_, Key::Unknown) => self.cmp(&other),
            _ if descending => other.cmp(&self),
            _ => self.cmp(&other),
        }
    }
}

/// How much a text asks to be looked at; the words say it too, so that no colour is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Normal,
    /// Of less interest.
    Quiet,
    /// Worth a look.
    Strong,
    /// Something is wrong.
    Alarm,
}

/// What a cell needs to know beside its record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// The moment that the rows show.
    pub(super) now_ns: u64,
    pub(super) glyphs: Glyphs,
    /// Columns of the terminal that there is room for.
    pub(super) columns: usize,
}

/// A column of a table of `R`.
pub(super) struct Column<R: 'static> {
    pub(super) title: &'static str,
    /// Columns of the terminal below which it is not worth showing.
    pub(super) min: u16,
    /// Columns that are enough for it.
    pub(super) want: u16,
    /// Importance: 0 stays longest when there is little room.
    pub(super) rank: u8,
    /// Numbers end at the right edge.
    pub(super) right: bool,
    /// Does the natural order begin with the largest?
    pub(super) descending: bool,
    pub(super) key: for<'a> fn(&'a R, u64) -> Key<'a>,
    pub(super) cell: fn(&R, Context) -> String,
    pub(super) tone: fn(&R) -> Tone,
}

/// A record that a table can show.
pub(super) trait Record: Clone + 'static {
    /// Index of the column that sorts at first.
    const DEFAULT_SORT: usize;
    /// Index of the column that takes what room the others leave.
    const FLEXIBLE: usize;

    fn columns() -> &'static [Column<Self>];
    fn id(&self) -> RowId;
    fn is(&self, id: &RowId) -> bool;
    /// Order of records that sort alike, so that rows keep their places.
    fn tie(&self, other: &Self) -> Ordering;
    /// Is it most often no trouble at all? Such rows are folded away until asked for.
    fn is_idle(&self) -> bool;
    fn matches(&self, filter: &Filter) -> bool;
    /// When it came about, where one that is new is marked.
    fn since_ns(&self) -> Option<u64> {
        None
    }
}

/// What is looked for, as typed.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    text: String,
    lower: String,
    is_ascii: bool,
    is_number: bool,
    /// Place of the character that is the least likely to be found by chance.
    rare: usize,
    /// It has such a character: it is no part of an address.
    is_word: bool,
    /// The classes of locks whose names it is in.
    classes: Vec<LockClass>,
    /// Names that very many rows share, each in the place that its address gives, and whether it is in them.
    shared: RefCell<Vec<Shared>>,
}

/// A name that many rows share, and whether the text is in it.
type Shared = Option<(Arc<str>, bool)>;

/// Names that are kept at the same time: one for each process with very many locks or tasks.
const SHARED: usize = 64;

impl Filter {
    pub(super) fn new(text: String) -> Self {
        let lower = text.to_lowercase();
        let mut filter = Filter {
            is_ascii: lower.is_ascii(),
            is_number: lower.bytes().all(|byte| byte.is_ascii_digit()),
            is_word: lower.bytes().any(is_rare),
            rare: lower.bytes().position(is_rare).unwrap_or(0),
            classes: Vec::new(),
            shared: RefCell::default(),
            text,
            lower,
        };
        let of_them = LockClass::ALL.iter().copied();
        filter.classes = of_them.filter(|class| filter.is_in(class.name())).collect();
        filter
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Is it in the text, upper and lower case being the same? It is asked several times a row, for
    /// every row there is.
    pub(super) fn is_in(&self, text: &str) -> bool {
        if !self.is_ascii {
            return text.to_lowercase().contains(&self.lower);
        }
        // ASCII bytes are never part of another character, so bytes can be compared.
        let (mut rest, needle) = (text.as_bytes(), self.lower.as_bytes());
        let Some(&rare) = needle.get(self.rare) else {
            return true;
        };
        // Most texts do not even have the one character.
        let mut before = 0;
        while let Some(at) = memchr::memchr2(rare, rare.to_ascii_uppercase(), rest) {
            let place = before + at;
            if let Some(start) = place.checked_sub(self.rare)
                && let Some(part) = text.as_bytes().get(start..start + needle.len())
                && part.eq_ignore_ascii_case(needle)
            {
                return true;
            }
            before = place + 1;
            rest = &text.as_bytes()[before..];
        }
        false
    }

    pub(super) fn is_in_some(&self, text: Option<&str>) -> bool {
        text.is_some_and(|text| self.is_in(text))
    }

    /// As [`Filter::is_in_some`], of a name that many rows share: it is looked through once for all of them.
    pub(super) fn is_in_shared(&self, text: Option<&Arc<str>>) -> bool {
        let Some(text) = text else {
            return false;
        };
        let mut shared = self.shared.borrow_mut();
        shared.resize(SHARED, None);
        // Texts lie 16 bytes apart at least.
        let place = (Arc::as_ptr(text).addr() >> 4) % SHARED;
        match &shared[place] {
            // What is kept is not given back: nothing else can be at its address.
            Some((known, found)) if Arc::ptr_eq(known, text) => *found,
            _ => {
                let found = self.is_in(text);
                shared[place] = Some((Arc::clone(text), found));
                found
            }
        }
    }

    pub(super) fn is_in_number(&self, number: u32) -> bool {
        // Most filters are words: they need no number written out.
        self.is_number && self.is_in(&number.to_string())
    }

    pub(super) fn is_in_task(&self, task: &TaskRef) -> bool {
        self.is_in_some(task.comm.as_deref())
            || self.is_in_shared(task.process.as_ref())
            || self.is_in_number(task.tid)
            || self.is_in_number(task.pid)
    }

    pub(super) fn is_in_class(&self, class: LockClass) -> bool {
        self.classes.contains(&class)
    }

    pub(super) fn is_in_holder(&self, holder: Option<&Holder>) -> bool {
        holder.is_some_and(|holder| {
            self.is_in_some(holder.comm.as_deref())
                || holder.tid.is_some_and(|tid| self.is_in_number(tid))
        })
    }

    pub(super) fn is_in_lock(&self, lock: &LockRef) -> bool {
        // A private lock's id holds its address. Ids lie scattered in memory: where only numbers can be in
        // them, words are not looked for there.
        (!(self.is_word && has_plain_id(lock.class)) && self.is_in(&lock.id))
            || self.is_in_some(lock.name.as_deref())
            || (lock.shared && self.is_in(&lock.addr.to_string()))
    }
}

/// Is the id made of numbers alone? So it is for what is a futex and no more.
fn has_plain_id(class: LockClass) -> bool {
    matches!(
        class,
        LockClass::Futex
            | LockClass::FutexPi
            | LockClass::PthreadMutex
            | LockClass::PthreadCond
            | LockClass::PthreadRwlock
            | LockClass::Sem
            | LockClass::LibcLock
            | LockClass::RustMutex
            | LockClass::RustRwlock
            | LockClass::RustCondvar
            | LockClass::ParkingLot
            | LockClass::ParkingLotCondvar
    )
}

/// Not in an address: most of what a filter is compared with is one.
fn is_rare(byte: u8) -> bool {
    !byte.is_ascii_hexdigit() && !matches!(byte, b'x' | b':' | b'+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_ignore_case() {
        for (filter, text, found) in [
            ("", "anything", true),
            ("work", "Worker-3", true),
            ("WORK", "worker-3", true),
            ("worker-33", "worker-3", false),
            ("ÄR", "wärter", true),
            ("é", "cafe", false),
            ("long filter", "日本", false),
            ("n", "日本n", true),
            ("ab", "aab", true),
            ("ab", "ba", false),
            ("0xfg", "0xff0xfG", true),
            ("0xfg", "g0xf0xf", false),
            ("gg", "aaagag", false),
            ("a", "", false),
        ] {
            assert_eq!(
                Filter::new(filter.into()).is_in(text),
                found,
                "{filter} {text}"
            );
        }
        let filter = Filter::new("led".into());
        let names: Vec<Arc<str>> = (0..3 * SHARED)
            .map(|n| if n % 3 == 0 { "ledger" } else { "shop" }.into())
            .collect();
        for _ in 0..2 {
            for name in &names {
                let found = filter.is_in_shared(Some(name));
                assert_eq!(found, name.starts_with("led"), "{name}");
            }
        }
        assert!(!filter.is_in_shared(None));
        assert!(Filter::new("23".into()).is_in_number(1234));
        assert!(!Filter::new("23a".into()).is_in_number(1234));
    }

    #[test]
    fn unknown_comes_last_both_ways() {
        for descending in [false, true] {
            assert_eq!(
                Key::Unknown.order(Key::Number(1), descending),
                Ordering::Greater
            );
            assert_eq!(
                Key::Text("a").order(Key::Unknown, descending),
                Ordering::Less
            );
        }
        assert_eq!(
            Key::Number(1).order(Key::Number(2), true),
            Ordering::Greater
        );
        assert_eq!(Key::rate(0.5).order(Key::rate(12.0), false), Ordering::Less);
    }
}
