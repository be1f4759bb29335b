"""A reader study as data: one YAML file that names tasks and their images; every wrong field is named at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from counterscan.errors import DataError, WordsError
from counterscan.imaging.files import digest

Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,12}$")]
ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".nii", ".nii.gz")
RATINGS = (
    "surely real",
    "probably real",
    "perhaps real",
    "perhaps synthetic",
    "probably synthetic",
    "surely synthetic",
)
LIKERT = 5  # steps of a scale of quality
QUALITY = {
    "realism": "The result could be a real image",
    "obeyed": "What was asked is done",
    "kept": "All else is as it was",
}
NO_FINDING = "no difference"
SHOWN = ("image", "counterfactual", "mask")  # of an edit: what is shown, and what answers are measured against


class Record(NamedTuple):
    """A saved edit: its record and its pictures ``SHOWN``, the findings it changed, what was asked, and whether its original
    is synthetic, an edit itself.
    """

    files: tuple[Path, ...]
    findings: tuple[str, ...]
    asked: str
    synthetic: bool


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sources(_Strict):
    """Real against synthetic images: folders or patterns, relative to the study's file; ``count`` of each, else as many as
    the smaller has.

    ``rating`` shows one image, to be called real or synthetic in six steps; ``forced-choice`` shows one of each (2AFC).
    """

    kind: Literal["rating", "forced-choice"]
    real: str
    synthetic: str
    count: int | None = Field(default=None, ge=1)


class Edits(_Strict):
    """Edits to be judged: a folder that ``counterscan edit`` or ``Counterfactual.save`` wrote; ``count`` of them, else all.

    ``change`` asks what differs and where, of ``findings`` (else all that occur); ``quality`` asks for ``scales``, each a
    sentence to agree with in five steps.
    """

    kind: Literal["change", "quality"]
    edits: str
    findings: tuple[str, ...] = ()
    scales: dict[str, str] = Field(default=QUALITY, min_length=1, max_length=6)
    count: int | None = Field(default=None, ge=1)


class Plan(_Strict):
    """What the file says. ``readers`` are the codes that may take part (none named: any code may)."""

    title: str = Field(max_length=200)
    tasks: Annotated[tuple[Annotated[Sources | Edits, Field(discriminator="kind")], ...], Field(min_length=1)]
    readers: tuple[Code, ...] = ()
    seed: int = Field(default=0, ge=0)
    side: int = Field(default=768, ge=64, le=2048, description="The longest side of every image shown, in pixels.")


@dataclass(frozen=True)
class Case:
    """One thing to judge: ``files`` are a real image, a synthetic one, both, or an edit's record and its pictures.

    ``truth`` is 1 for synthetic in a rating; ``findings`` are those an edit changed, ``asked`` how it was asked.
    """

    id: str
    files: tuple[Path, ...]
    truth: int = 0
    findings: tuple[str, ...] = ()
    asked: str = ""


@dataclass(frozen=True)
class Task:
    """A task with its cases, the same for every reader. ``choices`` are the findings to choose from."""

    kind: str
    cases: tuple[Case, ...]
    choices: tuple[str, ...] = ()
    scales: dict[str, str] | None = None


@dataclass(frozen=True)
class Study:
    """A study ready to be read. ``fingerprint`` changes with what is asked, every image, every edit's record and pictures."""

    plan: Plan
    tasks: tuple[Task, ...]
    fingerprint: str


def read(path: str | Path) -> Study:
    """Read a study and find its images.

    Raises:
        WordsError: the file is absent, is no YAML, or a field is wrong.
        DataError: a folder holds no images, or fewer than ``count``, or one of them cannot be read.
    """
    import yaml

    path = Path(path)
    try:
        plan = Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise WordsError(f"{path}: {error.strerror or error}; name a study's YAML file") from error
    except ValidationError as error:
        raise WordsError(f"{path}: {'; '.join(map(_fault, error.errors()))}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise WordsError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    identity = hashlib.sha256(plan.model_dump_json(exclude={"title", "readers"}).encode())
    try:
        tasks = tuple(_task(plan, number, path) for number in range(len(plan.tasks)))
        files = sorted({file for task in tasks for case in task.cases for file in case.files})
        for file in files:
            identity.update(hashlib.sha256(file.read_bytes()).digest())
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}; it belongs to {path}") from error
    return Study(plan, tasks, identity.hexdigest()[:16])


def _fault(fault: Any) -> str:
    return f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}"


def _task(plan: Plan, number: int, path: Path) -> Task:
    import numpy as np

    task, root = plan.tasks[number], path.parent
    rng = np.random.default_rng([plan.seed, number])
    where = f"{path}: tasks.{number}"
    if isinstance(task, Edits):
        records = _edits(root, task.edits, where)
        found = sorted({name for record in records for name in record.findings})  # of those not drawn, too
        drawn = _some(records, task.count, rng, f"{where}.edits")
        cases = [Case(str(k), one.files, 1, one.findings, one.asked) for k, one in enumerate(drawn)]
        choices = (*(task.findings or found), NO_FINDING) if task.kind == "change" else ()
        return Task(task.kind, tuple(cases), choices, task.scales if task.kind == "quality" else None)
    files = {name: _images(root, getattr(task, name), f"{where}.{name}", name) for name in ("real", "synthetic")}
    count = task.count or min(map(len, files.values()))  # as many of each
    real, made = (_some(some, count, rng, f"{where}.{name}") for name, some in files.items())
    if task.kind == "forced-choice":
        cases = [Case(str(k), pair) for k, pair in enumerate(zip(real, made, strict=True))]
    else:
        cases = [
            Case(f"{'rs'[k]}{i}", (file,), k) for k, files in enumerate((real, made)) for i, file in enumerate(files)
        ]
    return Task(task.kind, tuple(cases))


def _some(items: list[Any], count: int | None, rng: Any, where: str) -> list[Any]:
    """``count`` of the items in random order, the same for all readers."""
    if count is not None and len(items) < count:
        raise DataError(f"{where}: holds {len(items)}, fewer than count: {count}")
    return [items[k] for k in rng.permutation(len(items))[:count]]


def _images(root: Path, pattern: str, where: str, name: str) -> list[Path]:
    """The images of a folder or pattern. Of a folder of saved edits, which holds masks and figures too, only the originals
    that are no edits themselves where they are to be real, and only the results where synthetic; equal files once.
    """
    place = root / pattern
    try:
        found = (
            sorted(place.iterdir()) if place.is_dir() else sorted(root.glob(pattern)) if _relative(pattern) else [place]
        )
    except ValueError as error:
        raise WordsError(f"{where}: {error}; name a folder, an image or a pattern such as made/*.png") from error
    if place.is_dir() and (records := _records(file for file in found if file.suffix == ".json")):
        real = name == "real"
        found = _distinct([one.files[1 if real else 2] for one in records if not (real and one.synthetic)])
    images = [file for file in found if file.is_file() and file.name.lower().endswith(ENDINGS)]
    if not images:
        raise DataError(f"{where}: no image at {place}")
    return images


def _distinct(files: Iterable[Path]) -> list[Path]:
    """One of all equal files; every edit of an image has a copy of it."""
    return list({digest(file): file for file in files if file.is_file()}.values())


def _relative(pattern: str) -> bool:
    return not Path(pattern).is_absolute()


def _edits(root: Path, folder: str, where: str) -> list[Record]:
    """The records of saved counterfactuals below a folder."""
    found = _records(sorted((root / folder).rglob("*.json")))
    if not found:
        raise DataError(f"{where}.edits: no edit in {root / folder}; name a folder that counterscan edit wrote")
    return found


def _records(files: Iterable[Path]) -> list[Record]:
    """Those of the files that are records of saved counterfactuals."""
    found = []
    for file in files:
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            edit, pictures = record["edit"], [file.parent / record["files"][name] for name in SHOWN]
            changes: Sequence[dict[str, str]] = edit["changes"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another kind of file, such as run.json
        asked = ", ".join(f"{change['direction']} {change['finding']}" for change in changes) or edit["target"]
        findings = tuple(change["finding"] for change in changes)
        found.append(Record((file, *pictures), findings, asked, record.get("synthetic") is True))
    return found
