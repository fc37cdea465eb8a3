"""How a front finds owners, chooses among them, and notices that they come and go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from service.fronts import owners as module
from service.fronts.owners import Owners
from service.link import sockets
from service.link.crops import slot_bytes
from service.link.messages import VERSION, Ask, Call, Reply
from tests.fronting import LARGEST_CROP, raw_owner
from tests.left_over import mappings
from tests.waiting import soon

CALL = Call(0, "GET", "/models", b"", [], None)


@asynccontextmanager
async def looking(folder: Path) -> AsyncIterator[Owners]:
    owners = Owners(folder)
    owners.begin()
    yield owners
    await owners.end()


class Nobody:
    def wanted(self, *_: object) -> None: ...


async def test_an_owner_is_found_whenever_it_comes(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with looking(folder) as owners:
        assert (owners.one(), owners.memory, owners.seen) == (None, None, False)
        assert await owners.call(CALL) is None
        waiting = [asyncio.create_task(owners.wait()) for _ in range(3)]
        await asyncio.sleep(0.02)
        folder.mkdir()
        async with raw_owner(folder / "0.sock"):
            found = await asyncio.wait_for(asyncio.gather(*waiting), 10)
            assert set(found) == {owners.one()}
            assert owners.memory is not None
            assert (owners.memory.size, owners.seen) == (slot_bytes(LARGEST_CROP), True)
        await soon(lambda: owners.one() is None)
        assert owners.seen
        async with raw_owner(folder / "0.sock"):
            assert await asyncio.wait_for(owners.wait(), 10) not in found


async def test_each_owner_is_connected_to_once(tmp_path: Path) -> None:
    async with raw_owner(tmp_path / "0.sock") as one, raw_owner(tmp_path / "1.sock") as other, looking(tmp_path):
        await soon(lambda: len(one.connections) == len(other.connections) == 1)
        await asyncio.sleep(0.1)
        assert (len(one.connections), len(other.connections)) == (1, 1)


async def test_only_sockets_count_that_are_ready(tmp_path: Path) -> None:
    (tmp_path / "0.sock~").write_text("an owner that is just beginning")
    (tmp_path / "1.sock").write_text("no socket")
    (tmp_path / "note.txt").write_text("something else")
    sockets.listen(tmp_path / "2.sock").close()
    async with looking(tmp_path) as owners:
        await asyncio.sleep(0.05)
        assert owners.one() is None
        async with raw_owner(tmp_path / "3.sock"):
            assert await asyncio.wait_for(owners.wait(), 10)


async def test_the_owner_with_the_fewest_pictures_of_this_front_is_asked(tmp_path: Path) -> None:
    async with (
        raw_owner(tmp_path / "0.sock") as one,
        raw_owner(tmp_path / "1.sock") as other,
        looking(tmp_path) as owners,
    ):
        await soon(lambda: len(one.connections) == len(other.connections) == 1)
        await soon(lambda: len(owners._owners) == 2)
        asking = []
        for count in range(1, 7):
            owner = owners.one()
            assert owner is not None
            asking.append(asyncio.create_task(owner.ask(Nobody(), b"{}", 0.0, 1, None)))
            await soon(lambda count=count: len(one.told) + len(other.told) == count)
            assert abs(len(one.told) - len(other.told)) <= 1
        # One of them has more to do now, and then the other is gone.
        first = next(owner for path, owner in owners._owners.items() if path.name == "0.sock")
        asking.append(asyncio.create_task(first.ask(Nobody(), b"{}", 0.0, 1, None)))
        await asyncio.sleep(0)
        second = owners.one()
        assert second is not first
        other.close()
        await soon(lambda: owners.one() not in (second, None))
        for task in asking:
            task.cancel()


async def test_an_owner_is_no_choice_from_the_moment_in_which_its_connection_is_ended(tmp_path: Path) -> None:
    async with raw_owner(tmp_path / "0.sock"), looking(tmp_path) as owners:
        found = await asyncio.wait_for(owners.wait(), 10)
        found.close()
        # Its end is noticed in the next turn of the event loop. Whoever asks until then would ask for ever.
        assert owners.one() is None
        assert await asyncio.wait_for(owners.wait(), 10) is not found


async def test_calls_are_answered_by_an_owner(tmp_path: Path) -> None:
    async with raw_owner(tmp_path / "0.sock") as owner, looking(tmp_path) as owners:
        await owners.wait()
        owner.answers = lambda call: [Reply(call.id, 200, [], b"yes")] if isinstance(call, Call) else []
        reply = await owners.call(CALL)
        assert reply is not None
        assert reply.body == b"yes"
        owner.answers = None
        calling = asyncio.create_task(owners.call(CALL))
        await owner.tells(1)
        owner.close()
        assert await calling is None


async def test_a_wrong_owner_is_reported_once_and_keeps_no_other_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[asyncio.StreamWriter] = []

    async def wrong(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(writer)
        writer.write(b"top5\xff\xff\x00\x10\x00\x00")
        writer.close()

    async with await asyncio.start_unix_server(wrong, tmp_path / "0.sock"), looking(tmp_path) as owners:
        await soon(lambda: len(tries) >= 3)
        async with raw_owner(tmp_path / "1.sock"):
            assert await asyncio.wait_for(owners.wait(), 10)
    (record,) = caplog.records
    assert "the owner speaks version 65535" in record.getMessage()


async def test_an_owner_that_wants_impossible_slots_does_not_end_the_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def wrong(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"top5" + VERSION.to_bytes(2, "little") + bytes(4))
        writer.close()

    async with await asyncio.start_unix_server(wrong, tmp_path / "0.sock"), looking(tmp_path) as owners:
        await soon(lambda: len(caplog.records) == 1)
        async with raw_owner(tmp_path / "1.sock"):
            assert await asyncio.wait_for(owners.wait(), 10)
    assert "slots of 0 bytes" in caplog.text


async def test_a_lost_owner_is_looked_for_at_once_although_another_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LATER_S", 3600.0)
    silent: list[asyncio.StreamWriter] = []

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(writer)

    async with (
        raw_owner(tmp_path / "0.sock") as one,
        raw_owner(tmp_path / "1.sock") as other,
        looking(tmp_path) as owners,
    ):
        await soon(lambda: len(owners._owners) == 2)
        one.close()
        await soon(lambda: (len(one.connections), len(other.connections)) == (2, 1))
        # Also if it is lost while the folder is being looked at: here while a third owner keeps the front waiting.
        async with await asyncio.start_unix_server(say_nothing, tmp_path / "2.sock"):
            one.close()
            await soon(lambda: len(silent) == 1)
            other.close()
            await soon(lambda: len(owners._owners) == 1)
            silent[0].close()
            await soon(lambda: (len(one.connections), len(other.connections)) == (3, 2))
            for writer in silent:
                writer.close()


async def test_owners_that_want_larger_slots_leave_the_memory_of_the_others(tmp_path: Path) -> None:
    before = mappings()
    async with looking(tmp_path) as owners:
        async with raw_owner(tmp_path / "0.sock", 4096) as small:
            first = await asyncio.wait_for(owners.wait(), 10)
            async with raw_owner(tmp_path / "1.sock", 4097) as large:
                await soon(lambda: len(owners._owners) == 2)
                (second,) = {owner for owner in owners._owners.values() if owner is not first}
                assert (first.memory.size, second.memory.size) == (4096, 8192)
                assert owners.memory is second.memory
                assert (
                    first.memory.put(np.full(4096, 1, np.uint8)) == second.memory.put(np.full(4097, 2, np.uint8)) == 0
                )
                for raw, value in ((small, 1), (large, 2)):
                    assert raw.windows[0]._bytes[0, 0] == value
                raw.windows.clear()
            # An owner that wants smaller ones gets the larger memory, which is there.
            async with raw_owner(tmp_path / "2.sock", 4096):
                await soon(lambda: len(owners._owners) == 2)
                assert {owner.memory.size for owner in owners._owners.values()} == {4096, 8192}
        small.windows.clear()
        del first, second
        # The memory that no owner has is gone: the front's newest is left.
        await soon(lambda: mappings() == before + 1)


async def test_memory_of_a_burst_is_given_back_to_all_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRIM_EVERY_S", 0.005)
    async with (
        raw_owner(tmp_path / "0.sock", 4096),
        looking(tmp_path) as owners,
    ):
        await asyncio.wait_for(owners.wait(), 10)
        async with raw_owner(tmp_path / "1.sock", 4097):
            await soon(lambda: len(owners._owners) == 2)
            memories = [owner.memory for owner in owners._owners.values()]
            for memory in memories:
                for slot in [memory.put(np.zeros(4096, np.uint8)) for _ in range(50)]:
                    memory.free(slot)
            await soon(lambda: all(os.fstat(memory.file).st_blocks == 0 for memory in memories))


async def test_the_end_answers_whoever_waits(tmp_path: Path) -> None:
    async with raw_owner(tmp_path / "0.sock") as owner:
        async with looking(tmp_path) as owners:
            found = await asyncio.wait_for(owners.wait(), 10)
            asking = asyncio.create_task(found.ask(Nobody(), b"{}", time.monotonic(), 1, None))
            assert isinstance((await owner.tells(1))[0], Ask)
        await asyncio.wait_for(asking, 10)
        await soon(lambda: owner.lost == 1)
        assert owners.one() is None
