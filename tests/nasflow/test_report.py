import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from nasflow.models import Model
from nasflow.objectives import Objectives
from nasflow.pareto import hypervolume
from nasflow.report import Compared, write_comparison, write_report
from nasflow.report.plots import frame, running_best, stairs
from nasflow.report.results import Box, Results, Times
from nasflow.study.storage import memory
from nasflow.study.study import Study
from searchspaces.errors import ConfigError
from searchspaces.genes import Gene, GeneSpace
from searchspaces.nb201 import NB201
from searchspaces.network import Network
from searchspaces.space import Op, SearchSpace
from searchspaces.task import Task

TASK = Task("digits", (1, 8, 8), 10, "small")
MAX: dict[str, Any] = {"direction": "maximize"}
MIN: dict[str, Any] = {"direction": "minimize"}
CONFIG = {"budget": 8, "seed": 5, "strategy": {"_target_": "nasflow.strategies.NSGA2", "population": 4}}
ENVIRONMENT = {"python": "3.11", "processor": "Some CPU", "packages": {"torch": "2.13"}}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'$_{^}&"

# accuracy, latency_ms and params_m per slot; by the first two, slots 0, 2, 4 and 6 are non-dominated
POINTS = [
    (0.90, 0.5, 0.3),
    (0.80, 0.6, 0.1),
    (0.95, 0.9, 0.4),
    (0.60, 0.3, 0.2),
    (0.70, 0.2, 0.5),
    (0.90, 0.95, 0.6),
    (0.85, 0.3, 0.7),
]
NAMES = ("accuracy", "latency_ms", "params_m")


def make_study(
    objectives: Objectives,
    points: Sequence[Sequence[float]] = POINTS,
    space: GeneSpace | None = None,
    failed: Mapping[int, str] | None = None,
    ruled_out: Sequence[int] = (),
    names: Sequence[str] = NAMES,
    provenance: Mapping[str, Any] | None = None,
    seed: int = 5,
) -> Study:
    """A study with a trial per point; slots in `failed` fail, those in `ruled_out` know only their last metric."""
    space = space or NB201("small")
    study = Study(memory(), space, objectives, seed=seed, config=CONFIG)
    for slot, (row, point) in enumerate(zip(space.sample(len(points), np.random.default_rng(1)), points, strict=True)):
        claim = study.claim(slot, row, "worker")
        assert claim
        if failed and slot in failed:
            study.fail(claim, failed[slot])
            continue
        metrics = dict(zip(names, map(float, point), strict=True))
        metrics = {names[-1]: metrics[names[-1]]} if slot in ruled_out else metrics
        missed = objectives.violations({name: np.array([value]) for name, value in metrics.items()})
        result = {
            "metrics": metrics,
            "violations": {name: float(values[0]) for name, values in missed.items()},
            "provenance": dict(provenance or {}),
            "seconds": 2.0,
        }
        study.finish(claim, result, ruled_out=slot in ruled_out)
    return study


def model(slot: int, path: Path, **facts: Any) -> Model:
    return Model(slot, path, "an architecture", trained=True, metrics={}, **facts)


def report(folder: Path, study: Study, **changes: Any) -> str:
    arguments: dict[str, Any] = {"config": CONFIG, "environment": ENVIRONMENT, "models": [], "title": "A search"}
    path = write_report(folder, study, study.space, TASK, **(arguments | changes))
    assert path == folder / "report.html"
    return path.read_text()


def compared(name: str, study: Study, config: Mapping[str, Any] | None = None, **facts: Any) -> Compared:
    return Compared(name, study, **({"task": TASK, "config": config or {}} | facts))


class Page(HTMLParser):
    """Checks that tags balance, and collects what the tests ask for."""

    VOID = frozenset({"meta", "br", "wbr", "img", "link", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values[key] or "" for key in ("href", "xlink:href", "src") if key in values]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def check_page(html: str) -> Page:
    """Well-formed, self-contained, ids unique, inner links lead somewhere, every drawing described."""
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    outer = [link for link in page.links if not link.startswith("#")]
    assert all(not re.match(r"\w+:|//", link) or link.startswith("data:image/png") for link in outer)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    policies = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies and (policies[0] or "").startswith("default-src 'none'")
    plots = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("class") == "plot"]
    assert all(attrs.get("aria-label") and attrs.get("viewbox") for attrs in plots)
    return page


def pngs(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "plots").glob("*.png")}


# -- pages -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "models").mkdir()
    (folder / "models" / "slot 2.onnx").write_bytes(b"0" * 2500)
    provenance = {
        "measure": {"metric": "latency_ms", "std_ms": 0.0123, "drifted": 0, "environment": {"governor": "performance"}},
        "train": {"test_accuracy": 0.8765},
    }
    objectives = Objectives(accuracy=MAX, latency_ms=MIN)
    study = make_study(objectives, [*POINTS, (0, 0, 0)], failed={7: "the loss is NaN & <gone>"}, provenance=provenance)
    return folder, report(folder, study, models=[model(2, folder / "models" / "slot 2.onnx")])


def section(html: str, key: str) -> str:
    return html.partition(f'<section id="{key}"')[2].partition("</section>")[0]


def rows_of(html: str) -> list[list[str]]:
    """Texts of the cells of all body rows."""
    body = re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", html, flags=re.DOTALL)
    cells = [re.findall(r"<(th|td)[^>]*>(.*?)</\1>", row, flags=re.DOTALL) for row in body]
    return [[Page(cell).text for _, cell in row] for row in cells]


def test_two_objectives(two: tuple[Path, str]) -> None:
    folder, html = two
    page = check_page(html)
    assert pngs(folder) == {"front", "hypervolume", "history_0", "history_1"}
    assert all(imread(folder / "plots" / f"{stem}.png").shape[1] > 800 for stem in pngs(folder))
    models = rows_of(section(html, "models"))
    assert [row[0] for row in models] == ["2", "0", "6", "4"]
    assert [row[1] for row in models] == ["0.9500", "0.9000", "0.8500", "0.7000"]
    assert models[0][2] == "0.9000 ± 0.012" and models[0][4] == "0.8765"
    assert {f"slot-{slot}" for slot in (0, 2, 4, 6)} <= set(page.ids)
    assert "models/slot%202.onnx" in page.links and models[0][-1] == "models/slot 2.onnx 2 kB"
    assert "4 non-dominated models with accuracy 0.7 to 0.95 and latency 0.2 to 0.9 ms" in page.text
    assert section(html, "models").count('<svg class="cell"') == 4


def test_ends_of_the_front(two: tuple[Path, str]) -> None:
    assert rows_of(section(two[1], "summary")) == [
        ["Highest accuracy", "2", "0.9500", "0.9000"],
        ["Lowest latency", "4", "0.7000", "0.2000"],
    ]


def test_failures_and_evaluations_are_listed(two: tuple[Path, str]) -> None:
    failures = rows_of(section(two[1], "failures"))
    assert len(failures) == 1 and failures[0][0] == "7" and failures[0][2] == "the loss is NaN & <gone>"
    outcomes = [row[1] for row in rows_of(section(two[1], "trials"))]
    assert outcomes == ["non-dominated", "dominated"] * 2 + ["non-dominated", "dominated", "non-dominated", "failed"]


def test_provenance(two: tuple[Path, str]) -> None:
    text = Page(section(two[1], "provenance").partition(">")[2]).text
    for fact in ("torch 2.13", "Some CPU", "nasflow.strategies.NSGA2", "performance", NB201("small").fingerprint):
        assert fact in text
    assert "Seed5" in text
    assert "nasflow worker" not in text


def test_dots_of_the_front_lead_to_their_models(two: tuple[Path, str]) -> None:
    links = re.findall(r'xlink:href="#slot-(\d+)"', section(two[1], "front"))
    assert links == ["2", "0", "6", "4"]


def test_colours_follow_the_style_sheet(two: tuple[Path, str]) -> None:
    plots = section(two[1], "front") + section(two[1], "history")
    assert "var(--front)" in plots and "var(--ink)" in plots
    fixed = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", plots))
    assert fixed <= {"#000000"}
    style = two[1].partition("<style>")[2].partition("</style>")[0]
    assert set(re.findall(r"var\((--[\w]+)\)", two[1])) <= set(re.findall(r"(--\w+):", style))


def test_equal_inputs_give_equal_pages(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX, latency_ms=MIN | {"at_most": 0.55}))
    pages, images = [], []
    for name in ("a", "b"):
        html = report(tmp_path / name, study)
        pages.append(re.sub(r"<time>.*?</time>", "", html))
        images.append({path.name: path.read_bytes() for path in (tmp_path / name / "plots").iterdir()})
    assert pages[0] == pages[1]
    assert images[0] == images[1]


def test_one_objective(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    for name in ("front.png", "hypervolume.png", "mine.png"):
        (tmp_path / "plots" / name).write_bytes(b"former")
    page = check_page(report(tmp_path, make_study(Objectives(accuracy=MAX))))
    assert pngs(tmp_path) == {"history", "mine"}
    assert "front" not in page.ids and "Best model" in page.text
    assert "The best of 7 evaluations has accuracy 0.95." in page.text


def test_three_objectives(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX, latency_ms=MIN, params_m=MIN))
    html = report(tmp_path, study)
    check_page(html)
    assert pngs(tmp_path) == {
        *("front_1_0", "front_2_0", "front_2_1", "hypervolume", "history_0", "history_1", "history_2")
    }
    assert [row[0] for row in rows_of(section(html, "models"))] == ["2", "0", "6", "1", "4", "3"]


def test_bounds_that_nobody_meets(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX | {"at_least": 0.99}, latency_ms=MIN | {"at_most": 0.1}))
    html = report(tmp_path, study)
    text = check_page(html).text
    violation = [max(0, (0.99 - a) / 0.99) + max(0, (latency - 0.1) / 0.1) for a, latency, _ in POINTS]
    order = np.argsort(violation, kind="stable")[:5]
    assert [row[0] for row in rows_of(section(html, "models"))] == [str(slot) for slot in order]
    assert "No trial meets the bounds (accuracy at least 0.99 and latency at most 0.1 ms)" in text
    assert f"The nearest is slot {order[0]} with" in text and f"{violation[order[0]]:.0%} off" in text
    assert "Nearest to the bounds" in text
    assert pngs(tmp_path) == {"front", "history_0", "history_1"}


def test_infeasible_trials_are_no_part_of_the_front(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX, latency_ms=MIN, params_m={"at_most": 0.45}), ruled_out=[5, 6])
    html = report(tmp_path, study)
    assert [row[0] for row in rows_of(section(html, "models"))] == ["2", "0", "3"]
    outcomes = [row[1] for row in rows_of(section(html, "trials"))]
    assert outcomes[4:] == ["misses a bound", "ruled out", "ruled out"]
    assert "2 trials without both figures cannot be shown" in check_page(html).text


def test_histories_count_what_is_not_feasible(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX, params_m={"at_most": 0.35}), ruled_out=[4, 5], failed={6: "no"})
    html = section(report(tmp_path, study), "history")
    for words in ("evaluated (3)", "misses a bound (1)", "ruled out (2)", "failed (1)"):
        assert words in html
    assert "2 slots ruled out before it was known" in html
    every = section(report(tmp_path, make_study(study.objectives, ruled_out=range(7))), "history")
    assert "evaluated" not in every and "ruled out (" in every


def test_nothing_finished_and_everything_failed(tmp_path: Path) -> None:
    objectives = Objectives(accuracy=MAX, latency_ms=MIN)
    empty = check_page(report(tmp_path / "empty", make_study(objectives, [])))
    assert "No evaluation has finished yet." in empty.text
    failed = make_study(objectives, POINTS[:2], failed={0: "first", 1: "second"})
    page = check_page(report(tmp_path / "failed", failed))
    assert "No evaluation succeeded. The last one said: second" in page.text
    assert not any(tag == "figure" for tag, _ in page.tags)


def test_commands_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "config.yaml").write_text("budget: 8\n")
    (folder / ".hydra" / "overrides.yaml").write_text("- space=nb201\n- device.name=my board\n")
    html = report(folder, make_study(Objectives(accuracy=MAX), POINTS[:2]))
    text = Page(section(html, "provenance").partition(">")[2]).text
    search = "nasflow search space=nb201 'device.name=my board'"
    assert f"{search} hydra.run.dir='{folder}'\nnasflow worker run='{folder}'" in text
    assert f"\n{search}\nnasflow report run=" in text


def test_many_models_and_trials(tmp_path: Path) -> None:
    x = np.linspace(0.1, 0.9, 505)
    html = report(tmp_path, make_study(Objectives(accuracy=MAX, latency_ms=MIN), np.stack([x, x, x], axis=1).tolist()))
    page = check_page(html)
    assert "493 more drawings" in page.text
    assert len(rows_of(section(html, "trials"))) == 500 and "The first 500 of 505" in page.text
    assert sum(identifier.startswith("slot-") for identifier in page.ids) == 505


# -- hostile names -----------------------------------------------------------------------------------------------


class Hostile(SearchSpace):
    """Everything a plug-in's author can name, named to break out."""

    name = f"evil{HOSTILE}"
    genes = (Gene("a", (HOSTILE, "b")), Gene("c", tuple(range(9))))
    ops = (Op("input", "input"), Op("output", "output"), Op(HOSTILE, f"kind{HOSTILE}"))

    def network(self, row: NDArray[np.int64], task: Task) -> Network:
        raise NotImplementedError

    def graph(self, rows: Any) -> Any:
        adjacency = np.repeat(np.eye(3, k=1, dtype=np.bool_)[None], len(rows), axis=0)
        return adjacency, np.repeat([[0, 2, 1]], len(rows), axis=0)


def test_names_cannot_break_out(tmp_path: Path) -> None:
    metrics = (f"a{HOSTILE}", f"b{HOSTILE}", f"_{HOSTILE} -->")
    objectives = Objectives(**{metrics[0]: MAX, metrics[1]: MIN | {"at_most": 0.8}})
    study = make_study(objectives, space=Hostile(), names=metrics, failed={1: HOSTILE})
    html = report(
        tmp_path,
        study,
        title=HOSTILE,
        config={"budget": HOSTILE, "strategy": {"_target_": HOSTILE, HOSTILE: HOSTILE}, "device": HOSTILE},
        environment={"processor": HOSTILE, "packages": {HOSTILE: HOSTILE}},
        models=[model(slot, tmp_path / "javascript:alert(1)") for slot in range(7)],
    )
    page = check_page(html)
    assert not any(tag == "img" for tag, _ in page.tags)
    assert HOSTILE in page.text
    assert "<script" not in html
    assert page.links.count("javascript%3Aalert%281%29") == len(Results.of(study).front)


def test_hostile_names_of_runs(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX, latency_ms=MIN))
    runs = [compared(f"_{HOSTILE}", study, {HOSTILE: HOSTILE}), compared("b", study)]
    path = write_comparison(tmp_path / "c.html", runs, title=HOSTILE)
    page = check_page(path.read_text())
    assert HOSTILE in page.text and "<script" not in path.read_text()


# -- hypervolume -------------------------------------------------------------------------------------------------


def test_hypervolumes_are_shares_of_the_box() -> None:
    results = Results.of(make_study(Objectives(accuracy=MAX, latency_ms=MIN | {"at_most": 0.92})))
    losses = results.losses[results.feasible]
    box = Box.around(losses)
    spans = losses.max(axis=0) - losses.min(axis=0)
    np.testing.assert_allclose(box.reference, losses.max(axis=0) + 0.1 * spans)
    shares = results.hypervolumes(box)
    assert shares[-1] == pytest.approx(hypervolume(losses, box.reference) / (1.1**2 * np.prod(spans)))
    assert (np.diff(shares) >= 0).all() and 0 < shares[0] < shares[-1] < 1
    assert shares[5] == shares[4]  # slot 5 misses the bound


def test_the_summary_tells_what_guided_the_search(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX, latency_ms=MIN))
    parts = {"predictor": {"_target_": "predictors.Forest", "trees": 9}, "encoding": {"_target_": "a.Paths"}}
    text = Page(report(tmp_path, study, config=CONFIG | parts)).text
    assert "StrategyNSGA2(population=4)PredictorForest(trees=9)EncodingPaths()" in text


def test_configured_reference_point(tmp_path: Path) -> None:
    study = make_study(Objectives(accuracy=MAX, latency_ms=MIN))
    html = report(tmp_path, study, config=CONFIG | {"reference": {"accuracy": 0.5, "latency_ms": 2}})
    text = Page(html).text
    assert "from the reference point (accuracy 0.5, latency 2 ms) to the best seen values" in text
    losses = Results.of(study).losses
    share = hypervolume(losses, [-0.5, 2.0]) / ((0.95 - 0.5) * (2.0 - 0.2))
    assert f"Dominated share, {share:.4g} in the end" in text
    with pytest.raises(ConfigError, match="latency_ms"):
        Box.below({"accuracy": 0.5}, study.objectives, losses)


@pytest.mark.parametrize(
    "reference",
    [
        {"accuracy": 0.99, "latency_ms": 2},  # no trial is as accurate
        {"accuracy": 0.94, "latency_ms": 0.25},  # some are so accurate, some are so fast, none is both
        {"accuracy": 0.99, "latency_ms": 0.1},
        {"accuracy": 0.5, "latency_ms": 0.2},  # none is faster
    ],
)
def test_reference_point_that_no_trial_beats(tmp_path: Path, reference: dict[str, float]) -> None:
    study = make_study(Objectives(accuracy=MAX, latency_ms=MIN))
    text = check_page(report(tmp_path, study, config=CONFIG | {"reference": reference})).text
    assert "Dominated share, 0 in the end, of the box from the reference point" in text
    assert "to the best seen values (accuracy 0.95, latency 0.2 ms)" in text
    box = Box.below(reference, study.objectives, Results.of(study).losses)
    np.testing.assert_array_equal(Results.of(study).hypervolumes(box), np.zeros(7))


def test_running_best_ignores_infeasible_trials() -> None:
    results = Results.of(make_study(Objectives(accuracy=MAX, latency_ms={"at_most": 0.55})))
    best = running_best(results, results.objectives.optimised[0])
    np.testing.assert_array_equal(best, [0.9] * 7)
    results = Results.of(make_study(Objectives(accuracy=MIN, latency_ms={"at_most": 0.45})))
    np.testing.assert_array_equal(running_best(results, results.objectives.optimised[0]), [np.nan] * 3 + [0.6] * 4)


def test_stairs_are_the_front_of_two_columns() -> None:
    losses = np.random.default_rng(0).integers(0, 9, (60, 3)).astype(np.float64)
    kept = stairs(losses, 2, 0)
    points = {tuple(point) for point in losses[:, [2, 0]]}
    front = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert [tuple(point) for point in losses[kept][:, [2, 0]]] == sorted(front)


def test_far_outliers_are_left_out_of_the_frame_but_never_the_front() -> None:
    values = np.array([0.1, 0.95, 0.96, 0.961, 0.97, 0.972, 0.98, 0.981, 0.99, np.nan])
    limits = frame(values, np.array([8]))
    assert limits is not None
    assert 0.9 < limits[0] < 0.95
    assert 0.99 < limits[1] < 1.0
    kept = frame(values, np.array([0]))
    assert kept is not None
    assert kept[0] < 0.1
    assert frame(values[1:], np.array([1])) is None
    assert frame(np.ones(20), np.array([0])) is None


def test_times() -> None:
    study = make_study(Objectives(accuracy=MAX), POINTS[:3])
    times = Times.of(study, study.records())
    assert times and times.first <= times.last and times.evaluating == 6.0 and 0 <= times.wall < 60
    assert Times.of(study, []) is None


# -- comparison --------------------------------------------------------------------------------------------------


def test_comparison(tmp_path: Path) -> None:
    better = [(a + 0.01, latency, p) for a, latency, p in POINTS]
    first = make_study(Objectives(accuracy=MAX, latency_ms=MIN))
    second = make_study(Objectives(accuracy=MAX, latency_ms=MIN | {"at_most": 0.6}), better, seed=9)
    path = write_comparison(tmp_path / "out" / "c.html", [compared("run", first), compared("run", second, CONFIG)])
    page = check_page(path.read_text())
    rows = rows_of(path.read_text())
    rows, settings = rows[:2], rows[2:]
    assert [row[4] for row in rows] == ["7", "7 of 8"]
    assert settings == [["strategy", "the search", "–", "NSGA2(population=4)"]]
    assert [row[0] for row in rows] == ["run (1)", "run (2)"] and [row[2] for row in rows] == ["5", "9"]
    assert [row[7] for row in rows] == ["1", "3"]  # of the joint front: slot 2 of the first, all feasible of the second
    losses = np.array([(-a, latency) for a, latency, _ in [*POINTS, *better[:2], better[3], better[4], better[6]]])
    box = Box.around(losses)
    expected = [hypervolume(losses[:7], box.reference), hypervolume(losses[7:], box.reference)]
    assert [float(row[-1]) for row in rows] == pytest.approx([e / box.volume for e in expected], rel=1e-3)
    assert {p.name for p in (tmp_path / "out" / "c_plots").iterdir()} == {"progress.png", "front.png"}
    assert sum(tag == "figure" for tag, _ in page.tags) == 2


def test_comparison_of_one_objective_with_a_run_that_has_nothing(tmp_path: Path) -> None:
    objectives = Objectives(accuracy=MAX)
    runs = [compared("a", make_study(objectives)), compared("b", make_study(objectives, []))]
    path = write_comparison(tmp_path / "c.html", runs)
    check_page(path.read_text())
    assert [row[-1] for row in rows_of(path.read_text())] == ["0.9500", "–"]
    path = write_comparison(tmp_path / "d.html", [runs[1], runs[1]])
    assert "<figure" not in path.read_text()


def test_only_like_runs_are_compared(tmp_path: Path) -> None:
    accuracy, both = make_study(Objectives(accuracy=MAX)), make_study(Objectives(accuracy=MAX, latency_ms=MIN))
    with pytest.raises(ConfigError, match="at least two"):
        write_comparison(tmp_path / "c.html", [compared("a", accuracy)])
    with pytest.raises(ConfigError, match="'b' has maximize accuracy, minimize latency_ms"):
        write_comparison(tmp_path / "c.html", [compared("a", accuracy), compared("b", both)])
    assert not (tmp_path / "c.html").exists()
