//! The schemas in the documentation are what the types say.

use std::{env, fs, path::Path};

use schemars::Schema;

use crate::harness::output;

fn holds(file: &str, of: &str, schema: &Schema) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(file);
    let mut schema = serde_json::to_string_pretty(schema).unwrap();
    schema.push('\n');
    let printed = output(&["schema", of]);
    assert!(printed.status.success());
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), schema);
    if env::var_os("UPDATE_SCHEMA").is_some_and(|value| value == "1") {
        fs::write(&path, schema).unwrap();
        return;
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == schema,
        "{} is not what the types say; UPDATE_SCHEMA=1 with this test writes it anew",
        path.display()
    );
}

#[test]
fn of_the_documentation_is_that_of_the_types() {
    holds("events.schema.json", "events", &observer::event::schema());
}

#[test]
fn of_reports_is_that_of_the_types() {
    holds(
        "report.schema.json",
        "report",
        &observer::report::object::schema(),
    );
}
