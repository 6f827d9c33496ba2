//! Chromium without a window, driven by its own protocol over two pipes.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{LIMIT, Skip, TempDir};

const PROGRAM: &str = "/usr/bin/chromium";
/// Where Chromium reads messages, and where it writes them.
const IN: RawFd = 3;
const OUT: RawFd = 4;
/// Height of a picture.
const PICTURE: f64 = 1_300.0;

/// A running browser with one page; ended when dropped.
pub(crate) struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    next: u64,
    session: String,
    /// What the page complained of.
    pub(crate) complaints: Vec<String>,
    events: Vec<Value>,
    _profile: TempDir,
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: the call writes two numbers into the array.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    assert_eq!(made, 0);
    // SAFETY: both are new descriptors that nobody else has.
    unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) }
}

/// The program, what it reads, and what it writes.
fn spawn(profile: &TempDir) -> (Child, File, File) {
    let (child_in, to) = pipe();
    let (from, child_out) = pipe();
    let mut command = Command::new(PROGRAM);
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
        .args(["--remote-debugging-pipe", "--no-first-run"])
        .args(["--hide-scrollbars", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("about:blank")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let (input, output) = (child_in.as_raw_fd(), child_out.as_raw_fd());
    // SAFETY: the closure makes only calls that are safe between fork and exec.
    unsafe { command.pre_exec(move || place(input, output)) };
    let child = command.spawn().unwrap();
    (child, File::from(to), File::from(from))
}

/// Puts the ends where Chromium looks for them. Both are moved out of the way first: either may be 3 or 4 itself.
fn place(input: RawFd, output: RawFd) -> io::Result<()> {
    // SAFETY: these calls take numbers only; the descriptors are open and belong to the child.
    let placed = unsafe {
        let (input, output) = (
            libc::fcntl(input, libc::F_DUPFD_CLOEXEC, 10),
            libc::fcntl(output, libc::F_DUPFD_CLOEXEC, 10),
        );
        libc::dup2(input, IN) == IN && libc::dup2(output, OUT) == OUT
    };
    if placed {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Browser {
    pub(crate) fn start() -> Result<Browser, Skip> {
        if !Path::new(PROGRAM).exists() {
            return Err(Skip(format!("{PROGRAM} is not there")));
        }
        let profile = TempDir::new();
        let (child, to, from) = spawn(&profile);
        let (send, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0).map_while(Result::ok) {
                // Nobody listens any more when the test is over.
                let _ = send.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let mut browser = Browser {
            child,
            to,
            from: messages,
            next: 0,
            session: String::new(),
            complaints: Vec::new(),
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach);
        attached["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Ok(browser)
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to
            .write_all(format!("{message}\0").as_bytes())
            .unwrap();
        loop {
            let message = self.read(method);
            if message["id"] == self.next {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }

    /// The next message; what a page says of errors and of the network is kept.
    #[track_caller]
    fn read(&mut self, what: &str) -> Value {
        let message = self
            .from
            .recv_timeout(LIMIT)
            .unwrap_or_else(|error| panic!("Chromium does not answer {what}: {error}"));
        let params = &message["params"];
        let complaint = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(params["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") => Some(params["args"].to_string()),
            Some("Log.entryAdded") => Some(params["entry"].to_string()),
            Some("Page.javascriptDialogOpening") => Some(params.to_string()),
            Some("Network.requestWillBeSent") => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                (!url.starts_with("file:") && !url.starts_with("about:")).then(|| url.to_owned())
            }
            _ => None,
        };
        self.complaints.extend(complaint);
        if message["method"].is_string() {
            self.events.push(message.clone());
        }
        message
    }

    /// A window of this width, in light or dark.
    pub(crate) fn window(&mut self, width: u32, scheme: &str) {
        let phone = width < 600;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": phone}),
        );
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) fn open(&mut self, path: &Path) {
        self.events.clear();
        self.call(
            "Page.navigate",
            &json!({"url": format!("file://{}", path.display())}),
        );
        let loaded = |event: &Value| event["method"] == "Page.loadEventFired";
        while !self.events.iter().any(loaded) {
            self.read("the page");
        }
    }

    /// The value of an expression in the page, or what it promises.
    #[track_caller]
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &params);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Presses and releases the mouse in the middle of an element.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        // The first line of it: between the lines of a link there is nothing to click. And once it is drawn where
        // it is now: a click goes to what was drawn there.
        let find = format!(
            "(async () => {{ const found = document.querySelector({selector:?}); \
             const drawn = () => new Promise(requestAnimationFrame); \
             await drawn(); found.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             await drawn(); await drawn(); \
             const box = found.getClientRects()[0]; \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.eval(&find);
        for kind in ["mousePressed", "mouseReleased"] {
            let button = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &button);
        }
    }

    /// Types into the element that has the focus.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", &json!({"text": text}));
    }

    /// Pictures of the page, from its top to its end, if somebody wants to see them.
    pub(crate) fn photograph(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("OBSERVER_PHOTOS") else {
            return;
        };
        fs::create_dir_all(&folder).unwrap();
        let size = self.call("Page.getLayoutMetrics", &json!({}));
        let of = |side: &str| size["cssContentSize"][side].as_f64().unwrap();
        let (width, height) = (of("width"), of("height"));
        let mut top = 0.0;
        for number in 0.. {
            if top >= height {
                break;
            }
            let high = PICTURE.min(height - top);
            let clip = json!({"x": 0, "y": top, "width": width, "height": high, "scale": 1});
            let picture = self.call(
                "Page.captureScreenshot",
                &json!({"captureBeyondViewport": true, "format": "png", "clip": clip}),
            );
            let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
            fs::write(
                Path::new(&folder).join(format!("{name}-{number}.png")),
                bytes,
            )
            .unwrap();
            top += PICTURE;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
