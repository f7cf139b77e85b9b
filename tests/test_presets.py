"""Presets: they compose, make a learner, and carry the constants of the official code."""

import dataclasses

import pytest

from repertoire.algos.ppo import PPOConfig
from repertoire.algos.sac import SACConfig
from repertoire.errors import UserError
from repertoire.scripts import build, config

#: Preset -> constants as the research page lists them (skill_discovery.md 1.2, 2.2, 2.4, 4.1).
PAPERS = {
    "metra": {
        "env": {"episode_length": 200},
        "algo": {"hidden": (1024, 1024), "batch": 256, "gradient_steps": 50, "replay": 1_000_000, "min_replay": 10_000,
                 "lr_policy": 1e-4, "lr_q": 1e-4, "lr_alpha": 1e-4, "alpha": 0.01, "alpha_auto": True, "gamma": 0.99,
                 "tau": 5e-3, "target_entropy": -0.5, "reward_scale": 1.0, "envs": 8, "rollout": 200},
        "objective": {"name": "metra", "lr": 1e-4, "dual_lr": 1e-4, "dual_init": 30.0, "slack": 1e-3, "form": "mean",
                      "hidden": (1024, 1024)},
        "prior": ("sphere", 2),
        "total_steps": 10_000_000,
    },
    "csd": {
        "env": {"episode_length": 200},
        "algo": {"hidden": (512, 512), "batch": 1024, "gradient_steps": 64, "objective_every": 2, "replay": 2000,
                 "lr_policy": 1e-4, "alpha": 0.03, "alpha_auto": False, "reward_scale": 10.0, "tau": 5e-3, "envs": 10},
        "objective": {"name": "csd", "lr": 1e-4, "dual_init": 3000.0, "slack": 1e-6, "form": "mean"},
        "prior": ("one_hot", 16),
        "total_steps": 40_000_000,
    },
    "lsd": {
        "env": {"episode_length": 200},
        "algo": {"hidden": (1024, 1024), "batch": 2048, "gradient_steps": 4, "target_every": 4, "replay": 4000,
                 "lr_policy": 1e-4, "alpha": 0.01, "alpha_auto": False, "reward_scale": 1.0, "envs": 20},
        "objective": {"name": "lsd", "lr": 3e-5, "constraint": "spectral"},
        "prior": ("gaussian", 2),
        "total_steps": 400_000_000,
    },
    "diayn": {
        "env": {"episode_length": 1000},
        "algo": {"hidden": (300, 300), "batch": 128, "gradient_steps": 1000, "replay": 1_000_000, "lr_policy": 3e-4,
                 "alpha": 0.1, "alpha_auto": False, "gamma": 0.99, "tau": 0.01},
        "objective": {"name": "diayn", "lr": 3e-4, "hidden": (300, 300), "mask": 0},
        "prior": ("one_hot", 50),
        "total_steps": 10_000_000,
    },
}  # fmt: skip


@pytest.mark.parametrize("paper", PAPERS)
def test_presets_carry_the_papers_constants(paper):
    want, cfg = PAPERS[paper], config.compose("train_skills", [f"preset=paper/{paper}"])
    learner = build.learner_of("train-skills", cfg)
    assert {k: getattr(learner.config, k) for k in want["algo"]} == want["algo"]
    assert {k: getattr(learner.objective, k) for k in want["objective"]} == want["objective"]
    assert (learner.prior.kind, learner.prior.size) == want["prior"]
    assert {k: cfg["env"][k] for k in want["env"]} == want["env"]
    assert learner.env.spec.name == "ant" and learner.env.spec.episode_length == want["env"]["episode_length"]
    assert cfg["total_steps"] == want["total_steps"]


def test_every_preset_is_tested():
    assert set(config.options("preset")) == {f"paper/{p}" for p in PAPERS}


def test_the_command_line_beats_a_preset():
    cfg = config.compose("train_skills", ["preset=paper/metra", "algo.hidden=[256,256]", "env=half_cheetah"])
    assert cfg["algo"]["hidden"] == [256, 256] and cfg["env"]["name"] == "half_cheetah"


@pytest.mark.parametrize(("name", "cls"), [("ppo", PPOConfig), ("sac", SACConfig)])
def test_algo_files_list_every_setting(name, cls):
    listed = config.compose("train_skills", [f"algo={name}"])["algo"]
    assert set(listed) == {"name", *(f.name for f in dataclasses.fields(cls))}
    assert listed["name"] == name


def test_what_suits_a_learner_stays_with_it():
    """Settings that envs and objectives bring for PPO do not reach SAC."""
    for settings in (["env=point"], ["env=point_disc"], ["objective=diayn"]):
        for algo, cls in (("ppo", PPOConfig), ("sac", SACConfig)):
            cfg = config.compose("train_skills", [*settings, f"algo={algo}"])["algo"]
            assert {k for k in cfg if k != "name"} == {f.name for f in dataclasses.fields(cls)}
    assert config.compose("train_skills", ["env=point"])["algo"]["envs"] == 128
    assert config.compose("train_skills", ["objective=diayn"])["algo"]["target_kl"] == 0.015
    assert config.compose("train", [])["algo"]["minibatches"] == 16
    assert config.compose("train_controller", [])["algo"]["rollout"] == 8


@pytest.mark.parametrize(
    ("verb", "settings", "says"),
    [
        ("train_skills", ["preset=paper/metr"], "did you mean 'paper/metra'"),
        ("train_skills", ["algo=sacc"], "did you mean 'sac'"),
        ("train_skills", ["algo=sac", "algo.epochs=3"], "algo.epochs is a setting of algo=ppo"),
        ("train_skills", ["algo.utd=1"], "algo.utd is a setting of algo=sac"),
        ("train_controller", ["algo=sacc"], "did you mean 'sac'"),
    ],
)
def test_wrong_names_are_answered(verb, settings, says):
    with pytest.raises(UserError, match=says):
        config.compose(verb, settings)


def test_an_unknown_learner_is_answered():
    cfg = config.compose("train_skills", ["env=point"])
    with pytest.raises(UserError, match="did you mean 'ppo'"):
        build.learner_of("train-skills", {**cfg, "algo": {**cfg["algo"], "name": "pop"}})
