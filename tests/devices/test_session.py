import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from devices.onnx_file import count_operators, graph_name
from devices.quantize import quantize
from devices.session import SessionConfig, describe, is_quantized, load
from searchspaces.errors import DeviceError
from searchspaces.network import INPUT, NetworkBuilder, to_onnx

CPU = SessionConfig()


def _load(model, config=CPU, batch=1, keep=False, optimised=None):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return load(data, config, batch, np.random.default_rng(0), keep, optimised)


def _operators(model, config=CPU):
    optimised = _load(model, config, keep=True).optimised
    assert optimised is not None
    return count_operators(optimised)


def _relu(shape, kind=TensorProto.FLOAT, op="Relu", domain=""):
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], domain=domain)],
        "relu",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    imports = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, ir_version=10, opset_imports=imports)


def test_operators_are_those_of_the_optimised_graph(network):
    model = to_onnx(network)
    plain = _operators(model, SessionConfig(optimisation="disabled"))
    single = dict.fromkeys(["Add", "Flatten", "Gemm", "GlobalAveragePool"], 1)
    assert plain == single | dict.fromkeys(["BatchNormalization", "Conv", "Relu"], 2)
    basic = _operators(model, SessionConfig(optimisation="basic"))
    assert "BatchNormalization" not in basic
    assert sum(count for op, count in basic.items() if op.endswith("Conv")) == 2
    assert _load(model).optimised is None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_optimised_model_runs_as_the_model_does(network, precision):
    model = to_onnx(network)
    if precision == "int8":
        model = quantize(model, np.random.default_rng(0).standard_normal((4, 3, 16, 16), dtype=np.float32))
    first = _load(model, keep=True)
    again = _load(model, keep=True, config=SessionConfig(optimisation="disabled"), optimised=None)
    reopened = _load(model, optimised=first.optimised)
    assert reopened.optimised == first.optimised
    assert np.array_equal(first.run()[0], reopened.run()[0])
    assert again.optimised != first.optimised
    with pytest.raises(DeviceError, match="refuses model"):
        _load(model, optimised=b"no model")


def test_counting_operators_leaves_no_files(network, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _load(to_onnx(network), keep=True)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_loaded_model_runs_with_the_given_options(network):
    options = SessionConfig(threads=3, optimisation="extended").options()
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    (output,) = _load(to_onnx(network, batch=5), batch=5).run()
    assert output.shape == (5, 4)


def test_a_symbolic_batch_takes_the_devices():
    (output,) = _load(_relu(["n", 3]), batch=7).run()
    assert output.shape == (7, 3)


@pytest.mark.parametrize("shape", [[1, 3], ["n", "m"], []])
def test_inputs_that_do_not_fit_the_device_are_refused(shape):
    with pytest.raises(DeviceError, match=r"Input 'x' of model 'relu'.*batch 2.*Device\.prepare"):
        _load(_relu(shape), batch=2)


def test_inputs_that_are_not_floating_point_are_refused():
    with pytest.raises(DeviceError, match=r"tensor\(int32\)"):
        _load(_relu([1, 3], TensorProto.INT32))


def test_a_refusal_names_the_model_the_reason_and_what_to_do():
    with pytest.raises(DeviceError, match=r"refuses model 'relu' on CPUExecutionProvider: .*NoSuchOp.*Check the model"):
        _load(_relu([1, 3], op="NoSuchOp", domain="elsewhere"))
    with pytest.raises(DeviceError, match="a file of 9 bytes that is no ONNX model"):
        _load(b"not a net")


def test_a_model_that_fails_only_when_it_runs_is_refused():
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "broken",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [4, 4])],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(DeviceError, match="refuses model 'broken'"):
        _load(model)


def test_unknown_names_list_the_choices():
    with pytest.raises(DeviceError, match="Did you mean 'CPUExecutionProvider'"):
        SessionConfig(provider="CPUExecutionProvidr").check_provider()
    with pytest.raises(DeviceError, match="all, basic, disabled, extended"):
        SessionConfig(optimisation="fast")
    with pytest.raises(DeviceError, match="threads=0"):
        SessionConfig(threads=0)


def test_a_provider_that_leaves_operators_to_the_cpu_is_refused_unless_allowed(network):
    others = [name for name in onnxruntime.get_available_providers() if name == "AzureExecutionProvider"]
    if not others:
        pytest.skip("this ONNX Runtime has no provider that runs nothing itself")
    model = to_onnx(network)
    with pytest.raises(DeviceError, match="refuses model 'tiny' on AzureExecutionProvider"):
        _load(model, SessionConfig(provider=others[0]))
    assert _load(model, SessionConfig(provider=others[0], cpu_fallback=True)).run()


def test_operators_kept_in_fp32_stay_so_beside_int8():
    builder = NetworkBuilder("mixed", (3, 16, 16))
    x = INPUT
    for _ in range(4):
        x = builder.act(builder.conv(x, 8, 3, bias=True), "Relu")
    model = quantize(to_onnx(builder.build(x)), np.random.default_rng(0).standard_normal((2, 3, 16, 16)))
    kept = _without_quantized_weights(model, "conv")
    operators = _operators(kept)
    assert operators is not None
    integer = operators.get("com.microsoft:QLinearConv", 0) + operators.get("QLinearConv", 0)
    convolutions = sum(count for op, count in operators.items() if op.endswith("Conv"))
    assert (integer, convolutions) == (3, 4)


def _without_quantized_weights(model, name):
    """Give one convolution its weights in fp32, with its input still dequantized: what excluding it comes to."""
    node = next(node for node in model.graph.node if node.name == name)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for position in (1, 2):
        source = next(other for other in model.graph.node if other.output[0] == node.input[position])
        shape = arrays[source.input[0]].shape
        array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"fp32_{position}"))
        node.input[position] = f"fp32_{position}"
        model.graph.node.remove(source)
    return model


def test_integer_graphs_are_told_from_others():
    assert is_quantized(["Gemm", "com.microsoft:QLinearConv"])
    assert is_quantized(["com.microsoft:DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
    assert not is_quantized(["Conv", "com.microsoft.nchwc:Conv", "Gemm"])


def test_models_are_called_by_their_graphs_name(network):
    assert describe(to_onnx(network).SerializeToString()) == "model 'tiny'"


def test_models_are_read_without_onnx_as_onnx_reads_them(network):
    model = quantize(to_onnx(network), np.zeros((1, 3, 16, 16), np.float32))
    domain = _relu([1], op="Gelu", domain="com.microsoft")
    for proto in (model, to_onnx(network), domain, _relu([1], domain="ai.onnx")):
        data = proto.SerializeToString()
        keys = [f"{n.domain}:{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in proto.graph.node]
        assert count_operators(data) == {key: keys.count(key) for key in sorted(set(keys))}
        assert graph_name(data) == proto.graph.name
    torn = 0
    for end in range(len(data)):
        try:
            assert count_operators(data[:end]) == {"Relu": 1}, "the graph is whole, and what follows it is missing"
        except ValueError as error:
            assert re.search("graph|early|wire", str(error))
            torn += 1
    assert torn > len(data) // 2
