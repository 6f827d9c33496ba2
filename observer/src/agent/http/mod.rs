//! HTTP, in a process of its own, without any capability, that knows nothing of other processes.
//!
//! What it answers with comes from the agent, which it asks through a socket ([`super::serving`]). Everything about a
//! connection is bounded: how many there are, how long a request may take to come, how long they last, how large they
//! are.

mod api;
mod patience;
pub(super) mod tls;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{body::Bytes, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, broadcast, mpsc},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::patience::{Patient, Peers};
use super::{
    FRESH,
    incidents::About,
    kubernetes::Cluster,
    otlp,
    serving::{
        asker::{ANSWER, Answer, Asker},
        messages::Question,
        tally::{Counts, Tally, more},
    },
    webhook::Webhook,
};

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// From one address.
const OF_ONE: usize = 48;
/// Streams of events at a time.
const STREAMS: usize = 8;
/// Lines that a reader of the stream may be behind.
const BACKLOG: usize = 16_384;
// The channel keeps as many only then.
const _: () = assert!(BACKLOG.is_power_of_two());
/// Time for the head of a request to come, and for the handshake of its encryption.
const HEAD: Duration = Duration::from_secs(10);
/// Time in which a reader has to take something.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time that a connection may last, that of a stream included.
const CONNECTION: Duration = Duration::from_hours(1);
/// Time until there may be room for a connection again.
const ROOM: Duration = Duration::from_millis(100);
const HEAD_BYTES: usize = 16 << 10;
/// The loop is stuck when it has not come round for this long.
const STUCK_NS: u64 = 20_000_000_000;

/// What readers of the stream get.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// An event.
    Event(Bytes),
    /// So many that there was no room for on the way here.
    Missed(u64),
}

/// What all that is served shares.
pub(super) struct Shared {
    pub(super) asker: Asker,
    /// Events, for streams.
    pub(super) lines: broadcast::Sender<Line>,
    pub(super) counts: Counts,
    /// When the agent's loop last came round.
    beat_ns: AtomicU64,
    ready: AtomicBool,
    settings: Mutex<Settings>,
    /// Is the cluster told of incidents?
    tells_cluster: bool,
    /// What is less than it should be, by whom it is about; for `/readyz`.
    notes: Mutex<BTreeMap<&'static str, String>>,
    streams: Arc<Semaphore>,
    /// The metrics as they were read last, and when.
    read: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
}

/// What a reload may change.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) token: Option<Arc<str>>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) incidents: PathBuf,
    pub(super) webhook: Option<Webhook>,
    pub(super) otlp: Option<otlp::Receiver>,
}

impl Shared {
    pub(super) fn new(asker: Asker, settings: Settings, cluster: Option<&Cluster>) -> Shared {
        Shared {
            asker,
            lines: broadcast::Sender::new(BACKLOG),
            counts: Counts::default(),
            beat_ns: AtomicU64::new(crate::time::mono_ns()),
            ready: AtomicBool::new(false),
            settings: Mutex::new(settings),
            tells_cluster: cluster.is_some_and(|cluster| cluster.events),
            notes: Mutex::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            read: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// The agent's loop came round.
    pub(super) fn beat(&self, ready: bool) {
        let now_ns = crate::time::mono_ns();
        self.beat_ns.store(now_ns, Ordering::Relaxed);
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// What was counted.
    pub(super) fn tally(&self) -> Tally {
        let streams = STREAMS - self.streams.available_permits().min(STREAMS);
        self.counts.tally(streams as u64)
    }

    /// Nobody is told of an incident.
    pub(super) fn incident_lost(&self) {
        more(
            &self.counts.webhook_lost,
            u64::from(self.settings().webhook.is_some()),
        );
        more(&self.counts.cluster_lost, u64::from(self.tells_cluster));
    }

    /// The agent's answer, if it is a text; `None`: it has none now.
    pub(super) async fn text(&self, question: Question) -> Option<String> {
        let Answer::Text(pieces) = self.asker.ask(question).await? else {
            return None;
        };
        let mut all = Vec::with_capacity(pieces.iter().map(Bytes::len).sum());
        for piece in pieces {
            all.extend_from_slice(&piece);
        }
        String::from_utf8(all).ok()
    }

    /// The metrics of now. Whoever comes while they are asked for gets the same: many who ask are one question. Nobody
    /// waits for longer than for an answer where those before got none.
    async fn metrics(&self) -> Option<Bytes> {
        let mut last = timeout(ANSWER, self.read.lock()).await.ok()?;
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(text.clone());
        }
        // It is not kept beside the next one.
        *last = None;
        let text = Bytes::from(self.text(Question::Metrics).await?);
        *last = Some((Instant::now(), text.clone()));
        Some(text)
    }

    /// Notes what is less than it should be, or that it is no longer. True: that is new.
    pub(super) fn note(&self, of: &'static str, note: Option<&str>) -> bool {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match note {
            Some(note) => notes.insert(of, note.to_owned()),
            None => notes.remove(of),
        };
        before.as_deref() != note
    }

    /// All notes, a line each.
    fn notes(&self) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes
            .iter()
            .flat_map(|(of, note)| [of, ": ", note, "\n"])
            .collect()
    }

    fn is_alive(&self) -> bool {
        let beat_ns = self.beat_ns.load(Ordering::Relaxed);
        crate::time::mono_ns().saturating_sub(beat_ns) < STUCK_NS
    }
}

/// Why no connection was taken (accept(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// This one is gone already.
    Connection,
    /// There is no room for it: others have to close first.
    Room,
    /// There will be none.
    Listener,
}

impl Trouble {
    fn of(error: &io::Error) -> Trouble {
        match error.raw_os_error() {
            Some(
                libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT,
            ) => Trouble::Connection,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Trouble::Room,
            _ => Trouble::Listener,
        }
    }
}

/// Tells others of incidents.
pub(super) struct Teller {
    pub(super) shared: Arc<Shared>,
    pub(super) cluster: Option<Cluster>,
}

impl Teller {
    pub(super) async fn run(self, mut incidents: mpsc::Receiver<About>) {
        while let Some(about) = incidents.recv().await {
            // One that does not answer does not hold up the other.
            tokio::join!(self.tell_webhook(&about), self.tell_cluster(&about));
        }
    }

    async fn tell_webhook(&self, about: &About) {
        let Some(webhook) = self.shared.settings().webhook else {
            return;
        };
        let told = match serde_json::to_vec(about) {
            Ok(json) => webhook.tell(&Bytes::from(json)).await,
            Err(_) => false,
        };
        let counts = &self.shared.counts;
        let count = if told {
            &counts.webhook_told
        } else {
            &counts.webhook_lost
        };
        more(count, 1);
    }

    async fn tell_cluster(&self, about: &About) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let counts = &self.shared.counts;
        let count = if cluster.tell(about).await {
            &counts.cluster_told
        } else {
            &counts.cluster_lost
        };
        more(count, 1);
    }
}

/// Serves whoever comes. Ends when nobody can come any more, with the reason.
pub(super) async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) -> io::Error {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (router, peers) = (api::router(Arc::clone(&shared)), Peers::default());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return io::ErrorKind::BrokenPipe.into();
        };
        let (stream, address) = match listener.accept().await {
            Ok((stream, address)) => (Patient::new(stream, PATIENCE), address),
            Err(error) => match Trouble::of(&error) {
                Trouble::Connection => continue,
                Trouble::Room => {
                    tokio::time::sleep(ROOM).await;
                    continue;
                }
                Trouble::Listener => return error,
            },
        };
        let Some(entered) = peers.enter(address.ip(), OF_ONE) else {
            continue;
        };
        let tls = shared.settings().tls;
        let router = router.clone();
        tokio::spawn(async move {
            let served = async {
                match tls {
                    Some(tls) => {
                        let stream = timeout(HEAD, tls.accept(stream))
                            .await
                            .map_err(|_| io::ErrorKind::TimedOut)??;
                        serve(stream, router).await;
                    }
                    None => serve(stream, router).await,
                }
                io::Result::Ok(())
            };
            // A client that fails is its own affair.
            let _ = timeout(CONNECTION, served).await;
            drop((place, entered));
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: axum::Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let _ = served.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listener_that_is_of_no_use_ends_it() {
        for (number, trouble) in [
            (libc::ECONNABORTED, Trouble::Connection),
            (libc::EINTR, Trouble::Connection),
            (libc::ENETUNREACH, Trouble::Connection),
            (libc::EMFILE, Trouble::Room),
            (libc::ENFILE, Trouble::Room),
            (libc::ENOBUFS, Trouble::Room),
            (libc::ENOMEM, Trouble::Room),
            (libc::EBADF, Trouble::Listener),
            (libc::EINVAL, Trouble::Listener),
            (libc::ENOTSOCK, Trouble::Listener),
            (libc::EPERM, Trouble::Listener),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(Trouble::of(&error), trouble, "{error}");
        }
        assert_eq!(Trouble::of(&io::ErrorKind::Other.into()), Trouble::Listener);
    }
}
