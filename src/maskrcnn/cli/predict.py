"""`maskrcnn predict`: files, folders, globs or a video in; predictions.json and drawn pictures or a video out."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from maskrcnn.cli.detectors import Detecting, Overlap, TileSize, Tta, with_views_and_tiles
from maskrcnn.cli.flags import Flag, Flags, HelpAll, changed_fields, flags_of, parse_flags, short_help
from maskrcnn.cli.opening import Computing, Opening
from maskrcnn.cli.reading import HintFlags, say_found
from maskrcnn.cli.saving import Saving
from maskrcnn.cli.sharding import Sharding
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from maskrcnn.cli.saving import Collector
    from maskrcnn.predict import Predictor
    from maskrcnn.predict.files import FilesSummary, Keep
    from maskrcnn.structures.instances import Instances


NOT_IN_PARQUET = {"--data", "--table", "--geojson", *flags_of(Saving)}
NOT_FOR_VIDEO = {*NOT_IN_PARQUET, "--tiles", "--overlap", *flags_of(Sharding)}


@dataclass(frozen=True)
class Predict:
    """Find objects in images or a video; write COCO results (predictions.json) and pictures."""

    images: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help_behavior_hint="(required without --data)")
    ]
    """Image files, globs, and folders, whose subfolders are searched too; or one video."""
    model: str
    """Model file, checkpoint of another framework, URL, or a name in `maskrcnn weights list`."""
    out: Path = Path("predictions")
    """Folder for predictions.json and the pictures."""
    data: Path | None = None
    """Data set whose image ids the results get. Without IMAGES, all images of it are predicted."""
    hints: HintFlags = NO_HINTS
    opening: Annotated[Opening, Flags] = field(default_factory=Opening)
    draw: Annotated[Flag, tyro.conf.arg(help_behavior_hint="")] = True
    """Write only predictions.json."""
    table: Path | None = None
    """CSV to write with one row an object: size, shape and brightness, by scikit-image's names."""
    pixel_size: float | Literal["file"] = 1.0
    """Side of a pixel for --table, in the unit that it shall have; file: micrometres, as TIFF and PNG files say."""
    saving: Annotated[Saving, Flags] = field(default_factory=Saving)
    sharding: Annotated[Sharding, Flags] = field(default_factory=Sharding)
    geojson: Flag = False
    """Also write the objects of each image as GeoJSON: in degrees if it has a coordinate system, else in pixels."""
    min_score: float | None = None
    """Lowest score of objects to draw, measure and save; default: that in the model file for each class, or 0.5."""
    batch_size: int = 1
    """Images that pass through the network together, which helps on a GPU."""
    every: int = 1
    """Of a video, predict only every so many frames."""
    tracker: Literal["masks", "bytetrack"] = "masks"
    """Track the objects of a video by their masks, or by their boxes with ByteTrack (extra trackers)."""
    tta: Tta = False
    tiles: TileSize = None
    overlap: Overlap = None
    computing: Annotated[Computing, Flags] = field(default_factory=Computing)
    strict: Flag = False
    """Refuse broken images instead of skipping them."""
    json: Flag = False
    """Print the summary as one JSON object on stdout."""
    help_all: HelpAll = False

    def run(self) -> int:
        from maskrcnn.cli import fail
        from maskrcnn.files.atomic import check_file
        from maskrcnn.files.images import image_files
        from maskrcnn.files.media.video import VIDEO_SUFFIXES
        from maskrcnn.files.progress import track

        self._require_sense()
        if any(Path(image).suffix.lower() in VIDEO_SUFFIXES for image in self.images):
            return self._run_on_video()
        for flag, given in (("--every", self.every != 1), ("--tracker", self.tracker != "masks")):
            if given:
                raise ConfigError(f"{flag} belongs to a video, and there is none")
        if self.sharding.wanted:
            return self._run_on_many()
        saved = self.saving.start(self.out)
        files = image_files(list(self.images))  # before torch and the model: a wrong path is noticed at once
        image_ids: Sequence[int | str] | None = None
        if self.data is not None:
            files, image_ids = _in_data_set(files, self.data, self.hints)
        from maskrcnn.predict import GeoJsonFolder, Outputs, Table, predict_files

        table = None if self.table is None else Table(self.table, self.pixel_size)
        if self.table is not None:
            check_file(self.table, *files, self.data, self.model)

        model = self.opening.load(self.model, self.computing)
        if table is not None and model.config.model.mask_head is None:
            raise ConfigError(f"--table measures masks: expected a model with masks, found {self.model}")
        kept = self.saving.collector(model.config)
        keep = each_of(kept, GeoJsonFolder(self.out) if self.geojson else None)
        try:
            summary = predict_files(
                with_views_and_tiles(model, self.tta, self.tiles, self.overlap),
                files,
                self.out,
                Outputs(self.draw, table, keep, model.thresholds if self.min_score is None else self.min_score),
                image_ids=image_ids,
                strict=self.strict,
                batch_size=self.batch_size,
                channels=model.config.image.channel_names,
                track=lambda items, total: track(items, "predict", total),
            )
        except KeyboardInterrupt:
            lines = [f"interrupted: {self.out / 'predictions.json'} holds the images that were finished"]
            print("\n".join([*lines, *self._save(kept, saved)]), file=sys.stderr)
            return 130
        self._say(summary, model, self._save(kept, saved), saved if kept and kept.images else None)
        if summary.images == 0:
            return fail(f"no image could be read, of {len(files)}; the reasons are above")
        return 0

    def _save(self, kept: Collector | None, saved: Path | None) -> list[str]:
        """Writes the data set, prints what it cannot hold, and returns a line about it."""
        from maskrcnn.cli.output import console

        if kept is None or saved is None:
            return []
        if not kept.images:
            return [f"no data set {saved}: no image was finished"]
        for loss in self.saving.write(kept, saved):
            console(stderr=True).print(f"lost: {loss}")
        return [f"data set: {saved}, {counted(kept.objects, 'object')} in {counted(kept.images, 'image')}"]

    def _say(self, summary: FilesSummary, model: Predictor, of_data_set: list[str], saved: Path | None) -> None:
        """Prints what was found and written."""
        from maskrcnn.cli.output import console, print_json

        if self.json:
            return print_json({**asdict(summary), "saved": saved, "precision": model.precision})
        lines = [f"{counted(summary.objects, 'object')} in {counted(summary.images, 'image')}: {summary.results}"]
        if summary.pictures:
            lines.append(f"pictures: {summary.pictures}")
        if summary.table:
            lines.append(f"measurements: {summary.table}")
        if self.geojson and summary.images:
            lines.append(f"GeoJSON: {self.out}")
        lines += of_data_set
        if summary.skipped:
            lines.append(f"{counted(len(summary.skipped), 'image')} skipped, see above")
        lines += self.computing.choice(model)
        console(stderr=False).print("\n".join(lines))

    def _require_sense(self) -> None:
        """Raises ConfigError for flags that have no effect together, and for an output among the input."""
        from maskrcnn.files.atomic import check_file, check_folder
        from maskrcnn.files.images import LIST_SUFFIXES

        if not self.images and self.data is None:
            raise ConfigError("predict needs IMAGES or --data, found neither")
        if self.data is None and self.hints != NO_HINTS:
            raise ConfigError(f"{changed_fields(self.hints)[0]} says how to read --data, which is missing")
        if self.table is None and self.pixel_size != 1:
            raise ConfigError("--pixel-size scales the lengths of --table, which is missing")
        if self.sharding.wanted:
            return
        stored = next((image for image in self.images if "://" in image), None)
        if stored:
            raise ConfigError(f"{stored}: expected a path; object stores are read with --parquet")
        listed = next((image for image in self.images if Path(image).suffix.lower() in LIST_SUFFIXES), None)
        if listed and not Path(listed).is_dir():
            raise ConfigError(f"{listed}: expected an image; lists of images are read with --parquet")
        within = [image for image in self.images if self.out.resolve().is_relative_to(Path(image).resolve())]
        if (self.draw or self.saving.save) and within:
            raise ConfigError(
                f"--out {self.out}: expected a folder outside of {within[0]}: the next run would read the pictures "
                "of this one as images; choose another folder, or --no-draw without --save"
            )
        if self.data is not None:
            check_folder(self.out, self.data)
            check_file(self.out / "predictions.json", self.data)
            if self.geojson:  # a GeoJSON file has the name of its image, as the file that is written
                check_file(self.out / f"{self.data.stem}.geojson", self.data)

    def _refuse(self, flags: Collection[str], why: str) -> None:
        """Raises ConfigError if one of the flags is given."""
        given = [*changed_fields(self), *changed_fields(self.saving), *changed_fields(self.sharding)]
        idle = [flag for flag in given if flag in flags]
        if idle:
            raise ConfigError(f"{idle[0]} {why}")

    def _run_on_many(self) -> int:
        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, print_json

        asking = changed_fields(self.sharding)[0]
        self._refuse(NOT_IN_PARQUET, f"has no effect on Parquet files, for which {asking} asks")
        try:
            summary = self.sharding.write(
                self.images,
                Detecting(self.model, self.opening, self.computing, self.tta, self.tiles, self.overlap),
                self.out,
                min_score=self.min_score,
                batch_size=self.batch_size,
                strict=self.strict,
            )
        except KeyboardInterrupt:
            print("interrupted: the files that are finished stay, and the same command continues", file=sys.stderr)
            return 130
        if self.json:
            print_json(asdict(summary))
        else:
            lines = [f"{counted(summary.objects, 'object')} in {counted(summary.images, 'image')}: {self.out}"]
            lines.append(f"Parquet files: {summary.written} written, {summary.kept} kept")
            if summary.errors:
                lines.append(f"not read: {counted(summary.errors, 'image')}; the column error says why")
            if not summary.images:
                lines = [f"nothing to do: fewer Parquet files than tasks, and none for --shard {self.sharding.shard}"]
            console(stderr=False).print("\n".join(lines))
        if summary.images and summary.images == summary.errors:
            return fail(
                f"no image could be read, of {summary.images}; the column error of the files says why, and the same "
                "command reads them again when the files are deleted"
            )
        return 0

    def _run_on_video(self) -> int:
        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.files.media.video import open_clip
        from maskrcnn.files.progress import track
        from maskrcnn.predict import Augmented, predict_clip
        from maskrcnn.predict.box_tracking import BoxTracker
        from maskrcnn.predict.tracking import Tracker

        if len(self.images) > 1:
            raise ConfigError(f"expected images or one video, found {len(self.images)} paths with a video among them")
        self._refuse(NOT_FOR_VIDEO, f"is for images, and {self.images[0]} is a video")
        open_clip(self.images[0])  # before torch and the model: a wrong path is noticed at once
        model = self.opening.load(self.model, self.computing)
        if model.config.image.channel_names:
            raise ConfigError(f"{self.images[0]}: a video has RGB frames: expected a model of RGB, found {self.model}")
        try:
            summary = predict_clip(
                Augmented(model) if self.tta else model,
                Path(self.images[0]),
                self.out,
                every=self.every,
                tracker=Tracker if self.tracker == "masks" else BoxTracker,
                draw=self.draw,
                min_score=0.5 if self.min_score is None else self.min_score,
                batch_size=self.batch_size,
                track=lambda frames, total: track(frames, "predict", total),
            )
        except KeyboardInterrupt:
            held = f"{self.out / 'predictions.json'} and tracks.csv beside it hold the frames that were finished"
            print(f"interrupted: {held}, if any was", file=sys.stderr)
            return 130
        if self.json:
            print_json({**asdict(summary), "precision": model.precision})
        else:
            found = f"{counted(summary.tracks, 'track')} in {counted(summary.frames, 'frame')}"
            lines = [f"{found}: {summary.results}, {summary.table}"]
            if summary.video:
                lines.append(f"video: {summary.video}")
            console(stderr=False).print("\n".join([*lines, *self.computing.choice(model)]))
        return fail(summary.fault) if summary.fault else 0


def each_of(*takers: Keep | None) -> Keep:
    """What gives the objects of an image to each of the takers that are there."""

    def keep(image_id: int | str, file: Path, found: Instances) -> None:
        for taker in takers:
            if taker is not None:
                taker(image_id, file, found)

    return keep


def _in_data_set(files: list[Path], data: Path, hints: Hints) -> tuple[list[Path], list[int | str]]:
    """The files and their image ids in a data set; all images of the data set if no file is given.

    Raises:
        DataError: the data set cannot be used, a file is not one of its images, or several files are the same one.
    """
    from maskrcnn.data.formats import read_dataset
    from maskrcnn.structures.image_names import ImageNames

    dataset = read_dataset(data, hints=hints)
    for problem in dataset.problems:
        print(f"left out: {problem}", file=sys.stderr)
    records = dataset.records
    if not files:
        say_found(dataset)
        return [record.path for record in records], [record.image_id for record in records]
    names = ImageNames(records)
    of_ids: dict[int | str, Path] = {}
    for file in files:
        ids = names.match(str(file)).ids
        if len(ids) != 1:
            raise DataError(f"{file}: expected the name of one image of {data}, found {len(ids)} images with that name")
        other = of_ids.setdefault(ids[0], file)
        if other != file:
            raise DataError(f"{file}: expected one file for each image of {data}, and {other} has the same name")
    say_found(dataset)
    return files, list(of_ids)


# What --help shows of these; --help-all shows every flag.
SHORT_HELP: dict[type, tuple[str, ...]] = {
    Predict: (
        *("images", "model", "out", "data", "draw", "table", "min_score"),
        *("batch_size", "tta", "tiles", "strict", "json", "help_all"),
    ),
    Hints: (),
    Opening: (),
    Saving: ("save",),
    Sharding: ("parquet", "workers"),
    Computing: ("precision", "threads"),
}


def parse(argv: Sequence[str]) -> Predict:
    command: Predict = parse_flags(Predict, "maskrcnn predict", argv, hidden=short_help(SHORT_HELP, argv))
    return command
