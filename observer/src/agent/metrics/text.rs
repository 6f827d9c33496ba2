//! Metrics as text.

use std::fmt::Write;

use prometheus_client::{encoding::text::encode, registry::Registry};

/// The text that Prometheus reads.
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, registry);
    text
}

/// The same in the older form (text/plain; version=0.0.4), for readers that do not ask for OpenMetrics.
pub fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            // The older form has the names of the samples.
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            // Writing to a string does not fail.
            if let Some((_, help)) = help.take_if(|(of, _)| *of == name) {
                let _ = writeln!(out, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(out, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_has_the_names_of_the_samples() {
        let (_, registry) = super::super::Metrics::new(&crate::agent::config::Metrics::default());
        let old = classic(&text(&registry));
        for line in [
            "# TYPE observer_deadlocks_found_total counter",
            "# HELP observer_deadlocks_found_total Deadlocks found.",
            "# TYPE observer_build_info gauge",
        ] {
            assert!(old.lines().any(|other| other == line), "{line}\n{old}");
        }
        assert!(!old.contains("# EOF") && !old.contains("# UNIT"));
    }
}
