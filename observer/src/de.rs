//! Reads strings of JSON without a copy of each.
//!
//! A recording has the same few thousand strings again and again: names of tasks and functions, identities of
//! locks. Of each that was seen lately there is one, which all events share.

use std::{cell::RefCell, fmt, marker::PhantomData, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::time::Seconds;

/// Strings that are remembered, as a power of two; one drives out another that has the same place.
const SLOTS_LOG: u32 = 13;
/// Longer ones are rarely the same.
const LONGEST: usize = 200;

thread_local! {
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen::new()) };
}

/// What was read lately, and is likely to come again.
pub(crate) struct Seen {
    strings: Vec<Option<Arc<str>>>,
    /// The second that the last time was in.
    pub(crate) seconds: Seconds,
}

impl Seen {
    const fn new() -> Seen {
        Seen {
            strings: Vec::new(),
            seconds: Seconds::new(),
        }
    }

    /// That of this thread; what is done with it does not come here again.
    pub(crate) fn with<R>(use_it: impl FnOnce(&mut Seen) -> R) -> R {
        SEEN.with_borrow_mut(use_it)
    }

    /// The string that was made of the same text before, or a new one. `place`: of the text.
    pub(crate) fn shared(&mut self, text: &str, place: Place) -> Arc<str> {
        if text.len() > LONGEST {
            return text.into();
        }
        if self.strings.is_empty() {
            self.strings.resize(1 << SLOTS_LOG, None);
        }
        let Some(slot) = self.strings.get_mut(place.slot(SLOTS_LOG)) else {
            return text.into();
        };
        match slot {
            Some(known) if **known == *text => Arc::clone(known),
            _ => Arc::clone(slot.insert(text.into())),
        }
    }
}

/// Where a string has its place: spread well enough, and quick. Strings that are made to collide cost what strings
/// cost that are not remembered.
///
/// It is made of the words of eight bytes that the string consists of, the last one filled up with zeros, or zero if
/// nothing is left for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(u64);

impl Place {
    /// Takes the next word.
    #[inline]
    pub(crate) fn add(&mut self, word: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(ODD);
    }

    /// Of 32 bytes, all at once.
    #[inline]
    pub(crate) fn of_head(head: &[u8; 32]) -> Place {
        const ODD: [u64; 4] = [
            0x9e37_79b9_7f4a_7c15,
            0xbf58_476d_1ce4_e5b9,
            0x94d0_49bb_1331_11eb,
            0xd6e8_feb8_6659_fd93,
        ];
        let (words, _) = head.as_chunks::<8>();
        let parts = words.iter().zip(ODD);
        Place(parts.fold(0, |sum, (word, odd)| {
            sum ^ u64::from_le_bytes(*word).wrapping_mul(odd)
        }))
    }

    /// One of so many slots, as a power of two. The highest bits: each bit of the words is in them.
    #[inline]
    pub(crate) fn slot(self, log: u32) -> usize {
        (self.0 >> (u64::BITS - log)) as usize
    }

    fn of(bytes: &[u8]) -> Place {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let mut place = Place::default();
        for word in words.iter().chain([&last]) {
            place.add(u64::from_le_bytes(*word));
        }
        place
    }
}

/// Reads a string by a function that needs no copy of it.
pub(crate) fn by<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct Reads<T, F> {
        expected: &'static str,
        read: F,
        made: PhantomData<T>,
    }

    impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Reads<T, F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.read)(text).ok_or_else(|| E::custom(format_args!("not {}", self.expected)))
        }
    }

    deserializer.deserialize_str(Reads {
        expected,
        read,
        made: PhantomData,
    })
}

/// For `deserialize_with`: a string that is shared.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    by(deserializer, "a string", |text| Some(shared(text)))
}

/// The same of a field that may be absent.
pub(crate) fn some_text<'de, D>(deserializer: D) -> Result<Option<Arc<str>>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Text(Arc<str>);

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            text(deserializer).map(Text)
        }
    }

    Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
}

/// The string that was made of the same text before, or a new one.
fn shared(text: &str) -> Arc<str> {
    Seen::with(|seen| seen.shared(text, Place::of(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Two {
        #[serde(deserialize_with = "text")]
        one: Arc<str>,
        #[serde(deserialize_with = "some_text", default)]
        other: Option<Arc<str>>,
    }

    fn two(json: &str) -> serde_json::Result<Two> {
        serde_json::from_str(json)
    }

    #[test]
    fn the_same_text_is_one_string() {
        let first = two(r#"{"one":"worker","other":"wor\u006ber"}"#).unwrap();
        let other = first.other.unwrap();
        assert!(Arc::ptr_eq(&first.one, &other));
        assert_eq!(&*other, "worker");
        assert!(two(r#"{"one":"a","other":null}"#).unwrap().other.is_none());
        assert!(two(r#"{"one":"a"}"#).unwrap().other.is_none());
        assert!(two(r#"{"one":7}"#).is_err());
    }

    #[test]
    fn any_text_is_read() {
        for length in 0..300 {
            let text: String = ('a'..='z').cycle().take(length).collect();
            assert_eq!(&*shared(&text), text);
            assert_eq!(&*shared(&text), text);
        }
    }
}
