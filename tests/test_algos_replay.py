"""The ring: what goes in comes out, the oldest goes first, nothing empty is ever drawn, all rows alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.algos import replay
from repertoire.algos.types import Transition
from repertoire.envs.types import ObsSpec, Slice


def rollout(first, steps, worlds):
    """Numbered rows: `id` counts on from `first`, `pair` holds it twice."""
    ids = jnp.arange(first, first + steps * worlds, dtype=jnp.int32).reshape(steps, worlds)
    return {"id": ids, "pair": jnp.stack([ids, ids], -1).astype(jnp.float32)}


EXAMPLE = jax.tree.map(lambda x: x[0, 0], rollout(0, 1, 1))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 20), st.integers(0, 9))
def test_the_newest_rows_stay(steps, worlds, spare, times):
    capacity = steps * worlds + spare
    ring = replay.init(EXAMPLE, capacity)
    for i in range(times):
        ring = replay.insert(ring, rollout(1 + i * steps * worlds, steps, worlds))
    written = times * steps * worlds
    assert int(ring.size) == min(written, capacity)
    kept = sorted(np.asarray(ring.rows["id"])[: int(ring.size)].tolist())
    assert kept == list(range(max(written - capacity, 0) + 1, written + 1))
    np.testing.assert_array_equal(ring.rows["pair"][:, 0], ring.rows["id"])  # leaves stay in step


def test_no_empty_row_is_drawn_and_all_are_drawn_alike():
    ring = replay.insert(replay.init(EXAMPLE, 1000), rollout(1, 5, 4))
    drawn = replay.sample(ring, jax.random.key(0), 20_000)
    counts = np.bincount(np.asarray(drawn["id"]), minlength=21)
    assert counts[0] == 0 and len(counts) == 21  # row 0 is what an empty place holds
    chi2 = (np.square(counts[1:] - 1000) / 1000).sum()
    assert chi2 < 43.8  # 99.9 % point at 19 degrees of freedom
    np.testing.assert_array_equal(drawn["pair"][:, 1], drawn["id"])
    other = replay.sample(ring, jax.random.key(1), 20_000)
    assert not np.array_equal(drawn["id"], other["id"])


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=5), st.integers(6, 9))
def test_the_newest_of_the_chosen_rows_stay(masks, capacity):
    ring, chosen = replay.init(EXAMPLE, capacity), []
    for i, mask in enumerate(masks):
        rows = jax.tree.map(lambda x: x[0], rollout(1 + 6 * i, 1, 6))
        ring = replay.insert_where(ring, rows, jnp.asarray(mask))
        chosen += [1 + 6 * i + j for j, kept in enumerate(mask) if kept]
    size = min(len(chosen), capacity)
    assert int(ring.size) == size and int(ring.place) == len(chosen) % capacity
    assert sorted(np.asarray(ring.rows["id"])[:size].tolist()) == chosen[len(chosen) - size :]
    np.testing.assert_array_equal(ring.rows["pair"][:, 0], ring.rows["id"])


def test_one_ring_per_seed():
    rings = jax.vmap(lambda _: replay.init(EXAMPLE, 10))(jnp.arange(2))
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), rollout(1, 2, 3), rollout(101, 2, 3))
    rings = jax.jit(jax.vmap(replay.insert))(rings, both)
    drawn = jax.vmap(lambda r, k: replay.sample(r, k, 50))(rings, jax.random.split(jax.random.key(0)))
    assert [set(np.asarray(ids).tolist()) for ids in drawn["id"]] == [set(range(1, 7)), set(range(101, 107))]


@pytest.fixture
def spec():
    a, b, noisy = Slice("a", 1, history=2), Slice("b", 1), Slice("c", 1, noise=0.1)
    return ObsSpec({"policy": (a, noisy), "critic": (a, noisy, b), "features": (b, Slice("a", 2, scale=2.0))})


def transition(spec, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(3, 2)), rng.normal(size=(3, 1))
    groups = {"policy": [a, rng.normal(size=(3, 1))], "critic": [a, rng.normal(size=(3, 1)), b], "features": [b, 2 * a]}
    obs = {name: jnp.asarray(np.concatenate(parts, -1), jnp.float32) for name, parts in groups.items()}
    row = jnp.asarray(rng.normal(size=3), jnp.float32)
    flag = jnp.array([True, False, True])
    return Transition(
        obs=obs, next_obs=jax.tree.map(lambda x: x + 1, obs), z=row[:, None], action=row[:, None], log_prob=row,
        task_reward=row, terms={"kept": row, "dropped": row}, terminated=flag, cut=flag, age=jnp.arange(3),
        projected=row,
    )  # fmt: skip


def test_rows_are_compact_and_lose_nothing_that_is_read(spec):
    packer, given_ = replay.Packer(spec, ["kept"]), transition(spec, 0)
    row = packer.pack(given_)
    # a; b; c of the policy and c of the critic (two readings of a noisy sensor); a at another scale
    assert row.obs.shape == (3, packer.width) == (3, 2 + 1 + 1 + 1 + 2)
    found = packer.unpack(row)
    assert set(found.terms) == {"kept"}
    for name in ("obs", "next_obs", "z", "action", "task_reward", "terminated", "age", "projected"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(given_, name))
