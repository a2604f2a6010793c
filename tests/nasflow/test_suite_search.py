"""The suite that compares searches."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nasflow.config import composed, instantiate
from nasflow.flow import Search
from nasflow.jobs.bench import run_cell, summarise
from nasflow.suites import Benchmark, Cell, Comparison, SearchComparison, Suite
from nasflow.suites.search import figures, searching, signed_rank
from predictors.encodings import OneHot, Topology
from searchspaces.arch import ArchBatch
from searchspaces.errors import ConfigError
from searchspaces.nb201 import NB201
from searchspaces.nb201.tables import CsvFigures, CsvScores
from searchspaces.pool import Pool
from searchspaces.table import Column, Table

SPACE = NB201(scale="small")
EVOLUTION = ["strategy=evolution", "strategy.population=10", "strategy.tournament=4"]
METHODS = {
    "random": {"overrides": ["strategy=random"]},
    "evolution": {"overrides": EVOLUTION, "against": "random"},
    "warmup": {
        "overrides": ["strategy=warmup", "strategy.strategy.population=10", "strategy.n=300", "~strategy.score"],
        "score": "telling",
        "against": "evolution",
    },
    "moves": {"overrides": ["strategy=moves", "~strategy.score"], "score": "telling", "against": "evolution"},
    "unscored": {"overrides": ["strategy=warmup", "~strategy.score"], "score": "not there"},
}


def worth(rows):
    """Mean worth of the operations, in [0, 1]."""
    return np.array([0.0, 0.3, 0.7, 1.0, 0.5])[rows].mean(axis=1)


@pytest.fixture
def folder(tmp_path):
    """A table of 600 cells with noisy validation accuracy, and one of scores of all cells."""
    rng = np.random.default_rng(0)
    rows = SPACE.from_index(rng.permutation(15625)[:600])
    values = {
        "valid": worth(rows) + 0.02 * rng.normal(size=600),
        "test": worth(rows),
        "took_s": 600 + 3000 * rng.random(600),
    }
    Table(ArchBatch(SPACE, rows), values, [Column("valid"), Column("test"), Column("took_s", "s")]).save(
        tmp_path / "table.parquet"
    )
    everything = SPACE.from_index(np.arange(15625))
    scores = {"telling": worth(everything) + 0.1 * rng.normal(size=15625), "opposite": -worth(everything)}
    both = [Column("telling"), Column("opposite")]
    Table(ArchBatch(SPACE, everything), scores, both).save(tmp_path / "scores.parquet")
    return tmp_path


def benchmark(folder, **given):
    entries = {
        "space": SPACE,
        "table": str(folder / "table.parquet"),
        "metric": "valid",
        "test": "test",
        "pool": True,
        "seconds": "took_s",
        "scores": {"telling": {"telling": "maximize"}, "voted": {"telling": "maximize", "opposite": "minimize"}},
        "score_table": str(folder / "scores.parquet"),
    }
    return Benchmark(**entries | given)


def suite(folder, samples=(20, 60), methods=METHODS, **given):
    return SearchComparison({"toy": benchmark(folder, **given)}, methods, samples, seeds=2)


def test_it_is_a_suite(folder):
    made = suite(folder)
    assert isinstance(made, Suite)
    assert isinstance(made, Comparison)
    assert (made.tasks, made.methods, made.samples) == (("toy",), tuple(METHODS), (20, 60))


@pytest.mark.parametrize("name", ["evolution", "warmup"])
def test_it_visits_what_nasflow_search_visits(folder, tmp_path, name):
    made = suite(folder)
    record = made._runner(Cell("toy", name, 30, 3)).run(30)
    overrides = [
        *(text for text in METHODS[name]["overrides"] if not text.startswith("~")),
        "evaluator=table",
        f"evaluator.table.path={folder / 'table.parquet'}",
        "evaluator.table.pool=true",
        "+objective.valid.direction=maximize",
        "objective.accuracy=null",
        "objective=accuracy",
        "storage=memory",
        "budget=30",
        "seed=3",
    ]
    run = Search(composed("search", overrides), tmp_path)
    if name == "warmup":
        run.strategy.strategy.strategy.score = made._benchmarks["toy"].score("telling")
    expected = run.run(progress=False)
    assert [r.row.tolist() for r in record] == [r.row.tolist() for r in expected]
    assert [r.metrics["valid"] for r in record] == [r.metrics["valid"] for r in expected]


def test_a_larger_budget_continues_a_smaller_one(folder):
    made = suite(folder)
    small = made.run(Cell("toy", "evolution", 20, 0))
    runner = made._runner(Cell("toy", "evolution", 60, 0))
    assert len(runner.study.records()) == 20
    large = made.run(Cell("toy", "evolution", 60, 0))
    assert made._runner(Cell("toy", "evolution", 60, 0)) is runner
    assert made.run(Cell("toy", "evolution", 20, 0)) == small
    assert suite(folder, samples=(60,)).run(Cell("toy", "evolution", 60, 0)) == large
    assert suite(folder).run(Cell("toy", "evolution", 20, 1)) != small


def test_it_reports_what_is_best_by_validation(folder):
    task = benchmark(folder)
    records = searching(task, composed("search", ["strategy=random"]).strategy, 0, None).run(40)
    archs = ArchBatch(SPACE, np.stack([record.row for record in records]))
    valid, test, took = (task.evaluator.table.lookup(archs, name) for name in ("valid", "test", "took_s"))
    found = figures(task, records, [2.0])
    best = test[np.argmax(valid)]
    assert found["test"] == best
    assert found["regret"] == task.evaluator.table.column("test").max() - best
    assert found["hours"] == pytest.approx(took.sum() / 3600)
    within = np.cumsum(took) <= 7200
    assert 0 < within.sum() < 10
    assert found["test after 2 h"] == test[within][np.argmax(valid[within])]
    assert found["regret after 2 h"] >= found["regret"] - 0.1
    for hours in (0.01, 1000):
        with pytest.raises(ConfigError, match="choose hours in between, or a larger number of trials"):
            figures(task, records, [hours])


def test_hours_are_told_of_the_longest_search_only(folder):
    made = suite(folder, hours=[2, 5])
    assert set(made.run(Cell("toy", "random", 20, 0))) == {"test", "regret", "hours"}
    names = set(made.run(Cell("toy", "random", 60, 0)))
    assert names == {"test", "regret", "hours", *(f"{n} after {h} h" for n in ("test", "regret") for h in (2, 5))}
    assert set(suite(folder, seconds=None).run(Cell("toy", "random", 20, 0))) == {"test", "regret"}
    with pytest.raises(ConfigError, match="Simulated hours need the column"):
        benchmark(folder, seconds=None, hours=[2])


def test_searches_move_within_the_table(folder):
    assert isinstance(benchmark(folder).searched, Pool)
    assert benchmark(folder, pool=False).searched is SPACE


def test_a_method_whose_score_is_not_there_gives_no_figures(folder):
    made = suite(folder)
    assert made.run(Cell("toy", "unscored", 20, 0)) == {}
    results = {Cell("toy", "unscored", 20, 0): {"metrics": {}, "seconds": 0.0}}
    assert summarise(results) == []
    assert made.summary({cell: {} for cell in results}) == []


def test_votes_and_single_scores_come_from_the_other_table(folder):
    task = benchmark(folder)
    archs = ArchBatch(SPACE, SPACE.sample(50, np.random.default_rng(1)))
    assert (np.diff(task.score("telling")(archs)[np.argsort(worth(archs.rows))[[0, -1]]]) > 0).all()
    assert task.score("voted")(archs).max() > 0 > task.score("voted")(archs).min()
    alone = benchmark(folder, score_table=None, scores={"slow": {"took_s": "minimize"}})
    assert (alone.score("slow")(ArchBatch(SPACE, task.searched.rows[:5])) < -600).all()


def test_a_missing_table_leaves_its_task_out(folder, caplog):
    tasks = {"toy": benchmark(folder), "gone": benchmark(folder, table=str(folder / "gone.parquet"))}
    with caplog.at_level(logging.WARNING):
        made = SearchComparison(tasks, METHODS)
    assert made.tasks == ("toy",)
    assert f"Task gone is left out: there is no table {folder / 'gone.parquet'}" in caplog.text
    with pytest.raises(ConfigError, match="None of the suite's tables is there"):
        SearchComparison({"gone": benchmark(folder, score_table=str(folder / "gone.parquet"))}, METHODS)
    with pytest.raises(ConfigError, match="Did you mean 'against'"):
        SearchComparison(tasks, {"evolution": {"overrides": EVOLUTION, "agianst": "random"}})
    with pytest.raises(ConfigError, match="compared with 'rand', which is no method"):
        SearchComparison(tasks, {"evolution": {"overrides": EVOLUTION, "against": "rand"}})


def test_a_cell_is_known_again_by_what_decides_it(folder, tmp_path):
    cell = Cell("toy", "warmup", 20, 0)
    known = json.dumps(suite(folder).cell_settings(cell), sort_keys=True)
    more = METHODS | {"tpe": {"overrides": ["strategy=tpe"]}}
    assert json.dumps(suite(folder, methods=more).cell_settings(cell), sort_keys=True) == known
    other = METHODS | {"warmup": METHODS["warmup"] | {"overrides": [*METHODS["warmup"]["overrides"], "strategy.n=90"]}}
    changed = [suite(folder, methods=other), suite(folder, pool=False), suite(folder, metric="test")]
    table = Table.load(folder / "scores.parquet", SPACE)
    values = {name: np.array(column) for name, column in table.values.items()}
    values["telling"][7] += 1
    Table(table.archs, values, list(table.columns.values())).save(folder / "scores.parquet")
    changed.append(suite(folder))
    assert len({known, *(json.dumps(made.cell_settings(cell), sort_keys=True) for made in changed)}) == 5
    counted = suite(folder)
    first = run_cell(counted, cell, tmp_path / "cache")
    assert run_cell(suite(folder, methods=more), cell, tmp_path / "cache") == first
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_summary_gives_quartiles_and_pairs_seeds(folder):
    made = suite(folder)
    rng = np.random.default_rng(0)
    results = {}
    for seed in range(9):
        results[Cell("toy", "random", 20, seed)] = {"regret": 0.2 + rng.random(), "hours": 3.0}
        if seed != 4:
            results[Cell("toy", "evolution", 20, seed)] = {"regret": 0.1 + rng.random(), "hours": 3.0}
        results[Cell("toy", "unscored", 20, seed)] = {}
    rows = {(row.method, row.metric): row for row in made.summary(results)}
    assert set(rows) == {
        *((name, f"regret {label}") for name in ("random", "evolution") for label in ("q25", "median", "q75")),
        ("evolution", "regret p-value against random"),
    }
    figures = [metrics["regret"] for cell, metrics in results.items() if cell.method == "evolution"]
    assert rows["evolution", "regret q75"].mean == np.quantile(figures, 0.75)
    assert rows["random", "regret median"].seeds == list(range(9))
    test = rows["evolution", "regret p-value against random"]
    assert test.seeds == [0, 1, 2, 3, 5, 6, 7, 8]
    base = [results[Cell("toy", "random", 20, seed)]["regret"] for seed in test.seeds]
    assert test.mean == wilcoxon(figures, base).pvalue
    assert 0 < test.mean < 1
    assert signed_rank([(1.0, 1.0)] * 5) == 1.0
    assert signed_rank([(1.0 + i, 0.5) for i in range(8)]) < 0.01


def test_a_telling_score_lowers_the_regret(folder):
    made = suite(folder, samples=(40,))
    cells = [Cell("toy", name, 40, seed) for seed in range(12) for name in ("random", "evolution", "warmup", "moves")]
    rows = {(row.method, row.metric): row.mean for row in made.summary({cell: made.run(cell) for cell in cells})}
    for name in ("warmup", "moves"):
        assert rows[name, "regret median"] < rows["evolution", "regret median"]
        assert rows[name, "regret p-value against evolution"] < 0.05


def test_bench_runs_it_and_resumes(folder, tmp_path):
    task = "suite.tasks.nb201_digits"
    command = [
        sys.executable, "-m", "nasflow.cli", "bench", "suite=search", "seeds=3", "suite.samples=[12,25]",
        "tasks=[nb201_digits]", "methods=[nsga2,evolution,evolution_warmup_params,evolution_warmup_vote]",
        f"{task}.table={folder / 'table.parquet'}", f"{task}.metric=valid", f"{task}.test=test", f"+{task}.pool=true",
        f"~{task}.scores.params.params_m", f"+{task}.scores.params.took_s=maximize", f"{task}.seconds=null",
        f"hydra.run.dir={tmp_path / 'run'}",
        'suite.methods.evolution.overrides=["strategy=evolution"]', '+suite.methods.nsga2.overrides=["strategy=nsga2"]',
    ]  # fmt: skip
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, done.stderr
        outputs.append(json.loads((tmp_path / "run" / "results.json").read_text())["rows"])
    assert outputs[0] == outputs[1]
    assert len(list((tmp_path / "run" / "cache").iterdir())) == 3 * 2 * 3  # a method that is passed over leaves none
    metrics = {(row["method"], row["samples"], row["metric"]) for row in outputs[0]}
    assert ("nsga2", 12, "regret median") in metrics
    assert ("evolution_warmup_params", 25, "regret p-value against evolution") in metrics
    assert not any(method == "evolution_warmup_vote" for method, _, _ in metrics)


def test_a_published_score_helps_on_a_published_table(data_dir, tmp_path):
    for kind, name in ((CsvFigures, "accuracy"), (CsvScores, "zero_cost")):
        source = instantiate(composed("data", [f"source=nb201_{name}"]).source)
        assert isinstance(source, kind)
        ((stem, table),) = source.tables(data_dir / "nb201" / f"cifar10_{name}.csv.gz")
        table.save(tmp_path / f"{stem}.parquet")
    config = composed("bench", ["suite=search", "suite.samples=[50]"]).suite
    task = config.tasks.nb201_cifar10
    task.table = str(tmp_path / "cifar10_accuracy.parquet")
    task.score_table = str(tmp_path / "cifar10_zero_cost.parquet")
    made = instantiate(config)
    methods = ("evolution", "evolution_warmup_synflow")
    cells = [Cell("nb201_cifar10", method, 50, seed) for seed in range(10) for method in methods]
    rows = {(row.method, row.metric): row.mean for row in made.summary({cell: made.run(cell) for cell in cells})}
    assert rows["evolution_warmup_synflow", "regret median"] < rows["evolution", "regret median"]
    assert rows["evolution_warmup_synflow", "regret p-value against evolution"] < 0.05


# -- predictors ----------------------------------------------------------------------------------------------------

GUIDED = {
    "given": {"overrides": ["strategy=guided", "predictor=ridge"], "encoding": "ops"},
    "own": {"overrides": ["strategy=guided", "predictor=ridge", "encoding=onehot"]},
    "topology": {"overrides": ["strategy=guided", "predictor=ridge", "encoding=topology"]},
    "lacking": {"overrides": ["strategy=guided", "predictor=ridge"], "encoding": "not there"},
}


def test_methods_get_the_encoding_that_they_name(folder):
    made = suite(folder, methods=GUIDED, encodings={"ops": OneHot()})
    results = {name: made.run(Cell("toy", name, 20, 0)) for name in GUIDED}
    assert results["lacking"] == {}
    visited = {
        name: [record.row.tolist() for record in made._runner(Cell("toy", name, 20, 0)).study.records()]
        for name in GUIDED
        if name != "lacking"
    }
    assert visited["given"] == visited["own"] != visited["topology"]
    assert visited["given"][:6] == visited["topology"][:6], "the first trials are random"


def test_predictor_and_encoding_decide_a_cell(folder):
    made = suite(folder, methods=GUIDED, encodings={"ops": OneHot()})
    other = suite(folder, methods=GUIDED, encodings={"ops": Topology()})
    cells = {name: Cell("toy", name, 20, 0) for name in GUIDED}
    settings = {name: made.cell_settings(cell) for name, cell in cells.items()}
    assert other.cell_settings(cells["given"]) != settings["given"]
    assert other.cell_settings(cells["own"]) == settings["own"] != settings["topology"]
    assert settings["own"]["predictor"]["_target_"].endswith("Regression")
    assert not {"predictor", "encoding"} & set(suite(folder).cell_settings(Cell("toy", "random", 20, 0)))
    json.dumps(settings)


def test_published_rows_stand_beside_measured_ones(folder):
    rows = [{"method": "FLAN", "samples": 8, "figure": 0.9, "source": "arXiv 2403.02484"}]
    (row,) = suite(folder, published=rows).published
    assert (row.task, row.method, row.samples, row.metric, row.mean) == ("toy", "FLAN", 8, "test", 0.9)
    assert (row.source, row.seeds) == ("arXiv 2403.02484", [])
    assert suite(folder).published == []
