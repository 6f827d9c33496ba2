"""The chart, with the real Helm: lints it, renders it in several ways, validates what comes out against the schemas
of three releases of Kubernetes, and holds deploy/kubernetes/observer.yaml against it.

    python3 deploy/helm/render.py [--write]

Needs the Python packages helm-python-sdk and kubernetes-validate.
"""

import json
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from helm_python.chart import Chart, lint

HERE = Path(__file__).parent
CHART = HERE / "observer"
PLAIN = HERE.parent / "kubernetes" / "observer.yaml"
RELEASES = ["1.29", "1.33", "1.37"]
# Kinds of others, which the schemas of Kubernetes do not have.
OTHERS = {"ServiceMonitor", "PrometheusRule"}
WAYS = {
    "defaults": {},
    "everything": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
        "token": {"existingSecret": "observer-token"},
        "tls": {"existingSecret": "observer-tls"},
        "networkPolicy": {"fromNamespaces": {"kubernetes.io/metadata.name": "monitoring"}},
        "priorityClassName": "system-node-critical",
        "imagePullSecrets": [{"name": "pull"}],
        "capabilities": ["BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH", "SYS_RESOURCE"],
        "config": 'max_memory = "256MiB"\n\n[triggers]\nblocked = 100\n',
        "podLabels": {"team": "platform"},
        "podAnnotations": {"note": "x"},
        "serviceAccount": {"name": "other", "annotations": {"a": "b"}},
        "kubernetes": {"workloads": True, "events": True},
    },
    "little": {
        "incidents": {"hostPath": ""},
        "networkPolicy": {"enabled": False},
        "preflight": {"enabled": False},
        "image": {"repository": "r/observer", "digest": "sha256:" + "0" * 64},
    },
}
WRONG = [
    {"port": 80},
    {"prot": 9464},
    {"capabilities": ["SYS_MODULE"]},
    {"image": {"repository": "x", "digest": "latest"}},
    {"networkPolicy": {"enabled": "yes"}},
    {"kubernetes": {"secrets": True}},
]


def documents(rendered):
    for path in sorted(rendered):
        if path.endswith(".yaml"):
            for document in yaml.safe_load_all(rendered[path]):
                if document:
                    yield path, document


def check(way, values, chart):
    report = lint(str(CHART), values, strict=True)
    bad = [message for message in report["messages"] if message["severity"] >= 2]
    assert not bad and not report["errors"], (way, bad, report["errors"])
    kinds = []
    for path, document in documents(chart.render(values, name="observer", namespace="observer")):
        kinds.append(document["kind"])
        if document["kind"] not in OTHERS:
            for release in RELEASES:
                kubernetes_validate.validate(document, release, strict=True)
    print(f"{way}: {len(kinds)} objects, {', '.join(sorted(kinds))}")


def plain(chart):
    rendered = chart.render({"preflight": {"enabled": False}}, name="observer", namespace="observer")
    parts = ["# Made from deploy/helm/observer by `python3 deploy/helm/render.py --write`.\n"]
    parts.append("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: observer\n  labels:\n"
                 "    pod-security.kubernetes.io/enforce: privileged\n")
    for _, document in documents(rendered):
        document["metadata"]["namespace"] = "observer"
        labels = document["metadata"].get("labels", {})
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            labels.pop(label, None)
            template = document.get("spec", {}).get("template", {})
            template.get("metadata", {}).get("labels", {}).pop(label, None)
        parts.append(yaml.safe_dump(document, sort_keys=False))
    return "---\n".join(parts)


def main():
    chart = Chart.load(str(CHART))
    for way, values in WAYS.items():
        check(way, values, chart)
    for values in WRONG:
        try:
            chart.validate_schema(values)
        except Exception:
            continue
        raise AssertionError(f"the schema of the values lets {json.dumps(values)} through")
    text = plain(chart)
    if "--write" in sys.argv:
        PLAIN.write_text(text)
    assert PLAIN.read_text() == text, f"{PLAIN} is not what the chart makes: run this with --write"
    for document in yaml.safe_load_all(text):
        for release in RELEASES:
            kubernetes_validate.validate(document, release, strict=True)
    # The configuration, for whoever asks whether the agent takes it.
    for way, values in WAYS.items():
        for _, document in documents(chart.render(values, name="observer", namespace="observer")):
            if document["kind"] == "ConfigMap" and "agent.toml" in document["data"]:
                name = f"--{way}.toml"
                if len(sys.argv) > 1 and not sys.argv[-1].startswith("--"):
                    Path(sys.argv[-1], name.lstrip("-")).write_text(document["data"]["agent.toml"])


main()
