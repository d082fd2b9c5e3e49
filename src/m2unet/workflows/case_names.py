"""What a case is called: stable whatever the order, number and time of the calls, fit for every file system, and
without what the scan's header says of the patient."""

from __future__ import annotations

import logging
import re
import traceback
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from m2unet.cohort.manifest import can_name_files
from m2unet.ct.identity import ScanIdentity
from m2unet.ct.patient import PatientWords
from m2unet.errors import ConfigError
from m2unet.workflows.case_folder import RESERVED

logger = logging.getLogger(__name__)

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".hdr.gz", ".img.gz", ".hdr", ".img", ".dcm")
NEUTRAL = "scan"
"""What stands in a name's place where it resembles the patient's particulars, or where there is none."""

UNEXPECTED = "unexpected "
"""How the error of a case begins that failed by a fault of the program or the machine, not of its scan."""

_LONGEST = 80
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:[\\/]|\\\\|~?/)[^\s'\"<>|:;,()\[\]]+")


def case_name(path: Path, given: str | None, identity: ScanIdentity, *, identify: bool = False) -> tuple[str, bool]:
    """The name of a case, and whether it stands in place of one that resembles the patient's particulars.

    Args:
        path: the scan.
        given: by the user, None for the file's or folder's own name with the scan's digest.
        identity: of the scan.
        identify: names may identify the patient.
    """
    wanted = plain_stem(path) if given is None else given
    if not identify and identity.patient.resemble(wanted):
        return f"{NEUTRAL}-{identity.short}", True
    return (f"{wanted}-{identity.short}" if given is None else wanted), False


def plain_stem(path: Path) -> str:
    """The name of a file or folder without its ending, fit for every file system; ``scan`` if nothing is left."""
    name = path.resolve().name
    stem = next((name[: -len(end)] for end in ENDINGS if name.lower().endswith(end)), name)
    stem = unicodedata.normalize("NFC", stem)
    stem = "".join("_" if unicodedata.category(char) in ("Cs", "Co", "Cn") else char for char in stem)
    stem = "".join(char for char in stem if unicodedata.category(char) != "Cf")  # marks that turn the reading direction
    stem = re.sub(r"\s+", " ", _FORBIDDEN.sub("_", stem)).strip(" .")
    while len(stem.encode()) > _LONGEST:
        stem = stem[:-1]
    stem = stem.strip(" .")
    return f"{NEUTRAL}_{stem}" if _DEVICES.fullmatch(stem) else stem or NEUTRAL


def check_names(names: Iterable[str], option: str = "--name") -> None:
    """Refuse names of cases that cannot name a folder.

    Raises:
        ConfigError: naming all that are wrong.
    """
    faults: list[str] = []
    for name in names:
        if not can_name_files(name):
            faults.append(repr(name))
        elif name.casefold() in RESERVED:
            faults.append(f"{name!r}, which the folder of results uses itself")
    if faults:
        raise ConfigError(
            f"A name ({option}) cannot name a case",
            found="; ".join(faults),
            expected="up to 100 letters, digits, '.', '_' or '-', a letter or digit first, no name Windows reserves",
        )


def without_names(text: str, paths: Sequence[Path], patient: PatientWords, *, anywhere: bool = True) -> str:
    """A message without paths, and without words that resemble the patient's particulars.

    Args:
        text: to be written or logged.
        paths: of the scan and its mask.
        patient: what the header says.
        anywhere: take out whatever looks like a path, too; not for a traceback, whose paths are those of code.
    """
    for path in paths:
        for form in sorted({str(path.resolve()), str(path.absolute()), str(path)}, key=len, reverse=True):
            if len(form) > 2:
                text = text.replace(form, "(the scan)")
    if anywhere:
        text = _PATH.sub("(a path)", text)
    return re.sub(r"\S+", lambda word: "(...)" if patient.resemble(word[0]) else word[0], text)


def unexpected(name: str, error: Exception, paths: Sequence[Path], patient: PatientWords) -> str:
    """A fault of the program or the machine in words; its traceback goes to the log.

    Args:
        name: of the case.
        error: what was raised.
        paths, patient: as for :func:`without_names`.
    """
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    message = UNEXPECTED + without_names(text, paths, patient)
    logger.error("%s failed: %s\n%s", name, message, traceback_text(error, paths, patient))
    return message


def traceback_text(error: BaseException, paths: Sequence[Path], patient: PatientWords) -> str:
    """The traceback of an error, for the log, without the scan's path and the patient's particulars."""
    lines = "".join(traceback.format_exception(error))
    return without_names(lines, paths, patient, anywhere=False)
