//! What `fuzz/` gives bytes to.

use std::{fmt::Debug, io::Cursor, sync::Arc};

use serde::de::DeserializeOwned;

use super::{
    Reader, marks,
    quick::{self, Quick},
};
use crate::{
    digest,
    event::{Blocked, LockTotals, TaskTotals, Wait},
    model::Model,
    report::{
        diff::{Diff, Moment},
        document,
        gather::Gathered,
        html,
        incident::Incident,
        scene::Scene,
    },
    rules::Rules,
};

/// The first byte says what the others are: lines, a compressed file, lines that are compressed here, or a snapshot of
/// the model and a line that follows it.
pub fn recording(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    match form % 4 {
        0 => {
            objects(rest);
            read(rest, false, Model::default());
        }
        1 => {
            if let Ok(found) = marks::find(Cursor::new(rest)) {
                for mark in found.into_iter().take(4) {
                    let _ = mark.load(Cursor::new(rest));
                }
            }
            read(rest, true, Model::default());
        }
        2 => {
            if let Ok(frame) = zstd::bulk::compress(rest, 1) {
                read(&frame, true, Model::default());
            }
        }
        _ => {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let (model, lines) = rest.split_at(end);
            if let Some(model) = Model::load(model) {
                read(lines, false, model);
            }
        }
    }
}

/// What the quick way reads of an object, the general way reads as the same.
fn is_read_as_the_same<T: Quick + DeserializeOwned + PartialEq + Debug>(object: &[u8]) {
    if let Some(quick) = quick::read::<T>(object) {
        assert_eq!(Some(quick), serde_json::from_slice(object).ok());
    }
}

/// Lines without their types.
fn objects(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        let from = memchr::memchr(b',', line).map_or(0, |comma| comma + 1);
        let object = [b"{", &line[from..]].concat();
        is_read_as_the_same::<Arc<Wait>>(&object);
        is_read_as_the_same::<Box<Blocked>>(&object);
        is_read_as_the_same::<Box<LockTotals>>(&object);
        is_read_as_the_same::<Arc<TaskTotals>>(&object);
    }
}

/// Reads to the end, and makes of it what commands make.
fn read(bytes: &[u8], compressed: bool, mut model: Model) {
    let Ok(mut reader) = Reader::new(Cursor::new(bytes), compressed) else {
        return;
    };
    let (mut rules, mut gathered) = (Rules::default(), Gathered::default());
    while let Ok(Some(event)) = reader.next_event() {
        gathered.see(&event);
        digest::absorb(&mut model, &mut rules, event);
    }
    let unread = reader.unread().notes();
    let incident = Incident::new(&model, gathered, unread, Scene::default());
    let mut out = Vec::new();
    let _ = document::text(&mut out, &incident.document());
    let _ = html::write(&mut out, &incident);
    let _ = incident.json(&mut out);
    let moment = || Moment::of_model("a".to_owned(), &model, Vec::new());
    let _ = document::markdown(&mut out, &Diff::of(moment(), moment()).document());
}
