//! `observer verify` on this kernel.

use serde_json::Value;

use crate::harness::{alone, name, output};

#[test]
fn all_promises_hold() {
    alone(name!(), || {
        let output = output(&["verify", "--format", "json"]);
        let told = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {told}"));
        let rows = report["capabilities"].as_array().unwrap();
        assert!(rows.len() > 10, "{report:#}");
        let broken: Vec<&Value> = rows.iter().filter(|row| row["holds"] != true).collect();
        assert!(broken.is_empty(), "{broken:#?}");
        // What it costs depends on who else is there: it is told, and not judged here.
        assert_eq!(
            report["overhead"].as_array().unwrap().len(),
            2,
            "{report:#}"
        );
        assert!(
            report["took_ns"].as_u64().unwrap() < 60_000_000_000,
            "{report:#}"
        );
        Ok(())
    });
}
