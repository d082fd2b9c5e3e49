"""Lobe masks: on the image's grid whatever the axis order, in our codes whatever the tool, or refused."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from m2unet.anatomy import CODE_MAPS, CodeSystem
from m2unet.cohort.lobe_codes import recode
from m2unet.cohort.masks import NoLobesError, read_lobe_mask, read_lobes, read_mask
from m2unet.ct.read import read_raw
from m2unet.ct.volume import Volume, from_source
from m2unet.errors import ScanError
from tests.cohort.mask_files.samples import lobes_and_volume, lungs, order_of, recoded, save


def volume(shape: tuple[int, int, int] = (4, 6, 5)) -> Volume:
    return from_source(np.zeros(shape, dtype=np.int16), (2.5, 0.7, 0.8), (-10.0, 20.0, -300.0))


def image(array: NDArray[np.generic], like: Volume) -> SimpleITK.Image:
    result = SimpleITK.GetImageFromArray(array)
    result.SetSpacing(like.spacing_mm[::-1])
    result.SetOrigin(like.origin_mm)
    return result


@pytest.fixture
def codes() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 7, (4, 6, 5)).astype(np.uint8)


@pytest.fixture(scope="module")
def sample() -> tuple[NDArray[np.uint8], Volume]:
    return lobes_and_volume()


# --- the grid and the values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR", "SLA"])
def test_a_mask_in_another_axis_order_lands_on_the_image(
    tmp_path: Path, codes: NDArray[np.uint8], suffix: str, order: str
) -> None:
    path = tmp_path / f"mask{suffix}"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image(codes, volume()), order), str(path))
    assert np.array_equal(read_mask(path, volume()), codes)


def test_nibabel_agrees_on_where_the_mask_lies(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # nibabel's world is RAS, ours LPS
    nibabel.save(nibabel.Nifti1Image(codes.T.astype(np.float32), flip @ volume().affine), tmp_path / "m.nii")
    assert np.array_equal(read_mask(tmp_path / "m.nii", volume()), codes)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda i: i.SetSpacing((0.8, 0.7, 3.0)), r"spacing .*\(3, 0\.7, 0\.8\).*\(2\.5, 0\.7, 0\.8\)"),
        (lambda i: i.SetOrigin((-10.0, 20.0, -295.0)), r"origin .*-295.*-300"),
        (lambda i: i.SetDirection((0.995, -0.0998, 0, 0.0998, 0.995, 0, 0, 0, 1)), "direction"),
    ],
)
def test_another_grid_is_refused(tmp_path: Path, codes: NDArray[np.uint8], change: object, said: str) -> None:
    mask = image(codes, volume())
    change(mask)  # type: ignore[operator]
    SimpleITK.WriteImage(mask, str(tmp_path / "m.nrrd"))
    for read in (read_mask, read_lobe_mask):
        with pytest.raises(ScanError, match=said):
            read(tmp_path / "m.nrrd", volume())


def test_another_shape_is_refused(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    SimpleITK.WriteImage(image(codes[:3], volume()), str(tmp_path / "m.nrrd"))
    with pytest.raises(ScanError, match=r"\(3, 6, 5\).*\(4, 6, 5\)"):
        read_lobe_mask(tmp_path / "m.nrrd", volume())


def test_rounding_in_the_header_is_forgiven(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    mask = image(codes, volume())
    mask.SetOrigin((-10.003, 20.002, -299.999))
    SimpleITK.WriteImage(mask, str(tmp_path / "m.nrrd"))
    assert np.array_equal(read_mask(tmp_path / "m.nrrd", volume()), codes)


def test_files_that_are_no_mask(tmp_path: Path, codes: NDArray[np.uint8]) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    SimpleITK.WriteImage(image(codes * 0.3, volume()), str(tmp_path / "soft.nrrd"))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(codes[0]), str(tmp_path / "flat.nrrd"))
    for name, said in (
        ("gone.nii", "not-found"),
        ("bad.nii.gz", "read"),
        ("soft.nrrd", "fractions"),
        ("flat.nrrd", "cannot be read|not one 3-D mask|axes"),
    ):
        with pytest.raises(ScanError, match=said):
            read_lobe_mask(tmp_path / name, volume())


@pytest.mark.parametrize("noise", [1e-7, 1e-4, 5e-3])
def test_float_masks_with_rounding_noise_are_read(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], noise: float
) -> None:
    lobes, scan = sample
    rough = lobes + np.random.default_rng(1).uniform(-noise, noise, lobes.shape)
    save(rough.astype(np.float32), tmp_path / "m.nii.gz")
    assert np.array_equal(read_lobe_mask(tmp_path / "m.nii.gz", scan), lobes)


def test_probabilities_and_numbers_that_are_none_are_refused(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]
) -> None:
    lobes, scan = sample
    soft = (lobes > 0) * np.float32(0.9) + (lobes == 2) * np.float32(0.05)
    save(soft, tmp_path / "p.nii.gz")
    holes = lobes.astype(np.float32)
    holes[0, 0, 0] = np.nan
    save(holes, tmp_path / "nan.nii.gz")
    for name in ("p.nii.gz", "nan.nii.gz"):
        with pytest.raises(ScanError, match="fractions"):
            read_lobe_mask(tmp_path / name, scan)
    save(np.where(lobes > 0, 70000, 0).astype(np.int32), tmp_path / "large.nii.gz")
    with pytest.raises(ScanError, match="70000"):
        read_lobe_mask(tmp_path / "large.nii.gz", scan)


# --- codes -----------------------------------------------------------------------------------------------------------


def values(*numbers: int) -> NDArray[np.int16]:
    return np.array(numbers, dtype=np.int16)


@pytest.mark.parametrize(
    "system, theirs, ours",
    [
        ("m2unet", [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
        ("lungmask", [0, 1, 2, 3, 4, 5], [0, 4, 5, 1, 2, 3]),
        ("totalsegmentator-v2", [0, 1, 10, 11, 12, 13, 14, 15, 117], [0, 0, 4, 5, 1, 2, 3, 0, 0]),
        ("totalsegmentator-v1", [12, 13, 14, 15, 16, 17], [0, 4, 5, 1, 2, 3]),
        ("lola11", [10, 11, 20, 21, 22], [4, 5, 1, 2, 3]),
        ("luna16", [0, 1, 4, 5, 6, 7, 8, 512, 513, 516, 520], [0, 0, 1, 2, 3, 4, 5, 6, 6, 6, 6]),
    ],
)
def test_other_tools_codes(system: str, theirs: list[int], ours: list[int]) -> None:
    result = recode(values(*theirs), system, name="m")  # type: ignore[arg-type]
    assert result.dtype == np.uint8 and result.tolist() == ours


def test_unknown_codes_are_named_with_the_tool_they_fit() -> None:
    with pytest.raises(ScanError) as caught:
        recode(values(0, 10, 11, 20, 21, 22), "m2unet", name="m.nii")
    assert caught.value.found == "10, 11, 20, 21, 22"
    assert "lobe_codes='lola11'" in str(caught.value)
    with pytest.raises(ScanError, match="totalsegmentator-v2"):
        recode(values(0, 10, 11, 12, 13, 14, 99), "m2unet", name="m.nii")
    with pytest.raises(ScanError, match="recode the mask"):
        recode(values(0, -3), "m2unet", name="m.nii")
    with pytest.raises(ScanError, match="6"):
        recode(values(6), "lungmask", name="m.nii")
    with pytest.raises(ScanError, match="one of m2unet, lungmask"):
        recode(values(0), "other", name="m.nii")  # type: ignore[arg-type]


@pytest.mark.parametrize("system", [*CODE_MAPS])
def test_conventions_are_recognised_by_values_and_places(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], system: CodeSystem
) -> None:
    lobes, scan = sample
    mask = recoded(lobes, order_of(CODE_MAPS[system]))
    SimpleITK.WriteImage(
        SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(save(mask, tmp_path / "a.nii.gz"))), "RAS"),
        str(tmp_path / "m.nii.gz"),
    )
    found = read_lobes(tmp_path / "m.nii.gz", scan)
    assert (found.codes, found.recognised_by) == (system, "values and places") and not found.findings
    assert np.array_equal(found.array, lobes)
    assert set(found.labels.values()) == {"RUL", "RML", "RLL", "LUL", "LLL"} and system in found.summary()
    stated = read_lobes(tmp_path / "m.nii.gz", scan, system)
    assert stated.recognised_by == "as stated" and np.array_equal(stated.array, lobes)


@pytest.mark.parametrize("system, organs", [("totalsegmentator-v1", 104), ("totalsegmentator-v2", 117)])
def test_a_label_map_of_the_whole_body_is_recognised(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], system: CodeSystem, organs: int
) -> None:
    lobes, scan = sample
    mask = recoded(lobes, order_of(CODE_MAPS[system]))
    free = np.flatnonzero(mask == 0)
    others = [organ for organ in range(1, organs + 1) if organ not in CODE_MAPS[system]]
    for organ, at in zip(others, np.array_split(free[: 40 * len(others)], len(others)), strict=True):
        mask.reshape(-1)[at] = organ
    found = read_lobes(save(mask, tmp_path / "m.nii.gz"), scan)
    assert found.codes == system and np.array_equal(found.array, lobes)
    only_lower = np.where(np.isin(found.array, (1, 2, 4)), np.int16(0), mask)  # an abdomen: two lobes and many organs
    found = read_lobes(save(only_lower, tmp_path / "low.nii.gz"), scan)
    assert found.codes == system and set(np.unique(found.array)) == {0, 3, 5}
    assert [finding.code for finding in found.findings] == ["mask-missing"]


def test_the_airway_and_a_missing_lobe(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    mask = np.where(lobes == 2, np.uint8(0), lobes)
    mask[8:, 30:34, 40:44] = 6
    found = read_lobes(save(mask, tmp_path / "m.nii.gz"), scan)
    assert np.array_equal(found.array, mask) and found.labels["6"] == "airway"
    (finding,) = found.findings
    assert (finding.code, finding.level) == ("mask-missing", "warning") and "RML" in finding.found


@pytest.mark.parametrize("side", [(1, 2, 3), (4, 5)])
def test_the_lobes_of_one_lung(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], side: tuple[int, ...]) -> None:
    lobes, scan = sample
    mask = np.where(np.isin(lobes, side), lobes, np.uint8(0))
    found = read_lobes(save(mask, tmp_path / "m.nii.gz"), scan)
    assert np.array_equal(found.array, mask) and [finding.code for finding in found.findings] == ["mask-missing"]
    three_kinds = np.where((lobes > 0) & (lobes < 4), np.random.default_rng(2).integers(0, 4, lobes.shape), 0)
    with pytest.raises(ScanError, match="is not taken"):
        read_lobes(save(three_kinds.astype(np.uint8), tmp_path / "lesions.nii.gz"), scan)


# --- what is no mask of lobes ----------------------------------------------------------------------------------------


def infection(lobes: NDArray[np.uint8], label: int = 1) -> NDArray[np.uint8]:
    """Scattered opacities in both lungs, others for each label."""
    spots = np.random.default_rng(label).random(lobes.shape) < 0.2
    return ((lobes > 0) & spots).astype(np.uint8) * np.uint8(label)


MISTAKES = {
    "lungmask R231": (lungs, "R231"),
    "lungs the other way round": (lambda m: lungs(m, 2, 1), "both lungs"),
    "LUNA16's lungs and trachea": (lambda m: lungs(m, 4, 3), "both lungs"),
    "lungs with infection": (lambda m: np.maximum(lungs(m, 2, 1), infection(m, 3)), "both lungs and a third"),
    "binary lungs": (lambda m: (m > 0).astype(np.uint8), "one label for both lungs"),
    "binary lungs of 255": (lambda m: (m > 0).astype(np.uint8) * 255, "one label for both lungs"),
    "one lung": (lambda m: (lungs(m) == 1).astype(np.uint8), "one label alone"),
    "one organ": (lambda m: (m == 4).astype(np.uint8), "one label alone"),
    "infection": (infection, "one label for both lungs"),
    "two kinds of opacity": (lambda m: np.maximum(infection(m), infection(m, 2)), "every label lies in both"),
    "opacities of one lung": (lambda m: np.where(m == 1, 1, np.where(m == 3, 2, 0)).astype(np.uint8), "too few labels"),
    "unknown order": (lambda m: recoded(m, {1: 5, 2: 4, 3: 3, 4: 1, 5: 2}), "1 LUL, 2 LLL, 3 RLL, 4 RML, 5 RUL"),
    "unknown values": (lambda m: recoded(m, {1: 41, 2: 42, 3: 43, 4: 44, 5: 45}), "by their places|no known tool"),
    "a mirrored patient": (lambda m: m[:, :, ::-1].copy(), "left and right exchanged.*dextrocardia"),
    "front to back": (lambda m: m[:, ::-1].copy(), "front and back exchanged"),
    "upside down": (lambda m: m[::-1].copy(), "head and feet exchanged"),
    "negative": (lambda m: recoded(m, {code: -code for code in range(1, 6)}), "-5: .* ml"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_mask_of_lobes_is_refused(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], name: str
) -> None:
    lobes, scan = sample
    make, said = MISTAKES[name]
    path = save(make(lobes), tmp_path / "mask.nii.gz")
    with pytest.raises(ScanError, match=said) as caught:
        read_lobes(path, scan)
    assert " ml, " in (caught.value.found or ""), "labels with their volumes and sides"
    assert "lungmask" in (caught.value.expected or "") and caught.value.mend


def test_labels_are_told_with_volume_and_side(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    right, left = (np.isin(lobes, part).sum() * scan.voxel_ml for part in ((1, 2, 3), (4, 5)))
    with pytest.raises(ScanError) as caught:
        read_lobes(save(lungs(lobes), tmp_path / "mask.nii.gz"), scan)
    assert caught.value.found == f"1: {right:.0f} ml, right; 2: {left:.0f} ml, left"


def test_every_wrong_order_of_five_lobes_is_refused(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    """The plain chest's middle lobe is as large as the lower one, and its upper one as large as both."""
    lobes, scan = sample
    known = {tuple(order_of(CODE_MAPS[tool])[code] for code in range(1, 6)) for tool in ("m2unet", "lungmask")}
    taken = set()
    for order in permutations(range(1, 6)):
        path = save(recoded(lobes, dict(zip(range(1, 6), order, strict=True))), tmp_path / "m.mha")
        try:
            assert np.array_equal(read_lobe_mask(path, scan), lobes)
            taken.add(order)
        except ScanError:
            continue
    assert taken == known


@pytest.mark.parametrize("codes", ["auto", "m2unet", "lungmask"])
def test_an_empty_mask_is_refused(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume], codes: CodeSystem) -> None:
    lobes, scan = sample
    with pytest.raises(NoLobesError, match="is empty"):
        read_lobes(save(np.zeros_like(lobes), tmp_path / "m.nii.gz"), scan, codes)
    organs = np.where(lobes > 0, np.int16(52), np.int16(0))
    with pytest.raises(NoLobesError, match="no lobe"):
        read_lobes(save(organs, tmp_path / "o.nii.gz"), scan, "totalsegmentator-v2")


def test_a_stated_convention_is_taken_but_never_against_the_places(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]
) -> None:
    lobes, scan = sample
    single = save(np.where(lobes == 4, lobes, np.uint8(0)), tmp_path / "single.nii.gz")
    found = read_lobes(single, scan, "m2unet")
    assert set(np.unique(found.array)) == {0, 4} and found.findings[0].code == "mask-missing"
    theirs = save(recoded(lobes, order_of(CODE_MAPS["lungmask"])), tmp_path / "theirs.nii.gz")
    with pytest.raises(ScanError, match="--lobe-codes lungmask"):
        read_lobes(theirs, scan, "m2unet")
    with pytest.raises(ScanError, match="RUL and RML would lie in different lungs"):
        read_lobes(save(lungs(lobes), tmp_path / "r231.nii.gz"), scan, "m2unet")
    with pytest.raises(ScanError, match=r"would have|both lungs"):
        read_lobes(save((lobes > 0).astype(np.uint8), tmp_path / "binary.nii.gz"), scan, "m2unet")


def test_a_mirrored_patient_can_be_accepted_by_name(tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]) -> None:
    lobes, scan = sample
    mirrored = save(lobes[:, :, ::-1].copy(), tmp_path / "m.nii.gz")
    with pytest.raises(ScanError, match="mask-sides"):
        read_lobes(mirrored, scan, "m2unet")
    found = read_lobes(mirrored, scan, "m2unet", accept=["mask-sides"])
    assert np.array_equal(found.array, lobes[:, :, ::-1])
    assert {finding.code for finding in found.findings} == {"mask-sides"}
    assert all(finding.level == "warning" for finding in found.findings)
    upside_down = save(lobes[::-1].copy(), tmp_path / "u.nii.gz")
    with pytest.raises(ScanError, match=r"order|below"):
        read_lobes(upside_down, scan, "m2unet", accept=["mask-sides"])


def test_undecided_pixels_pass_only_where_they_are_asked_for(
    tmp_path: Path, sample: tuple[NDArray[np.uint8], Volume]
) -> None:
    lobes, scan = sample
    mask = lobes.copy()
    mask[:, :20] = 255
    path = save(mask, tmp_path / "m.nii.gz")
    assert np.array_equal(read_lobe_mask(path, scan, undecided=True), mask)
    with pytest.raises(ScanError, match="255"):
        read_lobe_mask(path, scan)
    only = save(np.where(lobes > 0, np.uint8(255), np.uint8(0)), tmp_path / "only.nii.gz")
    with pytest.raises(NoLobesError):
        read_lobe_mask(only, scan, undecided=True)


# --- real masks ------------------------------------------------------------------------------------------------------


def like(path: Path) -> Volume:
    """A scan of soft tissue on the grid of a mask."""
    raw = read_raw(path)
    return from_source(np.zeros(raw.array.shape, np.int16), raw.spacing_mm, raw.origin_mm, raw.direction)


@pytest.mark.real
def test_every_real_lobe_map_is_recognised(real_data: Path) -> None:
    paths = sorted((real_data / "lobe-maps-small").glob("*.nii.gz"))
    assert len(paths) == 51
    for path in paths:
        found = read_lobes(path, like(path))
        assert found.codes == "m2unet" and np.array_equal(found.array, read_mask(path, like(path))), path.name
        assert not [finding for finding in found.findings if finding.code != "mask-unusual"]


@pytest.mark.real
def test_published_lobe_maps_are_recognised(real_data: Path) -> None:
    for path in sorted((real_data / "lobe-maps").glob("*.nrrd")):
        raw = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        scan = like(path)
        found = read_lobes(path, scan)
        assert found.codes == "luna16"
        mask = scan.to_source(found.array)
        assert np.array_equal(mask == 6, raw >> 8 == 2)
        for theirs, ours in ((4, 1), (5, 2), (6, 3), (7, 4), (8, 5)):
            assert np.array_equal(mask == ours, raw == theirs)


@pytest.mark.real
def test_two_slices_drawn_by_hand_are_recognised(real_data: Path) -> None:
    path = real_data / "cip" / "crop_lobes_2slices_1to5.nii.gz"
    found = read_lobes(path, like(path))
    assert found.codes == "m2unet" and not found.findings
