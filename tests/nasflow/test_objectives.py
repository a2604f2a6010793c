import numpy as np
import pytest

from nasflow.objectives import Objective, Objectives
from searchspaces.errors import ConfigError


def columns(**values: float) -> dict[str, np.ndarray]:
    return {name: np.atleast_1d(np.array(value, dtype=np.float64)) for name, value in values.items()}


def test_losses_are_minimised_in_the_given_order() -> None:
    up, down = {"direction": "maximize"}, {"direction": "minimize"}
    objectives = Objectives(latency_ms=down, params_m={"at_most": 1}, accuracy=up)
    losses = objectives.losses({"accuracy": np.array([90.0, 80.0]), "latency_ms": np.array([2.0, 1.0])})
    assert losses.tolist() == [[2.0, -90.0], [1.0, -80.0]]
    assert objectives.directions == ("minimize", "maximize")
    assert objectives.metrics == ("latency_ms", "params_m", "accuracy")
    assert [entry.metric for entry in objectives.bounded] == ["params_m"]


@pytest.mark.parametrize(
    ("bounds", "value", "violation"),
    [
        ({"at_most": 2.0}, 2.0, 0.0),
        ({"at_most": 2.0}, 3.0, 0.5),
        ({"at_least": 50.0}, 40.0, 0.2),
        ({"at_least": 50.0}, 50.0, 0.0),
        ({"at_least": 1.0, "at_most": 2.0}, 0.5, 0.5),
        ({"at_least": 1.0, "at_most": 2.0}, 1.5, 0.0),
        ({"at_most": 0.0}, 0.25, 0.25),  # a bound of 0 has no relative violation
        ({"at_least": -4.0}, -5.0, 0.25),
        ({"at_most": 2.0}, float("nan"), float("inf")),
        ({"at_least": 2.0}, float("nan"), float("inf")),
    ],
)
def test_violation_is_relative_to_the_bound(bounds: dict[str, float], value: float, violation: float) -> None:
    objective = Objective("x", None, bounds.get("at_least"), bounds.get("at_most"))
    assert objective.violation(np.array([value])) == pytest.approx(violation)


def test_violations_are_of_the_known_metrics_only() -> None:
    objectives = Objectives(accuracy={"direction": "maximize", "at_least": 50}, params_m={"at_most": 1})
    assert objectives.violations(columns(params_m=3.0)).keys() == {"params_m"}
    both = objectives.violations(columns(params_m=3.0, accuracy=25.0))
    assert both["params_m"].tolist() == [2.0]
    assert both["accuracy"].tolist() == [0.5]


def test_null_removes_an_inherited_objective() -> None:
    assert Objectives(accuracy={"direction": "maximize"}, latency_ms=None).metrics == ("accuracy",)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({}, "At least one metric"),
        ({"params_m": {"at_most": 1}}, "At least one metric.*params_m"),
        ({"accuracy": None}, "At least one metric"),
        ({"accuracy": {"direction": "max"}}, "maximize, minimize"),
        ({"accuracy": {}}, "needs a direction"),
        ({"accuracy": "maximize"}, r"\+objective.accuracy.direction"),
        ({"accuracy": {"direktion": "maximize"}}, "Did you mean 'direction'"),
        ({"accuracy": {"direction": "maximize", "at_least": "90%"}}, "finite number"),
        ({"accuracy": {"direction": "maximize", "at_least": True}}, "finite number"),
        ({"accuracy": {"direction": "maximize", "at_most": float("nan")}}, "finite number"),
        ({"accuracy": {"direction": "maximize", "at_least": 3, "at_most": 2}}, "at_least=3 lies above at_most=2"),
    ],
)
def test_malformed_objectives_are_named(metrics: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Objectives(**metrics)  # type: ignore[arg-type]
