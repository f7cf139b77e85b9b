"""DCI: known answers on importance matrices, and on rollouts whose structure is known."""

import numpy as np
import pytest

from repertoire.errors import UserError
from repertoire.skills import disentanglement as dis

PARTS = (np.array([0, 1]), np.array([2, 3]))


def test_scores_of_known_matrices():
    assert dis.dci_scores(np.diag([0.9, 0.2, 0.5])) == pytest.approx((1.0, 1.0))
    assert dis.dci_scores(np.full((3, 4), 0.3)) == pytest.approx((0.0, 0.0))
    assert dis.dci_scores(np.zeros((2, 2))) == (0.0, 0.0)
    # two parts share a factor: each rules one factor, but the factor is ruled by both
    assert dis.dci_scores(np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx((1.0, 0.0))
    # by hand: rows (3/4, 1/4) of weight 4 and (0, 1) of weight 2
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert dis.dci_scores(np.array([[3.0, 1.0], [0.0, 2.0]]))[0] == pytest.approx((4 * (1 - entropy) + 2) / 6)
    with pytest.raises(UserError, match="at least 2"):
        dis.dci_scores(np.ones((1, 3)))


@pytest.fixture(scope="module")
def z():
    return np.random.default_rng(0).normal(size=(400, 4))


def test_each_part_rules_its_own_factor(z):
    features = np.concatenate([z[:, :2] * 5.0, z[:, 2:] + 3.0], axis=1)
    found = dis.dci(z, features, PARTS, PARTS)
    assert min(found.values()) > 0.8


def test_every_part_rules_every_factor_alike(z):
    both = z[:, :2] + z[:, 2:]
    found = dis.dci(z, np.concatenate([both, both], axis=1), PARTS, PARTS)
    assert found["dci_disentanglement"] < 0.05 and found["dci_completeness"] < 0.05
    assert found["dci_informativeness"] > 0.7


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_a_factor_that_nothing_rules_has_no_importance(z, scale):
    noise = scale * np.random.default_rng(1).normal(size=(400, 2))
    found = dis.importance(z, np.concatenate([z[:, :2], noise], axis=1), PARTS, PARTS)
    assert found.matrix[0, 0] > 0.7
    assert found.explained[1] < 0.05 and found.matrix[:, 1].max() < 0.05 and found.matrix[1, 0] < 0.05


def test_one_hot_parts(z):
    skills = np.random.default_rng(2).integers(0, 3, (300, 2))
    latents = np.concatenate([np.eye(3)[skills[:, 0]], np.eye(3)[skills[:, 1]]], axis=1)
    parts = (np.arange(3), np.arange(3, 6))
    found = dis.dci(latents, skills[:, ::-1].astype(float), parts, (np.array([0]), np.array([1])))
    assert min(found.values()) > 0.95
