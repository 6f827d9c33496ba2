//! `observer trace` beside a scene.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
};

use serde_json::Value;

use crate::{commands::OBSERVER, program::LIMIT};

/// `observer trace`, with whatever it says.
pub(crate) struct Trace {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
    pub(crate) meta: Value,
}

impl Trace {
    /// Starts it and waits until it is attached. None: that is not possible here.
    pub(crate) fn with(arguments: &[&str]) -> Option<Trace> {
        let mut child = Command::new(OBSERVER)
            .args(["trace", "--format", "jsonl"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // Nobody listens any more when the test is over.
                let _ = send.send(line);
            }
        });
        let Ok(first) = lines.recv_timeout(LIMIT) else {
            let status = child.wait().unwrap();
            assert_eq!(status.code(), Some(3));
            return None;
        };
        let meta = serde_json::from_str(&first).unwrap();
        Some(Trace { child, lines, meta })
    }
}
