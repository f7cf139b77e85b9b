"""`play`: frozen skills by hand in MuJoCo's viewer; keys pick the skill, keys or sliders set latents, weights, goal."""

from __future__ import annotations

import itertools
import os
import queue
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from repertoire.errors import UserError
from repertoire.high_level import frozen
from repertoire.high_level.play import KEYS, Desk, Panel, driver
from repertoire.scripts import build, config, pinning
from repertoire.skills.library import Library

#: Key codes of GLFW that MuJoCo's viewer does not use itself -> our names; the keypad's digits are 321 .. 329.
CODES = {
    267: "next", 266: "previous", 263: "left", 262: "right", 265: "up", 264: "down", 260: "random", 269: "goal",
    261: "restart", **{320 + i: str(i) for i in range(1, 10)},
}  # fmt: skip


class Window(Protocol):
    """What is used of the handle of `mujoco.viewer.launch_passive`."""

    def is_running(self) -> bool:
        """False once it was closed."""
        ...

    def sync(self) -> None:
        """Show the state, and fetch what sliders did."""
        ...


class Display(NamedTuple):
    """What the window shows. Actuators from number `first` on are sliders, a value of the panel each; none may be."""

    model: mujoco.MjModel
    data: mujoco.MjData
    first: int

    @property
    def sliders(self) -> np.ndarray:
        """Their positions, to read and to set."""
        return np.asarray(self.data.ctrl[self.first :])


Pressed = queue.SimpleQueue[int]


def main(verb: str, args: list[str]) -> None:
    """Entry of the verb."""
    config.main("play", args, run)


def run(cfg: dict[str, Any]) -> None:
    """Open the window and play until it is closed. Raises `UserError` without a display."""
    if not cfg["speed"] > 0:
        raise UserError(f"speed must be above 0, got {cfg['speed']}")
    build.prepare(cfg)
    env, store = build.env_of(cfg), Library(cfg["library"])
    panel = Panel([frozen.load(store, r) for r in pinning.references(cfg)], env.spec)
    require_display(sys.platform, os.environ)
    from mujoco import viewer

    pressed: Pressed = queue.SimpleQueue()
    shown = display_of(env, panel)
    print("\n".join(f"  {key:9s} {what}" for key, what in KEYS.items()))
    with viewer.launch_passive(shown.model, shown.data, key_callback=pressed.put) as window:
        play(env, panel, window, shown, pressed, cfg)


def require_display(platform: str, environment: Mapping[str, str]) -> None:
    """`UserError` where no window can be opened."""
    if platform.startswith("linux") and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        raise UserError("play needs a display, and there is none here: use rollout, or a desktop, or ssh -X")


def display_of(env: Any, panel: Panel) -> Display:
    """The env's model with a slider for each value of `panel`, among the controls of the viewer's right side."""
    if not hasattr(env.task, "spec_mjcf"):
        raise UserError(f"env {env.spec.name} cannot be played: it has no MJCF to put sliders on; use rollout")
    spec = env.task.spec_mjcf()
    joint = spec.joints[0].name or "first"
    spec.joints[0].name = joint
    for name, bounds in zip(panel.names, panel.bounds, strict=True):
        # it drives nothing: the window's copy is never stepped
        spec.add_actuator(name=name, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=bounds, ctrllimited=1)
    model = spec.compile()
    return Display(model, mujoco.MjData(model), model.nu - len(panel.names))


def play(env: Any, panel: Panel, window: Window, shown: Display, pressed: Pressed, cfg: dict[str, Any]) -> Desk:
    """Step, show and listen until the window is closed; what was set in the end."""
    step, reset, desk = jax.jit(driver(env, panel)), jax.jit(env.reset), panel.start()
    keys = map(jax.random.key, itertools.count(cfg["seed"]))
    state, memory = reset(next(keys)), panel.bank.start()
    shown.sliders[:] = desk.values
    while window.is_running():
        began, before = time.monotonic(), desk
        desk = listen(panel, desk, shown.sliders, pressed)
        if desk.restarts != before.restarts or bool(state.terminated | state.truncated):
            state, memory = reset(next(keys)), panel.bank.start()
        state, memory = step(state, memory, jnp.asarray(desk.values), jnp.asarray(desk.to_goal))
        shown.data.qpos[:], shown.sliders[:] = np.asarray(state.data.qpos), desk.values
        mujoco.mj_kinematics(shown.model, shown.data)
        window.sync()
        if desk != before:
            print(panel.describe(desk), flush=True)
        time.sleep(max(0.0, env.spec.dt / cfg["speed"] - (time.monotonic() - began)))
    return desk


def listen(panel: Panel, desk: Desk, sliders: np.ndarray, pressed: Pressed) -> Desk:
    """The desk after what was moved and pressed since it was shown; keys without a meaning are the viewer's own."""
    for i in np.flatnonzero(~np.isclose(sliders, desk.values, atol=1e-6)):
        desk = panel.slide(desk, int(i), float(sliders[i]))
    while not pressed.empty():
        name = CODES.get(pressed.get())
        desk = panel.press(desk, name) if name else desk
    return desk
