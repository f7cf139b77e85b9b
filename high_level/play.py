"""Skills by hand: what keys and sliders set, and what it makes the skills do. Pure; knows no window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from repertoire.algos.types import Array
from repertoire.envs.types import Env, EnvSpec, State
from repertoire.errors import UserError, unknown
from repertoire.high_level.bank import Bank
from repertoire.high_level.types import Command, StatefulSkill
from repertoire.skills.skill import Skill

#: Key -> what it does.
KEYS = {
    "1 .. 9": "let that skill act alone (keypad)",
    "next": "the next skill alone (page down)",
    "previous": "the skill before it (page up)",
    "left": "choose the value before",
    "right": "choose the next value",
    "up": "raise the chosen value",
    "down": "lower it",
    "random": "draw the latent of the skill of the largest weight (insert)",
    "goal": "skills with a goal rule go to the goal, or obey their latents again (end)",
    "restart": "a fresh episode (delete)",
}
#: What a key adds to a value, as a part of its range; and how far a goal may lie from the origin, m.
STEP, REACH = 0.05, 10.0
#: Weights that sum to no more than this count as equal.
NOTHING = 1e-6


class Desk(NamedTuple):
    """What is set: all values in the order of `Panel.names`, the chosen one, whether goals are followed, counts."""

    values: tuple[float, ...]
    chosen: int = 0
    to_goal: bool = False
    draws: int = 0
    restarts: int = 0


class Panel:
    """The values that can be set for skills in an env: a latent and a weight of each, and a goal where one has a rule.

    Attributes:
      names: of the values. bounds: (low, high) of each. bank: the skills together.

    Args:
      skills: frozen skills. spec: of the env. Raises `UserError` for a skill that does not fit it.
    """

    def __init__(self, skills: Sequence[Skill], spec: EnvSpec) -> None:
        if not skills:
            raise UserError("there is nothing to play with: skills=[name@version]")
        for skill in skills:
            skill.fits(spec)
        self.bank, self.skills, self.spec = Bank(skills, spec), tuple(skills), spec
        labels = self.bank.labels
        self._ruled = [i for i, s in enumerate(self.skills) if _has_goal_rule(s, spec)]
        axes = max((self.skills[i].position.size for i in self._ruled), default=0)
        sizes = [s.prior.size for s in self.skills]
        self._first = np.cumsum([0, *sizes]).tolist()  # of each latent, and of the weights
        latents = [f"{label}/z{i}" for label, size in zip(labels, sizes, strict=True) for i in range(size)]
        self.names = (*latents, *(f"{label}/weight" for label in labels), *(f"goal/{a}" for a in "xyz"[:axes]))
        ranges = [(-1.0, 1.0)] * len(latents) + [(0.0, 1.0)] * len(labels) + [(-REACH, REACH)] * axes
        self.bounds = tuple(ranges)

    def start(self) -> Desk:
        """The first skill alone; of all latents the first of those that cover the prior."""
        latents = [x for s in self.skills if s.prior.size for x in s.prior.spread(1)[0].tolist()]
        return self._alone(Desk((*latents, *[0.0] * (len(self.names) - len(latents)))), 0)

    def press(self, desk: Desk, key: str) -> Desk:
        """The desk after a key of `KEYS`, or the number of a skill. Raises `UserError` for another key."""
        if key.isdigit():
            return self._alone(desk, int(key) - 1) if 0 < int(key) <= len(self.skills) else desk
        if key not in KEYS:
            raise unknown("key", key, KEYS)
        sign, now = (1 if key in ("next", "right", "up") else -1), self.acting(desk)
        if key in ("next", "previous"):
            return self._alone(desk, (now + sign) % len(self.skills))
        if key in ("left", "right"):
            return desk._replace(chosen=(desk.chosen + sign) % len(self.names))
        if key in ("up", "down"):
            low, high = self.bounds[desk.chosen]
            return self.slide(desk, desk.chosen, desk.values[desk.chosen] + sign * STEP * (high - low))
        if key == "random":
            z = self.skills[now].prior.sample(jax.random.key(desk.draws)).tolist()
            return _set(desk, self._first[now], z)._replace(draws=desk.draws + 1)
        return desk._replace(to_goal=not desk.to_goal) if key == "goal" else desk._replace(restarts=desk.restarts + 1)

    def slide(self, desk: Desk, index: int, value: float) -> Desk:
        """The desk with one value set, within its bounds, and chosen."""
        return _set(desk, index, [float(np.clip(value, *self.bounds[index]))])._replace(chosen=index)

    def acting(self, desk: Desk) -> int:
        """The skill of the largest weight."""
        first = self._first[-1]
        return int(np.argmax(desk.values[first : first + len(self.skills)]))

    def command(self, state: State, values: Array, to_goal: Array) -> tuple[tuple[Array, ...], Array]:
        """(latent [D_i] of each skill, weights [n]) that `Desk.values` mean in a state; all 0: equal weights."""
        count, first = len(self.skills), self._first[-1]
        raw = jnp.split(values[:first], self._first[1:-1])
        weights, goal = values[first : first + count], values[first + count :]
        latents = [s.prior.project(z) for s, z in zip(self.skills, raw, strict=True)]
        for i in self._ruled:
            skill = self.skills[i]
            features = state.obs["features"][self.spec.obs.index("features", skill.features)]
            there = features.at[skill.position].set(goal[: skill.position.size])
            latents[i] = jnp.where(to_goal, skill.goal_latent(features, there), latents[i])
        total = weights.sum()
        return tuple(latents), jnp.where(total > NOTHING, weights / jnp.maximum(total, NOTHING), 1 / count)

    def describe(self, desk: Desk) -> str:
        """One line: who acts most, and the chosen value."""
        value = f"{self.names[desk.chosen]} = {desk.values[desk.chosen]:+.2f}"
        return f"{self.bank.labels[self.acting(desk)]}: {value}" + ("   to the goal" if desk.to_goal else "")

    def _alone(self, desk: Desk, skill: int) -> Desk:
        """Weight 1 for one skill; the first entry of its latent is chosen."""
        alone = [float(i == skill) for i in range(len(self.skills))]
        return _set(desk, self._first[-1], alone)._replace(chosen=self._first[skill])


def driver(env: Env, panel: Panel) -> Callable[[State, Command, Array, Array], tuple[State, Command]]:
    """(state, skills' memory, `Desk.values`, `Desk.to_goal`) -> state and memory after one control step.

    The action is the sum of the skills' actions by their weights, each clipped as the env would clip it.
    """

    def step(state: State, memory: Command, values: Array, to_goal: Array) -> tuple[State, Command]:
        latents, weights = panel.command(state, values, to_goal)
        actions, memory = panel.bank.act(state.obs["policy"], latents, memory)
        return env.step(state, weights @ jnp.clip(actions, -1.0, 1.0)), memory

    return step


def _set(desk: Desk, first: int, values: Sequence[float]) -> Desk:
    return desk._replace(values=(*desk.values[:first], *values, *desk.values[first + len(values) :]))


def _has_goal_rule(skill: Skill, spec: EnvSpec) -> bool:
    """Whether it turns positions in this env into latents."""
    if isinstance(skill, StatefulSkill) or not (skill.position.size and skill.has_goal_rule):
        return False
    return set(skill.features) <= {s.name for s in spec.obs.groups["features"]}
