"""``MODEL_CARD.md``: what a model is, how good it was, and two reporting checklists filled in where the run knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m2unet.report.checklists import CLAIM, TRIPOD_AI, Item
from m2unet.report.result import NOTICE, PHANTOM_WARNING

FOR_THE_USER = "*yours to fill in*"
NOT_KNOWN = "*not known from this run*"


def render_model_card(name: str, facts: Mapping[str, str], *, of_phantoms: bool) -> str:
    """The card in Markdown.

    Args:
        name: of the model.
        facts: what the run knows, by the names the items use; one that is absent is said to be unknown.
        of_phantoms: whether it was trained on phantoms.
    """
    lines = [f"# Model card: {name}", "", f"**{NOTICE}**", ""]
    lines += [f"**{PHANTOM_WARNING}**", ""] if of_phantoms else []
    lines += ["| what | |", "| --- | --- |"]
    shown = {item.fact for item in (*TRIPOD_AI, *CLAIM) if item.fact}
    order = [fact for fact in facts if fact in shown]
    lines += [f"| {fact} | {_cell(facts[fact])} |" for fact in order]
    for title, source, items in (
        ("TRIPOD+AI", "Collins et al. 2024, BMJ 385:e078378", TRIPOD_AI),
        ("CLAIM, 2024 update", "Tejani et al. 2024, Radiol Artif Intell 6:e240300", CLAIM),
    ):
        lines += ["", f"## {title}", "", f"Items in our own words; {source} has the text that counts.", ""]
        lines += checklist_lines(items, facts)
    return "\n".join(lines) + "\n"


def checklist_lines(items: Sequence[Item], facts: Mapping[str, str]) -> list[str]:
    """A table of items: answered by the run, or left to the user."""
    lines = ["| item | asks for | answer |", "| --- | --- | --- |"]
    for item in items:
        answer = FOR_THE_USER if item.fact is None else _cell(facts.get(item.fact, NOT_KNOWN))
        lines.append(f"| {item.number} | {item.asks} | {answer} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
