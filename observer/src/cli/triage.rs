//! `observer triage`: what to run when one is paged. It watches for a while, looks at everything once, and tells.

use std::{
    io::{self, BufWriter, IsTerminal, Write, stderr, stdout},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args as ClapArgs;

use super::{
    FailOn,
    live::{Pulse, runtime},
    note,
    report::Format,
    select::Select,
};
use crate::{
    capture::{Options, Unsupported},
    event::{Event, Reason},
    model::Model,
    record::{Limits, Writer},
    report::{gather::Gathered, incident::Incident},
    rules::Thresholds,
    runtimes::packs,
    time::human,
    triage::{
        self,
        bundle::{Bundle, RECORDING, REPORTS},
    },
    watch::Watch,
};

/// How often the ring buffer is read.
const PERIOD: Duration = Duration::from_millis(20);
/// How often the progress is drawn.
const PROGRESS: Duration = Duration::from_millis(250);
const DURATION: Duration = Duration::from_secs(10);
const LONG_WAIT: Duration = Duration::from_secs(1);
/// Columns of the bar.
const BAR: usize = 24;

/// Arguments of `triage`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  \
    sudo observer triage                            the host, for ten seconds\n  \
    sudo observer triage -p 1234 -d 5s              one process\n  \
    sudo observer triage -p 1234 -o incident        report, recording, dump and facts, and incident.tar.gz\n  \
    sudo observer triage --format html > report.html\n  \
    sudo observer triage --format json | jq -r '.summary[]'\n  \
    sudo observer triage -p 1234 --fail-on deadlock > report.txt || page-somebody\n\n\
    -d is 10s if it is not given. Ctrl-C ends the watch sooner; the report comes nevertheless.")]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
    /// Form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Make an incident bundle: this directory and DIR.tar.gz
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace the files of a bundle that exists
    #[arg(long)]
    force: bool,
    /// Exit with code 10 if there is one
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
}

/// Watches, looks, reports.
pub(crate) fn run(args: &Args) -> Result<()> {
    super::start_log(args.select.verbose);
    let mut options = args.select.options(LONG_WAIT)?;
    if args.select.usdt.is_empty() && triage::has_postgres(&options) {
        options.usdt = packs::load(&["postgresql".to_owned()])?;
    }
    let look = Options {
        usdt: Vec::new(),
        ..options.clone()
    };
    let thresholds = args.select.thresholds()?;
    match Watch::start(options, !args.select.no_stacks) {
        Ok(mut watch) => {
            watch.set_thresholds(thresholds);
            watched(args, watch, &look, thresholds)
        }
        Err(error) if error.is::<Unsupported>() => unwatched(args, &look, thresholds, error),
        Err(error) => Err(error),
    }
}

fn watched(args: &Args, mut watch: Watch, look: &Options, thresholds: Thresholds) -> Result<()> {
    let duration = args.select.duration.unwrap_or(DURATION);
    let mut bundle = bundle(args)?;
    let recording = match &mut bundle {
        Some(bundle) => Some(Writer::create(
            &bundle.reserve(RECORDING),
            false,
            Limits::default(),
        )?),
        None => None,
    };
    let mut progress = Progress::new(duration);
    let mut sink = Sink {
        gathered: Gathered::default(),
        recording,
        trouble: None,
    };
    runtime()?.block_on(observe(&mut watch, duration, &mut sink, &mut progress))?;
    progress.say("looking at every thread");
    let scene = triage::look(look, thresholds, watch.model());
    progress.say("writing the report");
    let incident = Incident::new(watch.model(), sink.gathered, Vec::new(), scene);
    tell(args, &incident, bundle, sink.trouble, &progress)
}

/// The kernel or the privileges allow no watch: what one look tells is better than nothing, and is said to be no more.
/// `why`: what is returned if there is nothing to look at either.
fn unwatched(
    args: &Args,
    look: &Options,
    thresholds: Thresholds,
    why: anyhow::Error,
) -> Result<()> {
    let progress = Progress::new(Duration::ZERO);
    progress.say("looking at every thread");
    let mut scene = triage::look(look, thresholds, &Model::default());
    let dump = scene.dump.as_ref().filter(|dump| !dump.tasks.is_empty());
    let Some(model) = dump.map(|dump| dump.model.clone()) else {
        progress.clear();
        return Err(why);
    };
    scene.unwatched = Some(format!("{why:#}"));
    let incident = Incident::new(&model, Gathered::default(), Vec::new(), scene);
    tell(args, &incident, bundle(args)?, None, &progress)
}

fn bundle(args: &Args) -> Result<Option<Bundle>> {
    let folder = args.output.as_ref();
    folder
        .map(|folder| Bundle::create(folder, args.force))
        .transpose()
}

/// Writes the report, and the bundle.
fn tell(
    args: &Args,
    incident: &Incident<'_>,
    bundle: Option<Bundle>,
    trouble: Option<anyhow::Error>,
    progress: &Progress,
) -> Result<()> {
    let made = bundle.map(|bundle| fill(bundle, incident, &args.select.pids));
    progress.clear();
    let mut out = BufWriter::new(stdout().lock());
    args.format.write(&mut out, incident)?;
    out.flush()?;
    let (archive, errors) = made.unwrap_or_default();
    if let Some(archive) = archive {
        note(&format!("the bundle is in {}", archive.display()));
    }
    let mut trouble: Vec<_> = trouble.into_iter().chain(errors).collect();
    if let Some(last) = trouble.pop() {
        for error in &trouble {
            note(&format!("{error:#}"));
        }
        return Err(last);
    }
    FailOn::check(
        args.fail_on,
        incident.deadlock_count(),
        incident.findings().len(),
    )
}

async fn observe(
    watch: &mut Watch,
    duration: Duration,
    sink: &mut Sink,
    progress: &mut Progress,
) -> Result<()> {
    let mut pulse = Pulse::new(PERIOD, Some(duration), false)?;
    let mut events = vec![watch.meta()];
    let reason = loop {
        sink.take(&mut events, watch.model());
        progress.show(watch.model());
        if let Some(reason) = pulse.beat().await {
            break reason;
        }
        if !watch.poll(&mut events) && watch.targets_ended() {
            break Reason::TargetEnded;
        }
    };
    watch.finish(reason, &mut events);
    sink.take(&mut events, watch.model());
    sink.close();
    Ok(())
}

/// Where the events go.
struct Sink {
    gathered: Gathered,
    recording: Option<Writer>,
    /// Why there is no more recording: the report comes nevertheless.
    trouble: Option<anyhow::Error>,
}

impl Sink {
    fn take(&mut self, events: &mut Vec<Event>, model: &Model) {
        for event in events.drain(..) {
            self.gathered.see(&event);
            let write = |writer: &mut Writer| writer.write(&event);
            self.try_recording(write);
        }
        self.try_recording(Writer::tick);
        self.try_recording(|writer| writer.mark(model));
    }

    fn close(&mut self) {
        self.try_recording(Writer::flush);
        self.recording = None;
    }

    fn try_recording(&mut self, act: impl FnOnce(&mut Writer) -> Result<()>) {
        if let Some(writer) = &mut self.recording
            && let Err(error) = act(writer)
        {
            self.recording = None;
            self.trouble = Some(error);
        }
    }
}

/// The archive, if it could be made, and what went wrong.
fn fill(
    mut bundle: Bundle,
    incident: &Incident<'_>,
    pids: &[u32],
) -> (Option<PathBuf>, Vec<anyhow::Error>) {
    let forms = [Format::Html, Format::Md, Format::Json];
    for (file, form) in REPORTS.into_iter().zip(forms) {
        bundle.add(file, |mut out| form.write(&mut out, incident));
    }
    bundle.add_facts(incident.scene.dump.as_ref(), pids);
    bundle.pack()
}

/// A line on the terminal with a bar, written over and over.
struct Progress {
    terminal: bool,
    began: Instant,
    next: Instant,
    duration: Duration,
}

impl Progress {
    fn new(duration: Duration) -> Progress {
        Progress {
            terminal: stderr().is_terminal(),
            began: Instant::now(),
            next: Instant::now(),
            duration,
        }
    }

    fn show(&mut self, model: &Model) {
        if !self.terminal || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + PROGRESS;
        let elapsed = self.began.elapsed().min(self.duration);
        let part = elapsed.as_secs_f64() / self.duration.as_secs_f64().max(f64::MIN_POSITIVE);
        let full = ((part * BAR as f64) as usize).min(BAR);
        let lost = model.loss().map_or(0, |loss| loss.total);
        draw(&format!(
            "watching [{}{}] {} of {}, {} waits, lost {lost}, findings {}",
            "#".repeat(full),
            "-".repeat(BAR - full),
            human(elapsed.as_nanos() as u64),
            human(self.duration.as_nanos() as u64),
            model.long_waits(),
            model.findings().len()
        ));
    }

    fn say(&self, text: &str) {
        if self.terminal {
            draw(text);
        }
    }

    fn clear(&self) {
        if self.terminal {
            draw("");
        }
    }
}

fn draw(text: &str) {
    // A terminal that went away is no reason to end.
    let _: io::Result<()> = write!(stderr(), "\r\x1b[K{text}").and_then(|()| stderr().flush());
}
