"""Options and small habits that several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from m2unet.anatomy import CODE_SYSTEMS, CodeSystem

HELP_MARKUP: Final = "markdown"
"""How help texts are read. Rich's own markup takes words in brackets, such as a default, for a style and drops them."""

Preset = Annotated[str, typer.Option("--preset", help="A preset (paper, demo) or a YAML file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override one setting, e.g. train.lr=0.02.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Engine = Annotated[
    str, typer.Option("--engine", help="auto (OpenVINO on a CPU if installed, else torch), reference, torch, openvino.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random.")]
Series = Annotated[
    str | None,
    typer.Option(
        "--series",
        help="The DICOM series to read: its UID or the first 6 or more digits of its digest, as messages show.",
    ),
]


def writable(context: typer.Context, out: Path | None) -> Path | None:
    """Refuse a folder of results that cannot be written, before anything is read.

    Raises:
        OutputError: saying why.
    """
    from m2unet.files import require_writable

    if out is not None and not context.resilient_parsing:
        require_writable(out)
    return out


Out = Annotated[Path, typer.Option("--out", "-o", callback=writable, help="Folder of the results.")]

LobeCodes = Annotated[
    str | None,
    typer.Option(
        "--lobe-codes", help=f"Whose codes the lobe masks use: {', '.join(CODE_SYSTEMS)}; auto recognises them."
    ),
]

Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", help="An error to live with as a warning, e.g. lungs-absent (repeatable)."),
]


def code_system(name: str) -> CodeSystem:
    """The system of lobe codes of that name.

    Raises:
        typer.BadParameter: there is none.
    """
    for codes in CODE_SYSTEMS:
        if codes == name:
            return codes
    raise typer.BadParameter(f"{name!r} is not one of {', '.join(CODE_SYSTEMS)}", param_hint="--lobe-codes")


def settings(
    overrides: list[str] | None, *, seed: int | None = None, epochs: int | None = None, method: str | None = None
) -> list[str]:
    """All overrides of a call, the short options last so that they win."""
    found = list(overrides or [])
    if seed is not None:
        found.append(f"seed={seed}")
    if epochs is not None:
        found.append(f"train.epochs={epochs}")
    if method is not None:
        from m2unet.models.methods import method as named

        found.extend(named(method).settings)
    return found


def refuse_beside(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that an option leaves without effect.

    Args:
        option: the one given.
        others: its companions by name; those that are set are refused.

    Raises:
        typer.BadParameter: naming them.
    """
    given = [name for name, value in others.items() if value]
    if given:
        raise typer.BadParameter(f"it cannot be combined with {', '.join(given)}", param_hint=option)


def say(text: str = "") -> None:
    """Print one line for the user."""
    typer.echo(text)


def failure_code(errors: Sequence[str], cases: int) -> int:
    """Exit code of a command over many cases: 0 all went well, 1 some failed, 2 all did because of their input.

    Args:
        errors: of the cases that failed; a fault of the program or the machine never makes it 2.
        cases: how many there were.
    """
    from m2unet.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_SOME_FAILED
    from m2unet.workflows.case_names import UNEXPECTED

    if not errors:
        return EXIT_OK
    bad_input = len(errors) == cases and not any(error.startswith(UNEXPECTED) for error in errors)
    return EXIT_BAD_INPUT if bad_input else EXIT_SOME_FAILED
