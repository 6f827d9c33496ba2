//! What the user left the screen with: view, order, filter. Kept in a file that may be missing, damaged or
//! written by hand.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Deserialize;

use super::{
    command::View,
    groups::Grouping,
    list::Navigate,
    rows::Filter,
    state::{LONGEST, State},
};

/// What is kept from one run to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The view, by its title in small letters.
    view: Option<String>,
    /// What is looked for.
    filter: String,
    /// Idle waits are shown.
    idle: bool,
    /// What Blocked is grouped by.
    group: Option<String>,
    /// The column that sorts each table; with a `-` before it: the other way round.
    sort: BTreeMap<String, String>,
}

impl Settings {
    /// Reads them.
    ///
    /// # Errors
    /// A sentence, when the text is none of ours.
    pub fn parse(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    /// As text that [`Settings::parse`] reads.
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# How observer's screen was left. It is written when the screen is closed; without it the screen\n\
             # begins with the Overview.\n",
        );
        for (name, value) in [("view", &self.view), ("group", &self.group)] {
            if let Some(value) = value {
                let _ = writeln!(text, "{name} = {}", quoted(value));
            }
        }
        let _ = writeln!(
            text,
            "filter = {}\nidle = {}",
            quoted(&self.filter),
            self.idle
        );
        text.push_str("\n[sort]\n");
        for (view, column) in &self.sort {
            let _ = writeln!(text, "{} = {}", quoted(view), quoted(column));
        }
        text
    }

    pub(super) fn of(state: &mut State) -> Settings {
        let mut settings = Settings {
            view: Some(name(state.view)),
            filter: state.query.filter.as_str().to_owned(),
            idle: state.query.show_idle,
            group: Some(state.grouping.name().to_owned()),
            sort: BTreeMap::new(),
        };
        for (name, list) in lists(state) {
            let (column, reversed) = list.order();
            let sign = if reversed { "-" } else { "" };
            settings.sort.insert(name, format!("{sign}{column}"));
        }
        settings
    }

    /// Puts them into force; what is not known is left as it is.
    pub(super) fn apply(&self, state: &mut State) {
        let view = View::ALL
            .into_iter()
            .find(|view| Some(name(*view)) == self.view);
        state.view = view.unwrap_or(state.view);
        let harmless = self.filter.chars().filter(|c| !c.is_control());
        state.query.filter = Filter::new(harmless.take(LONGEST).collect());
        state.query.show_idle = self.idle;
        let grouping = Grouping::ALL.into_iter();
        state.grouping = grouping
            .into_iter()
            .find(|one| Some(one.name()) == self.group.as_deref())
            .unwrap_or_default();
        for (name, list) in lists(state) {
            let Some(column) = self.sort.get(&name) else {
                continue;
            };
            let (title, reversed) = match column.strip_prefix('-') {
                Some(title) => (title, true),
                None => (&**column, false),
            };
            if let Some(column) = list.column(title) {
                list.set_order(column, reversed);
            }
        }
    }
}

fn name(view: View) -> String {
    view.title().to_lowercase()
}

/// The tables, by name.
fn lists(state: &mut State) -> [(String, &mut dyn Navigate); 8] {
    [
        (name(View::Blocked), &mut state.blocked),
        ("groups".to_owned(), &mut state.groups),
        (name(View::Locks), &mut state.locks),
        (name(View::Waits), &mut state.waits),
        (name(View::Runtimes), &mut state.runtimes),
        ("goroutines".to_owned(), &mut state.goroutines),
        (name(View::Processes), &mut state.processes),
        (name(View::Containers), &mut state.containers),
    ]
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_again() {
        let mut state = State::new();
        state.view = View::Locks;
        state.query.filter = Filter::new("a \"b\" \\ c\u{1}\n日本".into());
        state.query.show_idle = true;
        state.grouping = Grouping::Container;
        let column = state.locks.column("p99").unwrap();
        state.locks.set_order(column, true);
        let settings = Settings::of(&mut state);
        let read = Settings::parse(&settings.text()).unwrap();
        assert_eq!(read, settings);
        let mut other = State::new();
        read.apply(&mut other);
        assert_eq!(other.view, View::Locks);
        // What controls a terminal is not taken over.
        assert_eq!(other.query.filter.as_str(), "a \"b\" \\ c日本");
        assert_eq!(other.grouping, Grouping::Container);
        assert_eq!(other.locks.order(), ("P99", true));
        assert!(other.query.show_idle);
    }

    #[test]
    fn whatever_is_in_the_file_there_is_a_screen() {
        for text in ["\0", "view = 7", "[sort", "sort = \"x\"", "filter = [1]"] {
            assert!(Settings::parse(text).is_err(), "{text:?}");
        }
        for text in [
            "",
            "view = \"x\"\nnew = 1\n[sort]\nlocks = \"-\"\nx = \"y\"",
        ] {
            let mut state = State::new();
            Settings::parse(text).unwrap().apply(&mut state);
            assert_eq!(
                (state.view, state.locks.order()),
                (View::Overview, ("TOTAL", false))
            );
        }
    }
}
