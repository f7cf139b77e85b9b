"""`doctor`: is this machine ready? One line per check, a fix per red line, exit code 1 if anything needed is red."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: A check returns what it found; it raises with a message "what is wrong; what to do".
Check = Callable[[], str]


def main(verb: str, args: list[str]) -> None:
    """Run all checks."""
    if any(a in ("-h", "--help") for a in args):
        print("repertoire doctor      check this machine; exit code 1 if something needed is missing")
        return
    failed = False
    for name, check, needed in CHECKS:
        start = time.monotonic()
        try:
            found, mark = check(), "ok  "
        except Exception as error:  # a check may fail in any way; the line says how
            found, mark = str(error).splitlines()[0], "FAIL" if needed else "none"
            failed |= needed
        print(f"{mark}  {name:10s} {found}  ({time.monotonic() - start:.1f} s)", flush=True)
    sys.exit(1 if failed else 0)


def _gl() -> str:
    from repertoire.experiment.gl import pick_gl, why_no_gl

    name = pick_gl()
    if name is None:
        raise RuntimeError(f"{why_no_gl()}; videos become HTML pages. Fix: apt-get install libegl1 libgl1-mesa-dri")
    return f"videos render with {name}"


def _versions() -> str:
    from repertoire.experiment.manifest import versions

    found = versions()
    if not str(found.get("mujoco", "")).startswith("3.17"):
        raise RuntimeError(f"mujoco {found.get('mujoco')} is not 3.17.x; fix: pip install -c constraints.txt -e .")
    return ", ".join(f"{k} {v}" for k, v in found.items() if v)


def _devices() -> str:
    import jax

    if shutil.which("nvidia-smi") and jax.default_backend() == "cpu":
        raise RuntimeError("an NVIDIA driver is here but JAX runs on the CPU; fix: pip install 'repertoire-rl[cuda]'")
    return f"{jax.default_backend()}: {', '.join(str(d) for d in jax.devices())}"


def _physics(backend: str) -> Check:
    def check() -> str:
        import jax
        import jax.numpy as jnp

        from repertoire.envs import registry

        env = registry.make("point", backend)
        state = jax.jit(env.reset)(jax.random.key(0))
        state = jax.jit(env.step)(state, jnp.ones(env.spec.action_size))
        if not bool(jnp.isfinite(state.data.qpos).all()):
            raise RuntimeError("the state is not finite after one step")
        return f"stepped `point` to {state.data.time:.3g} s"

    return check


def _export() -> str:
    try:
        import onnxruntime
    except ImportError:
        raise RuntimeError("onnxruntime is missing; fix: pip install 'repertoire-rl[export]'") from None
    return f"onnxruntime {onnxruntime.__version__}"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < 1:
        raise RuntimeError(f"{free:.1f} GiB free here; make room, or set run_dir= to another disk")
    return f"{free:.0f} GiB free"


#: (name, check, whether a failure is an error). GL comes first: a bad MUJOCO_GL breaks `import mujoco`.
CHECKS: tuple[tuple[str, Check, bool], ...] = (
    ("gl", _gl, False),
    ("versions", _versions, True),
    ("device", _devices, True),
    ("native", _physics("native"), True),
    ("mjx", _physics("mjx"), True),
    ("warp", _physics("warp"), False),
    ("export", _export, False),
    ("disk", _disk, True),
)
