"""The import direction of the rooms, read from the code: a row imports only rows above it."""

from __future__ import annotations

import ast
from pathlib import Path

import m2unet

ROWS = (
    ("anatomy", "errors"),
    ("config", "files", "processes"),
    ("ct", "models"),
    ("cohort", "quantify"),
    ("phantom", "bags"),
    ("training", "inference", "evaluation"),
    ("handcrafted", "export"),
    ("report", "paper"),
    ("workflows",),
    ("cli",),
)
ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}
SOURCE = Path(m2unet.__file__).parent


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms named by any import of the file, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "m2unet" else [f"m2unet.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("m2unet.")}
    return {room for room in found if room in ROW_OF}


def test_every_room_has_a_row() -> None:
    rooms = {room_of(path) for path in SOURCE.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms <= set(ROW_OF), f"no row for {rooms - set(ROW_OF)}"


def test_imports_run_one_way() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue
        for other in imported_rooms(path) - {room}:
            if ROW_OF[other] >= ROW_OF[room]:
                wrong.append(f"{path.relative_to(SOURCE)} imports {other}")
    assert not wrong, "\n".join(sorted(wrong))


def test_relative_imports_are_not_used() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_models_never_see_files() -> None:
    """Models take tensors; only their weights module touches the disk."""
    for path in (SOURCE / "models").glob("*.py"):
        if path.name in ("weights.py", "table.py"):
            continue
        text = path.read_text(encoding="utf-8")
        assert "pathlib" not in text and "open(" not in text, path
