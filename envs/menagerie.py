"""Where model files lie: paths, and robots of mujoco_menagerie in a local checkout. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from repertoire.errors import UserError, unknown

PREFIX = "menagerie:"
REPOSITORY = "https://github.com/google-deepmind/mujoco_menagerie"


def resolve(file: str) -> Path:
    """Absolute path of `file`: a path, or `menagerie:<robot>/<file>.xml`. Raises `UserError` where there is none."""
    if file.startswith(PREFIX):
        return _in_menagerie(file.removeprefix(PREFIX))
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"there is no model file {file} (looked in {path.absolute().parent})")
    return path.absolute()


def checkouts() -> list[Path]:
    """Folders that hold the menagerie here: $MENAGERIE, robot_descriptions' cache, MuJoCo Playground's."""
    cache = os.environ.get("ROBOT_DESCRIPTIONS_CACHE", "~/.cache/robot_descriptions")
    places = [Path(cache).expanduser() / "mujoco_menagerie"]
    playground = importlib.util.find_spec("mujoco_playground")
    if playground is not None and playground.origin is not None:
        places.append(Path(playground.origin).parent / "external_deps" / "mujoco_menagerie")
    if "MENAGERIE" in os.environ:  # says where it is, and nowhere else is looked
        places = [Path(os.environ["MENAGERIE"]).expanduser()]
    return [p for p in places if p.is_dir()]


def _in_menagerie(name: str) -> Path:
    found = checkouts()
    if not found:
        raise UserError(
            f"{PREFIX}{name} needs a checkout of mujoco_menagerie: git clone {REPOSITORY}, and set MENAGERIE=/its/path"
        )
    path = next((p / name for p in found if (p / name).is_file()), None)
    if path is not None:
        return path.absolute()
    robot, _, file = name.partition("/")
    folder = next((p / robot for p in found if robot and (p / robot).is_dir()), None)
    if folder is None:
        robots = {f.parent.name for p in found for f in p.glob("*/*.xml")}
        raise unknown(f"robot of the menagerie in {found[0]}", robot, robots)
    raise unknown(f"file of {robot} in {folder.parent}", file, [f.name for f in folder.glob("*.xml")])
