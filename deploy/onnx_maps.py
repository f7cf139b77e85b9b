"""Maps in ONNX: way points and skill graphs, whose tables are constants of the graph."""

from __future__ import annotations

import numpy as np

from repertoire.deploy.onnx_graph import Writer
from repertoire.envs.lattice import Lattice
from repertoire.high_level.navigate import LOST, Navigator
from repertoire.high_level.route import WayPoint


def way_point(write: Writer, way: WayPoint, here: str, ahead: str) -> str:
    """`WayPoint`: where [B, 2] the way point lies from `here` [B, 2] on the way to the goal, which lies `ahead`."""
    guide, second = way.guide, write.constant([1], np.int64)
    place = write.node("Unsqueeze", _cell(write, guide.cells, here), second)  # [B, 1]
    place = write.node("Squeeze", _at_goal(write, guide.goals, guide.cells.free.size, here, ahead, place), second)
    table, codes = np.unique(guide.ahead.reshape(-1, 2), axis=0, return_inverse=True)  # a quarter of the size
    code = write.node("Gather", write.constant(codes.ravel(), np.min_scalar_type(len(table))), place, axis=0)
    point = write.node("Gather", write.constant(table), write.cast(code, "INT64"), axis=0)
    return write.node("Sub", point, here)


def navigator(write: Writer, rule: Navigator, here: str, ahead: str, last: str) -> tuple[str, str]:
    """`Navigator.step`: option and memory, [B, 1] each. `here` [B, 2] may be "" on open ground."""
    cells, options = rule.field.cells, rule.graph.start
    index = write.cast(write.node("Squeeze", last, write.constant([1], np.int64)), "INT64")
    at = here if rule.field.absolute else write.node("Neg", ahead)
    at = write.node("Unsqueeze", at, write.constant([1, 2], np.int64))
    way = write.node("Add", at, write.node("Gather", write.constant(rule.ways), index, axis=0))  # [B, parts, n, 2]
    place = _cell(write, cells, way)
    free = write.node("Gather", write.constant(cells.free.ravel()), place, axis=0)
    blocked = write.node("Sub", write.constant(1), write.node("ReduceMin", free, axes=[1], keepdims=0))
    end = write.node("Gather", place, write.constant(rule.ways.shape[1] - 1, np.int64), axis=1)  # [B, n]
    end = write.node("Add", end, write.constant(cells.free.size * np.arange(options), np.int64))
    if rule.field.absolute:
        end = _at_goal(write, rule.field.goals, options * cells.free.size, here, ahead, end)
    onward = write.node("Gather", write.constant(rule.value.ravel()), end, axis=0)
    cost = write.node("Add", write.node("Gather", write.constant(rule.price), index, axis=0), onward)
    cost = write.node("Add", cost, write.node("Mul", blocked, write.constant(LOST)))
    option = write.cast(write.node("ArgMin", cost, axis=1, keepdims=1), "FLOAT")
    return option, write.node("Add", option, write.constant(1))


def _cell(write: Writer, cells: Lattice, xy: str) -> str:
    """`Lattice.indices` of points [..., 2], as places [...] in a flattened map."""
    x, y = cells.free.shape
    place = write.node("Div", write.node("Sub", xy, write.constant(cells.low)), write.constant(cells.cell))
    place = write.node("Max", write.node("Round", place), write.constant(0))
    place = write.node("Min", place, write.constant([x - 1, y - 1]))
    flat = write.node("Mul", place, write.constant([y, 1]))
    return write.cast(write.node("ReduceSum", flat, write.constant([-1], np.int64), keepdims=0), "INT64")


def _at_goal(write: Writer, goals: np.ndarray, size: int, here: str, ahead: str, place: str) -> str:
    """`place` [B, n] in the one of G tables of `size` entries whose goal [G, 2] is the nearest to what lies ahead."""
    if len(goals) == 1:
        return place
    aim = write.node("Unsqueeze", write.node("Add", here, ahead), write.constant([1], np.int64))
    off = write.node("ReduceL2", write.node("Sub", write.constant(goals[None]), aim), axes=[2], keepdims=0)
    which = write.node("ArgMin", off, axis=1, keepdims=1)  # [B, 1]
    return write.node("Add", write.node("Mul", which, write.constant(size, np.int64)), place)
