//! Packs: files that say which USDT probes make a wait.
//!
//! A pack is a TOML file with pairs of probes, described in docs/usdt.md. Those for well-known programs are
//! built in and are written in the same format.

mod template;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};
use observer_common::usdt;
use serde::Deserialize;

pub use self::template::{Template, Values};
use crate::event::{Kind, LockClass};

/// Packs that are built in.
const BUILT_IN: [(&str, &str); 6] = [
    ("hotspot", include_str!("hotspot.toml")),
    ("libc", include_str!("libc.toml")),
    ("libstdcxx", include_str!("libstdcxx.toml")),
    ("postgresql", include_str!("postgresql.toml")),
    ("python", include_str!("python.toml")),
    ("ruby", include_str!("ruby.toml")),
];
/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Pairs of one run.
const MAX_PAIRS: usize = 256;
/// Greatest value of an argument that tells fleeting resources.
const MAX_FLEETING: u64 = 31;
/// Probes that may end the waits of one pair.
const MAX_ENDS: usize = 16;
/// Arguments are counted from 0 to this.
const MAX_ARGUMENT: u8 = 11;

/// Two probes that make a wait.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Who defines the probes.
    pub provider: String,
    /// The probe that begins a wait.
    pub begin: String,
    /// Those that end it.
    pub ends: Vec<String>,
    /// A file to attach to beside those that processes map.
    pub path: Option<PathBuf>,
    /// Arguments that identify the resource.
    pub resource: Vec<u8>,
    /// May other processes wait for the same resource?
    pub shared: Shared,
    /// What the task waits in or for.
    pub kind: Kind,
    /// What sort of lock it is.
    pub class: LockClass,
    /// The lock's name.
    pub name: Option<Template>,
    /// The argument that is the lock's address.
    pub addr: Option<u8>,
    /// The argument that chooses one of `names`.
    pub by: Option<u8>,
    /// Names by the value of that argument.
    pub names: BTreeMap<u64, Template>,
    /// Names of resources that are counted together, by the value of that argument.
    pub fleeting: BTreeMap<u64, String>,
    /// The argument that tells how the resource is wanted.
    pub mode: Option<u8>,
    /// Names of the ways, by the value of that argument.
    pub modes: BTreeMap<u64, String>,
    /// Arguments that are used, in the order that they are read in.
    pub slots: Vec<u8>,
    /// The argument that points to text, and the one with its length.
    pub text: Option<(u8, Option<u8>)>,
}

/// Who may wait for the same resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// The process alone.
    #[default]
    No,
    /// The children of one process.
    Siblings,
    /// Every process of the host.
    Host,
}

impl Pair {
    /// `provider:begin`, as events name it.
    pub fn probe(&self) -> String {
        format!("{}:{}", self.provider, self.begin)
    }

    /// Which slot an argument is in.
    pub fn slot(&self, argument: u8) -> Option<usize> {
        self.slots.iter().position(|slot| *slot == argument)
    }

    /// `usdt:PROVIDER:PROBE:0xVALUE/…`: what identifies the resource with these values, where it may be waited for.
    pub fn identity(&self, args: &[u64]) -> String {
        let values: Vec<String> = self
            .resource
            .iter()
            .filter_map(|argument| args.get(self.slot(*argument)?))
            .map(|value| format!("{value:#x}"))
            .collect();
        let mut id = format!("usdt:{}", self.probe());
        if !values.is_empty() {
            id.push(':');
            id.push_str(&values.join("/"));
        }
        id
    }

    /// How the resource is wanted, with these values.
    pub fn mode_of(&self, values: &Values<'_>) -> Option<&str> {
        let value = values.number(self.slot(self.mode?)?)?;
        self.modes.get(&value).map(String::as_str)
    }

    /// `provider:end`, as events name it: of the end with this number.
    pub fn end_probe(&self, number: u32) -> Option<String> {
        let end = self.ends.get(number as usize)?;
        Some(format!("{}:{end}", self.provider))
    }

    /// The name of the lock with these values.
    pub fn name_of(&self, values: &Values<'_>) -> Option<String> {
        let chosen = self
            .by
            .and_then(|by| self.names.get(&values.number(self.slot(by)?)?));
        chosen
            .or(self.name.as_ref())
            .map(|template| template.fill(self, values))
            .filter(|name| !name.is_empty())
    }
}

/// A pack as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    pair: Vec<WrittenPair>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPair {
    provider: String,
    begin: String,
    end: OneOrMore<String>,
    path: Option<PathBuf>,
    #[serde(default)]
    resource: OneOrMore<u8>,
    #[serde(default)]
    shared: Shared,
    kind: Option<Kind>,
    #[serde(default)]
    lock: WrittenLock,
    mode: Option<WrittenMode>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMode {
    by: u8,
    names: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLock {
    class: Option<LockClass>,
    name: Option<String>,
    addr: Option<u8>,
    by: Option<u8>,
    #[serde(default)]
    names: BTreeMap<String, String>,
    #[serde(default)]
    fleeting: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        OneOrMore::More(Vec::new())
    }
}

impl<T> From<OneOrMore<T>> for Vec<T> {
    fn from(some: OneOrMore<T>) -> Vec<T> {
        match some {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(more) => more,
        }
    }
}

/// The pair of the pack for PostgreSQL that tells of the lock manager's locks.
pub fn postgres_lock() -> Option<&'static Pair> {
    static PAIR: OnceLock<Option<Pair>> = OnceLock::new();
    let find = || {
        let (_, text) = BUILT_IN.iter().find(|(name, _)| *name == "postgresql")?;
        let pairs = parse(text).ok()?;
        pairs
            .into_iter()
            .find(|pair| pair.class == LockClass::PostgresLock)
    };
    PAIR.get_or_init(find).as_ref()
}

/// The pairs of packs: each the name of one that is built in, or a file.
///
/// # Errors
/// There is no such pack, or it is not as docs/usdt.md says.
pub fn load(packs: &[String]) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for pack in packs {
        let built_in = BUILT_IN.iter().find(|(name, _)| name == pack);
        let text = match built_in {
            Some((_, text)) => (*text).to_owned(),
            None => read(pack)?,
        };
        let more = parse(&text).with_context(|| format!("--usdt {pack}"))?;
        pairs.extend(more);
    }
    if pairs.len() > MAX_PAIRS {
        bail!(
            "--usdt: {} pairs of probes, at most {MAX_PAIRS} can be used at a time",
            pairs.len()
        );
    }
    Ok(pairs)
}

fn read(pack: &str) -> Result<String> {
    let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    let advice = || {
        format!(
            "--usdt {pack}: cannot read this file, and it is none of the packs that are built in: {}",
            names.join(", ")
        )
    };
    let path = Path::new(pack);
    if path.is_dir() {
        bail!("{}: it is a folder", advice());
    }
    let file = fs::File::open(path).with_context(advice)?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(advice)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("--usdt {pack}: the file is larger than 1 MiB");
    }
    Ok(text)
}

/// The pairs of a pack.
///
/// # Errors
/// What is not as docs/usdt.md says, and in which pair.
pub fn parse(text: &str) -> Result<Vec<Pair>> {
    let written: Written = toml::from_str(text).context("this is no pack, see docs/usdt.md")?;
    written
        .pair
        .into_iter()
        .map(|pair| {
            let name = format!("pair {}:{}", pair.provider, pair.begin);
            checked(pair).with_context(|| name)
        })
        .collect()
}

fn checked(written: WrittenPair) -> Result<Pair> {
    let mut pair = Pair {
        provider: written.provider,
        begin: written.begin,
        ends: written.end.into(),
        path: written.path,
        resource: written.resource.into(),
        shared: written.shared,
        kind: written.kind.unwrap_or(Kind::Usdt),
        class: written.lock.class.unwrap_or(LockClass::Usdt),
        name: written
            .lock
            .name
            .as_deref()
            .map(Template::parse)
            .transpose()?,
        addr: written.lock.addr,
        by: written.lock.by,
        names: BTreeMap::new(),
        fleeting: BTreeMap::new(),
        mode: written.mode.as_ref().map(|mode| mode.by),
        modes: BTreeMap::new(),
        slots: Vec::new(),
        text: None,
    };
    let number = |value: &str| {
        let number = value.parse::<u64>();
        number.with_context(|| {
            format!("lock.names, lock.fleeting, mode.names: `{value}` is no number")
        })
    };
    for (value, name) in &written.lock.names {
        pair.names.insert(number(value)?, Template::parse(name)?);
    }
    for (value, name) in written.lock.fleeting {
        let sort = number(&value)?;
        if sort > MAX_FLEETING {
            bail!("lock.fleeting: {sort} is greater than {MAX_FLEETING}");
        }
        pair.fleeting.insert(sort, name);
    }
    for (value, name) in written.mode.into_iter().flat_map(|mode| mode.names) {
        pair.modes.insert(number(&value)?, name);
    }
    if pair.ends.len() > MAX_ENDS {
        bail!(
            "end: {} probes, at most {MAX_ENDS} can end a wait",
            pair.ends.len()
        );
    }
    if pair.provider.is_empty() || pair.begin.is_empty() || pair.ends.is_empty() {
        bail!("provider, begin and end name probes: none may be empty");
    }
    if pair.ends.contains(&pair.begin) {
        bail!("the probe that begins a wait cannot end it too");
    }
    if pair.by.is_none() && !(pair.names.is_empty() && pair.fleeting.is_empty()) {
        bail!("lock.names and lock.fleeting need lock.by: the argument that chooses one of them");
    }
    use_arguments(&mut pair)?;
    Ok(pair)
}

/// Gathers the arguments that are used.
fn use_arguments(pair: &mut Pair) -> Result<()> {
    let templates = || pair.name.iter().chain(pair.names.values());
    let mut texts: Vec<_> = templates().flat_map(Template::texts).collect();
    texts.sort_unstable();
    texts.dedup();
    if texts.len() > 1 {
        bail!("names may show the text of one argument only");
    }
    let text = texts.first().copied();
    let mut slots = pair.resource.clone();
    slots.extend(pair.addr);
    slots.extend(pair.by);
    slots.extend(pair.mode);
    slots.extend(templates().flat_map(Template::arguments));
    slots.extend(
        text.into_iter()
            .flat_map(|(at, len)| [Some(at), len])
            .flatten(),
    );
    let mut used = Vec::new();
    for slot in slots {
        if slot > MAX_ARGUMENT {
            bail!("argument {slot}: a probe has at most twelve, 0 to {MAX_ARGUMENT}");
        }
        if !used.contains(&slot) {
            used.push(slot);
        }
    }
    if used.len() > usdt::SLOTS {
        bail!(
            "{} different arguments are used, at most {} can be",
            used.len(),
            usdt::SLOTS
        );
    }
    (pair.slots, pair.text) = (used, text);
    Ok(())
}

#[cfg(test)]
mod tests;
