"""Half precision in ONNX: convolutions and matrix products in fp16, all else in fp32.

As under autocast (:func:`err_seg.utils.device.autocast`), norms, softmax and ESCF's residual stream are not touched,
and neither are the cost maps, by which CRM chooses the classes. The exporter writes those, and nothing else, as Einsum.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

PRODUCTS = ("Conv", "MatMul", "Gemm")
VIEWS = ("Transpose", "Slice", "Reshape", "Unsqueeze", "Squeeze", "Split")
"""What a product may see of weights that it shares with others."""


def products_to_half(model: Any) -> None:
    """Let the products of a graph in fp32 compute in fp16, in place; their weights are stored in fp16.

    Args:
        model: an ``onnx_ir.Model``; its inputs and outputs stay fp32.

    Raises:
        ValueError: weights are beyond the range of fp16; names them.
    """
    import onnx_ir as ir

    graph, half, full = model.graph, ir.DataType.FLOAT16, ir.DataType.FLOAT
    products = [node for node in graph if node.domain == "" and node.op_type in PRODUCTS]
    for weights in {weights.name: weights for node in products for weights in _weights(node)}.values():
        with np.errstate(over="ignore"):
            values = weights.const_value.numpy().astype(np.float16)
        if not np.isfinite(values).all():
            raise ValueError(f"the weights {weights.name} are beyond the range of fp16")
        stored = ir.Value(name=f"{weights.name}_fp16", type=ir.TensorType(half), shape=weights.shape)
        stored.const_value = ir.tensor(values, name=stored.name)
        users = weights.uses()
        del graph.initializers[weights.name]
        graph.register_initializer(stored)
        graph.insert_before(graph[0], _redirected(users, stored, full))
    for node in products:
        graph.insert_before(node, [_redirected([(node, place)], value, half) for place, value in _operands(node)])
        (result,) = node.outputs
        users, result.type = result.uses(), ir.TensorType(half)
        graph.insert_after(node, _redirected(users, result, full))


def _operands(node: Any) -> list[tuple[int, Any]]:
    return [(place, value) for place, value in enumerate(node.inputs) if value is not None]


def _weights(node: Any) -> Iterator[Any]:
    """Yield the weights among what a product multiplies and adds, also those that it sees a part of."""
    for _, value in _operands(node):
        while (producer := value.producer()) is not None and producer.op_type in VIEWS:
            value = producer.inputs[0]
        if value.is_initializer():
            yield value


def _redirected(users: Any, value: Any, kind: Any) -> Any:
    """Give users, pairs of a node and the place of one of its inputs, a value in another type; returns the cast."""
    import onnx_ir as ir

    cast = ir.node("Cast", [value], {"to": kind})
    (result,) = cast.outputs
    result.type, result.shape = ir.TensorType(kind), value.shape
    for node, place in users:
        node.replace_input_with(place, result)
    return cast
