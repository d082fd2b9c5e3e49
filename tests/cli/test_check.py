"""``m2unet check``: exit codes, tables, JSON."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

from m2unet.cli.check import check
from m2unet.errors import ConfigError
from tests.ct.samples import chest, write_series

app = typer.Typer()
app.command("check")(check)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_series(tmp_path / "good", chest())
    return tmp_path / "good"


@pytest.fixture
def short(tmp_path: Path) -> Path:
    image = sitk.GetImageFromArray(chest()[6:13])
    image.SetSpacing((4.0, 4.0, 10.0))
    sitk.WriteImage(image, str(tmp_path / "short.mha"))
    return tmp_path / "short.mha"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(chest()[0].clip(0, 255).astype("uint8")), str(tmp_path / "bad.png"))
    return tmp_path / "bad.png"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_exit_codes(good: Path, short: Path, bad: Path) -> None:
    assert run(good)[0] == 0
    assert run(good, short)[0] == 0
    assert run(good, bad)[0] == 1
    assert run(bad)[0] == 2
    assert run(bad, bad.with_name("nothing"))[0] == 2


def test_tables(good: Path, short: Path, bad: Path) -> None:
    _, said = run(good, short, bad)
    assert "good: can be used" in said and "dicom, 20 x 96 x 112 voxels of 10 x 4 x 4 mm" in said
    assert "bad.png: cannot be used" in said
    assert "warning" in said and "too-few-slices" in said and "picture" in said
    assert "secret" not in said


def test_json(good: Path, short: Path, bad: Path) -> None:
    code, said = run(good, short, bad, "--json")
    first, second, third = json.loads(said)
    assert code == 1
    assert first["ok"] and first["shape"] == [20, 96, 112] and first["lungs_ml"] > 1000
    assert {f["code"] for f in second["findings"]} == {"too-few-slices", "lungs-cut-off"}
    assert not third["ok"] and third["findings"][0]["level"] == "error" and third["findings"][0]["mend"]


def test_a_series_can_be_asked_for(tmp_path: Path) -> None:
    for number in ("1", "2"):
        write_series(tmp_path / number, chest()[: 12 + int(number)], series=number)
    digest = sha256(b"1.2.3.4.1").hexdigest()[:8]
    code, said = run("--json", "--series", digest, tmp_path)
    assert code == 0 and json.loads(said)[0]["shape"][0] == 13
    code, said = run("--series", "ffffffff", tmp_path)
    assert code == 2 and digest in said
    code, said = run("--series", digest, tmp_path / "1", tmp_path / "2")
    assert code == 2 and "--series" in said


def test_an_error_that_a_user_knows_better(tmp_path: Path) -> None:
    array = chest()
    array[array == chest(noise=0)] = 40
    array[:, 10:80, 15:97][array[:, 10:80, 15:97] < -300] = 40  # a trunk without air
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((4.0, 4.0, 10.0))
    sitk.WriteImage(image, str(tmp_path / "solid.mha"))
    code, said = run(tmp_path / "solid.mha")
    assert code == 2 and "lungs-absent" in said and "--accept" in said
    code, said = run(tmp_path / "solid.mha", "--accept", "lungs-absent", "--json")
    assert code == 0 and [(f["code"], f["level"]) for f in json.loads(said)[0]["findings"]] == [
        ("lungs-absent", "warning")
    ]
    result = CliRunner().invoke(app, [str(tmp_path / "solid.mha"), "--accept", "eight-bit"])
    assert isinstance(result.exception, ConfigError) and "lungs-absent" in str(result.exception)
