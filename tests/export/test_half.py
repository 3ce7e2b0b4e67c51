"""ONNX in fp16: which operations are, that rounding to fp16 changes little, and what is refused."""

import math

import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import numpy as np  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.ops.op_conv import Conv  # noqa: E402
from onnx.reference.ops.op_matmul import MatMul  # noqa: E402

import err_seg  # noqa: E402
from err_seg.commands import export, models  # noqa: E402
from err_seg.export import ExportError, check_onnx, export_onnx  # noqa: E402
from err_seg.export.network import INPUTS, OUTPUTS, example_inputs  # noqa: E402
from err_seg.export.parity import compare  # noqa: E402
from tests.helpers.toy import TOY, liven  # noqa: E402

HALF, FULL = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture(scope="module")
def model():
    model = err_seg.build_model(err_seg.get_cfg(None, TOY))
    liven(model)
    return model.eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("half") / "net.onnx"
    export_onnx(model, path, "fp16")
    return path


def rounded(kind):
    """An operation of the reference implementation that computes in fp32 and rounds its result to its inputs' type."""

    def run(self, *inputs, **options):
        wide = (value if value is None else value.astype(np.float32) for value in inputs)
        (result,) = kind._run(self, *wide, **options)
        with np.errstate(over="ignore"):
            return (result.astype(inputs[0].dtype),)

    return type(kind.__name__, (kind,), {"_run": run})


def in_fp16(file):
    """Return a function that runs a file as a device with fp16 does; ONNX Runtime computes in fp32 on a CPU."""
    network = ReferenceEvaluator(onnx.load(file), new_ops=[rounded(Conv), rounded(MatMul)])
    return lambda *inputs: network.run(list(OUTPUTS), {n: v.numpy() for n, v in zip(INPUTS, inputs, strict=True)})


def test_products_are_in_fp16_and_nothing_else(file):
    graph = onnx.shape_inference.infer_shapes(onnx.load(file)).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {weights.name: weights.data_type for weights in graph.initializer}
    operations = {"Conv": 0, "MatMul": 0, "Einsum": 0}
    for node in graph.node:
        found = {kinds[name] for name in (*node.input, *node.output) if kinds.get(name) in (HALF, FULL)}
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            assert found == {HALF}
        elif node.op_type != "Cast":
            assert found <= {FULL}, "views of weights are of what was cast"
        operations[node.op_type] = operations.get(node.op_type, 0) + 1
    assert operations["Conv"] > 10
    assert operations["MatMul"] > 10
    assert operations["Einsum"] == 3, "the cost maps"
    assert {kinds[name] for name in ("image", "text", "probabilities")} == {FULL}
    numbers = {kind: sum(math.prod(w.dims) for w in graph.initializer if w.data_type == kind) for kind in (HALF, FULL)}
    assert numbers[HALF] > 20 * numbers[FULL]


def test_rounding_to_fp16_changes_little(model, file):
    parity = compare(model, in_fp16(file), "fp16")
    assert parity.holds
    assert 1e-5 < parity.largest_difference < 5e-3


def test_onnx_runtime_runs_it(model, file):
    pytest.importorskip("onnxruntime")
    assert check_onnx(model, file, "fp16").holds


def test_it_is_what_autocast_computes(model, file):
    image, text, ranks = example_inputs(model, 9, 4)
    probabilities, kept = in_fp16(file)(image, text, ranks)
    with torch.no_grad(), model.evaluating("fp16"):
        expected = model(model.preprocess(image), text, 4)
    assert np.array_equal(kept, expected.kept.numpy())
    np.testing.assert_allclose(probabilities, expected.logits.float().sigmoid().numpy(), rtol=0, atol=5e-3)


def test_weights_beyond_fp16_are_refused(toy_model, tmp_path):
    model = toy_model().eval()
    with torch.no_grad():
        model.head.gud.head.bias += 1e6
    with pytest.raises(ExportError, match=r"gud\.head\.bias are beyond the range of fp16"):
        export_onnx(model, tmp_path / "net.onnx", "fp16")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command(model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(models, "load_model", lambda _: model)
    file = tmp_path / "net.onnx"
    assert export.main([str(file), "--precision", "fp16", "--classes", "cat, dog, sky"]) == 0
    assert "the same classes were kept in 5" in capsys.readouterr().out
    assert export.main([str(file), "--precision", "fp16", "--classes", "cat, dog, grass"]) == 0
    assert export.main([str(file), "--classes", "cat, dog, sky"]) == 2
    assert "precision is fp32 now and was fp16" in capsys.readouterr().err


def test_a_file_that_is_too_far_off_is_not_passed(model, file):
    run = in_fp16(file)

    def wrong(*inputs):
        probabilities, kept = run(*inputs)
        return probabilities + np.float32(0.03), kept

    def others(image, text, ranks):
        probabilities, kept = run(image, text, ranks)
        return probabilities, (kept + 1) % len(text)

    assert not compare(model, wrong, "fp16").holds
    assert compare(model, others, "fp16").kept_score < 1
