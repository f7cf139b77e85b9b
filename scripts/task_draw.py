"""Pictures and videos of task episodes: paths, and of controllers who acts when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from repertoire.envs.tasks.maze import Walled
from repertoire.experiment import matrices, plots, video
from repertoire.experiment.run_dir import RunDir
from repertoire.experiment.strip import Strip
from repertoire.high_level.allocation import Allocation
from repertoire.high_level.macro_env import MacroEnv
from repertoire.scripts.task_eval import Episodes


def draw(run_dir: RunDir, env: Any, found: Episodes, what: str, suffix: str = "") -> None:
    """Plots and, where the config asks for it, a video of episodes of `what`; `suffix` of the file names."""
    title = f"{run_dir.name}: {what}, {len(found.qpos)} episodes"
    path_plot(run_dir.plots / f"paths{suffix}.png", env, found, title)
    strip = strip_of(env, found)
    if strip:
        matrices.timeline(run_dir.plots / f"acting{suffix}.png", strip, title=f"{run_dir.name}: {what}, first episode")
    if run_dir.config["video"]:
        task_video(run_dir.videos / f"task{suffix}.mp4", env, found)


def allocation_plot(run_dir: RunDir, found: Allocation | None) -> None:
    """Heat map of a task x skill matrix, where there is one."""
    if found:
        rows, columns = list(found), list(next(iter(found.values())))
        values = np.asarray([[row[skill] for skill in columns] for row in found.values()])
        path, title = run_dir.plots / "allocation.png", f"{run_dir.name}: what each task is made of"
        matrices.heatmap(path, values, title=title, xlabel="skill", ylabel="task", rows=rows, columns=columns)


def strip_of(env: Any, found: Episodes) -> Strip | None:
    """Who acts in the first episode; None for a flat env."""
    if not isinstance(env, MacroEnv):
        return None
    length = _length(found)
    return Strip(found.acting[0, :length], env.composer.actors, env.env.spec.dt)


def task_video(path: Path, env: Any, found: Episodes, note: Callable[[str], None] = print) -> Path | None:
    """Video of the first episode with its goal markers and, of a controller, a strip that shows who acts."""
    low, length = getattr(env, "env", env), _length(found)

    def markers(t: int) -> list[Any]:
        return _markers(low, found, 0, min(t, length - 1))

    return video.try_video(
        path,
        low.physics.model,
        found.qpos[0, :length],
        low.spec.dt,
        markers=markers,
        strip=strip_of(env, found),
        note=note,
        max_fps=20,
        **_camera(low.task, found.positions[0, :length], [m for t in range(0, length, 10) for m in markers(t)]),
    )


def _markers(low: Any, found: Episodes, episode: int, t: int) -> list[Any]:
    memory = jax.tree.map(lambda x: x[episode, t], found.memory)
    return list(low.task.markers(SimpleNamespace(memory=memory, data=SimpleNamespace(qpos=found.qpos[episode, t]))))


def _length(found: Episodes, episode: int = 0) -> int:
    return max(int(found.alive[episode].sum()), 1)


def _camera(task: Any, positions: np.ndarray, marks: list[Any]) -> dict[str, Any]:
    """The task's own; from above, over everything, where there are goals on the plane to see."""
    if not marks or positions.shape[-1] < 2:
        return {"camera": task.camera}
    goals = np.asarray([m[0][:2] for m in marks])
    seen = np.concatenate([positions[:, :2], goals])
    (x0, y0), (x1, y1) = seen.min(0) - 3.0, seen.max(0) + 3.0
    return {"camera": "overview", "bounds": (x0, y0, x1, y1), "width": 640, "height": 480}


def path_plot(path: Path, env: Any, found: Episodes, title: str) -> Path | None:
    """x-y paths of episodes, NaN after their end, with the walls of a maze and the goals that were left at the end."""
    if found.positions.shape[-1] < 2:
        return None
    xy, low = np.where(found.alive[..., None], found.positions[..., :2], np.nan)[:12], getattr(env, "env", env)
    marks = [m[0][:2] for k in range(len(xy)) for m in _markers(low, found, k, _length(found, k) - 1)]
    walls = low.task.walls() if isinstance(getattr(low, "task", None), Walled) else ()
    labels = [name for k in range(len(xy)) for name, its in found.tasks.items() if its[k]] or None
    goals = np.asarray(marks) if marks else None
    return plots.trajectories(path, xy, labels=labels, title=title, walls=walls, goals=goals)
