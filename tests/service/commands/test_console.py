"""What commands print of errors and of pictures that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from service.commands.console import fail, list_unreadable, print_left_out


@pytest.mark.parametrize("code", [1, 2])
def test_an_error_is_one_line_whatever_it_says(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Text in brackets is not markup, and long lines are not folded."""
    text = "a [bold] file " + "x" * 300
    with pytest.raises(typer.Exit) as caught:
        fail(text, code)
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.parametrize(("count", "listed"), [(0, 0), (1, 1), (20, 20), (21, 20), (1234, 20)])
def test_the_first_twenty_unreadable_pictures_are_listed(
    count: int, listed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    list_unreadable([f"{n}.png: [text]" for n in range(count)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:listed] == [f"unreadable {n}.png: [text]" for n in range(listed)]
    more = " (the first are above)" if count > 20 else ""
    assert lines[listed:] == ([f"{count:,} unreadable pictures are left out{more}"] if count else [])


def test_a_file_that_is_left_out_is_named_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    print_left_out(Path("/cache/[a].safetensors"), "it is no [whole] file")
    assert capsys.readouterr().err == "left out /cache/[a].safetensors: it is no [whole] file\n"
