"""Few training images: the automatic recipe beside a fixed preset, and what each ingredient of the recipe is worth.

    python benchmarks/small_data.py WEIGHTS --data nuclei/ person/ --out OUT

Each folder of `--data` holds `train.json` and `val.json` in COCO's form with their images, and WEIGHTS is a ResNet-18
of ImageNet with torchvision's names. A run trains for a fixed number of steps of two images, so that its result does
not depend on the load of the machine, and is judged on all of `val.json`. Each seed chooses other training images.

The preset is `mask_rcnn_R_18_FPN` with its own SGD, whose rate is scaled linearly to two images, and images of half the
size, because those of 800 pixels take four times as long.

A finished run is a line of OUT/results.jsonl and is not repeated. A run that fails is named at the end, and the others
go on. The table of all lines is printed last.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from maskrcnn.threads import threads_of_each

PRESET = {
    "preset": "mask_rcnn_R_18_FPN",
    "recipe": "none",
    "image.short-side": 400,
    "image.long-side": 667,
    "train.batch-size": 2,
    "train.learning-rate": 0.0025,
}
# What differs from the recipe in a run that shows what an ingredient is worth.
INGREDIENTS = {
    "without EMA": ["--train.no-ema"],
    "without copy-paste": ["--augment.copy-paste", "0"],
    "without scale jitter": ["--augment.scale-jitter", "1", "1"],
    "with steps in place of the cosine": ["--train.schedule", "step"],
    "nothing frozen": ["--model.backbone.frozen-stages", "0"],
    "stem to res3 frozen": ["--model.backbone.frozen-stages", "3"],
}
SIDES = ["recipe", "preset", *INGREDIENTS]
AMONG = 20  # training images with which the ingredients are measured


@dataclass(frozen=True)
class Run:
    data: str  # name of the folder
    images: int  # for training
    seed: int
    side: str  # the recipe, the preset, or an ingredient

    def words(self, steps: int) -> list[str]:
        """Flags of `maskrcnn train`."""
        fixed = [word for flag, value in PRESET.items() for word in (f"--{flag}", str(value))]
        fixed += ["--train.warmup-steps", str(steps // 10)]
        own = {"recipe": ["--hold-out", "0"], "preset": fixed}
        return own[self.side] if self.side in own else own["recipe"] + INGREDIENTS[self.side]


def planned(names: list[str], sizes: list[int], seeds: list[int], sides: list[str]) -> Iterator[Run]:
    """The runs in an order in which each seed fills the table once. Ingredients are those of the first data set."""
    for seed in seeds:
        for name in names:
            for images in sizes:
                yield from (Run(name, images, seed, side) for side in ("recipe", "preset") if side in sides)
        yield from (Run(names[0], AMONG, seed, side) for side in INGREDIENTS if side in sides)


def measure(run: Run, folder: Path, weights: Path, out: Path, steps: int, threads: int) -> dict[str, object]:
    """Trains and judges. Returns the AP of masks and boxes.

    Raises:
        RuntimeError: a command failed; the last lines of what it said.
    """
    place = out / f"{run.data}-{run.images}-{run.seed}-{run.side.replace(' ', '-')}"
    shutil.rmtree(place, ignore_errors=True)  # of a run that was stopped
    subset = chosen(run, folder, out)
    flags = ["--weights", weights, "--train.steps", steps, "--train.seed", run.seed, "--train.workers", 0]
    flags += ["--train.checkpoint-every", steps, "--out", place]  # one checkpoint, which no run needs
    maskrcnn(["train", subset, *flags, *run.words(steps)], threads)
    for checkpoint in place.glob("*.ckpt"):
        checkpoint.unlink()
    found = maskrcnn(
        ["evaluate", "--model", place / "model.safetensors", "--data", folder / "val.json", "--json"], threads
    )
    figures = json.loads(found)
    return {**asdict(run), "steps": steps, **{of: figures[of]["AP"] for of in ("masks", "boxes")}}


def chosen(run: Run, folder: Path, out: Path) -> Path:
    """The folder of the training images of a run, made if it is missing."""
    place = out / f"{run.data}-{run.images}-{run.seed}"
    if not place.exists():
        number = ["--number", run.images, "--seed", run.seed]
        maskrcnn(["data", "subset", folder / "train.json", place, *number, "--link"], 1)
    return place


def maskrcnn(words: list[object], threads: int) -> str:
    """What a command prints on stdout."""
    command = [sys.executable, "-m", "maskrcnn", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} ended with {ran.returncode}:\n{ran.stderr[-2000:]}")
    return ran.stdout


def table(results: list[dict[str, object]]) -> str:
    """AP of the masks and boxes of each side as mean and standard deviation over the seeds."""
    lines = ["| data | training images | side | seeds | mask AP | box AP |", "|---|---|---|---|---|---|"]
    rows: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for result in results:
        rows.setdefault((result["data"], result["images"], result["side"]), []).append(result)
    for key, several in rows.items():
        cells = [spread([float(str(result[of])) for result in several]) for of in ("masks", "boxes")]
        lines.append(f"| {' | '.join(map(str, key))} | {len(several)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, help="ResNet-18 with torchvision's names")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of train.json and val.json")
    parser.add_argument("--out", type=Path, default=Path("runs/small"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 20, 5], help="numbers of training images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--at-once", type=int, default=1, help="runs side by side, each with its share of the cores")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    results = flags.out / "results.jsonl"
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {tuple(result[name] for name in ("data", "images", "seed", "side")) for result in known}
    folders = {folder.resolve().name: folder for folder in flags.data}
    all_runs = planned(list(folders), flags.sizes, flags.seeds, flags.sides)
    runs = [run for run in all_runs if tuple(asdict(run).values()) not in done]
    for run in runs:
        chosen(run, folders[run.data], flags.out)  # before the runs that share it
    threads = threads_of_each(flags.at_once)
    failed = []
    with ThreadPoolExecutor(flags.at_once) as pool, results.open("a") as lines:
        places = ((run, folders[run.data], flags.weights, flags.out) for run in runs)
        for each in as_completed([pool.submit(measure, *place, flags.steps, threads) for place in places]):
            error = each.exception()
            if error is None:
                known.append(each.result())
                print(json.dumps(known[-1]), file=lines, flush=True)
            else:
                failed.append(str(error))
    print(table(known))
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main()
