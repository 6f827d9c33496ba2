//! The agent's end of the socket: starts the process that serves HTTP, again when it ends, tells it what it is to know,
//! and takes its questions.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    process::ExitStatus,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixStream, unix::OwnedReadHalf},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    MAX_TO_AGENT,
    frame::{Frames, Sort, bad, put},
    keeper::Keeper,
    message,
    messages::{LAST, PodNote, Question, Start, ToAgent, ToServing},
    queue::{Batch, Queue},
    tally::Tally,
};
use crate::{
    agent::{incidents::About, incidents::Began, log, material::Material, otlp},
    inspect::container::pods::{MAX_PODS, Pod, Pods},
};

/// Questions that wait for the agent's loop.
pub(in crate::agent) const QUESTIONS: usize = 32;
/// Time for the process to say that it serves.
const HELLO: Duration = Duration::from_secs(20);
/// Time for it to take what it is told: it is stuck otherwise.
const WRITE: Duration = Duration::from_secs(20);
/// It says something each second: it is stuck when it has not for this long.
const SILENCE: Duration = Duration::from_secs(30);
/// Time until it is started again; doubled for each further time, and short again when it ran for long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_mins(1);
/// What it says is read so many times in so long.
const MESSAGES: u32 = 500;
const WINDOW: Duration = Duration::from_millis(50);
/// Time for what is left to be sent at the end.
const END: Duration = Duration::from_secs(otlp::END.as_secs() + 1);

/// A question, and who asks it.
#[derive(Debug)]
pub(in crate::agent) struct Asked {
    process: u64,
    id: u32,
    pub(in crate::agent) question: Question,
}

/// What was told to one process.
#[derive(Default)]
struct Told {
    /// The latest of what it counted.
    tally: Tally,
    records: u64,
    incidents: u64,
}

/// What the agent's loop and the task share.
struct Inside {
    queue: Queue,
    start: Mutex<Start>,
    /// How often its material has changed. Counted, and what is new of it said, while `start` is locked: the latest is
    /// said last.
    reloads: AtomicU64,
    /// How many processes there were.
    process: AtomicU64,
    pid: AtomicU32,
    ready: AtomicBool,
    /// Readers of the stream of events.
    streams: AtomicU64,
    told: Mutex<Told>,
    /// Counted, and not yet taken.
    news: Mutex<Tally>,
    asked: mpsc::Sender<Asked>,
    pods: Arc<Pods>,
}

/// The agent's end.
pub(in crate::agent) struct Link {
    inside: Arc<Inside>,
    asked: mpsc::Receiver<Asked>,
    task: JoinHandle<()>,
    first: Option<oneshot::Receiver<Result<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts the process. What the cluster says comes to `pods`.
    pub(in crate::agent) fn start(keeper: Keeper, start: Start, pods: Arc<Pods>) -> Link {
        let (inside, asked) = Inside::new(start, pods);
        let (tell, first) = oneshot::channel();
        let task = tokio::spawn(Arc::clone(&inside).keep(keeper, tell));
        Link {
            inside,
            asked,
            task,
            first: Some(first),
        }
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// It ended before.
    pub(in crate::agent) async fn first(&mut self) -> Result<()> {
        match self.first.take() {
            Some(first) => first.await?.context("HTTP is not served"),
            None => Ok(()),
        }
    }

    /// Says that the loop came round.
    pub(in crate::agent) fn beat(&self, ready: bool) {
        self.inside.ready.store(ready, Ordering::Relaxed);
        self.inside.queue.say(&ToServing::Beat { ready });
    }

    /// Does somebody read the stream of events?
    pub(in crate::agent) fn is_streamed(&self) -> bool {
        self.inside.streams.load(Ordering::Relaxed) > 0
    }

    /// A line of it.
    pub(in crate::agent) fn line(&self, line: Bytes) {
        if !self.inside.queue.line(line) {
            lock(&self.inside.news).lagged += 1;
        }
    }

    /// A log record for OTLP.
    pub(in crate::agent) fn record(&self, record: &otlp::Record) {
        if !self.inside.queue.record(Bytes::from(record.encode())) {
            lock(&self.inside.news).otlp_lost += 1;
        }
    }

    /// An incident for the webhook and the cluster.
    pub(in crate::agent) fn incident(&self, about: &About) {
        let taken = message(about).is_some_and(|about| self.inside.queue.incident(about));
        if !taken {
            self.inside.lose_incidents(1, 1);
        }
    }

    /// What the files of a configuration hold by now.
    pub(in crate::agent) fn set(&self, material: Material) {
        self.inside.set(material);
    }

    /// The next question.
    pub(in crate::agent) fn asked(&mut self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }

    /// Answers with a text.
    pub(in crate::agent) fn answer(&self, asked: &Asked, text: &Bytes) {
        let inside = &self.inside;
        if inside.is_now(asked) && !inside.queue.answer(asked.id, text) {
            inside.queue.say(&ToServing::Busy { id: asked.id });
        }
    }

    /// Answers with what became of an incident.
    pub(in crate::agent) fn began(&self, asked: &Asked, began: Result<Began, String>) {
        if self.inside.is_now(asked) {
            let id = asked.id;
            self.inside.queue.say(&ToServing::Incident { id, began });
        }
    }

    /// What was counted since this was last asked.
    pub(in crate::agent) fn news(&self) -> Tally {
        std::mem::take(&mut *lock(&self.inside.news))
    }

    /// How often the process was started again.
    pub(in crate::agent) fn restarts(&self) -> u64 {
        let count = self.inside.process.load(Ordering::Relaxed);
        count.saturating_sub(1)
    }

    /// Its number; `None`: there is none now.
    pub(in crate::agent) fn pid(&self) -> Option<u32> {
        let pid = self.inside.pid.load(Ordering::Relaxed);
        (pid != 0).then_some(pid)
    }

    /// Ends the process when it has sent what is left, the metrics as they are then among it.
    pub(in crate::agent) async fn close(self, metrics: &Bytes) {
        self.inside.queue.answer(LAST, metrics);
        self.inside.queue.close();
        let _ = timeout(END, self.task).await;
    }
}

impl Inside {
    fn new(start: Start, pods: Arc<Pods>) -> (Arc<Inside>, mpsc::Receiver<Asked>) {
        let (ask, asked) = mpsc::channel(QUESTIONS);
        let inside = Inside {
            queue: Queue::new(start.records),
            start: Mutex::new(start),
            reloads: AtomicU64::new(0),
            process: AtomicU64::new(0),
            pid: AtomicU32::new(0),
            ready: AtomicBool::new(false),
            streams: AtomicU64::new(0),
            told: Mutex::default(),
            news: Mutex::default(),
            asked: ask,
            pods,
        };
        (Arc::new(inside), asked)
    }

    fn set(&self, material: Material) {
        let mut start = lock(&self.start);
        start.material = material;
        self.reloads.fetch_add(1, Ordering::Relaxed);
        self.say_material(&start);
    }

    fn say_material(&self, start: &Start) {
        let material = Box::new(start.material.clone());
        self.queue.material(&ToServing::Material(material));
    }

    /// Says what it should know to a process that was told of `reloads`.
    fn open(&self, reloads: u64) {
        self.queue.open();
        let start = lock(&self.start);
        if self.reloads.load(Ordering::Relaxed) != reloads {
            self.say_material(&start);
        }
        drop(start);
        self.queue.say(&ToServing::Beat {
            ready: self.ready.load(Ordering::Relaxed),
        });
    }

    /// How to begin, and how often it has changed until then.
    fn beginning(&self) -> (ToServing, u64) {
        let start = lock(&self.start);
        let reloads = self.reloads.load(Ordering::Relaxed);
        (ToServing::Start(Box::new(start.clone())), reloads)
    }

    fn is_now(&self, asked: &Asked) -> bool {
        asked.process == self.process.load(Ordering::Relaxed)
    }

    async fn keep(self: Arc<Self>, keeper: Keeper, first: oneshot::Sender<Result<()>>) {
        let mut first = Some(first);
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let ended = self.serve(&keeper, &mut first).await;
            if self.queue.is_closed() {
                return;
            }
            let Err(error) = ended else {
                continue;
            };
            if let Some(first) = first.take() {
                // The agent ends for it.
                let _ = first.send(Err(error));
                return;
            }
            if began.elapsed() >= LONG {
                pause = FIRST_PAUSE;
            }
            log(&format!(
                "the process that serves HTTP is started again in {pause:?}: {error:#}"
            ));
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Starts one process, and stays until its end.
    async fn serve(
        &self,
        keeper: &Keeper,
        first: &mut Option<oneshot::Sender<Result<()>>>,
    ) -> Result<()> {
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket")?;
        let theirs = theirs.into_std()?;
        // It reads how to begin before it has an event loop.
        theirs.set_nonblocking(false)?;
        let pid = keeper.begin(OwnedFd::from(theirs)).await?;
        self.process.fetch_add(1, Ordering::Relaxed);
        self.pid.store(pid, Ordering::Relaxed);
        let ended = self.talk(ours, first).await;
        self.queue.shut();
        self.settle();
        let status = keeper.end().await;
        self.pid.store(0, Ordering::Relaxed);
        if self.queue.is_closed() {
            return ended;
        }
        let ended = ended.and_then(|()| bail!("it says no more"));
        ended.with_context(|| status.map_or_else(|| "it is gone".to_owned(), ending))
    }

    async fn talk(
        &self,
        stream: UnixStream,
        first: &mut Option<oneshot::Sender<Result<()>>>,
    ) -> Result<()> {
        let (read, mut write) = stream.into_split();
        let mut frames = Frames::new(read, MAX_TO_AGENT);
        let (start, reloads) = self.beginning();
        let hello = async {
            let start = message(&start).context("too many certificates")?;
            let mut out = BytesMut::new();
            put(&mut out, Sort::Message, &start);
            write.write_all(&out).await?;
            match said(&mut frames).await? {
                Some(ToAgent::Serving) => Ok(()),
                Some(_) => bail!("it does not begin as it should"),
                None => bail!("it ended before it served"),
            }
        };
        let hello = timeout(HELLO, hello).await;
        hello.context("it does not begin in time")??;
        if let Some(first) = first.take() {
            // Whoever waits may be gone.
            let _ = first.send(Ok(()));
        }
        self.open(reloads);
        let writing = async {
            while let Some(Batch {
                bytes,
                records,
                incidents,
            }) = self.queue.next().await
            {
                {
                    let mut told = lock(&self.told);
                    told.records += records;
                    told.incidents += incidents;
                }
                let written = timeout(WRITE, write.write_all(&bytes)).await;
                written.context("it does not read what it is told")??;
            }
            write.shutdown().await?;
            // It ends when it has sent what is left.
            std::future::pending::<Result<()>>().await
        };
        tokio::select! {
            ended = self.listen(frames) => ended,
            failed = writing => failed,
        }
    }

    /// Takes what it says, until it says no more.
    async fn listen(&self, mut frames: Frames<OwnedReadHalf>) -> Result<()> {
        let mut staged: Option<HashMap<Arc<str>, Pod>> = None;
        let (mut window, mut count) = (Instant::now(), 0);
        loop {
            let said = timeout(SILENCE, said(&mut frames)).await;
            let Some(said) = said.context("it is stuck")?? else {
                return Ok(());
            };
            count += 1;
            if count >= MESSAGES {
                // Whatever it says: the agent's loop has its time.
                sleep(WINDOW.saturating_sub(window.elapsed())).await;
                (window, count) = (Instant::now(), 0);
            }
            match said {
                ToAgent::Serving => bail!("it begins twice"),
                ToAgent::Ask { id, question } => self.ask(id, question),
                ToAgent::Tally(tally) => self.tally(&tally),
                ToAgent::PodsFirst => staged = Some(HashMap::new()),
                ToAgent::Pod(pod) => self.pod(pod, staged.as_mut()),
                ToAgent::PodsLast => {
                    let all = staged.take().unwrap_or_default();
                    self.pods.replace(all.into_iter());
                }
                ToAgent::PodGone { uid } => self.pods.remove(&uid),
            }
        }
    }

    fn ask(&self, id: u32, question: Question) {
        let process = self.process.load(Ordering::Relaxed);
        let asked = Asked {
            process,
            id,
            question,
        };
        if self.asked.try_send(asked).is_err() {
            self.queue.say(&ToServing::Busy { id });
        }
    }

    fn tally(&self, tally: &Tally) {
        let mut told = lock(&self.told);
        lock(&self.news).add(&tally.since(&told.tally));
        told.tally = *tally;
        self.streams.store(tally.streams, Ordering::Relaxed);
    }

    fn pod(&self, note: PodNote, staged: Option<&mut HashMap<Arc<str>, Pod>>) {
        let uid = Arc::from(note.uid);
        let pod = Pod {
            name: Arc::from(note.name),
            namespace: Arc::from(note.namespace),
            workload: note.workload.map(Arc::from),
        };
        match staged {
            Some(staged) if staged.len() < MAX_PODS => {
                staged.insert(uid, pod);
            }
            Some(_) => {}
            None => self.pods.insert(uid, pod),
        }
    }

    /// What the process was told, and did not account for, ended with it.
    fn settle(&self) {
        self.streams.store(0, Ordering::Relaxed);
        let told = std::mem::take(&mut *lock(&self.told));
        let records = told.tally.otlp_records.saturating_add(told.tally.otlp_lost);
        lock(&self.news).otlp_lost += told.records.saturating_sub(records);
        let tally = told.tally;
        // One of the two may be behind.
        let webhook = tally.webhook_told.saturating_add(tally.webhook_lost);
        let cluster = tally.cluster_told.saturating_add(tally.cluster_lost);
        self.lose_incidents(
            told.incidents.saturating_sub(webhook),
            told.incidents.saturating_sub(cluster),
        );
    }

    /// So many the webhook, and the cluster, are not told of, where there is one.
    fn lose_incidents(&self, webhook: u64, cluster: u64) {
        let start = lock(&self.start);
        let mut news = lock(&self.news);
        if start.material.webhook.is_some() {
            news.webhook_lost += webhook;
        }
        if start.cluster.as_ref().is_some_and(|cluster| cluster.events) {
            news.cluster_lost += cluster;
        }
    }
}

/// The next that it says.
async fn said(frames: &mut Frames<OwnedReadHalf>) -> Result<Option<ToAgent>> {
    let next = match frames.next().await {
        // It ended while the agent wrote.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        next => next.context("what it says is not understood")?,
    };
    let Some(frame) = next else {
        return Ok(None);
    };
    let said = (frame.sort == Sort::Message).then(|| ToAgent::read(&frame.payload));
    let said = said.flatten().ok_or_else(|| bad("no message"));
    said.map(Some).context("what it says is not understood")
}

fn ending(status: ExitStatus) -> String {
    status.to_string()
}

#[cfg(test)]
mod tests;
