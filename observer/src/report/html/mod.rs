//! The report as one page: no network, no library, and a policy that forbids both.
//!
//! What is drawn is made here, so that the page shows everything without scripts too; the script sorts, filters and
//! zooms what is there. What was left out to keep the page small is said where it would stand.

mod escape;
mod flame;
mod graph;
mod locks;
mod timeline;

use std::{
    fmt::{self, Write as _},
    io::{self, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use self::escape::Esc;
use super::{
    answer::held_up,
    document::{Block, Section},
    incident::{Incident, ROWS, facts, stack_lines, task},
};
use crate::{
    event::{Bucket, Finding, Severity},
    time::human,
};

/// Characters of a cell that stay on one line.
const SHORT: usize = 28;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes the page.
///
/// # Errors
/// The writer's.
pub fn write(out: &mut impl Write, incident: &Incident<'_>) -> io::Result<()> {
    let mut page = String::new();
    make(&mut page, incident).map_err(io::Error::other)?;
    out.write_all(page.as_bytes())
}

fn make(page: &mut String, incident: &Incident<'_>) -> fmt::Result {
    head(page, incident)?;
    let mut sections = Vec::new();
    for section in incident.sections() {
        let id = section.title.to_lowercase().replace(' ', "-");
        let mut body = String::new();
        match id.as_str() {
            "findings" => findings(&mut body, &incident.findings())?,
            "locks-by-total-wait" => locks::section(&mut body, incident.model)?,
            "blocked-at-the-end" => {
                blocks(&mut body, &section, true)?;
                stacks(&mut body, incident)?;
            }
            _ => blocks(&mut body, &section, true)?,
        }
        let after = id.clone();
        sections.push((id, section.title, body));
        match after.as_str() {
            "deadlocks" => {
                let mut body = String::new();
                graph::section(&mut body, incident.model)?;
                sections.push(("graph".into(), "Who waits for whom".into(), body));
                let mut body = String::new();
                timeline::section(&mut body, incident)?;
                sections.push(("timeline".into(), "Waits over time".into(), body));
            }
            "longest-waits" => {
                let mut body = String::new();
                flame::section(&mut body, incident.gathered.folded())?;
                sections.push(("flame".into(), "Where time was waited".into(), body));
                let mut body = String::new();
                let lengths = incident.gathered.lengths().buckets();
                histogram(&mut body, &lengths)?;
                sections.push(("lengths".into(), "Waits by length".into(), body));
            }
            _ => {}
        }
    }
    page.push_str("<nav aria-label=\"Sections\"><ul>");
    for (id, title, _) in &sections {
        write!(page, "<li><a href=\"#{id}\">{}</a></li>", Esc(title))?;
    }
    page.push_str("</ul></nav>\n<main>\n");
    for (id, title, body) in &sections {
        writeln!(
            page,
            "<section id=\"{id}\" aria-labelledby=\"{id}-h\"><h2 id=\"{id}-h\">{}</h2>\n{body}</section>",
            Esc(title)
        )?;
    }
    write!(
        page,
        "</main>\n<footer><p>Made by observer {}. This page loads nothing from anywhere.</p></footer>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        Esc(env!("CARGO_PKG_VERSION"))
    )
}

/// What a policy calls a script or a style by.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

fn head(page: &mut String, incident: &Incident<'_>) -> fmt::Result {
    let host = incident
        .model
        .meta()
        .map_or_else(String::new, |meta| format!(" on {}", meta.host));
    write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src {}; \
         script-src {}; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>What was not running{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#findings\">To the findings</a>\n<header>\n\
         <p class=\"kicker\">observer report{}</p>\n<h1>What was not running, and why</h1>\n\
         <div class=\"answer\" role=\"region\" aria-label=\"The answer\">\n",
        hash(STYLE),
        hash(SCRIPT),
        Esc(&host),
        Esc(&host)
    )?;
    for sentence in incident.summary() {
        writeln!(page, "<p>{}</p>", Esc(sentence))?;
    }
    page.push_str("</div>\n<ul class=\"facts\">");
    for fact in facts(incident.model) {
        write!(page, "<li>{}</li>", Esc(fact))?;
    }
    page.push_str("</ul>\n</header>\n");
    Ok(())
}

fn findings(page: &mut String, all: &[&Finding]) -> fmt::Result {
    if all.is_empty() {
        page.push_str("<p class=\"none\">None.</p>");
    }
    for (count, found) in all.iter().take(ROWS).enumerate() {
        // The worst ones are read, the others looked up.
        let open = if count < 3 || found.severity == Severity::Critical {
            " open"
        } else {
            ""
        };
        write!(
            page,
            "<details class=\"finding {0}\"{open}><summary><span class=\"badge {0}\">{0}</span> {1}</summary><ul>",
            found.severity.name(),
            Esc(&found.title)
        )?;
        for line in &found.evidence {
            write!(page, "<li>{}</li>", Esc(line))?;
        }
        writeln!(
            page,
            "</ul><p class=\"advice\"><strong>What to do:</strong> {}</p><p class=\"rule\">rule {}</p></details>",
            Esc(&found.advice),
            Esc(&found.rule)
        )?;
    }
    left_out(page, all.len().saturating_sub(ROWS), "findings")
}

/// Says that there is more.
fn left_out(page: &mut String, count: usize, what: &str) -> fmt::Result {
    if count > 0 {
        writeln!(
            page,
            "<p class=\"note\">… and {count} more {what} that are not shown.</p>"
        )?;
    }
    Ok(())
}

/// A section's sentences, lists and tables as they are. `tools`: tables can be sorted and filtered.
fn blocks(page: &mut String, section: &Section, tools: bool) -> fmt::Result {
    for block in &section.blocks {
        match block {
            Block::Text(text) => writeln!(page, "<p>{}</p>", Esc(text))?,
            Block::List(points) => {
                page.push_str("<ul>");
                for point in points {
                    write!(page, "<li>{}</li>", Esc(point))?;
                }
                page.push_str("</ul>\n");
            }
            Block::Lines(lines) => frames(page, "stack", lines)?,
            Block::Table(head, rows) => {
                let cells = rows.iter().map(|row| {
                    let cell = |text: &String| Esc(text).to_string();
                    row.iter().map(cell).collect()
                });
                table(
                    page,
                    &section.title,
                    head,
                    &cells.collect::<Vec<_>>(),
                    tools,
                )?;
            }
        }
    }
    Ok(())
}

/// A table. Its cells are markup. With `tools` its columns sort it, and a field filters it.
fn table(
    page: &mut String,
    caption: &str,
    head: &[&str],
    rows: &[Vec<String>],
    tools: bool,
) -> fmt::Result {
    page.push_str("<div class=\"sheet\">");
    if tools && rows.len() > 3 {
        write!(
            page,
            "<label class=\"filter\">Filter <input type=\"search\" autocomplete=\"off\" spellcheck=\"false\">\
             <output aria-live=\"polite\"></output></label>"
        )?;
    }
    write!(
        page,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table{1}><caption>{0}</caption><thead><tr>",
        Esc(caption),
        if tools { " class=\"sortable\"" } else { "" }
    )?;
    for name in head {
        let (class, name) = match name.strip_prefix('>') {
            Some(name) => (" class=\"n\"", name),
            None => ("", *name),
        };
        if tools {
            write!(
                page,
                "<th scope=\"col\"{class} aria-sort=\"none\"><button type=\"button\">{name}</button></th>"
            )?;
        } else {
            write!(page, "<th scope=\"col\"{class}>{name}</th>")?;
        }
    }
    page.push_str("</tr></thead><tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (cell, name) in row.iter().zip(head) {
            // Only what is long may be broken: a number or a name in pieces is hard to read.
            let class = match name.starts_with('>') {
                true => " class=\"n\"",
                false if shown(cell) > SHORT => " class=\"w\"",
                false => "",
            };
            write!(page, "<td{class}>{cell}</td>")?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></div>\n");
    Ok(())
}

/// Characters of a cell that are seen.
fn shown(cell: &str) -> usize {
    let link = cell
        .strip_prefix("<a ")
        .and_then(|rest| rest.split_once('>'));
    link.map_or(cell, |(_, text)| text.trim_end_matches("</a>"))
        .chars()
        .count()
}

/// Lines of a stack, folded.
fn frames(page: &mut String, title: &str, lines: &[String]) -> fmt::Result {
    write!(
        page,
        "<details class=\"stack\"><summary>{}</summary><ol>",
        Esc(title)
    )?;
    for line in lines {
        write!(page, "<li><code>{}</code></li>", Esc(line))?;
    }
    page.push_str("</ol></details>\n");
    Ok(())
}

/// Where those that are blocked wait.
fn stacks(page: &mut String, incident: &Incident<'_>) -> fmt::Result {
    for wait in held_up(incident.model).into_iter().take(ROWS) {
        let lines = stack_lines(wait.event.stack.as_ref());
        if !lines.is_empty() {
            let title = format!("where {} waits", task(&wait.event.task));
            frames(page, &title, &lines)?;
        }
    }
    Ok(())
}

/// Bars, one for each bucket.
fn histogram(page: &mut String, buckets: &[Bucket]) -> fmt::Result {
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
    if most == 0 {
        page.push_str("<p class=\"none\">None.</p>");
        return Ok(());
    }
    page.push_str("<table class=\"bars\"><caption>How many waits were how long</caption><thead><tr><th scope=\"col\">below</th><th scope=\"col\">share</th><th scope=\"col\" class=\"n\">waits</th></tr></thead><tbody>\n");
    for bucket in buckets {
        let below = bucket.lt_ns.map_or_else(|| "more".to_owned(), human);
        writeln!(
            page,
            "<tr><th scope=\"row\">{below}</th><td><svg width=\"100%\" height=\"12\" aria-hidden=\"true\">\
             <rect width=\"{:.2}%\" height=\"12\" rx=\"2\"/></svg></td><td class=\"n\">{}</td></tr>",
            bucket.count as f64 * 100.0 / most as f64,
            bucket.count
        )?;
    }
    page.push_str("</tbody></table>\n");
    Ok(())
}

#[cfg(test)]
mod tests;
