//! docs/kernels.md: what each kernel gives, by `observer doctor` and by the checks that were made on it.

use std::fmt::Write as _;

use serde_json::Value;

use super::outcome::{Outcome, Verdict};
use super::verified;

const INTRODUCTION: &str = "\
# Kernels

observer runs on Linux 5.10 and later, on x86-64. Everything it needs from the kernel's insides it takes
from the running kernel's own types (BTF) when it starts; nothing is compiled on the host, and no headers
are needed. What a kernel lacks is named by `observer doctor`, and in the `meta` event of every run.

What follows from an older kernel:

- **Before 5.15** there is no helper that gives a sleeping task's registers. They are read from the top of
  its kernel stack instead, where x86-64 kept them until then. The answers are the same; it costs a little
  more.
- **Before 5.19** there are no tracepoints for contended locks inside the kernel: waits for them are seen
  as sleeps, without the lock.
- **Before 5.18** the tracepoint `sched_switch` does not pass the state of the task that leaves: it is read
  from the task itself.
- **Before 5.16 and 6.7** there are no system calls `futex_waitv` and `futex_wait`: nothing to observe.
- **Before 5.11** tables count against the limit of locked memory: observer needs `CAP_SYS_RESOURCE` too.

This page is made by `cargo xtask vm --kernel all`. It boots the distribution's own kernels in an emulator,
with a test program as their first process, and runs the same program on the machine it is started on. Do
not edit it: the words above are in `xtask/src/vm/table.rs`.
";

/// What `observer doctor` says of the privileges and the machine is not said of the kernel.
const NOT_OF_THE_KERNEL: [&str; 3] = ["CAP_", "kernel", "lockdown"];

/// The page.
pub(super) fn render(outcomes: &[(&str, Outcome)]) -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n## Features\n\n");
    head(&mut page, "", outcomes);
    let mut notes = Vec::new();
    for feature in features(outcomes) {
        let found: Vec<_> = outcomes
            .iter()
            .map(|(_, outcome)| find(&outcome.doctor, &feature))
            .collect();
        let cells = cells(&found, &mut notes);
        row(&mut page, &feature, &cells);
    }
    page.push('\n');
    for (number, note) in (1..).zip(&notes) {
        put(&mut page, format_args!("{number}. {note}\n"));
    }
    page.push_str(
        "\n## Answers held against ground truth\n\n\
         Programs that wait in a known way and measure it themselves, each under `--futex sched` and \
         `--futex tracepoint`. `–`: this kernel lacks what it takes.\n\n",
    );
    head(&mut page, "", outcomes);
    for name in checks(outcomes) {
        let cells: Vec<_> = outcomes
            .iter()
            .map(|(_, outcome)| verdicts(outcome, &name))
            .collect();
        row(&mut page, &name, &cells);
    }
    verify(&mut page, outcomes);
    page
}

/// What `observer verify` said on each kernel.
fn verify(page: &mut String, outcomes: &[(&str, Outcome)]) {
    page.push_str(
        "\n## What observer verify says\n\n\
         [`observer verify`](verify.md) on each of them: precision / recall, how much the sum of durations is off, or how \
         many there were. In the emulator promises about time are ten times as wide, and what observing costs there \
         says nothing of other machines.\n\n",
    );
    head(page, "", outcomes);
    let all: Vec<_> = outcomes
        .iter()
        .map(|(_, outcome)| verified::rows(&outcome.verify))
        .collect();
    for what in in_order(all.iter().flatten().map(|row| row.what)) {
        let cell = |rows: &Vec<verified::Row>| {
            let row = rows.iter().find(|row| row.what == what)?;
            let broken = if row.holds { "" } else { "FAIL: " };
            Some(format!("{broken}{}", row.cell))
        };
        let cells: Vec<_> = all
            .iter()
            .map(|rows| cell(rows).unwrap_or_else(|| "–".to_owned()))
            .collect();
        row(page, &what, &cells);
    }
}

fn put(page: &mut String, text: std::fmt::Arguments) {
    // Writing into a string does not fail.
    let _ = page.write_fmt(text);
}

/// A column a kernel, with its exact release.
fn head(page: &mut String, corner: &str, outcomes: &[(&str, Outcome)]) {
    let title = |(name, outcome): &(&str, Outcome)| {
        let release = outcome.doctor["kernel"].as_str().unwrap_or("?").to_owned();
        match *name {
            "host" => format!("{release} (the machine's own)"),
            _ => release,
        }
    };
    let titles: Vec<_> = outcomes.iter().map(title).collect();
    row(page, corner, &titles);
    let line: Vec<_> = outcomes.iter().map(|_| "---".to_owned()).collect();
    row(page, "---", &line);
}

fn row(page: &mut String, first: &str, cells: &[String]) {
    put(page, format_args!("| {first} | {} |\n", cells.join(" | ")));
}

/// Names of the doctor's checks on any kernel, in their order.
fn features(outcomes: &[(&str, Outcome)]) -> Vec<String> {
    let of_kernel = |name: &str| {
        !NOT_OF_THE_KERNEL
            .iter()
            .any(|start| name.starts_with(start))
    };
    let named = outcomes
        .iter()
        .flat_map(|(_, outcome)| all(&outcome.doctor));
    in_order(
        named
            .filter_map(|check| check["name"].as_str())
            .filter(|name| of_kernel(name)),
    )
}

/// Names of the checks on any kernel, in their order.
fn checks(outcomes: &[(&str, Outcome)]) -> Vec<String> {
    let made = outcomes.iter().flat_map(|(_, outcome)| &outcome.checks);
    // Those that were skipped come first on a kernel, so the order is that of the one with the most.
    let most = outcomes
        .iter()
        .map(|(_, outcome)| outcome)
        .max_by_key(|outcome| {
            let checks = outcome.checks.iter();
            checks.filter(|check| check.verdict == Verdict::Ok).count()
        });
    let leading = most.into_iter().flat_map(|outcome| &outcome.checks);
    in_order(leading.chain(made).map(|check| check.name.as_str()))
}

fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.iter().any(|known| known == name) {
            seen.push(name.to_owned());
        }
    }
    seen
}

fn all(doctor: &Value) -> &[Value] {
    doctor["checks"].as_array().map_or(&[], Vec::as_slice)
}

fn find<'a>(doctor: &'a Value, feature: &str) -> Option<&'a Value> {
    all(doctor).iter().find(|check| check["name"] == feature)
}

/// A feature's cells: a word, and the number of a note where kernels differ or something is missing.
fn cells(found: &[Option<&Value>], notes: &mut Vec<String>) -> Vec<String> {
    let detail = |check: &Value| check["detail"].as_str().unwrap_or_default().to_owned();
    let details: Vec<_> = found.iter().map(|check| check.map(detail)).collect();
    let differ = details.iter().any(|detail| *detail != details[0]);
    let cell = |(check, detail): (Option<&Value>, &Option<String>)| {
        let (Some(check), Some(detail)) = (check, detail) else {
            return "–".to_owned();
        };
        let word = match check["status"].as_str() {
            Some("ok") => "yes",
            Some("degraded") => "degraded",
            _ => "missing",
        };
        if !differ && word == "yes" {
            return word.to_owned();
        }
        let advice = check["advice"].as_str().filter(|_| word != "yes");
        let note = match advice {
            Some(advice) => format!("{detail}: {advice}"),
            None => detail.clone(),
        };
        let known = notes.iter().position(|other| *other == note);
        let number = known.unwrap_or_else(|| {
            notes.push(note);
            notes.len() - 1
        });
        format!("{word} ({})", number + 1)
    };
    found.iter().copied().zip(&details).map(cell).collect()
}

/// How a check went in each mode: one word when they agree.
fn verdicts(outcome: &Outcome, name: &str) -> String {
    let checks = outcome.checks.iter().filter(|check| check.name == name);
    let words: Vec<_> = checks
        .map(|check| match check.verdict {
            Verdict::Ok => ("ok", &check.mode),
            Verdict::Failed(_) => ("FAIL", &check.mode),
            Verdict::Skipped(_) => ("–", &check.mode),
        })
        .collect();
    match words.as_slice() {
        [] => "–".to_owned(),
        [(first, _), rest @ ..] if rest.iter().all(|(word, _)| word == first) => {
            (*first).to_owned()
        }
        _ => {
            let by_mode = words.iter().map(|(word, mode)| format!("{mode}: {word}"));
            by_mode.collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kernel: &str, args: u32, checks: &str) -> Outcome {
        let doctor = serde_json::json!({"kernel": kernel, "checks": [
            {"name": "CAP_BPF", "status": "ok", "detail": "held"},
            {"name": "BTF", "status": "ok", "detail": "there"},
            {"name": "tracepoint t", "status": "ok", "detail": format!("{args} arguments")},
            {"name": "calls", "status": if args == 3 { "degraded" } else { "ok" },
             "detail": if args == 3 { "not there" } else { "for x" }, "advice": "do y"},
        ]});
        let console = format!(
            "{checks}\n---- verify\n{{\"capabilities\":[{{\"capability\":\"lost\",\"told\":{args},\"holds\":true}}]}}\n\
             ---- end of verify\n---- doctor\n{doctor}\n---- end of doctor\n2 passed, 0 failed, 1 skipped\n"
        );
        Outcome::parse(&console, 1.0).unwrap()
    }

    #[test]
    fn the_page_has_a_row_a_feature_and_a_column_a_kernel() {
        let old = outcome(
            "5.10.0",
            3,
            "skipped waitv sched: no\nok mutex sched\nok mutex t",
        );
        let new = outcome(
            "6.18.1",
            4,
            "ok mutex sched\nok waitv sched\nok mutex t\nskipped waitv t: no",
        );
        let page = render(&[("5.10", old), ("host", new)]);
        let (_, tables) = page.split_once("## Features\n\n").unwrap();
        assert!(
            tables.starts_with(
                "|  | 5.10.0 | 6.18.1 (the machine's own) |\n\
                 | --- | --- | --- |\n\
                 | BTF | yes | yes |\n\
                 | tracepoint t | yes (1) | yes (2) |\n\
                 | calls | degraded (3) | yes (4) |\n\n\
                 1. 3 arguments\n2. 4 arguments\n3. not there: do y\n4. for x\n"
            ),
            "{tables}"
        );
        assert!(
            tables.contains("| mutex | ok | ok |\n| waitv | – | sched: ok, t: – |\n\n## What"),
            "{tables}"
        );
        assert!(tables.ends_with("| lost | 3 | 4 |\n"), "{tables}");
    }
}
