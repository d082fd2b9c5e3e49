"""Small fake trees in the exact layouts of the public data sets."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from tests.cohort.conftest import SPACING, chest, save

TOTALSEGMENTATOR = {
    1: "lung_upper_lobe_right",
    2: "lung_middle_lobe_right",
    3: "lung_lower_lobe_right",
    4: "lung_upper_lobe_left",
    5: "lung_lower_lobe_left",
}
META = "image_id;age;gender;institute;study_type;split;manufacturer;scanner_model;kvp;pathology;pathology_location\n"
LUNA_UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.100000000000000000000000000000"


def save_in(array: NDArray[np.generic], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(array, path)


def write_mha(path: Path, array: NDArray[np.generic], header: Mapping[str, str]) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    for key, value in header.items():
        image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path), True)


def stoic(root: Path) -> Path:
    """Five rows, of which one file is missing and one is a display picture."""
    for number, (age, sex) in {"13": ("035Y", "M"), "17": ("085Y", "F"), "21": ("055Y", "F")}.items():
        header = {"PatientAge": age, "PatientSex": sex}
        write_mha(root / f"data/mha/{number}.mha", chest(int(number))[0], header)
    write_mha(root / "data/mha/34.mha", np.clip(chest(1)[0] // 8 + 128, 0, 255).astype(np.uint8), {})
    rows = ["PatientID,probCOVID,probSevere", "13,1,1", "17,1,0", "21,0,0", "34,1,0", "99,1,1"]
    (root / "metadata").mkdir()
    (root / "metadata/reference.csv").write_text("\n".join(rows) + "\n")
    return root


def mosmed(root: Path, *, studies: int = 5) -> Path:
    """Studies of grades 0, 1, ... in turn; the second has a lesion mask; one mask has no study."""
    for number in range(studies):
        hu, lobes = chest(100 + number)
        name = f"study_{number:04d}"
        save_in(hu, root / f"studies/CT-{number % 5}/{name}.nii.gz")
        if number == 1:
            lesions = (lobes == 3).astype(np.uint8)
            save_in(lesions, root / f"masks/{name}_mask.nii.gz")
    save_in(np.zeros((2, 2, 2), np.uint8), root / "masks/study_0999_mask.nii.gz")
    return root


def totalsegmentator(root: Path, *, subjects: int = 2) -> Path:
    """Chests, then an abdomen without lobes (s0900), lung bases only (s0901), and one without a mask file (s0902)."""
    meta = [META]
    names = [f"s{number:04d}" for number in range(subjects)] + ["s0900", "s0901", "s0902"]
    for number, name in enumerate(names):
        hu, lobes = chest(200 + number)
        if name == "s0900":
            hu, lobes = np.where(hu < -500, 40, hu).astype(np.int16), lobes * 0
        if name == "s0901":
            lobes = np.where(np.isin(lobes, (3, 5)), lobes, 0)
        save_in(hu, root / name / "ct.nii.gz")
        for code, file in TOTALSEGMENTATOR.items():
            if name != "s0902" or code != 2:
                save_in((lobes == code).astype(np.uint8), root / name / "segmentations" / f"{file}.nii.gz")
        save_in((lobes == 9).astype(np.uint8), root / name / "segmentations/liver.nii.gz")
        meta.append(f"{name};{40 + number};{'mf'[number % 2]};A;ct thorax;train;siemens;;120;no_pathology;\n")
    (root / "meta.csv").write_text("".join(meta), encoding="utf-8-sig")
    return root


def luna16(root: Path) -> Path:
    """One annotated scan with stray codes, one annotation without its CT."""
    hu, lobes = chest(300)
    theirs = np.zeros(lobes.shape, np.uint16)
    for ours, code in ((1, 4), (2, 5), (3, 6), (4, 7), (5, 8)):
        theirs[lobes == ours] = code
    theirs[0, 0, :3], theirs[8, 40, 40] = (1, 513, 512), 516
    save_in(hu, root / f"subset0/{LUNA_UID}.mhd")
    save_in(theirs, root / f"annotations/{LUNA_UID}_LobeSegmentation.nrrd")
    save_in(theirs, root / "annotations/1.2.3_LobeSegmentation.nrrd")
    return root


def luna16_real(root: Path, lobe_maps: Path) -> Path:
    """A real lobe map as published, and a CT painted on its grid."""
    (root / "annotations").mkdir(parents=True)
    for path in sorted(lobe_maps.glob("*_LobeSegmentation.nrrd"))[:1]:
        shutil.copy(path, root / "annotations")
        theirs = SimpleITK.ReadImage(str(path))
        region = SimpleITK.GetArrayViewFromImage(theirs) & 255
        image = SimpleITK.GetImageFromArray(np.where(region >= 4, -850, 40).astype(np.int16))
        image.CopyInformation(theirs)
        (root / "subset3").mkdir(exist_ok=True)
        name = path.name.removesuffix("_LobeSegmentation.nrrd")
        SimpleITK.WriteImage(image, str(root / f"subset3/{name}.mhd"), True)
    return root


def covid_ct_seg(root: Path) -> Path:
    """A volume in HU, one cut to the lung window and scaled to 0-255 as published, one without a mask."""
    for number, (name, mask) in enumerate(
        (
            ("coronacases_001", "coronacases_001"),
            ("radiopaedia_10_85902_1", "radiopaedia_10_85902_1"),
            ("radiopaedia_10_85902_3", None),
        )
    ):
        hu, lobes = chest(400 + number)
        if name.startswith("radiopaedia"):
            hu = np.rint((np.clip(hu, -1250, 250) + 1250) / 1500 * 255).astype(np.uint8)
        save_in(hu, root / f"COVID-19-CT-Seg_20cases/{name}.nii.gz")
        if mask:
            save_in((lobes == 3).astype(np.uint8), root / f"Infection_Mask/{mask}.nii.gz")
        save_in(np.where(lobes > 3, 1, np.where(lobes > 0, 2, 0)).astype(np.uint8), root / f"Lung_Mask/{name}.nii.gz")
    return root


def mask_folder(root: Path) -> Path:
    """lungmask's lobes, its lungs by mistake, a scan without a mask."""
    theirs = np.array([0, 3, 4, 5, 1, 2], np.uint8)
    for name in ("a", "b", "c"):
        hu, lobes = chest(500 + ord(name))
        save_in(hu, root / f"images/{name}.nii.gz")
        if name == "a":
            save_in(theirs[lobes], root / "masks/a_lobes.nrrd")
        if name == "b":
            save_in(np.where(lobes > 3, 2, np.where(lobes > 0, 1, 0)).astype(np.uint8), root / "masks/b.nii.gz")
    return root
