//! `observer top`: the screen on the live host.

use std::{
    io::{IsTerminal, stderr, stdin, stdout},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use crossterm::event::EventStream;
use futures_util::StreamExt;

use super::{
    live::{Pulse, runtime},
    select::Select,
};
use crate::{
    capture::{Capture, Options},
    event::Reason,
    model::Model,
    tui::{self, Action, Ui},
};

/// How often the ring buffer is read.
const PERIOD: Duration = Duration::from_millis(50);
/// Beats between two redraws without input: five a second.
const REDRAW: u32 = 4;
const LONG_WAIT: Duration = Duration::from_millis(100);

/// Arguments of `top`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    select: Select,
}

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
    runtime()?.block_on(watch(args))
}

/// Feeds the model and shows it.
async fn watch(args: &Args) -> Result<()> {
    // Before the screen is taken: an error then stands on the user's own terminal.
    let options = Options {
        // No view shows them, and their symbols take memory.
        stacks: false,
        ..args.select.options(LONG_WAIT)
    };
    let mut capture = Capture::start(options)?;
    let mut pulse = Pulse::new(PERIOD, args.select.duration, true)?;
    let mut model = Model::default();
    model.apply(capture.meta());
    let mut ui = Ui::new(tui::Options::from_environment());
    let mut screen = tui::enter().context("cannot take over the terminal")?;
    let mut keys = EventStream::new();
    let (mut beats, mut ended) = (0u32, false);
    loop {
        let mut redraw = false;
        tokio::select! {
            key = keys.next() => match key {
                Some(Ok(key)) => match ui.on_event(key, &model) {
                    Action::Quit => return Ok(()),
                    Action::Redraw => redraw = true,
                    Action::None => {}
                },
                Some(Err(error)) => return Err(error).context("cannot read the terminal"),
                None => return Ok(()),
            },
            reason = pulse.beat() => {
                if reason.is_some() {
                    return Ok(());
                }
                // What was seen stays on the screen when the observed processes have ended.
                ended = ended || feed(&mut capture, &mut model);
                beats = beats.wrapping_add(1);
                if beats % REDRAW == 1 {
                    ui.tick(&model);
                    redraw = true;
                }
            }
        }
        if redraw {
            screen.draw(&mut ui, &model)?;
        }
    }
}

/// Moves what has happened from the capture to the model; true when there will be no more.
fn feed(capture: &mut Capture, model: &mut Model) -> bool {
    let mut events = Vec::new();
    while capture.poll(&mut events) {
        events.drain(..).for_each(|event| model.apply(event));
    }
    let ended = capture.targets_ended();
    if ended {
        capture.finish(Reason::TargetEnded, &mut events);
    } else {
        model.advance(crate::time::mono_ns());
    }
    events.drain(..).for_each(|event| model.apply(event));
    ended
}
