"""Task x skill allocation: hand numbers, and the skills of tasks found again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repertoire.errors import UserError
from repertoire.high_level import allocation

KEY = jax.random.key(0)


def test_rows_are_means_over_the_skills_of_a_task():
    rows = allocation.normalised(jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [0.2, 0.1, 0.1], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[1, 0, 0], [0.5, 0, 0.5], [0.5, 0.25, 0.25], [0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_relaxed_draws_lie_above_a_half_as_often_as_the_bernoulli_is_one(temperature):
    share = np.array([0.1, 0.5, 0.9])
    logits = jnp.asarray(np.log(share / (1 - share)))
    drawn = jax.vmap(lambda k: allocation.sample(k, logits, temperature))(jax.random.split(KEY, 4000))
    assert float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    np.testing.assert_allclose((drawn > 0.5).mean(0), share, atol=0.03)  # 3.8 standard errors
    middling = float(((drawn > 0.1) & (drawn < 0.9)).mean())
    assert middling < 0.1 if temperature < 1 else middling > 0.5
    with pytest.raises(UserError, match="temperature of an allocation must be positive, got 0"):
        allocation.sample(KEY, logits, 0)


def test_kernels_of_tasks_by_hand():
    a, b = jnp.array([[[1.0], [0.0]], [[0.0], [2.0]]]), jnp.array([[[1.0, 1.0]], [[0.0, 3.0]]])
    kernels = allocation.effective(jnp.eye(2), a, b, jnp.array([[0.0, 0.0], [0.5, 0.5]]))
    np.testing.assert_allclose(kernels, [[[1, 0], [0, 1]], [[1.5, 0.5], [0, 4]]])


def test_the_skills_of_every_task_are_found_from_its_kernel():
    """Four tasks of three known skills, one of them the mean of two, and allocations learned through their noise."""
    truth = allocation.normalised(jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]))
    a_key, b_key, key = jax.random.split(KEY, 3)
    known = jnp.zeros((4, 4)), jax.random.normal(a_key, (3, 4, 1)), jax.random.normal(b_key, (3, 1, 4))
    wanted, adam = allocation.effective(*known, truth), optax.adam(0.05)

    def loss(logits, key):
        weights = allocation.normalised(allocation.sample(key, logits))
        return jnp.square(allocation.effective(*known, weights) - wanted).mean()

    def step(carry, key):
        logits, state = carry
        updates, state = adam.update(jax.grad(loss)(logits, key), state)
        return (optax.apply_updates(logits, updates), state), None

    first = jnp.zeros((4, 3))
    (logits, _), _ = jax.jit(lambda x: jax.lax.scan(step, (x, adam.init(x)), jax.random.split(key, 1000)))(first)
    np.testing.assert_allclose(allocation.normalised(jax.nn.sigmoid(logits)), truth, atol=0.1)
