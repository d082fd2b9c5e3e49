"""The command line: one thin file a command, each importing its work only when called."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from m2unet import __version__
from m2unet.cli.annotate import annotate
from m2unet.cli.check import check
from m2unet.cli.collect import collect
from m2unet.cli.common import HELP_MARKUP
from m2unet.cli.crossval import crossval
from m2unet.cli.demo import demo
from m2unet.cli.evaluate import evaluate
from m2unet.cli.followup import followup
from m2unet.cli.import_data import combine_manifests, import_data
from m2unet.cli.info import info
from m2unet.cli.phantom import phantom
from m2unet.cli.predict import predict
from m2unet.cli.prepare import prepare
from m2unet.cli.quantify import quantify
from m2unet.cli.reproduce import reproduce
from m2unet.cli.synthetic import synthetic
from m2unet.cli.train import train
from m2unet.errors import M2UNetError

app = typer.Typer(
    name="m2unet",
    help="Lung lobes and COVID-19 severity from a chest CT. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=HELP_MARKUP,
)


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens in detail.")] = False,
) -> None:
    """Set up logging for one call of the command line."""
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", stream=sys.stderr)
    if not verbose:  # other libraries speak only when something is wrong
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("m2unet").setLevel(logging.INFO)
    if version:
        typer.echo(f"m2unet {__version__}")
        raise typer.Exit


for _command in (
    demo,
    check,
    predict,
    collect,
    quantify,
    followup,
    phantom,
    prepare,
    train,
    synthetic,
    crossval,
    evaluate,
    reproduce,
    info,
):
    app.command(_command.__name__)(_command)
app.add_typer(annotate)
app.command("import")(import_data)
app.command("combine")(combine_manifests)


def run() -> None:
    """Entry point: errors the user can mend become one message and an exit code, never a traceback."""
    # Threads that wait for each other by spinning make training several times slower on a machine that others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except M2UNetError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.secho("interrupted", err=True)
        sys.exit(130)
