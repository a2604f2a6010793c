"""What users read when they ask for help, and how the words that they type are read."""

import pytest
import yaml

from nasflow.cli import JOBS, as_overrides, main
from nasflow.help import job_help
from searchspaces.errors import ConfigError
from tests.registry import leaves


@pytest.mark.parametrize("job", JOBS)
def test_help_tells_commands_choices_and_values(job: str) -> None:
    text = job_help(job)
    assert f"nasflow {job}:" in text.splitlines()[0]
    assert f"\n  nasflow {job} " in text
    assert f"nasflow {job} --cfg job" in text
    assert all(len(line) <= 130 for line in text.splitlines() if not line.startswith("  nasflow"))


def test_choices_name_what_is_there_and_mark_the_default() -> None:
    lines = {line.split()[0]: line for line in job_help("search").splitlines() if line.startswith("  ")}
    assert [name.strip("[],") for name in lines["space"].split()[1:]] == leaves("space")
    assert "[nb201]" in lines["space"]
    assert "[costs], [device]" in lines["evaluator"]
    assert lines["budget:"].endswith("when a run is resumed")
    assert "source" not in lines


def test_groups_that_a_job_does_not_read_are_left_out() -> None:
    assert "device " not in job_help("worker")
    assert "lease_s" not in job_help("worker")


@pytest.mark.parametrize(
    ("job", "words", "read"),
    [
        ("data", ["list"], ["action=list"]),
        ("data", ["import", "path=a"], ["action=import", "path=a"]),
        ("search", ["budget=3", "~strategy.score", "--cfg", "job", "-m"], None),
        ("export", ["arch=|a~0|+|b~0|"], ["arch='|a~0|+|b~0|'"]),
        ("export", ["arch='|a~0|'", "out=m"], None),
        ("export", ["arch=null"], None),
        ("search", ["arch=|a|"], None),
        ("fit", ["encoding=null", "table=null"], ["~encoding", "table=null"]),
        ("search", ["experiment=null", "device.threads=null"], ["~experiment", "device.threads=null"]),
    ],
)
def test_words_become_overrides(job: str, words: list[str], read: list[str] | None) -> None:
    assert as_overrides(job, words) == (words if read is None else read)


def test_what_must_be_chosen_is_told() -> None:
    with pytest.raises(ConfigError, match="space=null: one must be chosen. nasflow search --help lists them"):
        as_overrides("search", ["space=null"])


def test_a_word_without_a_name_is_told() -> None:
    with pytest.raises(ConfigError, match="'outputs/demo' is not of the form name=value, such as run=outputs/demo"):
        as_overrides("worker", ["outputs/demo"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search", "task=npz"], "task.path must be given"),
        (["search", "storage=postgres"], "storage.url must be given"),
        (["search", "strategy.population=[1"], "two pairs of quotes"),
        (["search", "objective=accuracy", "objective.latency_ms.at_most=1"], "write +objective.latency_ms.at_most="),
        (["search", "trainer.device=cuda:99", "objective=accuracy_params"], "'cuda:99' was asked for"),
        (["worker", "run=nowhere", "wait_s=-1"], "wait_s is 0 or a positive number"),
    ],
)
def test_mistakes_are_told_in_words(words: list[str], says: str, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert says in told
    assert "Did you mean 'objective._target_'" not in told


def test_help_is_printed(capsys) -> None:
    assert main(["search", "--help"]) == 0
    assert "Choices, given as name=choice" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nasflow ")


def test_values_of_the_file_are_those_shown() -> None:
    text = job_help("score")
    shown = text.split("Values, given as name=value\n")[1].split("\n\n")[0]
    assert set(yaml.safe_load(shown)) == {"n", "table", "columns", "seeds", "seed", "workers", "max_failure_rate"}
