"""docs/reference/metrics.md and docs/reference/health.md: every metric, and every reason of the cluster's health."""

from __future__ import annotations

from pvc.gateway.health_codes import CODES
from pvc.gateway.metric_catalogue import FAMILIES
from pvc.schemas.markdown import NOTICE, table
from pvc.schemas.monitoring_rules import OTHERS, RECORDED, alert_of

_METRICS = """\
# Metrics

All that `GET /metrics` of a gateway shows. How to have them read, what they cost and what to make of them:
[monitoring](../monitoring.md). A counter begins at nothing with each start of `pvcd`; use `rate` and `increase`.

"""

_RECORDED = """\
Recorded by the rules in `deploy/monitoring/pvc.rules.yml`:

"""

_HEALTH = """\
# Reasons of the cluster's health

What `pvc cluster health` tells with its code, and what `problems` of `GET /cluster` has. For each code there is an
alert in `deploy/monitoring/pvc.rules.yml`, which fires when it has been so for that long. An acknowledged fault no
longer counts.

"""

_OTHERS = """\
Alerts beyond these, about single gateways:

"""


def metrics_page() -> str:
    """The page of the metrics."""
    rows = [
        (f"`{one.name}`", one.kind.value, ", ".join(f"`{label}`" for label in one.labels), one.help) for one in FAMILIES
    ]
    recorded = [(f"`{name}`", f"`{query}`") for name, query in RECORDED]
    listed = table(("metric", "kind", "labels", "meaning"), rows)
    return NOTICE + _METRICS + listed + _RECORDED + table(("name", "query"), recorded)


def health_page() -> str:
    """The page of the reasons."""
    rows = [
        (f"`{code}`", " or ".join(one.health), one.meaning, one.remedy.replace("{name}", "NAME"), _alert(code))
        for code, one in CODES.items()
    ]
    others = [
        (f"`{name}`", severity, after, _plain(summary), remedy) for name, _, after, severity, summary, remedy in OTHERS
    ]
    listed = table(("code", "health", "meaning", "what to do", "alert"), rows)
    return NOTICE + _HEALTH + listed + _OTHERS + table(("alert", "severity", "after", "meaning", "what to do"), others)


def _alert(code: str) -> str:
    after = CODES[code].alert_after
    return f"`{alert_of(code)}`, {'at once' if after == '0s' else f'after {after}'}"


def _plain(summary: str) -> str:
    """Without Prometheus' own marks."""
    for mark in ("instance", "node", "archive", "place", "webhook"):
        summary = summary.replace(f"{{{{ $labels.{mark} }}}}", mark.upper())
    for form in ("", " | humanize", " | humanizePercentage", " | humanizeDuration"):
        summary = summary.replace(f"{{{{ $value{form} }}}}", "N")
    return summary
