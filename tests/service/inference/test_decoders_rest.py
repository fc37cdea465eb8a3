"""What decoding took and freed is given back to the system once nothing is decoded any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from models.checkpoints.catalogue import Catalogue
from service.inference import decoders as module
from service.inference.decoders import Decoders
from tests.pictures import photo

LENET = Catalogue().find("lenet5")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that have given memory back."""
    found: list[str] = []
    monkeypatch.setattr(module, "give_memory_back", lambda: found.append(threading.current_thread().name))
    monkeypatch.setattr(module, "_REST_S", 0.02)
    return found


async def until(met: Callable[[], bool]) -> None:
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def test_it_is_given_back_once_by_a_thread_after_the_last_picture(given: list[str]) -> None:
    decoders = Decoders(2)
    await asyncio.gather(*(decoders.decode(photo(80), LENET.preprocess, 10**6) for _ in range(3)))
    await until(lambda: bool(given))
    await asyncio.sleep(0.1)
    assert len(given) == 1
    assert given[0].startswith("decode")
    await decoders.decode(photo(80), LENET.preprocess, 10**6)
    await until(lambda: len(given) == 2)
    decoders.close()


async def test_a_picture_that_is_refused_counts_as_well(given: list[str]) -> None:
    decoders = Decoders(1)
    with pytest.raises(ValueError, match="no picture"):
        await decoders.decode(b"text", LENET.preprocess, 10**6)
    await until(lambda: bool(given))
    decoders.close()


async def test_it_is_kept_while_pictures_are_decoded(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    release, decode = threading.Event(), module.decode

    def held(image: bytes, *more: Any) -> Any:
        if len(image) > 1500:
            assert release.wait(30)
        return decode(image, *more)

    monkeypatch.setattr(module, "decode", held)
    decoders = Decoders(2)
    large, small = photo(300), photo(16)
    assert len(small) < 1500 < len(large)
    running = asyncio.create_task(decoders.decode(large, LENET.preprocess, 10**6))
    await asyncio.sleep(0)
    await decoders.decode(small, LENET.preprocess, 10**6)
    await asyncio.sleep(0.1)
    assert given == []
    release.set()
    await running
    await until(lambda: bool(given))
    decoders.close()


async def test_pictures_that_follow_each_other_put_it_off(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST_S", 0.3)
    decoders = Decoders(2)
    for _ in range(3):
        await decoders.decode(photo(80), LENET.preprocess, 10**6)
        await asyncio.sleep(0.01)
    await until(lambda: bool(given))
    await asyncio.sleep(0.4)
    assert len(given) == 1
    decoders.close()


async def test_a_picture_that_is_decoded_beyond_the_end_gives_nothing_back(
    given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release, begun, decode = threading.Event(), threading.Event(), module.decode

    def held(*arguments: Any) -> Any:
        begun.set()
        assert release.wait(30)
        return decode(*arguments)

    monkeypatch.setattr(module, "decode", held)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    decoders = Decoders(1)
    running = asyncio.create_task(decoders.decode(photo(80), LENET.preprocess, 10**6))
    await until(begun.is_set)
    decoders.close()
    release.set()
    await running
    await asyncio.sleep(0.1)
    assert given == errors == []


async def test_nothing_is_given_back_after_the_end(given: list[str]) -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    for turns in range(4):
        decoders = Decoders(1)
        await decoders.decode(photo(80), LENET.preprocess, 10**6)
        for _ in range(turns):
            await asyncio.sleep(0.001)
        decoders.close()
        await asyncio.sleep(0.1)
        assert given == errors == []
