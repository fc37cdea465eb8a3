"""README and the pages say what is true: their examples answer as shown, their tables are whole."""

from __future__ import annotations

import doctest
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from models.networks.variants import VARIANTS, Variant
from service.config.fleet import Deployment, load_fleet
from service.config.settings import Settings
from service.http.access import AccessControl
from service.http.schemas import RouteAnswer
from tests.pages import PAGES, ROOT, Shown, blocks, code, page, shown, table
from tests.running import uvicorn_service

README, HTTP = PAGES["README.md"], page("http")
EXAMPLES = [entry for name in PAGES for entry in shown(name) if entry.command.startswith("curl ")]
#: Keys whose values a machine measures; answers are compared without them.
MEASURED = re.compile(r"(^timings_ms|_ms|footprint_mb|held_mb|limit_mb)$")


@pytest.fixture(scope="module")
def client(box_cache: Path) -> Iterator[httpx.Client]:
    with uvicorn_service(box_cache) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def openapi(client: httpx.Client) -> Any:
    return client.get("/openapi.json").json()


def run_curl(client: httpx.Client, command: str) -> httpx.Response:
    """As much of curl as the pages use."""
    words = shlex.split(command)[1:]
    files, content, method, path = [], None, "", ""
    while words:
        word = words.pop(0)
        if word == "--data-binary":
            content = (ROOT / words.pop(0).removeprefix("@")).read_bytes()
        elif word == "-F":
            name, _, file = words.pop(0).partition("=@")
            files.append((name, (file, (ROOT / file).read_bytes())))
        elif word == "-X":
            method = words.pop(0)
        else:
            assert word.startswith("localhost:8000/"), command
            path = word.removeprefix("localhost:8000")
    if not method:
        method = "GET" if content is None and not files else "POST"
    return client.request(method, path, files=files or None, content=content)


def comparable(value: Any) -> Any:
    """Without what a machine measures, and with probabilities to six places."""
    if isinstance(value, dict):
        return {key: "measured" if MEASURED.search(key) else comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, str):
        return re.sub(r"\b[\d.,]+ (ms|s) predicted", r"N \1 predicted", value)
    return round(value, 6) if isinstance(value, float) else value


def test_readme_shows_first_answers() -> None:
    assert len([entry for entry in EXAMPLES if entry.page == "README.md" and entry.answer]) >= 3


@pytest.mark.parametrize("entry", EXAMPLES, ids=[f"{entry.page}: {entry.command[-40:]}" for entry in EXAMPLES])
def test_examples_answer_as_shown(client: httpx.Client, entry: Shown) -> None:
    response = run_curl(client, entry.command)
    if entry.answer:
        assert comparable(response.json()) == comparable(json.loads(entry.answer))
    else:
        assert response.status_code == 200, response.text


def test_python_examples_give_what_is_shown(
    client: httpx.Client, box_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TOPFIVE_CACHE_DIR", str(box_cache))
    url = str(client.base_url).rstrip("/")
    examples = [(name, block) for name, text in PAGES.items() for block in blocks(text, "pycon")]
    assert len(examples) >= 2
    for name, block in examples:
        text = block.replace("http://localhost:8000", url)
        report: list[str] = []
        example = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
        outcome = doctest.DocTestRunner(verbose=False).run(example, out=report.append)
        assert outcome.failed == 0, "".join(report)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_every_problem_type_is_listed(client: httpx.Client) -> None:
    rows = re.findall(r"^\| `(/problems/[a-z-]+)` \| (\d+) \| (.*) \|$", HTTP, re.MULTILINE)
    kinds = client.get("/problems").json()["problems"]
    assert set(rows) == {(kind["type"], str(kind["status"]), kind["title"]) for kind in kinds}


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `TOPFIVE_([A-Z0-9_]+)` \| (.*?) \|", page("operating"), re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if field.default_factory is None:
            assert rows[name.upper()].lower() == (str(field.default).lower() or "none"), name


@pytest.mark.parametrize("path", ["/classify", "/route"])
def test_every_query_parameter_is_listed(openapi: Any, path: str) -> None:
    taken = {parameter["name"] for parameter in openapi["paths"][path]["post"]["parameters"]}
    assert {row[0].strip("`") for row in table(HTTP, "parameter")} == taken


def test_the_number_of_labels_is_as_the_page_says(openapi: Any) -> None:
    (k,) = [p["schema"] for p in openapi["paths"]["/classify"]["post"]["parameters"] if p["name"] == "k"]
    (row,) = [row for row in table(HTTP, "parameter") if row[0] == "`k`"]
    assert f"{k['minimum']} to {k['maximum']}; {k['default']} by default" in row[1]


def test_every_kind_of_body_is_listed(openapi: Any) -> None:
    content = openapi["paths"]["/classify"]["post"]["requestBody"]["content"]
    text = " ".join(" ".join(row) for row in table(HTTP, "body"))
    assert {kind for kind in content if kind != "application/octet-stream"} <= set(re.findall(r"\w+/[\w-]+", text))
    assert set(re.findall(r'"(\w+)":', text)) == set(content["application/json"]["schema"]["properties"])


def test_budgets_lists_the_parameters_that_state_one() -> None:
    listed = {row[0].strip("`") for row in table(page("budgets"), "query parameter")}
    assert listed == {"latency_ms", "memory_mb", "min_top1"}


def test_every_path_is_listed(openapi: Any) -> None:
    listed = {tuple(word.split()) for row in table(HTTP, "path") for word in code(" ".join(row)) if " /" in word}
    served = {(method.upper(), path) for path, methods in openapi["paths"].items() for method in methods}
    documentation = {("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json")}
    assert listed == served | documentation


def test_who_may_do_what_is_as_the_page_says(openapi: Any) -> None:
    """Every path is in the table, and in the row of what it needs."""
    needs = {}
    for path, _, with_keys in table(page("security"), "path"):
        for method, name in (word.split() for word in code(path)):
            needs[method, name] = with_keys
    assert set(needs) - {("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json")} == {
        (method.upper(), path) for path, methods in openapi["paths"].items() for method in methods
    }
    for metrics_key in (False, True):
        control = AccessControl(None, metrics_key=metrics_key)
        for (method, path), said in needs.items():
            role = control.role_for(method, path.replace("{name}", "lenet5").replace("{slug}", "overloaded"))
            if path.startswith("/metrics"):
                assert role == ("classify" if metrics_key else None)
            else:
                assert said.startswith("everybody" if role is None else f"`{role}`"), (method, path)


def test_the_documentation_is_where_the_page_says(client: httpx.Client) -> None:
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [200, 200, 200]


@pytest.mark.parametrize(
    ("heading", "schemas"),
    [
        ("field", ["Answer", "CheckpointAnswer", "LabelProbability", "Timings", "Routing", "MemberAnswer"]),
        ("field of a model", ["ModelRow", "Outlook"]),
        ("field of `memory`", ["MemoryRow"]),
    ],
)
def test_every_field_of_an_answer_is_listed(openapi: Any, heading: str, schemas: list[str]) -> None:
    """The tables name all fields and, in their first column, no others than those of the outermost schema."""
    rows = table(HTTP, heading)
    shapes = [openapi["components"]["schemas"][name]["properties"] for name in schemas]
    assert {name for row in rows for name in code(row[0])} == set(shapes[0])
    named = {name for row in rows for name in code(" ".join(row))}
    assert {name for shape in shapes for name in shape} <= named


def test_every_header_of_an_answer_is_listed(client: httpx.Client) -> None:
    listed = {row[0].strip("`").lower() for row in table(HTTP, "header")}
    picture = (ROOT / "docs/images/digit.png").read_bytes()
    answers = [
        client.post("/classify?model=lenet5", content=picture),
        client.get("/classify"),
        client.post("/route", content=picture),
        client.get("/metrics"),
    ]
    usual = {"content-type", "content-length", "date", "server"}
    assert {name for answer in answers for name in answer.headers} - usual <= listed
    # Starlette sends the one, Ray Serve the other.
    ours = listed - {"allow", "x-request-id"}
    text = "\n".join(path.read_text().lower() for path in (ROOT / "service").rglob("*.py"))
    assert {name for name in ours if f'"{name}"' not in text} == set()


def test_every_reason_for_a_rejection_is_listed() -> None:
    rows = {row[0].strip("`") for row in table(page("budgets"), "`rejected`")}
    (considered,) = get_args(RouteAnswer.model_fields["considered"].annotation)
    assert rows == set(get_args(considered.model_fields["rejected"].annotation))


def test_the_fleet_that_is_shown_is_one(tmp_path: Path) -> None:
    (text,) = blocks(page("operating"), "toml")
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    shown_keys = set(load_fleet(str(path)).deployment[0].model_fields_set)
    assert shown_keys | {"num_gpus", "engine"} == set(Deployment.model_fields)
    assert {"num_gpus", "engine"} <= set(code(page("operating")))


def test_the_fleets_that_ship_are_listed() -> None:
    listed = {row[0].strip("`") for row in table(page("operating"), "fleet")}
    assert listed == {path.stem for path in (ROOT / "service/deploy/fleets").glob("*.toml")}


def test_every_variant_is_listed_with_its_numbers(client: httpx.Client) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| .*? \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", page("networks"), re.MULTILINE
    )
    assert {name: tuple(cells) for name, *cells in rows} == {
        row.name: (
            ", ".join(f"`{alias}`" for alias in row.aliases),
            f"{row.params:,}",
            f"{row.multiply_adds / 1e6:,.1f} M",
            f"{row.costs.analytic_bytes / 1e6:.1f}",
            _accuracy(row, client),
        )
        for row in VARIANTS.values()
    }


def test_the_checkpoints_in_the_box_are_listed_with_their_accuracy(client: httpx.Client) -> None:
    models = client.get("/models").json()["models"]
    loadable = {row["name"]: f"{row['top1']:.2f} %" for row in models if row["state"] != "weights missing"}
    listed = {row[0].strip("`"): row[1] for row in table(page("networks"), "checkpoint")}
    assert set(listed) == set(loadable)
    assert [name for name, top1 in loadable.items() if top1 not in listed[name]] == []


def _accuracy(row: Variant, client: httpx.Client) -> str:
    if row.labels == "mnist":
        return f"{client.get(f'/models/{row.name}').json()['top1']:g} (MNIST)"
    return "" if row.published[0] is None else f"{row.published[0]:g} / {row.published[1]:g}"


def test_what_pip_is_told_to_install_exists() -> None:
    """The project is on no index: its extras are installed from its folder."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    sources += [path for folder in ("service", "loadtest", "models") for path in (ROOT / folder).rglob("*.py")]
    lines = [line for path in sources for line in re.findall(r"pip install [^`\"\n)]+", path.read_text())]
    assert len(lines) >= 4
    for line in lines:
        own = re.search(r"topfive|\.\[", line)
        assert own is None or re.match(r"pip install -e '\.\[([\w-]+)\]'", line), line
    assert {name for line in lines for name in re.findall(r"'\.\[([\w-]+)\]'", line)} <= set(extras)


@pytest.mark.parametrize("name", ["digit", "airplane"])
def test_the_pictures_are_what_the_scripts_draw(name: str) -> None:
    import importlib.util

    from PIL import Image, ImageChops

    spec = importlib.util.spec_from_file_location(f"draw_{name}", ROOT / "docs" / f"draw_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with Image.open(ROOT / "docs" / "images" / f"{name}.png") as committed:
        # Another Pillow may round a blurred pixel the other way.
        extrema = ImageChops.difference(module.draw(), committed).getextrema()
        most = max(high for _, high in extrema) if isinstance(extrema[0], tuple) else extrema[1]
        assert most <= 2
