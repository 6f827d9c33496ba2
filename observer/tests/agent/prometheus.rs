//! Metrics, held against Prometheus itself: promtool reads them, the server scrapes them and evaluates the alert
//! rules and every query of the dashboard.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    agent::{Agent, Daemon, curl, free_port, needs},
    harness::{Workload, alone, name, poll, together},
};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

#[test]
fn promtool_reads_metrics_and_rules() {
    together(name!(), || {
        needs("promtool")?;
        let agent = Agent::start("[incidents]\ndir = \"{DIR}/incidents\"\n")?;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = agent.open("/metrics").1;
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let out = promtool.wait_with_output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let openmetrics = agent
            .ask(&["-H", "Accept: application/openmetrics-text"], "/metrics")
            .1;
        assert!(openmetrics.ends_with("# EOF\n"));
        let rules = deploy("prometheus/alerts.yaml");
        let out = Command::new("promtool")
            .args(["check", "rules"])
            .arg(rules)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        agent.stop();
        Ok(())
    });
}

/// Asks a server; its answer's data.
fn get(port: u16, path: &str, query: Option<&str>) -> Option<Value> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let encoded = query.map(|query| format!("query={query}"));
    let mut args = vec!["--get"];
    if let Some(encoded) = &encoded {
        args.extend(["--data-urlencode", encoded]);
    }
    args.push(&url);
    let (status, body) = curl(&args);
    if status == 0 {
        return None;
    }
    let answer: Value = serde_json::from_str(&body).ok()?;
    assert_eq!(answer["status"], "success", "{query:?}: {body}");
    Some(answer["data"].clone())
}

#[test]
fn an_alert_fires_and_the_dashboard_is_answered() {
    alone(name!(), || {
        needs("prometheus")?;
        let agent = Agent::start(
            "[capture]\ninterval = \"200ms\"\n[incidents]\ndir = \"{DIR}/incidents\"\n",
        )?;
        let mut workload = Workload::start(&["deadlock"])?;
        let (port, config) = (free_port(), agent.path("prometheus.yaml"));
        // The same rules, but that an alert need not last.
        let rules = fs::read_to_string(deploy("prometheus/alerts.yaml")).unwrap();
        fs::write(
            agent.path("alerts.yaml"),
            rules.replace("for: 10s", "for: 1s"),
        )
        .unwrap();
        let text = format!(
            "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: [alerts.yaml]\n\
             scrape_configs: [{{job_name: observer, honor_labels: true, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]\n",
            agent.port
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                agent.path("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let prometheus = Daemon::start(&mut command, &agent.path("prometheus.log"));
        let alert = poll("the alert fires", || {
            let alerts = get(port, "/api/v1/alerts", None)?;
            let firing = |alert: &&Value| {
                alert["labels"]["alertname"] == "ObserverDeadlock" && alert["state"] == "firing"
            };
            alerts["alerts"].as_array()?.iter().find(firing).cloned()
        });
        assert_eq!(
            alert["annotations"]["runbook_url"],
            "docs/rules.md#deadlock"
        );
        let up = get(port, "/api/v1/query", Some("up")).unwrap();
        assert_eq!(up["result"][0]["value"][1], "1", "{up}");
        answered(port);
        drop(prometheus);
        workload.finish();
        agent.stop();
        Ok(())
    });
}

/// Every query of the dashboard, with its variables filled in, is one that Prometheus answers; those on which
/// everything rests have values.
fn answered(port: u16) {
    let text = fs::read_to_string(deploy("grafana/observer.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = 0;
    let metrics = get(port, "/api/v1/label/__name__/values", None)
        .unwrap()
        .to_string();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let filled = query
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*")
                .replace("$namespace", ".*");
            assert!(!filled.contains('$'), "{filled}");
            let data = get(port, "/api/v1/query", Some(&filled)).unwrap();
            assert_eq!(data["resultType"], "vector", "{filled}");
            queries += 1;
            // Metrics of what does not happen here have no series yet.
            let absent = ["observer_goroutines", "observer_lost_total"];
            for name in names(&filled).filter(|name| !absent.contains(name)) {
                assert!(
                    metrics.contains(&format!("\"{name}\"")),
                    "{name} of {query}: {metrics}"
                );
            }
        }
    }
    assert!(queries > 15);
}

fn names(query: &str) -> impl Iterator<Item = &str> {
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("observer_"))
}
