//! Wall-clock times and durations: reading, writing, converting from the kernel's clock.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digits;

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch; RFC 3339 in UTC with nanoseconds in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// Bytes of a time as it is written: the years up to 2554 that there are have four digits.
const WRITTEN: usize = 30;

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.written()).map_err(|_| fmt::Error)?)
    }
}

impl WallTime {
    /// The text, ASCII.
    pub(crate) fn written(self) -> [u8; WRITTEN] {
        // Civil date from days, by Howard Hinnant's `civil_from_days`; written out because a general
        // formatter costs more than all the rest of an event's line.
        let (secs, nanos) = (self.0 / SECOND, self.0 % SECOND);
        let (days, rest) = (secs / 86_400, secs % 86_400);
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        for (at, length, number) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, rest / 3_600),
            (14, 2, rest / 60 % 60),
            (17, 2, rest % 60),
            (20, 9, nanos),
        ] {
            let mut left = number;
            for digit in text[at..at + length].iter_mut().rev() {
                *digit = b'0' + (left % 10) as u8;
                left /= 10;
            }
        }
        text
    }
}

impl Serialize for WallTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a time by RFC 3339 between 1970 and 2554";
        crate::de::by(deserializer, expected, |text| {
            WallTime::written_here(text.as_bytes()).or_else(|| {
                let time: jiff::Timestamp = text.parse().ok()?;
                u64::try_from(time.as_nanosecond()).ok().map(WallTime)
            })
        })
    }
}

impl WallTime {
    /// A time as it is written here, `2026-01-01T00:00:00.000000000Z`; none for other forms, leap days and times that
    /// are none, which a general reader looks at: it costs more than the rest of an event's line.
    fn written_here(text: &[u8]) -> Option<WallTime> {
        Seconds::new().read(text.try_into().ok()?)
    }
}

/// Bytes of a time up to its second, `2026-01-01T00:00:00`.
const TO_SECOND: usize = 19;

/// Reads times as they are written here. Most are in the second of the one before.
pub(crate) struct Seconds {
    text: [u8; TO_SECOND],
    ns: u64,
}

impl Seconds {
    /// Before the first time: the epoch is as good as any.
    pub(crate) const fn new() -> Seconds {
        Seconds {
            text: *b"1970-01-01T00:00:00",
            ns: 0,
        }
    }

    /// As [`WallTime::written_here`].
    #[inline]
    pub(crate) fn read(&mut self, text: &[u8; 30]) -> Option<WallTime> {
        let (second, rest) = text.split_first_chunk::<TO_SECOND>()?;
        if *second != self.text {
            self.ns = second_written_here(second)?.checked_mul(SECOND)?;
            self.text = *second;
        }
        let (digits, nanos) = digits::number(digits::word(rest, 1));
        let last = rest[9].wrapping_sub(b'0');
        let is_time = rest[0] == b'.' && digits == 8 && last < 10 && rest[10] == b'Z';
        is_time.then(|| WallTime(self.ns + nanos * 10 + u64::from(last)))
    }
}

/// Seconds since the Unix epoch.
fn second_written_here(text: &[u8; TO_SECOND]) -> Option<u64> {
    const DAYS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let marks = [4, 7, 10, 13, 16].map(|at: usize| text[at]);
    if &marks != b"--T::" {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0u64, |sum, byte| {
            let digit = byte.wrapping_sub(b'0');
            (digit < 10).then(|| sum * 10 + u64::from(digit))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    let is_time = (1..=*DAYS.get(index)?).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !is_time || !(1970..2554).contains(&year) {
        return None;
    }
    // Leap days from year 1 to the end of a year.
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let this = u64::from(month > 2) * (leaps(year) - leaps(year - 1));
    let leap_days = leaps(year - 1) - leaps(1969) + this;
    let days = (year - 1970) * 365 + leap_days + BEFORE[index] + day - 1;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

impl JsonSchema for WallTime {
    fn schema_name() -> Cow<'static, str> {
        "WallTime".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "RFC 3339 in UTC with nanoseconds."
        })
    }
}

/// Reads a duration as users write it: a number and one of `ns`, `us`, `ms`, `s`, `m`, `h`; a bare
/// `0` needs no unit.
///
/// # Errors
/// Says what is not understood and gives examples.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is not a duration; write it like 10ms, 2s or 1.5m");
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(help)?;
    let (number, unit) = trimmed.split_at(split);
    let number: f64 = number.parse().map_err(|_| help())?;
    let seconds = match unit.trim() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(help()),
    };
    Duration::try_from_secs_f64(number * seconds)
        .map_err(|_| format!("`{text}` is too long a duration"))
}

/// A duration for people: three digits at most, and a unit.
pub fn human(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => scaled(ns, 1_000, "µs"),
        1_000_000..SECOND => scaled(ns, 1_000_000, "ms"),
        _ if ns < 60 * SECOND => scaled(ns, SECOND, "s"),
        _ => {
            let secs = ns / SECOND;
            let (hours, minutes, seconds) = (secs / 3_600, secs / 60 % 60, secs % 60);
            match hours {
                0 => format!("{minutes}m{seconds:02}s"),
                1..48 => format!("{hours}h{minutes:02}m"),
                _ => format!("{}d{:02}h", hours / 24, hours % 24),
            }
        }
    }
}

/// Three significant digits, cut and not rounded up: 999.9 µs must not read `1000µs`.
fn scaled(ns: u64, unit_ns: u64, unit: &str) -> String {
    let (whole, thousandths) = (ns / unit_ns, ns % unit_ns * 1_000 / unit_ns);
    match whole {
        0..10 => format!("{whole}.{:02}{unit}", thousandths / 10),
        10..100 => format!("{whole}.{}{unit}", thousandths / 100),
        _ => format!("{whole}{unit}"),
    }
}

/// Turns the kernel's clock into wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Wall-clock time minus `CLOCK_MONOTONIC`.
    offset_ns: i64,
}

impl Clock {
    /// Takes the offset between the clocks now. It is taken again from time to time, so that a clock
    /// that was set shows.
    pub fn now() -> Self {
        let (before, wall, after) = (
            read(libc::CLOCK_MONOTONIC),
            read(libc::CLOCK_REALTIME),
            read(libc::CLOCK_MONOTONIC),
        );
        let mono = before + (after - before) / 2;
        Clock {
            offset_ns: wall as i64 - mono as i64,
        }
    }

    /// Wall-clock time of a `CLOCK_MONOTONIC` time.
    pub fn wall(&self, mono_ns: u64) -> WallTime {
        WallTime(mono_ns.saturating_add_signed(self.offset_ns))
    }
}

/// `CLOCK_MONOTONIC` now, in nanoseconds: the clock of the kernel programs.
pub fn mono_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec that the call fills; both clocks exist on every Linux, so the
    // call cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_rfc3339_both_ways() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_735_689_599_999_999_999, "2024-12-31T23:59:59.999999999Z"),
            (1_795_251_496_000_000_000, "2026-11-21T08:58:16.000000000Z"),
        ] {
            assert_eq!(WallTime(ns).to_string(), text);
            let read: WallTime = serde_json::from_str(&format!("{text:?}")).unwrap();
            assert_eq!(read, WallTime(ns));
        }
    }

    #[test]
    fn every_day_is_read_as_by_the_general_reader() {
        let mut seconds = Seconds::new();
        for day in 0..213_000u64 {
            let time = WallTime(day * 86_400 * SECOND + day * 402_653_189 % (86_400 * SECOND));
            let text = time.to_string();
            match seconds.read(text.as_bytes().try_into().unwrap()) {
                Some(read) => assert_eq!(read, time, "{text}"),
                None => assert!(text.contains("-02-29T"), "{text}"),
            }
            // Another one in the same second, if there has been one.
            let other = text.replace(&text[19..], ".999999999Z");
            let read = seconds.read(other.as_bytes().try_into().unwrap());
            assert!(
                read.is_none_or(|read| read.to_string() == other),
                "{read:?}"
            );
            if day % 97 == 0 {
                let general: jiff::Timestamp = text.parse().unwrap();
                assert_eq!(general.as_nanosecond(), i128::from(time.0), "{text}");
            }
        }
        for text in [
            "2026-02-30T00:00:00.000000000Z",
            "2026-13-01T00:00:00.000000000Z",
            "2026-00-01T00:00:00.000000000Z",
            "2026-01-00T00:00:00.000000000Z",
            "2026-01-01T24:00:00.000000000Z",
            "2026-01-01T00:00:00.00000000:Z",
            "2026-01-01T00:00:00.0000000:0Z",
            "2026-01-01T00:00:00.000000000z0",
            "1969-12-31T23:59:59.000000000Z",
            "9999-12-31T23:59:59.000000000Z",
            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0.123456789Z",
        ] {
            assert_eq!(WallTime::written_here(text.as_bytes()), None, "{text}");
            let read = serde_json::from_str::<WallTime>(&format!("{text:?}"));
            assert!(read.is_err(), "{text}: {read:?}");
        }
        let other = serde_json::from_str::<WallTime>("\"2026-11-21T10:58:16+02:00\"").unwrap();
        assert_eq!(other, WallTime(1_795_251_496_000_000_000));
    }

    #[test]
    fn durations_are_read() {
        for (text, ms) in [("10ms", 10), ("2s", 2_000), ("1.5m", 90_000), ("0", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
        for text in ["", "5", "ms", "1.2.3s", "-1s", "4 parsecs", "1e400h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_written() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_500, "1.50µs"),
            (2_300_000, "2.30ms"),
            (999_999, "999µs"),
            (12_345_678, "12.3ms"),
            (3_100_000_000, "3.10s"),
            (61_000_000_000, "1m01s"),
            (3_600_000_000_000, "1h00m"),
            (200_000_000_000_000, "2d07h"),
        ] {
            assert_eq!(human(ns), text);
        }
    }
}
