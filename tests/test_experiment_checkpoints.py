"""Checkpoints: exactness, damage, misfits, full disks."""

from __future__ import annotations

import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from repertoire.errors import UserError
from repertoire.experiment import checkpoints as ck


@struct.dataclass
class Train:
    params: dict
    opt: optax.OptState
    key: jax.Array
    worlds: jax.Array
    done: jax.Array
    empty: jax.Array
    half: jax.Array
    count: int
    host: np.ndarray
    name: str = struct.field(pytree_node=False, default="x")


class Pair(NamedTuple):
    a: jax.Array
    b: jax.Array | None


OPT = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))


def fresh(seed: int = 0) -> Train:
    key = jax.random.key(seed)
    params = {"w": jax.random.normal(key, (3, 4)), "pair": Pair(jnp.zeros(2), None)}
    return Train(
        params=params,
        opt=OPT.init(params),
        key=jax.random.split(key, 5),
        worlds=jax.random.bits(key, (4, 7)),
        done=jnp.array([True, False]),
        empty=jnp.zeros((4, 0)),
        half=jnp.ones(3, jnp.bfloat16),
        count=seed,
        host=np.arange(3, dtype=np.float64),
    )


def step(s: Train) -> Train:
    keys = jax.vmap(lambda k: jax.random.split(k)[0])(s.key)
    noise = jax.random.normal(keys[0], (3, 4))
    grads = jax.grad(lambda p: jnp.sum((p["w"] - noise) ** 2) + p["pair"].a.sum())(s.params)
    updates, opt = OPT.update(grads, s.opt, s.params)
    return s.replace(
        params=optax.apply_updates(s.params, updates), opt=opt, key=keys, worlds=s.worlds * 5, count=s.count + 1
    )


def raw(tree) -> list[tuple[str, str, bytes]]:
    leaves = [jax.random.key_data(x) if ck._is_key(x) else x for x in jax.tree.leaves(tree)]
    return [(str(np.asarray(x).dtype), str(np.shape(x)), np.asarray(x).tobytes()) for x in leaves]


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole = fresh()
    for _ in range(6):
        whole = step(whole)
    part = fresh()
    for i in range(1, 4):
        part = step(part)
        ck.save(tmp_path, i, part)
    found = ck.restore_latest(tmp_path, fresh(seed=9))
    assert found is not None
    at, resumed = found
    assert at == 3 and raw(resumed) == raw(part)
    assert jax.tree.structure(resumed) == jax.tree.structure(part) and resumed.name == "x"
    assert isinstance(resumed.count, int) and isinstance(resumed.host, np.ndarray)
    assert jnp.issubdtype(resumed.key.dtype, jax.dtypes.prng_key)
    for _ in range(3):
        resumed = step(resumed)
    assert raw(resumed) == raw(whole)


def test_special_floats_keep_their_bits(tmp_path):
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 0x00000001, 0x7F800000], np.uint32)
    ck.save(tmp_path, 0, {"x": bits.view(np.float32)})
    _, tree = ck.restore_latest(tmp_path, {"x": np.zeros(5, np.float32)})
    np.testing.assert_array_equal(tree["x"].view(np.uint32), bits)


def test_shape_template_and_rbg_keys(tmp_path):
    make = jax.jit(lambda: {"k": jax.random.key(1, impl="rbg"), "x": jnp.ones(2)})
    ck.save(tmp_path, 5, make())
    step_, tree = ck.restore_latest(tmp_path, jax.eval_shape(make))
    assert step_ == 5 and jax.random.key_impl(tree["k"]) == "rbg" and raw(tree) == raw(make())
    with pytest.raises(UserError, match=r"\['k'\] is key<rbg>"):
        ck.restore_latest(tmp_path, {"k": jax.random.key(1), "x": jnp.ones(2)})


def test_none_without_checkpoints_and_keep(tmp_path):
    assert ck.restore_latest(tmp_path / "no", {}) is None
    for i in range(6):
        ck.save(tmp_path, i, {"x": jnp.full(2, i)}, keep=2)
    assert ck.steps(tmp_path) == [4, 5]
    assert ck.restore(tmp_path, 4, {"x": jnp.zeros(2, int)})["x"].tolist() == [4, 4]
    with pytest.raises(UserError, match=r"no checkpoint 3.*\[4, 5\]"):
        ck.restore(tmp_path, 3, {})
    ck.save(tmp_path, 4, {"x": jnp.zeros(2)}, keep=2)
    assert ck.steps(tmp_path) == [4]  # 5 belongs to the history that was given up


def _biggest(folder):
    return max((p for p in folder.rglob("*") if p.is_file() and "index" not in p.name), key=lambda p: p.stat().st_size)


def _flip(folder):
    file = _biggest(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def _truncate(folder):
    file = _biggest(folder)
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        _truncate,
        lambda f: (f / "index.json").write_text('{"step'),
        lambda f: (f / "index.json").unlink(),
        lambda f: shutil.rmtree(f / "arrays"),
    ],
    ids=["flipped bit", "truncated", "torn index", "no index", "no arrays"],
)
def test_damaged_newest_falls_back_and_says_so(tmp_path, damage):
    tree = {"x": jax.random.normal(jax.random.key(0), (64, 64))}
    for i in (1, 2):
        ck.save(tmp_path, i, jax.tree.map(lambda x, i=i: x * i, tree))
    damage(tmp_path / "step_000000000002")
    said: list[str] = []
    at, got = ck.restore_latest(tmp_path, tree, warn=said.append)
    assert at == 1 and raw(got) == raw(tree)
    assert len(said) == 1 and "checkpoint 2" in said[0] and "damaged" in said[0] and "\n" not in said[0]
    damage(tmp_path / "step_000000000001")
    with pytest.raises(UserError, match="every checkpoint"):
        ck.restore_latest(tmp_path, tree, warn=said.append)


def test_kill_in_the_middle_leaves_no_checkpoint(tmp_path, monkeypatch):
    ck.save(tmp_path, 1, {"x": jnp.ones(2)})

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(ck, "write_json", killed)
        ck.save(tmp_path, 2, {"x": jnp.ones(2)})
    (tmp_path / ".tmp_7_123").mkdir()  # what a kill -9 leaves
    assert ck.steps(tmp_path) == [1]
    ck.save(tmp_path, 3, {"x": jnp.ones(2)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000000000001", "step_000000000003"]


def test_misfits_name_the_leaf(tmp_path):
    ck.save(tmp_path, 1, {"net": {"w": jnp.ones((2, 3))}, "n": jnp.int32(1)})
    cases = [
        (
            {"net": {"w": jnp.ones((2, 4))}, "n": jnp.int32(1)},
            r"\['net'\]\['w'\] is float32\[2, 3\], wanted float32\[2, 4\]",
        ),
        ({"net": {"w": jnp.ones((2, 3))}, "n": jnp.float32(1)}, r"\['n'\] is int32\[\], wanted float32\[\]"),
        ({"net": {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, "n": jnp.int32(1)}, r"lacks \['net'\]\['b'\]"),
        ({"net": {"w": jnp.ones((2, 3))}}, r"has \['n'\]"),
    ]
    for template, words in cases:
        with pytest.raises(UserError, match=words):
            ck.restore_latest(tmp_path, template)
    with pytest.raises(UserError, match=r"\['s'\].*static field"):
        ck.save(tmp_path, 2, {"s": "text"})


def test_full_disk_keeps_the_last_good(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    ck.save(tmp_path, 1, {"x": jnp.ones(2)})

    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "save", full)
    with pytest.raises(UserError, match="disk is full"):
        ck.save(tmp_path, 2, {"x": jnp.ones(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000000001"]


def test_arrays_roundtrip(tmp_path):
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.array(3, np.int64), "m": np.array([True])}
    got = ck.load_arrays(ck.save_arrays(tmp_path / "p.safetensors", arrays))
    assert set(got) == set(arrays)
    for k in arrays:
        np.testing.assert_array_equal(got[k], arrays[k], strict=True)
    (tmp_path / "p.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(UserError, match="damaged"):
        ck.load_arrays(tmp_path / "p.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        ck.load_arrays(tmp_path / "q.safetensors")
