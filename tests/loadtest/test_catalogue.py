"""A run asks for models that the service has; others are refused."""

from __future__ import annotations

import re
import socket
import threading
from typing import Any

import pytest

from loadtest._catalogue import Choice, NothingToTestError, choose, find_choice
from tests.running import free_port

HOST = "http://here:8000"


def row(variant: str, labels: str = "imagenet1k", state: str = "loadable", **more: Any) -> dict[str, Any]:
    return {"name": f"{variant}@{labels}", "variant": variant, "labels": labels, "aliases": [], "state": state, **more}


def test_googlenet_is_asked_for_or_else_the_first_model_with_weights() -> None:
    rows = [row("alexnet", state="weights missing"), row("vgg16"), row("googlenet")]
    assert choose(rows, HOST, None, None) == Choice("googlenet", None, "photographs")
    assert choose(rows[:2], HOST, None, None) == Choice("vgg16", None, "photographs")


def test_budgets_ask_for_digits_if_the_service_has_nothing_else() -> None:
    assert choose([row("lenet5", "mnist", "ready")], HOST, None, None) == Choice("lenet5", "mnist", "digits")
    both = [row("lenet5", "mnist"), row("googlenet")]
    assert choose(both, HOST, "lenet5", None) == Choice("lenet5", None, "digits")
    assert choose(both, HOST, None, "mnist") == Choice("googlenet", "mnist", "photographs")


def test_pictures_are_for_the_label_set_that_the_service_prefers() -> None:
    rows = [row("googlenet", "mnist"), row("googlenet", "cifar10")]
    assert choose(rows, HOST, "googlenet", None).pictures == "photographs"
    assert choose(rows, HOST, "googlenet@mnist", None).pictures == "digits"


@pytest.mark.parametrize("name", ["googlenet", "googlenet@untrained", "googlenet@imagenet1k", "inception-v1"])
def test_a_model_is_known_by_all_its_names(name: str) -> None:
    rows = [row("googlenet") | {"name": "googlenet@untrained", "aliases": ["inception-v1"]}]
    assert choose(rows, HOST, name, None).model == name


@pytest.mark.parametrize(
    ("rows", "model", "labels", "says"),
    [
        ([], None, None, "has no model with weights"),
        ([row("vgg16", state="weights missing")], None, None, "topfive serve --untrained"),
        ([row("vgg16"), row("alexnet")], "vgg61", None, "knows alexnet, vgg16"),
        (
            [row("vgg16", state="weights missing", mend="topfive pull vgg16"), row("alexnet")],
            "vgg16",
            None,
            "weights are missing at http://here:8000: topfive pull vgg16",
        ),
        ([row("vgg16")], None, "cifar10", "--labels cifar10: no model"),
    ],
)
def test_models_and_labels_without_weights_are_refused(
    rows: list[dict[str, Any]], model: str | None, labels: str | None, says: str
) -> None:
    with pytest.raises(NothingToTestError, match=re.escape(says)):
        choose(rows, HOST, model, labels)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.0 404 No\r\n\r\n", "GET /models answers 404"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "GET /models answers something else"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"models": [{"id": "gpt"}]}', "GET /models answers something else"),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", "GET /models answers something else"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"", "does not"),
    ],
)
def test_another_kind_of_server_is_refused(answer: bytes, says: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NothingToTestError, match=says):
            find_choice(f"http://127.0.0.1:{server.getsockname()[1]}", None, None)
        thread.join()


def test_a_host_that_does_not_answer_is_refused() -> None:
    with pytest.raises(NothingToTestError, match="does not answer: Connection refused"):
        find_choice(f"http://127.0.0.1:{free_port()}", None, None)


@pytest.mark.parametrize(
    "host", ["localhost:8000", "localhost", "http://", "http://localhost:port", "http://localhost:0", "ftp://a"]
)
def test_a_host_that_is_not_a_url_is_refused(host: str) -> None:
    with pytest.raises(NothingToTestError, match="not a URL like http://localhost:8000"):
        find_choice(host, None, None)
