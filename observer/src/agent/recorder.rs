//! The flight recorder: the last minutes of events, compressed, in bounded memory.
//!
//! Events are collected into frames of a recording's own form, so that writing an incident is copying.

use std::{collections::VecDeque, io::Write, mem, sync::Arc, time::Duration};

use anyhow::Result;

use crate::{
    event::Event,
    record::{FRAME, LEVEL},
    report::json,
};

/// Events of this long at most in one frame, so that old ones go in small steps.
const FRAME_NS: u64 = 5_000_000_000;

/// Compressed events.
#[derive(Clone, Debug)]
pub struct Frame {
    /// As they are written to a recording.
    pub bytes: Arc<[u8]>,
    /// How many.
    pub events: u64,
    from_ns: u64,
    to_ns: u64,
}

/// The ring.
pub struct Recorder {
    frames: VecDeque<Frame>,
    bytes: u64,
    limit: u64,
    keep_ns: u64,
    lines: Vec<u8>,
    events: u64,
    from_ns: Option<u64>,
    to_ns: u64,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Recorder {
    /// An empty one.
    ///
    /// # Errors
    /// There is no memory for the compression.
    pub fn new(keep: Duration, limit: u64) -> Result<Recorder> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Recorder {
            frames: VecDeque::new(),
            bytes: 0,
            limit,
            keep_ns: u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX),
            lines: Vec::new(),
            events: 0,
            from_ns: None,
            to_ns: 0,
            compressor,
        })
    }

    /// Changes what is kept.
    pub fn set_limits(&mut self, keep: Duration, limit: u64) {
        self.keep_ns = u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX);
        self.limit = limit;
        self.shrink();
    }

    /// Bytes kept at most.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes in use: compressed frames, and the lines of the frame to come.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.lines.len() as u64
    }

    /// When the oldest event kept was, `CLOCK_MONOTONIC` nanoseconds.
    pub fn since_ns(&self) -> Option<u64> {
        self.frames
            .front()
            .map(|frame| frame.from_ns)
            .or(self.from_ns)
    }

    /// Takes an event.
    ///
    /// # Errors
    /// The compression fails.
    pub fn push(&mut self, event: &Event) -> Result<()> {
        let at_ns = event.mono_ns();
        json::line(&mut self.lines, event)?;
        self.events += 1;
        let from_ns = *self.from_ns.get_or_insert(at_ns);
        self.to_ns = self.to_ns.max(at_ns);
        // The lines are not compressed yet and have to fit too.
        let most = FRAME.min(usize::try_from(self.limit / 2).unwrap_or(FRAME));
        if self.lines.len() >= most || at_ns.saturating_sub(from_ns) >= FRAME_NS {
            self.close()?;
        }
        Ok(())
    }

    /// Makes a frame of what was taken.
    fn close(&mut self) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let bytes: Arc<[u8]> = self.compressor.compress(&self.lines)?.into();
        self.lines.clear();
        // A burst is over some time: its room is given back.
        self.lines.shrink_to(FRAME / 8);
        self.bytes += bytes.len() as u64;
        self.frames.push_back(Frame {
            bytes,
            events: mem::take(&mut self.events),
            from_ns: self.from_ns.take().unwrap_or(self.to_ns),
            to_ns: self.to_ns,
        });
        self.shrink();
        Ok(())
    }

    fn shrink(&mut self) {
        let oldest = self.to_ns.saturating_sub(self.keep_ns);
        while let Some(first) = self.frames.front()
            && (self.bytes > self.limit || first.to_ns < oldest)
        {
            self.bytes -= first.bytes.len() as u64;
            self.frames.pop_front();
        }
    }

    /// All that is kept, oldest first.
    ///
    /// # Errors
    /// The compression fails.
    pub fn frames(&mut self) -> Result<Vec<Frame>> {
        self.close()?;
        Ok(self.frames.iter().cloned().collect())
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("frames", &self.frames.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Is there room on the disk for so many bytes?
pub(super) fn has_room(path: &std::path::Path, bytes: u64) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let mut stat = mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in a zero byte, and the kernel writes at most one `statvfs`, all of whose bytes are
    // valid when they are zero.
    let stat = unsafe {
        if libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return true;
        }
        stat.assume_init()
    };
    stat.f_bavail.saturating_mul(stat.f_frsize) >= bytes
}

/// Writes a small file for its owner only.
pub(super) fn write_file(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let mut file = crate::record::make(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Cost, CostReport},
        time::WallTime,
    };

    fn event(mono_ns: u64) -> Event {
        Event::from(CostReport {
            time: WallTime(mono_ns),
            mono_ns,
            cost: Cost {
                // Numbers that do not compress well.
                cpu_ns: mono_ns.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                rss_bytes: mono_ns.wrapping_mul(0xc2b2_ae3d_27d4_eb4f),
                bpf_run_ns: None,
            },
        })
    }

    fn lines(recorder: &mut Recorder) -> Vec<String> {
        let mut all = Vec::new();
        for frame in recorder.frames().unwrap() {
            let text = zstd::decode_all(&*frame.bytes).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.lines().count() as u64, frame.events);
            all.extend(text.lines().map(str::to_owned));
        }
        all
    }

    #[test]
    fn the_last_minutes_are_kept_in_order() {
        let mut recorder = Recorder::new(Duration::from_mins(1), 1 << 20).unwrap();
        for second in 0..600 {
            let mut event = event(second * 1_000_000_000);
            if let Event::Cost(report) = &mut event {
                // The wall clock is set forward and back all the time: nothing is measured by it.
                report.time = WallTime((second * 7_919 % 600) * 86_400_000_000_000);
            }
            recorder.push(&event).unwrap();
        }
        let since = recorder.since_ns().unwrap();
        assert!(
            (530_000_000_000..=540_000_000_000).contains(&since),
            "{since}"
        );
        let lines = lines(&mut recorder);
        assert_eq!(lines.len() as u64, 600 - since / 1_000_000_000);
        assert!(lines.last().unwrap().contains("599000000000"));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let limit = 1 << 20;
        let mut recorder = Recorder::new(Duration::from_hours(1), limit).unwrap();
        for number in 0..100_000 {
            recorder.push(&event(number)).unwrap();
            assert!(recorder.bytes() <= limit + limit / 2 + 4_096);
        }
        recorder.set_limits(Duration::from_hours(1), limit / 4);
        assert!(recorder.bytes() <= limit);
        assert!(
            recorder
                .frames()
                .unwrap()
                .iter()
                .map(|f| f.bytes.len() as u64)
                .sum::<u64>()
                <= limit / 4
        );
    }
}
