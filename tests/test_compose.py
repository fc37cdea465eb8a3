"""docker-compose.yml, as Compose's own command line understands it. No engine is needed, and nothing is started."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from service.cluster import driver
from service.config.settings import Settings
from service.lifecycle import supervisor
from tests.checks import answers_of_check
from tests.composing import PROFILES, ROOT, compose, services, topfive

TEXT = (ROOT / "docker-compose.yml").read_text()
SETTINGS = {f"TOPFIVE_{name.upper()}" for name in Settings.model_fields}
#: Where the two services may differ.
OF_A_PROFILE = {"profiles", "build", "environment", "deploy", "networks"}

every_profile = pytest.mark.parametrize("profile", PROFILES)
every_service = pytest.mark.parametrize(
    ("profile", "name"),
    [("cpu", "topfive"), ("gpu", "topfive-gpu"), *(("cpu", name) for name in ("prometheus", "grafana"))],
)


def seconds(duration: str) -> int:
    """Of ``1m30s``, as Compose writes durations."""
    units = {"h": 3600, "m": 60, "s": 1}
    parts = re.findall(r"(\d+)([hms])", duration)
    assert "".join(number + unit for number, unit in parts) == duration
    return sum(int(number) * units[unit] for number, unit in parts)


@every_profile
def test_compose_accepts_it_without_a_word(profile: str) -> None:
    assert compose("--profile", profile, "config", "--quiet") == ""


@pytest.mark.parametrize(
    ("arguments", "variables", "started"),
    [
        ((), {}, "topfive"),
        (("--profile", "cpu"), {}, "topfive"),
        (("--profile", "gpu"), {}, "topfive-gpu"),
        ((), {"COMPOSE_PROFILES": "gpu"}, "topfive-gpu"),
    ],
)
def test_one_of_the_two_services_runs(arguments: tuple[str, ...], variables: dict[str, str], started: str) -> None:
    names = compose(*arguments, "config", "--services", **variables).split()
    assert sorted(names) == sorted([started, "prometheus", "grafana"])


def test_the_two_services_differ_in_nothing_but_the_device() -> None:
    cpu, gpu = topfive("cpu"), topfive("gpu")
    assert {key for key in cpu.keys() | gpu.keys() if cpu.get(key) != gpu.get(key)} <= OF_A_PROFILE
    on_cpu, on_gpu = dict(cpu["environment"]), dict(gpu["environment"])
    assert (on_cpu.pop("TOPFIVE_DEVICE"), on_gpu.pop("TOPFIVE_DEVICE")) == ("cpu", "cuda")
    assert on_cpu == on_gpu


def test_the_gpu_is_reserved_by_one_of_them_only() -> None:
    assert topfive("gpu")["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    assert "deploy" not in topfive("cpu")


@every_profile
def test_it_is_found_under_one_name(profile: str) -> None:
    (name,) = (name for name, service in services(profile).items() if "build" in service)
    aliases = (topfive(profile)["networks"]["default"] or {}).get("aliases", [])
    assert "topfive" in [name, *aliases]


@every_service
def test_images_are_pinned_or_built_from_this_tree(profile: str, name: str) -> None:
    service = services(profile)[name]
    if "build" in service:
        assert "image" not in service
        assert Path(service["build"]["context"]) == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
    else:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])


@every_service
def test_each_says_how_it_is(profile: str, name: str) -> None:
    check = services(profile)[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert not check.get("disable")
    assert seconds(check["timeout"]) <= seconds(check["interval"])


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_it_is_asked_and_published_on_the_same_port(name: str) -> None:
    service = services("cpu")[name]
    asked = urlsplit(service["healthcheck"]["test"][-1])
    assert asked.hostname == "127.0.0.1"
    assert [port["target"] for port in service["ports"]] == [asked.port]


@every_service
def test_nothing_is_published_beyond_this_machine(profile: str, name: str) -> None:
    ports = services(profile)[name]["ports"]
    assert ports
    assert {port.get("host_ip") for port in ports} == {"127.0.0.1"}


@every_service
def test_folders_exist_and_are_read_only_and_data_is_in_volumes(profile: str, name: str) -> None:
    volumes = services(profile)[name]["volumes"]
    for bind in (volume for volume in volumes if volume["type"] == "bind"):
        assert Path(bind["source"]).is_dir(), bind["source"]
        assert bind["read_only"] is True, bind["source"]
    assert [volume["source"] for volume in volumes if volume["type"] == "volume"]


def test_every_named_volume_is_declared_and_used() -> None:
    declared = set(yaml.safe_load(TEXT)["volumes"])
    used = {
        volume["source"]
        for profile in PROFILES
        for service in services(profile).values()
        for volume in service["volumes"]
        if volume["type"] == "volume"
    }
    assert used == declared


@every_profile
def test_every_setting_reaches_the_service_and_no_other(profile: str) -> None:
    assert {name for name in topfive(profile)["environment"] if name.startswith("TOPFIVE_")} == SETTINGS


@every_profile
def test_what_is_set_is_valid(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in topfive(profile)["environment"].items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.host, settings.access_log, settings.log_format) == ("0.0.0.0", True, "json")
    assert settings.port == topfive(profile)["ports"][0]["target"]
    assert str(settings.cache_dir) in {volume["target"] for volume in topfive(profile)["volumes"]}


def test_a_setting_of_the_shell_gets_through() -> None:
    printed = compose("config", TOPFIVE_UNTRAINED="true", TOPFIVE_HOST="0.0.0.0", TOPFIVE_PORT="9000")
    service = yaml.safe_load(printed)["services"]["topfive"]
    assert service["environment"]["TOPFIVE_UNTRAINED"] == "true"
    (port,) = service["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("0.0.0.0", "9000", 8000)
    assert service["environment"]["TOPFIVE_PORT"] == "8000"


@every_profile
def test_ray_has_what_it_needs(profile: str) -> None:
    service = topfive(profile)
    assert int(service["shm_size"]) > driver._OBJECT_STORE_BYTES
    assert service["init"] is True
    assert seconds(service["stop_grace_period"]) > supervisor._STOP_WITHIN_S
    assert seconds(service["healthcheck"]["start_period"]) >= supervisor._READY_WITHIN_S


def test_the_health_check_asks_whether_it_is_ready() -> None:
    _, *command = topfive("cpu")["healthcheck"]["test"]
    assert answers_of_check(command, "/readyz") == {"200": True, "503": False, "nobody": False}


def test_every_variable_has_a_default_and_is_named_at_the_top() -> None:
    head = TEXT.partition("\nname:")[0]
    interpolated: list[Any] = re.findall(r"\$\{(\w+)([^}]*)\}", TEXT)
    assert len(interpolated) >= 4
    for name, default in interpolated:
        assert default.startswith(":-"), name
        assert name in SETTINGS or name in head, name


def test_the_profile_of_the_file_beside_it_is_committed() -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT)
    assert (ROOT / ".env").is_file()
    assert ignored.returncode != 0
