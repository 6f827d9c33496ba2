//! The agent: observer as a service on every node, with metrics, an API, and a flight recorder that writes the
//! minutes before an incident to disk.
//!
//! One loop observes ([`Agent`]); another process serves HTTP ([`http`]) and has no capabilities ([`serving`]).

mod answers;
mod calls;
pub mod config;
mod http;
pub mod incidents;
mod kubernetes;
mod material;
mod memory;
pub mod metrics;
mod otlp;
pub mod privileges;
pub mod recorder;
mod sandbox;
mod serving;
mod start;
mod systemd;
pub mod thresholds;
pub mod triggers;
pub mod webhook;

pub(crate) use self::serving::{keeper::COMMAND as SERVE, process::run as serve};
pub use self::start::check;

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

use self::{
    config::Config,
    incidents::{Began, Incidents, Trigger},
    memory::{Budget, Node},
    metrics::Metrics,
    recorder::Recorder,
    serving::{
        keeper::Keeper,
        link::{Asked, Link, QUESTIONS},
        messages::Question,
    },
    systemd::ServiceManager,
    thresholds::Thresholds,
    triggers::Triggers,
};
use crate::{
    event::{Event, Reason},
    watch::Watch,
};

/// The ring buffer is read this often.
const PERIOD: Duration = Duration::from_millis(50);
/// Batches that are taken before others get their turn.
const BATCHES: usize = 32;
/// What the model knows goes into metrics this often, and triggers are asked.
const TICK: Duration = Duration::from_secs(1);
/// Go processes are looked for, old incidents removed and memory checked this often.
const SLOW_TICK: Duration = Duration::from_secs(10);
/// Symbols are forgotten this often at most.
const FORGET: Duration = Duration::from_mins(1);
/// Metrics that were read are good for this long.
const FRESH: Duration = Duration::from_millis(250);
/// Says something to the log: standard error, a line each.
pub(crate) fn log(text: &str) {
    // At once: two processes write there. Nobody may be left to read it.
    let _ = io::stderr().write_all(format!("observer: {text}\n").as_bytes());
}

/// Runs until it is stopped.
///
/// # Errors
/// The configuration cannot be followed, the address is taken, or observing is not possible here.
pub fn run(config: Config, file: Option<PathBuf>) -> Result<()> {
    let listener = start::bind(&config)?;
    let start = start::start(&config)?;
    start::make_folder(&config);
    // Before there is anything that it could take along.
    let keeper = Keeper::start(listener, start.readable.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let _entered = runtime.enter();
    let mut signals = Signals::new()?;
    let mut watch = Watch::start(config.capture.options(), config.capture.stacks)?;
    start::restrict(&config)?;
    let (metrics, registry) = Metrics::new(&config.metrics);
    let pods = start::pods(&start, &mut watch);
    let mut link = Link::start(keeper, start, pods);
    runtime.block_on(link.first())?;
    let recorder = Recorder::new(config.recorder.before, config.recorder.memory)?;
    let meta = watch.meta();
    let now = Instant::now();
    let mut agent = Agent {
        metrics,
        registry,
        recorder,
        incidents: Incidents::new(config.incidents.clone()),
        triggers: Triggers::default(),
        thresholds: Thresholds::default(),
        manager: ServiceManager::from_environment(),
        next_tick: now,
        next_slow_tick: now,
        next_forget: now,
        read: None,
        memory: Budget {
            max: config.max_memory,
            short: false,
        },
        watch,
        link,
        config,
        file,
    };
    agent.keep_to_budget();
    agent.take(vec![meta]);
    log(&format!("observing; HTTP on {}", agent.config.listen));
    runtime.block_on(agent.run(&mut signals));
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Signals {
    ticks: Interval,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user: Signal,
}

/// Why the loop goes on.
enum Beat {
    Tick,
    Stop,
    Reload,
    Incident,
}

impl Signals {
    fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Signals {
            ticks,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            user: listen(SignalKind::user_defined1())?,
        })
    }

    async fn beat(&mut self) -> Beat {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Beat::Stop,
            _ = self.terminate.recv() => Beat::Stop,
            _ = self.hangup.recv() => Beat::Reload,
            _ = self.user.recv() => Beat::Incident,
            _ = self.ticks.tick() => Beat::Tick,
        }
    }
}

/// The loop that observes, and all that it feeds.
struct Agent {
    config: Config,
    file: Option<PathBuf>,
    watch: Watch,
    metrics: Metrics,
    recorder: Recorder,
    incidents: Incidents,
    triggers: Triggers,
    thresholds: Thresholds,
    manager: ServiceManager,
    registry: Registry,
    /// To the process that serves HTTP.
    link: Link,
    /// The metrics as they were read last, and when.
    read: Option<(Instant, Bytes)>,
    next_tick: Instant,
    next_slow_tick: Instant,
    next_forget: Instant,
    memory: Budget,
}

impl Agent {
    async fn run(mut self, signals: &mut Signals) {
        self.link.beat(true);
        self.manager.ready();
        loop {
            match signals.beat().await {
                Beat::Tick => {}
                Beat::Stop => break,
                Beat::Reload => self.reload(),
                Beat::Incident => self.trigger(Trigger::new("signal", "SIGUSR1")),
            }
            self.poll();
            self.answer();
            self.tick();
        }
        self.manager.stopping();
        self.link.beat(false);
        let mut events = Vec::new();
        self.watch.finish(Reason::Stopped, &mut events);
        self.take(events);
        self.finish_incident();
        let metrics = self.read_metrics();
        self.link.close(&metrics).await;
    }

    fn poll(&mut self) {
        for _ in 0..BATCHES {
            let mut events = Vec::new();
            let more = self.watch.poll(&mut events);
            self.take(events);
            if !more {
                break;
            }
        }
        self.watch.advance();
        self.manager.alive();
    }

    /// Feeds events to all that wants them.
    fn take(&mut self, events: Vec<Event>) {
        let streamed = self.link.is_streamed();
        for event in events {
            self.metrics.see(&event);
            self.export(&event);
            if let Err(error) = self.recorder.push(&event) {
                log(&format!("the flight recorder lost an event: {error:#}"));
            }
            if let Err(error) = self.incidents.see(&event) {
                self.incident_failed(&error);
            }
            if streamed && let Ok(mut line) = serde_json::to_vec(&event) {
                line.push(b'\n');
                self.link.line(Bytes::from(line));
            }
            if let Some(trigger) = self.triggers.see(&event, &self.config.triggers) {
                self.trigger(trigger);
            }
        }
    }

    fn export(&mut self, event: &Event) {
        if self.config.otlp.endpoint.is_some()
            && let Some(record) = otlp::record(event, nanos(self.config.otlp.long_wait))
        {
            self.link.record(&record);
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.metrics.update(self.watch.model());
        self.metrics
            .recorder(self.recorder.bytes(), self.recorder.limit());
        self.metrics.symbols(self.watch.symbol_bytes());
        self.count();
        self.link.beat(true);
        let model = self.watch.model();
        if let Some(trigger) = self.triggers.check(model, &self.config.triggers) {
            self.trigger(trigger);
        }
        self.check_metrics();
        if self.incidents.is_due() {
            self.finish_incident();
        }
        if now >= self.next_slow_tick {
            self.next_slow_tick = now + SLOW_TICK;
            self.keep_memory();
            self.incidents.retire();
            // Another configuration may have come.
            self.watch.look_for_go(self.config.goroutines.max_processes);
        }
    }

    fn check_metrics(&mut self) {
        let thresholds = &self.config.triggers.metric;
        if thresholds.is_empty() {
            return;
        }
        let text = metrics::text(&self.registry);
        let families = metrics::samples::parse(&text);
        let now_ns = self.watch.model().now_ns();
        for trigger in self.thresholds.check(&families, thresholds, now_ns) {
            self.trigger(trigger);
        }
    }

    /// Takes what the process that serves HTTP has counted.
    fn count(&mut self) {
        self.metrics.tally(&self.link.news());
        self.metrics.serving(self.link.restarts(), self.link.pid());
    }

    /// The metrics of now. Whoever asks in quick succession gets the same again: reading them is the loop's time, and
    /// anybody may ask for them.
    fn read_metrics(&mut self) -> Bytes {
        let now = Instant::now();
        if let Some((read, text)) = &self.read
            && now.duration_since(*read) < FRESH
        {
            return text.clone();
        }
        self.count();
        let text = Bytes::from(metrics::text(&self.registry));
        self.read = Some((now, text.clone()));
        text
    }

    /// When the process has become too large, or the node short of memory, symbols are forgotten, and the flight recorder
    /// keeps less; it keeps all again when there is room.
    fn keep_memory(&mut self) {
        let became_short = self.look_at_node() && self.memory.short;
        let used = self.watch.model().cost().rss_bytes;
        let now = Instant::now();
        if became_short || self.memory.is_over(used) && now >= self.next_forget {
            // Reading all of it anew costs CPU time.
            self.next_forget = now + FORGET;
            // Debug information of large programs is most of it, and can be read again.
            self.watch.forget();
            memory::give_back();
        }
        let (limit, full) = (self.recorder.limit(), self.config.recorder.memory);
        let new = self.memory.recorder(used, limit, full);
        if new != limit {
            let most = self.memory.limit();
            let why = if self.memory.short && !self.memory.is_over(used) {
                "this node is short of memory".to_owned()
            } else {
                format!("{used} bytes of memory are in use, and {most} may be")
            };
            log(&format!(
                "{why}: the flight recorder keeps {new} bytes instead of {limit}"
            ));
            self.recorder.set_limits(self.config.recorder.before, new);
        }
    }

    /// Is there less memory on the node than before, or more again?
    fn look_at_node(&mut self) -> bool {
        let node = Node::read();
        let short = node.is_short(self.memory.short);
        if short == self.memory.short {
            return false;
        }
        self.memory.short = short;
        let is = if short { "is" } else { "is no longer" };
        log(&format!(
            "this node {is} short of memory, {node}: the agent may use {}",
            self.memory.limit()
        ));
        self.keep_to_budget();
        true
    }

    /// Symbols and metrics, when the budget of memory is another one.
    fn keep_to_budget(&mut self) {
        self.watch.set_symbol_budget(Some(self.memory.symbols()));
        self.metrics.memory(self.memory.limit());
    }

    fn trigger(&mut self, trigger: Trigger) {
        // What became of it is counted and logged.
        let _ = self.begin(trigger);
    }

    fn begin(&mut self, trigger: Trigger) -> Result<Began, String> {
        let why = trigger.why.clone();
        let began = self
            .incidents
            .begin(trigger, self.watch.model(), &mut self.recorder);
        match &began {
            Ok(Began::New(id)) => log(&format!("incident {id}: {why}")),
            Ok(Began::Joined(_)) => {}
            Ok(Began::TooEarly(_)) => self.metrics.incident("rate_limited"),
            Err(error) => self.incident_failed(error),
        }
        began.map_err(|error| format!("{error:#}"))
    }

    fn incident_failed(&mut self, error: &anyhow::Error) {
        self.metrics.incident("failed");
        log(&format!("an incident is lost: {error:#}"));
    }

    fn finish_incident(&mut self) {
        // A recording that does not say what was lost does not say that nothing was.
        if let Err(error) = self.incidents.see(&self.watch.loss()) {
            self.incident_failed(&error);
        }
        match self.incidents.finish() {
            Ok(Some(about)) => {
                self.metrics.incident("written");
                log(&format!(
                    "incident {} is written: {} events, {} bytes",
                    about.id, about.events, about.bytes
                ));
                self.link.incident(&about);
            }
            Ok(None) => {}
            Err(error) => self.incident_failed(&error),
        }
    }

    fn answer(&mut self) {
        for _ in 0..QUESTIONS {
            let Some(asked) = self.link.asked() else {
                break;
            };
            self.answer_one(&asked);
        }
        // It is not kept for long.
        self.read.take_if(|(read, _)| read.elapsed() >= FRESH);
    }

    fn answer_one(&mut self, asked: &Asked) {
        let model = self.watch.model();
        let text = match &asked.question {
            Question::Incident(why) => {
                let began = self.begin(Trigger::new("request", why.clone()));
                self.link.began(asked, began);
                return;
            }
            Question::Metrics => self.read_metrics(),
            Question::Blocked(limit) => answers::blocked(model, *limit).into(),
            Question::Locks(limit) => answers::locks(model, *limit).into(),
            Question::Findings(limit) => answers::findings(model, *limit).into(),
            Question::Goroutines => answers::goroutines(model).into(),
            Question::Meta => answers::meta(model).into(),
            Question::Snapshot => answers::snapshot(model).into(),
        };
        self.link.answer(asked, &text);
    }

    /// Reads the configuration anew. What is wrong changes nothing.
    fn reload(&mut self) {
        self.manager.reloading();
        if let Err(error) = self.try_reload() {
            log(&format!("the configuration stays as it was: {error:#}"));
        }
        self.manager.ready();
    }

    fn try_reload(&mut self) -> Result<()> {
        let Some(file) = &self.file else {
            bail!("there is no file: the agent was started without --config");
        };
        let mut new = Config::load(file, Some(self.config.listen))?;
        if new.capture != self.config.capture
            || new.privileges != self.config.privileges
            || new.otlp.queue != self.config.otlp.queue
            || new.kubernetes != self.config.kubernetes
            || new.incidents.dir != self.config.incidents.dir
        {
            log(
                "capture, incidents.dir, kubernetes, otlp.queue and privileges change at the next start only",
            );
            new.capture = self.config.capture.clone();
            new.privileges = self.config.privileges.clone();
            new.incidents.dir.clone_from(&self.config.incidents.dir);
        }
        self.link.set(start::material(&new)?);
        self.metrics.set_limits(&new.metrics);
        self.recorder
            .set_limits(new.recorder.before, new.recorder.memory);
        self.incidents.set_config(new.incidents.clone());
        self.memory.max = new.max_memory;
        self.keep_to_budget();
        if new.triggers.metric != self.config.triggers.metric {
            self.thresholds.clear();
        }
        self.config = new;
        log("the configuration is in force");
        Ok(())
    }
}
