"""What is shipped for monitoring, judged by Prometheus itself: its checks, its tests of rules, and a server that reads
a real `pvcd` with a token."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from pvc.gateway.health_codes import CODES
from pvc.gateway.metric_catalogue import FAMILIES
from pvc.projections.cluster_views import Health
from pvc.schemas.dashboard import queries
from pvc.schemas.monitoring_rules import RECORDED, SEVERITY, alert_of
from tests.integration.cli_cluster import Cluster, free_port
from tests.integration.cli_process import Cli
from tests.integration.daemon_process import DaemonProcess
from tests.integration.prometheus_server import PrometheusServer, promtool
from tests.support.certificates import a_certificate

pytestmark = pytest.mark.monitoring

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = MONITORING / "pvc.rules.yml"

PATIENCE_S = 60.0

MINUTES = {"0s": 0, "1m": 1, "2m": 2, "5m": 5, "10m": 10, "15m": 15, "1d": 1440}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[DaemonProcess, int]]:
    port, certificate = free_port(), a_certificate(tmp_path, "hv1")
    listening = {"listen": f"127.0.0.1:{port}", "tls_cert": str(certificate.cert), "tls_key": str(certificate.key)}
    made = DaemonProcess(tmp_path / "hv1", gateway=listening)
    made.start()
    yield made, port
    made.stop()


def test_the_rules_are_in_order() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_the_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(MONITORING / "pvc.rules.test.yml"))


def test_each_reason_of_the_health_alerts_after_its_time_and_not_before(tmp_path: Path) -> None:
    tests = []
    for code, one in CODES.items():
        for health in one.health:
            after = MINUTES[one.alert_after]
            series = f'pvc_cluster_health_reasons{{code="{code}",health="{health}",job="pvc",instance="a"}}'
            other = series.replace('instance="a"', 'instance="b"')
            wanted = {
                "severity": "critical" if health is Health.CRITICAL else "warning",
                "health_code": code,
                "code": code,
                "health": str(health),
                "job": "pvc",
            }
            (rule,) = [
                rule
                for group in yaml.safe_load(RULES.read_text())["groups"]
                for rule in group["rules"]
                if rule.get("alert") == alert_of(code)
            ]
            assert rule["labels"]["severity"] == SEVERITY
            fires = [{"exp_labels": wanted, "exp_annotations": rule["annotations"]}]
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": f"1x{after + 10}"} for name in (series, other)],
                    "alert_rule_test": [
                        *(
                            [{"eval_time": f"{after - 1}m", "alertname": alert_of(code), "exp_alerts": []}]
                            if after
                            else []
                        ),
                        {"eval_time": f"{after}m", "alertname": alert_of(code), "exp_alerts": fires},
                    ],
                }
            )
    file = tmp_path / "all.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    assert "SUCCESS" in promtool("test", "rules", str(file))


def test_every_query_of_the_dashboard_can_be_asked(tmp_path: Path) -> None:
    def filled(query: str) -> str:
        return query.replace("$__rate_interval", "5m").replace("$node", ".*")

    rules = [{"record": f"x:{number}", "expr": filled(query)} for number, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(file))


def test_promtool_finds_no_fault_with_the_metrics_of_a_daemon(daemon: tuple[DaemonProcess, int]) -> None:
    with daemon[0].client() as client:
        client.wait_for(client.command("cluster.init", {"name": "main"}), timeout_s=20)
        client.command("vm.define", {"name": "web01", "memory_mib": 64, "vcpus": 1})
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(daemon[0].socket))) as root:
        text = root.get("http://pvc/metrics").text
    assert "pvc_vm_state" in text
    assert promtool("check", "metrics", given=text).strip() == ""


def test_a_real_prometheus_reads_a_real_daemon(daemon: tuple[DaemonProcess, int], tmp_path: Path) -> None:
    pvcd, port = daemon
    with pvcd.client() as client:
        client.wait_for(client.command("cluster.init", {"name": "main"}), timeout_s=20)
        client.command("access.add", {"principal": "prometheus", "kind": "service", "grants": [{"role": "viewer"}]})
        token = client.command("access.create_token", {"principal": "prometheus", "role": "viewer"})["token"]
        client.command("vm.define", {"name": "web01", "memory_mib": 64, "vcpus": 1})
        client.wait_for(client.command("vm.start", {"vm": "web01"}), timeout_s=20)
    server = PrometheusServer(tmp_path / "prometheus", f"127.0.0.1:{port}", token, RULES)
    server.start()
    try:
        deadline = time.monotonic() + PATIENCE_S
        running = 'pvc_vm_state{vm="web01",node="hv1",state="running"} == 1'
        while not (server.query(running) and server.query("pvc_vm_cpu_seconds_total")):
            assert time.monotonic() < deadline, server.ask("targets")
            time.sleep(0.5)
        (target,) = server.ask("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        kinds = {name: told[0]["type"] for name, told in server.ask("metadata").items() if name.startswith("pvc_")}
        assert kinds.items() <= {(family.name, str(family.kind)) for family in FAMILIES} and len(kinds) > 40
        rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > len(CODES) + len(RECORDED) and {rule["health"] for rule in rules} <= {"ok", "unknown"}
        assert server.query("instance:pvc_gateway_requests:rate5m") is not None
    finally:
        server.kill()


def test_where_there_is_no_cluster_its_health_is_not_ok(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, gateway={"socket": str(tmp_path / "pvc.sock")})
    daemon.start()
    try:
        cli = Cli(tmp_path, {"PVC_SOCKET": str(daemon.socket)})
        told, data = cli("cluster", "health"), cli("cluster", "health", "-o", "json")
    finally:
        daemon.stop()
    assert (told.code, told.out) == (1, "There is no cluster here yet. Make one: pvc cluster init NAME\n")
    assert data.code == 1 and json.loads(data.out)["initialised"] is False


def test_pvc_cluster_health_says_what_to_do(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        well = cluster.cli("cluster", "health")
        assert (well.code, well.out.split()) == (0, ["Health", "ok"]), well
        cluster.cli("cluster", "maintenance", "on", "--reason", "switches")
        ill = cluster.cli("cluster", "health")
        assert ill.code == 1
        assert re.search(r"cluster\.maintenance +the cluster is in maintenance \(switches\)", ill.out)
        assert "`pvc cluster maintenance off`" in ill.out
    finally:
        cluster.daemon.stop()
