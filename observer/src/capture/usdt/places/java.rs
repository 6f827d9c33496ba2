//! What a Java virtual machine's own functions tell where its probes pass nothing, and machines that are just loaded.

use std::time::{Duration, Instant};

use super::{
    super::{
        monitors::{self, Library},
        spec,
    },
    Attacher, Found,
};
use crate::{
    event::Missing,
    inspect::usdt::{Probe, functions::Symbols},
    runtimes::jvm::contended::{self, Contended},
};

/// A Java virtual machine that is just loaded is tried again for so long: what it says of itself is filled in by its
/// loader.
pub(super) const EARLY: Duration = Duration::from_secs(2);
/// Files that are kept for that.
const MAX_EARLY: usize = 16;

/// A Java virtual machine's own symbols.
pub(super) struct Java {
    /// The pair of which its functions tell.
    pub(super) number: u32,
    /// When it was met.
    pub(super) since: Instant,
    pub(super) symbols: Result<Symbols, String>,
}

/// A file of which it is too early to tell everything.
pub(super) struct Early {
    pub(super) found: Found,
    pub(super) java: Java,
}

impl Attacher {
    /// Its loader has just begun to change a file, which may tell more in a moment. What was read of it need not be
    /// read again.
    pub(super) fn keep(&mut self, early: Early) {
        if self.early.len() >= MAX_EARLY {
            let oldest = self.early.iter().min_by_key(|(_, early)| early.java.since);
            if let Some(identity) = oldest.map(|(identity, _)| *identity) {
                self.early.remove(&identity);
                self.finder.take_back(identity);
            }
        }
        self.early.insert(early.found.identity, early);
    }

    /// The symbols of a Java virtual machine whose own functions tell what a pair does where its probes pass nothing.
    pub(super) fn java(&self, found: &Found) -> Option<Java> {
        let number = self.pairs.iter().position(|pair| {
            let has = |probe: &Probe| probe.provider == pair.provider && probe.name == pair.begin;
            contended::is_told_by(pair) && found.binary.probes.iter().any(has)
        })?;
        Some(Java {
            number: number as u32,
            since: Instant::now(),
            symbols: monitors::symbols(found),
        })
    }

    /// Tells the kernel program of these places, and what they are for.
    pub(super) fn library(
        &mut self,
        found: &Found,
        number: u32,
        places: Result<Contended, String>,
    ) -> Option<Library> {
        let probe = self.pairs.get(number as usize)?.probe();
        let feature = format!(
            "usdt/{probe} in {} without -XX:+DTraceMonitorProbes",
            found.path
        );
        let places = match places {
            Ok(places) => places,
            Err(why) => {
                self.told.missing.push(Missing { feature, why });
                return None;
            }
        };
        let end = self.want_place(found, &places.end, spec::end(number, 0))?;
        let cookie = self.places;
        let begin = self.want_place(found, &places.begin, monitors::begin(number))?;
        if let Err(error) = self.monitors.as_mut()?.tell(cookie, places.monitor) {
            let why = format!("cannot tell the kernel program of it: {error}");
            self.told.missing.push(Missing { feature, why });
            return None;
        }
        if let Some(why) = places.unnamed {
            let feature = format!("classes of monitors in {}", found.path);
            self.told.missing.push(Missing { feature, why });
        }
        self.told.attached.push(format!(
            "usdt/{probe} in {} by {} where its probes are off",
            found.path, places.begin.name
        ));
        Some(Library {
            path: found.path.clone(),
            begin: begin.place,
            end: end.place,
            pair: number,
        })
    }
}
