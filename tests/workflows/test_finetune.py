"""Fine-tuning of the shipped lobe network on a few annotated scans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from m2unet.anatomy import LOBE_CODES
from m2unet.cli.main import app
from m2unet.cohort.manifest import Manifest, ManifestRow, read_manifest, write_manifest
from m2unet.cohort.store import content_hash
from m2unet.ct.read import read_scan
from m2unet.errors import RunError
from m2unet.inference.chest_grid import to_chest_grid
from m2unet.inference.predictor import Predictor
from m2unet.models.weights import load_model
from m2unet.phantom.cohort import CohortConfig, plan_cohort
from m2unet.phantom.writer import write_cohort
from m2unet.workflows.finetune import FineTuneJob, annotated_chest, fine_tune, lobes_on_grid
from m2unet.workflows.leakage import read_training
from m2unet.workflows.usable import LEFT_OUT_FILE


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    config = CohortConfig(size="small", patients=2, scans=2, severe_fraction=0.5, lobe_masks="all")
    return read_manifest(write_cohort(plan_cohort(config, 3), tmp_path_factory.mktemp("cohort")))


def test_a_mask_on_the_working_grid_is_what_resampling_gives(cohort: Manifest) -> None:
    row = cohort.rows[0]
    assert row.lobes is not None
    volume = read_scan(row.image)
    grid = to_chest_grid(volume)
    blocks = np.zeros(volume.shape, np.uint8)  # borders of blocks fall between voxels on neither grid
    z, y, x = (np.arange(count) for count in volume.shape)
    blocks[:] = (z[:, None, None] // 7 + y[None, :, None] // 9 + x // 11) % 7
    found = lobes_on_grid(blocks, grid)
    image = sitk.GetImageFromArray(blocks)
    image.SetSpacing(volume.spacing_mm[::-1])
    wanted = sitk.Image(*found.shape[::-1], sitk.sitkUInt8)
    step = (2.0, 2.0, grid.step_mm)
    wanted.SetSpacing(step)
    starts = (grid.window[2], grid.window[0], 0)
    wanted.SetOrigin([(s - 0.5) * mm + d / 2 for s, mm, d in zip(starts, volume.spacing_mm[::-1], step, strict=True)])
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, wanted, sitk.Transform(), sitk.sitkNearestNeighbor))
    inside = theirs[:, :-1, :-1]  # SimpleITK leaves the rim beyond the last voxel's middle empty
    assert np.mean(found[:, :-1, :-1] == inside) > 0.999


def test_a_scan_that_cuts_the_lungs_is_placed_beyond_itself(cohort: Manifest, tmp_path: Path) -> None:
    row = cohort.rows[0]
    assert row.lobes is not None
    parts = []
    for path, name in ((row.image, "ct.nii.gz"), (row.lobes, "lobes.nii.gz")):
        image = sitk.ReadImage(str(path))
        depth = image.GetSize()[2]
        sitk.WriteImage(image[:, :, depth // 3 : 2 * depth // 3], str(tmp_path / name))
        parts.append(tmp_path / name)
    shipped = Predictor.load()
    whole = annotated_chest(row, shipped)
    cut = annotated_chest(ManifestRow("cut", "p", parts[0], lobes=parts[1]), shipped)
    assert 0 <= whole.base < whole.apex < len(whole.hu)
    assert set(np.unique(whole.maps[0])) >= set(LOBE_CODES)
    assert cut.base <= 0 and cut.apex >= len(cut.hu) - 1
    assert cut.apex - cut.base > len(cut.hu)


def test_a_killed_fine_tuning_goes_on_to_the_same_weights(cohort: Manifest, tmp_path: Path) -> None:
    bad = ManifestRow("z-bad", "p9", cohort.rows[0].image, lobes=tmp_path / "absent.nii.gz")
    manifest = Manifest(cohort.path, (*cohort.rows, bad))
    whole = fine_tune(FineTuneJob(manifest, tmp_path / "whole", steps=2))
    assert whole.train == tuple(row.scan_id for row in cohort.rows) and list(whole.skipped) == ["z-bad"]

    class KilledError(Exception):
        pass

    class Killer:
        def __call__(self, done: int, total: int, note: str = "") -> None:
            if total == 2 and note.startswith("loss"):
                raise KilledError

        def stage(self, name: str) -> Killer:
            return self

        def __enter__(self) -> Killer:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    with pytest.raises(KilledError):
        fine_tune(FineTuneJob(manifest, tmp_path / "killed", steps=2), progress=Killer())  # type: ignore[arg-type]
    with pytest.raises(RunError, match="--resume"):
        fine_tune(FineTuneJob(manifest, tmp_path / "killed", steps=2))
    resumed = fine_tune(FineTuneJob(manifest, tmp_path / "killed", steps=2, resume=True))
    cards = [load_model(made.run.model).card for made in (whole, resumed)]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"] != cards[0]["initial_weights_sha256"]
    assert "2 annotated scans" in cards[0]["trained_on"]
    content = content_hash(read_scan(cohort.rows[0].image).array)
    for made in (whole, resumed):
        seen = read_training(made.run.path)
        assert seen is not None and [scan.scan_id for scan in seen] == list(made.train)
        assert [scan.patient_id for scan in seen] == [row.patient_id for row in cohort.rows]
        assert seen[0].content_sha256 == content
        left_out = json.loads((made.run.path / LEFT_OUT_FILE).read_text())["scans"]
        assert left_out == {"z-bad": {"use": "train", "reason": "it cannot be used"}}
    other = replace(
        manifest, rows=(replace(manifest.rows[0], image=_shifted(cohort.rows[0], tmp_path)), *manifest.rows[1:])
    )
    with pytest.raises(RunError, match="other images"):
        fine_tune(FineTuneJob(other, tmp_path / "whole", steps=2, resume=True))
    prediction = Predictor.load(tmp_path / "whole").predict(cohort.rows[0].image)
    assert prediction.lobes is not None and prediction.severity is None


def _shifted(row: ManifestRow, folder: Path) -> Path:
    """The scan on another day: its voxels differ."""
    image = sitk.ReadImage(str(row.image))
    sitk.WriteImage(sitk.Add(image, 1), str(folder / "shifted.nii.gz"))
    return folder / "shifted.nii.gz"


def test_the_command(cohort: Manifest, tmp_path: Path) -> None:
    call = ["train", str(cohort.path), "--init", "none", "--out", str(tmp_path / "run"), "--steps", "1"]
    refused = CliRunner().invoke(app, [*call, "--model", "m2unet"])
    assert refused.exit_code == 2 and "--model" in refused.output
    assert CliRunner().invoke(app, call).exit_code == 0
    assert "random weights" in load_model(tmp_path / "run" / "model").card["trained_on"]
    renamed = (
        replace(cohort.rows[0], scan_id="renamed", patient_id="somebody"),
        replace(cohort.rows[1], scan_id="other-day", image=_shifted(cohort.rows[1], tmp_path), lobes=None),
    )
    write_manifest(renamed, tmp_path / "test.csv")
    tested = ["evaluate", str(tmp_path / "run"), str(tmp_path / "test.csv"), "--out", str(tmp_path / "evaluation")]
    assert CliRunner().invoke(app, [*tested, "--device", "cpu"]).exit_code == 0
    leakage = json.loads((tmp_path / "evaluation" / "summary.json").read_text())["appraisal"]["leakage"]
    assert leakage["checked"] and leakage["same_content"] == [[cohort.rows[0].scan_id, "renamed"]]
    assert leakage["same_patient"] == ["other-day"]
    unknown = [*call[:3], "imagenet", *call[4:]]
    assert CliRunner().invoke(app, unknown).exit_code != 0


def test_without_a_mask_there_is_nothing_to_learn(cohort: Manifest, tmp_path: Path) -> None:
    rows = tuple(ManifestRow(row.scan_id, row.patient_id, row.image) for row in cohort.rows)
    with pytest.raises(RunError, match="lobe mask"):
        fine_tune(FineTuneJob(Manifest(cohort.path, rows), tmp_path))
