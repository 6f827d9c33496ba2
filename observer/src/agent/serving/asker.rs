//! The other end of the socket: asks the agent, and takes what it says.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::AsyncWriteExt,
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    frame::{Frame, Frames, Sort, put},
    link::QUESTIONS,
    message,
    messages::{LAST, PodNote, Question, ToAgent, ToServing},
    tally::{Tally, more},
};
use crate::agent::{
    http::{Line, Shared},
    incidents::{About, Began},
    otlp::Record,
};

/// What waits to be said to the agent.
const WAITING: usize = 256;
/// Time for an answer.
pub(in crate::agent) const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of one answer.
const MAX_ANSWER: usize = 64 << 20;

/// What the agent answers.
#[derive(Debug)]
pub(in crate::agent) enum Answer {
    /// A text, in pieces.
    Text(Vec<Bytes>),
    /// What became of the incident.
    Incident(Result<Began, String>),
    /// Nothing now.
    Busy,
}

/// An answer that is coming.
struct Coming {
    pieces: Vec<Bytes>,
    bytes: usize,
    tell: oneshot::Sender<Answer>,
}

impl Coming {
    fn new(tell: oneshot::Sender<Answer>) -> Coming {
        Coming {
            pieces: Vec::new(),
            bytes: 0,
            tell,
        }
    }
}

/// Asks the agent.
pub(in crate::agent) struct Asker {
    next: AtomicU32,
    coming: Mutex<HashMap<u32, Coming>>,
    /// The metrics at the end, when nobody answers any more.
    last: Mutex<Option<oneshot::Receiver<Answer>>>,
    ended: AtomicBool,
    out: mpsc::Sender<ToAgent>,
}

/// Forgets a question that nobody waits for any more.
struct Waits<'a>(&'a Asker, u32);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.coming().remove(&self.1);
    }
}

impl Asker {
    /// One, and what it has to say.
    pub(in crate::agent) fn new() -> (Asker, mpsc::Receiver<ToAgent>) {
        let (out, said) = mpsc::channel(WAITING);
        let (tell, last) = oneshot::channel();
        let asker = Asker {
            next: AtomicU32::new(0),
            coming: Mutex::new([(LAST, Coming::new(tell))].into()),
            last: Mutex::new(Some(last)),
            ended: AtomicBool::new(false),
            out,
        };
        (asker, said)
    }

    fn coming(&self) -> MutexGuard<'_, HashMap<u32, Coming>> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks; `None`: there is no answer now.
    pub(in crate::agent) async fn ask(&self, question: Question) -> Option<Answer> {
        if self.ended.load(Ordering::Relaxed) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let metrics = last.take_if(|_| question == Question::Metrics);
            return metrics?.try_recv().ok();
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) % LAST;
        let (tell, told) = oneshot::channel();
        {
            let mut coming = self.coming();
            // That for the end is one of them.
            if coming.len() > QUESTIONS {
                return None;
            }
            coming.insert(id, Coming::new(tell));
        }
        let _waits = Waits(self, id);
        self.out.try_send(ToAgent::Ask { id, question }).ok()?;
        match timeout(ANSWER, told).await.ok()?.ok()? {
            Answer::Busy => None,
            answer => Some(answer),
        }
    }

    /// Nobody answers any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.coming().clear();
    }

    /// Says something, when there is room for it.
    pub(super) async fn say(&self, what: ToAgent) {
        // The agent may be gone, and this process will be too.
        let _ = self.out.send(what).await;
    }

    /// Says what was counted.
    pub(in crate::agent) async fn count(&self, tally: Tally) {
        self.say(ToAgent::Tally(tally)).await;
    }

    fn answered(&self, id: u32, answer: Answer) {
        if let Some(coming) = self.coming().remove(&id) {
            // Whoever asked may have gone.
            let _ = coming.tell.send(answer);
        }
    }

    fn piece(&self, mut payload: Bytes) -> Result<()> {
        if payload.len() < 5 {
            bail!("a piece of an answer that is none");
        }
        let (id, last) = (payload.get_u32_le(), payload.get_u8() != 0);
        let mut all = self.coming();
        // Nobody may wait for it any more.
        let Some(coming) = all.get_mut(&id) else {
            return Ok(());
        };
        coming.bytes += payload.len();
        coming.pieces.push(payload);
        if coming.bytes > MAX_ANSWER {
            // Whoever asked finds the agent busy.
            all.remove(&id);
            return Ok(());
        }
        if last {
            let pieces = std::mem::take(&mut coming.pieces);
            drop(all);
            self.answered(id, Answer::Text(pieces));
        }
        Ok(())
    }
}

/// What the cluster says goes to the agent.
pub(in crate::agent) struct PodsToAgent(pub(in crate::agent) Arc<Shared>);

impl PodsToAgent {
    /// All of them: what is not among them is gone.
    pub(in crate::agent) async fn replace(&self, pods: Vec<PodNote>) {
        let asker = &self.0.asker;
        asker.say(ToAgent::PodsFirst).await;
        for pod in pods {
            asker.say(ToAgent::Pod(pod)).await;
        }
        asker.say(ToAgent::PodsLast).await;
    }

    /// One that is new or has changed.
    pub(in crate::agent) async fn insert(&self, pod: PodNote) {
        self.0.asker.say(ToAgent::Pod(pod)).await;
    }

    /// One that is gone.
    pub(in crate::agent) async fn remove(&self, uid: String) {
        self.0.asker.say(ToAgent::PodGone { uid }).await;
    }
}

/// Where what the agent says goes.
pub(super) struct Ways {
    pub(super) shared: Arc<Shared>,
    pub(super) records: mpsc::Sender<Record>,
    pub(super) incidents: mpsc::Sender<About>,
}

impl Ways {
    /// Takes what the agent says, until it says no more.
    ///
    /// # Errors
    /// The socket fails, or it says what is not understood.
    pub(super) async fn listen(&self, mut frames: Frames<OwnedReadHalf>) -> Result<()> {
        while let Some(frame) = frames.next().await? {
            self.take(frame)?;
        }
        Ok(())
    }

    fn take(&self, Frame { sort, payload }: Frame) -> Result<()> {
        let shared = &self.shared;
        match sort {
            Sort::Line => {
                // A copy: what was read with it is not kept for it. The last reader may have gone.
                let line = Bytes::copy_from_slice(&payload);
                let _ = shared.lines.send(Line::Event(line));
            }
            Sort::Record => {
                let record = Record::decode(&payload).context("a record that is none")?;
                if self.records.try_send(record).is_err() {
                    more(&shared.counts.otlp_lost, 1);
                }
            }
            Sort::Incident => {
                let about = serde_json::from_slice(&payload)?;
                if self.incidents.try_send(about).is_err() {
                    shared.incident_lost();
                }
            }
            Sort::Piece => shared.asker.piece(payload)?,
            Sort::Message => self.message(serde_json::from_slice(&payload)?)?,
        }
        Ok(())
    }

    fn message(&self, said: ToServing) -> Result<()> {
        let shared = &self.shared;
        match said {
            ToServing::Start(_) => bail!("the agent begins twice"),
            ToServing::Material(material) => shared.set(material.open()?),
            ToServing::Beat { ready } => shared.beat(ready),
            ToServing::Missed { lines } => {
                let _ = shared.lines.send(Line::Missed(lines));
            }
            ToServing::Incident { id, began } => {
                shared.asker.answered(id, Answer::Incident(began));
            }
            ToServing::Busy { id } => shared.asker.answered(id, Answer::Busy),
        }
        Ok(())
    }
}

/// Writes what is to be said. Ends when the socket does.
pub(super) async fn tell(mut write: OwnedWriteHalf, mut said: mpsc::Receiver<ToAgent>) {
    let mut out = BytesMut::new();
    while let Some(what) = said.recv().await {
        if let Some(payload) = message(&what) {
            put(&mut out, Sort::Message, &payload);
        }
        while let Ok(what) = said.try_recv()
            && let Some(payload) = message(&what)
        {
            put(&mut out, Sort::Message, &payload);
        }
        if write.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn piece(id: u32, last: bool, text: &[u8]) -> Bytes {
        let mut payload = BytesMut::new();
        payload.put_u32_le(id);
        payload.put_u8(u8::from(last));
        payload.extend_from_slice(text);
        payload.freeze()
    }

    #[tokio::test]
    async fn answers_come_to_who_asked() {
        let (asker, mut said) = Asker::new();
        let answer = async {
            assert!(matches!(
                said.recv().await,
                Some(ToAgent::Ask { id: 0, .. })
            ));
            for (id, last, text) in [
                (7, true, "x"),
                (0, false, "a"),
                (7, true, ""),
                (0, true, "b"),
            ] {
                asker.piece(piece(id, last, text.as_bytes())).unwrap();
            }
            assert!(asker.piece(Bytes::from_static(b"abc")).is_err());
        };
        let (answer, ()) = tokio::join!(asker.ask(Question::Meta), answer);
        let Some(Answer::Text(pieces)) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(pieces.concat(), b"ab");
        // At the end there are the metrics, once.
        asker.piece(piece(LAST, true, b"m")).unwrap();
        asker.end();
        assert!(asker.ask(Question::Meta).await.is_none());
        assert!(asker.ask(Question::Metrics).await.is_some());
        assert!(asker.ask(Question::Metrics).await.is_none());
    }

    #[tokio::test]
    async fn questions_are_bounded_and_forgotten() {
        let (asker, _said) = Asker::new();
        let asker = Arc::new(asker);
        let all: Vec<_> = (0..QUESTIONS)
            .map(|_| {
                let asker = Arc::clone(&asker);
                tokio::spawn(async move { asker.ask(Question::Meta).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(asker.ask(Question::Meta).await.is_none());
        for one in &all {
            one.abort();
        }
        for one in all {
            assert!(one.await.is_err());
        }
        assert_eq!(asker.coming().len(), 1);
        // An answer that is too large is none.
        let id = LAST;
        let large = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..=MAX_ANSWER >> 20 {
            asker.piece(piece(id, false, &large)).unwrap();
        }
        assert_eq!(asker.coming().len(), 0);
    }
}
