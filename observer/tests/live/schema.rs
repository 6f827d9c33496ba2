//! docs/events.schema.json is what the types say.

use std::{env, fs, path::Path};

use crate::harness::output;

#[test]
fn of_the_documentation_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.schema.json");
    let mut schema = serde_json::to_string_pretty(&observer::event::schema()).unwrap();
    schema.push('\n');
    let printed = output(&["schema"]);
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
