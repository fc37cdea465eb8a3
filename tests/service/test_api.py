"""HTTP over fake engines: choosing, bulk, load, deadlines and defects. What real bytes do is in test_http.py."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from typing import Any

import httpx
import pytest

from models.checkpoints import Checkpoint, WrongWeightsError
from service.engines import Engine
from service.errors import PROBLEMS
from service.predictor import Limits
from service.settings import Settings
from tests.fakes import Fakes
from tests.pictures import photo, picture


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """Checks that an answer is that problem, whole, and returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (document["type"], document["status"]) == (f"/problems/{slug}", status)
    assert document["title"] == PROBLEMS[slug].title
    assert document["detail"]
    assert "Traceback" not in answer.text
    return document


async def test_an_answer_has_the_shape_of_the_contract(fakes: Fakes) -> None:
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", content=picture(7))
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"model", "checkpoint", "top5", "timings_ms", "batch_size"}
    assert set(body["checkpoint"]) == {"name", "labels", "origin", "trained", "top1"}
    assert set(body["timings_ms"]) == {"decode", "queue", "forward", "total"}
    assert (body["model"], body["checkpoint"]["name"], body["batch_size"]) == ("lenet5", "lenet5@mnist", 1)
    assert [label["label"] for label in body["top5"]] == ["7", "8", "9", "0", "1"]
    assert [label["index"] for label in body["top5"]] == [7, 8, 9, 0, 1]
    assert body["top5"][0]["probability"] == 0.5
    assert answer.headers["x-model-served"] == "lenet5"
    timings = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert {name: float(value) for name, value in timings.items()} == body["timings_ms"]
    assert body["timings_ms"]["total"] >= body["timings_ms"]["forward"]


@pytest.mark.parametrize("k", [1, 3, 10])
async def test_k_labels_come_back(fakes: Fakes, k: int) -> None:
    async with fakes.client() as client:
        body = (await client.post(f"/classify?model=lenet5&k={k}", content=picture())).json()
    assert len(body["top5"]) == k


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("k=0", "k=0"),
        ("k=11", "k=11"),
        ("k=five", "k=five"),
        ("modle=lenet5", "modle"),
        ("model=", "model"),
        ("model=lenet5&model=vgg16", "model"),
        ("labels=imagenet", "imagenet1k"),
        ("latency_ms=0", "latency_ms"),
        ("latency_ms=-1", "latency_ms"),
        ("latency_ms=nan", "latency_ms"),
        ("latency_ms=inf", "latency_ms"),
        ("min_top1=101", "min_top1"),
        ("strict=perhaps", "strict"),
        ("%ff=1", "unknown parameter"),
    ],
)
async def test_bad_parameters_are_named(fakes: Fakes, query: str, names: str) -> None:
    async with fakes.client() as client:
        document = problem(await client.post(f"/classify?{query}", content=picture()), 400, "bad-parameter")
    assert names in document["detail"]


async def test_an_unknown_model_lists_the_known_ones(fakes: Fakes) -> None:
    async with fakes.client() as client:
        document = problem(await client.post("/classify?model=resnet50", content=picture()), 404, "unknown-model")
    assert {"lenet5", "alexnet", "googlenet", "vgg16"} <= set(document["known"])
    assert "googlenet" in document["detail"]


async def test_missing_weights_say_how_to_get_them(fakes: Fakes) -> None:
    async with fakes.client() as client:
        document = problem(await client.post("/classify?model=vgg16", content=picture()), 503, "weights-missing")
        assert "topfive import vgg16" in document["detail"]
        # Nobody named a model, and nothing that knows photographs is here.
        problem(await client.post("/classify", content=picture()), 503, "weights-missing")


async def test_the_router_takes_the_most_accurate_and_says_why(fakes: Fakes) -> None:
    fakes.loadable |= {"googlenet@imagenet1k", "vgg16@imagenet1k"}
    async with fakes.client() as client:
        body = (await client.post("/classify", content=photo())).json()
        assert body["model"] == "vgg16"
        assert "71.592" in body["routing"]["reason"]
        assert {"model": "alexnet", "rejected": "weights missing"} in body["routing"]["considered"]
        digit = (await client.post("/classify?labels=mnist", content=picture())).json()
        assert digit["model"] == "lenet5"
        document = problem(await client.post("/classify?min_top1=90", content=photo()), 422, "no-model-fits")
        assert "vgg16" in document["detail"]


async def test_a_client_that_hangs_up_is_no_defect(fakes: Fakes, caplog: pytest.LogCaptureFixture) -> None:
    async with fakes.client() as client:
        app = client._transport.app  # type: ignore[attr-defined]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "query_string": b"model=lenet5",
            "headers": [(b"content-length", b"1000")],
        }
        messages = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])
        sent: list[Any] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
    assert sent[0]["status"] == 499
    assert caplog.text == ""


async def test_the_router_passes_over_damaged_weights(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.loadable |= {"googlenet@imagenet1k", "vgg16@imagenet1k"}
    load = fakes.load

    def damaged(checkpoint: Checkpoint) -> Engine:
        if checkpoint.variant.name == "vgg16":
            raise WrongWeightsError("vgg16's file is damaged")
        return load(checkpoint)

    monkeypatch.setattr(fakes, "load", damaged)
    async with fakes.client() as client:
        assert (await client.post("/classify", content=photo())).json()["model"] == "googlenet"
        problem(await client.post("/classify?model=vgg16", content=photo()), 503, "weights-damaged")


async def test_an_empty_file_input_of_a_form_is_no_picture(fakes: Fakes) -> None:
    form = "multipart/form-data; boundary=xyz"
    part = b'--xyz\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
    content = part % (b"a", b"a.png", picture(4)) + part % (b"b", b"", b"") + b"--xyz--\r\n"
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", content=content, headers={"content-type": form})
    assert answer.json()["top5"][0]["label"] == "4"


async def test_labels_force_a_checkpoint(fakes: Fakes) -> None:
    async with fakes.client() as client:
        assert (await client.post("/classify?model=lenet5@mnist", content=picture())).status_code == 200
        assert (await client.post("/classify?model=lenet5&labels=mnist", content=picture())).status_code == 200
        problem(await client.post("/classify?model=lenet5@cifar10", content=picture()), 404, "unknown-model")
        problem(
            await client.post("/classify?model=lenet5@mnist&labels=cifar10", content=picture()), 404, "unknown-model"
        )


async def test_multipart_parts_with_a_file_name_count(fakes: Fakes) -> None:
    async with fakes.client() as client:
        one = await client.post(
            "/classify?model=lenet5", files={"whatever": ("d.png", picture(3))}, data={"note": "no file"}
        )
        assert one.json()["top5"][0]["label"] == "3"
        two = await client.post("/classify?model=lenet5", files=[("a", ("d.png", picture(d))) for d in (4, 5)])
    assert [entry["top5"][0]["label"] for entry in two.json()["results"]] == ["4", "5"]


async def test_json_takes_base64_and_data_urls(fakes: Fakes) -> None:
    text = base64.b64encode(picture(6)).decode()
    folded = "\n".join(text[i : i + 20] for i in range(0, len(text), 20))
    async with fakes.client() as client:
        for image in (text, folded, f"data:image/png;base64,{text}"):
            answer = await client.post("/classify?model=lenet5", json={"image": image})
            assert answer.json()["top5"][0]["label"] == "6"
        many = await client.post("/classify?model=lenet5", json={"images": [text]})
    assert [entry["status"] for entry in many.json()["results"]] == [200]


async def test_bulk_entries_are_whole_answers_and_whole_problems_in_order(fakes: Fakes) -> None:
    good = [base64.b64encode(picture(digit)).decode() for digit in range(3)]
    images = [good[0], "!!!", good[1], base64.b64encode(b"text").decode(), good[2], ""]
    async with fakes.client() as client:
        answer = await client.post("/classify?model=lenet5", json={"images": images})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [entry["status"] for entry in results] == [200, 400, 200, 422, 200, 400]
    assert [entry["top5"][0]["label"] for entry in results if entry["status"] == 200] == ["0", "1", "2"]
    assert results[1]["type"] == "/problems/bad-body"
    assert results[3]["type"] == "/problems/undecodable"
    assert results[5]["type"] == "/problems/no-picture"
    assert all("timings_ms" in entry for entry in results if entry["status"] == 200)


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        ("{", "bad-body"),
        ("[]", "bad-body"),
        ("{}", "bad-body"),
        ('{"image": 3}', "bad-body"),
        ('{"image": "AAAA", "images": []}', "bad-body"),
        ('{"picture": "AAAA"}', "bad-body"),
        ('{"images": []}', "bad-body"),
        (json.dumps({"images": ["AAAA"] * 65}), "bad-body"),
        ('{"image": "%%%"}', "bad-body"),
        ('{"image": "data:image/png,AAAA"}', "bad-body"),
        ('{"image": ""}', "no-picture"),
        ("\xff\xfe", "bad-body"),
    ],
)
async def test_broken_json_is_told_apart(fakes: Fakes, content: str, slug: str) -> None:
    async with fakes.client() as client:
        answer = await client.post(
            "/classify?model=lenet5", content=content.encode("latin-1"), headers={"content-type": "application/json"}
        )
    problem(answer, 400, slug)


async def test_broken_multipart_is_told_apart(fakes: Fakes) -> None:
    form = "multipart/form-data; boundary=xyz"
    async with fakes.client() as client:

        async def post(content: bytes, kind: str = form) -> httpx.Response:
            return await client.post("/classify?model=lenet5", content=content, headers={"content-type": kind})

        problem(await post(b"nonsense"), 400, "bad-body")
        problem(await post(b"nonsense", "multipart/form-data"), 400, "bad-body")
        problem(await post(b""), 400, "no-picture")
        field = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nvalue\r\n--xyz--\r\n'
        problem(await post(field), 400, "no-picture")
        empty = b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n\r\n--xyz--\r\n'
        problem(await post(empty), 400, "no-picture")
        many = [("a", (f"{i}.png", b"x")) for i in range(65)]
        problem(await client.post("/classify?model=lenet5", files=many), 400, "bad-body")


async def test_a_body_over_the_limit_is_refused_with_and_without_its_length(fakes: Fakes) -> None:
    fakes.settings = Settings(cache_dir=fakes.settings.cache_dir, max_body_mb=0.001)

    async def chunks() -> Any:
        for _ in range(30):
            yield b"x" * 100

    async with fakes.client() as client:
        problem(await client.post("/classify?model=lenet5", content=b"x" * 1001), 413, "body-too-large")
        problem(await client.post("/classify?model=lenet5", content=chunks()), 413, "body-too-large")
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200


async def test_a_full_queue_is_429_with_both_forms_of_retry_after(fakes: Fakes) -> None:
    fakes.seconds, fakes.limits = 0.05, Limits(max_batch_size=1, max_queue=2)
    async with fakes.client() as client:
        posts = [client.post("/classify?model=lenet5", content=picture()) for _ in range(12)]
        answers = await asyncio.gather(*posts)
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 12
    for answer in refused:
        document = problem(answer, 429, "overloaded")
        seconds = int(answer.headers["retry-after"])
        assert seconds == max(1, math.ceil(document["retry_after_ms"] / 1000))


async def test_a_deadline_that_cannot_be_met_is_504(fakes: Fakes) -> None:
    fakes.seconds = 0.2
    async with fakes.client() as client:
        slow = asyncio.create_task(client.post("/classify?model=lenet5", content=picture()))
        await asyncio.sleep(0.05)
        problem(await client.post("/classify?model=lenet5&latency_ms=20", content=picture()), 504, "deadline-missed")
        assert (await slow).status_code == 200


async def test_a_defect_is_a_plain_500_and_its_neighbours_are_answered(
    fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.limits = Limits(max_batch_size=1)
    async with fakes.client() as client:
        # LeNet's crop is padded with zeros, so that every one of them begins with this byte.
        fakes.engines["lenet5@mnist"].poison = 0
        document = problem(await client.post("/classify?model=lenet5", content=picture()), 500, "internal")
        fakes.engines["lenet5@mnist"].poison = None
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
    assert "poisoned" not in json.dumps(document)
    assert "poisoned" in caplog.text


async def test_readyz_follows_the_placement(fakes: Fakes) -> None:
    async with fakes.client(warm=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        problem(await client.get("/readyz"), 503, "not-ready")
    async with fakes.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_models_lists_checkpoints_and_states(fakes: Fakes) -> None:
    fakes.loadable |= {"googlenet@imagenet1k"}
    async with fakes.client(warm=False) as client:
        rows = {row["name"]: row for row in (await client.get("/models")).json()["models"]}
        assert rows["lenet5@mnist"]["state"] == "loadable"
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
        rows = {row["name"]: row for row in (await client.get("/models")).json()["models"]}
        assert (rows["lenet5@mnist"]["state"], rows["lenet5@mnist"]["resident"]) == ("ready", True)
        assert (rows["googlenet@imagenet1k"]["state"], rows["googlenet@imagenet1k"]["resident"]) == ("loadable", False)
        vgg = rows["vgg16@imagenet1k"]
        assert (vgg["state"], vgg["analytic_mb"], vgg["params"]) == ("weights missing", 614.4, 138_357_544)
        assert (await client.get("/models/vgg")).json() == vgg
        assert (await client.get("/models/vgg16@imagenet1k")).json() == vgg
        problem(await client.get("/models/resnet50"), 404, "unknown-model")


async def test_every_problem_type_resolves(fakes: Fakes) -> None:
    async with fakes.client() as client:
        for row in (await client.get("/problems")).json()["problems"]:
            assert (await client.get(row["type"])).json() == row
        problem(await client.get("/problems/none-such"), 404, "not-found")


async def test_other_paths_and_methods_are_problems_too(fakes: Fakes) -> None:
    async with fakes.client() as client:
        problem(await client.get("/nothing"), 404, "not-found")
        answer = await client.get("/classify")
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "POST"


async def test_the_openapi_document_knows_every_parameter(fakes: Fakes) -> None:
    async with fakes.client() as client:
        operation = (await client.get("/openapi.json")).json()["paths"]["/classify"]["post"]
        assert (await client.get("/docs")).status_code == 200
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"model", "labels", "k", "latency_ms", "min_top1", "strict"} <= names
    assert {"200", "400", "404", "413", "415", "422", "429", "503", "504"} <= set(operation["responses"])
