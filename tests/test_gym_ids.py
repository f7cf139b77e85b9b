"""Gymnasium ids: every env, in any import order, cheaply."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import pytest

from repertoire.envs import registry
from repertoire.envs.gym_ids import NAMES, gym_id, register


def _python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env=os.environ.copy())
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_names_are_those_of_the_registry() -> None:
    assert set(NAMES) == set(registry.TASKS), "list the names of registry.TASKS in envs/gym_ids.py"
    assert len(set(map(gym_id, NAMES))) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("ant", "repertoire/Ant-v0"), ("half_cheetah_forward", "repertoire/HalfCheetahForward-v0")],
)
def test_ids_are_camel_case(name: str, wanted: str) -> None:
    assert gym_id(name) == wanted


def test_registering_twice_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    register()
    register()
    assert not recwarn.list
    spec = gymnasium.spec("repertoire/Ant-v0")
    assert spec.kwargs == {"env_name": "ant"} and spec.max_episode_steps is None


@pytest.mark.parametrize("imports", ["import repertoire, gymnasium", "import gymnasium, repertoire"])
def test_ids_are_there_in_any_import_order(imports: str) -> None:
    code = f"{imports}, sys; print(len([i for i in gymnasium.registry if i.startswith('repertoire/')]))"
    assert _python(f"{code}; assert not {{'jax', 'mujoco'}} & set(sys.modules)") == str(len(NAMES))


def test_import_takes_well_below_a_second() -> None:
    code = "import time; t = time.process_time(); import repertoire; print(time.process_time() - t)"
    assert min(float(_python(code)) for _ in range(3)) < 0.6
