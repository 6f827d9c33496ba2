//! Incidents: the minutes before a trigger and the seconds after it, on disk, within a quota.
//!
//! An incident is a folder with `recording.jsonl.zst`, which `observer report` and `replay` read, and
//! `incident.json`, which says why. It has its name when it is whole; until then the name ends in `.part`.

mod folder;

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::folder::{Ages, PART, bytes_of, entries, id_of, is_ours};
pub use self::folder::{is_id, list, protect, recording};
use super::{
    config,
    recorder::{Recorder, has_room, write_file},
};
use crate::{
    event::Event,
    model::Model,
    record::{self, Limits, Writer},
    time::WallTime,
};

/// The recording of an incident.
pub const RECORDING: &str = "recording.jsonl.zst";
/// What says why it was written.
pub const ABOUT: &str = "incident.json";
/// Triggers that one incident lists.
const MAX_TRIGGERS: usize = 32;
const HOUR: Duration = Duration::from_hours(1);

/// Why an incident was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// `finding`, `blocked`, `goroutines`, `metric`, `request` or `signal`.
    pub kind: String,
    /// One sentence.
    pub why: String,
}

impl Trigger {
    /// One of a kind.
    pub fn new(kind: &str, why: impl Into<String>) -> Trigger {
        Trigger {
            kind: kind.to_owned(),
            why: why.into(),
        }
    }

    /// Did a person ask for it?
    fn is_asked_for(&self) -> bool {
        matches!(&*self.kind, "request" | "signal")
    }
}

/// What is said of an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Its name, that of its folder.
    pub id: String,
    /// Host name.
    pub host: String,
    /// When it was triggered.
    pub time: WallTime,
    /// Why; the first is the reason, the others came while it was recorded.
    pub triggers: Vec<Trigger>,
    /// Events in the recording.
    pub events: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What became of a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Began {
    /// An incident of this name is being recorded.
    New(String),
    /// One was being recorded already, and lists the trigger.
    Joined(String),
    /// It is too early for another one.
    TooEarly(String),
}

/// An incident that is being recorded.
struct Open {
    about: About,
    folder: PathBuf,
    writer: Writer,
    until: Instant,
}

/// All incidents.
pub struct Incidents {
    config: config::Incidents,
    open: Option<Open>,
    /// When those of the last hour began.
    began: VecDeque<Instant>,
    count: u64,
    ages: Ages,
}

impl Incidents {
    /// Takes up the folder, and removes what was not finished in it.
    pub fn new(config: config::Incidents) -> Incidents {
        for entry in entries(&config.dir) {
            if entry.extension().is_some_and(|end| end == PART) && is_ours(&entry) {
                let _ = fs::remove_dir_all(entry);
            }
        }
        Incidents {
            config,
            open: None,
            began: VecDeque::new(),
            count: 0,
            ages: Ages::default(),
        }
    }

    /// Takes another configuration; an incident that is being recorded ends as it began.
    pub fn set_config(&mut self, config: config::Incidents) {
        self.config = config;
    }

    /// Begins an incident, unless it is too early for one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(
        &mut self,
        trigger: Trigger,
        model: &Model,
        recorder: &mut Recorder,
    ) -> Result<Began> {
        if let Some(open) = &mut self.open {
            if open.about.triggers.len() < MAX_TRIGGERS {
                open.about.triggers.push(trigger);
            }
            return Ok(Began::Joined(open.about.id.clone()));
        }
        if let Some(why) = self.too_early(&trigger, Instant::now()) {
            return Ok(Began::TooEarly(why));
        }
        // A failed one counts too: a full disk is not to be tried at each finding.
        self.began.push_back(Instant::now());
        let open = self.start(trigger, model, recorder)?;
        let id = open.about.id.clone();
        self.open = Some(open);
        Ok(Began::New(id))
    }

    fn too_early(&mut self, trigger: &Trigger, now: Instant) -> Option<String> {
        while let Some(first) = self.began.front()
            && now.duration_since(*first) >= HOUR
        {
            self.began.pop_front();
        }
        if self.began.len() >= self.config.max_per_hour {
            return Some(format!("{} incidents in this hour", self.began.len()));
        }
        let last = self.began.back()?;
        let since = now.duration_since(*last);
        (!trigger.is_asked_for() && since < self.config.min_gap)
            .then(|| format!("the one before was {} s ago", since.as_secs()))
    }

    fn start(&mut self, trigger: Trigger, model: &Model, recorder: &mut Recorder) -> Result<Open> {
        let dir = self.config.dir.clone();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make the folder of incidents {}", dir.display()))?;
        let expected = recorder.bytes().saturating_mul(2) + (1 << 20);
        self.make_room(expected, 1);
        if !has_room(&dir, expected) {
            bail!(
                "cannot write an incident to {}: the disk is full",
                dir.display()
            );
        }
        let time = model.wall_time();
        let mut id;
        loop {
            self.count += 1;
            id = id_of(time, &trigger.kind, self.count);
            // A clock that was set back comes by the same time again.
            if !dir.join(&id).exists() {
                break;
            }
        }
        let folder = dir.join(format!("{id}.{PART}"));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let begun = begin_recording(&folder, model, recorder);
        if begun.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        Ok(Open {
            writer: begun?,
            about: About {
                id,
                host: model
                    .meta()
                    .map(|meta| meta.host.clone())
                    .unwrap_or_default(),
                time,
                triggers: vec![trigger],
                events: 0,
                bytes: 0,
            },
            folder,
            until: Instant::now() + self.config.after,
        })
    }

    /// Takes an event that came after the trigger.
    ///
    /// # Errors
    /// It cannot be written, and the incident is given up.
    pub fn see(&mut self, event: &Event) -> Result<()> {
        match &mut self.open {
            Some(open) => {
                let written = open.writer.write(event);
                self.or_give_up(written)
            }
            None => Ok(()),
        }
    }

    /// Is an incident being recorded whose time is over, or that has become as large as one may be?
    pub fn is_due(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            // Half of what all of them may be: it is not to push itself out.
            Instant::now() >= open.until || open.writer.bytes() >= self.config.max_bytes / 2
        })
    }

    /// Finishes the incident that is being recorded, if there is one, and tells of it.
    ///
    /// # Errors
    /// It cannot be written, and is given up.
    pub fn finish(&mut self) -> Result<Option<About>> {
        let Some(mut open) = self.open.take() else {
            return Ok(None);
        };
        let closed = close(&mut open, &self.config.dir);
        if closed.is_err() {
            let _ = fs::remove_dir_all(&open.folder);
        }
        closed?;
        // Its age counts from now on, whatever becomes of the clock.
        self.ages.begin(open.folder);
        Ok(Some(open.about))
    }

    fn or_give_up(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err()
            && let Some(open) = self.open.take()
        {
            let _ = fs::remove_dir_all(&open.folder);
        }
        result
    }

    /// Removes the oldest until there is room for so many bytes in so many more, and those that are too old.
    fn make_room(&mut self, expected: u64, to_come: usize) {
        let ours = entries(&self.config.dir).filter(|path| is_ours(path));
        let written = ours.filter_map(|path| {
            let about = fs::symlink_metadata(path.join(ABOUT)).ok()?;
            Some((path, about.modified().ok()))
        });
        let kept = self.ages.of(written, SystemTime::now(), Instant::now());
        let mut bytes = expected;
        for (at, (path, age)) in kept.into_iter().enumerate() {
            bytes = bytes.saturating_add(bytes_of(&path));
            if at + to_come >= self.config.max_count
                || bytes > self.config.max_bytes
                || age > self.config.keep
            {
                let _ = fs::remove_dir_all(path);
            }
        }
    }

    /// Removes those that are too old, and more of them than there may be.
    pub fn retire(&mut self) {
        self.make_room(0, 0);
    }
}

fn begin_recording(folder: &Path, model: &Model, recorder: &mut Recorder) -> Result<Writer> {
    let mut writer = Writer::create(&folder.join(RECORDING), false, Limits::default())?;
    let since_ns = recorder.since_ns().unwrap_or(u64::MAX);
    for event in record::snapshot(model) {
        // What came later is in the frames.
        if matches!(event, Event::Meta(_)) || event.mono_ns() < since_ns {
            writer.write(&event)?;
        }
    }
    for frame in recorder.frames()? {
        writer.append(&frame.bytes, frame.events)?;
    }
    Ok(writer)
}

fn close(open: &mut Open, dir: &Path) -> Result<()> {
    open.writer.sync()?;
    open.about.events = open.writer.events();
    open.about.bytes = open.writer.bytes();
    let about = serde_json::to_vec_pretty(&open.about)?;
    write_file(&open.folder.join(ABOUT), &about)?;
    let whole = dir.join(&open.about.id);
    fs::rename(&open.folder, &whole)
        .with_context(|| format!("cannot rename {}", open.folder.display()))?;
    open.folder = whole;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{
        event::{Cost, CostReport, Meta},
        record::Reader,
    };

    fn folder(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("observer-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn config(dir: &Path) -> config::Incidents {
        config::Incidents {
            dir: dir.to_owned(),
            after: Duration::ZERO,
            min_gap: Duration::ZERO,
            ..config::Incidents::default()
        }
    }

    fn cost(mono_ns: u64) -> Event {
        Event::from(CostReport {
            time: WallTime(mono_ns),
            mono_ns,
            cost: Cost::default(),
        })
    }

    fn known() -> (Model, Recorder) {
        let mut model = Model::default();
        let mut recorder = Recorder::new(Duration::from_mins(1), 1 << 20).unwrap();
        let meta: Meta = serde_json::from_str(
            r#"{"time":"2026-11-21T10:00:00.000000000Z","mono_ns":1,"schema":1,"observer":"0.1.0",
            "host":"h","kernel":"6","cpus":2,"filters":{"min_wait_ns":1,"long_wait_ns":1,"interval_ns":1},
            "capture":{"futex":"sched","attached":[],"task_slots":1,"lock_slots":1,"ring_bytes":1}}"#,
        )
        .unwrap();
        for event in [Event::from(meta), cost(2), cost(3)] {
            model.apply(event.clone());
            recorder.push(&event).unwrap();
        }
        (model, recorder)
    }

    fn count(path: &Path) -> usize {
        let mut reader = Reader::open(&path.join(RECORDING)).unwrap();
        std::iter::from_fn(|| reader.next_event().unwrap()).count()
    }

    #[test]
    fn an_incident_is_a_recording() {
        let dir = folder("incident");
        let (model, mut recorder) = known();
        let mut incidents = Incidents::new(config(&dir));
        let trigger = Trigger::new("request", "because");
        let began = incidents
            .begin(trigger.clone(), &model, &mut recorder)
            .unwrap();
        let Began::New(id) = began else {
            panic!("{began:?}")
        };
        assert!(is_id(&id), "{id}");
        let joined = incidents.begin(trigger, &model, &mut recorder).unwrap();
        assert_eq!(joined, Began::Joined(id.clone()));
        incidents.see(&cost(4)).unwrap();
        assert!(list(&dir).is_empty());
        let about = incidents.finish().unwrap().unwrap();
        assert_eq!((about.triggers.len(), &*about.host), (2, "h"));
        assert_eq!(list(&dir), [about]);
        let path = dir.join(&id);
        // `meta` stands at the front and in the ring.
        assert_eq!(count(&path), 5);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&path)), (0o700, 0o700));
        assert_eq!(mode(&path.join(RECORDING)), 0o600);
        assert_eq!(mode(&path.join(ABOUT)), 0o600);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn quotas_and_rates() {
        let dir = folder("quota");
        let (model, mut recorder) = known();
        let mut config = config(&dir);
        (config.max_count, config.max_per_hour) = (3, 6);
        let mut incidents = Incidents::new(config.clone());
        let mut names = Vec::new();
        for _ in 0..6 {
            let trigger = Trigger::new("finding", "x");
            incidents.begin(trigger, &model, &mut recorder).unwrap();
            names.push(incidents.finish().unwrap().unwrap().id);
            incidents.retire();
            assert_eq!(list(&dir).len(), names.len().min(3));
        }
        let left: Vec<bool> = names.iter().map(|name| dir.join(name).exists()).collect();
        assert_eq!(left, [false, false, false, true, true, true]);
        let more = incidents.begin(Trigger::new("request", "x"), &model, &mut recorder);
        assert!(matches!(more, Ok(Began::TooEarly(_))), "{more:?}");

        // The only one that there may be stays.
        config.max_count = 1;
        Incidents::new(config.clone()).retire();
        assert_eq!(list(&dir).len(), 1);
        assert!(dir.join(&names[5]).exists());

        // The same time comes by again in another run.
        (config.max_count, config.max_per_hour) = (50, 50);
        let mut again = Incidents::new(config.clone());
        for count in 2..8 {
            let trigger = Trigger::new("finding", "x");
            again.begin(trigger, &model, &mut recorder).unwrap();
            again.finish().unwrap();
            assert_eq!(list(&dir).len(), count);
        }

        config.min_gap = Duration::from_mins(1);
        config.max_bytes = 1;
        let mut incidents = Incidents::new(config);
        let begin = |incidents: &mut Incidents, kind, recorder: &mut Recorder| {
            incidents
                .begin(Trigger::new(kind, "x"), &model, recorder)
                .unwrap()
        };
        assert!(matches!(
            begin(&mut incidents, "finding", &mut recorder),
            Began::New(_)
        ));
        // No room for those before.
        assert!(list(&dir).is_empty());
        incidents.finish().unwrap();
        assert!(matches!(
            begin(&mut incidents, "finding", &mut recorder),
            Began::TooEarly(_)
        ));
        assert!(matches!(
            begin(&mut incidents, "signal", &mut recorder),
            Began::New(_)
        ));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn one_that_has_become_too_large_ends() {
        let dir = folder("large");
        let (model, mut recorder) = known();
        for (max_bytes, ends) in [(1 << 30, false), (2, true)] {
            let config = config::Incidents {
                after: Duration::from_mins(10),
                max_bytes,
                ..config(&dir)
            };
            let mut incidents = Incidents::new(config);
            let trigger = Trigger::new("finding", "x");
            incidents.begin(trigger, &model, &mut recorder).unwrap();
            assert_eq!(incidents.is_due(), ends);
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_was_not_finished_is_removed() {
        let dir = folder("part");
        fs::create_dir_all(dir.join("20261121T161003Z-finding-1.part")).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        protect(&dir);
        let mode = || fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        // What others keep there is theirs, and so is the folder then.
        fs::create_dir_all(dir.join("x.part")).unwrap();
        fs::create_dir_all(dir.join("backup-of-1")).unwrap();
        fs::write(dir.join("backup-of-1").join(ABOUT), "{}").unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        protect(&dir);
        assert_eq!(mode(), 0o755);
        let mut few = config(&dir);
        few.max_bytes = 0;
        Incidents::new(few).retire();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        let mut unwritable = config(Path::new("/proc/none"));
        unwritable.min_gap = Duration::ZERO;
        let (model, mut recorder) = known();
        let mut incidents = Incidents::new(unwritable);
        assert!(
            incidents
                .begin(Trigger::new("finding", "x"), &model, &mut recorder)
                .is_err()
        );
        fs::remove_dir_all(dir).unwrap();
        for name in ["", "..", "a/b", "x.part", &"a".repeat(81)] {
            assert!(!is_id(name));
        }
    }
}
