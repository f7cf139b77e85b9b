"""MJX backends against native, and the batching that they are built on."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys

import jax
import jax.extend.core
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import physics, registry
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.physics import constants
from repertoire.envs.physics.batching import over_worlds
from repertoire.envs.physics.mjx import MjxPhysics
from repertoire.envs.physics.native import NativePhysics
from repertoire.envs.types import Start
from repertoire.errors import UserError

#: Compile fast, run slowly: these programs run for a second.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def compiled(function):
    return jax.jit(function, compiler_options=QUICK)


def trajectory(physics, start, ctrl, substeps):
    """Data at the start and after each control step; `ctrl` is [T, n, nu], `start` has n worlds."""
    data = compiled(jax.vmap(physics.init))(start.qpos, start.qvel, start.overrides)
    step = compiled(jax.vmap(lambda d, u: physics.step(d, u, substeps)))
    out = [data]
    for u in ctrl:
        out.append(step(out[-1], u))
    return out


def largest(a, b, field):
    return float(np.abs(np.asarray(getattr(a, field)) - np.asarray(getattr(b, field))).max(initial=0.0))


# -- batching -------------------------------------------------------------------------------------------------------


def test_over_worlds_sees_all_worlds_at_once():
    seen = []

    def double(x, y):
        seen.append(x.shape)
        return {"z": 2 * x + y}

    lifted = over_worlds(double)
    np.testing.assert_array_equal(lifted(jnp.ones(3), jnp.zeros(3))["z"], 2 * np.ones(3))
    nested = jax.jit(jax.vmap(jax.vmap(lifted, in_axes=(0, None)), in_axes=(0, 0)))
    out = nested(jnp.ones((4, 5, 3)), jnp.arange(12.0).reshape(4, 3))
    np.testing.assert_array_equal(out["z"][:, 2], 2 + np.arange(12.0).reshape(4, 3))
    assert seen[0] == (1, 3) and seen[-1] == (20, 3)


def equations(jaxpr):
    """All equations, those of called programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_a_reset_of_no_world_runs_no_physics():
    """The predicate of the branch is one boolean for the whole batch, under nested `vmap`s too."""
    task = registry.make_task("point")
    engine = MjxPhysics(task.model)
    start = jax.vmap(jax.vmap(task.start))(jax.random.split(jax.random.key(0), (2, 3)))
    data = jax.vmap(jax.vmap(engine.init))(start.qpos, start.qvel)
    reset = jax.vmap(jax.vmap(engine.reset_where))
    jaxpr = jax.make_jaxpr(reset)(jnp.zeros((2, 3), bool), data, start)
    conds = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "cond"]
    assert len(conds) == 1 and conds[0].invars[0].aval.shape == ()
    mask = jnp.zeros((2, 3), bool).at[1, 1].set(True)
    moved = start.replace(qpos=start.qpos + 1.0)
    after = reset(mask, data, moved)
    np.testing.assert_array_equal(after.qpos - data.qpos > 0.5, np.broadcast_to(mask[..., None], (2, 3, 2)))


@pytest.mark.skipif(importlib.util.find_spec("warp") is not None, reason="Warp is installed")
def test_mjx_without_warp_is_imported_without_a_word():
    code = "import repertoire.envs.physics.quiet"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == ""


# -- the env on mjx -------------------------------------------------------------------------------------------------


def test_an_env_runs_on_mjx_as_on_native():
    task = registry.make_task("point_maze", disc=True)
    keys = jax.random.split(jax.random.key(0), (2, 3))
    actions = jax.random.uniform(jax.random.key(1), (8, 2, 3, 2), minval=-1, maxval=1)

    def run(env):
        def step(state, action):
            state = jax.vmap(jax.vmap(env.step))(state, action)
            return jax.vmap(jax.vmap(env.reset_where))(state.t == 5, state), state

        return compiled(lambda: jax.lax.scan(step, jax.vmap(jax.vmap(env.reset))(keys), actions)[1])()

    native, other = (run(MujocoEnv(task, p(task.model, task.fields))) for p in (NativePhysics, MjxPhysics))
    for group in ("policy", "critic", "features"):
        np.testing.assert_allclose(native.obs[group], other.obs[group], atol=1e-4)
    np.testing.assert_array_equal(native.t, other.t)
    assert set(native.metrics) == set(other.metrics)


#: Distinct models of the registry, which the other tasks share -> (seconds, largest difference of qpos in m, rad).
#: The first 0.2 s must agree to 1e-5. The humanoid's contacts are costly here; the hurdles are hit late and hard.
MODELS = {
    "ant_forward": (1.0, 1e-3),
    "ant_maze": (0.5, 1e-3),
    "ant_push": (0.5, 1e-3),
    "half_cheetah": (1.0, 1e-3),
    "half_cheetah_hurdle": (1.0, 1e-2),
    "hopper": (1.0, 1e-3),
    "walker2d": (1.0, 1e-3),
    "humanoid": (0.3, 1e-3),
    "point": (1.0, 1e-3),
    "point_maze": (1.0, 1e-3),
}
#: Cells so small that the ant touches the walls within a few steps.
OPTIONS = {"point": {"disc": True}, "ant_maze": {"cell": 2.0}, "ant_push": {"cell": 2.0}}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_native_and_mjx_agree(name):
    """Same start and controls, in float64, with elliptic friction cones.

    In float32 contacts amplify rounding a hundredfold every 0.1 s. Pyramidal cones depend on how the contact frame
    is turned about its normal, and MJX turns it by another rule for capsules steeper than 60 degrees.
    """
    task = registry.make_task(name, **OPTIONS.get(name, {}))
    model = task.model
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model.geom_condim[:] = 3
    period = task.substeps * model.opt.timestep
    start = jax.vmap(task.start)(jax.random.split(jax.random.key(0), 1))
    low, high = model.actuator_ctrlrange.T
    seconds, tolerance = MODELS[name]
    shape = (round(seconds / period), 1, model.nu)
    ctrl = jax.random.uniform(jax.random.key(1), shape, minval=low, maxval=high, dtype=jnp.float32)
    if name.startswith("point"):
        ctrl = ctrl.at[..., 0].set(-1.0 if name == "point_maze" else 1.0)  # into the wall, into the disc
    with jax.enable_x64(True):
        runs = [trajectory(p(model, task.fields), start, ctrl, task.substeps) for p in (NativePhysics, MjxPhysics)]
    near = round(0.2 / period)
    for i, (a, b) in enumerate(zip(*runs)):
        assert largest(a, b, "qpos") < (1e-5 if i <= near else tolerance), f"after {i * period:.3f} s"
    for field in task.fields:
        np.testing.assert_allclose(getattr(runs[0][near], field), getattr(runs[1][near], field), atol=1e-2, rtol=1e-3)


# -- overrides ------------------------------------------------------------------------------------------------------

SLED = """
<mujoco>
  <option timestep="0.01" cone="elliptic" integrator="Euler"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" friction="0.3 0.01 0.001"/>
    <body name="sled" pos="0 0 0.1">
      <joint name="x" type="slide" axis="1 0 0" damping="0.5"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom name="sled" type="sphere" size="0.1" mass="1" friction="0.3 0.01 0.001"/>
    </body>
  </worldbody>
  <actuator><motor name="x" joint="x" gear="8" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


FIELDS = ("body_mass", "dof_damping", "geom_friction", "actuator_gainprm")
FACTORS = (0.7, 1.5)


def sled_starts(model):
    """The base model, then one world per (field, factor)."""
    base = {
        f: np.tile(getattr(model, f), (1 + len(FIELDS) * len(FACTORS), *[1] * getattr(model, f).ndim)) for f in FIELDS
    }
    for i, (field, factor) in enumerate(itertools.product(FIELDS, FACTORS)):
        base[field][1 + i] *= factor
    n = len(base["body_mass"])
    over = {f: jnp.asarray(v, jnp.float32) for f, v in base.items()}
    return Start(qpos=jnp.zeros((n, 2)), qvel=jnp.zeros((n, 2)), overrides=over)


def test_overrides_act_alike_on_native_and_mjx():
    model = mujoco.MjModel.from_xml_string(SLED)
    start = sled_starts(model)
    ctrl = jnp.ones((10, len(start.qpos), 1))
    ends = [trajectory(p(model), start, ctrl, 5)[-1] for p in (NativePhysics, MjxPhysics)]
    native, other = (np.concatenate([e.qpos, e.qvel], axis=1) for e in ends)
    effect = np.abs(native - native[0]).max(axis=1)
    assert (effect[1:] > 0.02).all()
    np.testing.assert_allclose(native, other, atol=1e-4)


@pytest.mark.parametrize("name", ["ant", "point"])
def test_derived_constants_are_mujocos(name):
    model = registry.make_task(name).model.__copy__()
    model.body_mass[:] *= np.linspace(0.5, 2.0, model.nbody)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    found = compiled(lambda mass: constants.derived(model, {"body_mass": mass}))(model.body_mass.astype(np.float32))
    for field, value in found.items():
        np.testing.assert_allclose(value, getattr(model, field), rtol=1e-4)
    assert constants.derived(model, {"geom_friction": 1.0}) == {}


@pytest.mark.parametrize("overrides", [{"body_mas": 1.0}, {"geom_condim": 1}, {"body_mass": 1.0}])
def test_impossible_overrides_are_named(overrides):
    model = mujoco.MjModel.from_xml_string(SLED)
    with pytest.raises(UserError):
        MjxPhysics(model).init(jnp.zeros(2), jnp.zeros(2), overrides)


# -- what a backend cannot do ---------------------------------------------------------------------------------------


def test_a_model_that_mjx_cannot_hold_is_refused_in_one_line():
    with pytest.raises(UserError, match="physics=mjx cannot hold this model") as error:
        registry.make("humanoid", "mjx", dynamics="reference")  # the PGS solver
    assert "\n" not in str(error.value)


def test_warp_without_a_gpu_is_refused_in_one_line():
    if jax.default_backend() == "gpu":
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="NVIDIA GPU"):
        registry.make("ant", "warp")
    assert physics.resolve("auto") == "native"
    with pytest.raises(UserError, match="did you mean 'native'"):
        registry.make("ant", "nativ")


# -- warp -----------------------------------------------------------------------------------------------------------

needs_warp = pytest.mark.skipif(
    importlib.util.find_spec("warp") is None, reason="needs warp-lang, which comes with the 'cuda' extra"
)


@needs_warp
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["point", "ant_forward"])
def test_warp_agrees_with_native(name):
    task = registry.make_task(name)
    model = task.model
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model.geom_condim[:] = 3
    start = jax.vmap(task.start)(jax.random.split(jax.random.key(0), 4))
    ctrl = jax.random.uniform(jax.random.key(1), (4, 4, model.nu), minval=-1, maxval=1)
    engines = NativePhysics(model, task.fields), MjxPhysics(model, task.fields, impl="warp")
    runs = [trajectory(engine, start, ctrl, task.substeps) for engine in engines]
    assert max(largest(a, b, "qpos") for a, b in zip(*runs)) < 1e-3
    assert float(jax.vmap(engines[1].metrics)(runs[1][-1])["overflow"].sum()) == 0.0


@needs_warp
@pytest.mark.gpu
def test_warp_runs_an_env_with_resets_under_nested_vmap():
    task = registry.make_task("ant")
    env = MujocoEnv(task, MjxPhysics(task.model, task.fields, impl="warp"))
    keys = jax.random.split(jax.random.key(0), (2, 3))

    def step(state, action):
        state = jax.vmap(jax.vmap(env.step))(state, action)
        return jax.vmap(jax.vmap(env.reset_where))(state.t == 2, state), state

    run = jax.jit(lambda: jax.lax.scan(step, jax.vmap(jax.vmap(env.reset))(keys), jnp.zeros((3, 2, 3, 8)))[1])()
    np.testing.assert_array_equal(run.t[:, 0, 0], [1, 2, 1])
    assert np.isfinite(run.obs["policy"]).all() and float(run.metrics["overflow"].sum()) == 0.0


@needs_warp
@pytest.mark.gpu
def test_warp_counts_dropped_constraints():
    task = registry.make_task("half_cheetah")
    engine = MjxPhysics(task.model, impl="warp", contacts=1, constraints=1)
    data = jax.vmap(engine.init)(jnp.zeros((2, 9)).at[:, 1].set(-0.3), jnp.zeros((2, 9)))
    data = jax.jit(jax.vmap(lambda d: engine.step(d, jnp.zeros(6), 5)))(data)
    assert float(jax.vmap(engine.metrics)(data)["overflow"].sum()) > 0
