"""Settings as options of commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from service.commands.options import open_catalogue, read_settings
from service.config.settings import Settings


def test_options_win_over_the_environment_and_those_not_given_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_PORT", "9001")
    monkeypatch.setenv("TOPFIVE_MAX_PIXELS", "5")
    assert read_settings() == Settings(port=9001, max_pixels=5)
    found = read_settings(port=9002, max_pixels=None, untrained=False)
    assert (found.port, found.max_pixels, found.untrained) == (9002, 5, False)


def test_an_invalid_option_is_named_as_variable_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        read_settings(max_batch_size=0)
    assert caught.value.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: TOPFIVE_MAX_BATCH_SIZE (--max-batch-size) = 0: Input should be greater")
    assert len(said.splitlines()) == 1


def test_a_misspelt_variable_ends_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPFIVE_PROT", "9001")
    with pytest.raises(typer.Exit) as caught:
        read_settings()
    assert caught.value.exit_code == 2
    assert capsys.readouterr().err == "error: there is no setting TOPFIVE_PROT; did you mean TOPFIVE_PORT?\n"


def test_the_catalogue_is_that_of_the_cache_folder_and_says_what_it_leaves_out(
    own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_cache / "checkpoints").mkdir(parents=True)
    (own_cache / "checkpoints" / "vgg16@imagenet1k.safetensors").write_bytes(b"text")
    assert {row.state for row in open_catalogue().checkpoints()} == {"loadable", "weights missing"}
    assert "left out" in capsys.readouterr().err
    assert {row.name.partition("@")[2] for row in open_catalogue(untrained=True).checkpoints()} == {"untrained"}
