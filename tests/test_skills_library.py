"""The library: versions, hashes, refusals."""

import json

import jax
import numpy as np
import pytest

from repertoire.algos import trainer
from repertoire.algos.learner import Learner
from repertoire.algos.ppo import PPOConfig
from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.skills.freezing import freeze
from repertoire.skills.library import Library
from repertoire.skills.objectives import registry as objectives
from repertoire.skills.skill import Skill


@pytest.fixture(scope="module")
def learner():
    config = PPOConfig(envs=4, rollout=4, minibatches=2, hidden=(8,))
    return Learner(registry.make("point"), config, objectives.make("metra", hidden=(8,)), ("position",))


@pytest.fixture(scope="module")
def state(learner):
    return trainer.programs(learner).init(trainer.seed_keys(0))


@pytest.fixture(scope="module")
def skill(learner, state):
    return freeze("point-metra", learner, state, {"seed": 0}, ("position",))


def test_round_trip_is_exact_and_acts_as_the_learner(tmp_path, learner, state, skill):
    library = Library(tmp_path)
    assert library.add(skill) == "point-metra@1"
    loaded = library.load("point-metra")
    assert loaded.digest() == skill.digest()
    obs, z = np.ones(learner.env.spec.obs.size("policy"), np.float32), np.array([0.6, 0.8], np.float32)
    act = learner.sampler(
        {**state.params["policy"], "head": {"log_std": np.full(2, -100.0)}}, state.obs_stats["policy"]
    )
    quiet, _ = act(jax.random.key(0), obs, z)
    np.testing.assert_allclose(loaded.act(obs, z), quiet, atol=0.05)
    loaded.fits(learner.env.spec)
    f, g = np.zeros(2, np.float32), np.array([1.0, 2.0], np.float32)
    np.testing.assert_allclose(loaded.goal_latent(f, g), skill.goal_latent(f, g))


def test_same_content_is_stored_once_and_new_content_is_a_new_version(tmp_path, skill):
    library = Library(tmp_path)
    assert library.add(skill) == library.add(skill) == "point-metra@1"
    other = Skill(skill.manifest, {k: v + 1 for k, v in skill.arrays.items()})
    assert library.add(other) == "point-metra@2"
    assert library.resolve("point-metra") == ("point-metra", 2)
    assert library.load("point-metra@1").digest() == skill.digest()


def test_runs_that_end_at_once_get_a_version_each(tmp_path, skill, monkeypatch):
    library = Library(tmp_path)
    library.add(skill)
    other = Skill(manifest=skill.manifest, arrays={k: v + 1 for k, v in skill.arrays.items()})
    monkeypatch.setattr(library, "versions", lambda name: [])  # what it saw before the other one was there
    assert library.add(other) == "point-metra@2"
    assert {p.name for p in (tmp_path / "point-metra").iterdir()} == {"1", "2"}


def test_card_and_manifest(tmp_path, skill):
    library = Library(tmp_path)
    measured = Skill({**skill.manifest, "metrics": {"coverage_cells": 12.0}}, skill.arrays)
    folder = library.path(library.add(measured))
    card = (folder / "card.md").read_text()
    assert "coverage_cells | 12" in card and skill.digest() in card and "position (2, m)" in card
    assert [m["name"] for m in library] == ["point-metra"]


def test_tampering_is_found(tmp_path, skill):
    library = Library(tmp_path)
    folder = library.path(library.add(skill))
    blob = bytearray((folder / "arrays.safetensors").read_bytes())
    blob[-1] ^= 1
    (folder / "arrays.safetensors").write_bytes(bytes(blob))
    with pytest.raises(UserError, match="changed after it was frozen"):
        library.load("point-metra")
    (folder / "arrays.safetensors").write_bytes(bytes(blob[:50]))
    with pytest.raises(UserError, match="cannot be read"):
        library.load("point-metra")


def test_a_changed_contract_is_found_too(tmp_path, skill):
    library = Library(tmp_path)
    path = library.path(library.add(skill)) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["contract"]["dt"] = 1.0
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="changed after it was frozen"):
        library.load("point-metra")


def test_unknown_references(tmp_path, skill):
    library = Library(tmp_path)
    with pytest.raises(UserError, match=r"library .* is empty"):
        library.load("x")
    library.add(skill)
    with pytest.raises(UserError, match="did you mean 'point-metra'"):
        library.load("point-metro")
    with pytest.raises(UserError, match="has no version '7'; it has 1"):
        library.load("point-metra@7")
    with pytest.raises(UserError, match="use letters"):
        library.add(Skill({**skill.manifest, "name": "../x"}, skill.arrays))


def test_a_place_that_cannot_be_written(tmp_path, skill):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot write to the library"):
        Library(blocked / "library").add(skill)
