"""What may be asked of the API, with its limits."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Words = Annotated[str, Field(max_length=500)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 17, description="Equal seeds give equal results.")]
STRONGEST = 4.0  # times the method's own strength


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MaskRequest(_Request):
    """A drawn region: one bit a pixel, row by row, first pixel in the highest bit, as base64. Stretched to the image."""

    width: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=4096)]
    bits: Annotated[str, Field(max_length=2_800_000)]


class _Question(_Request):
    remove: Annotated[list[Words], Field(max_length=16)] = []
    add: Annotated[list[Words], Field(max_length=16)] = []
    source: Words | None = None
    target: Words | None = None
    instruct: Words | None = None
    region: Words | None = None
    keep: Annotated[list[Words], Field(max_length=16)] = []
    method: Words | None = None
    model: Words | None = None
    seed: Seed = 0


class EditRequest(_Question):
    """The options of ``counterscan edit``. ``count`` alternatives have the seeds ``seed``, ``seed + 1``, …

    ``strength`` is a factor of the method's own, or of its guidance where it has none. ``until`` a probability, or ``best_of``
    several seeds, is a search that keeps one answer. ``selector`` and ``judge``, who scores every answer, are built-in
    classifiers.
    """

    image: Id
    mask: MaskRequest | None = None
    count: Annotated[int, Field(ge=1, le=6)] = 1
    strength: Annotated[float, Field(gt=0, le=STRONGEST)] = 1
    judge: Words | None = None
    until: Annotated[float, Field(gt=0, lt=1)] | None = None
    best_of: Annotated[int, Field(ge=1, le=6)] = 1
    selector: Words | None = None

    @property
    def searched(self) -> bool:
        """Whether one answer is searched for."""
        return self.until is not None or self.best_of > 1

    @model_validator(mode="after")
    def _one_search(self) -> Self:
        if self.until is not None and self.selector is None:
            raise ValueError("until needs a selector: the classifier that has to be convinced")
        if self.selector is not None and not self.searched:
            raise ValueError("a selector chooses among results: give until or best_of as well")
        if self.judge is not None and self.judge == self.selector:
            raise ValueError("a selector cannot judge its own choice: name another judge")
        if self.until is not None and self.strength != 1:
            raise ValueError("until finds the strength: leave strength at 1")
        if self.searched and self.count > 1:
            raise ValueError("a search keeps one answer: leave count at 1")
        return self


class BatchRequest(_Question):
    """The same question of the first ``n`` rows of a manifest that hold the words of ``query``."""

    manifest: Words
    query: Annotated[str, Field(max_length=200)] = ""
    n: Annotated[int, Field(ge=1, le=50)] = 10


class CalibrationRequest(_Request):
    """What ``counterscan attribute --calibration`` and ``counterscan evaluate attribution`` write as ``calibration.json``."""

    finding: Words
    peaks: Annotated[tuple[Annotated[float, Field(ge=0, le=2)], ...], Field(min_length=1, max_length=10_000)]
    fingerprint: Words
    methods: Annotated[tuple[Words, ...], Field(max_length=16)]
    repeats: Annotated[int, Field(ge=1, le=8)]


class AttributeRequest(_Request):
    """The options of ``counterscan attribute``. Another ``rate`` than 0.05 needs a ``calibration``."""

    image: Id
    finding: Words
    repeats: Annotated[int, Field(ge=1, le=8)] = 1
    method: Words | None = None
    model: Words | None = None
    seed: Seed = 0
    calibration: CalibrationRequest | None = None
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    attention: bool = False


class GenerateRequest(_Request):
    """The options of ``counterscan generate``. Image ``i`` has the seed ``seed + i``."""

    prompt: Words
    n: Annotated[int, Field(ge=1, le=8)] = 1
    steps: Annotated[int, Field(ge=1, le=100)] = 30
    guidance: Annotated[float, Field(ge=0, le=100)] = 2
    model: Words | None = None
    seed: Seed = 0


class DatasetRequest(_Request):
    """A row of a manifest, to open its image."""

    manifest: Words
    row: Annotated[int, Field(ge=0, le=2**40)]
