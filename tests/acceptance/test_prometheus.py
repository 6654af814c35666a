"""A real Prometheus scrapes `dialer metrics`; its rules and the dashboard's queries are right."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import docker

from tests.acceptance.lab.prometheus import Prometheus, promtool, running
from tests.integration.stack import Stack
from tests.integration.test_flower import free_port
from tests.integration.test_metrics import serving
from tests.waiting import wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"


def queries() -> list[str]:
    """Every query of the dashboard, with all cells and PBXs chosen."""
    board = json.loads((DEPLOY / "grafana" / "dialer.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [re.sub(r"\$(cell|pbx)\b", ".*", query) for query in found]


def test_promtool_accepts_the_alert_rules(docker_client: docker.DockerClient) -> None:
    folder = DEPLOY / "prometheus"
    assert "SUCCESS" in promtool(docker_client, folder, "check", "rules", "dialer.rules.yml")
    said = promtool(docker_client, folder, "test", "rules", "dialer.test.yml")
    assert "SUCCESS" in said
    assert "FAILED" not in said


def test_every_alert_has_a_test() -> None:
    rules = (DEPLOY / "prometheus" / "dialer.rules.yml").read_text()
    tests = (DEPLOY / "prometheus" / "dialer.test.yml").read_text()
    alerts = re.findall(r"alert: (\w+)", rules)
    assert alerts
    for alert in alerts:
        fired = re.search(rf"alertname: {alert}\n\s+exp_alerts:\n", tests)
        assert fired, f"no test fires {alert}"


def quick_config(tmp_path: Path, port: int) -> Path:
    """The shipped files, for metrics on that port, scraped each second."""
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    config = folder / "prometheus.yml"
    config.write_text(config.read_text().replace("9464", str(port)).replace("15s", "1s"))
    for one in (tmp_path, folder):
        one.chmod(0o755)  # its user in the container is another one
    return folder


async def test_every_query_of_the_dashboard_has_data(
    docker_client: docker.DockerClient, tmp_path: Path
) -> None:
    port = free_port()
    folder = quick_config(tmp_path, port)
    async with Stack(tmp_path / "stack") as stack:
        stack.add_pbx()
        await stack.start()
        await serving(stack, port)
        with running(docker_client, folder) as prometheus:
            await stack.push([{"Telefone": "none"}])

            async def all_have_data() -> bool:
                await stack.push(5)
                await asyncio.sleep(0.5)
                return not await asyncio.to_thread(without_data, prometheus)

            await wait_until(all_have_data, "data for every query", within_s=90)
            targets = await asyncio.to_thread(prometheus.ask, "targets")
            assert [one["health"] for one in targets["activeTargets"]] == ["up"]
            rules = await asyncio.to_thread(prometheus.ask, "rules")
            states = {r["name"]: r["health"] for g in rules["groups"] for r in g["rules"]}
            assert set(states.values()) == {"ok"}


def without_data(prometheus: Prometheus) -> list[str]:
    """The queries of the dashboard that find nothing."""
    return [query for query in queries() if not prometheus.query(query)]
