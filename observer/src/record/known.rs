//! Objects that were read lately, by their text.
//!
//! The same tasks and locks stand in line after line, and observer always writes the same one in the same way. A text
//! that begins with the whole of an object's text is that object: to compare the two takes less time than to read it.

use std::sync::Arc;

use crate::{
    de::Place,
    event::{LockRef, TaskRef, Waker},
};

/// Places of each sort of object, as a power of two; one drives out another that has the same place.
const SLOTS_LOG: u32 = 11;
/// Longer texts are not kept. A task in a pod, with all names, takes some 400 bytes.
const LONGEST: usize = 512;

/// The objects of each sort.
#[derive(Default)]
pub(super) struct Known {
    pub(super) tasks: Objects<TaskRef>,
    pub(super) locks: Objects<LockRef>,
    pub(super) wakers: Objects<Waker>,
}

/// Objects of one sort.
pub(super) struct Objects<T>(Vec<Slot<T>>);

struct Slot<T> {
    /// Of the text that was here last.
    place: Place,
    object: Option<(Box<str>, Arc<T>)>,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Objects(Vec::new())
    }
}

impl<T> Objects<T> {
    /// Where an object has its place that a text begins with, by its head: the number or name is within. None if the
    /// text is short.
    #[inline]
    pub(super) fn place(text: &str) -> Option<Place> {
        text.as_bytes().first_chunk().map(Place::of_head)
    }

    /// The object that a text begins with, if it is known, and the rest of the text.
    #[inline]
    pub(super) fn find<'a>(&self, text: &'a str, place: Place) -> Option<(&Arc<T>, &'a str)> {
        let slot = self.0.get(place.slot(SLOTS_LOG))?;
        let (known, object) = slot.object.as_ref()?;
        Some((object, text.strip_prefix(&**known)?))
    }

    /// Remembers what was read from exactly this text, if it has been read before.
    pub(super) fn note(&mut self, text: &str, place: Place, object: &Arc<T>) {
        if self.0.is_empty() {
            let none = || Slot {
                place: Place::default(),
                object: None,
            };
            self.0.resize_with(1 << SLOTS_LOG, none);
        }
        let Some(slot) = self.0.get_mut(place.slot(SLOTS_LOG)) else {
            return;
        };
        // What comes once only would have to be copied for nothing.
        if slot.place == place && text.len() <= LONGEST {
            slot.object = Some((text.into(), Arc::clone(object)));
        }
        slot.place = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"pid":1,"tid":2,"comm":"a","process":"b"}"#;

    #[test]
    fn what_was_read_twice_is_known() {
        let mut objects = Objects::default();
        let task = Arc::new(TaskRef::new(1, 2));
        let place = Objects::<TaskRef>::place(TEXT).unwrap();
        let long = format!("{TEXT},\"kind\":");
        for known in [false, false, true] {
            let found = objects.find(&long, place);
            assert_eq!(found, known.then_some((&task, ",\"kind\":")));
            objects.note(TEXT, place, &task);
        }
        // The same beginning, and another end.
        for other in [TEXT.replace("\"b\"", "\"c\""), TEXT.replace('}', ",")] {
            assert_eq!(Objects::<TaskRef>::place(&other), Some(place));
            assert_eq!(objects.find(&other, place), None);
        }
        assert_eq!(Objects::<TaskRef>::place("{\"pid\":1,\"tid\":2}"), None);
    }

    #[test]
    fn long_texts_are_not_kept() {
        let mut objects = Objects::default();
        let text = TEXT.replace('b', &"b".repeat(LONGEST));
        let place = Objects::<TaskRef>::place(&text).unwrap();
        for _ in 0..3 {
            objects.note(&text, place, &TaskRef::new(1, 2).into());
            assert_eq!(objects.find(&text, place), None);
        }
    }
}
