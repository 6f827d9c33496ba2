//! `observer top --remote URL`: the screen on an agent, read-only. Needs no root.
//!
//! The agent's stream of events is the source, and begins with what the agent knows. When the connection breaks, or the
//! agent says that it dropped lines because they were read too slowly, a new one begins, and so does a new model: one
//! that misses ends of waits would show tasks as blocked that are not.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use crossterm::event::EventStream;
use futures_util::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    live::{Pulse, runtime},
    settings::Store,
    terminal::{Recording, Terminal},
    top::{act, leave, record},
};
use crate::{
    client::{Client, Trust, read_token},
    event::Event,
    model::Model,
    tui::{self, Ui},
};

const PATH: &str = "/api/v1/events?snapshot=true";
/// How often events are taken.
const PERIOD: Duration = Duration::from_millis(50);
/// Beats between two redraws: five a second.
const REDRAW: u32 = 4;
/// Events that wait to be taken: then the agent is read more slowly.
const QUEUE: usize = 8_192;
/// An agent tells its totals more often than this.
const PATIENCE: Duration = Duration::from_mins(2);
/// Time until the next try to connect; doubled for each one that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What the agent counts lines as that this reader was too slow for.
const LAGGED: &str = "stream_lagged";

/// Where the agent is, and how to speak to it.
pub(super) struct Remote<'a> {
    pub(super) url: &'a str,
    pub(super) token_file: Option<&'a Path>,
    pub(super) ca: Option<&'a Path>,
    /// Believe any certificate.
    pub(super) insecure: bool,
    pub(super) duration: Option<Duration>,
    pub(super) plain: bool,
}

/// What comes from the agent.
enum Update {
    /// A new stream begins, and with it a new model.
    Began,
    Event(Box<Event>),
    /// It is over, for this reason.
    Lost(String),
    /// Lines were missed.
    Behind(u64),
}

/// Runs until the user quits.
pub(super) fn run(remote: &Remote<'_>) -> Result<()> {
    let token = remote.token_file.map(read_token).transpose()?;
    let trust = if remote.insecure {
        Trust::Anybody
    } else {
        Trust::File(remote.ca)
    };
    let client = Client::open(remote.url, trust, token).context("--remote")?;
    let target = client.target();
    if !target.is_encrypted() && !target.is_local() && remote.token_file.is_some() {
        bail!(
            "--remote {target}: the token would go there without encryption; use https://, or forward the port"
        );
    }
    runtime()?.block_on(show(client, remote))
}

/// Reads streams, one after the other, as long as somebody takes what comes.
async fn read(client: Client, updates: mpsc::Sender<Update>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let why = match stream(&client, &updates).await {
            Ok(()) => "the agent ended the stream".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if updates.send(Update::Lost(why)).await.is_err() {
            return;
        }
        // One that went well for a while is worth an early try.
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn stream(client: &Client, updates: &mpsc::Sender<Update>) -> Result<()> {
    let mut lines = client.stream(PATH, "application/x-ndjson").await?;
    match lines.status.as_u16() {
        200 => {}
        401 => bail!("the agent wants its token: --token-file"),
        status => bail!("the agent answers {status}"),
    }
    updates.send(Update::Began).await?;
    while let Some(line) = lines.next(PATIENCE).await? {
        // Types of events that are not known are left out.
        let Ok(event) = serde_json::from_slice::<Event>(&line) else {
            continue;
        };
        if let Event::Loss(loss) = &event
            && let Some(missed) = loss.counters.get(LAGGED)
        {
            updates.send(Update::Behind(*missed)).await?;
            // What was missed is made good by a new beginning.
            bail!("this reader is too slow, and begins anew");
        }
        updates.send(Update::Event(Box::new(event))).await?;
    }
    Ok(())
}

/// The agent's state, as far as it was read.
struct Mirror {
    updates: mpsc::Receiver<Update>,
    model: Model,
    name: String,
    /// Why there is nothing new.
    lost: Option<String>,
    missed: u64,
    /// The agent's clock, and when it said so.
    clock: Option<(u64, Instant)>,
}

impl Mirror {
    fn new(name: String, updates: mpsc::Receiver<Update>) -> Mirror {
        Mirror {
            updates,
            model: Model::default(),
            name,
            lost: Some("connecting".to_owned()),
            missed: 0,
            clock: None,
        }
    }

    /// Takes what has come, and lets time go on.
    fn take(&mut self, recording: &mut Option<Recording>, ui: &mut Ui) {
        let mut events = Vec::new();
        for _ in 0..QUEUE {
            match self.updates.try_recv() {
                Ok(Update::Began) => {
                    self.model = Model::default();
                    (self.lost, self.clock) = (None, None);
                }
                Ok(Update::Event(event)) => {
                    let now_ns = event.mono_ns();
                    if self.clock.is_none_or(|(latest, _)| now_ns > latest) {
                        self.clock = Some((now_ns, Instant::now()));
                    }
                    self.model.apply((*event).clone());
                    events.push(*event);
                }
                Ok(Update::Lost(why)) => self.lost = Some(why),
                Ok(Update::Behind(missed)) => self.missed += missed,
                Err(_) => break,
            }
        }
        record(&mut events, &self.model, recording, ui);
        if let (Some((agent_ns, at)), None) = (self.clock, &self.lost) {
            let passed = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.model.advance(agent_ns.saturating_add(passed));
        }
    }

    /// For the top of the screen.
    fn note(&self) -> String {
        // In a narrow terminal its end is not shown.
        let mut note = match &self.lost {
            Some(why) => format!("REMOTE not connected: {why}"),
            None => format!("REMOTE {}", self.name),
        };
        if self.missed > 0 {
            note = format!("{note}, {} events missed", self.missed);
        }
        note
    }
}

async fn show(client: Client, remote: &Remote<'_>) -> Result<()> {
    let (send, updates) = mpsc::channel(QUEUE);
    let mut mirror = Mirror::new(client.target().to_string(), updates);
    let reading = tokio::spawn(read(client, send));
    let mut pulse = Pulse::new(PERIOD, remote.duration, true)?;
    let mut ui = Ui::new(tui::Options::from_environment());
    let store = Store::find();
    if let Some(store) = &store {
        store.load(&mut ui);
    }
    let mut recording = None;
    let mut terminal = Terminal::take(remote.plain)?;
    let mut keys = EventStream::new();
    let mut beats = 0u32;
    loop {
        let (mut redraw, mut asked) = (false, false);
        tokio::select! {
            input = keys.next() => match input {
                Some(Ok(input)) => {
                    let action = ui.on_event(input, &mirror.model);
                    match act(action, &mut ui, &mut terminal, &mut recording, &mirror.model)? {
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
                mirror.take(&mut recording, &mut ui);
                beats = beats.wrapping_add(1);
                redraw = beats % REDRAW == 1;
            }
        }
        if redraw || asked {
            ui.set_note(Some(mirror.note()));
            ui.tick(&mirror.model);
            terminal.draw(&mut ui, &mirror.model, asked)?;
        }
    }
    drop(terminal);
    reading.abort();
    leave(store.as_ref(), &mut ui, recording)
}
