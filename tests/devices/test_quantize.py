import logging
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import qdq_quantizer

from devices import quantize
from devices.quantize import _without_remarks
from searchspaces.errors import DeviceError
from searchspaces.network import INPUT, NetworkBuilder, init_weights, to_onnx


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((9, 3, 16, 16)).astype(np.float32)


def _outputs(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[0]
    return np.concatenate([session.run(None, {"input": images[i : i + size]})[0] for i in range(0, len(images), size)])


def test_the_quantized_model_computes_nearly_the_same(network, images):
    model = to_onnx(network, init_weights(network, seed=3))
    before, after = _outputs(model, images), _outputs(quantize(model, images), images)
    assert 0 < np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_weights_are_int8_with_a_scale_per_channel_and_activations_uint8(network, images):
    graph = quantize(to_onnx(network), images).graph
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        data, weight = (producers[name] for name in node.input[:2])
        assert arrays[weight.input[0]].dtype == np.int8
        assert arrays[weight.input[1]].shape == (8,)
        assert arrays[data.input[2]].dtype == np.uint8
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


def test_equal_models_and_images_give_equal_bytes(network, images):
    model = to_onnx(network)
    assert quantize(model, images).SerializeToString() == quantize(model, images).SerializeToString()


def test_batches_larger_than_one_are_calibrated_in_whole_batches(network, images):
    model = quantize(to_onnx(network, batch=4), images)
    assert _outputs(model, images[:8]).shape == (8, 4)


def test_a_batch_normalisation_that_cannot_be_folded_stays(caplog, images):
    builder = NetworkBuilder("preactivated", (3, 16, 16))
    x = builder.conv(INPUT, 8, 3)
    x = builder.act(builder.batch_norm(builder.sum([x, builder.conv(INPUT, 8, 1)])), "Relu")
    with caplog.at_level(logging.WARNING):
        model = quantize(to_onnx(builder.build(x)), images)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 1
    assert not caplog.records


def _shared_bias():
    """Two convolutions whose normalisations fold to one bias, of which the quantizer makes a copy."""
    builder = NetworkBuilder("shared", (3, 16, 16))
    x = builder.act(builder.conv_bn(INPUT, 8, 3, act=None), "Relu")
    y = builder.act(builder.conv_bn(x, 8, 3, act=None), "Relu")
    return to_onnx(builder.build(builder.sum([x, y])))


def test_the_quantizer_makes_no_remark_on_copies_of_a_bias(caplog, images):
    with caplog.at_level(logging.DEBUG):
        graph = quantize(_shared_bias(), images).graph
    copies = [tensor.name for tensor in graph.initializer if re.search(r"\.bias\d+_quantized$", tensor.name)]
    assert copies
    assert not caplog.records


def test_nothing_but_remarks_of_the_quantizer_is_kept_off_the_log(caplog):
    root = logging.getLogger()
    with caplog.at_level(logging.DEBUG), _without_remarks():
        for level, file in ((20, __file__), (20, qdq_quantizer.__file__), (30, qdq_quantizer.__file__)):
            root.handle(logging.LogRecord("root", level, file, 1, f"{level} {Path(file).stem}", (), None))
        logging.getLogger("other").info("other")
    assert caplog.messages == ["20 test_quantize", "30 qdq_quantizer", "other"]
    assert not root.filters


@pytest.mark.parametrize("shape", [(0, 3, 16, 16), (9, 1, 16, 16), (9, 3, 8, 8)])
def test_images_that_do_not_fit_are_refused(network, shape):
    with pytest.raises(DeviceError, match=r"input's shape \(1, 3, 16, 16\)"):
        quantize(to_onnx(network), np.zeros(shape))


def test_a_model_that_onnx_runtime_refuses_is_named(network, images):
    model = to_onnx(network)
    model.graph.node[1].op_type = "NoSuchOp"
    with pytest.raises(DeviceError, match=r"cannot quantize model 'tiny'.*NoSuchOp"):
        quantize(model, images)
