//! What is served: see docs/openapi.json.

use std::{
    collections::VecDeque,
    convert::Infallible,
    hint::black_box,
    io::Read,
    sync::{Arc, atomic::Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::{BACKLOG, Line, Shared};
use crate::agent::{
    incidents::{self, Began},
    metrics,
    serving::{
        asker::Answer,
        messages::{MAX_LIMIT, Question, is_reason},
        tally::more,
    },
};

/// What needs no token.
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const DOCUMENT: &str = include_str!("../../../../docs/openapi.json");
/// Elements of a list, unless asked for otherwise.
const LIMIT: usize = 1_000;
/// The body of a request.
const BODY: usize = 16 << 10;
/// Bytes of a recording that are read at once.
const PIECE: usize = 64 << 10;

type Ours = State<Arc<Shared>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/openapi.json", get(document))
        .route("/api/v1/blocked", get(blocked))
        .route("/api/v1/locks", get(locks))
        .route("/api/v1/findings", get(findings))
        .route("/api/v1/goroutines", get(goroutines))
        .route("/api/v1/events", get(events))
        .route("/api/v1/incidents", get(list).post(incident))
        .route("/api/v1/incidents/{id}", get(recording))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is nothing here") })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(Arc::clone(&shared), authorize))
        .with_state(shared)
}

/// Lets through what needs no token, and who has it.
async fn authorize(State(shared): Ours, request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let token = shared.settings().token;
    let good = match (&token, given) {
        (Some(token), Some(given)) => is_same(token.as_bytes(), given),
        _ => false,
    };
    if good {
        return next.run(request).await;
    }
    more(&shared.counts.unauthorized, 1);
    let why = if token.is_none() {
        "the agent has no token_file, so this is closed"
    } else {
        "this needs the token of the agent's token_file, as a bearer token"
    };
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (challenge, problem(StatusCode::UNAUTHORIZED, why)).into_response()
}

/// Compares in a time that says nothing of where two texts differ.
fn is_same(token: &[u8], given: &[u8]) -> bool {
    let mut different = u8::from(token.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        different |= byte ^ token.get(at % token.len().max(1)).unwrap_or(&0);
    }
    black_box(different) == 0
}

fn problem(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

async fn scrape(State(shared): Ours, request: Request) -> Response {
    let accepted = request.headers().get(header::ACCEPT);
    let asks = |value: &header::HeaderValue| {
        let text = value.as_bytes();
        memchr::memmem::find(text, b"application/openmetrics-text").is_some()
    };
    let Some(text) = shared.metrics().await else {
        return busy();
    };
    if accepted.is_some_and(asks) {
        return ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response();
    }
    let text = metrics::classic(&String::from_utf8_lossy(&text));
    ([(header::CONTENT_TYPE, CLASSIC)], text).into_response()
}

async fn healthz(State(shared): Ours) -> Response {
    if shared.is_alive() {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent's loop is stuck\n",
        )
            .into_response()
    }
}

async fn readyz(State(shared): Ours) -> Response {
    if shared.is_alive() && shared.ready.load(Ordering::Relaxed) {
        format!("observing\n{}", shared.notes()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not observing\n").into_response()
    }
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, JSON)], DOCUMENT).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    LIMIT
}

type Params<T> = Result<Query<T>, QueryRejection>;

async fn blocked(State(shared): Ours, list: Params<List>) -> Response {
    answer_list(&shared, list, Question::Blocked).await
}

async fn locks(State(shared): Ours, list: Params<List>) -> Response {
    answer_list(&shared, list, Question::Locks).await
}

async fn findings(State(shared): Ours, list: Params<List>) -> Response {
    answer_list(&shared, list, Question::Findings).await
}

async fn goroutines(State(shared): Ours) -> Response {
    answer(&shared, Question::Goroutines).await
}

async fn answer_list(
    shared: &Shared,
    list: Params<List>,
    question: impl Fn(usize) -> Question,
) -> Response {
    match list {
        Ok(Query(List { limit })) if limit <= MAX_LIMIT => answer(shared, question(limit)).await,
        Ok(_) => problem(StatusCode::BAD_REQUEST, "limit: 10000 at most"),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.body_text()),
    }
}

async fn answer(shared: &Shared, question: Question) -> Response {
    match shared.asker.ask(question).await {
        Some(Answer::Text(pieces)) => {
            let length: usize = pieces.iter().map(Bytes::len).sum();
            let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
            let head = [
                (header::CONTENT_TYPE, HeaderValue::from_static(JSON)),
                (header::CONTENT_LENGTH, HeaderValue::from(length)),
            ];
            (head, Body::from_stream(pieces)).into_response()
        }
        _ => busy(),
    }
}

fn busy() -> Response {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "the agent is busy: try again",
    )
}

/// A reader of the stream.
struct Reader {
    first: VecDeque<Bytes>,
    lines: broadcast::Receiver<Line>,
    lagged: u64,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

/// Of one that takes nothing, nothing is heard while all buffers on the way to it are full: what it missed is counted when
/// it goes.
impl Drop for Reader {
    fn drop(&mut self) {
        let behind = self.lines.len().saturating_sub(BACKLOG);
        more(&self.shared.counts.lagged, behind as u64);
    }
}

/// How a stream begins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// With all that is known.
    #[serde(default)]
    snapshot: bool,
}

/// Events as they happen. A reader that is too slow misses some, and is told how many.
async fn events(State(shared): Ours, begin: Params<Begin>) -> Response {
    let first = match begin {
        Ok(Query(Begin { snapshot: true })) => Question::Snapshot,
        Ok(_) => Question::Meta,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let Ok(place) = Arc::clone(&shared.streams).try_acquire_owned() else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "there are too many streams",
        );
    };
    let lines = shared.lines.subscribe();
    // Before the question: what happens after the answer is in the stream.
    shared.asker.count(shared.tally()).await;
    let Some(Answer::Text(mut known)) = shared.asker.ask(first).await else {
        return busy();
    };
    known.push(Bytes::from_static(b"\n"));
    let reader = Reader {
        first: known.into(),
        lines,
        lagged: 0,
        shared,
        _place: place,
    };
    let stream = stream::unfold(reader, |mut reader| async move {
        let line = next_line(&mut reader).await?;
        Some((Ok::<_, Infallible>(line), reader))
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(stream)).into_response()
}

async fn next_line(reader: &mut Reader) -> Option<Bytes> {
    if let Some(first) = reader.first.pop_front() {
        return Some(first);
    }
    let count = match reader.lines.recv().await {
        Ok(Line::Event(line)) => return Some(line),
        // The agent has counted them.
        Ok(Line::Missed(count)) => count,
        Err(broadcast::error::RecvError::Lagged(count)) => {
            more(&reader.shared.counts.lagged, count);
            count
        }
        Err(broadcast::error::RecvError::Closed) => return None,
    };
    reader.lagged += count;
    let clock = crate::time::Clock::now();
    let now_ns = crate::time::mono_ns();
    let loss = crate::event::Event::from(crate::event::Loss {
        time: clock.wall(now_ns),
        mono_ns: now_ns,
        total: reader.lagged,
        counters: [("stream_lagged".into(), reader.lagged)].into(),
    });
    Some(Bytes::from(serde_json::to_string(&loss).ok()? + "\n"))
}

async fn list(State(shared): Ours) -> Response {
    let all = incidents::list(&shared.settings().incidents);
    Json(json!({ "incidents": all })).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    why: String,
}

async fn incident(State(shared): Ours, why: Params<Why>) -> Response {
    let why = match why {
        Ok(Query(Why { why })) if is_reason(&why) => why,
        Ok(_) => {
            let why = "why: 200 bytes at most, and no control characters";
            return problem(StatusCode::BAD_REQUEST, why);
        }
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let why = if why.is_empty() {
        "asked for".to_owned()
    } else {
        why
    };
    match shared.asker.ask(Question::Incident(why)).await {
        Some(Answer::Incident(Ok(Began::New(id) | Began::Joined(id)))) => {
            (StatusCode::ACCEPTED, Json(json!({ "id": id }))).into_response()
        }
        Some(Answer::Incident(Ok(Began::TooEarly(why)))) => {
            problem(StatusCode::TOO_MANY_REQUESTS, &why)
        }
        Some(Answer::Incident(Err(why))) => problem(StatusCode::INTERNAL_SERVER_ERROR, &why),
        _ => busy(),
    }
}

/// The recording of an incident.
async fn recording(State(shared): Ours, Path(id): Path<String>) -> Response {
    let opened = incidents::recording(&shared.settings().incidents, &id)
        .and_then(|file| Some((file.metadata().ok()?.len(), file)));
    let Some((length, file)) = opened else {
        return problem(StatusCode::NOT_FOUND, "there is no such incident");
    };
    // As it is read by whoever asked: it is not kept whole.
    let pieces = stream::unfold(file.take(length), |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        let read = file.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        match read {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(piece)), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    let head = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/zstd"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    (head, Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{material::Material, serving::asker::Asker},
        event::Event,
    };

    fn shared() -> Arc<Shared> {
        let material = r#"{"token":null,"tls":null,"incidents":"/i","webhook":null,"otlp":null}"#;
        let material: Material = serde_json::from_str(material).unwrap();
        Arc::new(Shared::new(Asker::new().0, material.open().unwrap(), None))
    }

    fn reader(shared: &Arc<Shared>) -> Reader {
        Reader {
            first: VecDeque::new(),
            lines: shared.lines.subscribe(),
            lagged: 0,
            shared: Arc::clone(shared),
            _place: Arc::clone(&shared.streams).try_acquire_owned().unwrap(),
        }
    }

    #[tokio::test]
    async fn what_a_reader_misses_is_told_and_counted_once() {
        let shared = shared();
        let lagged = || shared.counts.lagged.load(Ordering::Relaxed);
        let say = |count: usize| {
            for _ in 0..count {
                let line = Line::Event(Bytes::from_static(b"{}\n"));
                shared.lines.send(line).unwrap();
            }
        };
        let (mut slow, idle) = (reader(&shared), reader(&shared));
        say(BACKLOG);
        assert_eq!(next_line(&mut slow).await.unwrap(), "{}\n");
        // One is taken, so that one more than this is too many.
        say(1 + 10);
        let told = next_line(&mut slow).await.unwrap();
        let Event::Loss(loss) = serde_json::from_slice(&told).unwrap() else {
            panic!("{told:?}")
        };
        assert_eq!((loss.total, loss.counters["stream_lagged"]), (10, 10));
        assert_eq!(lagged(), 10);
        // What it did not take before it went is not what it missed.
        assert_eq!(next_line(&mut slow).await.unwrap(), "{}\n");
        drop(slow);
        assert_eq!(lagged(), 10);
        // One that never took anything.
        say(5);
        drop(idle);
        assert_eq!(lagged(), 10 + 11 + 5);
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(is_same(b"secret", b"secret"));
        for given in ["", "secre", "secrets", "Secret", "secretsecret"] {
            assert!(!is_same(b"secret", given.as_bytes()), "{given}");
        }
        assert!(!is_same(b"", b"x"));
    }

    #[test]
    fn the_document_names_every_path() {
        let document: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let source = include_str!("api.rs");
        for line in source
            .lines()
            .filter(|line| line.trim_start().starts_with(".route("))
        {
            let path = line.split('"').nth(1).unwrap();
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }
}
