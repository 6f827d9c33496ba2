//! Wall-clock times and durations: reading, writing, converting from the kernel's clock.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch; RFC 3339 in UTC with nanoseconds in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub u64);

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
            rest / 3_600,
            rest / 60 % 60,
            rest % 60
        )
    }
}

impl Serialize for WallTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        u64::try_from(time.as_nanosecond())
            .map(WallTime)
            .map_err(|_| serde::de::Error::custom("a time before 1970 or after 2554"))
    }
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
