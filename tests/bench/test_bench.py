"""The bench asks what it says, scores exactly, and goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from benchmarks import benchmark_page
from PIL import Image
from tests.models import tiny

from counterscan.backbones import load
from counterscan.bench.cases import pairs
from counterscan.bench.report import markdown, means, page, pareto
from counterscan.bench.run import Answer, bench, intervals, judged, scores, shared
from counterscan.errors import WordsError
from counterscan.metrics.intervals import interval, paired
from counterscan.robustness.classifier import Classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(tiny(tmp_path_factory.mktemp("models") / "tiny"))


@dataclass(frozen=True)
class Nothing:
    """The reconstruction."""

    strength: float = 1.0
    name: ClassVar[str] = "nothing"
    calls: ClassVar[list[int]] = []

    def __call__(self, backbone: Any, image: Any, edit: Any, *, generator: Any, progress: Any = None) -> Any:
        self.calls.append(len(image))
        return backbone.decode(backbone.encode(image))


@pytest.mark.parametrize("direction", ["remove", "add"])
def test_a_pair_differs_by_its_finding_only(direction):
    for pair in pairs("chest", "pleural effusion", direction, 2, template="chest", size=64):
        assert np.abs(pair.factual - pair.truth)[pair.mask].min() > 0
        assert np.abs(pair.factual - pair.truth)[~pair.mask].mean() < 0.01
        there, gone = (
            (pair.edit.source, pair.edit.target) if direction == "remove" else (pair.edit.target, pair.edit.source)
        )
        assert "no pleural effusion" in gone
        assert "no pleural effusion" not in there
        assert ("left" in there or "right" in there) == (direction == "add")
        (change,) = pair.edit.changes  # what is taken away is to be found in the image, not told
        assert (change.side in ("left", "right")) == (direction == "add")
        assert direction == "add" or (change.place, change.severity) == (None, None)


def test_unknown_words_are_refused():
    with pytest.raises(WordsError, match="no finding 'gout'"):
        pairs("chest", "gout", "remove", 1, template="chest", size=64)
    with pytest.raises(WordsError, match="no world"):
        pairs("moon", "gout", "remove", 1, template="chest", size=64)


def test_a_word_for_several_findings_asks_about_them_in_turn():
    asked = pairs("brain", "lesion", "remove", 3, template="brain", size=32)
    assert {pair.seed % 3 for pair in asked} == {0, 1, 2}
    assert all("no lesion" in pair.edit.target and (pair.factual != pair.truth).any() for pair in asked)
    assert shared("brain", ["lesion"]) == ["lesion"]
    assert shared("brain", []) == ["glioma", "meningioma", "white matter lesions"]


def test_a_model_that_knows_nothing_of_the_world_is_refused():
    with pytest.raises(WordsError, match="the brain world has glioma.* the model knows pacemaker"):
        shared("brain", ["pacemaker"])


@pytest.mark.parametrize(
    ("world", "finding", "channels"), [("chest", "cardiomegaly", 3), ("colon", "sessile polyp", 1)]
)
def test_grey_and_colour_meet(world, finding, channels, tmp_path):
    model = load(tiny(tmp_path / "model", channels=channels))
    (row,) = bench(model, [Nothing()], world, tmp_path, n=1, findings=[finding], directions=["remove"])["rows"]
    assert row["error_inside"] > 0.3


def test_doing_nothing_scores_one_and_the_truth_zero():
    pair = pairs("chest", "pacemaker", "remove", 1, template="chest", size=64)[0]
    none = np.zeros_like(pair.factual)
    nothing = scores(pair, Answer(pair.factual, pair.factual, pair.factual, none))
    assert nothing["error_inside"] == pytest.approx(1)
    assert nothing["drift_outside"] == nothing["mask_dice"] == 0
    exact = scores(pair, Answer(pair.truth, pair.factual, pair.truth, pair.mask.astype(np.float32)))
    assert exact["error_inside"] == 0
    assert exact["mask_dice"] == 1
    assert exact["mask_auprc"] > 0.95


def test_the_judge_counts_only_what_it_got_right():
    class Judge:
        labels, channels = ("pacemaker", "left pacemaker"), 1

        def probabilities(self, images):
            bright = images.mean(dim=(1, 2, 3))
            return torch.stack([bright, bright], 1)

    pair = pairs("chest", "pacemaker", "add", 1, template="chest", size=64)[0]
    high, low = np.ones_like(pair.factual), np.zeros_like(pair.factual)

    def row(before, after):
        from dataclasses import replace

        return judged(Judge(), [replace(pair, factual=before)], [Answer(after, after, after, after)])[0]

    assert row(low, high)["flip_rate"] == 1
    assert row(low, low)["flip_rate"] == 0
    assert "flip_rate" not in row(high, high)
    assert row(low, high)["side_right"] == (pair.edit.changes[0].side == "left")


def test_it_goes_on_where_it_stopped_and_ends_the_same(model, tmp_path):
    judge = Classifier(["pleural effusion", "left pleural effusion"], size=32)
    judge.facts = {"name": "untrained"}

    def run(folder, method=Nothing()):
        Nothing.calls.clear()
        result = bench(model, [method], "chest", folder, n=2, findings=["pleural effusion"], judge=judge)
        return result, sum(Nothing.calls)

    whole, calls = run(tmp_path / "a")
    assert calls == 4
    assert [r["direction"] for r in whole["rows"]] == ["remove", "add"]
    assert whole["floor"]["error_inside"] > 0
    again, calls = run(tmp_path / "a")
    assert calls == 0
    assert again == whole
    (tmp_path / "a" / "cells" / "nothing-pleural-effusion-add.json").write_text('{"key": ')
    mended, calls = run(tmp_path / "a")
    assert calls == 2
    same = [k for k in whole["rows"][1] if k != "seconds_per_image"]
    assert {k: mended["rows"][1][k] for k in same} == {k: whole["rows"][1][k] for k in same}
    assert run(tmp_path / "a", Nothing(strength=2.0))[1] == 4, "other settings, other cells"


def test_a_killed_bench_resumes_to_what_an_unbroken_one_says(model, tmp_path):
    @dataclass(frozen=True)
    class Killed(Nothing):
        after: ClassVar[int] = 1

        def __call__(self, *given: Any, **named: Any) -> Any:
            if self.after == 0:
                raise KeyboardInterrupt
            type(self).after -= 1
            return super().__call__(*given, **named)

    def run(folder):
        rows = bench(model, [Killed()], "chest", folder, n=1, findings=["pacemaker", "pleural effusion"])["rows"]
        return [{k: v for k, v in row.items() if k != "seconds_per_image"} for row in rows]

    Killed.after = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    kept = list((tmp_path / "killed" / "cells").glob("*.json"))
    assert len(kept) == 1
    Killed.after = 3
    resumed = run(tmp_path / "killed")
    assert Killed.after == 0, "what was finished was asked again"
    Killed.after = 4
    assert run(tmp_path / "whole") == resumed


def test_methods_of_one_name_are_told_apart_by_a_mapping(model, tmp_path):
    both = {"weak": Nothing(), "strong": Nothing(strength=2.0)}
    asked = {"n": 1, "findings": ["pacemaker"], "directions": ["remove"]}
    rows = bench(model, both, "chest", tmp_path, **asked)["rows"]
    assert [row["method"] for row in rows] == ["weak", "strong"]
    with pytest.raises(WordsError, match="two methods of one name"):
        bench(model, list(both.values()), "chest", tmp_path, **asked)


def test_the_table_and_its_means():
    rows = [
        {"method": "m", "finding": f, "direction": "remove", "error_inside": e, "evaluations": 54.0, "flip_rate": flip}
        for f, e, flip in (("a", 0.2, 1.0), ("b", 0.4, None))
    ]
    (row,) = means(rows)
    assert row["error_inside"] == pytest.approx(0.3)
    assert row["flip_rate"] == 1.0
    assert "| m | all findings | remove | 0.300 |" in markdown(rows)
    json.dumps(row)


@dataclass(frozen=True)
class Brighter(Nothing):
    """Another wrong answer."""

    name: ClassVar[str] = "brighter"

    def __call__(self, *given: Any, **named: Any) -> Any:
        return super().__call__(*given, **named) * 0.5 + 0.5


def test_rows_say_how_sure_they_are_and_how_methods_compare(model, tmp_path):
    asked = {"n": 3, "findings": ["pacemaker"], "directions": ["remove"]}
    (alone,) = bench(model, [Nothing()], "chest", tmp_path, **asked)["rows"]
    assert "p" not in alone
    one, other = bench(model, [Nothing(), Brighter()], "chest", tmp_path, **asked)["rows"]
    assert one == alone  # the cell of before, which the disk knows without intervals
    assert not any("_low" in key for key in json.loads(next(tmp_path.glob("cells/n*.json")).read_text()))
    for row in (one, other):
        for key in ("error_inside", "drift_outside"):
            wanted = interval([case[key] for case in row["cases"]], range(3))
            assert (row[f"{key}_low"], row[key], row[f"{key}_high"]) == (
                wanted.low,
                pytest.approx(wanted.mean),
                wanted.high,
            )
        assert row["flip_rate_low"] is row["flip_rate_high"] is None  # nobody judged
    test = paired(*([case["error_inside"] for case in row["cases"]] for row in (other, one)), range(3))
    assert (other["compared_with"], other["p"]) == ("nothing", test.p)
    assert other["error_inside_difference"] == pytest.approx(other["error_inside"] - one["error_inside"])
    assert other["error_inside_difference_low"] == test.difference.low


def test_of_one_case_there_is_no_interval():
    assert intervals([{"error_inside": 0.5, "drift_outside": 0.1, "flip_rate": 1.0}]) == dict.fromkeys(
        [f"{key}_{end}" for key in ("error_inside", "drift_outside", "flip_rate") for end in ("low", "high")]
    )


def sure(method, finding, error, **more):
    limits = {"error_inside_low": error - 0.03, "error_inside_high": error + 0.04}
    return {"method": method, "finding": finding, "direction": "add", "n": 8, "error_inside": error} | limits | more


def test_tables_show_intervals_and_tests_also_of_a_bench_that_was_stopped(tmp_path):
    test = {"compared_with": "a", "error_inside_difference": -0.1, "p": 0.0001}
    ends = {"error_inside_difference_low": -0.16, "error_inside_difference_high": -0.04}
    rows = [sure("a", "x", 0.3), sure("b", "x", 0.2, **test, **ends), sure("a", "y", 0.5)]  # b was not asked about y
    table = markdown(rows)
    assert "| a | x | add | 0.300 [0.27, 0.34] |" in table
    assert "| a | all findings | add | 0.400 [0.38, 0.43] |" in table
    assert "| less that of a | p |" in table and "| b | x | add | -0.100 [-0.16, -0.04] | 0.0001 |" in table
    assert "| b | all findings | add | -0.100 [-0.16, -0.04] |  |" in table
    facts = {"model": "m", "world": "chest", "n": 8, "floor": {"error_inside": 0.1, "drift_outside": 0.01}}
    shown = page(rows, facts, tmp_path).read_text()
    assert "<td>0.300 [0.27, 0.34]</td>" in shown and "<td>-0.100 [-0.16, -0.04]</td><td>0.0001</td>" in shown
    assert "less that of" not in markdown(rows[::2])
    old = [{key: value for key, value in row.items() if "_low" not in key} for row in rows]  # of an earlier version
    assert "| a | all findings | add | 0.400 |" in markdown(old)


def test_the_page_of_the_documentation_shows_intervals(tmp_path, monkeypatch):
    run = {"arguments": ["bench"], "result": {"model": "m", "world": "chest", "n": 8}}
    run["result"] |= {"floor": {"error_inside": 0.1, "drift_outside": 0.01}, "rows": [sure("a", "x", 0.3)]}
    (tmp_path / "docs/figures").mkdir(parents=True)
    (tmp_path / "cells").mkdir()
    Image.new("L", (50, 40)).save(tmp_path / "cells/a-x-add.png")
    (tmp_path / "run.json").write_text(json.dumps(run))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmark_page.py", str(tmp_path)])
    benchmark_page.main()
    assert "| a | add | 0.300 [0.27, 0.34] |" in (tmp_path / "docs/benchmark.md").read_text()


def test_the_pareto_front_is_what_nothing_beats():
    assert pareto([(1, 0.5), (2, 0.4), (3, 0.45), (0.5, 0.9), (2, 0.3)]) == [3, 0, 4]
