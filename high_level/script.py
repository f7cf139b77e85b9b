"""A scripted state machine over frozen skills: stages in a fixed order, each until it is done. It needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.types import EnvSpec, State
from repertoire.errors import UserError, unknown
from repertoire.high_level.macro_env import MacroEnv
from repertoire.high_level.rules import Reader, reader

#: What a stage of a config may say of its end, and in all.
END = ("steps", "until")
KEYS = ("choice", "latent", *END)


class Condition(NamedTuple):
    """Whether the length of what `read` gives is below (else above) `value`."""

    read: Reader
    below: bool
    value: float

    def __call__(self, state: State) -> Array:
        """[] bool."""
        length = jnp.linalg.norm(self.read(state))
        return length < self.value if self.below else length > self.value


class Stage(NamedTuple):
    """One macro action, held for `steps` macro steps (0: no limit) or until `until` holds; without either for good."""

    action: np.ndarray
    steps: int = 0
    until: Condition | None = None

    def done(self, state: State, count: Array) -> Array:
        """Whether the stage is over after `count` macro steps of it."""
        over = (count >= self.steps) if self.steps else jnp.zeros((), bool)
        return over if self.until is None else over | self.until(state)


@dataclass(frozen=True, eq=False)  # told apart by identity, as functions are: jit asks
class Machine:
    """The stages in turn, the last of them for good; the memory is (stage, macro steps in it).

    A stage whose condition holds already is passed over.
    """

    stages: tuple[Stage, ...]

    def start(self, key: Array, state: State) -> tuple[Array, Array]:
        """At the first stage."""
        return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)

    def step(self, key: Array, state: State, memory: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        """Action of the stage that it is time for."""
        stage, count = memory
        for i, one in enumerate(self.stages[:-1]):
            leave = (stage == i) & one.done(state, count)
            stage, count = jnp.where(leave, i + 1, stage), jnp.where(leave, 0, count)
        return jnp.stack([jnp.asarray(s.action) for s in self.stages])[stage], (stage, count + 1)


def machine(stages: Sequence[Stage]) -> Machine:
    """`Machine` of at least one stage. Raises `UserError` for none."""
    if not stages:
        raise UserError("a script needs at least one stage: controller.script=[{choice:0,steps:4},{choice:1}]")
    return Machine(tuple(stages))


def stages_of(env: MacroEnv, script: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """Stages from plain data: `{choice: 3, steps: 4}`, `{latent: [1, 0], until: {slice: goal, below: 1.0}}`.

    A condition compares the length of a policy slice of the task, in the slice's own unit. Every stage but the last has
    one, or a number of macro steps, or both. Raises `UserError` for what does not fit the controller or the task.
    """
    try:
        return [_stage(env, i, dict(row), last=i == len(script) - 1) for i, row in enumerate(script)]
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"cannot read the script ({error}): stages are {{choice: 0, steps: 4}}") from None


def as_run(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The stages that a finished run went through, also one from before their ends were checked.

    The last went on for good whatever it said of its end, and so did an earlier one without an end.
    """
    ends = [bool(row.get("steps") or row.get("until")) for row in rows[:-1]]
    count = ends.index(False) if False in ends else len(ends)
    return [*rows[:count], *({k: v for k, v in row.items() if k not in END} for row in rows[count : count + 1])]


def _stage(env: MacroEnv, i: int, row: dict[str, Any], last: bool) -> Stage:
    for key in row:
        if key not in KEYS:
            raise unknown(f"setting of stage {i} of the script", key, KEYS)
    steps, condition = _end(env.env.spec, i, row, last)
    n, size = env.spec.discrete, env.spec.action_size
    if n:
        choice = row.get("choice")
        if not isinstance(choice, int) or not 0 <= choice < n:
            raise UserError(f"stage {i} of the script needs choice: 0 .. {n - 1} (controller.mode=choice)")
        return Stage(np.asarray(choice, np.int32), steps, condition)
    latent = np.asarray(row.get("latent", ()), np.float32)
    if latent.shape != (size,):
        raise UserError(f"stage {i} of the script needs latent: a list of {size} numbers (controller.mode=latent)")
    return Stage(latent, steps, condition)


def _end(spec: EnvSpec, i: int, row: dict[str, Any], last: bool) -> tuple[int, Condition | None]:
    """`steps` and `until` of a stage, which all but the last need."""
    steps, until = row.get("steps"), row.get("until")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise UserError(f"stage {i} of the script: steps must be a whole number of at least 1, got {steps!r}")
    if last != (steps is None and until is None):
        raise UserError(
            f"stage {i} of the script is the last, which goes on for good: leave out steps and until, or add a stage"
            if last
            else f"stage {i} of the script would never end: give it steps or until, which only the last does without"
        )
    return steps or 0, None if until is None else _condition(spec, dict(until))


def _condition(spec: EnvSpec, until: dict[str, Any]) -> Condition:
    read, bounds = reader(spec, str(until.pop("slice", None))), until
    if set(bounds) not in ({"below"}, {"above"}):
        raise UserError("a condition is until: {slice: NAME, below: VALUE} or {slice: NAME, above: VALUE}")
    ((kind, value),) = bounds.items()
    return Condition(read, kind == "below", float(value))
