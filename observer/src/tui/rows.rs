//! What a table is made of: records of the model, how they are told apart, sorted and filtered, and
//! the columns that show them. Plain data and functions from data to text.

use std::{cmp::Ordering, sync::Arc};

use super::text::Glyphs;
use crate::{
    event::{LockRef, Wait},
    model::{InProgress, Lock, Model},
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
    fn all<'a>(source: Source<'a>) -> Box<dyn Iterator<Item = &'a Self> + 'a>;
    fn id(&self) -> RowId;
    fn is(&self, id: &RowId) -> bool;
    /// Order of records that sort alike, so that rows keep their places.
    fn tie(&self, other: &Self) -> Ordering;
    /// Is it most often no trouble at all? Such rows are folded away until asked for.
    fn is_idle(&self) -> bool;
    fn matches(&self, filter: &Filter) -> bool;
}

/// Everything the tables show, as it was at one moment.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) now_ns: u64,
    pub(super) long_waits: u64,
    pub(super) blocked: Vec<InProgress>,
    pub(super) locks: Vec<Lock>,
    pub(super) waits: Vec<Wait>,
}

impl Frozen {
    pub(super) fn of(model: &Model) -> Self {
        Frozen {
            now_ns: model.now_ns(),
            long_waits: model.long_waits(),
            blocked: model.blocked().cloned().collect(),
            locks: model.locks().cloned().collect(),
            waits: model.waits().cloned().collect(),
        }
    }
}

/// Where rows come from: the model as it is, or as it was when time was paused.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Live(&'a Model),
    Frozen(&'a Frozen),
}

impl Source<'_> {
    pub(super) fn now_ns(self) -> u64 {
        match self {
            Source::Live(model) => model.now_ns(),
            Source::Frozen(frozen) => frozen.now_ns,
        }
    }

    pub(super) fn long_waits(self) -> u64 {
        match self {
            Source::Live(model) => model.long_waits(),
            Source::Frozen(frozen) => frozen.long_waits,
        }
    }
}

/// What is looked for, as typed.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    text: String,
    lower: String,
    is_ascii: bool,
    is_number: bool,
}

impl Filter {
    pub(super) fn new(text: String) -> Self {
        let lower = text.to_lowercase();
        Filter {
            is_ascii: lower.is_ascii(),
            is_number: lower.bytes().all(|byte| byte.is_ascii_digit()),
            text,
            lower,
        }
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
        let (text, needle) = (text.as_bytes(), self.lower.as_bytes());
        let Some((first, rest)) = needle.split_first() else {
            return true;
        };
        let starts = text.len().saturating_sub(rest.len());
        (0..starts).any(|at| {
            text[at].to_ascii_lowercase() == *first
                && text[at + 1..][..rest.len()].eq_ignore_ascii_case(rest)
        })
    }

    pub(super) fn is_in_some(&self, text: Option<&str>) -> bool {
        text.is_some_and(|text| self.is_in(text))
    }

    pub(super) fn is_in_number(&self, number: u32) -> bool {
        // Most filters are words: they need no number written out.
        self.is_number && self.is_in(&number.to_string())
    }

    pub(super) fn is_in_lock(&self, lock: &LockRef) -> bool {
        // A private lock's id holds its address.
        self.is_in(&lock.id)
            || self.is_in_some(lock.name.as_deref())
            || (lock.shared && self.is_in(&lock.addr.to_string()))
    }
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
            ("a", "", false),
        ] {
            assert_eq!(
                Filter::new(filter.into()).is_in(text),
                found,
                "{filter} {text}"
            );
        }
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
