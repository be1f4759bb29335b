"""What a study asks of whom: every wrong field is named, sides are balanced, and readers go on where they stopped."""

from __future__ import annotations

import json
import os
import sqlite3

import numpy as np
import pytest
from tests.reader.studies import chooses, edits, images, rated_area, rates, study
from typer.testing import CliRunner

from counterscan.cli import app
from counterscan.errors import DataError, WordsError
from counterscan.reader.report import write_report
from counterscan.reader.store import Store
from counterscan.reader.study import read
from counterscan.reader.trials import Answer, check, trials

RATING = "  - {kind: rating, real: real, synthetic: made}\n"
FORCED = "  - {kind: forced-choice, real: real, synthetic: made, count: 20}\n"
CHANGE = "  - {kind: change, edits: edits}\n"
QUALITY = "  - {kind: quality, edits: edits, count: 4}\n"


@pytest.fixture
def folder(tmp_path):
    images(tmp_path / "real", 24)
    images(tmp_path / "made", 30, 100)
    edits(tmp_path / "edits", 6)
    return tmp_path


def test_every_wrong_field_is_named(folder):
    with pytest.raises(WordsError, match=r"tasks\.0\.rating\.synthetic: .*colour"):
        study(folder, "  - {kind: rating, real: real, colour: 3}\n")
    for tasks, kind in (
        ("  - {kind: rating, real: nothing, synthetic: made}\n", DataError),
        ("  - {kind: game}\n", WordsError),
    ):
        with pytest.raises(kind, match=r"tasks\.0"):
            study(folder, tasks)
    with pytest.raises(DataError, match="fewer than count: 99"):
        study(folder, "  - {kind: rating, real: real, synthetic: made, count: 99}\n")
    with pytest.raises((WordsError, DataError), match=r"study\.yaml: tasks\.0\.real: "):
        study(folder, "  - {kind: rating, real: 'a**b/[', synthetic: made}\n")
    with pytest.raises(WordsError, match="No such file"):
        read(folder / "absent.yaml")


def test_as_many_real_as_synthetic_and_every_reader_another_order(folder):
    known = study(folder, RATING)
    first, second = trials(known, 0), trials(known, 1)
    assert sum(t.case.truth for t in first) == 24 and len(first) == 48
    assert {t.id for t in first} == {t.id for t in second} and [t.id for t in first] != [t.id for t in second]
    assert first == trials(known, 0)


def test_sides_are_balanced_within_and_between_readers(folder):
    known = study(folder, FORCED + CHANGE)
    sides = [{t.id: t.swapped for t in trials(known, reader)} for reader in (0, 1)]
    assert sum(v for k, v in sides[0].items() if k.startswith("0/")) == 10
    assert sum(v for k, v in sides[0].items() if k.startswith("1/")) == 3
    assert all(sides[0][key] != sides[1][key] for key in sides[0])


def test_answers_must_fit_their_task(folder):
    rating, change, quality = study(folder, RATING + CHANGE + QUALITY).tasks
    here = {"finding": "pacemaker", "mark": (0.5, 0.2, 0.5, 0.2)}
    for task, answer in ((rating, {"rating": 3}), (change, here), (change, {"finding": "no difference"}),
                         (quality, {"scales": {"realism": 4, "obeyed": 2, "kept": 5}})):  # fmt: skip
        check(task, Answer(**answer))
    for task, answer in ((rating, {}), (rating, {"choice": 1}), (change, {"finding": "pacemaker"}),
                         (change, here | {"finding": "x"}), (change, here | {"finding": "no difference"}),
                         (quality, {"scales": {"realism": 4}})):  # fmt: skip
        with pytest.raises(WordsError):
            check(task, Answer(**answer))
    with pytest.raises(ValueError, match="rating"):
        Answer(rating=7)


def test_the_store_keeps_first_answers_and_nobodys_name(folder):
    known = study(folder, RATING)
    store = Store(folder / "s.sqlite", known.fingerprint)
    assert (store.begin("R1"), store.begin("R2"), store.begin("R1")) == (0, 1, 0)
    assert store.add(0, "0/r1", Answer(rating=2, seconds=3)) and not store.add(0, "0/r1", Answer(rating=5))
    store.shut()
    base = sqlite3.connect(folder / "s.sqlite")
    tables = [row[0] for row in base.execute("select sql from sqlite_master where sql is not null")]
    words = {word.strip("(,") for table in tables for word in table.split()}
    assert not words & {"name", "email", "address", "time", "date"}
    again = Store(folder / "s.sqlite", known.fingerprint)
    assert [(r, t, a.rating) for r, t, a in again.answers()] == [(0, "0/r1", 2)]
    with pytest.raises(DataError, match="another study"):
        Store(folder / "s.sqlite", "else")
    (folder / "no.sqlite").write_text("not a store at all, but a text that is long enough")
    with pytest.raises(DataError, match="not a store"):
        Store(folder / "no.sqlite", "else")


def test_a_changed_image_is_another_study(folder):
    before = study(folder, RATING).fingerprint
    assert study(folder, RATING, "readers: [R1]\n").fingerprint == before
    (folder / "real" / "000.png").write_bytes((folder / "real" / "001.png").read_bytes())
    assert study(folder, RATING).fingerprint != before


@pytest.mark.parametrize("picture", ["case1.original.png", "case1.counterfactual.png", "case1.mask.png"])
def test_a_changed_picture_of_an_edit_is_another_study(folder, picture):
    before = study(folder, CHANGE).fingerprint
    (folder / "edits" / picture).write_bytes((folder / "edits" / picture.replace("1", "2")).read_bytes() + b" ")
    assert study(folder, CHANGE).fingerprint != before
    (folder / "edits" / picture).unlink()
    with pytest.raises(DataError, match=rf"{picture}: No such file"):
        study(folder, CHANGE)


def test_of_a_folder_of_edits_only_originals_are_real_and_only_results_synthetic(folder):
    (task,) = study(folder, "  - {kind: rating, real: edits, synthetic: edits}\n").tasks
    dealt = [{case.files[0].name for case in task.cases if case.truth == truth} for truth in (0, 1)]
    assert dealt == [{f"case{k}{kind}.png" for k in range(6)} for kind in (".original", ".counterfactual")]


def test_of_a_folder_of_edits_no_edited_original_is_real_and_equal_ones_are_dealt_once(folder):
    made = folder / "edits"
    (made / "case1.original.png").write_bytes((made / "case0.original.png").read_bytes())
    record = json.loads((made / "case2.json").read_text())
    (made / "case2.json").write_text(json.dumps(record | {"synthetic": True}))
    (task,) = study(folder, "  - {kind: rating, real: edits, synthetic: edits, count: 4}\n").tasks
    real = {case.files[0].read_bytes() for case in task.cases if not case.truth}
    assert real == {(made / f"case{k}.original.png").read_bytes() for k in (0, 3, 4, 5)}
    for k in range(6):
        (made / f"case{k}.json").write_text((made / f"case{k}.json").read_text().replace(": false", ": true"))
    with pytest.raises(DataError, match=r"tasks\.0\.real: no image"):
        study(folder, "  - {kind: rating, real: edits, synthetic: edits}\n")


def simulated(folder, known, sees):
    """Readers who see as much as ``sees`` says answer everything."""
    store = Store(folder / "study.sqlite", known.fingerprint)
    for reader, much in enumerate(sees):
        assert store.begin(f"R{reader}") == reader
        rng = np.random.default_rng(reader)
        for trial in trials(known, reader):
            say = rates if known.tasks[trial.task].kind == "rating" else chooses
            store.add(reader, trial.id, say(rng, trial, much))
    store.shut()


def test_readers_of_known_sensitivity_are_recovered(tmp_path):
    images(tmp_path / "real", 150)
    images(tmp_path / "made", 150, 500)
    forced = FORCED.replace("20", "150")
    known, sees = study(tmp_path, RATING + forced), (0.0, 0.8, 1.6, 2.4)
    simulated(tmp_path, known, sees)
    found = write_report(known, tmp_path / "study.sqlite", tmp_path / "report")
    rating, choice = found["tasks"]
    for task in (rating, choice):
        for row, much in zip(task["rows"], sees, strict=False):
            assert row["d_prime"]["low"] <= much <= row["d_prime"]["high"], (task["kind"], much, row["d_prime"])
        everyone = task["rows"][-1]["d_prime"]
        assert everyone["low"] <= np.mean(sees) <= everyone["high"]
        assert [row["reader"] for row in task["rows"]] == ["R0", "R1", "R2", "R3", "all"]
    for row, much in zip(rating["rows"], sees, strict=False):
        assert row["auc"]["low"] <= rated_area(much) <= row["auc"]["high"]
    assert 0 < rating["kappa"]["value"] < 0.6 and found["answers"] == 4 * 450
    text = (tmp_path / "report" / "report.html").read_text()
    assert "Not for diagnosis" in text and text.count("data:image/png") == 2


def test_changes_and_quality(folder):
    known = study(folder, CHANGE + QUALITY)
    store = Store(folder / "study.sqlite", known.fingerprint)
    for reader, code in enumerate(("good", "poor")):
        store.begin(code)
        for k, trial in enumerate(trials(known, reader)):
            if known.tasks[trial.task].kind == "quality":
                answer = Answer(scales={"realism": 4 - reader, "obeyed": 1 + k % 5, "kept": 5})
            elif reader:
                answer = Answer(finding="no difference")
            else:
                answer = Answer(finding=trial.case.findings[0], mark=(0.5, 0.1, 0.7, 0.3))
            store.add(reader, trial.id, answer)
    store.shut()
    change, quality = write_report(known, folder / "study.sqlite", folder / "report")["tasks"]
    good, poor, everyone = change["rows"]
    assert (good["finding"]["value"], good["place"]["value"], poor["finding"]["value"]) == (1, 1, 0)
    assert everyone["finding"]["value"] == 0.5 and good["finding_by_chance"] == pytest.approx(1 / 3)
    assert 64 / 1600 <= good["place_by_chance"] < 0.1  # the square and a little around it
    assert [row["realism"]["value"] for row in quality["rows"]] == [4, 3, 3.5]


SECRET = "abcdef0123456789"


def test_a_report_from_the_command_line(folder):
    study(folder, FORCED)
    run = CliRunner()
    words = ["reader", str(folder / "study.yaml"), "--report", "-o", str(folder / "out"), "--json"]
    failed = run.invoke(app, words)
    assert isinstance(failed.exception, DataError) and "no answers yet" in str(failed.exception)
    simulated(folder, read(folder / "study.yaml"), (1.0,))
    words += ["--token", SECRET]
    done = run.invoke(app, words, obj=words)
    tasks = json.loads(done.stdout)["tasks"]
    assert done.exit_code == 0 and tasks[0]["rows"][0]["reader"] == "R0"
    text = (folder / "out" / "run.json").read_text()
    record = json.loads(text)
    assert (record["command"], record["scores"], record["cwd"]) == ("reader", tasks, os.getcwd())
    assert record["arguments"] == [*words[:-1], "***"] and SECRET not in text
    words[-2:] = [f"--token={SECRET}"]
    assert run.invoke(app, words, obj=words).exit_code == 0
    assert SECRET not in (folder / "out" / "run.json").read_text()
