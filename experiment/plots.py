"""PNG plots without pyplot: nothing global, no window, nothing left open."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment.files import guard_writes

INK, GRID = "#2b2f36", "#d9dce1"


@dataclass(frozen=True)
class Series:
    """One line: `y` [T] over `x` [T], with an optional band `low`, `high` [T]. NaN points are left out."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def figure_of(width: float, height: float) -> Any:
    """A figure of so many inches that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=GRID)
    axes.grid(color=GRID, linewidth=0.6, alpha=0.7)
    axes.set_axisbelow(True)


def save(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write `figure` as a PNG, whole or not at all. Raises `UserError` for a full or read-only disk."""
    path = Path(path).with_suffix(".png")
    tmp = path.with_name(f".{path.stem}.{os.getpid()}.tmp.png")
    with guard_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(tmp)
            os.replace(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
    return path


def latent_colours(latents: np.ndarray) -> np.ndarray:
    """Colours [K, 3] of latents [K, D]: one-hot rows by index, others by the angle of their first two entries."""
    from matplotlib import colormaps

    z = np.asarray(latents, float)
    z = z[:, None] if z.ndim == 1 else z
    one_hot = z.shape[1] > 2 and bool(np.all((z == 0) | (z == 1)) and np.all(z.sum(1) == 1))
    if one_hot:
        turn = z.argmax(1) / z.shape[1]
    elif z.shape[1] == 1:
        turn = 0.8 * (z[:, 0] - z.min()) / max(np.ptp(z), 1e-9)
    else:
        turn = np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi) % 1.0
    return np.asarray(colormaps["hsv"](turn))[:, :3] * 0.88


def trajectories(
    path: str | os.PathLike[str],
    xy: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    latents: np.ndarray | None = None,
    goals: np.ndarray | None = None,
    walls: Sequence[tuple[float, float, float, float]] = (),
    title: str = "",
) -> Path:
    """Paths seen from above, in metres on equal axes; a dot marks each end.

    Args:
      path: PNG to write. xy: [K, T, 2] positions, m; NaN where a motion had ended.
      labels: one per path (or one per group of equal names), shown in a legend.
      latents: [K, D], colours the paths by `latent_colours`. goals: [G, 2] drawn as crosses, m.
      walls: boxes (x, y, half-width in x, half-width in y) that bound the paths, m.

    Raises:
      UserError: wrong shape, disk full or read-only.
    """
    xy = np.asarray(xy, float)
    if xy.ndim != 3 or xy.shape[2] != 2 or not xy.shape[0]:
        raise UserError(f"trajectories wants xy [K, T, 2], got {list(xy.shape)}")
    from matplotlib.patches import Rectangle

    figure = figure_of(5.2, 5.2)
    axes = figure.add_subplot()
    _clean(axes)
    _draw_paths(axes, xy, _path_colours(len(xy), labels, latents), labels)
    for x, y, half_x, half_y in walls:
        box = (x - half_x, y - half_y)
        axes.add_patch(Rectangle(box, 2 * half_x, 2 * half_y, facecolor=GRID, edgecolor="none", zorder=1))
    if goals is not None:
        axes.plot(*np.asarray(goals, float).T, "x", color=INK, ms=9, mew=2, zorder=4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("x [m]", color=INK, fontsize=9)
    axes.set_ylabel("y [m]", color=INK, fontsize=9)
    axes.set_title(title, color=INK, fontsize=10)
    return save(figure, path)


def clusters(
    path: str | os.PathLike[str], values: np.ndarray, labels: Sequence[str], *, axes: tuple[str, str], title: str = ""
) -> Path:
    """What skills do in the plane of two features: a cloud per skill, with its mean.

    Args:
      path: PNG to write. values: [K, T, 2], one motion per row. labels: one per row, equal for motions of one skill.
      axes: names of the two features, with units.

    Raises:
      UserError: wrong shape, disk full or read-only.
    """
    values = np.asarray(values, float)
    if values.ndim != 3 or values.shape[2] != 2 or len(labels) != len(values):
        raise UserError(f"clusters wants values [K, T, 2] and K labels, got {list(values.shape)} and {len(labels)}")
    figure = figure_of(5.2, 5.2)
    panel = figure.add_subplot()
    _clean(panel)
    colours = _path_colours(len(values), labels, None)
    for name in dict.fromkeys(labels):
        rows = [i for i, label in enumerate(labels) if label == name]
        points, colour = values[rows].reshape(-1, 2), colours[rows[0]]
        panel.plot(*points[:: max(len(points) // 400, 1)].T, ".", color=colour, ms=3, alpha=0.35, mew=0)
        panel.plot(*points.mean(0), "o", color=colour, ms=8, mec="white", label=name, zorder=4)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set_xlabel(axes[0], color=INK, fontsize=9)
    panel.set_ylabel(axes[1], color=INK, fontsize=9)
    panel.set_title(title, color=INK, fontsize=10)
    panel.legend(fontsize=7, frameon=False, loc="best")
    return save(figure, path)


def _path_colours(count: int, labels: Sequence[str] | None, latents: np.ndarray | None) -> np.ndarray:
    if latents is not None:
        return latent_colours(latents)
    names = list(dict.fromkeys(labels or map(str, range(count))))
    index = [names.index(n) for n in labels] if labels else list(range(count))
    return latent_colours(np.eye(max(len(names), 3))[index])


def _draw_paths(axes: Any, xy: np.ndarray, colours: np.ndarray, labels: Sequence[str] | None) -> None:
    seen: set[str] = set()
    alpha = float(np.clip(8 / np.sqrt(len(xy)), 0.35, 0.9))
    for k, (line, colour) in enumerate(zip(xy, colours, strict=True)):
        label = labels[k] if labels and labels[k] not in seen else None
        seen |= {label} if label else set()
        axes.plot(*line.T, color=colour, lw=1.3, alpha=alpha, label=label)
        valid = line[np.isfinite(line).all(1)]
        if len(valid):
            axes.plot(*valid[-1], "o", color=colour, ms=3.5, zorder=3)
    axes.plot(*xy[0, 0], "o", color=INK, ms=5, mfc="white", zorder=5)
    if 1 < len(seen) <= 20:
        axes.legend(fontsize=7, frameon=False, ncols=2 if len(seen) > 10 else 1, loc="best")


def curves(
    path: str | os.PathLike[str],
    panels: Mapping[str, Sequence[Series]],
    *,
    xlabel: str = "env steps",
    columns: int = 3,
) -> Path:
    """Small multiples: a panel per metric name, the series of each with their bands; one legend for all.

    Raises:
      UserError: no panels, disk full or read-only.
    """
    if not panels:
        raise UserError("curves wants at least one panel")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = figure_of(3.5 * columns, 2.3 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    names = list(dict.fromkeys(s.label for series in panels.values() for s in series))
    for axes, (name, series) in zip(grid, panels.items(), strict=False):
        _panel(axes, name, series, names)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel(xlabel, color=INK, fontsize=8)
    handles = {label: h for axes in grid for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(names) > 1:
        ncols = min(len(handles), 4)
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=ncols, frameon=False, fontsize=8
        )
    return save(figure, path)


def _panel(axes: Any, name: str, series: Sequence[Series], names: list[str]) -> None:
    _clean(axes)
    axes.set_title(name, fontsize=9, color=INK, loc="left")
    for s in series:
        y = np.asarray(s.y, float)
        ok = np.isfinite(y)
        x, colour = np.asarray(s.x)[ok], f"C{names.index(s.label) % 10}"
        if s.low is not None and s.high is not None:
            axes.fill_between(x, np.asarray(s.low)[ok], np.asarray(s.high)[ok], color=colour, alpha=0.2, lw=0)
        axes.plot(x, y[ok], color=colour, lw=1.3, marker="o" if ok.sum() < 3 else None, ms=3, label=s.label)
    axes.ticklabel_format(style="sci", scilimits=(-3, 4), useMathText=True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_fontsize(7)


def seed_series(label: str, x: np.ndarray, values: np.ndarray) -> Series:
    """Series of a metric [T] or [T, seeds]: the mean over seeds with a band from the lowest to the highest."""
    if values.ndim == 1 or values.shape[1] == 1:
        return Series(label, x, values.reshape(len(values)))
    return Series(label, x, values.mean(1), values.min(1), values.max(1))
