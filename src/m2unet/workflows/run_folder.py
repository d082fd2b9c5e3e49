"""A run folder: everything that made a model, and everything the model made."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from m2unet import __version__
from m2unet.config import Config, dump_config, load_config
from m2unet.errors import RunError
from m2unet.files import write_json, write_text

LIBRARIES = ("numpy", "torch", "monai", "SimpleITK", "scikit-learn", "pydicom")


@dataclass(frozen=True)
class RunFolder:
    """Names the files of a run; makes nothing until told to.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The whole configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def split_file(self) -> Path:
        """Which scans trained, validated and tested it, JSON."""
        return self.path / "split.json"

    @property
    def model(self) -> Path:
        """Folder of the trained model."""
        return self.path / "model"

    @property
    def predictions(self) -> Path:
        """Predictions of the test scans, one CSV row a scan."""
        return self.path / "predictions.csv"

    @property
    def summary(self) -> Path:
        """Figures of the test scans, JSON."""
        return self.path / "summary.json"

    @property
    def finished(self) -> bool:
        """Whether training ended and its model was written."""
        return (self.model / "model.json").is_file()

    def start(self, config: Config, split: Any, *, resume: bool) -> None:
        """Make the folder, or check that it belongs to this configuration and split.

        Args:
            config: the run's configuration.
            split: JSON-ready description of which scans are used for what.
            resume: go on with an existing run.

        Raises:
            RunError: if the folder holds a run and ``resume`` is False, or a run with another configuration or split.
        """
        if self.config_file.is_file():
            if not resume:
                raise RunError(
                    "The folder already holds a run",
                    found=self.path,
                    mend="go on with --resume, or choose another folder",
                )
            self._check_same(config, split)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.split_file, split)
        write_json(self.path / "versions.json", versions())
        write_text(self.config_file, dump_config(config))

    def _check_same(self, config: Config, split: Any) -> None:
        known = load_config(self.config_file)
        if known != config:
            raise RunError(
                "The run was started with another configuration",
                found=", ".join(_differences(known.model_dump(), config.model_dump())),
                mend="give the same settings, or choose another folder",
            )
        if read_json(self.split_file) != json.loads(json.dumps(split)):
            raise RunError("The run was started with other scans", found=self.split_file, mend="choose another folder")


def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries a result depends on, as far as they are installed."""
    found = {"m2unet": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):  # a machine that only trains may do without some
            found[name] = metadata.version(name)
    return found


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        RunError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError("A file of the run cannot be read", found=f"{path.name}: {type(error).__name__}") from None


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in old.items():
        if isinstance(value, dict):
            found += _differences(value, new[key], f"{prefix}{key}.")
        elif value != new[key]:
            found.append(f"{prefix}{key}: {value} before, {new[key]} now")
    return found
