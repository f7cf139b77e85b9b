"""Videos of recorded motion: a camera that follows, skill grids, streaming to mp4, never a reason for a run to die."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.errors import UserError
from repertoire.experiment.files import guard_writes
from repertoire.experiment.gl import pick_gl, why_no_gl
from repertoire.experiment.scene import Markers, Stage
from repertoire.experiment.strip import Strip, stamp, under
from repertoire.experiment.viewer import write_html

__all__ = ["grid", "pick_gl", "render", "skill_grid", "try_video", "why_no_gl", "write_html", "write_mp4"]

Frame = np.ndarray  # [H, W, 3] uint8


def render(
    model: Any,
    qpos: np.ndarray,
    *,
    camera: str = "follow",
    width: int = 480,
    height: int = 360,
    markers: Markers | None = None,
    bounds: Sequence[float] | None = None,
    root: str | None = None,
    mocap: np.ndarray | None = None,
) -> Iterator[Frame]:
    """Frames of a motion, one per row of `qpos`, made when asked for.

    Args:
      model: mujoco.MjModel; not changed. qpos: [T, nq] recorded positions.
      camera: "follow" (behind and above the robot), "overview" (fixed, from above, framing `bounds`) or the name of
        a camera in the model.
      width, height: pixels; even numbers for mp4.
      markers: t -> list of (position [3] m, radius m, rgba [4]) drawn as spheres at frame t.
      bounds: (x_min, y_min, x_max, y_max) in metres for "overview"; default: what the robot covers, with a margin.
      root: body that the camera follows; default: the body of the world with the most joints below it.
      mocap: [T, nmocap, 7] positions and quaternions of mocap bodies, if they move.

    Raises:
      UserError: no OpenGL here, wrong shape, unknown camera or body.
    """
    qpos = np.asarray(qpos, float)
    if qpos.ndim != 2 or qpos.shape[1] != model.nq:
        raise UserError(f"render wants qpos [T, {model.nq}], got {list(qpos.shape)}")
    if pick_gl() is None:
        raise UserError(why_no_gl())

    def frames() -> Iterator[Frame]:
        with Stage(model, width=width, height=height, camera=camera, root=root) as stage:
            stage.frame_motion(qpos, bounds)
            yield from stage.play(qpos, markers, mocap)

    return frames()


def skill_grid(
    model: Any,
    qpos: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    columns: int | None = None,
    width: int = 240,
    height: int = 180,
    camera: str = "follow",
    root: str | None = None,
    bounds: Sequence[float] | None = None,
) -> Iterator[Frame]:
    """One video with a tile per skill: `qpos` [K, T, nq]. One renderer serves all tiles. Arguments as `render`."""
    qpos = np.asarray(qpos, float)
    if qpos.ndim != 3 or qpos.shape[2] != model.nq:
        raise UserError(f"a skill grid wants qpos [K, T, {model.nq}], got {list(qpos.shape)}")
    if pick_gl() is None:
        raise UserError(why_no_gl())

    def frames() -> Iterator[Frame]:
        with Stage(model, width=width, height=height, camera=camera, root=root) as stage:
            stage.frame_motion(qpos.reshape(-1, model.nq), bounds)
            tiles = [stage.play(skill) for skill in qpos]
            yield from grid(tiles, labels or [f"skill {k}" for k in range(len(qpos))], columns=columns)

    return frames()


def grid(
    tiles: Sequence[Iterable[Frame]], labels: Sequence[str] | None = None, *, columns: int | None = None, gap: int = 2
) -> Iterator[Frame]:
    """Tile videos of equal frame size into rows and columns; a tile that ends early keeps its last frame.

    Only one frame per tile is in memory. `columns` defaults to a near-square layout, wider than high. The result has
    even sides.
    """
    sources = [iter(t) for t in tiles]
    names = list(labels or [""] * len(sources))
    current: list[Frame | None] = [next(s, None) for s in sources]
    first = next((f for f in current if f is not None), None)
    if first is None:
        return
    columns = columns or int(np.ceil(np.sqrt(len(sources))))
    stamps = [stamp(name, first.shape[1]) for name in names]
    while True:
        yield _tile([f if f is not None else np.zeros_like(first) for f in current], stamps, columns, gap)
        fresh = [next(s, None) for s in sources]
        if all(f is None for f in fresh):
            return
        current = [f if f is not None else c for f, c in zip(fresh, current, strict=True)]


def _tile(frames: Sequence[Frame], stamps: Sequence[Frame | None], columns: int, gap: int) -> Frame:
    h, w = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    height, width = rows * (h + gap) - gap, columns * (w + gap) - gap
    out = np.full((height + height % 2, width + width % 2, 3), 24, np.uint8)
    for i, (frame, text) in enumerate(zip(frames, stamps, strict=True)):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        out[y : y + h, x : x + w] = frame
        if text is not None:
            out[y : y + text.shape[0], x : x + text.shape[1]] = text[:h, :w]
    return out


def write_mp4(path: str | os.PathLike[str], frames: Iterable[Frame], fps: float) -> Path:
    """Stream frames [H, W, 3] uint8 (all of one size) to an H.264 file that browsers play; one frame in memory.

    mediapy drives the ffmpeg that comes with imageio-ffmpeg. The file appears only when complete.

    Raises:
      UserError: no frames, or the disk is full or read-only.
    """
    import imageio_ffmpeg
    import mediapy

    path, source = Path(path), iter(frames)
    first = next(source, None)
    if first is None:
        raise UserError(f"cannot write {path}: there are no frames")
    h, w = (s - s % 2 for s in first.shape[:2])
    tmp = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    # Not imageio's own writer: it forks Python, which can deadlock beside JAX's threads.
    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    small = ["-preset", "veryfast", "-movflags", "+faststart"]
    with guard_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with mediapy.VideoWriter(tmp, (h, w), fps=fps, codec="libx264", crf=22, ffmpeg_args=small) as writer:
                for frame in chain([first], source):
                    writer.add_image(np.ascontiguousarray(frame[:h, :w]))
            os.replace(tmp, path)
        finally:
            tmp.unlink(missing_ok=True)
    return path


def try_video(
    path: str | os.PathLike[str],
    model: Any,
    qpos: np.ndarray,
    dt: float,
    *,
    labels: Sequence[str] | None = None,
    strip: Strip | None = None,
    max_fps: float = 30.0,
    note: Callable[[str], None] = print,
    **options: Any,
) -> Path | None:
    """A video of `qpos` [T, nq], or a grid of [K, T, nq], that never raises: for use inside training.

    Without OpenGL an interactive HTML page of the (first) motion is written instead.

    Args:
      path: the mp4. model: mujoco.MjModel, or None for an env that has none.
      dt: seconds between rows of qpos; rows are skipped to stay below `max_fps`, in real time.
      labels: one per skill. strip: shown under a single motion, a row for each of `qpos`.
      note: gets one line that says what was made, or why nothing was.
      options: of `render` (one motion) or `skill_grid` (many); `markers` is given rows of `qpos`.

    Returns:
      The file written (mp4 or html), or None.
    """
    path = Path(path)
    if model is None:
        note(f"no video {path.name}: this env has no model to draw")
        return None
    try:
        qpos = np.asarray(qpos, float)
        stride = max(1, round(1 / (max_fps * dt)))
        short = qpos[..., ::stride, :]
        if pick_gl() is None:
            page = write_html(path.with_suffix(".html"), model, short.reshape(-1, *short.shape[-2:])[0], dt * stride)
            note(f"no video: {why_no_gl()}; interactive page instead: {page}")
            return page
        single, markers = qpos.ndim == 2, options.pop("markers", None)
        if markers:  # told of rows, as they were recorded
            options["markers"] = lambda t: markers(t * stride)
        frames = render(model, short, **options) if single else skill_grid(model, short, labels=labels, **options)
        frames = under(frames, strip, stride) if strip else frames
        return write_mp4(path, frames, 1 / (dt * stride))
    except Exception as error:  # a video never kills a run
        note(f"no video {path.name}: {(str(error) or type(error).__name__).splitlines()[0][:200]}")
        return None
