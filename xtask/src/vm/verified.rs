//! What `observer verify` said on a kernel.

use serde_json::Value;

/// One capability, or one cost.
pub(super) struct Row<'a> {
    pub(super) what: &'a str,
    pub(super) holds: bool,
    /// In a few words.
    pub(super) cell: String,
}

/// Capabilities, in their order; nothing if it could not run.
pub(super) fn rows(verify: &Value) -> Vec<Row<'_>> {
    let told = all(verify, "capabilities")
        .iter()
        .map(|row| told(row, "capability", right(row)));
    told.flatten().collect()
}

/// The same of what observing costs, which in an emulator says nothing of other machines.
fn costs(verify: &Value) -> Vec<Row<'_>> {
    let told = all(verify, "overhead")
        .iter()
        .map(|row| told(row, "program", dear(row)));
    told.flatten().collect()
}

fn all<'a>(verify: &'a Value, name: &str) -> &'a [Value] {
    verify[name].as_array().map_or(&[], Vec::as_slice)
}

/// A table for the terminal.
pub(super) fn table(verify: &Value) -> String {
    let mut rows = rows(verify);
    rows.extend(costs(verify));
    let width = rows.iter().map(|row| row.what.chars().count()).max();
    let width = width.unwrap_or(0);
    let line = |row: &Row| {
        let holds = if row.holds { "yes" } else { "NO " };
        let (what, cell) = (plain(row.what), plain(&row.cell));
        format!("  {holds}  {what:width$}  {cell}\n")
    };
    rows.iter().map(line).collect()
}

fn told<'a>(row: &'a Value, name: &str, cell: String) -> Option<Row<'a>> {
    Some(Row {
        what: row[name].as_str()?,
        holds: row["holds"] == true,
        cell,
    })
}

fn right(row: &Value) -> String {
    let percent = |name: &str| row[name].as_f64().map(|share| share * 100.0);
    let mut parts = Vec::new();
    if let Some((precision, recall)) = percent("precision").zip(percent("recall")) {
        parts.push(format!("{precision:.0} % / {recall:.0} %"));
    } else {
        parts.push(row["told"].as_u64().unwrap_or(0).to_string());
    }
    if let Some(error) = row["error_percent"].as_f64() {
        parts.push(format!("sum {error:+.1} %"));
    }
    parts.join(", ")
}

fn dear(row: &Value) -> String {
    let number = |name: &str| row[name].as_f64().unwrap_or(f64::NAN);
    let (percent, limit) = (number("percent"), number("limit_percent"));
    format!("{percent:+.0} % (at most {limit:+.0} %)")
}

/// A console has it from a machine: without what would move the cursor.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table() {
        let report = serde_json::json!({
            "capabilities": [
                {"capability": "who woke", "told": 9, "precision": 1.0, "recall": 0.985,
                 "error_percent": -0.44, "holds": true},
                {"capability": "records lost", "told": 2, "holds": false},
            ],
            "overhead": [
                {"program": "pingpong", "percent": 41.6, "limit_percent": 600.0, "holds": true},
            ],
        });
        assert_eq!(
            table(&report),
            "  yes  who woke      100 % / 98 %, sum -0.4 %\n  \
             NO   records lost  2\n  \
             yes  pingpong      +42 % (at most +600 %)\n"
        );
        assert!(table(&Value::Null).is_empty());
    }
}
