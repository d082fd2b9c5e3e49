"""STOIC2021: ``data/mha/<PatientID>.mha`` and ``metadata/reference.csv`` (PatientID, probCOVID, probSevere)."""

from __future__ import annotations

import re
from pathlib import Path

from m2unet.cohort.cells import Sex
from m2unet.cohort.importers.files import base_folder, read_table, scans_in, stem
from m2unet.cohort.importers.items import DataSet, Fault, Found, ImportOptions, Item

LABEL = (
    "STOIC's probSevere: death or intubation within a month of the scan, of patients with a positive RT-PCR; an "
    "outcome, not the clinical grade at the time of the scan"
)
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
_SEX: dict[str, Sex] = {"M": "M", "F": "F", "O": "O"}


def find(root: Path, options: ImportOptions) -> Found:
    """Scans of the table whose file is there. Patients without a positive RT-PCR get no severity.

    Raises:
        ManifestError: if the folder or the table has another layout.
    """
    base = base_folder(root, "data/mha", "metadata/reference.csv")
    rows = read_table(base / "metadata" / "reference.csv", ("PatientID", "probCOVID", "probSevere"))
    files = {stem(path): path for path in scans_in(base / "data" / "mha")}
    items, faults = [], []
    seen: set[str] = set()
    for row in rows:
        name = row["patientid"]
        covid, severe = (_binary(row.get(column, "")) for column in ("probcovid", "probsevere"))
        if name in seen:
            faults.append(Fault(name, "it occurs twice in reference.csv; the first row is taken"))
        elif name not in files:
            faults.append(Fault(name, "its file data/mha/<PatientID>.mha is missing"))
        elif covid is None or severe is None:
            faults.append(Fault(name, "probCOVID and probSevere are not both 0 or 1 in reference.csv"))
        else:
            items.append(_item(name, files[name], severe if covid else None))
        seen.add(name)
    faults += [Fault(name, "it is not in reference.csv") for name in sorted(set(files) - seen)]
    return Found(tuple(items), tuple(faults), LABEL)


def _item(name: str, path: Path, severity: int | None) -> Item:
    age, sex, remarks = header_facts(path)
    if severity is None:
        remarks = (*remarks, "no positive RT-PCR: imported without a severity")
    return Item(name, name, path, severity=severity, site="STOIC", age=age, sex=sex, remarks=remarks)


def header_facts(path: Path) -> tuple[float | None, Sex | None, tuple[str, ...]]:
    """Age in years and sex from the header, and remarks about what could not be had."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None, None, ()  # reading the scan will say what is wrong with it
    held = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    age, sex = years(held.get("PatientAge", "")), _SEX.get(held.get("PatientSex", "").upper())
    lacking = [name for name, value in (("age", age), ("sex", sex)) if value is None]
    return age, sex, tuple(f"no {name} in its header" for name in lacking)


def years(text: str) -> float | None:
    """A DICOM age such as ``035Y`` or ``006M`` in years, None if it is none."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text.strip().upper())
    return int(match[1]) / _PER_YEAR[match[2]] if match else None


def _binary(text: str) -> int | None:
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(text)


DATA_SET = DataSet("stoic", "STOIC2021 training set", find)
