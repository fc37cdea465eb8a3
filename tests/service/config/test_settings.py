"""Environment variables: settings, variables of other programs, and misspelt settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from service.commands.main import app
from service.config.settings import Settings, misspelt

runner = CliRunner()


def service_links(name: str, ports: dict[str, int], protocol: str = "tcp") -> dict[str, str]:
    """The variables that the kubelet sets for a Service, by its documentation and source (envvars.FromServices)."""
    prefix, (first, *_) = name.upper().replace("-", "_"), ports.values()
    variables = {f"{prefix}_SERVICE_HOST": "10.0.0.1", f"{prefix}_SERVICE_PORT": str(first)}
    variables |= {f"{prefix}_SERVICE_PORT_{port.upper()}": str(number) for port, number in ports.items() if port}
    variables[f"{prefix}_PORT"] = f"{protocol}://10.0.0.1:{first}"
    for number in ports.values():
        stem = f"{prefix}_PORT_{number}_{protocol.upper()}"
        variables |= {stem: f"{protocol}://10.0.0.1:{number}", f"{stem}_PROTO": protocol}
        variables |= {f"{stem}_PORT": str(number), f"{stem}_ADDR": "10.0.0.1"}
    return variables


LINKS = [
    service_links("topfive", {"": 8000}),
    service_links("topfive", {"http": 80, "metrics": 9100}),
    service_links("topfive", {"": 53}, "udp"),
    service_links("topfive", {"": 9}, "sctp"),
    service_links("topfive-gpu", {"http": 8000}),
    service_links("topfive-host", {"port": 8000}),
    service_links("topfive-access-log", {"": 8000}),
    service_links("topfive", {"": 8000})
    | {"TOPFIVE_NAME": "/web/topfive", "TOPFIVE_ENV_PATH": "/bin", "TOPFIVE_PORT": "tcp://172.17.0.5:8000"},
]


@pytest.mark.parametrize("links", LINKS)
def test_variables_that_kubernetes_and_docker_inject_are_ignored(
    links: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TOPFIVE_CACHE_DIR", raising=False)
    assert Settings() == Settings.model_construct(**Settings().model_dump() | {"port": 8000, "host": "127.0.0.1"})
    assert Settings(port=9000).port == 9000
    assert misspelt(links) is None


@pytest.mark.parametrize("links", LINKS)
def test_commands_work_with_these_variables(links: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in links.items():
        monkeypatch.setenv(name, value)
    assert runner.invoke(app, ["models"]).exit_code == 0
    assert "TOPFIVE_PORT" not in runner.invoke(app, ["status", "--port", "1"]).output
    # It gets past the settings, to the fleet.
    refused = runner.invoke(app, ["serve", "--fleet", "galactic"])
    assert "galactic" in refused.output
    assert "TOPFIVE_PORT" not in refused.output


@pytest.mark.parametrize("value", ["abc", "8000x", "http://10.0.0.1:8000", "tcp:8000", "0", "65536", "80.5"])
@pytest.mark.parametrize("command", [["models"], ["serve"]])
def test_an_invalid_value_is_one_line(value: str, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_PORT", value)
    with pytest.raises(ValidationError):
        Settings()
    result = runner.invoke(app, command)
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert "TOPFIVE_PORT" in line
    assert value in line


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TOPFIVE_PROT", "TOPFIVE_PORT"),
        ("TOPFIVE_PORTS", "TOPFIVE_PORT"),
        ("TOPFIVE_HOTS", "TOPFIVE_HOST"),
        ("TOPFIVE_MAX_BATCHSIZE", "TOPFIVE_MAX_BATCH_SIZE"),
        ("TOPFIVE_MEMORY_LIMIT", "TOPFIVE_MEMORY_LIMIT_MB"),
        ("TOPFIVE_CACHEDIR", "TOPFIVE_CACHE_DIR"),
    ],
)
def test_a_misspelt_setting_is_named_with_the_right_spelling(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    result = runner.invoke(app, ["models"])
    assert result.exit_code == 2
    assert result.output.strip() == f"error: there is no setting {name}; did you mean {meant}?"


def test_variables_of_other_programs_are_ignored() -> None:
    names = [f"TOPFIVE_{field.upper()}" for field in Settings.model_fields]
    others = [
        "TOPFIVE_RUN_ID",
        "TOPFIVE_TEST_DATA",
        "TOPFIVE_IMAGE",
        "TOPFIVE_PYTHON",
        "TOPFIVE_FRONT",
        "TOPFIVE_HAPROXY",
    ]
    others += ["TOPFIVE_HOSTNAME", "TOPFIVE_REPORT", "TOPFIVE_POD", "TOPFIVE_VERSION", "TOPFIVE_PROFILE"]
    others += [f"TOPFIVE_LOADTEST_{word}" for word in ("PORT", "MODEL", "LABELS", "SEED")]
    assert misspelt([*names, *others, "PROT", "MY_TOPFIVE_PROT", "PATH"]) is None


@pytest.mark.parametrize(("given", "host"), [("[::1]", "::1"), ("::1", "::1"), ("localhost", "localhost")])
def test_a_host_may_be_written_as_in_a_url(given: str, host: str) -> None:
    assert Settings(host=given).host == host


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose sets every variable that its file names, if need be to nothing."""
    for name in ("PORT", "FLEET", "UNTRAINED", "MEMORY_LIMIT_MB"):
        monkeypatch.setenv(f"TOPFIVE_{name}", "")
    found = Settings()
    assert (found.port, found.fleet, found.untrained, found.memory_limit_mb) == (8000, "local", False, None)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("port", (1, 65535), (0, 65536)),
        ("max_batch_size", (1, 1024), (0, 1025)),
        ("memory_limit_mb", (0.001, 1e9), (0, -1)),
        ("parked_limit_mb", (0, 1e9), (-1,)),
        ("default_latency_ms", (0.001, 3_600_000), (0, 3_600_001)),
        ("max_body_mb", (0.001, 1e6), (0, -1)),
        ("max_pixels", (1, 10**9), (0, -1)),
        ("device", ("auto", "cpu", "cuda", "cuda:12"), ("tpu", "cuda:", "cuda:x", "CPU", "cpu:0")),
        ("precision", ("auto", "float32", "bfloat16", "float16"), ("int8", "")),
        ("labels", ("", "imagenet1k", "cifar10", "mnist"), ("emnist",)),
        ("log_format", ("text", "json"), ("xml",)),
    ],
)
def test_limits_of_values(field: str, good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    for value in good:
        assert getattr(Settings(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(ValidationError):
            Settings(**{field: value})


def test_the_defaults_are_those_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TOPFIVE_{name.upper()}", raising=False)
    found = Settings()
    assert found.max_body_bytes == 20_000_000
    assert (found.host, found.device, found.precision, found.max_batch_size) == ("127.0.0.1", "auto", "auto", None)
    assert (found.default_latency_ms, found.max_pixels) == (30_000, 80_000_000)
    assert (found.untrained, found.access_log, found.tracing) == (False, False, False)


def test_of_several_misspelt_settings_the_first_by_name_is_told() -> None:
    assert misspelt({"TOPFIVE_PROT": "1", "TOPFIVE_HOTS": "x", "TOPFIVE_FLEETS": "y"}) == (
        "TOPFIVE_FLEETS",
        "TOPFIVE_FLEET",
    )


def test_the_file_of_keys_is_found_from_every_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    for given, found in (
        ("keys.json", tmp_path / "keys.json"),
        ("~/keys.json", Path("/home/somebody/keys.json")),
        ("/etc/keys.json", Path("/etc/keys.json")),
    ):
        assert Settings(api_keys=Path(given)).api_keys == found
    assert Settings().api_keys is None


def test_the_key_of_clients_is_no_misspelt_setting() -> None:
    assert misspelt(["TOPFIVE_API_KEY"]) is None
    assert misspelt(["TOPFIVE_API_KEYZ"]) == ("TOPFIVE_API_KEYZ", "TOPFIVE_API_KEYS")


@pytest.mark.parametrize(
    "wrong", [{"rate_requests": "lots"}, {"rate_requests": "0/second"}, {"rate_device_s": 0}, {"rate_device_s": "nan"}]
)
def test_rates_are_checked_at_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)
