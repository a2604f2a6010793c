import json
import re
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from nasflow.objectives import Objective
from nasflow.report.drawing import draw, draw_graph, legend
from nasflow.report.layout import arrange, bypass, longest_paths, prune
from nasflow.report.text import bounds, component, count, duration, figure, label, listing, notation, number
from searchspaces.fbnet import FBNet
from searchspaces.genes import Gene, GeneSpace, JointSpace
from searchspaces.mobilenet import MobileNet
from searchspaces.nb101 import NB101
from searchspaces.nb201 import NB201
from searchspaces.network import INPUT, Network, NetworkBuilder
from searchspaces.space import SearchSpace
from searchspaces.task import Task


def vertices(svg: str) -> list[str]:
    return re.findall(r"<g [^>]*><title>(.*?)</title><rect", svg)


def test_drawing_leaves_out_what_carries_no_signal() -> None:
    space = NB201("small")
    row = space.parse(["|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|"])[0]
    drawing = draw(space, row, "Slot 3")
    assert sorted(vertices(drawing.html)) == ["avg_pool_3x3", "input", "nor_conv_3x3", "output", "skip_connect"]
    assert drawing.html.count('class="edge"') == 5
    assert "Slot 3: 3 operations: nor_conv_3x3, skip_connect and avg_pool_3x3" in drawing.html
    assert drawing.groups == {"convolution", "skip", "average pooling"} and not drawing.reduced
    assert "average pooling" in legend([drawing]) and "max pooling" not in legend([drawing])


def test_drawing_of_a_dead_cell() -> None:
    space = NB201("small")
    drawing = draw(space, space.parse(["|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|"])[0], "Slot 0")
    assert "No signal reaches the output" in drawing.html and "<svg" not in drawing.html
    assert legend([drawing]) == ""


def test_drawing_of_a_pruned_cell() -> None:
    space = NB101("small")
    row = space.parse(["input|conv3x3-bn-relu~0|maxpool3x3~0|output~1~2"])[0]
    drawn = vertices(draw(space, row, "cell").html)
    assert sorted(drawn) == ["conv3x3-bn-relu", "input", "maxpool3x3", "output"]


@pytest.mark.parametrize("space", [FBNet("small"), MobileNet("small")])
def test_chains_wrap(space: SearchSpace) -> None:
    row = space.sample(1, np.random.default_rng(3))[0]
    html = draw(space, row, "chain").html
    expected = int((space.graph(row[None])[1] >= 0).sum())
    assert len(vertices(html)) == expected > 10
    width = float(re.search(r'viewBox="0 0 (\d+)', html)[1])  # type: ignore[index]
    assert width <= 470
    assert len(set(re.findall(r'<rect x="[\d.]+" y="([\d.]+)"', html))) > 2


class Blocks(SearchSpace):
    """Residual blocks, drawn operator by operator."""

    name = "blocks"
    genes = (Gene("blocks", (1, 2, 40)),)

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        builder = NetworkBuilder("blocks", task.input_shape)
        x = builder.conv_bn(INPUT, 8, 3)
        for block in range(int(self.genes[0].choices[row[0]])):
            with builder.scope(f"block{block}"):
                x = builder.act(builder.sum([x, builder.conv_bn(x, 8, 5)]), "Relu")
        return builder.build(builder.classifier(x, task.classes))


def test_default_graph() -> None:
    drawing = draw(Blocks(), np.array([1]), "net")
    counts = {name: vertices(drawing.html).count(name) for name in vertices(drawing.html)}
    assert drawing.reduced and "without normalisations" in legend([drawing])
    assert counts["Conv5g1s1"] == 2 and counts["Add1g1s1"] == 2
    assert not any("Normalization" in name or "Relu" in name for name in counts)
    assert "2 × Conv 5x5" in drawing.html
    large = draw(Blocks(), np.array([2]), "net")
    assert "<svg" not in large.html and "40 × Conv 5x5" in large.html and "too many to draw" in large.html


def test_spaces_without_networks() -> None:
    class Knobs(GeneSpace):
        name = "knobs"
        genes = (Gene("a", (1, 2)),)

    assert draw(Knobs(), np.array([0]), "x").html == ""
    joint = JointSpace(tuning=Knobs(), architecture=NB201("small"))
    row = np.array([1, 3, 1, 1, 1, 1, 1])
    assert draw(joint, row, "x") == draw(NB201("small"), row[1:], "x")
    assert draw(JointSpace(tuning=Knobs()), np.array([0]), "x").html == ""


@pytest.mark.parametrize("space", [NB201("small"), NB101("small")])
def test_layout_has_no_overlaps_and_runs_forwards(space: SearchSpace) -> None:
    adjacencies, ids = space.graph(space.sample(60, np.random.default_rng(0)))
    for adjacency, ops in zip(adjacencies, ids, strict=True):
        kept = prune(adjacency, ops >= 0)
        edges = adjacency[np.ix_(kept, kept)]
        layout = arrange(edges)
        assert {(a, b) for a, b, _ in layout.edges} == {(a, b) for a, b in np.argwhere(edges).tolist()}
        for a, b, waypoints in layout.edges:
            assert layout.layers[a] + len(waypoints) + 1 == layout.layers[b]
        stops: dict[int, list[tuple[float, float]]] = {}
        for v, layer in enumerate(layout.layers.tolist()):
            stops.setdefault(layer, []).append((float(layout.heights[v]), 1.0))
        for a, _, waypoints in layout.edges:
            for i, height in enumerate(waypoints):
                stops.setdefault(int(layout.layers[a]) + 1 + i, []).append((height, 0.55))
        for members in stops.values():
            for (low, size), (high, other) in pairwise(sorted(members)):
                assert high - low >= (size + other) / 2 - 1e-9
            assert min(h - s / 2 for h, s in members) > -1e-9
            assert max(h + s / 2 for h, s in members) < layout.rows + 1e-9


def test_layers_are_longest_paths() -> None:
    adjacency = np.zeros((5, 5), dtype=np.bool_)
    for a, b in ((0, 1), (0, 4), (1, 2), (2, 4), (0, 3), (3, 4)):
        adjacency[a, b] = True
    assert longest_paths(adjacency).tolist() == [0, 1, 2, 1, 3]
    adjacency[3, 4] = False
    assert prune(adjacency, np.ones(5, dtype=np.bool_)).tolist() == [True, True, True, False, True]
    joined = bypass(adjacency, np.array([True, False, False, True, True]))
    assert joined.tolist() == [[False, True, True], [False] * 3, [False] * 3]


def test_graph_without_vertices() -> None:
    assert "No signal" in draw_graph(np.zeros((2, 2), dtype=np.bool_), [None, None], "x").html


def test_labels_carry_units() -> None:
    expected = {
        "latency_ms": "latency (ms)",
        "params_m": "parameters (M)",
        "macs_m": "MACs (M)",
        "area_mm2": "area (mm²)",
        "accuracy": "accuracy",
        "test_accuracy": "test accuracy",
        "ms": "ms",
    }
    assert {metric: label(metric) for metric in expected} == expected


def test_numbers() -> None:
    assert [number(v) for v in (0.12345, 5.0, 12345.6, float("nan"))] == ["0.1235", "5", "12,346", "–"]
    assert [figure(v) for v in (0.5, 5.0, 123.4567, float("nan"), float("inf"))] == ["0.5000", "5", "123.5", "–", "inf"]
    spans = (0.2, 3.21, 59.6, 61, 3600, 90061)
    assert [duration(s) for s in spans] == ["under 1 s", "3.2 s", "1 min", "1 min 1 s", "1 h", "1 d 1 h"]
    assert count(1, "class", "classes") == "1 class" and count(1200, "trial") == "1,200 trials"
    assert [listing(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_bounds_in_words() -> None:
    assert bounds(Objective("latency_ms", "minimize", at_least=0.1, at_most=2)) == "at least 0.1 ms and at most 2 ms"
    assert bounds(Objective("accuracy", "maximize")) == ""


def test_components_in_words() -> None:
    config = {"_target_": "a.b.Device", "name": "x", "skip": None, "inner": {"_target_": "c.D", "k": [1]}}
    assert component(config) == "Device(name=x, inner=D(k=[1]))"
    assert component(json.loads('{"a": 1, "b": {"c": 2}}')) == "a=1, b=c=2"


def test_notation_breaks_between_parts_only() -> None:
    assert notation("|a~0|+|b&c|") == '<span class="arch">|<wbr>a~0|<wbr>+<wbr>|<wbr>b&amp;c|<wbr></span>'
