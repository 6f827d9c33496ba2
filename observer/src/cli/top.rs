//! `observer top`: the screen on the live host, or on an agent.

use std::{
    io::{IsTerminal, Write, stderr, stdin, stdout},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args as ClapArgs;
use crossterm::event::EventStream;
use futures_util::StreamExt;

use super::{
    live::{Pulse, runtime},
    remote::{self, Remote},
    select::Select,
    settings::Store,
    terminal::{Live, Pace, Recording, Terminal, save},
};
use crate::{
    capture::Options,
    event::{Event, Reason},
    model::Model,
    tui::{self, Action, Ui},
    watch::Watch,
};

/// How often the ring buffer is read.
const PERIOD: Duration = Duration::from_millis(50);
const LONG_WAIT: Duration = Duration::from_millis(100);

/// Arguments of `top`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
    /// Plain lines, for a screen reader: nothing is drawn over, and lines come when something changes
    #[arg(long)]
    plain: bool,
    /// Show what an agent observes, in place of this host: the agent's address, as https://HOST:9464. Read-only,
    /// and as the agent is configured
    #[arg(long, value_name = "URL", conflicts_with_all = OF_THIS_HOST)]
    remote: Option<String>,
    /// With --remote: the file that holds the agent's token
    #[arg(long, value_name = "FILE", requires = "remote")]
    token_file: Option<PathBuf>,
    /// With --remote: certificates (PEM) that the agent's is signed by, in place of the system's
    #[arg(long, value_name = "FILE", requires = "remote")]
    ca: Option<PathBuf>,
    /// With --remote: take any certificate. The token goes to whoever answers: over a forwarded port only
    #[arg(long, requires = "remote", conflicts_with = "ca")]
    insecure: bool,
}

/// What says what to observe, and how: an agent has its own configuration.
const OF_THIS_HOST: [&str; 17] = [
    "pids",
    "comms",
    "cgroups",
    "containers",
    "min_wait",
    "long_wait",
    "interval",
    "futex",
    "ring_kib",
    "lock_slots",
    "task_slots",
    "no_stacks",
    "max_overhead",
    "usdt",
    "usdt_attach",
    "rules",
    "verbose",
];

/// Runs until the user quits.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !stdout().is_terminal() || !stdin().is_terminal() {
        bail!(
            "`observer top` needs a terminal for its screen; `observer trace` writes to pipes and files"
        );
    }
    if args.select.verbose && stderr().is_terminal() {
        bail!(
            "`--verbose` writes to standard error, which is the screen's terminal: add `2>observer.log`"
        );
    }
    super::start_log(args.select.verbose);
    if let Some(url) = &args.remote {
        return remote::run(&Remote {
            url,
            token_file: args.token_file.as_deref(),
            ca: args.ca.as_deref(),
            insecure: args.insecure,
            duration: args.select.duration,
            plain: args.plain,
        });
    }
    runtime()?.block_on(watch(args))
}

/// Feeds the model and shows it.
async fn watch(args: &Args) -> Result<()> {
    // Before the screen is taken: an error then stands on the user's own terminal.
    let options = Options {
        // Their symbols take some 20 MiB, and the stacks of long waits, which are unwound, say more.
        stacks: false,
        ..args.select.options(LONG_WAIT)?
    };
    let thresholds = args.select.thresholds()?;
    let mut live = Watch::start_wide(options, !args.select.no_stacks, thresholds)?;
    let mut pulse = Pulse::new(PERIOD, args.select.duration, true)?;
    live.meta();
    let mut ui = Ui::new(tui::Options::from_environment());
    ui.set_host(Box::new(Live));
    let store = Store::find();
    if let Some(store) = &store {
        store.load(&mut ui);
    }
    let mut recording = None;
    let mut terminal = Terminal::take(args.plain)?;
    let mut keys = EventStream::new();
    let (mut pace, mut ended) = (Pace::default(), false);
    loop {
        let (mut redraw, mut asked) = (false, false);
        tokio::select! {
            key = keys.next() => match key {
                Some(Ok(key)) => {
                    let action = ui.on_event(key, live.model());
                    match act(action, &mut ui, &mut terminal, &mut recording, live.model())? {
                        Some(drawn) => asked = drawn,
                        None => break,
                    }
                }
                Some(Err(error)) => return Err(error).context("cannot read the terminal"),
                None => break,
            },
            reason = pulse.beat() => {
                if reason.is_some() {
                    break;
                }
                // What was seen stays on the screen when the observed processes have ended.
                ended = ended || feed(&mut live, &mut recording, &mut ui);
                redraw = pace.is_due(Instant::now());
            }
        }
        if redraw || asked {
            draw(
                &mut ui,
                &mut terminal,
                live.model(),
                redraw.then_some(&mut pace),
                asked,
            )?;
        }
    }
    drop(terminal);
    leave(store.as_ref(), &mut ui, recording)
}

/// Keeps how the screen was left, and ends the recording.
pub(super) fn leave(
    store: Option<&Store>,
    ui: &mut Ui,
    recording: Option<Recording>,
) -> Result<()> {
    if let Some(store) = store {
        store.save(ui);
    }
    if let Some(recording) = recording {
        let said = recording.stop()?;
        writeln!(stderr(), "{said}")?;
    }
    Ok(())
}

/// Draws the screen; with fresh rows, and so that the next time is not too soon, when it was due by itself.
fn draw(
    ui: &mut Ui,
    terminal: &mut Terminal,
    model: &Model,
    due: Option<&mut Pace>,
    asked: bool,
) -> Result<()> {
    let begun = Instant::now();
    if due.is_some() {
        ui.tick(model);
    }
    terminal.draw(ui, model, asked)?;
    if let Some(pace) = due {
        pace.drawn(begun, begun.elapsed());
    }
    Ok(())
}

/// Does what a key asked for; says whether the screen is to be drawn, and nothing when it is to end.
pub(super) fn act(
    action: Action,
    ui: &mut Ui,
    terminal: &mut Terminal,
    recording: &mut Option<Recording>,
    model: &Model,
) -> Result<Option<bool>> {
    match action {
        Action::Quit => return Ok(None),
        Action::None => return Ok(Some(false)),
        Action::Redraw => {}
        Action::Record => {
            let said = switch(recording, ui, model);
            ui.notice(said.unwrap_or_else(|error| format!("{error:#}")));
        }
        Action::Save(export) => ui.notice(save(&export)),
        Action::Copy(text) => terminal.copy(&text)?,
    }
    Ok(Some(true))
}

/// Starts recording, or stops it; says where.
fn switch(recording: &mut Option<Recording>, ui: &mut Ui, model: &Model) -> Result<String> {
    ui.set_recording(None);
    if let Some(running) = recording.take() {
        return running.stop();
    }
    let started = Recording::start(&ui.file_name(model), model)?;
    let said = format!("recording to {} in the current directory", started.name());
    ui.set_recording(Some(started.name().to_owned()));
    *recording = Some(started);
    Ok(said)
}

/// Takes what has happened; true when there will be no more.
fn feed(live: &mut Watch, recording: &mut Option<Recording>, ui: &mut Ui) -> bool {
    let mut events = Vec::new();
    live.set_silent(recording.is_none());
    while live.poll(&mut events) {
        record(&mut events, live.model(), recording, ui);
    }
    let ended = live.targets_ended();
    if ended {
        live.finish(Reason::TargetEnded, &mut events);
    } else {
        live.advance();
    }
    record(&mut events, live.model(), recording, ui);
    ended
}

/// Takes events to the recording. One that cannot be written ends; the screen goes on.
pub(super) fn record(
    events: &mut Vec<Event>,
    model: &Model,
    recording: &mut Option<Recording>,
    ui: &mut Ui,
) {
    if let Some(running) = recording
        && let Err(error) = running.take(events, model)
    {
        *recording = None;
        ui.set_recording(None);
        ui.notice(format!("{error:#}"));
    }
    events.clear();
}
