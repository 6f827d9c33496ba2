//! The screen on an agent, in a terminal.

use std::process::Command;

use crate::{
    agent::Agent,
    harness::{OBSERVER, Skip, Terminal, Workload, alone, name, poll, together},
};

#[test]
fn shows_an_agent_and_finds_it_again() {
    alone(name!(), || {
        let config = "[capture]\ncomms = [\"ab\", \"ba\"]\ninterval = \"200ms\"\n[tls]\nself_signed = true\n[incidents]\ndir = \"{DIR}/incidents\"\n";
        let agent = Agent::start(config)?;
        let mut workload = Workload::start(&["deadlock"])?;
        // What formed before the screen is opened is on it.
        poll("the deadlock is found", || {
            let found = agent.json("/api/v1/findings");
            (!found["findings"].as_array()?.is_empty()).then_some(())
        });
        let token = agent.path("token").display().to_string();
        let script = format!(
            "{OBSERVER} top --remote {} --insecure --token-file {token}; echo back $?",
            agent.url("")
        );
        let terminal = Terminal::open(&script)?;
        terminal.wait_for(&["REMOTE", "CRITICAL", "deadlock:"]);
        terminal.key("2");
        terminal.wait_for(&["ab", "ba", "LOCK", "HOLDER"]);
        let agent = agent.restart(|| {
            terminal.wait_for(&["REMOTE", "not", "connected:"]);
        });
        let connected = || {
            let text = terminal.text();
            (text.contains("REMOTE") && !text.contains("not connected")).then_some(())
        };
        poll("it is connected again", connected);
        terminal.wait_for(&["ab", "ba", "LOCK", "HOLDER"]);
        terminal.key("q");
        terminal.wait_for(&["back", "0"]);
        workload.finish();
        agent.stop();
        Ok(())
    });
}

#[test]
fn what_cannot_be_shown_is_said() {
    together(name!(), || {
        let agent = Agent::start("[incidents]\ndir = \"{DIR}/incidents\"\n")?;
        let terminal = Terminal::open(&format!("{OBSERVER} top --remote {}", agent.url("")))?;
        terminal.wait_for(&["REMOTE", "not", "connected:", "wants"]);
        let refused = |args: &[&str], word: &str| -> Result<(), Skip> {
            let line = format!("{OBSERVER} top {}; echo back $?", args.join(" "));
            let terminal = Terminal::open(&line)?;
            terminal.wait_for(&["back"]);
            // Lines end where the terminal does, within words too.
            let text = terminal.text().replace('\n', "");
            assert!(text.contains(word), "{text}");
            Ok(())
        };
        let token = agent.path("token").display().to_string();
        let open = ["--remote", "http://192.0.2.1:9464", "--token-file", &token];
        refused(&open, "encryption")?;
        refused(&["--remote", "localhost:9464"], "neither")?;
        refused(&["--remote", "http://localhost", "--pid", "1"], "cannot")?;
        let out = Command::new(OBSERVER)
            .args(["top", "--remote", "http://localhost"])
            .output();
        let error = String::from_utf8(out.unwrap().stderr).unwrap();
        assert!(error.contains("needs a terminal"), "{error}");
        agent.stop();
        Ok(())
    });
}
