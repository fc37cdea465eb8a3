"""The configuration of Grafana and Prometheus agrees with docker-compose.yml."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from service.config.settings import Settings
from tests.composing import PROFILES, ROOT, on_this_side, services, topfive

FOLDER = ROOT / "service" / "observability"


def grafana() -> dict[str, Any]:
    return services("cpu")["grafana"]


def prometheus() -> dict[str, Any]:
    return services("cpu")["prometheus"]


def provisioned(kind: str) -> list[dict[str, Any]]:
    """The provisioning files that Grafana reads, found by what compose mounts."""
    folder = on_this_side(grafana(), f"/etc/grafana/provisioning/{kind}")
    files = sorted(folder.glob("*.y*ml"))
    assert files
    contents = [yaml.safe_load(file.read_text()) for file in files]
    assert {content["apiVersion"] for content in contents} == {1}
    key = {"datasources": "datasources", "dashboards": "providers"}[kind]
    return [entry for content in contents for entry in content[key]]


def prometheus_config() -> dict[str, Any]:
    (option,) = (word for word in prometheus()["command"] if word.startswith("--config.file="))
    config: dict[str, Any] = yaml.safe_load(on_this_side(prometheus(), option.partition("=")[2]).read_text())
    return config


def test_the_datasource_is_the_prometheus_of_compose() -> None:
    (source,) = provisioned("datasources")
    assert (source["uid"], source["type"], source["isDefault"]) == ("prometheus", "prometheus", True)
    url = urlsplit(source["url"])
    assert url.hostname == "prometheus"
    assert url.port in {port["target"] for port in prometheus()["ports"]}
    assert prometheus()["image"].endswith(f":v{source['jsonData']['prometheusVersion']}")


def test_grafana_knows_how_often_prometheus_scrapes() -> None:
    (source,) = provisioned("datasources")
    assert source["jsonData"]["timeInterval"] == prometheus_config()["global"]["scrape_interval"]


def test_prometheus_finds_what_its_configuration_names() -> None:
    config = prometheus_config()
    for pattern in config["rule_files"]:
        assert list(FOLDER.glob(pattern)), pattern
    data = next(word.partition("=")[2] for word in prometheus()["command"] if word.startswith("--storage.tsdb.path="))
    assert data in {volume["target"] for volume in prometheus()["volumes"] if volume["type"] == "volume"}


@pytest.mark.parametrize("profile", PROFILES)
def test_prometheus_scrapes_the_service_where_it_listens(profile: str) -> None:
    urls = [
        urlsplit(sd["url"]) for job in prometheus_config()["scrape_configs"] for sd in job.get("http_sd_configs", [])
    ]
    assert urls
    assert {url.hostname for url in urls} == {"topfive"}
    assert {url.port for url in urls} == {int(topfive(profile)["environment"]["TOPFIVE_PORT"])}
    assert Settings.model_fields["port"].default in {port["target"] for port in topfive(profile)["ports"]}


def test_every_dashboard_is_where_grafana_looks() -> None:
    (provider,) = provisioned("dashboards")
    mounted = on_this_side(grafana(), provider["options"]["path"])
    files = sorted((FOLDER / "grafana").rglob("*.json"))
    assert len(files) >= 3
    for file in files:
        assert file.is_relative_to(mounted), file
    boards = [json.loads(file.read_text()) for file in files]
    assert len({board["uid"] for board in boards}) == len(boards)


def test_the_overview_is_the_first_page() -> None:
    home = on_this_side(grafana(), grafana()["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert "overview" in json.loads(home.read_text())["title"].lower()


def test_visitors_who_are_not_signed_in_may_only_look() -> None:
    environment = grafana()["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_the_volumes_are_where_the_images_keep_their_data() -> None:
    assert "/var/lib/grafana" in {v["target"] for v in grafana()["volumes"] if v["type"] == "volume"}
    assert "/prometheus" in {v["target"] for v in prometheus()["volumes"] if v["type"] == "volume"}
