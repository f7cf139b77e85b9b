"""PNG plots of matrices: shares between pairs, and who acts over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment.plots import GRID, INK, figure_of, save
from repertoire.experiment.strip import Strip


def heatmap(
    path: str | os.PathLike[str],
    values: np.ndarray,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> Path:
    """Shares [N, M] in 0 .. 1 as a coloured matrix, row 0 on top; numbers inside where they can be read.

    Args:
      path: PNG to write. rows, columns: their names; None: numbers. Values beyond 0 .. 1 widen the range of colours.

    Raises:
      UserError: wrong shape, disk full or read-only.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or not values.size:
        raise UserError(f"heatmap wants values [N, M], got {list(values.shape)}")
    figure = figure_of(5.2, 4.6)
    axes = figure.add_subplot()
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
    image = axes.imshow(values, vmin=low, vmax=high, cmap="viridis")
    figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    if values.size <= 100:
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if value < low + 0.6 * (high - low) else INK
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7, color=colour)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=GRID)
    if columns is not None:
        axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    axes.set_title(title, color=INK, fontsize=10)
    return save(figure, path)


def timeline(path: str | os.PathLike[str], strip: Strip, *, title: str) -> Path:
    """Who acts over time: a row per actor, or per entry of a latent, as colours over seconds.

    Raises:
      UserError: disk full or read-only.
    """
    values, count = np.asarray(strip.values, float), len(strip.names)
    figure = figure_of(7.0, 1.2 + 0.22 * min(count, 24))
    axes = figure.add_subplot()
    bound = 1.0 if strip.shared else max(float(np.abs(values).max()), 1e-6)
    look = {"cmap": "viridis", "vmin": 0.0} if strip.shared else {"cmap": "RdBu", "vmin": -bound}
    extent = (0.0, len(values) * strip.dt, count - 0.5, -0.5)
    image = axes.imshow(values.T, aspect="auto", interpolation="nearest", extent=extent, vmax=bound, **look)
    figure.colorbar(image, ax=axes, label="share" if strip.shared else "latent").ax.tick_params(labelsize=7)
    if count <= 24:
        axes.set_yticks(range(count), strip.names)
    axes.tick_params(colors=INK, labelsize=7, length=3, color=GRID)
    axes.set_xlabel("s", color=INK, fontsize=9)
    axes.set_title(title, color=INK, fontsize=10)
    return save(figure, path)
