//! Tables of the documentation that list what the types have.

use std::{collections::BTreeSet, env, fs, path::Path};

/// The names in the first column of the table that begins with this line.
fn first_column(text: &str, head: &str) -> Vec<String> {
    let mut lines = text.lines().skip_while(|line| *line != head).skip(2);
    let rows = lines.by_ref().take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`').to_owned())
        .collect()
}

#[test]
fn lists_of_values_are_complete() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
    let text = fs::read_to_string(path).unwrap();
    let schema = observer::event::schema();
    for (name, head) in [
        ("LockClass", "| class | meaning |"),
        ("Kind", "| kind | waits in |"),
    ] {
        let values = schema.pointer(&format!("/$defs/{name}/oneOf")).unwrap();
        let values = values.as_array().unwrap().iter();
        let expected: BTreeSet<&str> = values.map(|one| one["const"].as_str().unwrap()).collect();
        let listed = first_column(&text, head);
        let told: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
        assert_eq!(told, expected, "the table `{head}` of docs/events.md");
        assert_eq!(told.len(), listed.len(), "twice in the table `{head}`");
    }
}
