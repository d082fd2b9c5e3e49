"""No page that the project writes or publishes loads anything from a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import m2unet
from tests.report.pages import read_page

SOURCE = Path(m2unet.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(path for path in SOURCE.rglob("templates/*") if path.is_file())
PAGES = [path for path in TEMPLATES if "<html" in path.read_text(encoding="utf-8")]
LOADED = re.compile(r"""(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.\w+|@import|url\((?!["']?data:)""")
LINKS_IN_COMMENTS = {"en.wikipedia.org", "github.com", "webglfundamentals.org", "stackoverflow.com"} | {
    "math.stackexchange.com",
    "gamedev.stackexchange.com",
    "bgolus.medium.com",
    "www.aclockworkberry.com",
}
"""Hosts that the viewer's library names where it explains itself; a new one is looked at before it is added."""


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_our_templates_name_no_host(path: Path) -> None:
    assert not LOADED.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_page_forbids_what_it_does_not_name(path: Path) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', path.read_text(encoding="utf-8"))
    assert policy and policy[1].startswith("default-src 'none';")
    allowed = {word for directive in policy[1].split(";") for word in directive.split()[1:]}
    assert allowed <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:", "file:"}


def test_all_pages_are_looked_at() -> None:
    names = {path.name.split(".")[0] for path in PAGES}
    assert names == {"report", "cohort", "viewer", "followup", "reproduction"}


def test_the_viewers_library_loads_nothing_of_its_own_accord() -> None:
    text = (SOURCE / "report" / "assets" / "niivue.umd.js").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://([\w.-]+)", text)) <= LINKS_IN_COMMENTS | {"www.w3.org"}


def test_the_documentation_loads_nothing() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False  # Material asks Google for Roboto otherwise
    assert not {"extra_css", "extra_javascript", "extra"} & set(settings)
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"!\[[^\]]*\]\((?:https?:)?//", text), path.name
        assert not re.findall(r"<(?:img|script|iframe|link|video)\b", text), path.name
        assert "```mermaid" not in text, path.name  # Material fetches Mermaid from unpkg.com
    for path in (ROOT / "docs").rglob("*.html"):
        references = read_page(path.read_text(encoding="utf-8")).references
        assert references and not any(re.match(r"(?!data:)[a-z]+:|//", reference) for reference in references)
