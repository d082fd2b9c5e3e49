"""``report.html``: one self-contained file for a reader, opened or printed without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from m2unet.anatomy import LOBE_BY_ABBREVIATION
from m2unet.report.identity import Identity
from m2unet.report.reliability import reliability_plot
from m2unet.report.result import ResultDocument

if TYPE_CHECKING:
    from jinja2 import Environment

_NARROW_SPACE = "\u202f"


def render_report(
    document: ResultDocument,
    montage: bytes | None = None,
    identity: Identity | None = None,
    *,
    evidence: bytes | None = None,
) -> str:
    """The report of one scan.

    Args:
        document: what was found.
        montage: PNG to embed, or None.
        identity: who the patient is, only if that was asked for; the case's name is the pseudonym otherwise.
        evidence: PNG of the strongest patches to embed, or None.

    Returns:
        An HTML page that fetches nothing.
    """
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            document=document,
            lobes=LOBE_BY_ABBREVIATION,
            patient=_patient(document.case, identity),
            scan_line=_scan_line(document),
            montage=None if montage is None else png_uri(montage),
            montage_text=_montage_text(document),
            evidence=None if evidence is None else png_uri(evidence),
            reliability=reliability_plot(document.severity),
            bands=_bands(document.settings.get("opacity") or {}),
            settings=_settings(document.settings),
        )
    )


@cache
def environment() -> Environment:
    """The templates of this room: everything is escaped, and an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("m2unet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["figure"] = figure
    return found


def figure(number: float, digits: int = 0) -> str:
    """A number with so many decimals, thousands set apart, and a true minus sign."""
    text = f"{number:,.{digits}f}".replace(",", _NARROW_SPACE)
    return text.replace("-", "" if float(number.__format__(f".{digits}f")) == 0 else "−")


def png_uri(png: bytes) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _patient(case: str, identity: Identity | None) -> list[tuple[str, str]]:
    if identity is None:
        return [("Case", case)]
    return [("Case", case), *((term, text or "not in the headers") for term, text in identity.lines())]


def _scan_line(document: ResultDocument) -> str:
    z, y, x = document.scan.shape
    dz, dy, dx = document.scan.spacing_mm
    which = f"; {document.scan.digest[:8]}" if document.scan.digest else ""
    return f"{z} slices of {x} × {y}; {dx:.2f} × {dy:.2f} × {dz:.2f} mm; {document.scan.format.upper()}{which}"


def _montage_text(document: ResultDocument) -> str:
    """What the montage shows, for who cannot see it."""
    parts = ["Six axial slices from head to feet, one coronal and one sagittal slice of the chest in the lung window"]
    named = [part for part in document.lobes.volumes if part.region in LOBE_BY_ABBREVIATION]
    if named:
        parts.append("the lobes are outlined")
    known = [f"{part.region} {part.opacity_percent:.0f} %" for part in named if part.opacity_percent is not None]
    if known:
        parts.append(f"opacities are tinted: {', '.join(known)}")
    return "; ".join(parts) + "."


def _bands(cuts: Mapping[str, Any]) -> str:
    names = ("emphysema_below_hu", "ground_glass_from_hu", "consolidation_from_hu")
    if not all(name in cuts for name in names):
        return "cuts as configured"
    low, middle, high = (figure(cuts[name]) for name in names)
    return f"emphysema below {low}, aerated up to {middle}, ground glass up to {high}, consolidation from {high} HU on"


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings in words: a line for each, a group of them on one line."""
    lines: list[tuple[str, str]] = []
    for name, value in settings.items():
        words = name.replace("_", " ")
        if isinstance(value, Mapping):
            text = ", ".join(f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items())
        else:
            text = _plain(value)
        lines.append((f"Settings: {words}", text))
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
