//! From when on something is worth a finding, and how users say so.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::time::{human, parse_duration};

/// How a threshold is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `"1.5s"`.
    Duration,
    /// A whole number.
    Count,
    /// Any number.
    Number,
}

/// What is known of a threshold beside its value.
struct Setting {
    key: &'static str,
    form: Form,
    #[cfg(test)]
    about: &'static [&'static str],
    #[cfg(test)]
    rules: &'static [&'static str],
}

macro_rules! thresholds {
    ($(
        $(#[doc = $about:literal])+
        $field:ident: $type:ty = $default:literal, $key:literal is $form:ident of $($rule:literal)+;
    )*) => {
        /// From when on something is worth a finding.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Thresholds {
            $($(#[doc = $about])+ pub $field: $type,)*
        }

        impl Default for Thresholds {
            fn default() -> Self {
                Thresholds { $($field: $default,)* }
            }
        }

        const SETTINGS: &[Setting] = &[
            $(Setting {
                key: $key,
                form: Form::$form,
                #[cfg(test)]
                about: &[$($about),+],
                #[cfg(test)]
                rules: &[$($rule),+],
            },)*
        ];

        impl Thresholds {
            fn get(&self, key: &str) -> Option<f64> {
                match key {
                    $($key => Some(self.$field as f64),)*
                    _ => None,
                }
            }

            fn set(&mut self, key: &str, value: f64) {
                match key {
                    $($key => self.$field = value as $type,)*
                    _ => {}
                }
            }
        }
    };
}

thresholds! {
    /// Somebody waits for this long for a lock that is held.
    long_hold_ns: u64 = 1_000_000_000, "long_hold" is Duration of "long_hold" "holder_not_running";
    /// Tasks that wait for a lock on average.
    convoy_waiting: f64 = 2.0, "convoy_waiting" is Number of "lock_convoy";
    /// Waits for it a second.
    convoy_waits_per_s: f64 = 100.0, "convoy_waits_per_s" is Number of "lock_convoy";
    /// A writer waits for this long while readers come and go.
    starvation_ns: u64 = 1_000_000_000, "starvation" is Duration of "writer_starvation";
    /// A task is in one uninterruptible wait for this long.
    stuck_ns: u64 = 10_000_000_000, "stuck" is Duration of "thread_stuck";
    /// Tasks in uninterruptible waits at the same time.
    pileup: usize = 5, "pile_up" is Count of "d_state_pileup";
    /// Tasks that wait for each CPU on average.
    runqueue_waiting: f64 = 2.0, "run_queue_waiting" is Number of "runqueue_latency";
    /// Blocked threads of one group that there are more after samples that all grow.
    leak_threads: usize = 20, "leak_threads" is Count of "thread_leak";
    /// Time between these samples.
    leak_sample_ns: u64 = 5_000_000_000, "leak_sample" is Duration of "thread_leak";
    /// Blocked goroutines of one origin that there are more after samples that all grow.
    leak_goroutines: u64 = 20, "leak_goroutines" is Count of "goroutine_leak";
    /// Time between these samples, at least.
    goroutine_sample_ns: u64 = 2_000_000_000, "goroutine_sample" is Duration of "goroutine_leak";
    /// Goroutines of a process.
    goroutines: u64 = 5_000, "goroutines" is Count of "goroutine_count";
    /// For how long there are more.
    goroutines_ns: u64 = 30_000_000_000, "goroutines_for" is Duration of "goroutine_count";
    /// Goroutines that wait for one lock or channel.
    blocked_goroutines: u64 = 50, "blocked_goroutines" is Count of "blocked_goroutines";
    /// For how long, on average.
    blocked_mean_ns: u64 = 10_000_000, "blocked_mean" is Duration of "blocked_goroutines";
    /// Threads that wait for Python's interpreter lock on average.
    gil_waiting: f64 = 0.9, "gil_waiting" is Number of "gil_convoy";
    /// Waits for it a second.
    gil_waits_per_s: f64 = 20.0, "gil_waits_per_s" is Number of "gil_convoy";
    /// A worker of an asynchronous runtime is blocked in a task for this long.
    async_blocked_ns: u64 = 200_000_000, "async_blocked" is Duration of "blocked_async_worker";
}

/// The greatest number that is exact as a float: far above anything that makes sense here.
const MOST: f64 = 9_007_199_254_740_992.0;

impl Thresholds {
    /// Reads a file in TOML; what it does not name keeps its value.
    ///
    /// # Errors
    /// Says what is not understood.
    pub fn parse(text: &str) -> Result<Thresholds> {
        let table: toml::Table =
            toml::from_str(text).context("this is no TOML, see docs/rules.md")?;
        let mut thresholds = Thresholds::default();
        for (key, value) in &table {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
                bail!(
                    "there is no threshold `{key}`; there are {}",
                    known.join(", ")
                );
            };
            thresholds.set(key, read(setting, value)?);
        }
        Ok(thresholds)
    }

    /// Those that are not as they are by default: what a recording keeps, so that a replay has them.
    pub fn changed(&self) -> BTreeMap<String, f64> {
        let default = Thresholds::default();
        SETTINGS
            .iter()
            .filter(|setting| self.get(setting.key) != default.get(setting.key))
            .filter_map(|setting| Some((setting.key.to_owned(), self.get(setting.key)?)))
            .collect()
    }

    /// The reverse of [`Thresholds::changed`]. A recording may say anything: what makes no sense is left out.
    pub fn of_changed(changed: &BTreeMap<String, f64>) -> Thresholds {
        let mut thresholds = Thresholds::default();
        for (key, value) in changed {
            if (0.0..=MOST).contains(value) {
                thresholds.set(key, *value);
            }
        }
        thresholds
    }

    /// The table in docs/rules.md.
    #[cfg(test)]
    pub(super) fn table() -> String {
        let mut table =
            "| threshold | default | is | of the rules |\n|---|---|---|---|\n".to_owned();
        let default = Thresholds::default();
        for Setting {
            key,
            form,
            about,
            rules,
        } in SETTINGS
        {
            let value = default.get(key).unwrap_or(0.0);
            let value = match form {
                Form::Duration if value < 1e9 => format!("\"{}ms\"", value / 1e6),
                Form::Duration => format!("\"{}s\"", value / 1e9),
                Form::Count | Form::Number => value.to_string(),
            };
            let about = about.join(" ");
            let rules: Vec<String> = rules.iter().map(|rule| format!("`{rule}`")).collect();
            let rules = rules.join(", ");
            let row = format!("| `{key}` | `{value}` | {} | {rules} |\n", about.trim());
            table.push_str(&row);
        }
        table
    }

    /// The rules that are named.
    #[cfg(test)]
    pub(super) fn rules() -> impl Iterator<Item = &'static str> {
        SETTINGS
            .iter()
            .flat_map(|setting| setting.rules.iter().copied())
    }
}

fn read(setting: &Setting, value: &toml::Value) -> Result<f64> {
    let key = setting.key;
    let number = match (setting.form, value) {
        (Form::Duration, toml::Value::String(text)) => {
            let duration =
                parse_duration(text).map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
            duration.as_nanos() as f64
        }
        (Form::Duration, _) => bail!("{key} is a duration: write it like \"1.5s\""),
        (Form::Count | Form::Number, toml::Value::Integer(number)) => *number as f64,
        (Form::Count, _) => bail!("{key} is a whole number"),
        (Form::Number, toml::Value::Float(number)) => *number,
        (Form::Number, _) => bail!("{key} is a number"),
    };
    if !(0.0..=MOST).contains(&number) {
        bail!(
            "{key} is out of range: at least 0, and no more than {}",
            human(MOST as u64)
        );
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_what_it_names() {
        let text =
            "long_hold = \"250ms\"\nconvoy_waiting = 3\nrun_queue_waiting = 0.5\npile_up = 9\n";
        let thresholds = Thresholds::parse(text).unwrap();
        assert_eq!(thresholds.long_hold_ns, 250_000_000);
        assert_eq!(thresholds.pileup, 9);
        let expected = Thresholds {
            long_hold_ns: 250_000_000,
            convoy_waiting: 3.0,
            runqueue_waiting: 0.5,
            pileup: 9,
            ..Thresholds::default()
        };
        assert_eq!(thresholds, expected);
        assert_eq!(thresholds.changed().len(), 4);
        assert_eq!(Thresholds::of_changed(&thresholds.changed()), thresholds);
        assert_eq!(Thresholds::parse("").unwrap(), Thresholds::default());
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (text, why) in [
            ("long_hold = 5", "is a duration"),
            ("long_hold = \"soon\"", "is not a duration"),
            ("long_hold = \"99999999h\"", "out of range"),
            ("pile_up = 1.5", "a whole number"),
            ("pile_up = -1", "out of range"),
            ("convoy_waiting = nan", "out of range"),
            ("convoy_waiting = \"2\"", "is a number"),
            ("longhold = \"1s\"", "there are long_hold, "),
            ("long_hold", "no TOML"),
            ("[long_hold]\nx = 1", "is a duration"),
        ] {
            let error = format!("{:#}", Thresholds::parse(text).unwrap_err());
            assert!(error.contains(why), "{text}: {error}");
        }
        let strange = [("long_hold", -1.0), ("stuck", f64::NAN), ("new", 3.0)];
        let strange = strange.map(|(key, value)| (key.to_owned(), value)).into();
        assert_eq!(Thresholds::of_changed(&strange), Thresholds::default());
    }
}
