"""Help shows every word of its source: rich takes brackets for markup, and dropped the defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import m2unet
from m2unet.cli.main import app

SOURCES = Path(m2unet.__file__).parent / "cli"


def commands(
    group: typer.Typer, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], typer.models.CommandInfo]]:
    """Every command with the words that call it, those of groups too."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*before, command.name or command.callback.__name__), command
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        name = inner.typer_instance.info.name
        yield from commands(inner.typer_instance, (*before, str(name)))


def shown(*words: str) -> str:
    """The help of a command, without frames and line breaks."""
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


def texts(command: typer.models.CommandInfo) -> Iterator[str]:
    """The help texts of a command's options and arguments, as they stand in the source."""
    assert command.callback is not None
    for parameter in inspect.signature(command.callback, eval_str=True).parameters.values():
        for mark in getattr(parameter.annotation, "__metadata__", ()):
            if getattr(mark, "help", None):
                yield " ".join(mark.help.split())


FOUND = list(commands(app))


@pytest.mark.parametrize(("words", "command"), FOUND, ids=[" ".join(words) for words, _ in FOUND])
def test_every_word_of_an_options_help_is_shown(words: tuple[str, ...], command: typer.models.CommandInfo) -> None:
    help_ = shown(*words)
    for text in texts(command):
        assert text.replace("`", "") in help_


def test_every_default_promised_in_the_source_is_shown() -> None:
    everything = " ".join(shown(*words) for words, _ in FOUND)
    promised = [
        default for path in SOURCES.glob("*.py") for default in re.findall(r"\[default: [^\]]+\]", path.read_text())
    ]
    assert len(promised) >= 10
    for default in promised:
        assert default in everything, default


def test_groups_read_their_help_the_same_way() -> None:
    assert len(FOUND) >= 18 and ("annotate", "retrain") in [words for words, _ in FOUND]
    assert "[default: the proposing model's]" in shown("annotate", "retrain")
