"""Quality findings: what a check noticed about a scan, how bad it is, and how to mend it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Literal

from m2unet.errors import ConfigError, ScanError

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One observation about a scan.

    Attributes:
        code: stable kebab-case identifier, e.g. ``missing-slices``.
        level: ``error`` stops the scan, ``warning`` travels into its result, ``note`` is for the curious.
        found: what was found, in words, without patient identifiers.
        mend: how to mend it.
    """

    code: str
    level: Level
    found: str
    mend: str

    def to_dict(self) -> dict[str, str]:
        """The finding as a JSON-ready mapping."""
        return asdict(self)


class QualityError(ScanError):
    """A scan whose findings forbid its use.

    Args:
        findings: all findings of the scan; at least one is an error.
    """

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        errors = [finding for finding in self.findings if finding.level == "error"]
        super().__init__(
            "The scan cannot be used",
            found="; ".join(f"{finding.code}: {finding.found}" for finding in errors),
            mend="; ".join(finding.mend for finding in errors),
        )


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        levels: levels it occurs at, the usual one first.
        meaning: what it says about a scan.
        mend: what a user can do.
        acceptable: whether a user may know better, and can accept the error by name: it becomes a warning.
    """

    levels: tuple[Level, ...]
    meaning: str
    mend: str
    acceptable: bool = False


_E: tuple[Level, ...] = ("error",)
_W: tuple[Level, ...] = ("warning",)
_A: tuple[Level, ...] = ("error", "warning")
"""An error that is a warning once a user accepts it."""
_N: tuple[Level, ...] = ("note",)
_EW: tuple[Level, ...] = ("error", "warning")

KINDS: MappingProxyType[str, Kind] = MappingProxyType(
    {
        # what was given
        "not-found": Kind(_E, "there is no such file or folder", "check the path"),
        "empty-folder": Kind(_E, "the folder holds no file of a scan", "give the folder that holds the DICOM files"),
        "unknown-file": Kind(_E, "a file of a kind that is not read", "give NIfTI, MHA/MHD, NRRD or a DICOM folder"),
        "picture": Kind(
            _E,
            "a JPEG, PNG or other picture, whose HU are lost",
            "export the series as DICOM or NIfTI, not as pictures",
        ),
        "x-ray": Kind(_E, "a projection image, not a CT", "give the CT series of the study"),
        "not-ct": Kind(_E, "a DICOM modality other than CT", "give the CT series of the study"),
        "unreadable": Kind(_E, "a file that is damaged, or of a variety that is not read", "export or copy it again"),
        "bad-uids": Kind(
            _E,
            "UIDs that cannot be: a series UID per file, an instance UID for several, a series in several studies",
            "most likely a de-identification replaced the UIDs wrongly: repeat it so that all files of a series share "
            "SeriesInstanceUID and StudyInstanceUID and each file has its own SOPInstanceUID",
        ),
        "truncated": Kind(
            _E, "a file ends before its voxels do, or its voxels cannot be decoded", "copy it again whole"
        ),
        "missing-codec": Kind(_E, "compressed DICOM without its decoder", "pip install m2unet[dicom]"),
        "not-fetched": Kind(
            _E,
            "links to files that are not there, or placeholders of git-annex, DataLad or Git LFS",
            "fetch the files (datalad get, git annex get, git lfs pull) or restore the links' targets",
        ),
        "too-large": Kind(_E, "more voxels than are read, declared or there", "crop it, or split it into single scans"),
        "too-many-files": Kind(_E, "more files than one scan has", "give the folder of a single scan"),
        "unsafe-reference": Kind(
            _E,
            "a header that takes its voxels from elsewhere than a file beside it",
            "keep header and voxels in one folder",
        ),
        "several-patients": Kind(
            _E, "files of several patients in one folder", "give one folder per scan, or --series DIGEST"
        ),
        "several-studies": Kind(
            ("warning", "error"),
            "several CT studies in one folder: the newest is taken; an error where no date says which that is",
            "give one folder per scan, or --series DIGEST for another than the one taken",
        ),
        "series-not-found": Kind(
            _E, "the series asked for is not there", "give --series one of the digests listed, or leave it out"
        ),
        "dimensions": Kind(_E, "not one 3-D volume of single values", "extract one time point, one channel"),
        "series-chosen": Kind(
            _N, "several series or stacks, one of them chosen", "give that series a folder of its own"
        ),
        "files-skipped": Kind(_N, "files that are no CT slices were passed over", "none needed"),
        # geometry
        "bad-spacing": Kind(
            _E,
            "voxel steps or directions that cannot be, or that make a chest metres wide or a few centimetres narrow",
            "check the units: write voxel steps in millimetres; or export it again with its geometry",
        ),
        "unusual-spacing": Kind(_W, "voxels of a size that chest CT does not have", "check the units: millimetres"),
        "no-position": Kind(
            _E,
            "slices whose position, orientation or pixel spacing is missing, unreadable or the same for all",
            "export the original axial series with these elements",
        ),
        "contradictory-geometry": Kind(
            _W,
            "the header says twice how the scan lies, and not the same; viewers differ in which they use",
            "find out which is right, e.g. from the DICOM files, and write the file again with one geometry",
        ),
        "orientation-unknown": Kind(
            _W,
            "the header does not say how the scan lies; LPS axes are assumed",
            "convert it again from the DICOM files",
        ),
        "non-axial": Kind(_W, "slices that are not axial", "give the original axial series"),
        "oblique": Kind(
            _N, "axes turned against the patient's; the nearest are taken, nothing is resampled", "none needed"
        ),
        "gantry-tilt": Kind(
            ("warning", "note"),
            "slices stacked at a slant; they are kept as they are, with their true geometry",
            "none needed; for viewers that cannot show slanted stacks, straighten the series first",
        ),
        "missing-slices": Kind(_E, "gaps in the stack of slices", "export the whole series again"),
        "duplicate-slices": Kind(
            ("warning", "error"),
            "several slices at one place: dropped where they are alike, an error where they differ",
            "export one reconstruction only",
        ),
        "mixed-spacing": Kind(
            ("error", "warning"),
            "uneven distances between slices: up to 10 % are averaged, more is an error",
            "reconstruct with even distances, or give one series of them",
        ),
        "shifted-slices": Kind(_E, "slices moved sideways against each other", "reconstruct with one common centre"),
        "slices-left-out": Kind(
            ("warning", "error"),
            "slices of another size, spacing or direction than the rest were left out; an error where they would make "
            "the stack longer",
            "check that none is missing; give each stack a series of its own",
        ),
        "too-few-slices": Kind(
            ("error", "warning"),
            "one slice is no volume; with less than ten, results mean little",
            "give the whole series",
        ),
        "thick-slices": Kind(
            _N, "slices more than 10 mm apart, which the paper does not have", "give a thinner reconstruction"
        ),
        "instance-numbers": Kind(
            _N, "instance numbers with gaps, though the slices are evenly spaced", "check that the series is whole"
        ),
        # values
        "not-finite": Kind(_E, "NaN or infinite values", "export it again; outside the field of view use -1024 HU"),
        "eight-bit": Kind(_E, "grey values from 0 to 255, not HU", "export it with HU, not as a display picture"),
        "offset-hu": Kind(
            _E, "values moved by about 1024: stored before the rescale, or rescaled twice", "add or subtract 1024"
        ),
        "windowed": Kind(("error", "warning"), "values cut off at a display window", "export it with all HU", True),
        "not-hu": Kind(_A, "values that cannot be HU of a body", "export it with HU, not normalised", True),
        "implausible-hu": Kind(
            _W, "soft tissue is not where it should be on the HU scale", "check slope and intercept"
        ),
        "bad-rescale": Kind(
            _E,
            "a rescale slope or intercept that is no number, not positive, or missing in some slices only",
            "export the original series: HU cannot be known without them",
        ),
        "no-rescale": Kind(_W, "no rescale slope and intercept; 1 and 0 are taken", "export the original series"),
        "padding": Kind(_N, "values below -1024 HU, beyond the field of view, were raised to -1024", "none needed"),
        "lossy": Kind(_N, "lossy compression", "give the original if there is one"),
        "derived": Kind(_W, "a derived or secondary image, not an original reconstruction", "give the original series"),
        # anatomy
        "body-absent": Kind(_A, "nothing that looks like a body", "check that it is a CT of a patient", True),
        "lungs-absent": Kind(
            ("error", "warning"),
            "no air-filled lung; a warning where the scan is less than 4 cm high",
            "give a chest CT; if the lungs are there but hold no air, `--accept lungs-absent`",
            True,
        ),
        "orientation-doubtful": Kind(
            _W,
            "the body does not lie as the header says (turned, upside down, mirrored), or has an impossible size",
            "compare the header with the original DICOM files; convert it again",
        ),
        "chest-uncertain": Kind(
            _W,
            "not what a chest looks like: slices out of order, next to no air-filled lung, or lung on one side only",
            "check that it is a whole chest CT; look at the lobes",
        ),
        "lungs-cut-off": Kind(
            _W, "lung reaches the border of the scan", "volumes and severity cover a part of the lungs"
        ),
        # a lobe mask given with the scan
        "mask-missing": Kind(
            ("warning", "error"),
            "a lobe mask lacks lobes",
            "none needed if they were removed or lie beyond the scan",
            True,
        ),
        "mask-unusual": Kind(_W, "lobes of a mask lie as they seldom do", "look at the mask"),
        "mask-sides": Kind(_EW, "lobes of a mask lie on the wrong side", "check left and right of mask and scan", True),
        "mask-order": Kind(_EW, "lobes of a mask lie in the wrong order", "check the mask's codes", True),
        "mask-volume": Kind(
            _EW, "a lobe of a mask is larger than any lobe", "check the mask's codes and the spacing", True
        ),
        "mask-overlap": Kind(_N, "voxels of a mask lie in two lobes; the first keeps them", "none needed"),
        "mask-thresholded": Kind(_W, "a mask of fractions; a voxel counts from one half on", "none needed"),
        # lobes, predicted or handed in
        "lobes-absent": Kind(
            ("error", "warning"),
            "no lobe at all",
            "check that it is a chest CT; if no lobe is to be expected, `--accept lobes-absent`",
            True,
        ),
        "lobe-missing": Kind(
            _W, "a lobe is not there, though the scan shows whole lungs", "look at the lobes; it may have been removed"
        ),
        "lobe-volume": Kind(
            _W, "a lobe, a lung or both have a volume that adults do not have", "look at the lobes and the voxel sizes"
        ),
        "lobe-side": Kind(_W, "a lobe lies on the wrong side of another", "look at the lobes and at how the body lies"),
        "lobe-order": Kind(
            _W, "lobes lie in the wrong order, head to feet or front to back", "look at the lobes and how the body lies"
        ),
        "lobe-pieces": Kind(
            _W, "a lobe lies in several large pieces", "look at the lobes; dense disease may part them"
        ),
        "lobe-without-air": Kind(
            _W, "a lobe or a lung holds next to no air", "look whether it is wholly dense, collapsed, or no lung at all"
        ),
        "lobes-outside-lung": Kind(
            _W, "lobes lie in fat, below the diaphragm, outside the ribs or outside the body", "look at the lobes"
        ),
        "lobes-lung-mismatch": Kind(
            _W,
            "lobes and the air-filled lung found without a model differ by more than 15 %",
            "look at the lobes; do not use their volumes before",
        ),
    }
)
"""Every finding a scan can have; docs/reading.md shows this table."""


def finding(code: str, found: str, level: Level | None = None) -> Finding:
    """A finding of a known kind.

    Args:
        code: a key of :data:`KINDS`.
        found: what was found, without identifiers.
        level: its usual one if None.
    """
    kind = KINDS[code]
    return Finding(code, level or kind.levels[0], found, kind.mend)


ACCEPTABLE: tuple[str, ...] = tuple(code for code, kind in KINDS.items() if kind.acceptable)
"""Errors that a user may know better."""


def check_accept(codes: Iterable[str]) -> frozenset[str]:
    """Codes of errors to live with, as a set.

    Raises:
        ConfigError: one of them is unknown, or no error that a user may know better.
    """
    wanted = frozenset(codes)
    wrong = sorted(wanted - set(ACCEPTABLE))
    if wrong:
        raise ConfigError(
            "This finding cannot be accepted", found=", ".join(wrong), expected=f"one of {', '.join(ACCEPTABLE)}"
        )
    return wanted


def accepted(findings: Iterable[Finding], accept: Collection[str]) -> tuple[Finding, ...]:
    """Findings with the accepted errors as warnings."""
    return tuple(
        replace(found, level="warning") if found.level == "error" and found.code in accept else found
        for found in findings
    )
