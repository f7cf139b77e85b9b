"""Runs an exported policy. This file stands alone: copy the export folder to a robot computer and call it.

    python runner.py [EXPORT_DIR] --steps 200 [--latency 1] [--noise 0.01] [--z 1,0] [--goal "3,4;5,6"]
                     [--command "name=1,0;0,1"] [--edited] [--view]

It reads `contract.json` and the ONNX file that the contract names; numpy and onnxruntime are all it needs on a robot,
and mujoco to simulate. Vectors are in the order of the contract; models are addressed by joint and actuator *name*.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 2
KINDS = ("policy", "skill", "controller")
#: What a drive's action changes: the hand's position, its pose, or the joints; and in each the opening, last.
MODES = ("ee_delta", "ee_pose", "joint")
Command = Mapping[str, Any]

#: The contract: exact keys; [x] is a list of x, (x,) is x or null, `dict` is free, float takes integers too.
_FILE = {"file": str, "sha256": str}
CONTRACT: dict[str, Any] = {
    "schema": int,
    "kind": str,
    "env": str,
    "onnx": {**_FILE, "opset": int, "inputs": dict, "outputs": dict},
    "model": {"mujoco": str, "xml": (_FILE,), "mjb": _FILE},
    "timing": {"control_dt": float, "physics_dt": float, "substeps": int, "episode_length": int},
    "joints": [{"name": str, "type": str, "qpos": [int], "qvel": [int], "default": [float], "range": ([float],)}],
    "default_pose": [float],
    "root": int,
    "actuators": [
        {
            "name": str, "joint": (str,), "type": str, "gear": [float], "ctrl_range": ([float],),
            "force_range": ([float],), "kp": (float,), "kd": (float,), "note": str,
        }
    ],
    "action": {"names": [str], "clip": [float], "scale": [float], "offset": [float], "note": str},
    "drive": (
        {
            "mode": str, "actuators": [str], "note": str,
            # of each joint its tilt and offset [m] in the frame of the joint before; it turns about its z
            "chain": {
                "joints": [str], "tilts": [[[float]]], "offsets": [[float]], "tool_offset": [float],
                "tool_turn": [[float]],
            },
            "limits": {"low": [float], "high": [float], "step": [float]},  # rad, rad per control step
            "solver": {"iterations": int, "damping": float, "rest": [float], "rest_gain": float},
            # leashes: m, sine of an angle, multiples of `limits.step`
            "targets": {
                "rotation": [[float]], "workspace": [[float]], "leash": float, "leash_turn": float,
                "leash_steps": float,
            },
            "gripper": {"joints": [str], "low": float, "high": float, "start": float},  # m per finger
        },
    ),
    "observation": {
        "terms": [
            {
                "name": str, "size": int, "unit": str, "scale": float, "clip": ([float],), "noise": float,
                "history": int, "source": str,
            }
        ],
        "normaliser": str,
    },
    "commands": [{"name": str, "size": int, "unit": str, "range": ([[float]],), "hold": int, "note": str}],
    "latent": ({"kind": str, "size": int, "hold": int, "note": str},),
    "hierarchy": (
        {
            "mode": str, "hold": int, "macro_dt": float, "state": int,
            "fields": [{"name": str, "size": int, "choices": int}],  # of the state, in order; choices 0: real numbers
            "outputs": [str],  # of the controller's network
            "rule": (dict,),  # that decides in place of a network, and what its tables and its memory are
            "options": [{"skill": str, "latent": [float]}],
            "skills": [
                {
                    "name": str, "version": (str,), "digest": str, "slices": [str], "latent": str, "size": int,
                    "hold": int, "over": [str],
                }
            ],
        },
    ),
    "provenance": dict,
}  # fmt: skip

_PART = r"(qpos|qvel|default)\[(\d+):(\d+)\]"
#: What a term can be made of, `A` or `A - B`, by kind. `default` is the contract's default pose. Of a quaternion,
#: `gravity` is the direction of gravity in its frame, `heading` cosine and sine of its yaw, `axes` the first two
#: columns of its rotation. `clock(p)` is sine and cosine of the time since the episode began, with period p in
#: seconds; `action` is the policy's last one; `hand` the tool centre point of the drive's chain, m; `lag` how far the
#: arm is behind the drive's targets.
ATOMS = {
    "part": re.compile(_PART),
    "of": re.compile(rf"(gravity|heading|axes|mean)\({_PART}\)"),
    "drive": re.compile("(hand|lag)"),
    "command": re.compile(r"command\.(\w+)"),
    "clock": re.compile(r"clock\(([0-9.]+)\)"),
    "action": re.compile("action"),
}
SENSED = ("part", "of", "drive")
#: Entries of what is made of a quaternion, or of any entries (`mean`).
_SIZES = {"gravity": 3, "heading": 2, "axes": 6, "mean": 1}
Atom = tuple[str, tuple[Any, ...]]


class ExportError(ValueError):
    """Bad export or bad input; the message is one line."""


def _validate(value: Any, shape: Any, path: str) -> None:
    """Raise `ExportError` unless `value` has exactly the declared `shape`."""
    if isinstance(shape, tuple):
        if value is not None:
            _validate(value, shape[0], path)
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            raise ExportError(f"contract: {path} must be an object; export again")
        for problem, keys in (("is missing", shape.keys() - value.keys()), ("is unknown", value.keys() - shape.keys())):
            if keys:
                raise ExportError(f"contract: field {path}.{min(keys)} {problem}; export again with this version")
        for key, inner in shape.items():
            _validate(value[key], inner, f"{path}.{key}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ExportError(f"contract: {path} must be a list; export again")
        for i, item in enumerate(value):
            _validate(item, shape[0], f"{path}[{i}]")
    elif isinstance(value, bool) or not isinstance(value, (int, float) if shape is float else shape):
        raise ExportError(f"contract: {path} must be a {shape.__name__}, got {value!r}; export again")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(contract: Mapping[str, Any]) -> str:
    """SHA-256 of a contract as canonical JSON, its own field `digest` left out."""
    told = {k: v for k, v in contract.items() if k != "digest"}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load_contract(folder: str | Path, edited: bool = False) -> dict[str, Any]:
    """Contract of an export folder, with every field, every file's hash and its own digest checked.

    `edited` takes a contract that was changed after export. Contracts from before there were digests have none.
    Raises `ExportError`.
    """
    folder = Path(folder)
    try:
        contract = json.loads((folder / "contract.json").read_text())
    except OSError as e:
        raise ExportError(f"{folder} is no export: no readable contract.json in it") from e
    except ValueError as e:
        raise ExportError(f"{folder}/contract.json is no JSON ({e}); export again") from e
    if not isinstance(contract, dict) or contract.get("schema") != SCHEMA:
        found = contract.get("schema") if isinstance(contract, dict) else None
        raise ExportError(f"contract has schema {found!r}, this runner reads {SCHEMA}; export again")
    said = contract.pop("digest", None)
    _validate(contract, CONTRACT, "contract")
    if contract["kind"] not in KINDS:
        raise ExportError(f"contract: kind {contract['kind']!r} is none of {', '.join(KINDS)}; export again")
    for term in contract["observation"]["terms"]:
        atoms = parse(term["source"])
        if term["history"] < 1 or not atoms or (contract["drive"] is None and "drive" in [kind for kind, _ in atoms]):
            raise ExportError(f"contract: this runner cannot read observation {term['name']!r}; export again")
    _check_drive(contract)
    for problem in _problems(contract):
        raise ExportError(f"contract: {problem}; export again")
    for entry in (contract["onnx"], contract["model"]["xml"], contract["model"]["mjb"]):
        if entry is not None and Path(entry["file"]).name != entry["file"]:
            raise ExportError(f"contract: {entry['file']!r} is no file of the export's own folder; export again")
        if entry is not None and not (folder / entry["file"]).is_file():
            raise ExportError(f"{entry['file']} is missing in {folder}; copy the whole export")
        if entry is not None and sha256(folder / entry["file"]) != entry["sha256"]:
            raise ExportError(f"{folder / entry['file']} is not the file this contract was written for; export again")
    if said not in (None, digest(contract)) and not edited:
        raise ExportError(
            f"{folder / 'contract.json'} was edited after export: export again, or go on at your own risk with --edited"
        )
    return contract


def _problems(contract: Mapping[str, Any]) -> Iterator[str]:
    """What in a contract of the right form does not agree with the rest of it."""
    timing, names, joints = contract["timing"], contract["action"]["names"], contract["joints"]
    if min(timing.values()) <= 0 or abs(timing["substeps"] * timing["physics_dt"] - timing["control_dt"]) > 1e-6:
        yield f"timing says {timing['substeps']} substeps of {timing['physics_dt']} s in {timing['control_dt']} s"
    actuators = [a["name"] for a in contract["actuators"]]
    if contract["drive"] is None and names != actuators:
        yield f"action.names are not the actuators in their order ({', '.join(actuators)})"
    for what, values, wanted in _lengths(contract):
        if len(values) != wanted:
            yield f"{what} has {len(values)} entries, not {wanted}"
            return  # what follows takes pairs apart
    sizes = {name: sum(j[name][1] for j in joints) for name in ("qpos", "qvel")}
    if len(contract["default_pose"]) != sizes["qpos"] or not 0 <= contract["root"] <= sizes["qpos"]:
        yield f"default_pose and root do not fit the {sizes['qpos']} entries of qpos that the joints have"
    sizes |= {"default": sizes["qpos"], "action": len(names)}
    for term in contract["observation"]["terms"]:
        yield from _term_problems(term, sizes, {c["name"]: c["size"] for c in contract["commands"]})
    yield from _width_problems(contract)


def _lengths(contract: Mapping[str, Any]) -> Iterator[tuple[str, list[Any], int]]:
    """(what, list, how many entries it must have)."""
    action = contract["action"]
    yield "action.clip", action["clip"], 2
    for name in ("scale", "offset"):
        yield f"action.{name}", action[name], len(action["names"])
    for joint in contract["joints"]:
        for name in ("qpos", "qvel"):
            yield f"{name} of joint {joint['name']!r}", joint[name], 2
        yield f"default of joint {joint['name']!r}", joint["default"], joint["qpos"][1]
    for actuator in (a for a in contract["actuators"] if a["ctrl_range"] is not None):
        yield f"ctrl_range of actuator {actuator['name']!r}", actuator["ctrl_range"], 2
    for row in (c for c in contract["commands"] if c["range"] is not None):
        yield f"range of command {row['name']!r}", row["range"], row["size"]
        for pair in row["range"]:
            yield f"a range of command {row['name']!r}", pair, 2
    for term in (t for t in contract["observation"]["terms"] if t["clip"] is not None):
        yield f"clip of observation {term['name']!r}", term["clip"], 2


def _term_problems(term: Mapping[str, Any], sizes: Mapping[str, int], commands: Mapping[str, int]) -> Iterator[str]:
    """What of a term's source is not there, or is of another size; `sizes` of the state's parts and the action."""
    for kind, groups in parse(term["source"]):
        if kind in ("part", "of"):
            name, a, b = groups[-3], int(groups[-2]), int(groups[-1])
            width = b - a if kind == "part" else _SIZES[groups[0]]
            if not a < b <= sizes[name] or (kind == "of" and groups[0] != "mean" and b - a != 4):
                yield f"observation {term['name']!r} reads {name}[{a}:{b}] of {sizes[name]} entries"
        elif kind == "command":
            width = commands.get(groups[0], 0)
        else:
            width = {"clock": 2, "hand": 3}.get(groups[0] if kind == "drive" else kind, sizes["action"])
        if width != term["size"]:
            yield f"observation {term['name']!r} has {term['size']} entries, {term['source']!r} makes {width}"


def _width_problems(contract: Mapping[str, Any]) -> Iterator[str]:
    """Where the network is said to be of other widths than what goes in and comes out."""
    inputs, outputs = contract["onnx"]["inputs"], contract["onnx"]["outputs"]
    held = [(contract["latent"], "size"), (contract["hierarchy"], "state")]
    rows = [("obs", inputs, sum(t["size"] * t["history"] for t in contract["observation"]["terms"]))]
    rows += [("action", outputs, len(contract["action"]["names"]))]
    rows += [("z", inputs, part[key]) for part, key in held if part is not None]
    for name, table, wanted in rows:
        if table.get(name, 0) != wanted:
            yield f"{name} of the network has {table.get(name, 0)} entries, the rest of the contract says {wanted}"


def _check_drive(contract: Mapping[str, Any]) -> None:
    """Raise `ExportError` where the drive is of another mode, or on joints that the contract does not have."""
    drive = contract["drive"]
    if drive is None:
        return
    if drive["mode"] not in MODES:
        raise ExportError(f"contract: drive mode {drive['mode']!r} is none of {', '.join(MODES)}; export again")
    absent = {*drive["chain"]["joints"], *drive["gripper"]["joints"]} - {j["name"] for j in contract["joints"]}
    if absent:
        raise ExportError(f"contract: the drive's joint {min(absent)!r} is none of the contract's; export again")
    if drive["actuators"] != [a["name"] for a in contract["actuators"]]:
        raise ExportError("contract: the drive's actuators are not the contract's; export again")


def parse(source: str) -> list[Atom]:
    """The (kind, groups) of the atoms of `A` or `A - B`; empty if it is neither."""
    texts = source.split(" - ")
    found = [(k, m.groups()) for text in texts for k, pattern in ATOMS.items() if (m := pattern.fullmatch(text))]
    return found if len(found) == len(texts) <= 2 else []


def _of(what: str, q: np.ndarray) -> np.ndarray:
    """`mean` of `q`, or `gravity`, `heading` or `axes` of the quaternion `q`, w first."""
    if what == "mean":
        return np.mean(q, keepdims=True)
    w, x, y, z = q
    if what == "gravity":
        return np.array([2 * (w * y - x * z), -2 * (w * x + y * z), 2 * (x * x + y * y) - 1], np.float32)
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    if what == "axes":
        return np.array([*first, 2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], np.float32)
    forward = np.array(first[:2], np.float32)
    return forward / max(float(np.linalg.norm(forward)), 1e-6)


@dataclass(frozen=True)
class Disturbance:
    """What reality adds: `latency` control steps between observation and actuation, Gaussian `noise` (standard
    deviation, in each observation's own unit, commands excepted), `seed` of the noise."""

    latency: int = 0
    noise: float = 0.0
    seed: int = 0


class Drive:
    """Turns changes of targets into joint targets of a serial arm, as the contract says that training did.

    Targets never run further from the arm than a leash. The hand follows by damped least squares (Nakamura, Hanafusa
    1986; Wampler 1986) with a rest posture, and joint targets move no faster than the joints may, unless (mode `joint`)
    the leash pulls them after an arm that was moved. They are kept in float32, as in training: small changes add up.
    """

    def __init__(self, contract: Mapping[str, Any]) -> None:
        drive, at = contract["drive"], {j["name"]: j["qpos"][0] for j in contract["joints"]}
        self.mode, self.solver = drive["mode"], drive["solver"]
        self.targets, self.gripper = drive["targets"], drive["gripper"]
        self.address = [at[name] for name in drive["chain"]["joints"]]
        self.fingers = [at[name] for name in drive["gripper"]["joints"]]
        self.links = list(zip(*(np.asarray(drive["chain"][k], float) for k in ("tilts", "offsets")), strict=True))
        self.tool, self.turn = (np.asarray(drive["chain"][k], float) for k in ("tool_offset", "tool_turn"))
        self.low, self.high, self.step = (np.asarray(drive["limits"][k], float) for k in ("low", "high", "step"))
        self.stop()

    def stop(self) -> None:
        """Forget the targets: they start where the arm is found next."""
        self.joints = np.zeros(0, np.float32)

    def start(self, qpos: Any) -> np.ndarray:
        """Targets where the arm is at `qpos` [nq]; the hand as the contract turns it. Returns controls [n]."""
        self.joints, self.position = self.angles(qpos).astype(np.float32), self.hand(qpos).astype(np.float32)
        self.rotation = np.asarray(self.targets["rotation"], np.float32)
        self.opening = np.float32(self.gripper["start"])
        return self.controls()

    def controls(self) -> np.ndarray:
        """Targets of the joints, rad, and the opening, m per finger."""
        return np.append(self.joints, self.opening)

    def angles(self, qpos: Any) -> np.ndarray:
        """Joint angles of the chain, as float32 has them."""
        return np.asarray(qpos, np.float32)[self.address].astype(float)

    def hand(self, qpos: Any) -> np.ndarray:
        """Tool centre point [3], m, in the frame of the arm's base."""
        return self.forward(self.angles(qpos))[2]

    def forward(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(points [n, 3] on the joints' axes, the axes [n, 3], tool centre point [3], rotation [3, 3] of the hand)."""
        position, rotation, points, axes = np.zeros(3), np.eye(3), [], []
        for (tilt, offset), angle in zip(self.links, q, strict=True):
            c, s = np.cos(angle), np.sin(angle)
            position = position + rotation @ offset
            rotation = rotation @ tilt @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
            points.append(position)
            axes.append(rotation[:, 2])
        return np.array(points), np.array(axes), position + rotation @ self.tool, rotation @ self.turn

    def follow(self, change: np.ndarray, qpos: Any) -> np.ndarray:
        """Controls [n] after `change` (m, rad) of the targets, with the arm at `qpos` [nq]."""
        q, joints = self.angles(qpos), self.joints.astype(float)
        self.opening = np.clip(self.opening + change[-1], self.gripper["low"], self.gripper["high"]).astype(np.float32)
        if self.mode == "joint":
            reach = self.targets["leash_steps"] * self.step
            new = np.clip(np.clip(joints + change[:-1], q - reach, q + reach), self.low, self.high)
        else:
            self._move(change, *self.forward(q)[2:])
            new = self._solve(joints)
            new = joints + (new - joints) / max(1.0, np.max(np.abs(new - joints) / self.step))
        self.joints = new.astype(np.float32)
        return self.controls()

    def _move(self, change: np.ndarray, here: np.ndarray, rotation: np.ndarray) -> None:
        """The hand's target, no further than the leashes from `here` [3] and `rotation` [3, 3]."""
        offset = np.clip(self.position + change[:3], *self.targets["workspace"]) - here
        length = np.sqrt(np.sum(offset**2) + 1e-12)
        self.position = (here + offset * min(1.0, self.targets["leash"] / length)).astype(np.float32)
        if self.mode == "ee_pose":
            new = _turned(self.rotation, change[3:6])
            if np.linalg.norm(_rotation_error(new, rotation)) < self.targets["leash_turn"]:
                self.rotation = new.astype(np.float32)

    def _solve(self, q: np.ndarray) -> np.ndarray:
        """Joint angles near `q` whose hand is at its target, within the limits."""
        for _ in range(self.solver["iterations"]):
            points, axes, position, rotation = self.forward(q)
            turn = np.concatenate([np.cross(axes, position - points), axes], axis=1).T
            error = np.concatenate([self.position - position, _rotation_error(self.rotation, rotation)])
            drift = self.solver["rest_gain"] * (self.solver["rest"] - q)
            force = np.linalg.solve(turn @ turn.T + self.solver["damping"] ** 2 * np.eye(6), error - turn @ drift)
            q = np.clip(q + drift + turn.T @ force, self.low, self.high)
        return q

    def lag(self, qpos: Any) -> np.ndarray:
        """How far the arm at `qpos` [nq] is behind its targets, one entry per entry of the action."""
        q, last = self.angles(qpos), [self.opening - np.mean(np.asarray(qpos, np.float32)[self.fingers])]
        if self.mode == "joint":
            return np.concatenate([self.joints - q, last])
        *_, here, rotation = self.forward(q)
        parts = [self.position - here]
        if self.mode == "ee_pose":
            parts.append(_rotation_error(self.rotation, rotation))
        return np.concatenate([*parts, last])


def _rotation_error(target: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Vector [3] about which `rotation` [3, 3] must turn to become `target`; its length is the sine of the angle."""
    return 0.5 * np.cross(rotation.T, target.T).sum(axis=0)


def _turned(rotation: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`rotation` [3, 3] turned about `vector` [3] (base frame) by its length (Rodrigues)."""
    angle = np.sqrt(np.sum(np.asarray(vector, float) ** 2) + 1e-12)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return (np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross) @ rotation


class Runner:
    """An exported policy, skill or controller with its memory (held latent, clock).

    Args:
      export_dir: folder with `contract.json`. edited: take one that was changed after export.
    """

    def __init__(self, export_dir: str | Path, edited: bool = False) -> None:
        self.folder, self.contract = Path(export_dir), load_contract(export_dir, edited)
        try:
            import onnxruntime
        except ImportError as e:
            raise ExportError("running an export needs onnxruntime: pip install onnxruntime") from e
        onnx, options = self.contract["onnx"], onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        path = str(self.folder / onnx["file"])
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if [i.name for i in self.session.get_inputs()] != list(onnx["inputs"]):
            raise ExportError(f"{onnx['file']} does not have the inputs {', '.join(onnx['inputs'])}; export again")
        self.terms = self.contract["observation"]["terms"]
        self.atoms = [parse(term["source"]) for term in self.terms]
        self.drive = Drive(self.contract) if self.contract["drive"] else None
        self.commands = {c["name"]: c for c in self.contract["commands"]}
        self.sizes = {name: sum(j[name][1] for j in self.contract["joints"]) for name in ("qpos", "qvel")}
        self.dt = self.contract["timing"]["control_dt"]
        ranges = [a["ctrl_range"] or (-np.inf, np.inf) for a in self.contract["actuators"]]
        self.low, self.high = np.asarray(ranges, np.float32).T
        self.reset()

    def reset(self, goals: Any = None, z: Any = None, seed: int = 0, commands: Any = None) -> None:
        """Start an episode.

        Args:
          goals: [n, size] world positions, m, each held for the command's `hold` steps (the last for ever).
            By default drawn from the command's range by `seed`, where it has one.
          z: latent [size] of a skill; by default the first axis.
          seed: of goals and commands that are drawn, and of a planner's draws.
          commands: name -> [n, size], held as goals are, which may be among them as `goal`; those with a range are
            drawn where none are given, and clipped to it where they are (a warning on stderr says so).
        """
        told = dict(commands or {})
        goals = told.pop("goal", goals)
        self.t, self.obs = 0, np.zeros(0, np.float32)
        self.action = np.zeros(len(self.contract["action"]["names"]), np.float32)
        if self.drive is not None:
            self.drive.stop()
        self.draws = np.random.default_rng((seed, 1))  # a stream of their own, beside goals and commands
        width = self.contract["onnx"]["inputs"].get("z", 0)
        first = np.eye(1, width)[0] * (self.contract["kind"] == "skill")  # a controller holds nothing yet
        start = first if z is None else np.asarray(z, float).ravel()
        if z is not None and self.contract["kind"] != "skill":
            raise ExportError(f"this {self.contract['kind']} takes no latent: leave z away")
        if start.shape != (width,):
            raise ExportError(f"the latent has {width} entries, got {start.size}")
        self.z = start.astype(np.float32)
        self.warned: set[str] = set()  # commands of single steps that were out of range: said once, not at every step
        self.goals = self._goals(goals, seed)
        self.asked = self._asked(told, seed)

    def _goals(self, goals: Any, seed: int) -> np.ndarray | None:
        command = self.commands.get("goal")
        if command is None:
            if goals is not None:
                raise ExportError(f"this {self.contract['kind']} takes no goal: leave goals away")
            return None
        if goals is not None:
            given = np.atleast_2d(np.asarray(goals, float))
            if given.ndim != 2 or given.shape[1] != command["size"]:
                raise ExportError(f"a goal has {command['size']} entries ({command['unit']})")
            return given
        if command["range"] is None:
            return None
        low, high = np.asarray(command["range"]).T
        return np.cumsum(np.random.default_rng(seed).uniform(low, high, (1000, command["size"])), axis=0)

    def _asked(self, given: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        """Values [n, size] of all commands: given, or drawn from their ranges."""
        asked = {} if self.goals is None else {"goal": self.goals}
        known = {name: c for name, c in self.commands.items() if name != "goal"}
        for name in given:
            self._known(name, known)
        for i, (name, c) in enumerate(known.items()):
            if name in given:
                asked[name] = np.atleast_2d(np.asarray(given[name], float))
                if asked[name].ndim != 2 or asked[name].shape[1] != c["size"]:
                    raise ExportError(f"command {name!r} has {c['size']} entries ({c['unit']})")
                asked[name] = _within(c, asked[name])
            elif c["range"] is not None:
                low, high = np.asarray(c["range"]).T
                asked[name] = np.random.default_rng((seed, 2 + i)).uniform(low, high, (1000, c["size"]))
        return asked

    def command(self) -> dict[str, np.ndarray]:
        """What is asked for at this step, by name."""
        holds = {name: self.commands[name]["hold"] for name in self.asked}
        steps = {name: self.t // hold if hold else 0 for name, hold in holds.items()}
        return {name: values[min(steps[name], len(values) - 1)] for name, values in self.asked.items()}

    def _told(self, command: Command) -> dict[str, Any]:
        """Commands of one step within their ranges, where they have any; goals as they are."""
        found = dict(command)
        for name, value in command.items():
            self._known(name, self.commands)
            c, asked = self.commands[name], np.asarray(value, float).ravel()
            if name != "goal" and c["range"] is not None and asked.size == c["size"]:
                found[name] = _within(c, asked, self.warned)
        return found

    def _known(self, name: str, known: Mapping[str, Any]) -> None:
        if name not in known:
            raise ExportError(
                f"this {self.contract['kind']} takes no command {name!r}; it takes {_listed(self.commands)}"
            )

    def observe(self, qpos: Any, qvel: Any, command: Command, noise: Callable[[int], Any] | None = None) -> np.ndarray:
        """Observation [P] float32 from qpos [nq], qvel [nv] and commands; `noise(size)` is added to sensor terms.

        Terms with a history take the values before this one from `self.obs`, and copies where there are none.
        """
        state, parts, start = self._state(qpos, qvel), [], 0
        if self.drive is not None and not self.drive.joints.size:
            self.drive.start(qpos)
        for term, atoms in zip(self.terms, self.atoms, strict=True):
            value = self._value(term, atoms, state, command)
            if noise is not None and atoms[0][0] in SENSED:
                value = value + noise(value.size)
            if term["clip"] is not None:
                value = np.clip(value, *term["clip"])
            value = value.astype(np.float32) * np.float32(term["scale"])
            width = term["history"] * term["size"]
            before = (
                self.obs[start + term["size"] : start + width] if self.obs.size else np.tile(value, term["history"] - 1)
            )
            parts += [before, value]
            start += width
        return np.concatenate(parts)

    def _state(self, qpos: Any, qvel: Any) -> dict[str, np.ndarray]:
        """What terms take parts of. Raises `ExportError` for what is no state."""
        named = {"qpos": qpos, "qvel": qvel, "default": self.contract["default_pose"]}
        state = {name: np.asarray(value, np.float32).ravel() for name, value in named.items()}
        for name, size in self.sizes.items():
            if state[name].size != size:
                raise ExportError(f"{name} has {size} entries, those of the contract's joints; got {state[name].size}")
            if not np.isfinite(state[name]).all():
                raise ExportError(f"{name} holds what is no number; nothing was decided: act again with a whole state")
        return state

    def _value(
        self, term: Mapping[str, Any], atoms: list[Atom], state: Mapping[str, np.ndarray], command: Command
    ) -> np.ndarray:
        """What a term's source says, unscaled."""
        values = [self._atom(term, kind, groups, state, command) for kind, groups in atoms]
        wrong = [v.size for v in values if v.size != term["size"]]
        if wrong:
            raise ExportError(f"observation {term['name']!r} has {term['size']} entries, got {wrong[0]}")
        return values[0] - values[1] if len(values) == 2 else values[0]

    def _atom(
        self,
        term: Mapping[str, Any],
        kind: str,
        groups: tuple[Any, ...],
        state: Mapping[str, np.ndarray],
        command: Command,
    ) -> np.ndarray:
        if kind in ("part", "of"):
            name, a, b = groups[-3:]
            part = state[name][int(a) : int(b)]
            return part if kind == "part" else _of(groups[0], part)
        if kind == "drive":
            found: np.ndarray = getattr(self.drive, groups[0])(state["qpos"])
            return found.astype(np.float32)
        if kind == "clock":
            angle = np.float32(2 * np.pi * self.t * self.dt / float(groups[0]))
            return np.array([np.sin(angle), np.cos(angle)], np.float32)
        if kind == "action":
            return self.action
        if groups[0] not in command:
            raise ExportError(
                f"command {groups[0]!r} is missing: act(qpos, qvel, {{{groups[0]!r}: [{term['size']} numbers]}}), or "
                f"--command {groups[0]}=..."
            )
        return np.asarray(command[groups[0]], np.float32).ravel()

    def missing(self, qpos: Any, qvel: Any) -> float | None:
        """Distance from the goal of what it is about, at a state; None where no term tells."""
        for term, atoms in zip(self.terms, self.atoms, strict=True):
            if atoms[0] == ("command", ("goal",)) and len(atoms) == 2 and self.goals is not None:
                return float(np.linalg.norm(self._value(term, atoms, self._state(qpos, qvel), self.command())))
        return None

    def act(self, qpos: Any, qvel: Any, command: Command | None = None, noise: Any = None) -> np.ndarray:
        """One control step: controls [n] of the contract's actuators for qpos [nq], qvel [nv], in its order.

        They are clipped to the actuators' `ctrl_range`, as in training. `command` overrides, name by name, what was
        given to `reset`, and is clipped to its range as there. Call it once per control period: it advances the clock.
        Raises `ExportError` where something is missing, unknown or no number; then nothing has changed.
        """
        obs = self.observe(qpos, qvel, {**self.command(), **self._told(command or {})}, noise)
        if not np.isfinite(obs).all():
            raise ExportError("a command holds what is no number; nothing was decided: act again with whole commands")
        self.obs = obs
        inputs, hierarchy = {"obs": self.obs[None], "z": self.z[None]}, self.contract["hierarchy"]
        if hierarchy is not None:
            decides = self.t % hierarchy["hold"] == 0
            inputs["decide"] = np.full((1, 1), decides, np.float32)
            inputs["noise"] = self.draw(decides)[None]
        names = list(self.contract["onnx"]["outputs"])
        feed = {name: inputs[name] for name in self.contract["onnx"]["inputs"]}
        out = {k: v[0] for k, v in zip(names, self.session.run(names, feed), strict=True)}
        self.z, self.action, self.t = out.get("z_next", self.z), out["action"], self.t + 1
        if self.drive is not None:
            return self.drive.follow(out["ctrl"], qpos)
        return np.clip(out["ctrl"], self.low, self.high)  # as MuJoCo's actuators do; those of a robot may not

    def draw(self, decides: bool = True) -> np.ndarray:
        """What a planner draws for a decision, standard normal float32 [`noise`]; zeros, and no draw, between two."""
        width = self.contract["onnx"]["inputs"].get("noise", 0)
        return self.draws.standard_normal(width, np.float32) if decides else np.zeros(width, np.float32)

    def simulate(
        self,
        steps: int,
        model: Any = None,
        start: tuple[Any, Any] | None = None,
        commands: Callable[[int], Command] | None = None,
        disturbance: Disturbance | None = None,
        on_step: Callable[[Any], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Closed loop in C MuJoCo from `start` (qpos, qvel; the default pose at rest), after `reset`.

        Args:
          model: `mujoco.MjModel` to run in, matched by names (the exported one). commands: step -> commands, in place
            of the goals. on_step: called with the `mujoco.MjData` at the start and after every step.
        Returns: qpos [T+1, nq], qvel [T+1, nv], ctrl, obs, action [T, .] and, for a controller, its `z` [T, .].
        """
        world, extra = World(self, model), disturbance or Disturbance()
        rng, size = np.random.default_rng(extra.seed), len(self.contract["actuators"])
        noise = (lambda n: rng.normal(0.0, extra.noise, n)) if extra.noise else None
        world.reset(*(start or (self.contract["default_pose"], np.zeros(len(world.v)))))
        idle = self.drive.start(world.state()[0]) if self.drive else np.asarray(self.contract["action"]["offset"])
        queue = [idle] * extra.latency
        log: dict[str, list[Any]] = {k: [] for k in ("qpos", "qvel", "ctrl", "obs", "action", "z")}
        for step in range(steps + 1):
            qpos, qvel = world.state()
            for name, value in (("qpos", qpos), ("qvel", qvel)):
                log[name].append(value)
            if on_step is not None:
                on_step(world.data)
            if step == steps:
                break
            queue.append(self.act(qpos, qvel, commands(step) if commands else None, noise).reshape(size))
            world.step(queue.pop(0))
            for name, value in (("ctrl", world.ctrl()), ("obs", self.obs), ("action", self.action), ("z", self.z)):
                log[name].append(value)
        return {name: np.asarray(values) for name, values in log.items()}


class World:
    """A MuJoCo model, seen in the contract's order of joints and actuators.

    Args:
      runner: the loaded export. model: `mujoco.MjModel` with the contract's joints and actuators, in any order and
        among others; None loads the exported one (the binary if this is the MuJoCo that wrote it: XML rounds numbers).
    """

    def __init__(self, runner: Runner, model: Any = None) -> None:
        import mujoco

        self.mujoco, contract = mujoco, runner.contract
        self.model = load_model(runner.folder, contract["model"]) if model is None else model.__copy__()
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.data = mujoco.MjData(self.model)
        joints, obj = contract["joints"], mujoco.mjtObj
        ids = [self._id(obj.mjOBJ_JOINT, j["name"], "joint") for j in joints]
        self.q = _addresses(self.model.jnt_qposadr, ids, [j["qpos"] for j in joints])
        self.v = _addresses(self.model.jnt_dofadr, ids, [j["qvel"] for j in joints])
        self.u = np.array([self._actuator(a) for a in contract["actuators"]], int)
        ratio = runner.dt / self.model.opt.timestep
        self.substeps = round(ratio)
        if self.substeps < 1 or abs(ratio - self.substeps) > 1e-6:
            raise ExportError(
                f"the model's timestep {self.model.opt.timestep} s does not divide the control period {runner.dt} s"
            )

    def reset(self, qpos: Any, qvel: Any) -> None:
        """Place the robot; kinematics are computed."""
        self.mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.q], self.data.qvel[self.v] = qpos, qvel
        self.mujoco.mj_forward(self.model, self.data)

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """(qpos [nq], qvel [nv]) in the contract's order. Raises `ExportError` when the physics diverged."""
        qpos, qvel = self.data.qpos[self.q], self.data.qvel[self.v]
        if not (np.abs(np.concatenate([qpos, qvel])) < 1e6).all():  # NaN compares false
            raise ExportError(f"the simulation diverged at {self.data.time:.2f} s")
        return qpos, qvel

    def ctrl(self) -> np.ndarray:
        """Controls [nu] in the contract's order."""
        return self.data.ctrl[self.u]

    def step(self, ctrl: np.ndarray) -> None:
        """One control period under constant `ctrl` [nu]."""
        self.data.ctrl[self.u] = ctrl
        self.mujoco.mj_step(self.model, self.data, nstep=self.substeps)

    def _id(self, kind: Any, name: str, what: str) -> int:
        found = self.mujoco.mj_name2id(self.model, kind, name)
        if found < 0:
            raise ExportError(f"the model has no {what} {name!r}, which the contract names")
        return found

    def _actuator(self, actuator: Mapping[str, Any]) -> int:
        """Id by name; an actuator that has no name is known by its joint."""
        obj = self.mujoco.mjtObj
        found = self.mujoco.mj_name2id(self.model, obj.mjOBJ_ACTUATOR, actuator["name"])
        if found >= 0 or actuator["joint"] is None:
            return found if found >= 0 else self._id(obj.mjOBJ_ACTUATOR, actuator["name"], "actuator")
        joint = self._id(obj.mjOBJ_JOINT, actuator["joint"], "joint")
        driving = np.flatnonzero(self.model.actuator_trnid[:, 0] == joint)
        if len(driving) != 1:
            raise ExportError(f"the model has {len(driving)} actuators on joint {actuator['joint']!r}, need one")
        return int(driving[0])


def _addresses(table: Any, ids: list[int], wanted: list[list[int]]) -> np.ndarray:
    """Model addresses [n] of the contract's positions: `wanted` are the contract's (start, size) of each joint."""
    out = np.full(sum(size for _, size in wanted), -1)
    for joint, (start, size) in zip(ids, wanted, strict=True):
        out[start : start + size] = int(table[joint]) + np.arange(size)
    return out


def load_model(folder: Path, entry: Mapping[str, Any]) -> Any:
    """The exported `mujoco.MjModel`; `entry` is `model` of the contract. Raises `ExportError`."""
    import mujoco

    if mujoco.__version__ == entry["mujoco"]:
        return mujoco.MjModel.from_binary_path(str(folder / entry["mjb"]["file"]))
    if entry["xml"] is None:
        raise ExportError(f"this model needs mujoco {entry['mujoco']}, here is {mujoco.__version__}: give --model FILE")
    return mujoco.MjModel.from_xml_path(str(folder / entry["xml"]["file"]))


class _Viewer:
    """MuJoCo's viewer as an `on_step`, at real time."""

    def __init__(self, dt: float) -> None:
        self.dt, self.next = dt, 0.0
        self.handle: Any = None

    def __call__(self, data: Any) -> None:
        import time

        if self.handle is None:
            import mujoco.viewer

            self.handle, self.next = mujoco.viewer.launch_passive(data.model, data), time.time()
        self.handle.sync()
        self.next += self.dt
        time.sleep(max(0.0, self.next - time.time()))


def _within(command: Mapping[str, Any], values: np.ndarray, warned: set[str] | None = None) -> np.ndarray:
    """`values` [..., size] in the command's range, with a warning where they were not: training saw no others.

    There is none for commands among `warned`, to which this one is added.
    """
    if command["range"] is None:
        return values
    inside, told = np.clip(values, *np.asarray(command["range"]).T), set() if warned is None else warned
    if command["name"] not in told and not np.array_equal(inside, values, equal_nan=True):
        print(f"warning: command {command['name']!r} is clipped to its range {command['range']}", file=sys.stderr)
        told.add(command["name"])
    return inside


def _listed(commands: Mapping[str, Command]) -> str:
    """What can be asked for: names, units, sizes."""
    rows = [f"{name} ({c['size']} numbers, {c['unit']})" for name, c in commands.items()]
    return ", ".join(rows) or "none"


def _commands(texts: list[str], known: Mapping[str, Command]) -> dict[str, list[list[float]]]:
    """name -> values, from `NAME=NUMBERS`."""
    found = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise ExportError(f"--command is NAME=NUMBERS, got {text!r}; this export takes {_listed(known)}")
        found[name] = [_numbers(v) for v in values.split(";")]
    return found


def _numbers(text: str) -> list[float]:
    try:
        return [float(x) for x in text.split(",")]
    except ValueError as e:
        raise ExportError(f"{text!r} is no list of numbers such as 1,0") from e


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description="Run an export in C MuJoCo.")
    p.add_argument("export_dir", nargs="?", default=Path(__file__).parent)
    p.add_argument("--steps", type=int, default=200, help="control steps")
    p.add_argument("--latency", type=int, default=0, help="control steps between observation and actuation")
    p.add_argument("--noise", type=float, default=0.0, help="standard deviation of observation noise")
    p.add_argument("--z", help="latent of a skill: 1,0")
    p.add_argument("--goal", help='goals in the world frame, m: "3,4;5,6"')
    p.add_argument("--command", action="append", default=[], help='name=values: "command=1,0,0;0,0,1"')
    p.add_argument("--seed", type=int, default=0, help="of noise and of what is asked for, if not given")
    p.add_argument("--model", help="MJCF to run in, in place of the exported model")
    p.add_argument("--edited", action="store_true", help="take a contract.json that was changed after export")
    p.add_argument("--view", action="store_true", help="show it")
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Simulate, print the distance travelled, the mean control and the distance to the last goal."""
    args = _arguments(argv)
    if args.steps < 1 or args.latency < 0 or args.noise < 0:
        raise ExportError("--steps must be at least 1, --latency and --noise at least 0")
    runner, model = Runner(args.export_dir, args.edited), None
    if args.model:
        import mujoco

        model = mujoco.MjModel.from_xml_path(args.model)
    goals = [_numbers(g) for g in args.goal.split(";")] if args.goal else None
    commands = _commands(args.command, runner.commands)
    runner.reset(goals, _numbers(args.z) if args.z else None, args.seed, commands)
    extra = Disturbance(args.latency, args.noise, args.seed)
    view = _Viewer(runner.dt) if args.view else None
    out = runner.simulate(args.steps, model, disturbance=extra, on_step=view)
    root = out["qpos"][:, : runner.contract["root"]]
    away, path = np.linalg.norm(root[-1] - root[0]), np.linalg.norm(np.diff(root, axis=0), axis=1).sum()
    went, path = (f"distance {away:.2f} m after ", f" (path {path:.2f} m)") if root.size else ("", "")
    print(
        f"{runner.contract['kind']} on {runner.contract['env']}: {went}{args.steps * runner.dt:.2f} s{path}, "
        f"mean |ctrl| {np.abs(out['ctrl']).mean():.3f}"
    )
    left = runner.missing(out["qpos"][-1], out["qvel"][-1])
    if left is not None:
        print(f"distance to the last goal: {left:.3f} m")


if __name__ == "__main__":
    try:
        main()
    except (ExportError, ImportError, ValueError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
