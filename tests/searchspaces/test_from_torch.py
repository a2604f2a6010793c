"""Conversion of torch modules: the result computes what the module does, and what cannot be converted is named."""
# mypy: disable-error-code="no-any-return"

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from searchspaces.errors import NetworkError
from searchspaces.network import Network, to_onnx, to_torch
from searchspaces.network.from_torch import from_torch


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, padding="same", dilation=2, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)
        self.down: nn.Module = nn.Identity()
        if stride != 1:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.down(x)
        return F.relu_(y)


class ResNetLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.layers(self.stem(x)))
        x = x.view(x.size(0), -1)
        return self.fc(self.dropout(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 4), nn.Linear(4, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, _, _ = x.shape
        gate = F.hardsigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3)))))).view(n, c, 1, 1)
        return x * gate.expand_as(x)


class MobileNetV3Like(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(inplace=True))
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish()
        )
        self.se = SqueezeExcite(16)
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.SiLU(), nn.Linear(12, 7, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.se(self.depthwise(self.expand(x))))
        x = F.relu6(x + 3.0) / 6.0 * x
        return self.head(F.avg_pool2d(x, x.shape[2:]).flatten(1))


class ShuffleNetLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(6, 6, 1, groups=3, bias=False),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, (3, 1), 1, (1, 0), groups=6, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
        )
        self.shuffle = nn.ChannelShuffle(3)
        self.fc = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        kept, worked = x.chunk(2, dim=1)
        x = torch.cat([kept, self.branch(worked)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        a, b, _ = torch.split(self.shuffle(x), [4, 6, 2], 1)
        x = torch.cat((b, a, x[:, -2:]), dim=1)
        return self.fc(x.mean([2, 3]))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(0, 2, 3, 1, 4)
        q, k, v = qkv.unbind(1)
        scores = (q @ k.transpose(-2, -1)) * (width // self.heads) ** -0.5
        own = scores.softmax(-1) @ v
        other = F.scaled_dot_product_attention(k, q, v)
        return self.out((own - 0.5 * other).transpose(1, 2).reshape(n, tokens, width))


class ConvTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, 16))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16, eps=1e-6)
        self.attention = Attention(16, 2)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 16))
        self.scale = nn.Parameter(torch.randn(16))
        self.gate = nn.Parameter(torch.tensor(0.3))
        self.fc = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        x = x + self.attention(self.norm1(x))
        x = x + self.scale * self.mlp(self.norm2(x)) * self.gate
        first = torch.narrow(x, 1, 0, 1).squeeze(1)
        return self.fc(torch.stack([x.mean(1), first, x[:, -1]], 1).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet": ResNetLike,
    "mobilenet": MobileNetV3Like,
    "shufflenet": ShuffleNetLike,
    "transformer": ConvTransformer,
}


def _made(kind: str) -> nn.Module:
    """The module with normalisation statistics that are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MODELS[kind]()
        for child in module.modules():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                assert child.running_mean is not None and child.running_var is not None
                nn.init.normal_(child.running_mean, std=0.3)
                nn.init.uniform_(child.running_var, 0.5, 2)
                nn.init.uniform_(child.weight, 0.5, 2)
                nn.init.normal_(child.bias, std=0.3)
    return module


def _assert_equal(module: nn.Module, network: Network, weights: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    """The module, the network in torch and the network in ONNX Runtime give the same."""
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = module.eval()(images).numpy()
        ours = to_torch(network, weights).eval()(images).numpy()
    session = ort.InferenceSession(to_onnx(network, weights, batch=3).SerializeToString())
    (theirs,) = session.run(None, {"input": images.numpy()})
    tolerance = 1e-4 * np.abs(wanted).max()
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=tolerance)
    np.testing.assert_allclose(theirs, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", MODELS)
def test_models_survive(kind: str) -> None:
    module = _made(kind).train()
    network, weights = from_torch(module, (3, 16, 16), kind)
    assert module.training and all(child.training for child in module.modules())
    assert network.name == kind
    assert network.params == sum(p.numel() for p in module.parameters())
    _assert_equal(module, network, weights, (3, 16, 16))


def test_nodes_carry_the_paths_of_layers() -> None:
    network, weights = from_torch(_made("resnet"), (3, 16, 16))
    names = {node.name for node in network.nodes}
    assert {"stem_0_conv", "layers_0_conv1_conv", "layers_1_down_1_batchnormalization", "fc_gemm"} <= names
    module = _made("resnet")
    np.testing.assert_array_equal(weights["layers_0_conv1_conv.weight"], module.state_dict()["layers.0.conv1.weight"])
    assert [node.op for node in network.nodes].count("BatchNormalization") == 6


def test_training_the_result_is_training_the_module() -> None:
    """Batch normalisation stays what it is: after some steps both have the same weights and statistics."""
    module = _made("resnet")
    module.dropout = nn.Identity()
    network, weights = from_torch(module, (3, 16, 16))
    ours = to_torch(network, weights)
    images, labels = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 7
    for model in (module.train(), ours.train()):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        wanted, given = module.eval()(images), ours.eval()(images)
    assert not torch.allclose(wanted, _made("resnet").eval()(images), rtol=0.1)
    torch.testing.assert_close(given, wanted, rtol=0, atol=1e-3 * float(wanted.abs().max()))


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor], **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _in_place(x: Tensor) -> Tensor:
    """What is written into a view must show in the tensor it looks at."""
    y = x * 1.0
    F.silu(y.flatten(1), inplace=True)
    return y


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([x.clamp(-0.5, 0.5), x.clamp(min=0), x.clamp(max=0.1), x.clamp_min(0.2)], 2),
        lambda x: F.hardtanh(x, -0.2, 0.7) + torch.tanh(x) * torch.sigmoid(-x) - F.gelu(x, approximate="tanh"),
        lambda x: 1 - torch.sub(x, x.mean(1, keepdim=True), alpha=2) * torch.tensor(0.5),
        lambda x: torch.add(x, 3, alpha=2) + torch.rsub(x, x * x, alpha=3),
        lambda x: F.max_pool2d(x, 3, 2, 1, dilation=1, ceil_mode=False).sum((1, 3)),
        lambda x: F.avg_pool2d(x, 3, 1, 1) + F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        lambda x: F.adaptive_avg_pool2d(x, (4, 2)) + F.adaptive_max_pool2d(x, (4, 2)),
        lambda x: x.unsqueeze(2).unflatten(1, (2, 2)).movedim(1, -1).mean((-1, 2)),
        lambda x: torch.bmm(x.flatten(2), x.flatten(2).mT).softmax(1).select(2, -1),
        lambda x: torch.stack(x.tensor_split(2, 1), 1)[:, 1, 0] + torch.zeros_like(x)[:, 0],
        lambda x: x.permute(0, 3, 1, 2).flatten(1).relu().detach(),
        _in_place,
    ],
)
def test_functions_survive(function: Callable[[Tensor], Tensor]) -> None:
    module = Lambda(function)
    network, weights = from_torch(module, (4, 8, 8))
    _assert_equal(module, network, weights, (4, 8, 8))


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.BatchNorm2d(4, affine=False))
        self.spectral = Lambda(lambda x: torch.fft.fft2(x).abs())

    def forward(self, x: Tensor) -> Tensor:
        x = self.spectral(self.features(x)).cumsum(1)
        return self.features[1](F.max_pool2d(x, 3, 2, ceil_mode=True))


def test_everything_unsupported_is_named_at_once_with_its_place() -> None:
    with pytest.raises(NetworkError) as error:
        from_torch(Unsupported(), (3, 16, 16))
    message = str(error.value)
    assert message.startswith("Unsupported has parts without a counterpart in a Network: group_norm in features.1 ")
    for what in ("fft_fft2 in spectral", "cumsum in forward `x = self.spectral(self.features(x)).cumsum(1)`"):
        assert what in message
    assert "_native_batch_norm_legit_no_training (its weight is missing) in features.2" in message
    assert "max_pool2d (ceil_mode=True" in message
    assert message.endswith("or describe the network with NetworkBuilder.")


def test_control_flow_on_values_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    module = Untraceable().train()
    with pytest.raises(NetworkError, match=r"cannot be traced .* at test_from_torch.py:\d+, `if x.sum\(\) > 0:`"):
        from_torch(module, (3, 8, 8))
    assert module.training
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Lambda(lambda x: x.view(2, -1)), "any number of images"),
        (Lambda(lambda x: x.view(x.shape[0] * 4, 8, 8)), "merges or drops the batch axis"),
        (Lambda(lambda x: x.mean()), "batch axis"),
        (Lambda(lambda x: x * x.shape[0]), "no tensor, parameter or number"),
        (Lambda(lambda x: (x, x.relu())), "2 outputs"),  # type: ignore[arg-type, return-value]
        (Lambda(lambda x: x.half() + 1), "_to_copy"),
        (Lambda(lambda x: x[:, :, ::2]), "slice with a step"),
        (Lambda(lambda x: torch.cat([x, x[:, :1].expand(-1, 4, -1, -1)], 1)), "repeated by expand"),
        (Lambda(lambda x: F.adaptive_avg_pool2d(x, 3)), "not split evenly"),
        (Lambda(lambda x: x / x.sigmoid()), "division by a number"),
    ],
)
def test_refusals_give_their_reason(module: nn.Module, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        from_torch(module, (4, 8, 8))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(3, 1, 3, 3) / 9)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.get_buffer("kernel"), groups=3)


class Noise(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        Noise.calls += 1
        return x * Noise.calls


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return x.relu()


def test_shared_parameters_are_refused() -> None:
    """Converted as they are, the two uses would drift apart in training."""
    with pytest.raises(NetworkError, match=r"parameter 'conv.weight' shared by several .* in conv_conv, conv_conv1"):
        from_torch(Shared(), (3, 8, 8))


def test_buffers_do_not_become_trainable() -> None:
    with pytest.raises(NetworkError, match="its weight 'kernel' is not trained"):
        from_torch(Blur(), (3, 8, 8))


def test_state_is_refused() -> None:
    with pytest.raises(NetworkError, match="keeps no state"):
        from_torch(Counter(), (3, 8, 8))


def test_result_is_compared_with_the_module() -> None:
    with pytest.raises(NetworkError, match="differ from the module's"):
        from_torch(Noise(), (3, 8, 8))
