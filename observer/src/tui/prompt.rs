//! Commands that are typed after `:`.

use super::{
    command::{Command, View},
    export::Form,
    groups::Grouping,
};

/// What can be typed, for the help.
pub(super) const HELP: &[(&str, &str)] = &[
    (
        ":VIEW",
        "a view by its name: overview, blocked, locks, graph, waits, runtimes, processes, containers, health",
    ),
    (":filter TEXT", "filter; without a text, no filter"),
    (
        ":sort COLUMN",
        "sort by a column; once more: the other way round",
    ),
    (
        ":group WHAT",
        "Blocked by lock, process, stack, container, pod; or none",
    ),
    (
        ":idle :pause",
        "as i and p; also :export FORM, :record, :copy, :help, :quit",
    ),
];

/// What a line asks for, or why that is not known.
pub(super) fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim();
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    let word = word.to_lowercase();
    if let Some(view) = view(&word) {
        return Ok(Command::View(view));
    }
    Ok(match &*word {
        "" => Command::Nothing,
        "q" | "q!" | "quit" | "exit" => Command::Quit,
        "f" | "filter" => Command::Filter(rest.to_owned()),
        "sort" => Command::SortBy(rest.to_owned()),
        "group" => {
            let named = |grouping: &Grouping| grouping.name() == rest;
            let grouping = Grouping::ALL.into_iter().find(named);
            Command::GroupBy(grouping.ok_or_else(|| {
                format!("cannot group by {rest:?}: lock, process, stack, container, pod or none")
            })?)
        }
        "idle" => Command::Idle,
        "pause" => Command::Pause,
        "export" => match rest {
            "" => Command::Export,
            "json" => Command::ExportAs(Form::Json),
            "folded" => Command::ExportAs(Form::Folded),
            "text" => Command::ExportAs(Form::Text),
            _ => return Err(format!("cannot export as {rest:?}: json, folded or text")),
        },
        "record" => Command::Record,
        "copy" => Command::Copy,
        "help" | "h" => Command::Help,
        _ => return Err(format!("no command {word:?}; ? lists them")),
    })
}

/// A view by its name or the beginning of it.
fn view(word: &str) -> Option<View> {
    let is_it = |view: &View| word.len() > 1 && view.title().to_lowercase().starts_with(word);
    View::ALL.into_iter().find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        for (line, command) in [
            ("locks", Command::View(View::Locks)),
            (" OV ", Command::View(View::Overview)),
            ("filter  a b ", Command::Filter("a b".into())),
            ("group stack", Command::GroupBy(Grouping::Stack)),
            ("sort AGE", Command::SortBy("AGE".into())),
            ("q", Command::Quit),
            ("", Command::Nothing),
        ] {
            assert_eq!(parse(line), Ok(command));
        }
        for line in ["l", "lockss", "group x", "rm -rf /"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
