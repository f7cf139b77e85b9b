"""Our physics, rewards and terminations against Gymnasium's v5 environments on the same controls."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import registry

STEPS = 40
IDS = {
    "ant_forward": "Ant-v5",
    "half_cheetah_forward": "HalfCheetah-v5",
    "hopper_forward": "Hopper-v5",
    "walker2d_forward": "Walker2d-v5",
    "humanoid_forward": "Humanoid-v5",
}


def compare(name, monkeypatch, dynamics):
    """Yields (our state, Gymnasium's env, reward, terminated, info) for each step from one start."""
    # Gymnasium imports imageio for its human viewer; nothing here renders.
    monkeypatch.setitem(sys.modules, "imageio", types.ModuleType("imageio"))
    import gymnasium

    ours = registry.make(name, "native", dynamics=dynamics)
    theirs = gymnasium.make(IDS[name]).unwrapped
    if dynamics == "fast":
        theirs.model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
        theirs.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    theirs.reset(seed=0)
    state, step = ours.reset(jax.random.key(0)), jax.jit(ours.step)
    theirs.set_state(np.asarray(state.data.qpos, np.float64), np.asarray(state.data.qvel, np.float64))
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        action = rng.uniform(-1, 1, ours.spec.action_size).astype(np.float32)
        state = step(state, action)
        _, reward, terminated, _, info = theirs.step(applied_control(ours, state))
        yield state, theirs, reward, terminated, info


def applied_control(env, state):
    """The control of the last step, exactly: compiled float32 arithmetic may round it differently from here."""
    row = np.asarray(state.data.backend).view(np.float64)
    data = mujoco.MjData(env.physics.model)
    mujoco.mj_setState(env.physics.model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION)
    return data.ctrl.copy()


@pytest.mark.parametrize("name", IDS)
def test_reference_dynamics_are_gymnasiums(name, monkeypatch):
    for state, theirs, reward, terminated, info in compare(name, monkeypatch, "reference"):
        np.testing.assert_allclose(state.data.qpos, theirs.data.qpos, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(state.data.qvel, theirs.data.qvel, rtol=1e-6, atol=1e-6)
        assert bool(state.terminated) == bool(terminated)
        # Under Runge-Kutta the contact term differs: see `Forward`
        contact = float(state.metrics.get("reward/contact", 0.0)) - info.get("reward_contact", 0.0)
        np.testing.assert_allclose(float(state.reward) - contact, reward, atol=1e-4)


@pytest.mark.parametrize("name", ["ant_forward", "humanoid_forward"])
def test_contact_cost_is_gymnasiums(name, monkeypatch):
    costs = []
    for state, _, reward, _, info in compare(name, monkeypatch, "fast"):
        np.testing.assert_allclose(state.metrics["reward/contact"], info["reward_contact"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.reward, reward, rtol=1e-4, atol=1e-4)
        costs.append(info["reward_contact"])
    assert min(costs) < 0


@pytest.mark.parametrize(("degrees", "way"), [(0, 3.0), (90, 4.0), (180, -3.0), (270, -4.0)])
def test_forward_may_point_anywhere(degrees, way):
    task = registry.make_task("ant_forward", direction=degrees)
    xpos = jnp.zeros((14, 3)).at[1].set(jnp.asarray([3.0, 4.0, 0.5]))
    assert float(task.progress(SimpleNamespace(xpos=xpos))) == pytest.approx(way, abs=1e-5)
    assert (task.mirror() is None) == (degrees % 180 != 0)


@pytest.mark.parametrize("name", IDS)
def test_start_noise_is_gymnasiums(name):
    task = registry.make_task(name)
    noise = {"ant": 0.1, "half_cheetah": 0.1, "hopper": 5e-3, "walker2d": 5e-3, "humanoid": 1e-2}
    scale = noise[name.removesuffix("_forward")]
    start = jax.vmap(task.start)(jax.random.split(jax.random.key(0), 500))
    assert task.reset_noise == scale
    assert np.abs(start.qpos - task.model.qpos0).max() == pytest.approx(scale, rel=0.3)
    spread = scale if task.gaussian_qvel else scale / np.sqrt(3)
    assert float(start.qvel.std()) == pytest.approx(spread, rel=0.05)
