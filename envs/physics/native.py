"""C MuJoCo on a thread pool as a pure, `vmap`-able JAX function (default where there is only a CPU).

The exact float64 integration state of a world travels through JAX bit-cast to uint32, so a step is a pure function
of its arguments, bit-identical at any thread count, and a checkpoint of it resumes exactly. `vmap_method=
"broadcast_all"` turns any nest of `vmap`s (seeds x worlds) into one call on the pool.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from mujoco.batch import MODEL_FIELDS, Batch

from repertoire.envs.physics import overrides as overriding
from repertoire.envs.types import Array, Data, Held, Start

#: What a host function fills: numpy arrays [..., *shape] by name.
Out = Mapping[str, np.ndarray]
_READ = ("time", "qpos", "qvel")


class NativePhysics:
    """`Physics` on `mujoco.batch.Batch`.

    Args:
      model: compiled model; copied, with MuJoCo's silent auto-reset switched off so that divergence stays visible.
      fields: derived fields of `Data` to read back besides time, qpos and qvel.
      threads: pool size, 0 for one per core.
    """

    name = "native"

    def __init__(self, model: mujoco.MjModel, fields: tuple[str, ...] = (), threads: int = 0) -> None:
        self.model = model.__copy__()
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self._fields = (*_READ, *fields)
        self._threads = threads
        self._lock = threading.Lock()
        data = mujoco.MjData(self.model)
        self._nstate = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION)
        shapes = {f: np.shape(getattr(data, f)) for f in self._fields}
        self._out = {
            "row": jax.ShapeDtypeStruct((2 * self._nstate,), jnp.uint32),
            **{f: jax.ShapeDtypeStruct(s, jnp.float32) for f, s in shapes.items()},
        }
        self._batches: dict[tuple[Any, ...], Batch] = {}

    def init(self, qpos: Array, qvel: Array, overrides: Mapping[str, Array] | None = None) -> Data:
        """World at (qpos, qvel) with forward kinematics and dynamics computed (one `mj_forward`)."""
        over = dict(overrides or {})
        overriding.check(self.model, over, MODEL_FIELDS, self.name)
        return self._data(self._call(self._host_reset, 0, jnp.ones((), bool), qpos, qvel, over), over)

    def step(
        self,
        data: Data,
        ctrl: Array,
        substeps: int,
        kick: Array | None = None,
        mocap: Array | None = None,
        held: Held = (),
    ) -> Data:
        """`substeps` calls of `mj_step` under constant `ctrl`; with `held`, one `mj_forward` after them."""
        host = functools.partial(self._host_step, substeps, held)
        first = {k: v for k, v in (("kick", kick), ("mocap", mocap)) if v is not None}
        return self._data(self._call(host, 1, data.backend, ctrl, data.overrides, first), data.overrides)

    def reset_where(self, mask: Array, data: Data, fresh: Start) -> Data:
        """Fresh world where `mask`; only masked worlds cost physics time."""
        over = {k: jnp.where(mask, fresh.overrides[k], v) for k, v in data.overrides.items()}
        out = self._call(self._host_reset, 0, mask, fresh.qpos, fresh.qvel, over)
        return jax.tree.map(lambda new, old: jnp.where(mask, new, old), self._data(out, over), data)

    def metrics(self, data: Data) -> dict[str, Array]:
        """Nothing: buffers grow as needed."""
        return {}

    def _call(self, host: Any, first: int, *args: Any) -> dict[str, Array]:
        """`host(out, *args)` on numpy views, once for all worlds; `first` is the rank of `args[0]` in one world.

        Not `pure_callback` on a CPU: that copies arguments through JAX's thread pool, whose threads wait in callbacks.
        Buffers are read and written in place.
        """
        if jax.default_backend() == "cpu":

            def in_place(ctx: Any, out: Any, *args: Any) -> None:
                host(jax.tree.map(np.asarray, out), *jax.tree.map(np.asarray, args))

            return dict(buffer_callback(in_place, self._out, vmap_method="broadcast_all")(*args))

        def copied(*args: Any) -> dict[str, np.ndarray]:
            args = jax.tree.map(np.asarray, args)
            lead = args[0].shape[: args[0].ndim - first]
            out = {k: np.empty(lead + s.shape, s.dtype) for k, s in self._out.items()}
            host(out, *args)
            return out

        return dict(jax.pure_callback(copied, self._out, *args, vmap_method="broadcast_all"))

    @staticmethod
    def _data(out: dict[str, Array], overrides: dict[str, Array]) -> Data:
        fields = {k: v for k, v in out.items() if k != "row"}
        return Data(backend=out["row"], overrides=overrides, **fields)

    # -- host side: numpy only -----------------------------------------------------------------------------------

    def _host_step(
        self,
        substeps: int,
        held: Held,
        out: Out,
        rows: Any,
        ctrl: Any,
        overrides: Mapping[str, Any],
        first: Mapping[str, Any],
    ) -> None:
        n = int(np.prod(rows.shape[:-1]))
        with self._lock:
            batch = self._batch(n, overrides)
            batch.state[:] = np.ascontiguousarray(rows).view(np.float64).reshape(n, self._nstate)
            if "kick" in first:
                batch.bind("qvel")[:] += first["kick"].reshape(n, -1)
            if "mocap" in first:
                poses = first["mocap"].reshape(n, -1, 7)
                batch.bind("mocap_pos")[:], batch.bind("mocap_quat")[:] = poses[..., :3], poses[..., 3:]
            batch.bind("ctrl")[:] = ctrl.reshape(n, -1)
            self._override(batch, overrides, None)
            batch.step(nstep=substeps)
            for address, value in held:
                batch.bind("qpos")[:, address] = value
            if held:
                batch.forward()
            self._read(batch, out)

    def _host_reset(self, out: Out, mask: Any, qpos: Any, qvel: Any, overrides: Mapping[str, Any]) -> None:
        n = mask.size
        ids = np.flatnonzero(mask.reshape(n)).astype(np.int32)
        if ids.size == 0:  # the caller selects its old values, whatever `out` holds
            return
        with self._lock:
            batch = self._batch(n, overrides)
            self._override(batch, overrides, ids)
            batch.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
            batch.bind("qpos")[ids] = qpos.reshape(n, -1)[ids]
            batch.bind("qvel")[ids] = qvel.reshape(n, -1)[ids]
            batch.forward(ids)
            self._read(batch, out)

    def _batch(self, n: int, overrides: Mapping[str, Any]) -> Batch:
        """One pool per (number of worlds, overridden fields): expanded fields of one never leak into another."""
        key = (n, *sorted(overrides))
        if key not in self._batches:
            batch = Batch(self.model, n, self._threads)
            for name in self._fields:
                batch.bind(name)
            for name in overrides:
                batch.expand(name)
            self._batches[key] = batch
        return self._batches[key]

    @staticmethod
    def _override(batch: Batch, overrides: Mapping[str, Any], ids: np.ndarray | None) -> None:
        """Write per-world model fields; constants derived from them follow, only where a value changed."""
        changed = np.zeros(batch.nsim, bool)
        for name, value in overrides.items():
            current = batch.expand(name)
            new = np.asarray(value).reshape(current.shape).astype(current.dtype)
            differs = (current != new).reshape(batch.nsim, -1).any(axis=1)
            if ids is not None:
                differs &= np.isin(np.arange(batch.nsim), ids)
            current[differs] = new[differs]
            changed |= differs
        if changed.any():
            batch.set_const(np.flatnonzero(changed).astype(np.int32))

    def _read(self, batch: Batch, out: Out) -> None:
        out["row"].reshape(batch.nsim, -1)[:] = batch.state.view(np.uint32)
        for name in self._fields:
            field = batch.bind(name)
            out[name].reshape(field.shape)[...] = field  # float64 -> float32
