"""The memory for crops: slots against a model of them, memory that is given back, and windows that stay in bounds."""

from __future__ import annotations

import gc
import mmap
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from models.images.preprocess import Preprocess
from service.link.crops import SLOTS, NoSlotError, Slots, Window, slot_bytes
from tests.left_over import mappings, open_files

PAGE = mmap.PAGESIZE
COUNT = 6
SIZE = 2 * PAGE
#: 64 x 64 pixels in grey: a page.
GREY = Preprocess("warp", 64, 64, colour="grey")
COLOUR = Preprocess("warp", 32, 32)


def blocks(file: int) -> int:
    """Bytes that a file takes."""
    return os.fstat(file).st_blocks * 512


def full(value: int, size: int = SIZE) -> np.typing.NDArray[np.uint8]:
    return np.full(size, value % 256, np.uint8)


@pytest.fixture
def slots() -> Iterator[Slots]:
    made = Slots(SIZE, COUNT)
    yield made
    made.close()


class Model(RuleBasedStateMachine):
    """Slots beside what they should hold: a list of what was put where, and the highest slots used between trims."""

    @initialize()
    def begin(self) -> None:
        self.slots = Slots(SIZE, COUNT)
        self.held: dict[int, int] = {}
        self.since_trim = 0
        """One more than the highest slot in use at any time since the last trim."""
        self.puts = 0

    def teardown(self) -> None:
        if hasattr(self, "slots"):
            self.slots.close()

    @rule()
    def put(self) -> None:
        self.puts += 1
        if len(self.held) == COUNT:
            with pytest.raises(NoSlotError):
                self.slots.put(full(self.puts))
            return
        slot = self.slots.put(full(self.puts))
        # The lowest free one.
        assert slot == min(set(range(COUNT)) - set(self.held))
        self.held[slot] = self.puts
        self.since_trim = max(self.since_trim, slot + 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[slot]
        self.slots.free(slot)

    @rule()
    def trim(self) -> None:
        self.slots.trim()
        # What lies above everything that was used since the last time takes nothing.
        assert blocks(self.slots.file) <= self.since_trim * SIZE
        self.since_trim = max(self.held, default=-1) + 1

    @invariant()
    def holds_what_was_put(self) -> None:
        if not hasattr(self, "held"):
            return
        assert self.slots.used == len(self.held)
        for slot, value in self.held.items():
            assert os.pread(self.slots.file, SIZE, slot * SIZE) == full(value).tobytes()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(("largest", "size"), [(1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (224 * 224 * 3, 150_528)])
def test_a_slot_is_the_largest_crop_in_whole_pages(largest: int, size: int) -> None:
    expected = size if size % PAGE == 0 else -(-size // PAGE) * PAGE
    assert slot_bytes(largest) == expected
    assert slot_bytes(largest) % PAGE == 0
    assert largest <= slot_bytes(largest) < largest + PAGE


def test_memory_that_a_burst_needed_is_given_back_at_the_second_trim(slots: Slots) -> None:
    assert blocks(slots.file) == 0
    burst = [slots.put(full(1)) for _ in range(COUNT)]
    assert blocks(slots.file) == COUNT * SIZE
    for slot in burst:
        slots.free(slot)
    kept = slots.put(full(7))
    # All were used since the last trim, which never was.
    slots.trim()
    assert blocks(slots.file) == COUNT * SIZE
    slots.trim()
    assert blocks(slots.file) == SIZE
    assert os.pread(slots.file, SIZE, 0) == full(7).tobytes()
    slots.free(kept)
    slots.trim()
    slots.trim()
    assert blocks(slots.file) == 0
    # It can be used as before.
    assert [slots.put(full(2)) for _ in range(COUNT)] == list(range(COUNT))


def test_a_slot_in_use_keeps_what_lies_below_it(slots: Slots) -> None:
    used = [slots.put(full(n)) for n in range(4)]
    for slot in (0, 1, 2):
        slots.free(slot)
    for _ in range(3):
        slots.trim()
    assert blocks(slots.file) == 4 * SIZE
    slots.free(used[3])
    for _ in range(2):
        slots.trim()
    assert blocks(slots.file) == 0


def test_many_slots_take_no_memory_before_they_are_used() -> None:
    made = Slots(slot_bytes(299 * 299 * 3))
    assert (made.count, SLOTS) == (1024, 1024)
    assert blocks(made.file) == 0
    made.close()


def test_a_crop_that_is_too_large_takes_no_slot(slots: Slots) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        slots.put(full(1, SIZE + 1))
    assert (slots.used, slots.put(full(1))) == (0, 0)


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE - 1, PAGE + 1])
def test_slots_are_of_whole_pages(size: int) -> None:
    before = open_files()
    with pytest.raises(ValueError, match="whole pages"):
        Slots(size, COUNT)
    assert open_files() == before


def test_nothing_is_left_of_slots_whether_closed_or_forgotten() -> None:
    gc.collect()
    files, maps = open_files(), mappings()
    made = [Slots(SIZE, COUNT) for _ in range(2)]
    assert (open_files() > files, mappings()) == (True, maps + 2)
    made[0].close()
    gc.disable()
    try:
        del made
        assert (open_files(), mappings()) == (files, maps)
    finally:
        gc.enable()


def test_slots_that_cannot_be_had_leave_nothing() -> None:
    before = open_files()
    with pytest.raises((OSError, OverflowError, ValueError)):
        Slots(PAGE, 2**60)
    gc.collect()
    assert open_files() == before


def test_a_window_shows_what_lies_in_each_slot(slots: Slots) -> None:
    window = Window(os.dup(slots.file), SIZE, COUNT)
    pixels = np.arange(64 * 64).reshape(64, 64, 1).astype(np.uint8)
    colours = np.arange(32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    grey, colour = slots.put(pixels), slots.put(colours)
    assert (window.crop(grey, GREY) == pixels).all()
    assert (window.crop(colour, COLOUR) == colours).all()
    assert window.crop(colour, COLOUR).shape == (32, 32, 3)


def test_crops_in_a_window_cannot_be_written(slots: Slots) -> None:
    crop = Window(os.dup(slots.file), SIZE, COUNT).crop(0, GREY)
    with pytest.raises(ValueError, match="read-only"):
        crop[0] = 1


@pytest.mark.parametrize("slot", [-1, COUNT, 2**63, -(2**63)])
def test_a_window_has_no_other_slots(slots: Slots, slot: int) -> None:
    window = Window(os.dup(slots.file), SIZE, COUNT)
    with pytest.raises(ValueError, match=f"slot {slot} of {COUNT}"):
        window.crop(slot, GREY)
    assert window.crop(COUNT - 1, GREY).shape == (64, 64, 1)


def test_a_crop_larger_than_a_slot_is_in_none(slots: Slots) -> None:
    window = Window(os.dup(slots.file), SIZE, COUNT)
    for side, fits in ((90, True), (91, False)):
        kind = Preprocess("warp", side, side, colour="grey")
        assert (side * side <= SIZE) is fits
        if fits:
            window.crop(0, kind)
        else:
            with pytest.raises(ValueError, match="has no crop"):
                window.crop(0, kind)


@pytest.mark.parametrize(
    ("size", "count"), [(SIZE, COUNT + 1), (SIZE + PAGE, COUNT), (0, 1), (SIZE, 0), (-SIZE, -COUNT), (2**32 - 1,) * 2]
)
def test_a_window_is_never_larger_than_its_file(slots: Slots, size: int, count: int) -> None:
    before = open_files()
    with pytest.raises(ValueError, match="has not"):
        Window(os.dup(slots.file), size, count)
    assert open_files() == before


def test_memory_that_was_handed_over_cannot_be_cut_short(slots: Slots) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(slots.file, PAGE)
    # Giving pages back does not cut it.
    slots.free(slots.put(full(1)))
    slots.trim()
    slots.trim()
    assert (blocks(slots.file), os.fstat(slots.file).st_size) == (0, COUNT * SIZE)


def test_a_window_refuses_memory_that_may_be_cut_short() -> None:
    file = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(file, COUNT * SIZE)
    before = open_files()
    with pytest.raises(ValueError, match="cut short"):
        Window(file, SIZE, COUNT)
    assert open_files() == before - 1


def test_a_window_of_a_file_on_disk_is_refused() -> None:
    before = open_files()
    with tempfile.TemporaryFile() as disk:
        os.ftruncate(disk.fileno(), COUNT * SIZE)
        with pytest.raises(OSError, match="Invalid argument"):
            Window(os.dup(disk.fileno()), SIZE, COUNT)
    assert open_files() == before


def test_a_window_outlives_the_front_as_long_as_a_crop_is_used() -> None:
    gc.collect()
    maps = mappings()
    front = Slots(SIZE, COUNT)
    window = Window(os.dup(front.file), SIZE, COUNT)
    front.put(full(9, 64 * 64))
    crop = window.crop(0, GREY)
    front.close()
    del window
    assert (crop == 9).all()
    assert mappings() == maps + 1
    del crop
    assert mappings() == maps
