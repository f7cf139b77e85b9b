"""Robot skills without rewards: discovered in vectorized simulation, frozen, composed, exported.

The public names and the rooms (`repertoire.envs`, `repertoire.algos`, ...) load on first use: importing this
package loads neither JAX nor MuJoCo, so `repertoire --help` stays fast. It registers the Gymnasium ids.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repertoire.envs.registry import make as make_env
    from repertoire.skills.library import Library, Skill

__version__ = "0.1.0"

__all__ = ["Library", "Skill", "__version__", "make_env"]

#: Public name -> (module, attribute).
_NAMES = {
    "make_env": ("repertoire.envs.registry", "make"),
    "Skill": ("repertoire.skills.library", "Skill"),
    "Library": ("repertoire.skills.library", "Library"),
}
_ROOMS = ("algos", "configs", "deploy", "envs", "experiment", "high_level", "scripts", "skills")


def __getattr__(name: str) -> Any:
    """Load a public name or a room on first use."""
    if name in _ROOMS:
        return importlib.import_module(f"repertoire.{name}")
    if name not in _NAMES:
        raise AttributeError(f"module 'repertoire' has no attribute {name!r}")
    module, attribute = _NAMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every name that `__getattr__` answers, beside what is loaded already."""
    return sorted({*globals(), *_NAMES, *_ROOMS})


def _register_gymnasium_ids() -> None:
    from repertoire.envs.gym_ids import register

    register()


_register_gymnasium_ids()
