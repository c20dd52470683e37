"""What is shipped for monitoring agrees with the code: metrics that exist, an alert for each reason, remedies."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pvc.cli.app import cli
from pvc.gateway.health_codes import CODES
from pvc.gateway.metric_catalogue import FAMILIES
from pvc.schemas.dashboard import WIDTH, queries
from pvc.schemas.monitoring_rules import OTHERS, RECORDED, alert_of

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "deploy" / "monitoring" / "pvc.rules.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "monitoring" / "grafana-dashboard.json").read_text())
KNOWN = {series: family for family in FAMILIES for series in family.series}
RECORDED_NAMES = {name for name, _ in RECORDED}

METRIC = re.compile(r"[a-z]+:[a-z_]+:[a-z0-9_]+|\b(?:pvc|process)_[a-z0-9_]+")
LABELS = re.compile(r"((?:pvc|process)_[a-z0-9_]+)\{([^}]*)\}")


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]


def expressions() -> list[str]:
    rules = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    return [*rules, *queries()]


def test_each_reason_of_the_health_has_one_alert_and_no_alert_another_reason() -> None:
    by_code = {rule["labels"]["health_code"]: rule["alert"] for rule in alerts() if "health_code" in rule["labels"]}
    assert by_code == {code: alert_of(code) for code in CODES}
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) == len(CODES) + len(OTHERS)


def test_each_reason_is_found_by_some_line_of_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "pvc").rglob("*.py") if path.name != "health_codes.py")
    assert [code for code in CODES if f'"{code}"' not in source] == []


@pytest.mark.parametrize("expression", expressions())
def test_what_is_asked_for_is_there(expression: str) -> None:
    asked = set(METRIC.findall(expression))
    assert asked <= KNOWN.keys() | RECORDED_NAMES or asked == set(), asked - KNOWN.keys() - RECORDED_NAMES
    for name, labels in LABELS.findall(expression):
        wanted = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', labels))
        assert wanted <= {*KNOWN[name].labels, "le", "job", "instance"}, f"{name} has no {wanted}"


def test_every_metric_but_some_is_shown_or_alerted_on() -> None:
    """Not a duty, but one that nobody looks at should be known."""
    seen = {KNOWN[name].name for expression in expressions() for name in METRIC.findall(expression) if name in KNOWN}
    assert len(seen) > len(FAMILIES) / 2


def test_every_alert_says_what_is_so_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["annotations"]["summary"] and rule["annotations"]["remedy"], rule
        assert rule["labels"]["severity"], rule


def test_the_commands_of_every_remedy_exist() -> None:
    texts = [one.remedy for one in CODES.values()] + [remedy for *_, remedy in OTHERS]
    commands = [found.split() for text in texts for found in re.findall(r"`pvc ([^`]+)`", text)]
    assert len(commands) > 20
    for words in commands:
        command: click.Command = cli
        context = click.Context(command)
        for word in words:
            if not isinstance(command, click.Group):
                break
            found = command.get_command(context, word)
            assert found is not None, f"there is no pvc {' '.join(words)}"
            command = found
        assert not isinstance(command, click.Group), words
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}, words


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert ids == list(range(1, len(ids) + 1))
    assert DASHBOARD["uid"] and DASHBOARD["title"] and DASHBOARD["schemaVersion"] >= 36
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, f"{panel['title']} lies on another"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["targets"] and panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$(?!__)(\w+)", target["expr"]))
            assert used <= variables and target["refId"], target
