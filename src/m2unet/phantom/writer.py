"""Write a planned cohort to disk: pictures, masks, manifest, truth; resumable, the same for any number of workers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from m2unet.cohort.manifest import ManifestRow, write_manifest
from m2unet.ct.write import write_mask, write_volume
from m2unet.errors import ConfigError, WorkerError
from m2unet.files import write_json, write_text
from m2unet.phantom.cohort import CohortPlan, ScanPlan
from m2unet.phantom.protocol import SITES
from m2unet.phantom.scan import PhantomScan, make_patient, make_scan
from m2unet.processes import describe_exit, named_exit_code

Format = Literal["nifti", "dicom"]
Callback = Callable[[int, int], object]
"""Called with the number of finished scans and of all scans."""

VERSION = 1
"""Counts up when the same plan gives other voxels, so that an interrupted cohort is not continued with them."""

README = """Digital phantoms: everything in this folder is synthetic.

No patient was scanned. The chests, the disease, the scanners and the people's particulars come from a random number
generator (m2unet phantom). Nothing measured here says how well anything works on patients.

manifest.csv  one row a scan: image, lobe mask where given, lesion mask, label, grade, site, age, sex, date
truth.csv     one row a scan: percent of each lobe opacified, in all and by kind; the score that the label rests on;
              whether label noise turned the label over
images/       CT in HU, as the invented sites store them (own orientation and padding)
lobes/        1 right upper, 2 right middle, 3 right lower, 4 left upper, 5 left lower lobe, 6 airway
lesions/      1 ground-glass, 2 consolidation, 3 crazy paving, 4 band
"""


@dataclass(frozen=True)
class _Paths:
    """Where one scan's files go."""

    folder: Path
    scan_id: str
    format: Format

    @property
    def image(self) -> Path:
        return self.folder / "images" / (self.scan_id + (".nii.gz" if self.format == "nifti" else ""))

    @property
    def lobes(self) -> Path:
        return self.folder / "lobes" / f"{self.scan_id}.nii.gz"

    @property
    def lesions(self) -> Path:
        return self.folder / "lesions" / f"{self.scan_id}.nii.gz"

    @property
    def truth(self) -> Path:
        """Written last: with it a scan is finished."""
        return self.folder / "truth" / f"{self.scan_id}.json"


def write_cohort(
    plan: CohortPlan,
    folder: str | Path,
    format: Format = "nifti",  # noqa: A002 - the option's word
    workers: int = 2,
    progress: Callback | None = None,
) -> Path:
    """Render and write every scan of a plan; scans finished by an earlier call are skipped.

    Args:
        plan: the cohort.
        folder: where to write; made if missing.
        format: ``nifti`` (one file a scan) or ``dicom`` (one folder a scan); masks are NIfTI in both.
        workers: processes; the files are the same whatever their number.
        progress: told how many scans are finished, first those of earlier calls.

    Returns:
        Path of ``manifest.csv``.

    Raises:
        ConfigError: if the format is another one, or the folder holds another cohort.
        WorkerError: if a process was killed.
    """
    folder, format_ = Path(folder), format
    if format_ not in ("nifti", "dicom"):
        raise ConfigError("Phantoms are not written in this format", found=format_, expected="nifti or dicom")
    _claim(folder, plan, format_)
    waiting: dict[str, list[ScanPlan]] = {}
    for scan in plan.scans:
        if not _finished(plan, scan, _Paths(folder, scan.scan_id, format_)):
            waiting.setdefault(scan.patient_id, []).append(scan)
    done = len(plan.scans) - sum(map(len, waiting.values()))
    tell = progress or (lambda done, total: None)
    tell(done, len(plan.scans))
    for _ in _all_patients(plan, folder, format_, list(waiting.values()), workers):
        done += 1
        tell(done, len(plan.scans))
    _write_truth(plan, folder, format_)
    manifest = folder / "manifest.csv"
    write_manifest([_row(plan, scan, _Paths(folder, scan.scan_id, format_)) for scan in plan.scans], manifest)
    return manifest


def _all_patients(
    plan: CohortPlan,
    folder: Path,
    format_: Format,
    waiting: Sequence[list[ScanPlan]],
    workers: int,
) -> Iterator[str]:
    """Scan every waiting patient; yields once a scan."""
    if workers <= 1 or len(waiting) <= 1:
        for scans in waiting:
            yield from _patient_scans(plan, folder, format_, scans)
        return
    from joblib import Parallel, delayed  # type: ignore[import-untyped]  # comes with scikit-learn
    from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]

    # one task a scan would draw the anatomy again for each; longest patients first keeps the workers busy to the end
    order = sorted(waiting, key=len, reverse=True)
    pool = Parallel(n_jobs=min(workers, len(order)), return_as="generator_unordered", pre_dispatch="2*n_jobs")
    try:
        for names in pool(delayed(_one_patient)(plan, folder, format_, scans) for scans in order):
            yield from names
    except BrokenProcessPool as error:
        raise WorkerError(
            f"A process that makes phantoms {describe_exit(named_exit_code(error))}",
            mend="call again with fewer workers; what is finished is kept",
        ) from None
    finally:
        get_reusable_executor().shutdown(wait=True)  # else idle workers keep their memory for minutes


def _one_patient(plan: CohortPlan, folder: Path, format_: Format, scans: list[ScanPlan]) -> list[str]:
    """What a worker process does: all waiting scans of one patient."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return list(_patient_scans(plan, folder, format_, scans))


def _patient_scans(
    plan: CohortPlan,
    folder: Path,
    format_: Format,
    scans: list[ScanPlan],
) -> Iterator[str]:
    patient = make_patient(plan.patient_of(scans[0]))
    for scan in scans:
        _write_scan(plan, make_scan(plan, scan.scan_id, patient), _Paths(folder, scan.scan_id, format_))
        yield scan.scan_id


def _write_scan(plan: CohortPlan, made: PhantomScan, paths: _Paths) -> None:
    if paths.format == "nifti":
        write_volume(made.volume, paths.image)
    else:
        from m2unet.phantom.dicom import write_series

        write_series(made, plan.patient_of(made.plan), paths.image)
    if made.plan.lobe_mask:
        write_mask(made.volume, made.lobes, paths.lobes)
    write_mask(made.volume, made.lesions, paths.lesions)
    patient = plan.patient_of(made.plan)
    truth: dict[str, Any] = {
        "scan_id": made.plan.scan_id,
        "patient_id": patient.patient_id,
        "severity": int(patient.severe),
        "patient_score": round(patient.score, 3),
        "scan_score": round(made.truth.score, 3),
        "flipped": int(patient.flipped),
        "day": round(made.plan.day, 2),
        **({"inspiration": round(made.plan.inspiration, 3)} if plan.course else {}),
        **made.truth.row(),
    }
    write_json(paths.truth, {"fingerprint": _fingerprint(plan, made.plan), "truth": truth})


def _row(plan: CohortPlan, scan: ScanPlan, paths: _Paths) -> ManifestRow:
    patient = plan.patient_of(scan)
    return ManifestRow(
        scan_id=scan.scan_id,
        patient_id=scan.patient_id,
        image=paths.image,
        lobes=paths.lobes if scan.lobe_mask else None,
        severity=int(patient.severe),
        grade=patient.grade,
        site=SITES[scan.protocol.site].name,
        age=float(patient.age),
        sex=patient.anatomy.sex,
        date=scan.date,
        lesions=paths.lesions,
    )


# --- what is finished ------------------------------------------------------------------------------------------------


def _fingerprint(plan: CohortPlan, scan: ScanPlan) -> str:
    """Changes whenever the scan's files would: the plan of the scan and of its patient, and the code's version."""
    text = repr((VERSION, scan, plan.patient_of(scan)))
    if scan.inspiration != 1:
        text += f" at {scan.inspiration!r} of full breath"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _claim(folder: Path, plan: CohortPlan, format_: Format) -> None:
    """Note whose folder this is; refuse to mix two cohorts."""
    noted = folder / "cohort.json"
    config: dict[str, Any] = {"course": True} if plan.course else {}
    config |= {
        "version": VERSION,
        "seed": plan.seed,
        "format": format_,
        "size": plan.config.size,
        "scans": plan.config.scans,
        "patients": plan.config.patient_count,
        "severe_patients": plan.config.severe_count,
    }
    if noted.is_file():
        try:
            found = json.loads(noted.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != config:
            raise ConfigError(
                "The folder holds another phantom cohort",
                found=found,
                expected=config,
                mend="choose another folder, or delete this one",
            )
    write_json(noted, config)
    write_text(folder / "README.txt", README)


def _finished(plan: CohortPlan, scan: ScanPlan, paths: _Paths) -> bool:
    wanted = [paths.image, paths.lesions] + ([paths.lobes] if scan.lobe_mask else [])
    if not all(path.exists() for path in wanted):
        return False
    noted = _noted(paths)
    return noted is not None and noted.get("fingerprint") == _fingerprint(plan, scan)


def _noted(paths: _Paths) -> dict[str, Any] | None:
    try:
        found = json.loads(paths.truth.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_truth(plan: CohortPlan, folder: Path, format_: Format) -> None:
    rows = [(_noted(_Paths(folder, scan.scan_id, format_)) or {})["truth"] for scan in plan.scans]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    write_text(folder / "truth.csv", text.getvalue())
