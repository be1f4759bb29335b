"""Are planted copies of training images found, and honest images left alone? On real radiographs.

    python benchmarks/privacy.py NIH128 -o benchmarks/results/privacy

``NIH128`` is a folder with ``images/`` and ``metadata.csv`` (file, patient, split). Images of its train split are the
training set; test patients are parted in two: one half calibrates the threshold, the other half is honest. 20 training images
are planted among them, flipped, brightened, cropped by 5 % and saved as JPEG of quality 60, five each, and 20 with all four at
once. ``same patient``, the hard case, are other images of patients whose images were trained on: they are no copies.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from counterscan.evaluate.privacy import privacy
from counterscan.metrics.neighbours import nearest

KINDS = ("flipped", "brightened", "cropped", "jpeg", "all")


def disguise(image: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """A copy that does not look like one to a checksum."""
    if kind in ("flipped", "all"):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind in ("brightened", "all"):
        image = image.point([min(round(1.15 * v + 20), 255) for v in range(256)])
    if kind in ("cropped", "all"):
        width, height = image.size
        x, y = rng.integers(0, round(0.05 * width) + 1), rng.integers(0, round(0.05 * height) + 1)
        image = image.crop((x, y, x + round(0.95 * width), y + round(0.95 * height))).resize((width, height))
    return image


def choose(folder: Path, count: int, honest: int, rng: np.random.Generator) -> dict[str, list[dict[str, str]]]:
    """Rows for training, calibration, honest and same-patient images; patients of the first three are strangers."""
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patient = "patient_id" if "patient_id" in rows[0] else "patient"
    for row in rows:
        row["patient"] = row[patient]
    some = [[r for r in rows if (r["split"] == "test") == test] for test in (False, True)]
    train, test = ([part[i] for i in rng.permutation(len(part))] for part in some)
    known = {row["patient"] for row in train[:count]}
    left = sorted({row["patient"] for row in test})
    first = set(left[::2])
    return {
        "train": train[:count],
        "test": [row for row in test if row["patient"] in first][:honest],
        "honest": [row for row in test if row["patient"] not in first][:honest],
        "same patient": [row for row in train[count:] if row["patient"] in known][:honest],
    }


def place(folder: Path, row: dict[str, str]) -> Path:
    """The file of a row."""
    return folder.absolute() / (row["file"] if "/" in row["file"] else f"images/{row['file']}")


def plant(
    folder: Path, chosen: dict[str, list[dict[str, str]]], work: Path, each: int, rng: np.random.Generator
) -> None:
    """Write the manifest, and the generated images: honest ones linked, copies made."""
    lines = [["path", "patient", "split"]]
    lines += [[str(place(folder, r)), r["patient"], split] for split in ("train", "test") for r in chosen[split]]
    with (work / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    (work / "made").mkdir()
    for kind in ("honest", "same patient"):
        for i, row in enumerate(chosen[kind]):
            (work / "made" / f"{kind}-{i}.jpg").symlink_to(place(folder, row))
    for kind in KINDS:
        for i in range(20 if kind == "all" else each):
            row = chosen["train"][int(rng.integers(len(chosen["train"])))]
            image = disguise(Image.open(place(folder, row)).convert("L"), kind, rng)
            lossy = {"format": "JPEG", "quality": 60} if kind in ("jpeg", "all") else {"format": "PNG"}
            image.save(work / "made" / f"{kind}-{i}.{'jpg' if kind in ('jpeg', 'all') else 'png'}", **lossy)


def search_speed(n: int, dimensions: int = 256, queries: int = 100) -> float:
    """Seconds a query against an index of n images on disk."""
    with tempfile.TemporaryDirectory() as folder:
        index = np.memmap(Path(folder) / "index.f32", np.float32, "w+", shape=(n, dimensions))
        rng = np.random.default_rng(0)
        for start in range(0, n, 50_000):
            index[start : start + 50_000] = rng.standard_normal((min(50_000, n - start), dimensions), np.float32)
        asked = np.array(index[rng.integers(n, size=queries)]) + 0.01
        began = time.perf_counter()
        far, _ = nearest(asked, index, 4)
        assert (far[:, 0] < 1).all()
        return (time.perf_counter() - began) / queries


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", type=Path, default=Path("benchmarks/results/privacy"))
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--honest", type=int, default=300)
    parser.add_argument("--index", type=int, default=1_000_000)
    o = parser.parse_args()
    rng = np.random.default_rng(0)
    chosen = choose(o.data, o.train, o.honest, rng)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        plant(o.data, chosen, work, 5, rng)
        told = privacy(work / "made", work / "manifest.csv", work / "out")
        lines = (json.loads(line) for path in work.glob("out/work/twins-*.jsonl") for line in path.open())
        similar = {row["name"]: row["similarity"] for row in lines if "-" in row["name"] and "/" not in row["name"]}
    table = []
    for kind in (*KINDS, "honest", "same patient"):
        values = np.array([value for name, value in similar.items() if name.startswith(f"{kind}-")])
        flagged = int((values > told["threshold"]).sum())
        table.append({"images": kind, "n": len(values), "flagged": flagged, "median": float(np.median(values))})
    facts = {
        "data": o.data.name,
        "images": told["images"],
        "threshold": told["threshold"],
        "rate": told["rate"],
        "rows": table,
        "seconds": round(time.perf_counter() - began, 1),
        "index": {"images": o.index, "seconds_a_query": round(search_speed(o.index), 4)},
    }
    o.o.mkdir(parents=True, exist_ok=True)
    (o.o / "results.json").write_text(json.dumps(facts, indent=2) + "\n")
    head = "| images | n | flagged as copies | median similarity |\n| --- | --- | --- | --- |\n"
    body = "".join(f"| {r['images']} | {r['n']} | {r['flagged']} | {r['median']:.3f} |\n" for r in table)
    words = (
        f"# Planted copies among real images of {o.data.name}\n\n{told['images']['train']} training images; threshold "
        f"{told['threshold']:.3f} from {told['images']['held_out']} held-out images, at a rate of {told['rate']:.0%}.\n\n"
        f"{head}{body}\nExact search among {o.index} descriptors on disk: {facts['index']['seconds_a_query']} s a query.\n"
    )
    (o.o / "results.md").write_text(words)
    print(words)


if __name__ == "__main__":
    main()
