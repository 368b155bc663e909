"""Alerts fire when they should and stay quiet when not, as promtool computes them; the dashboard asks what exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ilab.config_where import MonitoringWhere
from ilab.monitoring import METRICS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "base/alerts.yaml").read_text())["spec"]
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
NAMES = {metric.name: metric for metric in METRICS}
DASHBOARD = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
RUN = 'namespace="lab",run="r"'
STEP = f'{RUN},step="generate"'
# alert -> (series that fire it by minute 90, series that do not), values a minute
CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "IlabStepStuck": ({f"ilab_step_stuck{{{STEP}}}": "0x60 1x60"}, {f"ilab_step_stuck{{{STEP}}}": "0x120"}),
    "IlabRunSilent": (
        {
            f"ilab_run_last_event_timestamp_seconds{{{RUN}}}": "0x120",
            f'ilab_run_state{{{RUN},state="running"}}': "1x120",
        },
        {
            f"ilab_run_last_event_timestamp_seconds{{{RUN}}}": "0x120",
            f'ilab_run_state{{{RUN},state="running"}}': "0x120",
        },
    ),
    "IlabRunFailed": (
        {f'ilab_run_state{{{RUN},state="failed"}}': "0x60 1x60"},
        {f'ilab_run_state{{{RUN},state="failed"}}': "0x120", f'ilab_run_state{{{RUN},state="done"}}': "1x120"},
    ),
    "IlabTeacherErrors": (
        {f"ilab_teacher_errors_total{{{STEP}}}": "0+20x120", f"ilab_teacher_calls_total{{{STEP}}}": "0+100x120"},
        {f"ilab_teacher_errors_total{{{STEP}}}": "0+5x120", f"ilab_teacher_calls_total{{{STEP}}}": "0+100x120"},
    ),
    "IlabTeacherDown": (
        {f"ilab_teacher_waiting{{{STEP}}}": "0x60 1x60"},
        {f"ilab_teacher_waiting{{{STEP}}}": "0x87 1x60"},
    ),
    "IlabFewRowsAccepted": (
        {f"ilab_step_rows_accepted_total{{{STEP}}}": "9x120", f"ilab_step_rows_rejected_total{{{STEP}}}": "92x120"},
        {f"ilab_step_rows_accepted_total{{{STEP}}}": "9x120", f"ilab_step_rows_rejected_total{{{STEP}}}": "90x120"},
    ),
    "IlabGateClosed": (
        {f'ilab_gate_published{{{RUN},step="gate"}}': "0x120"},
        {f'ilab_gate_published{{{RUN},step="gate"}}': "1x120"},
    ),
    "IlabDiskAlmostFull": (
        {f"ilab_run_free_bytes{{{RUN}}}": "4000000000x120"},
        {f"ilab_run_free_bytes{{{RUN}}}": "6000000000x120"},
    ),
}


def expected(alert: str) -> dict[str, Any]:
    step = "step" in ALERTS[alert]["expr"].split("(ilab")[0].split("(")[1]
    labels = {"severity": ALERTS[alert]["labels"]["severity"], "namespace": "lab", "run": "r"}
    labels |= {"step": "generate"} if step else {}
    told = {
        name: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        for name, text in ALERTS[alert]["annotations"].items()
    }
    return {"exp_labels": labels, "exp_annotations": told}


def case(alert: str, series: dict[str, str], fires: bool) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "90m", "alertname": alert, "exp_alerts": [expected(alert)] if fires else []}],
    }


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    assert set(CASES) == set(ALERTS)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    tests = [
        case(alert, one, fires) for alert, pair in CASES.items() for one, fires in zip(pair, (True, False), strict=True)
    ]
    file = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(file))
    for line in (["check", "rules", "rules.yaml"], ["test", "rules", "test.yaml"]):
        done = subprocess.run(["promtool", *line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\bilab_\w+", expression))


def test_alerts_ask_for_metrics_that_there_are() -> None:
    for alert, rule in ALERTS.items():
        assert asked(rule["expr"]) and asked(rule["expr"]) <= set(NAMES), alert


def test_the_page_names_every_metric_alert_and_setting() -> None:
    page = (DEPLOY.parent / "docs/how-to/monitor.md").read_text(encoding="utf-8")
    settings = {f"where.monitoring.{name}" for name in MonitoringWhere.model_fields}
    assert {*NAMES, *ALERTS, *settings} <= set(re.findall(r"[\w.]+", page))
    assert asked(page) - {"ilab_training_"} <= set(NAMES)


def queries() -> dict[str, str]:
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[f"${variable['name']}"] = variable["query"]["query"]
    return found


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    found = queries()
    assert len(found) > 10
    for title, query in found.items():
        names = asked(query)
        assert names and names <= set(NAMES), title
        for name, selector in re.findall(r"(ilab_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)=", selector)) <= {*NAMES[name].labels, "namespace"}, title
    shown = set().union(*(asked(query) for query in found.values()))
    assert {"ilab_step_progress_ratio", "ilab_step_loss", "ilab_teacher_errors_total", "ilab_gate_published"} <= shown


@needs_promtool
def test_the_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    plain = {title: query for title, query in queries().items() if not query.startswith("label_values")}
    text = {title: re.sub(r"\$\w+", "x", query.replace("$__rate_interval", "5m")) for title, query in plain.items()}
    rules = [{"record": f"r{number}", "expr": query} for number, query in enumerate(text.values())]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    line = ["promtool", "check", "rules", "--lint=none", "r.yaml"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_lie_side_by_side_without_overlap() -> None:
    seen: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & seen and at["x"] + at["w"] <= 24, panel["title"]
        seen |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
