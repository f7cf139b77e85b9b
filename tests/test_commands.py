"""Policies whose goal slice is the latent of their library entry, and controllers that command them (SkillBlender)."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.high_level import frozen
from repertoire.high_level.blend import Blend, BlendConfig
from repertoire.high_level.macro_env import MacroEnv
from repertoire.scripts import build, cli, pinning
from repertoire.skills.adapters import adapt
from repertoire.skills.commands import command_slices, commanded
from repertoire.skills.library import Library
from repertoire.skills.skill import Skill

KEY = jax.random.key(0)
#: SkillBlender's goal-conditioned skills: env and the slice that holds the goal.
SKILLS = {
    "reach": ("g1_reaching", "hands_error"),
    "walk": ("g1_walking", "command"),
    "squat": ("g1_squatting", "height_error"),
}


@pytest.fixture(scope="module")
def told(make_skill):
    """Name -> (spec, policy of its env, the same with a latent); some entries hardly vary, so that the clip counts."""
    made = {}
    for i, (name, (env, command)) in enumerate(SKILLS.items()):
        spec, rng = registry.make_spec(env), np.random.default_rng(i)
        policy = make_skill(spec, name, "command", 0, seed=i)
        var = policy.arrays["obs/var"] * rng.choice([1.0, 1e-4, 0.0], spec.obs.size("policy"), p=[0.7, 0.2, 0.1])
        policy = Skill(policy.manifest, {**policy.arrays, "obs/var": var.astype(np.float32)})
        made[name] = spec, policy, commanded(policy, spec, command, 0.4)
    return made


@pytest.mark.parametrize("name", SKILLS)
def test_at_a_command_it_acts_as_the_policy_whose_slice_holds_it(told, name):
    spec, policy, skill = told[name]
    goal = next(s for s in spec.obs.groups["policy"] if s.name == SKILLS[name][1])
    place, own = spec.obs.index("policy", (goal.name,)), spec.obs.index("policy", skill.slices)
    assert skill.prior.size == goal.size and goal.name not in skill.slices and policy.prior.size == 0
    obs = jax.random.normal(KEY, (50, spec.obs.size("policy")))
    z = jax.random.uniform(KEY, (50, goal.size), minval=-1.0, maxval=1.0)
    full = obs.at[:, place].set(z * 0.4 * goal.scale)
    want = jax.jit(jax.vmap(policy.act))(full, jnp.zeros((50, 0)))
    act = jax.jit(jax.vmap(skill.act))
    np.testing.assert_allclose(act(obs[:, own], z), want, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(want - act(obs[:, own], -z)).max()) > 1e-2


@pytest.mark.parametrize("task", ["g1_far_reach", "g1_box", "g1_lift"])
def test_skills_of_all_goal_spaces_compose_on_skillbench(told, task):
    spec, skills = registry.make_spec(task), [skill for *_, skill in told.values()]
    blend = Blend([*skills, skills[0]], spec, BlendConfig(groups="all"))
    assert blend.size == 14 + 3 + 1 + 14 + 4
    if task != "g1_far_reach":
        return
    obs = jax.random.normal(KEY, (spec.obs.size("policy"),))
    command = blend.resolve(jnp.linspace(-1.0, 1.0, blend.size))
    rows = [s.act(obs[spec.obs.index("policy", s.slices)], z) for s, z in zip(blend.skills, command.latents)]
    want = (blend.weights(command) * jnp.clip(jnp.stack(rows), -1, 1)).sum(0)
    np.testing.assert_allclose(blend.act(obs, command)[0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_blend_of_them_steps(told):
    env = registry.make("g1_far_reach", "native")
    macro = MacroEnv(env, Blend([told[n][-1] for n in ("reach", "walk")], env.spec), 2, 0.99)
    state = jax.jit(lambda key: macro.step(macro.reset(key), macro.composer.sample(key)))(KEY)
    assert np.isfinite(state.obs["policy"]).all() and int(state.t) == 2


def test_the_library_keeps_what_it_can_be_told(tmp_path, told):
    skill, library = told["squat"][-1], Library(tmp_path)
    opened = frozen.load(library, library.add(skill))
    assert opened.digest() == skill.digest() and opened.manifest["command"] == {"slice": "height_error", "range": 0.4}
    card = (library.path("squat") / "card.md").read_text()
    assert "Policy trained on **g1_squatting**." in card
    assert "its command `height_error`, size 1, 0.4 of its unit at a latent of 1" in card


def test_an_adapter_of_it_is_held_at_a_command(told):
    spec, _, skill = told["squat"]
    (kernel, bias), *_ = adapt(skill, spec, (0.5,)).layers
    obs, z = jax.random.normal(KEY, (spec.obs.size("policy"),)), jnp.array([0.5])
    own = spec.obs.index("policy", skill.slices)
    (first, shift), *_ = skill.layers("policy")
    want = jnp.concatenate([obs[own], skill.told(z)]) @ first + shift
    np.testing.assert_allclose(obs @ kernel + bias, want, rtol=1e-4, atol=1e-5)


def test_a_limit_beyond_commands_is_said_to_change_nothing(told, make_skill):
    spec, skill = registry.make_spec("g1_far_reach"), told["reach"][-1]
    (note,) = Blend([skill], spec, BlendConfig(limit=2.0, squash="clamp")).notes
    assert note.startswith("controller.limit=2 takes commands of reach no further")
    assert Blend([skill], spec, BlendConfig(limit=1.0)).notes == ()
    ball = make_skill(spec, "ball", "gaussian")
    assert Blend([ball], spec, BlendConfig(limit=2.0)).notes == ()


def test_what_cannot_be_commanded_says_so():
    spec = registry.make_spec("point_maze")
    assert command_slices(spec, None) == () and command_slices(spec, "goal", 2.0) == ("goal",)
    with pytest.raises(UserError, match="env point_maze has no policy slice 'gaol' to command; it has"):
        command_slices(spec, "gaol")
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="command_range must be positive"):
            command_slices(spec, "goal", wrong)
    several = registry.make_spec("g1_reaching", history=3)
    name = next(s.name for s in several.obs.groups["policy"] if s.history > 1)
    with pytest.raises(UserError, match=f"policy slice '{name}' cannot be a command: it holds 3 steps of it"):
        command_slices(several, name)

    def checked(**config):
        algo = {"name": "ppo", "envs": 2, "rollout": 2, "minibatches": 1}
        asked = {"command": "goal", "command_range": 1, "name": "go", "algo": algo, "total_steps": 4, "channels": {}}
        return build.learner_of("train", {**asked, **config}, SimpleNamespace(spec=spec))

    assert checked() and checked(command=None, name=None)
    with pytest.raises(UserError, match="say which by name="):
        checked(name=None)
    with pytest.raises(UserError, match=r"leave adapter\.base or command away"):
        checked(adapter={"base": "x"})
    with pytest.raises(UserError, match="command_range must be a number, got 'far'"):
        checked(command_range="far")
    with pytest.raises(UserError, match="command_range must be positive, got 0"):
        checked(command_range=0)


def test_runs_without_a_command_are_what_they_were(tmp_path):
    config = {"env": {"name": "point"}, "library": tmp_path, "name": None, "command": None, "command_range": 1.0}
    assert pinning.pinned(config, "train") == {"env": {"name": "point"}, "library": tmp_path}
    asked = {**config, "name": "go", "command": "goal"}
    assert pinning.pinned(asked, "train") == asked


@pytest.mark.slow
def test_from_training_to_a_blend_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["algo.envs=2", "algo.rollout=4", "algo.minibatches=1", "algo.hidden=[8]", "total_steps=8", "eval_every=0",
             "video=false", "logging.quiet=true"]  # fmt: skip
    cli.main(["train", "env=point_maze", "name=go", "command=goal", "command_range=5.0", "run_dir=go", *small])
    skill = Library("library").load("go@1")
    assert skill.prior.size == 2 and "goal" not in skill.slices
    cli.main(["train-controller", "task=point_maze", "controller=blend", "skills=[go,go]", "run_dir=top", *small])
    assert [s.name for s in frozen.load(Library("library"), "point_maze-blend").composer.skills] == ["go", "go"]
