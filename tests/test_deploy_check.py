"""What the check of an export makes of decisions that hang on the last digits: exports made by hand, some wrong."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from repertoire.deploy import check

ROWS = 200
OBS = np.random.default_rng(0).uniform(0.0, 1.0, (ROWS, 2)).astype(np.float32)


def policy(choices, share):
    """Holds whether the first number is above 0.5 (an option), or that number; `share` of the rows are close."""

    def fn(obs, z, decide):
        fresh = (obs[:, :1] > 0.5).astype(obs.dtype) if choices else obs[:, :1]
        margin = jnp.where(jnp.arange(len(obs)) < share * ROWS, 0.0, 1.0)[:, None]
        return {"action": obs, "z_next": jnp.where(decide > 0.5, fresh, z), "margin": margin}

    return fn


def exported(choices, otherwise=0.0, deciding=True):
    """The same, but for the first rows: a share `otherwise` of them holds something else where it decides (or not)."""

    def run(names, inputs):
        obs, decides = inputs["obs"], bool(inputs["decide"][0, 0])
        z = np.array((obs[:, :1] > 0.5 if choices else obs[:, :1]) if decides else inputs["z"], np.float32)
        if len(z) == ROWS and decides == deciding:
            z[: int(otherwise * ROWS)] += 0.1
        return [{"action": obs, "z_next": z}[n] for n in names]

    sizes = {"obs": 2, "z": 1, "decide": 1}
    contract = {
        "kind": "controller",
        "onnx": {"inputs": sizes, "outputs": {"action": 2, "z_next": 1}},
        "action": {"scale": [1.0, 1.0]},
        "hierarchy": {
            "mode": "graph, choice" if choices else "plan, latent",
            "fields": [{"name": "held", "size": 1, "choices": choices}],
        },
    }
    return SimpleNamespace(contract=contract, session=SimpleNamespace(run=run))


def outputs(choices, share, **wrong):
    return check._outputs(exported(choices, **wrong), policy(choices, share), OBS, 0)


@pytest.mark.parametrize(("share", "compared"), [(0.4, 0.6), (0.6, 0.4)])
def test_options_that_are_close_calls_show_nothing(share, compared):
    found = outputs(2, share)
    assert found["compared"] == pytest.approx(compared)
    assert [p for p in found["problems"] if "only 40% of the decisions could be compared" in p] == found["problems"]
    assert bool(found["problems"]) == (compared < 0.5)


@pytest.mark.parametrize(("otherwise", "fails"), [(0.0, False), (0.4, False), (0.6, True)])
def test_close_searches_that_agree_show_something(otherwise, fails):
    found = outputs(0, 1.0, otherwise=otherwise)
    assert found["compared"] == pytest.approx(1 - otherwise)
    assert found["cases"]["recorded, deciding"]["ties"] == otherwise * ROWS
    assert bool(found["problems"]) == fails


def test_what_is_held_is_no_close_call():
    found = outputs(0, 1.0, otherwise=0.4, deciding=False)
    assert found["cases"]["recorded, holding"]["close"] == 0
    assert any(p.startswith("recorded, holding: z_next is off") for p in found["problems"])


def test_a_replay_that_shows_nothing_needs_outputs_that_do():
    def problems(clear, compared):
        return check._unseen({"closed_loop": {"clear_starts": clear}, "outputs": {"compared": compared}})

    assert problems(0, 0.89) and not problems(0, 0.95) and not problems(1, 0.5)
    assert not check._unseen({"closed_loop": {"skipped": "no source"}, "outputs": {"compared": 0.5}})
