//! A table whose cells may have several lines: for a terminal, and as Markdown.

/// A cell: its lines from the top.
pub(super) type Cell = Vec<String>;

/// A heading and rows of as many cells.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) heading: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Columns aligned with spaces; the first to the left, the others to the right.
    pub(super) fn to_text(&self) -> String {
        let widths = self.widths();
        let mut text = String::new();
        let mut line = |words: &[&str]| {
            let mut padded = String::new();
            for (column, (word, width)) in words.iter().zip(&widths).enumerate() {
                let space = " ".repeat(width - word.chars().count());
                if column == 0 {
                    padded.push_str(word);
                    padded.push_str(&space);
                } else {
                    padded.push_str("  ");
                    padded.push_str(&space);
                    padded.push_str(word);
                }
            }
            text.push_str(padded.trim_end());
            text.push('\n');
        };
        line(&self.heading.iter().map(String::as_str).collect::<Vec<_>>());
        for row in &self.rows {
            let height = row.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..height {
                let words: Vec<&str> = row
                    .iter()
                    .map(|cell| cell.get(at).map_or("", String::as_str))
                    .collect();
                line(&words);
            }
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.heading.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).flatten();
                cells
                    .chain([&self.heading[column]])
                    .map(|line| line.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// One line a row.
    pub(super) fn to_markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.heading.iter().map(|cell| escape(cell)).collect());
        let rule = (0..self.heading.len()).map(|column| if column == 0 { "---" } else { "---:" });
        text.push_str(&line(rule.map(str::to_owned).collect()));
        for row in &self.rows {
            let cells = row.iter().map(|cell| {
                let lines: Vec<String> = cell.iter().map(|line| escape(line)).collect();
                lines.join("<br>")
            });
            text.push_str(&line(cells.collect()));
        }
        text
    }
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let cell = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Cell>();
        Table {
            heading: vec!["what".into(), "default".into(), "n".into()],
            rows: vec![
                vec![
                    cell(&["ping-pong", "ns"]),
                    cell(&["1.14", "1.12–1.16"]),
                    cell(&["7"]),
                ],
                vec![cell(&["a|b"]), cell(&[]), cell(&["10"])],
            ],
        }
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let wanted = "what         default   n\n\
                      ping-pong       1.14   7\n\
                      ns         1.12–1.16\n\
                      a|b                   10\n";
        assert_eq!(table().to_text(), wanted);
    }

    #[test]
    fn markdown_has_a_row_a_line() {
        let wanted = "| what | default | n |\n| --- | ---: | ---: |\n\
                      | ping-pong<br>ns | 1.14<br>1.12–1.16 | 7 |\n| a\\|b |  | 10 |\n";
        assert_eq!(table().to_markdown(), wanted);
    }
}
