"""Who steps the physics, and how fast: our backends beside Brax, MJX and Gymnasium, in one process.

Contestants run in turns, several rounds long, so that a busy machine slows all of them alike; a figure is the median
over rounds, and its ratio to bare MuJoCo is the median of the ratios within a round. One step is one control step of
one world.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

from repertoire.envs import registry
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.errors import UserError

#: Control steps that one call of a contestant makes.
CHUNK = 10
#: Calls before anything is timed: Brax compiles a second time when its own output comes back as input.
WARM_UP = 2
#: Seconds per round: ordinary, quick.
ROUND_S = (1.5, 0.2)
#: Our name -> (Brax's, Gymnasium's) for the same robot.
RIVALS = {
    "ant": ("ant", "Ant-v5"),
    "half_cheetah": ("halfcheetah", "HalfCheetah-v5"),
    "hopper": ("hopper", "Hopper-v5"),
    "walker2d": ("walker2d", "Walker2d-v5"),
    "humanoid": ("humanoid", "Humanoid-v5"),
}
BRAX_ENGINES = ("generalized", "positional", "spring", "mjx")


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Someone who steps worlds.

    Attributes:
      name: row of the table. worlds: stepped at once. steps: control steps per call.
      build: makes `call`, which makes `steps` control steps in all worlds and waits for them, and `close`.
      note: what a reader must know of the figure.
    """

    name: str
    worlds: int
    steps: int
    build: Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]
    note: str = ""


@dataclasses.dataclass
class Entry:
    """A contestant that was built, and what was measured so far."""

    contestant: Contestant
    call: Callable[[], Any]
    close: Callable[[], Any]
    compile_s: float
    peak_rss_mib: float
    calls: int = 1
    rounds: list[float] = dataclasses.field(default_factory=list)  # env steps/s


def measure(
    env_name: str = "ant",
    worlds: int = 1024,
    rounds: int = 3,
    quick: bool = False,
    rivals: bool = True,
    extra: Sequence[Contestant] = (),
) -> dict[str, Any]:
    """Throughput side by side: {"env", "machine", "rows"}, ready for JSON.

    Args:
      env_name: registry name; rivals exist for the robots in `RIVALS`.
      worlds: batch of our contestants and of bare MuJoCo. rounds: measured rounds.
      quick: short rounds and small batches of rivals, to see that everything works.
      rivals: also the other engines, which compile for minutes. extra: further contestants, after ours.

    A row is {name, worlds, steps_per_s, ratio_to_bare, compile_s, peak_rss_mib, note}. `compile_s` is building and
    the first calls, `peak_rss_mib` the peak of memory until then (child processes included), above what was held
    before. A contestant that fails has None for figures and the reason in `note`. Raises `UserError` for bad input.
    """
    if worlds < 1 or rounds < 1:
        raise UserError(f"worlds and rounds must be at least 1, got {worlds} and {rounds}")
    contestants = [*_ours(env_name, worlds), *extra]
    if rivals:
        contestants += _rivals(env_name, quick)
    seconds = ROUND_S[quick]
    entries: dict[str, Entry] = {}
    failures: dict[str, str] = {}
    for contestant in contestants:
        _try(failures, contestant.name, partial(_add, entries, contestant, seconds))
    for _ in range(rounds):
        for name, entry in entries.items():
            _try(failures, name, partial(_measure_round, entry))
    for name, entry in entries.items():
        _try(failures, name, entry.close)
    rows = [_row(c, entries.get(c.name), entries.get(contestants[0].name), failures) for c in contestants]
    return {"env": env_name, "machine": _machine(), "rows": rows}


def _try(failures: dict[str, str], name: str, action: Callable[[], Any]) -> None:
    """Run `action` for contestant `name` unless it failed before; a failure is noted, not raised."""
    if name in failures:
        return
    try:
        action()
    except Exception as error:  # a rival's trouble is a result
        lines = str(error).strip().splitlines() or [""]
        failures[name] = f"failed: {type(error).__name__}: {lines[0]}"[:200]


def _enter(contestant: Contestant, seconds: float) -> Entry:
    """Build, compile and warm up; then choose how many calls make a round of `seconds`."""
    gc.collect()
    before = _reset_peak()
    start = time.perf_counter()
    call, close = contestant.build()
    for _ in range(WARM_UP):
        call()
    entry = Entry(contestant, call, close, time.perf_counter() - start, _total_mib("VmHWM") - before)
    rate = _round(entry)
    entry.calls = max(1, round(seconds * rate / (contestant.worlds * contestant.steps)))
    return entry


def _add(entries: dict[str, Entry], contestant: Contestant, seconds: float) -> None:
    entries[contestant.name] = _enter(contestant, seconds)


def _measure_round(entry: Entry) -> None:
    entry.rounds.append(_round(entry))


def _round(entry: Entry) -> float:
    """Env steps per second over one round."""
    start = time.perf_counter()
    for _ in range(entry.calls):
        entry.call()
    steps = entry.calls * entry.contestant.steps * entry.contestant.worlds
    return steps / (time.perf_counter() - start)


def _row(contestant: Contestant, entry: Entry | None, bare: Entry | None, failures: dict[str, str]) -> dict[str, Any]:
    rounds = entry.rounds if entry and contestant.name not in failures else []
    ratios = [a / b for a, b in zip(rounds, bare.rounds if bare else [])]
    return {
        "name": contestant.name,
        "worlds": contestant.worlds,
        "steps_per_s": statistics.median(rounds) if rounds else None,
        "ratio_to_bare": statistics.median(ratios) if ratios else None,
        "compile_s": entry.compile_s if entry else None,
        "peak_rss_mib": entry.peak_rss_mib if entry else None,
        "note": failures.get(contestant.name, contestant.note),
    }


# -- ours --------------------------------------------------------------------------------------------------------


def _ours(env_name: str, worlds: int) -> list[Contestant]:
    env = registry.make(env_name, "native")
    found = [
        Contestant("mujoco.batch, bare", worlds, CHUNK, lambda: _bare(env, worlds), "random controls, no observations"),
        Contestant("repertoire native", worlds, CHUNK, lambda: _scan(env, worlds, CHUNK), "random actions, auto-reset"),
        Contestant(
            "repertoire native + policy",
            worlds,
            CHUNK,
            lambda: _scan(env, worlds, CHUNK, policy=True),
            "256x256 policy in the loop",
        ),
        Contestant(
            "repertoire GymVectorEnv", worlds, CHUNK, lambda: _vector(env_name, worlds), "called from Python each step"
        ),
    ]
    if jax.default_backend() == "gpu":
        found.append(
            Contestant(
                "repertoire warp + policy",
                worlds,
                CHUNK,
                lambda: _scan(registry.make(env_name, "warp"), worlds, CHUNK, policy=True),
                "256x256 policy in the loop",
            )
        )
    return found


def _nothing() -> None:
    """For contestants that hold nothing open."""


def _bare(env: MujocoEnv, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The floor of all costs: the C physics of our env on all cores, and nothing else."""
    task = env.task
    start = jax.vmap(task.start)(jax.random.split(jax.random.key(0), worlds))
    return _batch(env.physics.model, task.substeps, np.asarray(start.qpos), np.asarray(start.qvel), task.episode_length)


def _batch(
    model: mujoco.MjModel, substeps: int, qpos: np.ndarray, qvel: np.ndarray, length: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """C physics of worlds that start at qpos [N, nq], qvel [N, nv] every `length` steps; controls drawn beforehand."""
    worlds = len(qpos)
    batch = Batch(model, worlds, 0)
    low, high = model.actuator_ctrlrange.T
    controls = np.random.default_rng(0).uniform(low, high, (CHUNK, worlds, model.nu))
    ctrl, clock = batch.bind("ctrl"), [0]

    def call() -> None:
        for row in controls:
            if clock[0] % length == 0:
                batch.reset()
                batch.bind("qpos")[:], batch.bind("qvel")[:] = qpos, qvel
            clock[0] += 1
            ctrl[:] = row
            batch.step(nstep=substeps)

    return call, _nothing


def _scan(env: MujocoEnv, worlds: int, steps: int, policy: bool = False) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Our env in a jitted scan, auto-reset as in a rollout."""
    params = _mlp(jax.random.key(1), (env.spec.obs.size("policy"), 256, 256, env.spec.action_size))

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        noise = jax.random.uniform(key, (worlds, env.spec.action_size), minval=-1.0, maxval=1.0)
        action = _act(params, state.obs["policy"]) + 0.5 * noise if policy else noise
        state = jax.vmap(env.step)(state, action)
        done = state.terminated | state.truncated
        return jax.vmap(env.reset_where)(done, state), state.reward.mean()

    @jax.jit
    def run(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(step, state, jax.random.split(key, steps))

    return _caller(run, jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), worlds)))


def _caller(run: Callable[..., Any], state: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """`call` that threads state and key through the jitted `run`."""
    held = [state, jax.random.key(2)]

    def call() -> None:
        held[1], key = jax.random.split(held[1])
        held[0], out = run(held[0], key)
        jax.block_until_ready(out)

    return call, held.clear


def _mlp(key: jax.Array, sizes: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    """Random (kernel, bias) of each layer."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [(jax.random.normal(k, (i, o)) * i**-0.5, jnp.zeros(o)) for k, i, o in zip(keys, sizes, sizes[1:])]


def _act(params: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
    for kernel, bias in params[:-1]:
        x = jax.nn.swish(x @ kernel + bias)
    return jnp.tanh(x @ params[-1][0] + params[-1][1])


def _vector(env_name: str, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from repertoire.envs.gym_env import GymVectorEnv

    return _gym_caller(GymVectorEnv(env_name, worlds), CHUNK)


# -- rivals ------------------------------------------------------------------------------------------------------


def _rivals(env_name: str, quick: bool) -> list[Contestant]:
    batch, workers = (16, 2) if quick else (256, 64)
    mjx_note = "MJX in JAX steps our own env"
    mjx = Contestant("repertoire mjx", batch, 1, lambda: _scan(registry.make(env_name, "mjx"), batch, 1), mjx_note)
    if env_name not in RIVALS:
        return [mjx]
    brax_name, gym_id = RIVALS[env_name]
    name, note = "mujoco.batch, bare, Brax's model", f"the C physics of Brax's {brax_name}"
    same = Contestant(name, 1024, CHUNK, partial(_brax_bare, brax_name, 1024), note)
    note = f"Brax's {brax_name}, a simpler model, random actions"
    brax = [
        Contestant(f"brax {engine}", batch, 1, partial(_brax, brax_name, engine, batch), note)
        for engine in BRAX_ENGINES
    ]
    note = f"{gym_id}, {workers} processes"
    processes = Contestant("gymnasium async", workers, CHUNK, partial(_async, gym_id, workers), note)
    return [mjx, same, *brax, processes]


def _brax(name: str, engine: str, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One step of Brax's own env, episodes and auto-reset included."""
    from brax import envs

    env = envs.create(name, backend=engine, batch_size=worlds, episode_length=1000, auto_reset=True)

    @jax.jit
    def run(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state = env.step(state, jax.random.uniform(key, (worlds, env.action_size), minval=-1.0, maxval=1.0))
        return state, state.reward

    return _caller(run, jax.jit(env.reset)(jax.random.key(0)))


def _brax_bare(name: str, worlds: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """C physics of the model that Brax's engines step, for as long a control step: who is faster on equal work.

    Brax's robots collide with the floor at a few points only and solve contacts in fewer iterations than Gymnasium's.
    """
    from brax import envs

    env = envs.get_environment(name, backend="generalized")
    model = env.sys.mj_model
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (worlds, model.nq))
    substeps = round(env.dt / model.opt.timestep)
    return _batch(model, substeps, model.qpos0 + noise, np.zeros((worlds, model.nv)), 1000)


def _async(gym_id: str, workers: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Gymnasium's processes, forked from a server without JAX: a fork of this process could deadlock."""
    multiprocessing.set_forkserver_preload(["gymnasium", "gymnasium.envs.mujoco", "mujoco"])
    vector = gymnasium.make_vec(
        gym_id, num_envs=workers, vectorization_mode="async", vector_kwargs={"context": "forkserver"}
    )
    return _gym_caller(vector, CHUNK)


def _gym_caller(vector: Any, steps: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    vector.reset(seed=0)
    space, rng = vector.action_space, np.random.default_rng(0)
    actions = rng.uniform(space.low, space.high, (steps, *space.shape)).astype(np.float32)

    def call() -> None:
        for action in actions:
            vector.step(action)

    return call, vector.close


# -- machine -----------------------------------------------------------------------------------------------------


def _machine() -> dict[str, Any]:
    packages = ("jax", "mujoco", "mujoco-mjx", "brax", "gymnasium")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "device": jax.devices()[0].device_kind,
        "load": os.getloadavg()[0],
        "versions": {name: metadata.version(name) for name in packages},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _family() -> list[Path]:
    """/proc folders of this process and all below it."""
    found, todo = [], [os.getpid()]
    while todo:
        folder = Path(f"/proc/{todo.pop()}")
        found.append(folder)
        try:
            todo += [int(p) for task in folder.glob("task/*/children") for p in task.read_text().split()]
        except OSError:  # gone meanwhile
            continue
    return found


def _memory_mib(folder: Path, file: str, name: str) -> float:
    """Field `name` (VmRSS: now, VmHWM: peak, Pss: now, shared pages divided) of a process, MiB; 0 if it is gone."""
    try:
        lines = (folder / file).read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def _total_mib(name: str) -> float:
    own, *children = _family()
    return _memory_mib(own, "status", name) + sum(_memory_mib(child, "smaps_rollup", "Pss") for child in children)


def _reset_peak() -> float:
    """Let the peak of this process start from now, where the system can; memory now, MiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _total_mib("VmRSS")


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
