"""Linear interpolation of coarse fields to slabs of a fine grid, only where and when a field is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m2unet.phantom.grid import FloatArray, Grid

if TYPE_CHECKING:
    import torch

Plane = tuple[slice, slice]
Ends = tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]
"""Of one axis: lower and upper coarse neighbour of each fine voxel, and the upper one's weight."""


class CoarseFields:
    """Named fields on a coarse grid whose first and last voxel centres are those of the fine grid."""

    def __init__(self, fields: dict[str, FloatArray], coarse: Grid, grid: Grid) -> None:
        import torch

        self._fields = {name: torch.from_numpy(field) for name, field in fields.items()}
        self._ends: list[Ends] = []
        for fine, rough in zip(grid.shape, coarse.shape, strict=True):
            at = np.arange(fine) * ((rough - 1) / (fine - 1) if fine > 1 else 0.0)
            low = np.clip(np.floor(at).astype(np.int64), 0, max(rough - 2, 0))
            high = np.minimum(low + 1, rough - 1)
            self._ends.append((low, high, (at - low).astype(np.float32)))

    def slab(self, first: int, last: int) -> Slab:
        """The fine slices ``first`` to ``last - 1``."""
        return Slab(self._fields, self._ends, first, last)


class Slab:
    """A few fine slices; fields are interpolated on demand."""

    def __init__(self, fields: dict[str, torch.Tensor], ends: list[Ends], first: int, last: int) -> None:
        self._fields, self._ends, self._span = fields, ends, slice(first, last)
        self._planes: dict[str, torch.Tensor] = {}

    def _plane(self, name: str) -> torch.Tensor:
        import torch

        if name not in self._planes:
            low, high, part = (a[self._span] for a in self._ends[0])
            field = self._fields[name]
            weight = torch.from_numpy(part)[:, None, None]
            self._planes[name] = torch.lerp(field[low], field[high], weight)
        return self._planes[name]

    def where(self, name: str, above: float) -> Plane | None:
        """Rows and columns outside which a field is below ``above``; None if it is so everywhere."""
        held = self._plane(name).numpy() > above
        found = []
        for axis, (low, high, _) in zip((1, 2), self._ends[1:], strict=True):
            line = np.flatnonzero(held.any(axis=(0, 3 - axis)))
            if not len(line):
                return None
            inside = np.flatnonzero((high >= line[0]) & (low <= line[-1]))
            found.append(slice(int(inside[0]), int(inside[-1]) + 1))
        return found[0], found[1]

    def fine(self, name: str, plane: Plane) -> FloatArray:
        """A field on the given rows and columns of the fine slices, ``[z, y, x]``."""
        import torch

        field = self._plane(name)
        low_x, high_x, part_x = (torch.from_numpy(a[plane[1]]) for a in self._ends[2])
        low_y, high_y, part_y = (torch.from_numpy(a[plane[0]]) for a in self._ends[1])
        first, last = int(low_y[0]), int(high_y[-1]) + 1
        rows = field[:, first:last]
        rows = torch.lerp(rows.index_select(2, low_x), rows.index_select(2, high_x), part_x)
        out = rows.index_select(1, low_y - first)
        out.lerp_(rows.index_select(1, high_y - first), part_y[:, None])
        return np.asarray(out.numpy(), np.float32)
