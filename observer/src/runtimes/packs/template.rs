//! Names of locks made from arguments: `relation {1} of database {0}`.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::Pair;

/// A name with places for arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number { argument: u8, form: Form },
    String { argument: u8, length: Option<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Unsigned,
    Signed,
    Hexadecimal,
}

/// The values that a template is filled with.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// By slot.
    pub args: &'a [u64],
    /// The text, if it could be read.
    pub text: Option<&'a str>,
}

impl Values<'_> {
    /// The value in a slot.
    pub fn number(&self, slot: usize) -> Option<u64> {
        self.args.get(slot).copied()
    }
}

impl Template {
    /// Reads one: `{N}` is argument N as a number, `{N:i}` with a sign, `{N:x}` in hexadecimal, `{N:s}` the
    /// text it points to, `{N:sM}` the same with its length in argument M. `{{` and `}}` are braces.
    pub(super) fn parse(text: &str) -> Result<Template> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(doubled) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = doubled;
                continue;
            }
            let Some((place, behind)) = rest.split_once('}').filter(|_| brace == "{") else {
                bail!("`{text}`: a brace without its other; a brace itself is written twice");
            };
            rest = behind;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            match part(place) {
                Some(part) => parts.push(part),
                None => bail!(
                    "`{text}`: {{{place}}} is no argument; write {{0}}, {{0:i}}, {{0:x}}, {{0:s}} or {{0:s1}}"
                ),
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template(parts))
    }

    /// Arguments that it shows as numbers.
    pub(super) fn arguments(&self) -> impl Iterator<Item = u8> {
        self.0.iter().filter_map(|part| match part {
            Part::Number { argument, .. } => Some(*argument),
            _ => None,
        })
    }

    /// Arguments that it shows as text, and where the lengths are.
    pub(super) fn texts(&self) -> impl Iterator<Item = (u8, Option<u8>)> {
        self.0.iter().filter_map(|part| match part {
            Part::String { argument, length } => Some((*argument, *length)),
            _ => None,
        })
    }

    /// The name with these values; text that is not known is `?`, and a name of nothing else is empty.
    pub(super) fn fill(&self, pair: &Pair, values: &Values<'_>) -> String {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Number { argument, form } => {
                    let value = pair.slot(*argument).and_then(|slot| values.number(slot));
                    let value = value.unwrap_or_default();
                    // Writing to a string cannot fail.
                    let _ = match form {
                        Form::Unsigned => write!(name, "{value}"),
                        Form::Signed => write!(name, "{}", value.cast_signed()),
                        Form::Hexadecimal => write!(name, "{value:#x}"),
                    };
                }
                Part::String { .. } => match values.text {
                    Some(text) => name.push_str(text),
                    None if self.0.len() == 1 => return String::new(),
                    None => name.push('?'),
                },
            }
        }
        name
    }
}

fn part(place: &str) -> Option<Part> {
    let (argument, form) = place.split_once(':').unwrap_or((place, ""));
    let argument = digits(argument)?;
    let number = |form| Some(Part::Number { argument, form });
    match form {
        "" if place.contains(':') => None,
        "" => number(Form::Unsigned),
        "i" => number(Form::Signed),
        "x" => number(Form::Hexadecimal),
        "s" => Some(Part::String {
            argument,
            length: None,
        }),
        _ => Some(Part::String {
            argument,
            length: Some(digits(form.strip_prefix('s')?)?),
        }),
    }
}

fn digits(text: &str) -> Option<u8> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}
