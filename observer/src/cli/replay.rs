//! `observer replay`: the screen on a recording. Needs no root.

use std::{
    io::{IsTerminal, stdin, stdout},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use crossterm::event::{Event as Input, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;

use super::{
    live::{Pulse, runtime},
    select::thresholds,
    terminal::{Terminal, save},
};
use crate::{
    record::Replay,
    time::human,
    tui::{self, Action, Ui},
};

/// How often time moves on.
const PERIOD: Duration = Duration::from_millis(50);
/// Beats between two redraws: five a second.
const REDRAW: u32 = 4;
/// How far the arrows go.
const SEEK_NS: u64 = 10_000_000_000;
/// Events that are taken before the keys are looked at again.
const BATCH: usize = 50_000;

/// Arguments of `replay`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Keys, beside those of the screen: Space plays and pauses, Right and Left go 10 s \
    forward and back, f goes to the next finding, E to the end, + and - change the speed.\n\n\
    Examples:\n  \
    observer replay run.jsonl.zst\n  \
    observer replay run.jsonl.zst --speed 10\n  \
    observer replay run.jsonl.zst --end          what was there when the recording ended"
)]
pub(crate) struct Args {
    /// The recording
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// So many times as fast as it happened
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Plain lines, for a screen reader: nothing is drawn over, and lines come when something changes
    #[arg(long)]
    plain: bool,
    /// Begin at the end of the recording
    #[arg(long)]
    end: bool,
    /// Show what the rules find with other thresholds, in TOML, in place of the recording's findings: see
    /// docs/rules.md
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('x').parse::<f64>() {
        Ok(speed) if (0.01..=10_000.0).contains(&speed) => Ok(speed),
        _ => Err(format!("`{text}` is no speed; write it like 0.5 or 10")),
    }
}

/// Runs until the user quits.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !stdout().is_terminal() || !stdin().is_terminal() {
        bail!(
            "`observer replay` needs a terminal for its screen; `observer report` writes to pipes and files"
        );
    }
    let player = Player::open(args)?;
    runtime()?.block_on(show(player, args))
}

/// Where the playing is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// On, with the clock.
    Play,
    /// Nowhere.
    Pause,
    /// As fast as can be, to the next finding.
    Finding,
    /// The same, to the end.
    End,
}

/// A recording that is being played.
struct Player {
    replay: Replay,
    goal: Goal,
    speed: f64,
    start_ns: u64,
    /// How far the playing is to be by now.
    until_ns: u64,
    last: Instant,
    /// Something to say once.
    said: Option<&'static str>,
}

impl Player {
    fn open(args: &Args) -> Result<Player> {
        let mut replay = Replay::open(&args.recording)?;
        match &args.rules {
            Some(path) => replay.judge_anew(thresholds(Some(path))?),
            None => replay.as_recorded(),
        }
        let start_ns = replay.next_ns().unwrap_or(0);
        Ok(Player {
            replay,
            goal: Goal::Play,
            speed: args.speed,
            start_ns,
            until_ns: start_ns,
            last: Instant::now(),
            said: None,
        })
    }

    /// Lets the time pass that has passed, and takes the events of it. True: there is more to do right now.
    fn go_on(&mut self) -> Result<bool> {
        let passed = self.last.elapsed();
        self.last = Instant::now();
        let over = self.replay.next_ns().is_none();
        if over && self.goal == Goal::Finding {
            self.said = Some("there is no later finding: this is the end of the recording");
        }
        match self.goal {
            Goal::Play | Goal::Finding | Goal::End if over => self.goal = Goal::Pause,
            Goal::Play => {
                let ns = passed.as_nanos() as f64 * self.speed;
                self.until_ns = self.until_ns.saturating_add(ns as u64);
            }
            Goal::Pause | Goal::Finding | Goal::End => {}
        }
        let fast = matches!(self.goal, Goal::Finding | Goal::End);
        for _ in 0..BATCH {
            let due = self
                .replay
                .next_ns()
                .is_some_and(|at| fast || at <= self.until_ns);
            if !due {
                self.arrive();
                return Ok(false);
            }
            let found = self.replay.step()?;
            if fast {
                self.until_ns = self.until_ns.max(self.replay.model().now_ns());
            }
            if found == Some(true) && self.goal == Goal::Finding {
                self.goal = Goal::Pause;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All events up to now are there.
    fn arrive(&mut self) {
        if self.replay.next_ns().is_some() {
            self.replay.advance(self.until_ns);
        } else {
            // Time ends with the recording.
            self.until_ns = self.replay.model().now_ns();
        }
    }

    fn seek(&mut self, forward: bool) -> Result<()> {
        self.until_ns = if forward {
            self.until_ns.saturating_add(SEEK_NS)
        } else {
            self.until_ns.saturating_sub(SEEK_NS).max(self.start_ns)
        };
        self.replay.seek(self.until_ns)
    }

    fn seek_end(&mut self) -> Result<()> {
        self.goal = Goal::End;
        self.replay.seek(u64::MAX)
    }

    /// Does what a key asks for; false if it is none of the replay's.
    fn key(&mut self, code: KeyCode) -> Result<bool> {
        match code {
            KeyCode::Char(' ') => {
                self.goal = match self.goal {
                    Goal::Pause => Goal::Play,
                    _ => Goal::Pause,
                }
            }
            KeyCode::Right => self.seek(true)?,
            KeyCode::Left => self.seek(false)?,
            KeyCode::Char('f') => self.goal = Goal::Finding,
            KeyCode::Char('E') => self.seek_end()?,
            KeyCode::Char('+') => self.speed = (self.speed * 2.0).min(10_000.0),
            KeyCode::Char('-') => self.speed = (self.speed / 2.0).max(0.01),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// For the top of the screen.
    fn note(&self) -> String {
        let at = human(self.until_ns.saturating_sub(self.start_ns));
        let state = match self.goal {
            Goal::Play => "playing",
            Goal::Pause if self.replay.next_ns().is_none() => "at its end",
            Goal::Pause => "paused",
            Goal::Finding | Goal::End => "searching",
        };
        let unread = self.replay.unread();
        let holes = if unread.notes().is_empty() {
            ""
        } else {
            ", not all could be read"
        };
        format!("REPLAY {state} x{} at {at}{holes}", self.speed)
    }
}

async fn show(mut player: Player, args: &Args) -> Result<()> {
    if args.end {
        player.seek_end()?;
    }
    let mut pulse = Pulse::new(PERIOD, None, true)?;
    let mut ui = Ui::new(tui::Options::from_environment());
    ui.set_replayed();
    let mut terminal = Terminal::take(args.plain)?;
    let mut keys = EventStream::new();
    let mut beats = 0u32;
    loop {
        let (mut redraw, mut asked) = (false, false);
        tokio::select! {
            input = keys.next() => match input {
                Some(Ok(input)) => {
                    let own = match own_key(&input, &ui) {
                        Some(code) => player.key(code)?,
                        None => false,
                    };
                    asked = true;
                    if own {
                        ui.answered();
                    } else {
                        match ui.on_event(input, player.replay.model()) {
                            Action::Quit => return Ok(()),
                            Action::None => asked = false,
                            action => carry_out(action, &mut ui, &mut terminal)?,
                        }
                    }
                }
                Some(Err(error)) => return Err(error).context("cannot read the terminal"),
                None => return Ok(()),
            },
            reason = pulse.beat() => {
                if reason.is_some() {
                    return Ok(());
                }
                beats = beats.wrapping_add(1);
                redraw = beats % REDRAW == 1;
            }
        }
        player.go_on()?;
        if let Some(said) = player.said.take() {
            ui.notice(said.to_owned());
            asked = true;
        }
        if redraw || asked {
            ui.set_note(Some(player.note()));
            ui.tick(player.replay.model());
            terminal.draw(&mut ui, player.replay.model(), asked)?;
        }
    }
}

/// Does what the screen asks for.
fn carry_out(action: Action, ui: &mut Ui, terminal: &mut Terminal) -> Result<()> {
    match action {
        Action::Record => ui.notice("this is a recording already".to_owned()),
        Action::Save(export) => ui.notice(save(&export)),
        Action::Copy(text) => terminal.copy(&text)?,
        Action::Redraw | Action::Quit | Action::None => {}
    }
    Ok(())
}

/// The key, if it may be one of the replay's.
fn own_key(input: &Input, ui: &Ui) -> Option<KeyCode> {
    match input {
        Input::Key(key)
            if key.kind != KeyEventKind::Release
                && !key
                    .modifiers
                    .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
                && !ui.takes_text() =>
        {
            Some(key.code)
        }
        _ => None,
    }
}
