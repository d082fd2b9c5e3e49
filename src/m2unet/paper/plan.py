"""Which trainings each table and figure rests on; a training that several need is done once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from m2unet.config import Config
from m2unet.errors import ConfigError
from m2unet.models.methods import METHODS

SEVERITY_COLUMNS = ("accuracy", "precision", "recall", "f1", "auc")
LOBE_COLUMNS = ("size_mib", "dsc", "sen", "ppv")
PAPER_BAGS = (50, 80, 100, 150, 200)
BAG_METHOD = "cls_only"
SLOWEST = ("unet", "unetpp")


@dataclass(frozen=True)
class Experiment:
    """One method with one bag size, cross-validated.

    Attributes:
        method: a name of :data:`m2unet.models.methods.METHODS`.
        bag_size: patches a bag, where it is not the preset's.
    """

    method: str
    bag_size: int | None = None

    @property
    def key(self) -> str:
        """Names its folder."""
        return self.method if self.bag_size is None else f"{self.method}-bag{self.bag_size}"

    def settings(self) -> list[str]:
        """Overrides of the preset. Networks see patches alone, as in the paper, but the one that adds position."""
        found = ["model.position=false", *METHODS[self.method].settings]
        return found if self.bag_size is None else [*found, f"bag.size={self.bag_size}"]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        key: names the paper's row in ``published.yaml``.
        label: what stands in the column ``method``.
        experiment: where our figures come from.
    """

    key: str
    label: str
    experiment: Experiment


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: ``table2`` to ``table7``.
        columns: its figures.
        rows: in the paper's order, ours last.
        baseline: key of the row the others are tested against.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: str

    def experiments(self) -> tuple[Experiment, ...]:
        """What it rests on."""
        return tuple(dict.fromkeys(row.experiment for row in self.rows))


_METHOD_TABLES = MappingProxyType(
    {
        "table2": (
            SEVERITY_COLUMNS,
            ("resnet50_max", "gated_mil", "tang", "yang", "cls_only", "m2unet", "m2unet_position"),
            "m2unet",
        ),
        "table3": (LOBE_COLUMNS, ("unet", "unetpp", "seg_only", "m2unet", "m2unet_position"), "m2unet"),
        "table4": (SEVERITY_COLUMNS, ("resnet50_max", "gated_mil", "cls_only"), "cls_only"),
        "table5": (SEVERITY_COLUMNS, ("cls_only", "m2unet"), "m2unet"),
        "table7": (LOBE_COLUMNS, ("seg_only", "m2unet"), "m2unet"),
    }
)
FIGURE_METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "figure2": (),
        "figure5": ("unet", "unetpp", "m2unet"),
        "figure6": ("resnet50_max", "gated_mil", "cls_only", "m2unet"),
    }
)
TABLE_NAMES = tuple(f"table{number}" for number in range(1, 8))
NAMES = (*TABLE_NAMES, *FIGURE_METHODS)


def bag_sizes(config: Config) -> tuple[int, ...]:
    """Table VI's bag sizes for a preset: the paper's, in proportion to the preset's own bag instead of 200."""
    return tuple(max(1, round(size * config.bag.size / PAPER_BAGS[-1])) for size in PAPER_BAGS)


def tables(config: Config) -> dict[str, Table]:
    """Tables II to VII, with the bag sizes that fit the preset; Table I rests on no training."""
    found = {
        name: Table(name, columns, tuple(Row(m, METHODS[m].label, Experiment(m)) for m in methods), baseline)
        for name, (columns, methods, baseline) in _METHOD_TABLES.items()
    }
    found["table6"] = Table("table6", SEVERITY_COLUMNS, _bag_rows(config), f"bag{PAPER_BAGS[-1]}")
    return dict(sorted(found.items()))


def _bag_rows(config: Config) -> tuple[Row, ...]:
    rows = []
    for paper, own in zip(PAPER_BAGS, bag_sizes(config), strict=True):
        label = f"bag of {paper}" if paper == own else f"bag of {own} (paper: {paper})"
        whole = Experiment(BAG_METHOD, None if own == config.bag.size else own)
        rows.append(Row(f"bag{paper}", label, whole))
    return tuple(rows)


def wanted(only: Iterable[str]) -> tuple[str, ...]:
    """The tables and figures asked for, all if none is named.

    Raises:
        ConfigError: an unknown name.
    """
    chosen = tuple(only)
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        raise ConfigError("There is no such table or figure", found=", ".join(unknown), expected=", ".join(NAMES))
    return tuple(name for name in NAMES if name in chosen) or NAMES


def experiments(names: Iterable[str], config: Config) -> tuple[Experiment, ...]:
    """Every training that these tables and figures rest on, each once: networks, of them the slowest last, then others.

    An interrupted fold so has most of its rows; handcrafted methods may need the lobes that a network finds.
    """
    plans = tables(config)
    found: dict[Experiment, None] = {}
    for name in names:
        if name in plans:
            found |= dict.fromkeys(plans[name].experiments())
        found |= dict.fromkeys(Experiment(method) for method in FIGURE_METHODS.get(name, ()))
    return tuple(sorted(found, key=lambda e: (not METHODS[e.method].network, e.method in SLOWEST)))
