"""A folder of proposals: lobe masks for the scans of a manifest that have none, ranked by doubt, ready to correct."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from m2unet import __version__
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest
from m2unet.config import Config, dump_config, load_config
from m2unet.ct.identity import ScanIdentity, identify_scan
from m2unet.ct.read import read_scan
from m2unet.ct.write import write_mask
from m2unet.errors import M2UNetError, ManifestError, RunError
from m2unet.export.annotators import write_segmentation, write_snap_labels
from m2unet.files import require_writable, write_json, write_text
from m2unet.inference.postprocess import postprocess_lobes
from m2unet.inference.predictor import Predictor
from m2unet.inference.uncertainty import CONFIDENT_FROM, propose_lobes
from m2unet.workflows.case_folder import read_json_file
from m2unet.workflows.case_names import unexpected, without_names
from m2unet.workflows.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

SCHEMA = "m2unet.annotation/1"
COLUMNS = ("rank", "scan_id", "doubt", "sure_share", "error")

README = """Proposed lobe masks, to be corrected by hand. Research use only.

ranking.csv   what to correct first: the scans of which the network is least sure
proposals/    SCAN.seg.nrrd for 3D Slicer, SCAN.nii.gz for ITK-SNAP (load labels.txt with
              Segmentation > Import Label Descriptions) and any other program
confident/    the same with 255 where the network is not sure; for self-training, not for correction
corrected/    save corrected masks here as SCAN.seg.nrrd, SCAN.nii.gz, SCAN.nrrd or SCAN.mha

1 right upper, 2 right middle, 3 right lower, 4 left upper, 5 left lower lobe, 6 airway (may be left out).

Then: m2unet annotate take THIS_FOLDER, and m2unet annotate retrain THIS_FOLDER --out RUN
"""


@dataclass(frozen=True)
class AnnotationFolder:
    """Names the files of a folder of proposals; makes nothing.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def index(self) -> Path:
        """Which manifest and model it was made from, and the ranking, JSON."""
        return self.path / "annotate.json"

    @property
    def ranking(self) -> Path:
        """What to correct first, CSV."""
        return self.path / "ranking.csv"

    @property
    def config(self) -> Path:
        """Configuration of the model that proposed, YAML."""
        return self.path / "config.yaml"

    @property
    def corrected(self) -> Path:
        """Where corrected masks are put."""
        return self.path / "corrected"

    @property
    def manifest(self) -> Path:
        """The manifest with the corrected masks, once some were taken."""
        return self.path / "manifest.csv"

    def proposal(self, scan_id: str, ending: str = ".nii.gz") -> Path:
        """A proposed mask."""
        return self.path / "proposals" / f"{scan_id}{ending}"

    def confident(self, scan_id: str) -> Path:
        """A proposed mask of confident pixels alone."""
        return self.path / "confident" / f"{scan_id}.nii.gz"

    def taken(self, scan_id: str) -> Path:
        """A corrected mask that passed the checks, in this package's codes."""
        return self.path / "taken" / f"{scan_id}.nii.gz"

    def read_index(self) -> dict[str, Any]:
        """What the proposals were made from.

        Raises:
            RunError: if the folder is none of proposals.
        """
        try:
            found = json.loads(self.index.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise RunError(
                "The folder holds no proposals",
                found=self.path,
                mend="make them with `m2unet annotate propose MANIFEST --out DIR`",
            )
        return found

    def read_manifest(self) -> Manifest:
        """The manifest that the proposals were made from.

        Raises:
            RunError: as :meth:`read_index`.
            ManifestError: if the manifest is gone or has faults.
        """
        return read_manifest(self.path / self.read_index()["manifest"])

    def read_config(self) -> Config:
        """The configuration of the model that proposed."""
        return load_config(self.config)


@dataclass(frozen=True)
class Ranked:
    """One proposal in the ranking.

    Attributes:
        scan_id: which scan.
        doubt: of :class:`m2unet.inference.uncertainty.Proposal`; None if it failed.
        sure_share: share of its lobes' voxels that are confident; None where no lobe was found.
        error: why there is no proposal.
        skipped: it was made by an earlier call.
    """

    scan_id: str
    doubt: float | None
    sure_share: float | None = None
    error: str | None = None
    skipped: bool = False


@dataclass(frozen=True)
class ProposeOptions:
    """How masks are proposed.

    Attributes:
        confident_from: probability from which a pixel counts as confident.
        every: propose for scans with a mask, too.
    """

    confident_from: float = CONFIDENT_FROM
    every: bool = False


def propose_masks(
    manifest: Manifest,
    run: Path | None,
    out: Path,
    options: ProposeOptions | None = None,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Ranked]:
    """Propose lobe masks and rank them by doubt; a scan that fails does not stop the others.

    Proposals of an earlier call are kept where scan, model and settings are the same.

    Args:
        manifest: the cohort.
        run: run folder of the model; None proposes with the lobe model that ships with the package.
        out: folder of the proposals.
        options: how.
        device: where the model computes.
        progress: where to show progress.

    Returns:
        The ranking, most doubt first; failed scans last.

    Raises:
        ManifestError: if every scan has a mask.
        ModelError: if there is no model, or it does not segment lobes.
        OutputError: if the folder cannot be written.
        RunError: if it holds proposals for another manifest.
    """
    options = options or ProposeOptions()
    rows = [row for row in manifest.rows if options.every or row.lobes is None]
    if not rows:
        raise ManifestError(
            "Every scan of the manifest has a lobe mask", ["nothing to propose"], mend="use --every to propose for all"
        )
    predictor = Predictor.load(run, device=device)
    folder, shown = AnnotationFolder(out), progress or NoProgress()
    require_writable(out)
    _refuse_other_proposals(folder, manifest)
    found: list[Ranked] = []
    with shown.stage("proposing lobes") as step:
        for number, row in enumerate(rows, 1):
            found.append(_kept_or_proposed(row, predictor, folder, options))
            step(number, len(rows))
    ranked = sorted(found, key=lambda one: (one.doubt is None, -(one.doubt or 0.0), one.scan_id))
    _write(folder, manifest, predictor, ranked)
    return ranked


def _refuse_other_proposals(folder: AnnotationFolder, manifest: Manifest) -> None:
    """Corrected masks are known by the names of their scans, which mean the same only within one manifest."""
    if not folder.index.is_file():
        return
    held = (folder.path / folder.read_index()["manifest"]).resolve()
    if held != manifest.path.resolve():
        raise RunError(
            "The folder holds proposals for the scans of another manifest",
            found=held.name,
            mend="choose another --out",
        )


def _kept_or_proposed(
    row: ManifestRow, predictor: Predictor, folder: AnnotationFolder, options: ProposeOptions
) -> Ranked:
    note = folder.proposal(row.scan_id, ".json")
    identity = identify_scan(row.image)
    try:
        _refuse_other_scan(note, identity)
        key = _key(identity, predictor, options)
        kept = _kept(note, key)
        if kept is not None:
            return kept
        volume = read_scan(row.image, accept=row.accept)
        proposal = propose_lobes(predictor, volume, confident_from=options.confident_from)
        tidied = postprocess_lobes(proposal.lobes, volume.voxel_ml).mask
        write_mask(volume, tidied, folder.proposal(row.scan_id))
        write_segmentation(volume, tidied, folder.proposal(row.scan_id, ".seg.nrrd"))
        write_mask(volume, proposal.confident, folder.confident(row.scan_id))
    except (M2UNetError, OSError) as error:
        text = (error.strerror or "") if isinstance(error, OSError) else str(error)
        message = without_names(text, [row.image], identity.patient)
        logger.warning("%s: no proposal: %s", row.scan_id, message)
        return Ranked(row.scan_id, None, error=message)
    except Exception as error:  # one scan's surprise must not lose the others
        return Ranked(row.scan_id, None, error=unexpected(row.scan_id, error, [row.image], identity.patient))
    found = Ranked(row.scan_id, round(proposal.doubt, 6), proposal.sure_share)
    write_json(note, {"key": key, "scan_digest": identity.digest, "doubt": found.doubt, "sure_share": found.sure_share})
    return found


def _refuse_other_scan(note: Path, identity: ScanIdentity) -> None:
    """Raises RunError if the proposal that is there is of another scan: what was drawn on it would be mistaken."""
    digest = (read_json_file(note) or {}).get("scan_digest")
    if digest not in (None, identity.digest) and identity.basis != "path":
        raise RunError(
            "The proposal that is there is of another scan of this name",
            found=note.stem,
            mend="choose another --out, or delete that proposal and its corrected mask",
        )


def _kept(note: Path, key: str) -> Ranked | None:
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return Ranked(note.stem, kept["doubt"], kept["sure_share"], skipped=True)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _key(identity: ScanIdentity, predictor: Predictor, options: ProposeOptions) -> str:
    facts = [
        __version__,
        identity.digest,
        identity.fingerprint,
        predictor.identity.weights_sha256,
        options.confident_from,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _write(folder: AnnotationFolder, manifest: Manifest, predictor: Predictor, ranked: Sequence[Ranked]) -> None:
    folder.corrected.mkdir(parents=True, exist_ok=True)
    write_text(folder.path / "README.txt", README)
    write_snap_labels(folder.path / "labels.txt")
    write_text(folder.config, dump_config(predictor.config))
    rows = [{"rank": rank if one.doubt is not None else None, **asdict(one)} for rank, one in enumerate(ranked, 1)]
    write_text(folder.ranking, _csv(rows))
    index = {
        "schema": SCHEMA,
        "manifest": _relative(manifest.path, folder.path),
        "model": asdict(predictor.identity),
        "measure": "mean entropy within 5 mm of lobe borders, 0 to 1",
        "ranking": [{name: row[name] for name in COLUMNS} for row in rows],
    }
    write_json(folder.index, index)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows({name: "" if row[name] is None else row[name] for name in COLUMNS} for row in rows)
    return text.getvalue()


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()
