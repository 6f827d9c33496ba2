use super::*;

fn inside() -> (Arc<Inside>, mpsc::Receiver<Asked>) {
    let start = r#"{"material":{"token":"t","tls":null,"incidents":"/i","webhook":null,"otlp":null},
        "readable":null,"since_ns":1,"records":4,"cluster":null}"#;
    Inside::new(serde_json::from_str(start).unwrap(), Arc::default())
}

/// What becomes of a process that says `said`, behind its greeting, and then ends.
async fn said_by(inside: &Inside, said: &[u8]) -> Result<()> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut all = BytesMut::new();
    put(&mut all, Sort::Message, b"\"serving\"");
    all.extend_from_slice(said);
    let talk = async {
        let ended = inside.talk(ours, &mut None).await;
        inside.queue.shut();
        inside.settle();
        ended
    };
    let tell = async {
        // It may not be read to the end.
        let _ = theirs.write_all(&all).await;
        let _ = theirs.shutdown().await;
    };
    tokio::join!(talk, tell).0
}

fn message_of(text: &str) -> BytesMut {
    let mut out = BytesMut::new();
    put(&mut out, Sort::Message, text.as_bytes());
    out
}

#[tokio::test]
async fn what_a_process_says_that_was_taken_over_is_refused() {
    for said in [
        &message_of("{}")[..],
        &message_of("\"serving\""),
        &message_of(r#"{"ask":{"id":1,"question":{"locks":99999999}}}"#),
        &message_of(&" ".repeat(MAX_TO_AGENT + 1)),
        b"\0\0\0\0\x01",
        b"\xff\xff\xff\xff\0",
        b"\x05\0\0\0\0nu",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (inside, _asked) = inside();
        let ended = said_by(&inside, said).await;
        assert!(ended.is_err(), "{said:?}");
    }
    let (inside, _asked) = inside();
    said_by(&inside, b"").await.unwrap();
}

#[tokio::test]
async fn more_questions_than_there_may_be_find_the_agent_busy() {
    let (inside, mut asked) = inside();
    let mut said = BytesMut::new();
    for id in 0..2 * QUESTIONS {
        said.extend(message_of(&format!(
            r#"{{"ask":{{"id":{id},"question":"meta"}}}}"#
        )));
    }
    said_by(&inside, &said).await.unwrap();
    let mut count = 0;
    while asked.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, QUESTIONS);
}

#[tokio::test]
async fn counts_and_pods_are_taken_within_bounds() {
    let (inside, _asked) = inside();
    let mut said = message_of("\"pods_first\"");
    for at in 0..MAX_PODS + 10 {
        said.extend(message_of(&format!(
            r#"{{"pod":{{"uid":"u{at}","name":"p","namespace":"n","workload":null}}}}"#
        )));
    }
    said.extend(message_of("\"pods_last\""));
    let tally = Tally {
        streams: 3,
        otlp_records: 5,
        unauthorized: u64::MAX,
        ..Tally::default()
    };
    let text = serde_json::to_string(&ToAgent::Tally(tally)).unwrap();
    said.extend(message_of(&text));
    said.extend(message_of(&text));
    // Of nine records five were sent.
    lock(&inside.told).records = 9;
    said_by(&inside, &said).await.unwrap();
    assert_eq!(inside.pods.len(), MAX_PODS);
    let news = std::mem::take(&mut *lock(&inside.news));
    assert_eq!((news.otlp_records, news.otlp_lost), (5, 4));
    assert!(news.unauthorized < u64::MAX);
    // Nobody reads a stream of a process that is gone.
    assert_eq!(inside.streams.load(Ordering::Relaxed), 0);
}

/// One that is told of incidents.
const CLUSTER: &str = r#"{"peer":{"url":"http://localhost/","token":null,"certificates":null},
    "node":"n","token_file":"/t","workloads":false,"events":true}"#;

fn with_token(inside: &Inside, token: &str) -> Material {
    let mut material = lock(&inside.start).material.clone();
    material.token = Some(token.to_owned());
    material
}

/// The tokens that a process is told of, in their order, until it is told that the loop came round.
async fn tokens(frames: &mut Frames<OwnedReadHalf>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(frame) = frames.next().await.unwrap() {
        match serde_json::from_slice(&frame.payload).unwrap() {
            ToServing::Start(start) => {
                all.extend(start.material.token);
                return all;
            }
            ToServing::Material(material) => all.extend(material.token),
            ToServing::Beat { .. } => return all,
            _ => {}
        }
    }
    all
}

#[tokio::test]
async fn a_reload_while_a_process_starts_is_not_lost() {
    let (inside, _asked) = inside();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (read, mut write) = theirs.into_split();
    let mut frames = Frames::new(read, 1 << 20);
    let process = async {
        assert_eq!(tokens(&mut frames).await, ["t"]);
        // The token is revoked before there is somebody to be told, twice.
        inside.set(with_token(&inside, "second"));
        inside.set(with_token(&inside, "third"));
        let serving = message_of("\"serving\"");
        write.write_all(&serving).await.unwrap();
        assert_eq!(tokens(&mut frames).await, ["third"]);
        inside.set(with_token(&inside, "fourth"));
        inside.queue.say(&ToServing::Beat { ready: true });
        assert_eq!(tokens(&mut frames).await, ["fourth"]);
        write.shutdown().await.unwrap();
    };
    let mut first = None;
    let (talked, ()) = tokio::join!(inside.talk(ours, &mut first), process);
    talked.unwrap();
}

#[tokio::test]
async fn a_reload_has_room_where_messages_have_none() {
    let (inside, _asked) = inside();
    inside.open(0);
    for _ in 0..10_000 {
        inside.queue.say(&ToServing::Beat { ready: true });
    }
    for token in ["second", "third"] {
        inside.set(with_token(&inside, token));
    }
    let batch = inside.queue.next().await.unwrap();
    let mut frames = Frames::new(&batch.bytes[..], 1 << 20);
    let first = frames.next().await.unwrap().unwrap();
    let said = serde_json::from_slice(&first.payload).unwrap();
    let ToServing::Material(material) = said else {
        panic!("something else is said first");
    };
    assert_eq!(material.token.as_deref(), Some("third"));
}

#[tokio::test]
async fn incidents_are_lost_to_each_of_whom_they_were_for() {
    let (inside, _asked) = inside();
    {
        let mut start = lock(&inside.start);
        let webhook = r#"{"url":"http://localhost/","token":null,"certificates":null}"#;
        start.material.webhook = Some(serde_json::from_str(webhook).unwrap());
        start.cluster = Some(serde_json::from_str(CLUSTER).unwrap());
    }
    let tally = Tally {
        webhook_told: 2,
        webhook_lost: 1,
        cluster_told: 1,
        ..Tally::default()
    };
    let text = serde_json::to_string(&ToAgent::Tally(tally)).unwrap();
    lock(&inside.told).incidents = 5;
    said_by(&inside, &message_of(&text)).await.unwrap();
    let news = std::mem::take(&mut *lock(&inside.news));
    assert_eq!((news.webhook_told, news.webhook_lost), (2, 1 + 2));
    assert_eq!((news.cluster_told, news.cluster_lost), (1, 4));
}
