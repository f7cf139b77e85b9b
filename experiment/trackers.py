"""Where metrics go: the JSONL file of the run, TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from repertoire.errors import UserError, unknown, words
from repertoire.experiment.metrics_log import MetricsLog, last_row, lines
from repertoire.experiment.run_dir import RunDir, flatten

#: Tracker -> (module that it needs, extra of ours that brings it; None: it is always installed).
_LIBRARIES: dict[str, tuple[str, str | None]] = {
    "tensorboard": ("tensorboardX", None),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
}


class Tracker(Protocol):
    """A consumer of metrics. A value is a scalar, or a list with one entry per seed."""

    def log(self, update: int, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """Record the metrics of one update; `env_steps` counts over all worlds."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


def _import(module: str, extra: str | None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = f"'repertoire-rl[{extra}]'" if extra else module
        raise UserError(f"tracker needs {module}, which is not installed: pip install {package}") from None


def scalars(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, number) pairs: a list over seeds gives its mean under the name and each entry under `name/seed<i>`."""
    for name, value in metrics.items():
        array = np.asarray(value, dtype=float)
        if array.ndim == 0:
            yield name, float(array)
        elif array.size:
            yield name, float(array.mean())
            yield from ((f"{name}/seed{i}", float(v)) for i, v in enumerate(array.ravel()))


class JsonlTracker:
    """Writes `metrics.jsonl`; `seconds` continues over resumes."""

    def __init__(self, run: RunDir, after: int | None) -> None:
        """Open the log of `run`, without the lines later than update `after`."""
        self._log = MetricsLog(run.metrics)
        if after is not None:
            self._log.truncate_after(after)
        self._start = time.monotonic() - float(last_row(run.metrics).get("seconds", 0.0))

    def log(self, update: int, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """Append one line."""
        self._log.append(update, env_steps, time.monotonic() - self._start, metrics)

    def close(self) -> None:
        """Close the file."""
        self._log.close()


class TensorBoardTracker:
    """Writes TensorBoard events to `<run>/tensorboard`, over env steps."""

    def __init__(self, run: RunDir, after: int | None) -> None:
        """Points later than the checkpoint at update `after` are purged from the display."""
        writer = _import(*_LIBRARIES["tensorboard"]).SummaryWriter
        kept = int(last_row(run.metrics).get("env_steps", 0)) + 1
        self._writer = writer(str(run.path / "tensorboard"), purge_step=None if after is None else kept)

    def log(self, update: int, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """Add one point per scalar."""
        for name, value in scalars({"update": update, **metrics}):
            self._writer.add_scalar(name, value, env_steps)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class WandbTracker:
    """Weights & Biases; a resumed run continues the same W&B run.

    W&B takes nothing back and its steps only increase, so updates that it has seen are not sent again: those between
    the checkpoint and the end of the session before, which the resumed run repeats. Offline it has seen nothing: each
    session begins a folder of its own, and a killed one has lost what it held in memory. There a session begins with
    all that the run's own file holds, so that the newest folder is that of a run never killed.
    """

    def __init__(self, run: RunDir, after: int | None) -> None:
        """Project, entity and offline mode come from W&B's own variables (WANDB_PROJECT, WANDB_MODE ...)."""
        del after  # W&B itself says where it stands
        wandb = _import(*_LIBRARIES["wandb"])
        self._run = wandb.init(
            project=_env("WANDB_PROJECT", "repertoire"),
            name=run.name,
            id=_run_id(run),
            resume="allow",
            config=run.config,
            dir=str(run.path),
        )
        self._run.define_metric("*", step_metric="env_steps")
        self._next = int(self._run.step)
        for row in lines(run.metrics) if self._run.offline else ():
            self.log(row.pop("update"), row.pop("env_steps"), {k: v for k, v in row.items() if k != "seconds"})

    def log(self, update: int, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """Send one row, unless W&B has one of this update."""
        if update >= self._next:
            row = {**dict(scalars(metrics)), "update": update, "env_steps": env_steps}
            self._run.log(row, step=update, commit=True)

    def close(self) -> None:
        """Finish the W&B run."""
        self._run.finish()


class MlflowTracker:
    """MLflow; server and experiment come from MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.

    MLflow keeps every point of a step, so updates that it has seen are not sent again.
    """

    def __init__(self, run: RunDir, after: int | None) -> None:
        """Start the MLflow run, or continue the one that carries this run's tag."""
        del after  # MLflow itself says where it stands
        self._last = 0
        self._mlflow = mlflow = _import(*_LIBRARIES["mlflow"])
        mlflow.set_experiment(_env("MLFLOW_EXPERIMENT_NAME", "repertoire"))
        tag = _run_id(run)
        found = mlflow.search_runs(filter_string=f"tags.repertoire_run = '{tag}'", output_format="list")
        if found:
            self._last = int(found[0].data.metrics.get("update", 0))
            mlflow.start_run(run_id=found[0].info.run_id)
            return
        mlflow.start_run(run_name=run.name, tags={"repertoire_run": tag})
        mlflow.log_params({k: str(v)[:500] for k, v in flatten(run.config)})

    def log(self, update: int, env_steps: int, metrics: Mapping[str, Any]) -> None:
        """Send one point per scalar, over env steps, unless MLflow has those of this update."""
        if update > self._last:
            self._mlflow.log_metrics(dict(scalars({"update": update, **metrics})), step=env_steps)

    def close(self) -> None:
        """End the MLflow run."""
        self._mlflow.end_run()


TRACKERS: dict[str, Any] = {
    "jsonl": JsonlTracker,
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def _env(name: str, default: str) -> str:
    import os

    return os.environ.get(name) or default


def _run_id(run: RunDir) -> str:
    """The same on every resume, different for runs with equal names."""
    import hashlib

    return hashlib.sha256(f"{run.path.resolve()}{run.manifest.get('created')}".encode()).hexdigest()[:16]


def make_trackers(names: Sequence[str], run_dir: RunDir, after: int | None = None) -> list[Tracker]:
    """Trackers by name. `jsonl` is always made, first, because resume, `report` and the others read its file.

    Args:
      names: of `TRACKERS`, or one alone. run_dir: where they write.
      after: update of the checkpoint that is resumed; later metrics are dropped. 0 when starting over without one.

    Raises:
      UserError: an unknown name, or a library that is not installed (names the pip extra).
    """
    return [TRACKERS[name](run_dir, after) for name in check(names)]


def check(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers that `names` (or one alone) ask for. Raises `UserError` as `make_trackers` does, but makes none."""
    names = words("logging.trackers", names)
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if name in _LIBRARIES:
            _import(*_LIBRARIES[name])
    return tuple(dict.fromkeys(["jsonl", *names]))
