"""TotalSegmentator's folder of one file an organ, and its label map with names."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from m2unet.anatomy import CODE_MAPS
from m2unet.cohort.masks import is_mask_folder, read_lobes
from m2unet.ct.volume import Volume
from m2unet.errors import ScanError
from tests.cohort.mask_files.samples import (
    NAMES,
    TOTALSEGMENTATOR,
    lobes_and_volume,
    order_of,
    recoded,
    save,
    save_folder,
)


@pytest.fixture(scope="module")
def sample() -> tuple[NDArray[np.uint8], Volume]:
    return lobes_and_volume()


@pytest.mark.parametrize("names", [TOTALSEGMENTATOR, NAMES])
def test_a_folder_of_one_file_a_lobe_is_read(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], names: dict[int, str]
) -> None:
    lobes, scan = sample
    folder = save_folder(tmp_path / "out", lobes, names)
    found = read_lobes(folder, scan)
    assert np.array_equal(found.array, lobes) and found.recognised_by == "names" and not found.findings
    assert found.labels[names[4]] == "LUL" and is_mask_folder(folder)


def test_an_empty_file_is_a_missing_lobe_and_a_missing_file_is_an_error(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]
) -> None:
    lobes, scan = sample
    folder = save_folder(tmp_path / "out", lobes)
    middle = folder / f"{TOTALSEGMENTATOR[2]}.nii.gz"
    save(np.zeros_like(lobes), middle)
    (finding,) = read_lobes(folder, scan).findings
    assert finding.code == "mask-missing" and "RML" in finding.found
    middle.unlink()
    with pytest.raises(ScanError, match="lung_middle_lobe_right"):
        read_lobes(folder, scan)
    assert read_lobes(folder, scan, accept=["mask-missing"]).findings[0].code == "mask-missing"


def test_folders_and_files_that_cannot_be_used(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    folder = save_folder(tmp_path / "out", lobes)
    with pytest.raises(ScanError, match="the folder, not one file of it"):
        read_lobes(folder / f"{TOTALSEGMENTATOR[4]}.nii.gz", scan)
    with pytest.raises(ScanError, match=r"is not taken|is empty"):
        read_lobes(folder / "heart.nii.gz", scan)
    for path in folder.glob("lung_*_lobe_*"):
        path.unlink()
    assert not is_mask_folder(folder)
    with pytest.raises(ScanError, match="does not hold the lobes"):
        read_lobes(folder, scan)
    other = save_folder(tmp_path / "swapped", lobes, {1: TOTALSEGMENTATOR[4], 4: TOTALSEGMENTATOR[1], **{
        code: TOTALSEGMENTATOR[code] for code in (2, 3, 5)}})  # fmt: skip
    with pytest.raises(ScanError, match="its own names"):
        read_lobes(other, scan)
    twice = save_folder(tmp_path / "twice", lobes)
    save((lobes == 1).astype(np.uint8), twice / "RUL.nii.gz")
    with pytest.raises(ScanError, match="two files of one lobe"):
        read_lobes(twice, scan)
    soft = save_folder(tmp_path / "soft", lobes)
    save((lobes == 2) * np.float32(0.7), soft / f"{TOTALSEGMENTATOR[2]}.nii.gz")
    with pytest.raises(ScanError, match="fractions"):
        read_lobes(soft, scan)
    coded = save_folder(tmp_path / "coded", lobes)
    save(lobes, coded / f"{TOTALSEGMENTATOR[2]}.nii.gz")
    with pytest.raises(ScanError, match="not binary"):
        read_lobes(coded, scan)


def named(path: Path, mask: NDArray[np.int16], scan: Volume, names: dict[int, str]) -> Path:
    """A label map with names in its header, as TotalSegmentator writes it."""
    image = nibabel.Nifti1Image(mask.T.astype(np.uint8), np.diag([-1.0, -1.0, 1.0, 1.0]) @ scan.affine)
    table = "\n".join(
        f'<Label Key="{label}" Red="1.0" Green="0.0" Blue="0.0" Alpha="1"><![CDATA[{name}]]></Label>'
        for label, name in names.items()
    )
    xml = f"<CaretExtension><VolumeInformation><LabelTable>{table}</LabelTable></VolumeInformation></CaretExtension>"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, xml.encode()))
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_names_in_a_nifti_header_decide(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], ending: str) -> None:
    lobes, scan = sample
    values = {1: 44, 2: 12, 3: 7, 4: 3, 5: 90}
    mask = recoded(lobes, values)
    mask[0, 0, :9] = 52
    names = {values[code]: name for code, name in TOTALSEGMENTATOR.items()} | {52: "aorta", 53: "heart"}
    found = read_lobes(named(tmp_path / f"m{ending}", mask, scan, names), scan)
    assert np.array_equal(found.array, lobes) and found.recognised_by == "names"
    vessels = recoded(lobes, {1: 1, 4: 1, 3: 2, 5: 2})
    with pytest.raises(ScanError, match=r"lung_vessels, lung_trachea_bronchia"):
        read_lobes(named(tmp_path / f"v{ending}", vessels, scan, {1: "lung_vessels", 2: "lung_trachea_bronchia"}), scan)
    plain = recoded(lobes, order_of(CODE_MAPS["totalsegmentator-v2"]))
    assert read_lobes(save(plain, tmp_path / f"p{ending}"), scan).codes == "totalsegmentator-v2"
