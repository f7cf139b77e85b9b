"""Native physics: a pure function, exact, whatever the batch, the nesting or the number of threads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from repertoire.envs import keys, registry
from repertoire.envs.mujoco_env import MujocoEnv
from repertoire.envs.physics.native import NativePhysics
from repertoire.errors import UserError

WORLDS = 6


@pytest.fixture(scope="module")
def task():
    return registry.make_task("ant_multi_goals")


@pytest.fixture(scope="module")
def env(task):
    return MujocoEnv(task, NativePhysics(task.model, ("xpos",)))


def rollout(env, worlds=WORLDS, steps=20, seed=0, over=None):
    """(first state, last state) of `steps` random actions as one jitted scan."""

    def run(keys, actions):
        state = jax.vmap(env.reset)(keys)
        return state, jax.lax.scan(lambda s, a: (jax.vmap(env.step)(s, a), None), state, actions)[0]

    actions = jax.random.uniform(jax.random.key(seed + 1), (steps, worlds, env.spec.action_size), minval=-1, maxval=1)
    return jax.jit(run)(jax.random.split(jax.random.key(seed), worlds), actions)


def bits(tree):
    def raw(x):
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x).tobytes()

    return [raw(x) for x in jax.tree.leaves(tree)]


def test_keys_of_a_world_are_those_of_jax():
    """Hashed one by one under `vmap`, the same bits as JAX's own split."""
    for count in (1, 2, 4):
        worlds = jax.random.split(jax.random.key(3), 5)
        mine = jax.vmap(lambda key, n=count: keys.split(key, n))(worlds)
        theirs = jax.vmap(lambda key, n=count: jax.random.split(key, n))(worlds)
        for i in range(count):
            assert bits(mine[i]) == bits(theirs[:, i])


def test_same_inputs_give_the_same_bits_in_any_order_of_calls(env):
    step, other = jax.jit(jax.vmap(env.step)), jax.jit(jax.vmap(env.reset))
    _, state = rollout(env)
    action = jnp.full((WORLDS, env.spec.action_size), 0.3)
    first = bits(step(state, action))
    rollout(env, seed=7)
    other(jax.random.split(jax.random.key(9), 3))  # another batch size
    step(state, -action)
    assert bits(step(state, action)) == first


def test_nested_vmap_is_the_flat_one(env):
    _, state = rollout(env)
    action = jax.random.uniform(jax.random.key(3), (WORLDS, env.spec.action_size))
    nested = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), state)
    flat = jax.jit(jax.vmap(env.step))(state, action)
    deep = jax.jit(jax.vmap(jax.vmap(env.step)))(nested, action.reshape(2, 3, -1))
    assert bits(deep) == bits(flat)
    mask = jnp.arange(WORLDS) % 2 == 0
    flat = jax.jit(jax.vmap(env.reset_where))(mask, flat)
    deep = jax.jit(jax.vmap(jax.vmap(env.reset_where)))(mask.reshape(2, 3), deep)
    assert bits(deep) == bits(flat)


def test_threads_change_nothing(task):
    results = [rollout(MujocoEnv(task, NativePhysics(task.model, ("xpos",), threads=n)))[1] for n in (1, 2)]
    assert bits(results[0]) == bits(results[1])


def test_scan_equals_a_loop_of_mj_step(task, env):
    start, end = rollout(env, steps=5)
    model = env.physics.model
    actions = np.asarray(jax.random.uniform(jax.random.key(1), (5, WORLDS, env.spec.action_size), minval=-1, maxval=1))
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start.data.qpos[2], start.data.qvel[2]
    mujoco.mj_forward(model, data)
    for action in actions[:, 2]:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, nstep=task.substeps)
    np.testing.assert_array_equal(end.data.qpos[2], data.qpos.astype(np.float32))
    np.testing.assert_array_equal(end.data.xpos[2], data.xpos.astype(np.float32))


def test_a_broken_action_stops_its_own_world_only(env):
    _, state = rollout(env)
    step = jax.jit(jax.vmap(env.step))
    good = jax.random.uniform(jax.random.key(5), (WORLDS, env.spec.action_size))
    bad = good.at[2, 1].set(jnp.nan)
    left, right = step(state, good), step(state, bad)
    np.testing.assert_array_equal(right.metrics["diverged"], np.eye(WORLDS)[2])
    assert bool(right.truncated[2]) and not bool(right.terminated[2])
    assert float(right.reward[2]) == 0.0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((right.obs, right.metrics)))
    others = np.arange(WORLDS) != 2
    assert bits(jax.tree.map(lambda x: x[others], left)) == bits(jax.tree.map(lambda x: x[others], right))
    fresh = jax.jit(jax.vmap(env.reset_where))(right.truncated, right)
    assert int(fresh.t[2]) == 0 and bool((fresh.t[others] > 0).all())
    later = step(fresh, good)
    assert float(later.metrics["diverged"].sum()) == 0.0 and bool(jnp.isfinite(later.obs["policy"]).all())


def test_diverging_physics_is_caught(env):
    state = env.reset(jax.random.key(0))
    qvel = state.data.qvel.at[0].set(1e9)
    data = env.physics.init(state.data.qpos, qvel)
    after = jax.jit(env.step)(state.replace(data=data), jnp.zeros(env.spec.action_size))
    assert float(after.metrics["diverged"]) == 1.0 and bool(after.truncated)


def test_reset_draws_anew_and_leaves_others_alone(env):
    _, state = rollout(env)
    mask = jnp.zeros(WORLDS, bool).at[1].set(True)
    once = jax.jit(jax.vmap(env.reset_where))(mask, state)
    again = jax.jit(jax.vmap(env.reset_where))(mask, once)
    assert not np.array_equal(once.data.qpos[1], again.data.qpos[1])
    np.testing.assert_array_equal(once.data.backend[0], state.data.backend[0])
    np.testing.assert_array_equal(once.obs["policy"][0], state.obs["policy"][0])


OVERRIDES = {
    "body_mass": lambda x, s: x * s,
    "dof_damping": lambda x, s: x * s,
    "geom_friction": lambda x, s: x * s,
    "actuator_gainprm": lambda x, s: x * s,
}


def drive(physics, task, overrides, steps=10):
    """qpos after `steps` control steps at a fixed control, one world per leading entry of `overrides`."""
    n = len(next(iter(overrides.values())))
    qpos = jnp.tile(jnp.asarray(task.model.qpos0, jnp.float32), (n, 1)).at[:, 2].set(0.55)
    data = jax.vmap(physics.init)(qpos, jnp.zeros((n, task.model.nv)), overrides)
    ctrl = jnp.tile(jnp.asarray([1.0, -1.0] * 4), (n, 1))
    step = jax.jit(jax.vmap(lambda d, u: physics.step(d, u, task.substeps)))
    for _ in range(steps):
        data = step(data, ctrl)
    return data


def scaled(model, scales):
    return {
        name: jnp.stack([jnp.asarray(f(getattr(model, name), s), jnp.float32) for s in scales])
        for name, f in OVERRIDES.items()
    }


def test_worlds_with_their_own_overrides_equal_separate_runs(env, task):
    scales = (0.5, 1.0, 2.0)
    together = drive(env.physics, task, scaled(task.model, scales))
    for i, scale in enumerate(scales):
        alone = drive(env.physics, task, scaled(task.model, (scale,)))
        np.testing.assert_array_equal(together.backend[i], alone.backend[0])
    assert np.abs(together.qpos[0] - together.qpos[2]).max() > 1e-2


def test_an_override_equals_a_model_compiled_that_way(env, task):
    physics = env.physics
    model = task.model.__copy__()
    model.body_mass[:] = model.body_mass.astype(np.float32) * np.float32(2.0)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    override = {"body_mass": jnp.asarray(model.body_mass, jnp.float32)[None]}
    changed = drive(physics, task, override)
    compiled = drive(NativePhysics(model), task, {"body_mass": override["body_mass"]})
    np.testing.assert_allclose(changed.qpos, compiled.qpos, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"body_mas": 1.0}, "did you mean 'body_mass'"), ({"body_mass": 1.0}, "shape")],
)
def test_impossible_overrides_are_named(env, task, overrides, message):
    with pytest.raises(UserError, match=message):
        env.physics.init(jnp.zeros(task.model.nq), jnp.zeros(task.model.nv), overrides)
