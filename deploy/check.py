"""Does the export do what the policy does? Outputs against JAX on recorded observations, and a closed-loop replay.

Float32 sums in another order differ in the last digits, and where a network amplifies them no tolerance in absolute
terms is right for all. So the tolerance is 1e-5, or where that is more, ten times the distance of JAX's own float32
from JAX in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.deploy import runner
from repertoire.deploy.contract import load_contract, user_errors
from repertoire.deploy.replay import CLOSE, closed_loop, draw_latents, record
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.errors import UserError

#: (inputs [B, width] in the order of the contract) -> outputs [B, width] by name; `logits` and `margin` are optional.
Reference = Callable[..., Mapping[str, Any]]

TOLERANCE, FLOORS = 1e-5, 10.0
ROWS, EXTREME = 1000, 100.0
SEARCHED = 250  # rows of a planner that are compared: each is hundreds of passes through its networks
TIE = 1e-4  # relative margin below which two options count as equally good
#: Share of the recorded rows that must be compared, see `_compared`; and where the replay has nothing to say.
HALF, MOST = 0.5, 0.9


def check(
    out_dir: str | Path,
    jax_fn: Reference,
    recorded_obs: np.ndarray | None = None,
    env: MujocoEnv | None = None,
    starts: int = 8,
    steps: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare an export with the policy it came from and write `parity.json` into it.

    Args:
      out_dir: the export. jax_fn: the policy, batched; `Graph.fn`, or better the live one.
      recorded_obs: [N, P] observations of the terms in the contract, N >= 1000; drawn from `env` where not given.
      env: adds the closed-loop replay: `starts` episodes of `steps` control steps in C MuJoCo.
    Returns: the figures. Raises `UserError` where they are out of bounds (`parity.json` is written all the same).
    """
    contract = load_contract(out_dir)
    with user_errors(), jax.default_matmul_precision("highest"):  # accelerators would multiply in less than float32
        loaded = runner.Runner(out_dir)
        episodes = None if env is None else record(env, contract, jax_fn, starts, steps, seed)
        if recorded_obs is None:
            recorded_obs = None if episodes is None else episodes.obs.reshape(-1, episodes.obs.shape[-1])
        if recorded_obs is None or len(recorded_obs) < ROWS:
            found = 0 if recorded_obs is None else len(recorded_obs)
            raise UserError(f"the check needs {ROWS} recorded observations, got {found}: give more, or raise steps")
        figures: dict[str, Any] = {"outputs": _outputs(loaded, jax_fn, np.asarray(recorded_obs, np.float32), seed)}
        if env is not None and episodes is not None:
            figures["closed_loop"] = closed_loop(loaded, env, episodes)
            figures["closed_loop"]["problems"] += _unseen(figures)
    problems = [problem for part in figures.values() for problem in part["problems"]]
    figures["passed"] = not problems
    (Path(out_dir) / "parity.json").write_text(json.dumps(figures, indent=1) + "\n")
    if problems:
        raise UserError(f"export {out_dir} does not match the policy: {problems[0]}")
    return figures


def _outputs(loaded: runner.Runner, jax_fn: Reference, obs: np.ndarray, seed: int) -> dict[str, Any]:
    """Figures of all cases: recorded and 100-fold observations, deciding and holding, batches of 1 and of many."""
    rng = np.random.default_rng(seed)
    if "noise" in loaded.contract["onnx"]["inputs"]:
        obs = rng.permutation(obs)[:SEARCHED]
    cases: dict[str, Any] = {}
    for name, rows in (("recorded", obs), ("extreme", EXTREME * obs)):
        for decide in (0, 1) if "decide" in loaded.contract["onnx"]["inputs"] else (0,):
            inputs = _inputs(loaded.contract, rows, decide, rng)
            if "decide" in inputs:
                inputs["z"] = _held(loaded.contract, jax_fn, rows, rng)
            label = name if "decide" not in inputs else f"{name}, {'deciding' if decide else 'holding'}"
            cases[label] = _case(loaded, jax_fn, inputs)
            if name == "recorded" and cases[label]["compared"] < HALF:
                share = f"{cases[label]['compared']:.0%} of the decisions could be compared"
                cases[label]["problems"].append(f"only {share}: the others hang on the last digits")
    problems = [f"{label}: {problem}" for label, case in cases.items() for problem in case.pop("problems")]
    worst = {
        f"{kind}_error": max(case["max_error"] for label, case in cases.items() if label.startswith(kind))
        for kind in ("recorded", "extreme")
    }
    compared = min(case["compared"] for label, case in cases.items() if label.startswith("recorded"))
    return {"rows": len(obs), **worst, "compared": compared, "cases": cases, "problems": problems}


def _unseen(figures: Mapping[str, Any]) -> list[str]:
    """The problem of a replay in which no start could be followed: then the outputs alone must show nearly all."""
    if figures["closed_loop"].get("clear_starts") != 0 or figures["outputs"]["compared"] >= MOST:
        return []
    share = f"{figures['outputs']['compared']:.0%} of the decisions could be compared"
    return [f"in every start of the replay a decision hangs on the last digits, and of the recorded ones only {share}"]


def _inputs(contract: Mapping[str, Any], obs: np.ndarray, decide: int, rng: np.random.Generator) -> dict[str, Any]:
    widths, n = contract["onnx"]["inputs"], len(obs)
    inputs = {"obs": obs, "z": draw_latents(contract, n, rng)}
    inputs["decide"] = np.full((n, 1), decide, np.float32)
    inputs["noise"] = rng.standard_normal((n, widths.get("noise", 0)), np.float32)
    return {name: inputs[name] for name in widths}


def _held(contract: Mapping[str, Any], jax_fn: Reference, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """States [N, D] that the controller may hold: its decisions on other observations, any choices, any clocks."""
    others = _inputs(contract, rng.permutation(obs), 1, rng)
    decided = np.asarray(jax.jit(jax_fn)(*others.values())["z_next"])
    whole = np.repeat([f["choices"] > 0 for f in contract["hierarchy"]["fields"]], _sizes(contract))
    return np.where(whole, draw_latents(contract, len(obs), rng), decided)


def _sizes(contract: Mapping[str, Any]) -> list[int]:
    return [f["size"] for f in contract["hierarchy"]["fields"]]


def _case(loaded: runner.Runner, jax_fn: Reference, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Errors of one set of inputs; `ctrl` in units of its range, everything else absolute."""
    scale = np.asarray(loaded.contract["action"]["scale"])
    units = {"ctrl": np.maximum(np.abs(scale), 1.0)}
    expected = {k: np.asarray(v) for k, v in jax.jit(jax_fn)(*inputs.values()).items()}
    exact = _in_float64(jax_fn, inputs)
    many, single = _run(loaded, inputs), _run_single(loaded, inputs, 100)
    close = _close(expected, inputs, len(many["action"]))
    same = (_same_choice(expected, many) & _same_choice(expected, exact)) | close
    figures: dict[str, Any] = {"max_error": 0.0, "float32_error": 0.0, "ties": int((~same).sum()), "problems": []}
    if figures["ties"] and not _are_ties(expected, ~same):
        figures["problems"].append(f"{figures['ties']} of {len(same)} decisions differ")
    other = np.zeros(len(same), bool)  # decisions that hang on the last digits, and fell otherwise
    for name, value in many.items():
        unit = units.get(name, 1.0)
        errors, floor = _errors(value - expected[name], unit), _errors(exact[name] - expected[name], unit)
        few = single[name] - value[: len(single[name])]
        errors[: len(few)] = np.maximum(errors[: len(few)], _errors(few, unit))
        floor = floor[same & ~close].max(initial=0.0)
        off = ~(errors <= max(TOLERANCE, FLOORS * floor))  # NaN compares false
        other |= off & close
        error = errors[same & ~(off & close)].max(initial=0.0)
        figures["max_error"] = max(figures["max_error"], float(error))
        figures["float32_error"] = max(figures["float32_error"], float(floor))
        if (off & same & ~close).any():
            figures["problems"].append(f"{name} is off by {error:.2g} (float32 itself by {floor:.2g})")
    compared = _compared(loaded.contract, close, other)
    return {**figures, "ties": figures["ties"] + int(other.sum()), "close": int(close.sum()), "compared": compared}


def _close(expected: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """Rows [B] whose decision hangs on the last digits of float32; where nothing is decided none does."""
    decides = inputs["decide"][:, 0] > 0.5 if "decide" in inputs else np.ones(rows, bool)
    return decides & (expected["margin"][:, 0] < CLOSE) if "margin" in expected else np.zeros(rows, bool)


def _compared(contract: Mapping[str, Any], close: np.ndarray, other: np.ndarray) -> float:
    """Share of the rows that say something of the export; `close` [B], and those of them that fell otherwise, `other`.

    Close rows of which the number of an option is held say nothing: the right one may be luck. Of latents and plans,
    those that agree do: luck brings no two searches to the same numbers. And a planner needs them, as in a search that
    has converged the best candidates are all but equal, so most of its decisions are close by nature.
    """
    option = (contract["hierarchy"] or {}).get("mode", "").endswith("choice")
    searched = "noise" in contract["onnx"]["inputs"]
    return float((~(close if option and not searched else other)).mean())


def _run(loaded: runner.Runner, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = list(loaded.contract["onnx"]["outputs"])
    return dict(zip(names, loaded.session.run(names, dict(inputs)), strict=True))


def _run_single(loaded: runner.Runner, inputs: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """The first rows as batches of one."""
    count = min(rows, len(next(iter(inputs.values()))))
    singles = [_run(loaded, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(count)]
    return {k: np.concatenate([s[k] for s in singles]) for k in singles[0]}


def _in_float64(jax_fn: Reference, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with jax.enable_x64(True):
        wide = [jnp.asarray(x, jnp.float64) for x in inputs.values()]
        return {k: np.asarray(v) for k, v in jax.jit(jax_fn)(*wide).items()}


def _same_choice(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows [B] in which both hold the same option or (about the) same latent."""
    if "z_next" not in a or "z_next" not in b:
        return np.ones(len(b["action"]), bool)
    return np.abs(a["z_next"] - b["z_next"]).max(axis=1) < 0.5


def _are_ties(expected: Mapping[str, np.ndarray], rows: np.ndarray) -> bool:
    """Whether the two best logits of all these rows are about equal."""
    if "logits" not in expected or expected["logits"].shape[1] < 2:
        return bool(rows.mean() < 0.005)
    top = np.sort(expected["logits"][rows], axis=1)[:, -2:]
    return bool((np.diff(top)[:, 0] <= TIE * np.maximum(np.abs(expected["logits"][rows]).max(axis=1), 1e-3)).all())


def _errors(difference: np.ndarray, unit: Any) -> np.ndarray:
    """Largest [B] of each row."""
    return np.asarray(np.abs(difference / unit).max(axis=1, initial=0.0))
