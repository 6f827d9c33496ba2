//! `observer top`: the screen on the live host.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use crossterm::event::EventStream;
use futures_util::StreamExt;

use super::{
    live::{Pulse, runtime},
    select::Select,
};
use crate::{
    capture::Capture,
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
    use std::io::IsTerminal;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        anyhow::bail!(
            "`observer top` needs a terminal for its screen; `observer trace` writes to pipes and files"
        );
    }
    super::start_log(args.select.verbose);
    let mut model = Model::default();
    runtime()?.block_on(async {
        // Before the screen is taken: an error then stands on the user's own terminal.
        let mut capture = Capture::start(args.select.options(LONG_WAIT))?;
        let mut pulse = Pulse::new(PERIOD, args.select.duration)?;
        model.apply(capture.meta());
        let mut ui = Ui::new(tui::Options::from_environment());
        let mut screen = tui::enter().context("cannot take over the terminal")?;
        let mut keys = EventStream::new();
        let mut events = Vec::new();
        let (mut beats, mut ended) = (0u32, false);
        loop {
            let mut redraw = false;
            tokio::select! {
                key = keys.next() => match key {
                    Some(Ok(key)) => match ui.on_event(key, &model) {
                        Action::Quit => break,
                        Action::Redraw => redraw = true,
                        Action::None => {}
                    },
                    Some(Err(error)) => return Err(error).context("cannot read the terminal"),
                    None => break,
                },
                reason = pulse.beat() => {
                    if reason.is_some() {
                        break;
                    }
                    if !ended {
                        while capture.poll(&mut events) {
                            events.drain(..).for_each(|event| model.apply(event));
                        }
                        ended = capture.targets_ended();
                        if ended {
                            capture.finish(Reason::TargetEnded, &mut events);
                        } else {
                            model.advance(crate::time::mono_ns());
                        }
                        events.drain(..).for_each(|event| model.apply(event));
                    }
                    beats += 1;
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
        Ok(())
    })
}
