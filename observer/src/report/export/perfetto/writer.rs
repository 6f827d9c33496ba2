//! Packets on their way out: strings are written once and have numbers from then on.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use prost::Message;

use super::proto::{
    CLEARED, Clock, ClockSnapshot, DebugAnnotation, Interned, InternedData, MONOTONIC, NEEDED,
    REALTIME, TracePacket, TrackDescriptor, TrackEvent,
};
use crate::{text::printable, time::WallTime};

/// The only sequence of packets. Zero stands for none.
const SEQUENCE: u32 = 1;
/// Key of a packet within the trace: `repeated TracePacket packet = 1`.
const PACKET: u8 = 1 << 3 | 2;
/// Strings of one sort that have numbers at the same time. Then numbering begins anew, so that neither this
/// program nor the reader keeps more.
const MAX_STRINGS: usize = 1 << 17;
/// Bytes of one string; names are far shorter, evidence is a sentence.
const MAX_TEXT: usize = 1_000;

/// Strings of one sort.
#[derive(Default)]
struct Table {
    known: HashMap<Box<str>, u64>,
    new: Vec<Interned>,
}

impl Table {
    fn of(&mut self, text: &str) -> u64 {
        if let Some(&iid) = self.known.get(text) {
            return iid;
        }
        // Zero stands for none.
        let iid = self.known.len() as u64 + 1;
        self.known.insert(text.into(), iid);
        self.new.push(Interned {
            iid,
            text: shown(text),
        });
        iid
    }
}

/// Control characters replaced, and of bounded length.
pub(super) fn shown(text: &str) -> String {
    let text = printable(text);
    let end = text.floor_char_boundary(MAX_TEXT);
    text[..end].to_owned()
}

/// Writes packets.
pub(super) struct Packets<W> {
    out: W,
    categories: Table,
    names: Table,
    keys: Table,
    values: Table,
    /// What has a number is not known to the reader.
    fresh: bool,
    bytes: Vec<u8>,
}

impl<W: Write> Packets<W> {
    pub(super) fn new(out: W) -> Packets<W> {
        Packets {
            out,
            categories: Table::default(),
            names: Table::default(),
            keys: Table::default(),
            values: Table::default(),
            fresh: true,
            bytes: Vec::new(),
        }
    }

    /// The clock of the timeline, and what the wall clock says.
    pub(super) fn clocks(&mut self, mono_ns: u64, time: WallTime) -> io::Result<()> {
        let clock = |clock_id, timestamp| Clock {
            clock_id,
            timestamp,
        };
        self.write(&TracePacket {
            clock_snapshot: Some(ClockSnapshot {
                clocks: vec![clock(MONOTONIC, mono_ns), clock(REALTIME, time.0)],
                primary_trace_clock: MONOTONIC,
            }),
            trusted_packet_sequence_id: SEQUENCE,
            ..TracePacket::default()
        })
    }

    pub(super) fn track(&mut self, track: TrackDescriptor) -> io::Result<()> {
        self.write(&TracePacket {
            trusted_packet_sequence_id: SEQUENCE,
            track_descriptor: Some(track),
            ..TracePacket::default()
        })
    }

    pub(super) fn category(&mut self, text: &str) -> Vec<u64> {
        vec![self.categories.of(text)]
    }

    pub(super) fn name(&mut self, text: &str) -> u64 {
        self.names.of(text)
    }

    /// An annotation without a value yet.
    fn key(&mut self, key: &str) -> DebugAnnotation {
        DebugAnnotation {
            name_iid: Some(self.keys.of(key)),
            ..DebugAnnotation::default()
        }
    }

    pub(super) fn text(&mut self, key: &str, value: &str) -> DebugAnnotation {
        DebugAnnotation {
            string_value_iid: Some(self.values.of(value)),
            ..self.key(key)
        }
    }

    pub(super) fn number(&mut self, key: &str, value: u64) -> DebugAnnotation {
        DebugAnnotation {
            uint_value: Some(value),
            ..self.key(key)
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> DebugAnnotation {
        DebugAnnotation {
            bool_value: Some(true),
            ..self.key(key)
        }
    }

    pub(super) fn list<'a>(
        &mut self,
        key: &str,
        values: impl Iterator<Item = std::borrow::Cow<'a, str>>,
    ) -> DebugAnnotation {
        let array_values = values
            .map(|value| DebugAnnotation {
                string_value_iid: Some(self.values.of(&value)),
                ..DebugAnnotation::default()
            })
            .collect();
        DebugAnnotation {
            array_values,
            ..self.key(key)
        }
    }

    /// Writes an event, and with it the strings that it is the first to use.
    pub(super) fn event(&mut self, at_ns: u64, event: TrackEvent) -> io::Result<()> {
        let data = InternedData {
            event_categories: std::mem::take(&mut self.categories.new),
            event_names: std::mem::take(&mut self.names.new),
            debug_annotation_names: std::mem::take(&mut self.keys.new),
            debug_annotation_string_values: std::mem::take(&mut self.values.new),
        };
        let is_new = data != InternedData::default();
        let first = std::mem::take(&mut self.fresh);
        self.write(&TracePacket {
            timestamp: Some(at_ns),
            timestamp_clock_id: Some(MONOTONIC),
            trusted_packet_sequence_id: SEQUENCE,
            sequence_flags: NEEDED | if first { CLEARED } else { 0 },
            interned_data: is_new.then_some(data),
            track_event: Some(event),
            ..TracePacket::default()
        })
    }

    /// Begins to number anew if there are many numbers. To be asked between two groups of events: each of a
    /// group is put together before it is written.
    pub(super) fn limit(&mut self) {
        let tables = [&self.categories, &self.names, &self.keys, &self.values];
        if tables.iter().any(|table| table.known.len() > MAX_STRINGS) {
            self.categories = Table::default();
            self.names = Table::default();
            self.keys = Table::default();
            self.values = Table::default();
            self.fresh = true;
        }
    }

    fn write(&mut self, packet: &TracePacket) -> io::Result<()> {
        self.bytes.clear();
        packet
            .encode_length_delimited(&mut self.bytes)
            .map_err(io::Error::other)?;
        self.out.write_all(&[PACKET])?;
        self.out.write_all(&self.bytes)
    }
}
