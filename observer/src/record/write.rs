//! Writes a recording: whole frames only, so that a file that could not be finished is a good one too.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{is_compressed, marks::Pace};
use crate::{event::Event, model::Model, report::json};

/// Events are collected up to this size or time and then written, as one frame.
pub(crate) const FRAME: usize = 1 << 20;
const FRAME_TIME: Duration = Duration::from_secs(1);
/// Frames of this length become smaller by it than by the levels up to 4, a fifteenth to a thirtieth, and in less time.
/// Snapshots of the model are written at the same, for the time.
pub(crate) const LEVEL: i32 = 1;

/// How much a recording keeps. It is kept in two files, and the older one is dropped when the newer one holds
/// half of what is to be kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Bytes of both files.
    pub size: Option<u64>,
    /// Time in both files: at least half of this is there, and at most all.
    pub age: Option<Duration>,
}

/// Writes a recording.
pub struct Writer {
    path: PathBuf,
    file: File,
    /// The same file, to write to: a test puts a full one in its place.
    pub(super) out: File,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    /// Lines that have not been written.
    lines: Vec<u8>,
    pending: u64,
    since: Instant,
    pub(super) began: Instant,
    /// Bytes of this file that are good.
    written: u64,
    /// Of earlier files.
    before: u64,
    events: u64,
    limits: Limits,
    pace: Pace,
}

impl Writer {
    /// Makes the file, for its owner only. An existing one is replaced only with `force`.
    ///
    /// # Errors
    /// When the file exists or cannot be made.
    pub fn create(path: &Path, force: bool, limits: Limits) -> Result<Writer> {
        check(path, force)?;
        let compressor = if is_compressed(path) {
            let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
            compressor.include_checksum(true)?;
            Some(compressor)
        } else {
            None
        };
        if force {
            refuse_live(path)?;
            remove(path)?;
            remove(&predecessor(path))?;
        }
        let now = Instant::now();
        let (file, out) = open(path)?;
        Ok(Writer {
            file,
            out,
            path: path.to_owned(),
            compressor,
            lines: Vec::with_capacity(FRAME + (FRAME >> 2)),
            pending: 0,
            since: now,
            began: now,
            written: 0,
            before: 0,
            events: 0,
            limits,
            pace: Pace::default(),
        })
    }

    /// Takes an event, and writes those before it when there are enough.
    ///
    /// # Errors
    /// When the file cannot be written. It then holds the whole frames before.
    pub fn write(&mut self, event: &Event) -> Result<()> {
        if self.lines.is_empty() {
            self.since = Instant::now();
        }
        json::line(&mut self.lines, event)?;
        self.pending += 1;
        if self.lines.len() >= FRAME {
            self.flush()?;
        }
        Ok(())
    }

    /// Puts a snapshot of the model into a compressed file now and then, so that a replay can begin there. The
    /// model: what the events up to now make.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn mark(&mut self, model: &Model) -> Result<()> {
        // What has not been compressed yet becomes ten to thirty times as short.
        let written = self.written + self.lines.len() as u64 / 16;
        if self.compressor.is_none() || !self.pace.is_due(model.now_ns(), written) {
            return Ok(());
        }
        self.flush()?;
        let Some(mark) = self.pace.make(model, self.written)? else {
            return Ok(());
        };
        match self.out.write_all(&mark) {
            Ok(()) => {
                self.written += mark.len() as u64;
                Ok(())
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Writes frames that were made before, in the form of this file.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub(crate) fn append(&mut self, frame: &[u8], events: u64) -> Result<()> {
        self.flush()?;
        match self.out.write_all(frame) {
            Ok(()) => {
                self.written += frame.len() as u64;
                self.events += events;
                Ok(())
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Makes sure that everything is on the disk.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file
            .sync_all()
            .with_context(|| format!("cannot write {} to the disk", self.path.display()))
    }

    /// Writes what has waited for a second.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn tick(&mut self) -> Result<()> {
        if !self.lines.is_empty() && self.since.elapsed() >= FRAME_TIME {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes everything.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = match &mut self.compressor {
            Some(compressor) => {
                let frame = compressor.compress(&self.lines)?;
                self.out.write_all(&frame).map(|()| frame.len())
            }
            None => self.out.write_all(&self.lines).map(|()| self.lines.len()),
        };
        match written {
            Ok(bytes) => {
                self.written += bytes as u64;
                self.events += self.pending;
                self.pending = 0;
                self.lines.clear();
                Ok(())
            }
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// Keeps what is whole.
    fn give_up(&mut self, error: io::Error) -> anyhow::Error {
        // A file that cannot be shortened either is cut, which a reader copes with.
        let _ = self.file.set_len(self.written);
        let lost = self.pending;
        self.lines.clear();
        self.pending = 0;
        anyhow::Error::new(error).context(format!(
            "cannot write to {}: the recording ends here and is good up to here, {} events in {} bytes; {lost} are lost",
            self.path.display(),
            self.events,
            self.written,
        ))
    }

    /// Is the file so large or old that a new one is due?
    pub fn is_full(&self) -> bool {
        let large = self
            .limits
            .size
            .is_some_and(|most| self.written + self.lines.len() as u64 / 16 >= most / 2);
        large
            || self
                .limits
                .age
                .is_some_and(|most| self.began.elapsed() >= most / 2)
    }

    /// Begins a new file; the one so far takes the place of the predecessor. `first`: what a reader has to
    /// know of before.
    ///
    /// # Errors
    /// As [`Writer::write`], and when the file cannot be renamed or made.
    pub fn rotate(&mut self, first: &[Event]) -> Result<()> {
        self.flush()?;
        let old = predecessor(&self.path);
        fs::rename(&self.path, &old).with_context(|| {
            format!("cannot rename {} to {}", self.path.display(), old.display())
        })?;
        (self.file, self.out) = open(&self.path)?;
        self.before += self.written;
        self.written = 0;
        self.pace = Pace::default();
        self.began = Instant::now();
        let events = self.events;
        for event in first {
            self.write(event)?;
        }
        self.flush()?;
        // They are no news.
        self.events = events;
        Ok(())
    }

    /// Events that were taken.
    pub fn events(&self) -> u64 {
        self.events + self.pending
    }

    /// Bytes that were written, dropped ones included.
    pub fn bytes(&self) -> u64 {
        self.before + self.written
    }
}

/// May the file be made?
///
/// # Errors
/// When it exists and is not to be replaced.
pub(crate) fn check(path: &Path, force: bool) -> Result<()> {
    let exists = path.symlink_metadata().is_ok();
    if exists && !force {
        bail!(
            "{} exists and is not overwritten: name another file, or say --force",
            path.display()
        );
    }
    if exists && !path.is_file() {
        bail!("{} is no file: name another one", path.display());
    }
    Ok(())
}

/// The file that holds what was before: `a.1.jsonl.zst` of `a.jsonl.zst`.
pub(crate) fn predecessor(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, rest) = match name.find(".jsonl") {
        Some(at) => name.split_at(at),
        None => (&*name, ""),
    };
    path.with_file_name(format!("{stem}.1{rest}"))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A recording that is being made holds a lock on its file: it is not taken from under its maker.
fn refuse_live(path: &Path) -> Result<()> {
    let Ok(file) = File::open(path) else {
        // There is none, or removing it says why not.
        return Ok(());
    };
    if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
        bail!(
            "another observer is recording to {}: end it first, or name another file",
            path.display()
        );
    }
    Ok(())
}

fn open(path: &Path) -> Result<(File, File)> {
    let file = make(path)?;
    // A file system without locks only loses the warning to others.
    let _ = file.try_lock();
    let out = file
        .try_clone()
        .with_context(|| format!("cannot write to {}", path.display()))?;
    Ok((file, out))
}

/// A new file, for its owner only: names of tasks and locks may tell more than others should know.
pub(crate) fn make(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))
}
