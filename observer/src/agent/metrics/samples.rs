//! Metrics as values again: what is exported elsewhere, and what thresholds are held against, is the very text that
//! Prometheus reads, so that they cannot disagree. Pure: text in, values out.

use std::borrow::Cow;

/// What a family of metrics counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// It only grows.
    Counter,
    /// It goes up and down.
    #[default]
    Gauge,
    /// It counts by size.
    Histogram,
    /// Its value says nothing, its labels do.
    Info,
}

/// All metrics of one name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Family<'a> {
    /// The name, without what its samples have behind it.
    pub name: &'a str,
    /// What it is.
    pub help: &'a str,
    /// What it counts.
    pub sort: Sort,
    /// Its values.
    pub samples: Vec<Sample<'a>>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// What stands behind the family's name: `_total`, `_bucket`, `_sum`, `_count`, `_info` or nothing.
    pub suffix: &'a str,
    /// Its labels.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The value.
    pub value: f64,
}

/// Reads the OpenMetrics text that [`super::text`] makes.
pub fn parse(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = described(line, "# HELP ") {
            family(&mut families, name).help = help;
        } else if let Some((name, sort)) = described(line, "# TYPE ") {
            family(&mut families, name).sort = match sort {
                "counter" => Sort::Counter,
                "histogram" => Sort::Histogram,
                "info" => Sort::Info,
                _ => Sort::Gauge,
            };
        } else if let Some(last) = families.last_mut()
            && let Some(rest) = line.strip_prefix(last.name)
            && let Some(sample) = sample(rest)
        {
            last.samples.push(sample);
        }
    }
    families
}

fn described<'a>(line: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix(what)?.split_once(' ')
}

/// The last family if it has this name, or a new one.
fn family<'a, 'b>(families: &'b mut Vec<Family<'a>>, name: &'a str) -> &'b mut Family<'a> {
    if families.last().is_none_or(|last| last.name != name) {
        families.push(Family {
            name,
            ..Family::default()
        });
    }
    let last = families.len() - 1;
    &mut families[last]
}

/// Reads what follows the family's name in a line.
fn sample(rest: &str) -> Option<Sample<'_>> {
    let end = rest.find(['{', ' '])?;
    let (suffix, mut rest) = rest.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, after) = rest.split_once("=\"")?;
            let length = quoted(after)?;
            labels.push((name, unescaped(&after[..length])));
            rest = after[length + 1..].trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    // An exemplar, or a time, would follow.
    let value = rest.trim_start().split(' ').next()?.parse().ok()?;
    Some(Sample {
        suffix,
        labels,
        value,
    })
}

/// Bytes up to the quotation mark that ends a value.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = "# HELP a_b A thing.\n# TYPE a_b counter\na_b_total{x=\"1\",y=\"q\\\"\\\\\\n}\"} 7\na_b_total 3.5\n\
                    # HELP h Sizes.\n# TYPE h histogram\nh_sum 2.0\nh_count 4\nh_bucket{le=\"+Inf\"} 4\n# EOF\n";
        let families = parse(text);
        assert_eq!(families.len(), 2);
        let first = &families[0];
        assert_eq!(
            (first.name, first.help, first.sort),
            ("a_b", "A thing.", Sort::Counter)
        );
        assert_eq!(
            first.samples[0].labels,
            [("x", "1".into()), ("y", Cow::Borrowed("q\"\\\n}"))]
        );
        assert_eq!(
            (first.samples[0].suffix, first.samples[0].value),
            ("_total", 7.0)
        );
        assert!((first.samples[1].value - 3.5).abs() < 1e-9);
        let suffixes: Vec<_> = families[1].samples.iter().map(|s| s.suffix).collect();
        assert_eq!(suffixes, ["_sum", "_count", "_bucket"]);
    }

    #[test]
    fn what_is_no_metric_is_left_out() {
        for text in [
            "",
            "a 1",
            "# TYPE a gauge\nb 1\n",
            "# TYPE a gauge\na{\n",
            "# TYPE a gauge\na{x=\"1 1\n",
            "# TYPE a gauge\na{x=\"\\\"} 1\n",
            "# TYPE a gauge\na x\n",
        ] {
            let samples: usize = parse(text).iter().map(|f| f.samples.len()).sum();
            assert_eq!(samples, 0, "{text}");
        }
    }

    #[test]
    fn all_of_the_agents_metrics_are_read() {
        let (_, registry) = super::super::Metrics::new(&crate::agent::config::Metrics::default());
        let text = super::super::text(&registry);
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        let families = parse(&text);
        let samples: usize = families.iter().map(|f| f.samples.len()).sum();
        assert!(lines > 20);
        assert_eq!(samples, lines);
        assert!(families.iter().all(|f| !f.help.is_empty()));
    }
}
