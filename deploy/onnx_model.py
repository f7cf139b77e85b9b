"""The ONNX model of a `Graph`."""

from __future__ import annotations

import numpy as np

from repertoire.deploy.graph import Graph
from repertoire.deploy.onnx_control import controller
from repertoire.deploy.onnx_graph import Writer, composed, network, project, skill_action
from repertoire.envs.task import TASK
from repertoire.errors import UserError
from repertoire.high_level.compose import Compose

OPSET, IR_VERSION = 17, 8


def to_onnx(graph: Graph) -> bytes:
    """The serialised model; inputs and outputs float32 [batch, width]. Raises `UserError` without the package onnx."""
    try:
        import onnx
    except ImportError as e:
        raise UserError("exporting needs onnx and onnxruntime: pip install 'repertoire-rl[export]'") from e
    write = Writer(onnx)
    named = _outputs(write, graph)
    for name in graph.outputs:
        write.node("Identity", named[name], output=name)
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", width]) for n, width in side.items()]
        for side in (graph.inputs, graph.outputs)
    )
    body = onnx.helper.make_graph(write.nodes, f"repertoire_{graph.kind}", inputs, outputs, write.constants)
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION, producer_name="repertoire")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _outputs(write: Writer, graph: Graph) -> dict[str, str]:
    """Tensor of each output."""
    named = {}
    if graph.kind == "policy" and graph.rows is not None:
        action = _of_tasks(write, graph)
    elif graph.kind == "policy":
        assert graph.policy is not None
        action = network(write, graph.policy, "obs")
    elif graph.kind == "skill":
        action = skill_action(write, graph.skills[0], "obs", project(write, graph.skills[0].prior, "z"))
    else:
        action, named["z_next"] = controller(write, graph)
    clipped = write.node("Clip", action, write.constant(-1), write.constant(1))
    low, high = (np.asarray(x, np.float32) for x in (graph.spec.action_low, graph.spec.action_high))
    shifted = write.node("Add", clipped, write.constant(1))
    scaled = write.node("Mul", shifted, write.constant(0.5 * (high - low)))
    return {"action": clipped, "ctrl": write.node("Add", scaled, write.constant(low)), **named}


def _of_tasks(write: Writer, graph: Graph) -> str:
    """Action of a policy whose adapters the task weighs."""
    assert isinstance(graph.composer, Compose)
    task = write.columns("obs", graph.spec.obs.index("policy", (TASK,)))
    coefficients = write.node("MatMul", task, write.constant(graph.rows))
    return composed(write, graph.composer, "obs", coefficients)
