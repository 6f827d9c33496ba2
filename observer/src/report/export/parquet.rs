//! Waits as a table in Parquet, for DuckDB and data frames. docs/recording.md tells users what each column is.

use std::{io::Write, sync::Arc};

use anyhow::{Context, Result};
use parquet::{
    basic::{Compression, ZstdLevel},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::folded;
use crate::{
    event::{Event, Holder, Kind, LockRef, Outcome, Stack, TaskRef, Waker},
    model::Model,
    time::WallTime,
};

/// The columns. Numbers are signed: what sums them up in other tools stays a number of 64 bits.
pub const SCHEMA: &str = "message wait {
    required int64 time (TIMESTAMP(NANOS, true));
    required int64 mono_ns;
    required int32 pid;
    required int32 tid;
    optional binary process (UTF8);
    optional binary comm (UTF8);
    required binary kind (UTF8);
    required int64 dur_ns;
    optional int64 blocked_ns;
    optional int64 runqueue_ns;
    optional binary outcome (UTF8);
    required boolean in_progress;
    required boolean at_least;
    optional binary lock_id (UTF8);
    optional binary lock_class (UTF8);
    optional binary lock_name (UTF8);
    optional int32 holder_tid;
    optional binary holder_comm (UTF8);
    optional binary holder_confidence (UTF8);
    optional int32 waker_tid;
    optional binary waker_comm (UTF8);
    optional binary syscall (UTF8);
    optional binary probe (UTF8);
    optional binary stack (UTF8);
}";
/// Rows, and bytes of texts, that are kept before they are written as a group.
const ROWS: usize = 1 << 16;
const BYTES: usize = 32 << 20;
const LEVEL: i32 = 3;

/// The values of a column, and which are there.
struct Column<T> {
    values: Vec<T>,
    there: Vec<i16>,
}

impl<T> Column<T> {
    fn push(&mut self, value: Option<T>) {
        self.there.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    fn clear(&mut self) {
        self.values.clear();
        self.there.clear();
    }
}

enum Values {
    Long(Column<i64>),
    Int(Column<i32>),
    Flag(Column<bool>),
    Text(Column<ByteArray>),
}

/// One value of a row.
enum Cell<'a> {
    Long(Option<u64>),
    Int(Option<u32>),
    Flag(bool),
    Text(Option<&'a str>),
}

/// Writes the table.
pub struct Table<W> {
    out: W,
    /// Writes into memory, group by group.
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Values>,
    rows: usize,
    bytes: usize,
}

/// A wait that ended, or one in progress.
struct Row<'a> {
    time: WallTime,
    mono_ns: u64,
    task: &'a TaskRef,
    kind: Kind,
    dur_ns: u64,
    blocked_ns: Option<u64>,
    runqueue_ns: Option<u64>,
    outcome: Option<&'static str>,
    in_progress: bool,
    at_least: bool,
    lock: Option<&'a LockRef>,
    holder: Option<&'a Holder>,
    waker: Option<&'a Waker>,
    syscall: Option<&'a str>,
    probe: Option<&'a str>,
    stack: Option<&'a Stack>,
}

impl<W: Write> Table<W> {
    /// An empty table.
    ///
    /// # Errors
    /// Those of the format's library.
    pub fn new(out: W) -> Result<Table<W>> {
        use parquet::basic::Type;
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let columns = schema.get_fields().iter();
        let columns = columns.map(|field| match field.get_physical_type() {
            Type::INT64 => Values::Long(empty()),
            Type::INT32 => Values::Int(empty()),
            Type::BOOLEAN => Values::Flag(empty()),
            _ => Values::Text(empty()),
        });
        let columns = columns.collect();
        let properties = WriterProperties::builder()
            .set_created_by(format!("observer {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        Ok(Table {
            out,
            writer,
            columns,
            rows: 0,
            bytes: 0,
        })
    }

    /// Writes an event, if it is a wait.
    ///
    /// # Errors
    /// The writer's.
    pub fn see(&mut self, event: &Event) -> Result<()> {
        let Event::Wait(wait) = event else {
            return Ok(());
        };
        self.row(&Row {
            time: wait.time,
            mono_ns: wait.mono_ns,
            task: &wait.task,
            kind: wait.kind,
            dur_ns: wait.dur_ns,
            blocked_ns: wait.blocked_ns,
            runqueue_ns: wait.runqueue_ns,
            outcome: wait.outcome.map(Outcome::name),
            in_progress: false,
            at_least: wait.at_least,
            lock: wait.lock.as_deref(),
            holder: wait.holder.as_deref(),
            waker: wait.waker.as_deref(),
            syscall: wait.syscall.as_deref(),
            probe: wait.probe.as_deref(),
            stack: wait.stack.as_deref(),
        })
    }

    /// Writes the waits that are in progress at the end, and the end of the table.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(mut self, model: &Model) -> Result<()> {
        let mut all: Vec<_> = model.blocked().collect();
        all.sort_by_key(|wait| (wait.start_ns, wait.event.task.tid));
        for wait in all {
            let event = &wait.event;
            self.row(&Row {
                time: event.time,
                mono_ns: event.mono_ns,
                task: &event.task,
                kind: event.kind,
                dur_ns: wait.age_ns(model.now_ns()),
                blocked_ns: event.blocked_ns,
                runqueue_ns: event.runqueue_ns,
                outcome: None,
                in_progress: true,
                at_least: event.at_least,
                lock: event.lock.as_deref(),
                holder: event.holder.as_deref(),
                waker: None,
                syscall: event.syscall.as_deref(),
                probe: event.probe.as_deref(),
                stack: event.stack.as_ref(),
            })?;
        }
        self.group()?;
        let rest = self.writer.into_inner()?;
        Ok(self.out.write_all(&rest)?)
    }

    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        let stack = row.stack.map(folded::joined);
        let holder = row.holder;
        let cells = [
            Cell::Long(Some(row.time.0)),
            Cell::Long(Some(row.mono_ns)),
            Cell::Int(Some(row.task.pid)),
            Cell::Int(Some(row.task.tid)),
            Cell::Text(row.task.process.as_deref()),
            Cell::Text(row.task.comm.as_deref()),
            Cell::Text(Some(row.kind.name())),
            Cell::Long(Some(row.dur_ns)),
            Cell::Long(row.blocked_ns),
            Cell::Long(row.runqueue_ns),
            Cell::Text(row.outcome),
            Cell::Flag(row.in_progress),
            Cell::Flag(row.at_least),
            Cell::Text(row.lock.map(|lock| &*lock.id)),
            Cell::Text(row.lock.map(|lock| lock.class.name())),
            Cell::Text(row.lock.and_then(|lock| lock.name.as_deref())),
            Cell::Int(holder.and_then(|holder| holder.tid)),
            Cell::Text(holder.and_then(|holder| holder.comm.as_deref())),
            Cell::Text(holder.map(|holder| holder.confidence.name())),
            Cell::Int(row.waker.map(|waker| waker.tid)),
            Cell::Text(row.waker.and_then(|waker| waker.comm.as_deref())),
            Cell::Text(row.syscall),
            Cell::Text(row.probe),
            Cell::Text(stack.as_deref()),
        ];
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            self.bytes += column.push(cell);
        }
        self.rows += 1;
        if self.rows >= ROWS || self.bytes >= BYTES {
            self.group()?;
        }
        Ok(())
    }

    /// Writes the rows so far.
    fn group(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let mut writer = group.next_column()?.context("a column is missing")?;
            column.write(writer.untyped())?;
            writer.close()?;
            column.clear();
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        // The library knows by itself how much it has written: what is on its way can be taken from it.
        self.writer.flush()?;
        let done = std::mem::take(self.writer.inner_mut());
        Ok(self.out.write_all(&done)?)
    }
}

fn empty<T>() -> Column<T> {
    Column {
        values: Vec::new(),
        there: Vec::new(),
    }
}

impl Values {
    /// Returns how many bytes that takes, beside what every row does.
    fn push(&mut self, cell: Cell<'_>) -> usize {
        match (self, cell) {
            (Values::Long(column), Cell::Long(value)) => {
                column.push(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)));
            }
            (Values::Int(column), Cell::Int(value)) => {
                column.push(value.map(|value| i32::try_from(value).unwrap_or(i32::MAX)));
            }
            (Values::Flag(column), Cell::Flag(value)) => column.push(Some(value)),
            (Values::Text(column), Cell::Text(value)) => {
                column.push(value.map(ByteArray::from));
                return value.map_or(0, str::len);
            }
            // The row and the schema are written side by side, and a test writes one.
            _ => debug_assert!(false, "a row that is not of the schema"),
        }
        0
    }

    fn write(&self, writer: &mut ColumnWriter<'_>) -> Result<()> {
        match (self, writer) {
            (Values::Long(column), ColumnWriter::Int64ColumnWriter(writer)) => {
                writer.write_batch(&column.values, Some(&column.there), None)?;
            }
            (Values::Int(column), ColumnWriter::Int32ColumnWriter(writer)) => {
                writer.write_batch(&column.values, Some(&column.there), None)?;
            }
            (Values::Flag(column), ColumnWriter::BoolColumnWriter(writer)) => {
                writer.write_batch(&column.values, Some(&column.there), None)?;
            }
            (Values::Text(column), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                writer.write_batch(&column.values, Some(&column.there), None)?;
            }
            _ => anyhow::bail!("a column that is not of the schema"),
        }
        Ok(())
    }

    fn clear(&mut self) {
        match self {
            Values::Long(column) => column.clear(),
            Values::Int(column) => column.clear(),
            Values::Flag(column) => column.clear(),
            Values::Text(column) => column.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::rules::testing::{model, waiter};

    /// In several groups, and read again by the same library; others read it in `tests/live/foreign`.
    #[test]
    fn a_table_is_read_as_it_was_written() {
        let events: Vec<_> = (0..70_000)
            .map(|i| waiter(i).at(7).long(5).held_by(9, "running").blocked())
            .collect();
        let mut bytes = Vec::new();
        let table = Table::new(&mut bytes).unwrap();
        table.finish(&model(&events)).unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        let metadata = reader.metadata();
        assert_eq!(metadata.file_metadata().num_rows(), 70_000);
        assert_eq!(metadata.num_row_groups(), 2);
        let row = reader.get_row_iter(None).unwrap().next().unwrap().unwrap();
        let text = row.to_string();
        assert!(text.contains("dur_ns: 5000000000"), "{text}");
        assert!(text.contains("holder_tid: 9"), "{text}");
        assert!(text.contains("waker_tid: null"), "{text}");
    }

    #[test]
    fn an_empty_table_is_one() {
        let mut bytes = Vec::new();
        let table = Table::new(&mut bytes).unwrap();
        table.finish(&Model::default()).unwrap();
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
        assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    }

    #[test]
    fn every_column_is_documented() {
        let page = include_str!("../../../../docs/recording.md");
        let schema = parse_message_type(SCHEMA).unwrap();
        for field in schema.get_fields() {
            let name = format!("`{}`", field.name());
            assert!(page.contains(&name), "docs/recording.md has no {name}");
        }
    }
}
