"""Closed-loop replay: the same starts in our env with the JAX policy, and in plain C MuJoCo with the exported files."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.deploy import runner
from repertoire.deploy.witness import Witness, terms_of, varied
from repertoire.envs import physics
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.tasks.sim_to_real import SimToReal
from repertoire.envs.types import Array, State

#: Contacts are chaotic: a replay must follow within FIRST (m, rad) for a few steps, and later within TWINS times
#: the gap that NUDGE on every action opens between two runs of the env.
FIRST_STEPS, FIRST = 5, 1e-3
TIGHT_STEPS, TWINS, NUDGE = 20, 10.0, 1e-5
OBS_TOLERANCE = 1e-5
SIGMAS = 4.0
#: Margin of a decision (`Graph.row`) below which float32 may decide otherwise.
CLOSE = 2e-6


class Episodes(NamedTuple):
    """Recorded in the env: N starts, T control steps, no resets in between."""

    start: State  # [N]
    z: np.ndarray  # [N, D] latent of a skill, zeros of a controller, which holds nothing yet; [N, 0] of a policy
    obs: np.ndarray  # [N, T, P] of the contract's terms
    qpos: np.ndarray  # [N, T + 1, nq]
    twin: np.ndarray  # [N, T + 1, nq] the same with NUDGE on every action
    margin: np.ndarray  # [N, T] of the decisions, see `Graph.row`; infinite where there is none
    returns: np.ndarray  # [N] up to the first termination


def record(
    env: MujocoEnv, contract: Mapping[str, Any], jax_fn: Callable[..., Mapping[str, Any]], starts: int, steps: int,
    seed: int,
) -> Episodes:  # fmt: skip
    """Run the policy in `env` on the native backend."""
    env, inputs = on_native(env), contract["onnx"]["inputs"]
    terms = terms_of(env.spec.obs, contract)
    hold = contract["hierarchy"]["hold"] if contract["hierarchy"] else 1
    keys = jax.random.split(jax.random.key(seed), starts)
    start = jax.jit(jax.vmap(env.reset))(keys)
    z = draw_latents(contract, starts, np.random.default_rng(seed)) * (contract["kind"] == "skill")
    draws = jnp.asarray(_draws(contract, starts, -(-steps // hold)))

    def chosen(given: Mapping[str, Any], decides: bool) -> Mapping[str, Any]:
        out = jax_fn(*({**given, "decide": jnp.full((starts, 1), float(decides))}[name] for name in inputs))
        margin = out["margin"][:, 0] if decides and "margin" in out else jnp.full(starts, jnp.inf)
        return {"action": out["action"], "z_next": out.get("z_next", given["z"]), "margin": margin}

    def step(nudge: Array, carry: tuple[State, Array], t: Array) -> Any:
        state, held = carry
        given = {"obs": terms(state.obs), "z": held, "noise": draws[:, t // hold]}
        decide, go_on = (functools.partial(chosen, given, decides) for decides in (True, False))
        out = jax.lax.cond(t % hold == 0, decide, go_on)  # a search is long: not where its outcome is not wanted
        after = jax.vmap(env.step)(state, out["action"] + nudge)
        seen = (given["obs"], out["margin"], after.data.qpos, after.reward, after.terminated)
        return (after, jnp.asarray(out["z_next"], jnp.float32)), seen

    @jax.jit
    def run(nudge: Array) -> Any:
        _, seen = jax.lax.scan(functools.partial(step, nudge), (start, jnp.asarray(z)), jnp.arange(steps))
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), seen)

    obs, margin, qpos, reward, ended = jax.tree.map(np.asarray, run(jnp.zeros(())))
    twin = np.asarray(run(jnp.asarray(NUDGE))[2])
    first = np.asarray(start.data.qpos)[:, None]
    qpos, twin = (np.concatenate([first, x], axis=1) for x in (qpos, twin))
    return Episodes(start, z, obs, qpos, twin, margin, _until_end(reward, ended))


def _draws(contract: Mapping[str, Any], starts: int, decisions: int) -> np.ndarray:
    """[N, decisions, width]: what `runner.Runner.draw` gives after `reset(seed=i)`, for start i."""
    width = contract["onnx"]["inputs"].get("noise", 0)
    each = [np.random.default_rng((i, 1)) for i in range(starts)]
    return np.stack([[rng.standard_normal(width, np.float32) for _ in range(decisions)] for rng in each])


def on_native(env: MujocoEnv) -> MujocoEnv:
    """`env` on C MuJoCo, without randomisation and sensor noise: the two loops must see the same."""
    task = dataclasses.replace(env.task, play=True) if isinstance(env.task, SimToReal) else env.task
    quiet = MujocoEnv(task, physics.make("native", task.model, task.fields))
    quiet._noise = np.zeros_like(quiet._noise)
    return quiet


def draw_latents(contract: Mapping[str, Any], n: int, rng: np.random.Generator) -> np.ndarray:
    """[n, D]: latents of a skill's prior; of a controller any choices, and zeros for what it has not decided yet."""
    width, hierarchy = contract["onnx"]["inputs"].get("z", 0), contract["hierarchy"]
    if contract["kind"] == "controller":
        columns = [_column(f["choices"], (n, f["size"]), rng) for f in hierarchy["fields"]]
        return np.concatenate(columns, axis=1).astype(np.float32)
    z = rng.normal(size=(n, width))
    if hierarchy and hierarchy["skills"][0]["latent"] == "sphere":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    elif hierarchy and hierarchy["skills"][0]["latent"] == "one_hot":
        z = np.eye(width)[rng.integers(0, width, n)]
    return z.astype(np.float32)


def _column(choices: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, choices, shape).astype(float) if choices else np.zeros(shape)


def closed_loop(loaded: runner.Runner, env: MujocoEnv, episodes: Episodes) -> dict[str, Any]:
    """Replay `episodes` with the export. Returns figures, or why there is no replay, and `problems`."""
    env, steps = on_native(env), episodes.obs.shape[1]
    witness = Witness(env, loaded.contract)
    begin = jax.tree.map(lambda x: x[0], episodes.start)
    unknown = witness.unknown(begin)
    if unknown:
        return {"skipped": f"nothing tells the runner {', '.join(unknown)}", "problems": []}
    model = runner.load_model(loaded.folder, loaded.contract["model"])
    runs = [_replay(loaded, witness, model, episodes, i) for i in range(len(episodes.qpos))]
    log = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    qpos, returns = log["qpos"], _until_end(log["reward"], log["ended"])
    root = loaded.contract["root"]
    clear = (episodes.margin[:, :TIGHT_STEPS] >= CLOSE).all(1)  # where no decision hangs on the last digits
    gap, twin = (np.abs(x - episodes.qpos)[clear] for x in (qpos, episodes.twin))
    figures = {
        "starts": len(runs),
        "clear_starts": int(clear.sum()),
        "steps": steps,
        f"qpos_error_{FIRST_STEPS}": float(gap[:, : FIRST_STEPS + 1].max(initial=0.0)),
        f"qpos_error_{TIGHT_STEPS}": float(gap[:, : TIGHT_STEPS + 1].max(initial=0.0)),
        f"qpos_twin_{TIGHT_STEPS}": float(twin[:, : TIGHT_STEPS + 1].max(initial=0.0)),
        "qpos_error_end": float(gap[:, -1].max(initial=0.0)),
        "observation_error": float(np.abs(log["obs"] - log["expected"]).max()),
        "return": _compare(episodes.returns, returns),
        "reach_m": _compare(_reach(episodes.qpos, root), _reach(qpos, root)),
    }
    return {**figures, "problems": _problems(figures)}


def _problems(figures: Mapping[str, Any]) -> list[str]:
    problems = []
    if not figures["observation_error"] <= OBS_TOLERANCE:
        problems.append(f"observations rebuilt by the runner are off by {figures['observation_error']:.2g}")
    limits = {FIRST_STEPS: FIRST, TIGHT_STEPS: max(FIRST, TWINS * figures[f"qpos_twin_{TIGHT_STEPS}"])}
    for steps, limit in limits.items():
        if not figures[f"qpos_error_{steps}"] <= limit:
            error = figures[f"qpos_error_{steps}"]
            problems.append(f"the replay is off by {error:.2g} within {steps} steps, allowed is {limit:.2g}")
    for name in ("return", "reach_m"):
        if not figures[name]["sigmas"] <= SIGMAS:
            problems.append(f"mean {name} is {figures[name]['export']:.3g}, in training {figures[name]['jax']:.3g}")
    return problems


def _replay(
    loaded: runner.Runner, witness: Witness, model: mujoco.MjModel, episodes: Episodes, i: int
) -> dict[str, np.ndarray]:
    """Trajectory of start `i`, what the task expects the runner to see [T, P], and its rewards and ends [T]."""
    skill = loaded.contract["kind"] == "skill"
    loaded.reset(z=episodes.z[i] if skill else None, seed=i)
    begin = jax.tree.map(lambda x: x[i], episodes.start)
    watch = witness.watch(begin, loaded)
    start = (episodes.qpos[i, 0], np.asarray(begin.data.qvel))
    world = varied(model, begin.data.overrides)
    out = loaded.simulate(episodes.obs.shape[1], world, start, commands=lambda t: watch.told, on_step=watch)
    return {**out, **watch.log()}


def _until_end(reward: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Sums [N] of reward [N, T] up to and including the first end."""
    alive = np.cumsum(ended, axis=1) - ended == 0
    return (reward * alive).sum(axis=1)


def _reach(qpos: np.ndarray, root: int) -> np.ndarray:
    """Distance [N] of the root from where it started, m."""
    return np.linalg.norm(qpos[:, -1, :root] - qpos[:, 0, :root], axis=1)


def _compare(expected: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Means, and their difference in standard errors (contacts are chaotic: long runs agree in the mean only)."""
    spread = np.sqrt((expected.var() + found.var()) / len(expected))
    gap = abs(float(expected.mean() - found.mean()))
    return {
        "jax": float(expected.mean()),
        "export": float(found.mean()),
        "sigmas": 0.0 if gap <= 1e-3 * max(1.0, abs(float(expected.mean()))) else gap / max(float(spread), 1e-9),
    }
