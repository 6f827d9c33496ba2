//! A report as headings, sentences and tables, which text and Markdown then write in their own way.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use crate::text::{printable, width};

/// What a section holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Sentences.
    Text(String),
    /// Points, one below the other.
    List(Vec<String>),
    /// Rows under a head. Columns whose head begins with `>` are numbers.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// Lines as they are.
    Lines(Vec<String>),
}

/// A part with a heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What is in it.
    pub blocks: Vec<Block>,
}

/// A report.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its heading.
    pub title: String,
    /// Where, when and how; below the answer.
    pub facts: Vec<String>,
    /// The answer.
    pub summary: Vec<String>,
    /// The rest.
    pub sections: Vec<Section>,
}

/// Writes plain text.
///
/// # Errors
/// The writer's.
pub fn text(out: &mut impl Write, document: &Document) -> io::Result<()> {
    for sentence in &document.summary {
        writeln!(out, "{}", printable(sentence))?;
    }
    writeln!(out)?;
    for fact in &document.facts {
        writeln!(out, "{}", printable(fact))?;
    }
    for section in &document.sections {
        writeln!(out, "\n{}", printable(&section.title).to_uppercase())?;
        for block in &section.blocks {
            text_block(out, block)?;
        }
    }
    Ok(())
}

fn text_block(out: &mut impl Write, block: &Block) -> io::Result<()> {
    match block {
        Block::Text(text) => writeln!(out, "  {}", printable(text)),
        Block::List(points) => points
            .iter()
            .try_for_each(|point| writeln!(out, "  - {}", printable(point))),
        Block::Lines(lines) => lines
            .iter()
            .try_for_each(|line| writeln!(out, "      {}", printable(line))),
        Block::Table(head, rows) => table(out, head, rows),
    }
}

fn table(out: &mut impl Write, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let names: Vec<String> = head
        .iter()
        .map(|name| name.trim_start_matches('>').to_owned())
        .collect();
    let clean: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|cell| printable(cell).into_owned())
                .collect()
        })
        .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = clean.iter().filter_map(|row| row.get(column));
            cells
                .chain(names.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in std::iter::once(&names).chain(&clean) {
        let mut line = String::from(" ");
        for ((cell, columns), name) in row.iter().zip(&widths).zip(head) {
            let pad = " ".repeat(columns.saturating_sub(width(cell)));
            let (before, after) = if name.starts_with('>') {
                (&*pad, "")
            } else {
                ("", &*pad)
            };
            // Writing to a string cannot fail.
            let _ = write!(line, " {before}{cell}{after} ");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes Markdown. Nothing that comes from the observed system is taken for Markdown or HTML.
///
/// # Errors
/// The writer's.
pub fn markdown(out: &mut impl Write, document: &Document) -> io::Result<()> {
    writeln!(out, "# {}\n", escaped(&document.title))?;
    for sentence in &document.summary {
        writeln!(out, "**{}**\n", escaped(sentence))?;
    }
    for fact in &document.facts {
        writeln!(out, "- {}", escaped(fact))?;
    }
    for section in &document.sections {
        writeln!(out, "\n## {}\n", escaped(&section.title))?;
        for block in &section.blocks {
            markdown_block(out, block)?;
        }
    }
    Ok(())
}

fn markdown_block(out: &mut impl Write, block: &Block) -> io::Result<()> {
    match block {
        Block::Text(text) => writeln!(out, "{}\n", escaped(text)),
        Block::List(points) => {
            for point in points {
                writeln!(out, "- {}", escaped(point))?;
            }
            writeln!(out)
        }
        Block::Lines(lines) => {
            // Indented lines are code: nothing in them has a meaning, and nothing ends them.
            writeln!(out)?;
            for line in lines {
                writeln!(out, "    {}", printable(line))?;
            }
            writeln!(out)
        }
        Block::Table(head, rows) => {
            let names: Vec<&str> = head
                .iter()
                .map(|name| name.trim_start_matches('>'))
                .collect();
            let rules: Vec<&str> = head
                .iter()
                .map(|name| if name.starts_with('>') { "--:" } else { "---" })
                .collect();
            writeln!(out, "| {} |\n| {} |", names.join(" | "), rules.join(" | "))?;
            for row in rows {
                let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
                writeln!(out, "| {} |", cells.join(" | "))?;
            }
            writeln!(out)
        }
    }
}

/// Harmless in Markdown, in a table's cell too.
fn escaped(text: &str) -> String {
    let text = printable(text);
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_names_in_markdown() {
        let name = "<img src=x>|`rm`\n# [a](b)\x1b[2J";
        let escaped = escaped(name);
        assert!(!escaped.contains(['<', '\n', '\x1b']), "{escaped}");
        assert!(escaped.contains("\\|\\`rm\\`"), "{escaped}");
        assert!(escaped.contains("\\[a\\](b)"), "{escaped}");
    }

    #[test]
    fn tables_are_aligned() {
        let mut out = Vec::new();
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bcd".to_owned(), "100".to_owned()],
        ];
        table(&mut out, &["name", ">n"], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "  name    n\n  a       1\n  bcd   100\n");
    }
}
