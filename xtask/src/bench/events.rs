//! What the benchmark reads of the programs it runs: fields of lines of JSON, and words of text.
//!
//! The lines are observer's own and the workload's: their form is known, and the few numbers wanted
//! need no parser of all of JSON.

/// The type of an event line.
pub(super) fn kind(line: &str) -> Option<&str> {
    let (kind, _) = line.strip_prefix("{\"type\":\"")?.split_once('"')?;
    Some(kind)
}

/// The first number that stands under this name, at whichever depth.
pub(super) fn number(line: &str, name: &str) -> Option<f64> {
    numbers(line, name).next()
}

/// All numbers that stand under this name.
pub(super) fn numbers<'a>(line: &'a str, name: &str) -> impl Iterator<Item = f64> + use<'a> {
    let key = format!("\"{name}\":");
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once(key.as_str())?;
            rest = after;
            let end = after.find([',', '}', ']']).unwrap_or(after.len());
            if let Ok(number) = after[..end].parse() {
                return Some(number);
            }
        }
    })
}

/// The identity of the lock of a `lock` event.
pub(super) fn lock_id(line: &str) -> Option<&str> {
    let (_, id) = line.split_once("\"lock\":{\"id\":\"")?;
    Some(id.split_once('"')?.0)
}

/// Counters of a `loss` event that are no loss: everything is there but for a detail (docs/events.md).
const DETAILS: [&str; 2] = ["stacks_skipped", "end_inferred"];

/// The causes of a `loss` event by which something was lost, with their counts.
pub(super) fn causes(line: &str) -> Option<Vec<(&str, u64)>> {
    let (_, counters) = line.split_once("\"counters\":{")?;
    let (counters, _) = counters.split_once('}')?;
    let pairs = counters.split(',').filter_map(|pair| {
        let (cause, count) = pair.split_once(':')?;
        Some((cause.trim_matches('"'), count.parse().ok()?))
    });
    let lost = pairs.filter(|(cause, count)| *count > 0 && !DETAILS.contains(cause));
    Some(lost.collect())
}

/// The line of a workload that begins with this word.
pub(super) fn line_of<'a>(output: &'a str, word: &str) -> Option<&'a str> {
    output
        .lines()
        .find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
}

/// Transactions a second, as pgbench tells them.
pub(super) fn tps(output: &str) -> Option<f64> {
    let (_, rest) = output.split_once("tps = ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: &str = r#"{"type":"end","time":"2026-11-21T09:57:12.08Z","mono_ns":3621545779108,"reason":"stopped","dur_ns":602585452,"events":20,"waits":3,"cpu_ns":119725317,"rss_bytes":60452864}"#;

    #[test]
    fn an_event_is_read() {
        assert_eq!(kind(END), Some("end"));
        assert_eq!(number(END, "rss_bytes"), Some(60_452_864.0));
        assert_eq!(number(END, "events"), Some(20.0));
        assert_eq!(number(END, "reason"), None);
        assert_eq!(kind("not an event"), None);
        let lock =
            r#"{"type":"lock","mono_ns":1,"lock":{"id":"8739:0x55","class":"futex"},"pid":8739}"#;
        assert_eq!(lock_id(lock), Some("8739:0x55"));
        assert_eq!(lock_id(END), None);
        let loss =
            r#"{"type":"loss","total":7,"counters":{"a":0,"ring_full":5,"b":2,"end_inferred":9}}"#;
        assert_eq!(causes(loss), Some(vec![("ring_full", 5), ("b", 2)]));
        assert_eq!(causes(END), None);
    }

    #[test]
    fn the_truth_of_a_workload_is_read() {
        let output = "ready {\"pid\":7,\"locks\":{}}\ntruth {\"threads\":{\"a\":{\"acquisitions\":12},\
                      \"b\":{\"acquisitions\":30,\"contended\":1}},\"ns_per_round\":5136.5}\n";
        let truth = line_of(output, "truth").unwrap();
        let acquisitions: Vec<f64> = numbers(truth, "acquisitions").collect();
        assert_eq!(acquisitions, [12.0, 30.0]);
        assert_eq!(number(truth, "ns_per_round"), Some(5136.5));
        assert_eq!(number(line_of(output, "ready").unwrap(), "pid"), Some(7.0));
        assert_eq!(line_of(output, "unsupported"), None);
    }

    #[test]
    fn pgbench_is_understood() {
        let output =
            "latency average = 0.1 ms\ntps = 31234.567890 (without initial connection time)\n";
        assert_eq!(tps(output), Some(31_234.567_89));
        assert_eq!(tps("pgbench: error\n"), None);
    }
}
