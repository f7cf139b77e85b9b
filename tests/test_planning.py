"""`train-controller` with controllers that train no policy: from the command line to evaluation, drawing and errors."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.envs import registry
from repertoire.errors import UserError
from repertoire.experiment.files import read_json, write_json
from repertoire.high_level import goals
from repertoire.high_level import registry as controllers
from repertoire.high_level.rules import stateful
from repertoire.scripts import build, cli, config, deciders, pinning, planning, task_draw, task_eval, train_controller
from repertoire.skills.library import Library

COMMON = ["train-controller", "task=point_maze", "skills=[oracle]", "controller.hold=20", "controller.episodes=2",
          "controller.per_skill=8", "video=false", "logging.quiet=true", "env.reset_noise=0.0"]  # fmt: skip


@pytest.fixture(scope="module")
def place(oracle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planning")
    assert Library(folder / "library").add(oracle) == "oracle@1"
    return folder


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


WALK = "controller.script=[{choice:0,steps:2},{choice:6,steps:2},{choice:4}]"


def test_a_script_from_the_command_line(there, capsys):
    cli.main([*COMMON, "controller=script", WALK, "run_dir=script"])
    found = read_json(there / "script" / "evaluation.json")
    assert found["rules"]["script"]["return"] == 1.0 == found["return"]
    assert set(found["rules"]) == {"script", "random"}  # no zero-shot rule for choices
    assert {p.name for p in (there / "script" / "plots").iterdir()} == {"paths.png", "acting.png"}
    cli.main(["evaluate", "run=script", "rollouts=3"])
    assert "script       return 1" in capsys.readouterr().out
    assert read_json(there / "script" / "evaluation.json") == found  # another protocol is kept beside it
    assert read_json(there / "script" / "evaluation-rollouts3.json")["rules"]["script"]["episodes"] == 3
    cli.main(["export", "run=script"])
    assert (there / "script" / "export" / "model.onnx").exists()


def test_a_script_that_ran_before_its_ends_were_checked_is_evaluated(there, capsys):
    """Its last stage says when it ends, which it never did."""
    cli.main([*COMMON, "controller=script", WALK, "run_dir=before"])
    cfg, found = (read_json(there / "before" / f"{name}.json") for name in ("config", "evaluation"))
    cfg["controller"]["script"][-1] |= {"steps": 3, "until": {"slice": "goal", "below": 0.1}}
    write_json(there / "before" / "config.json", cfg)
    cli.main(["evaluate", "run=before"])
    assert read_json(there / "before" / "evaluation.json") == found
    cli.main(["rollout", "run=before", "count=1"])
    assert "paths.png" in capsys.readouterr().out


def test_a_seed_is_chosen_by_its_place(there, capsys):
    cli.main([*COMMON, "controller=script", WALK, "num_seeds=2", "seed=5", "run_dir=two"])
    plots = there / "two" / "plots"
    assert {p.name for p in plots.iterdir()} == {"paths.png", "acting.png"}
    cli.main(["rollout", "run=two", "seed=1", "count=1"])
    assert {p.name for p in plots.iterdir()} == {"paths.png", "acting.png", "paths-s6.png", "acting-s6.png"}
    capsys.readouterr()
    for verb in ("rollout", "export"):
        with pytest.raises(SystemExit):
            cli.main([verb, "run=two", "seed=2"])
        assert "seed must lie in 0 .. 1 (its place in the batch), got 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["rollout", "run=two", "policy=expert"])
    assert "imitates no expert: policy=expert is of runs of imitate" in capsys.readouterr().err


def test_a_graph_from_the_command_line(there, capsys):
    cli.main([*COMMON, "controller=graph", "controller.worlds=1", "controller.run_up=1", "controller.hold=10",
              "controller.navigate.margin=0.3", "run_dir=graph"])  # fmt: skip
    found = read_json(there / "graph" / "evaluation.json")
    assert found["return"] == 1.0 and found["rules"]["graph"]["handoff_failures"] == 0.0
    assert found["rules"]["graph"]["fresh_displacement_m"] == pytest.approx(1.0, abs=1e-3)
    assert (there / "graph" / "plots" / "handoffs.png").exists()
    before = (there / "graph" / "handoffs-s0.safetensors").stat().st_mtime_ns
    cli.main(["rollout", "run=graph", "count=1"])
    assert (there / "graph" / "handoffs-s0.safetensors").stat().st_mtime_ns == before  # measured once
    assert "paths.png" in capsys.readouterr().out
    cli.main(["export", "run=graph"])
    rule = read_json(there / "graph" / "export" / "contract.json")["hierarchy"]["rule"]
    assert (rule["kind"], rule["measured_on"], rule["map_cell"]) == ("graph", "point", 2.0)


def test_hand_offs_are_measured_with_the_options_of_the_run(there, monkeypatch):
    """The robot and its sensors are those of the run; walls and goals are not, and rewards do not matter."""
    seen = []
    monkeypatch.setattr(deciders.handoff, "check", seen.append)
    options = ["env.maze=medium", "env.smooth={velocity:0.5}", "env.episode_length=90", "env.weights={goal:2.0}"]
    cfg = config.compose("train_controller", [*COMMON[1:], "controller=graph", *options])
    planning._checked(cfg)
    ground = seen[0].env.task
    assert ground.name == "point" and ground.reset_noise == 0.0
    assert ground.smooth == {"velocity": 0.5} and ground.episode_length == 50 and not ground.weights
    planning._checked({**cfg, "controller": {**cfg["controller"], "measured_on": "point_maze"}})
    assert seen[1].env.task == deciders.macro_of(cfg, cfg["env"]).env.task


@pytest.mark.slow
def test_learned_dynamics_from_the_command_line(there):
    """Between walls the dynamics depend on the place, and the ensemble learns it."""
    cli.main([*COMMON, "controller=plan", "controller.model=learned", "controller.search.horizon=8", "num_seeds=2",
              "controller.dynamics.members=2", "total_steps=200000", "controller.dynamics.updates=2000",
              "run_dir=learned"])  # fmt: skip
    found = read_json(there / "learned" / "evaluation.json")
    assert len(found["seeds"]) == 2 and {"plan", "zero_shot", "random"} == set(found["rules"])
    assert found["rules"]["plan"]["dynamics_position_error_m"] < 0.2
    assert found["rules"]["plan"]["return"] >= found["rules"]["zero_shot"]["return"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["controller=plan", "controller.model=learnt"], "did you mean 'learned'"),
        (["controller=plan", "controller.search.method=cme"], "did you mean 'cem'"),
        (["controller=plan", "controller.model=learned", "task=point"], "no `goal` for its `position`"),
        (["controller=plan", "controller.search.horizon=two"], "controller.search.horizon must be a whole number"),
        (["controller=plan", "controller.episodes=1"], "episodes must be at least 2"),
        (["controller=graph", "controller.mode=latent"], "its nodes are a list of options"),
        (["controller=graph", "controller.navigate.least=2.0"], "least must lie above 0"),
        (["controller=graph", "task=point"], "no goal in the plane"),  # before hand-offs are measured
        (["controller=graph", "controller.worlds=0"], "worlds must be at least 1"),
        (["controller=graph", "controller.run_up=0"], "run_up must be at least 1"),
        (["controller=graph", "controller.measured_on=point_maze"], "env point_maze has walls"),
        (["controller=script"], "at least one stage"),
        (["controller=zero_shot", "task=point"], "no `goal` slice"),
        (["controller=zero_shot", "controller.mode=choice"], "needs controller.mode=latent"),
    ],
)
def test_bad_input_is_one_line(there, tmp_path, args, says):
    cfg = config.compose("train_controller", [*COMMON[1:], *args, f"run_dir={tmp_path}/run"])
    with pytest.raises(UserError, match=says) as error:
        planning.run("train-controller", cfg, "x")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_baselines_are_controllers_too(there, oracle):
    cfg = config.compose("train_controller", [*COMMON[1:], "controller=zero_shot"])
    env, maker = planning._checked(cfg)
    (decider, figures), state = maker(None, 0), jax.jit(env.reset)(jax.random.key(0))
    rule = stateful(decider)
    z, _ = rule.step(jax.random.key(0), state, rule.start(None, state))
    np.testing.assert_array_equal(z, goals.zero_shot(env)(None, state))
    again = jax.jit(lambda step: step(None, state, ()))(rule.step)[0]  # as evaluation takes it: an argument of jit
    np.testing.assert_allclose(again, z, atol=1e-6)
    assert figures == {} and env.composer.skills[0].digest() == oracle.digest()
    env, maker = planning._checked(config.compose("train_controller", [*COMMON[1:], "controller=random"]))
    drawn = [int(maker(None, 0)[0](jax.random.key(i), state)) for i in range(20)]
    assert len(set(drawn)) > 1 and set(drawn) <= set(range(8))
    assert {k for k, kind in controllers.KINDS.items() if not kind.trained} == set(deciders.MAKERS)
    assert set(controllers.KINDS) == set(config.options("controller"))


def test_a_learner_discounts_macro_steps_by_gamma_to_the_k(there):
    cfg = config.compose("train_controller", [*COMMON[1:4], "controller=sequence", "algo.gamma=0.9"])
    learner = build.learner_of("train-controller", cfg)
    assert learner.env.hold == 20 and learner.config.gamma == pytest.approx(0.9**20)
    assert learner.env.gamma == 0.9  # within a macro step
    ending = ["controller.termination=learned", "controller.switch_cost=0.5"]
    cfg = config.compose("train_controller", [*COMMON[1:4], "controller=sequence", "algo.gamma=0.9", *ending])
    learner = build.learner_of("train-controller", cfg)
    assert learner.env.hold == 5 and learner.config.gamma == pytest.approx(0.9**5) and learner.env.cost == 0.5
    assert (learner.env.composer.longest, learner.env.composer.mode) == (20, "latent+keep")


def test_of_a_flat_policy_nobody_is_said_to_act():
    env = registry.make("point", "native", episode_length=3)
    found = task_eval.episodes(env, lambda key, state: jnp.ones(2), jax.random.key(0), 2)
    assert found.acting.shape == (2, 3, 0) and found.qpos.shape == (2, 3, 2)
    assert task_draw.strip_of(env, found) is None


def test_planners_see_the_env_of_the_run(there):
    cfg = config.compose("train_controller", [*COMMON[1:], "controller=script", "env.cell=3.0"])
    env = deciders.macro_of(cfg, cfg["env"])
    assert env.env.task.cell == 3.0 and env.hold == 20 and env.gamma == cfg["algo"]["gamma"]
    assert env.spec.discrete == 8 and planning.is_planned(cfg)
    assert not planning.is_planned(config.compose("train_controller", ["skills=[oracle]"]))
    assert build.env_of({**cfg, "env": {"name": "point"}}).spec.name == "point"


def test_settings_of_library_entries_have_no_effect_and_say_so(there, monkeypatch, capsys):
    """`command` is a slice of the run's env; the ground that hand-offs are measured on need not have it."""
    cfg, made = config.compose("train_controller", [*COMMON[1:], "controller=graph"]), []

    def run(kind, cfg, name):
        made.append(planning._checked(cfg))
        return SimpleNamespace(config=pinning.pinned(cfg, kind))

    monkeypatch.setattr(planning, "run", run)
    train_controller.run({**cfg, "command": "goal", "name": "x"})
    assert "note: name= and command= without effect: controller=graph freezes no entry" in capsys.readouterr().out
    train_controller.run(cfg)
    assert "note" not in capsys.readouterr().out and len(made) == 2
