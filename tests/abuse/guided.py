"""Coverage-guided fuzzing with Atheris: ``python -m tests.abuse.guided KIND FOLDER RUNS SEED``.

KIND is a reader of :mod:`tests.abuse.fuzz` that reads one file, with the ending the file is given: ``scan.nii``,
``scan.mha``, ``scan.nrrd``, ``scan.dcm``, ``manifest.csv``, ``config.yaml``. FOLDER holds good files to begin with;
inputs that reach new lines of this package are kept there. Anything but an answer or a
:class:`m2unet.errors.M2UNetError` is reported with its traceback, and the process ends with another code than 0.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["m2unet"]):
    import m2unet.cohort.manifest
    import m2unet.config
    import m2unet.ct.checks
    import m2unet.ct.read  # noqa: F401 - instrumented before the readers import it

from m2unet.errors import M2UNetError
from tests.abuse.fuzz import readers

SECONDS = 20
MEMORY_MIB = 2048
LARGEST = 8192
"""Bytes of an input: headers are what is read in Python."""


def main() -> None:
    """Fuzz one reader."""
    kind, folder, runs, seed = sys.argv[1:5]
    name, _, ending = kind.partition(".")
    read = readers()[name]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / f"file.{ending}"

        def one(data: bytes) -> None:
            path.write_bytes(data)
            try:
                read(path)
            except M2UNetError as error:
                assert error.problem

        limits = [f"-runs={runs}", f"-seed={seed}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"]
        atheris.Setup(
            [sys.argv[0], *limits, f"-max_len={LARGEST}", "-verbosity=0", "-print_final_stats=1", folder], one
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
