"""`maskrcnn weights inspect`, `convert` and `list`: models of other frameworks, and published ones by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from maskrcnn.cli.flags import ConfigFile, Flag, Flags, Part, parse_flags
from maskrcnn.cli.opening import Opening
from maskrcnn.errors import MaskRCNNError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from maskrcnn.config import Config
    from maskrcnn.weights.frameworks.importer import Exporter

OURS = "maskrcnn"  # the framework of our own model files
IMPORTED = ("model.", "image.", "conventions.")  # parts of the config that a checkpoint determines


@dataclass(frozen=True)
class Inspect:
    """Show what a weights file holds, which model it gives, and what was assumed.

    Missing and unexpected tensors are listed.
    """

    file: tyro.conf.Positional[str]
    """A file, a URL, or a name in `maskrcnn weights list`."""
    config: ConfigFile = None
    part: Part = None
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.config import config_to_dict
        from maskrcnn.files.checkpoint import read_checkpoint
        from maskrcnn.weights.named import local_file
        from maskrcnn.weights.open import detector_in

        path = local_file(self.file)
        checkpoint = read_checkpoint(path, self.part)
        values = sum(value.numel() for value in checkpoint.tensors.values())
        facts: dict[str, Any] = {
            "file": path,
            "container": checkpoint.container,
            "tensors": len(checkpoint.tensors),
            "values": values,
            "beside": sorted(checkpoint.extra),
            "dropped": checkpoint.dropped,
        }
        config, problem = None, ""
        try:
            saved = detector_in(checkpoint, path, self.config, allow_partial=True)
            saved.network()  # raises an error if the tensors do not fit
            config, provenance = saved.config, saved.provenance
            facts |= {"framework": provenance.get("framework", OURS), "model": in_words(config)}
            facts |= {name: provenance.get(name, []) for name in ("assumed", "new", "unused")}
        except MaskRCNNError as error:
            problem = str(error)
        if self.json:
            settings = {} if config is None else {"config": config_to_dict(config)}
            print_json({**facts, **settings, "problem": problem or None})
        else:
            say = console(stderr=False).print
            say(f"{path}: {checkpoint.container}, {len(checkpoint.tensors)} tensors, {values / 1e6:.1f} M values")
            for line in [] if config is None else report(facts, config):
                say(line)
        return fail(problem) if problem else 0


@dataclass(frozen=True)
class Convert:
    """Convert a checkpoint of another framework to a model file, or a model to another framework."""

    file: tyro.conf.Positional[str]
    """A file, a URL, or a name in `maskrcnn weights list`."""
    out: tyro.conf.Positional[Path]
    """File to write: a model file (.safetensors), or with --to a .pth of tensors by name."""
    to: str = OURS
    """Framework to write for: maskrcnn, torchvision, detectron2, mmdetection."""
    half: Flag = False
    """Store a model file's numbers as float16: half the size. The network computes with them as before."""
    opening: Annotated[Opening, Flags] = field(default_factory=Opening)
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.files.atomic import check_file
        from maskrcnn.weights.model_file import save_model
        from maskrcnn.weights.open import EXPORTERS

        exporters = {exporter.name: exporter for exporter in EXPORTERS}
        if self.to not in (OURS, *exporters):
            raise WeightsError(f"--to {self.to}: expected one of {', '.join((OURS, *exporters))}")
        if self.to == OURS and self.out.suffix != ".safetensors":
            raise WeightsError(
                f"{self.out}: expected .safetensors, the ending of a model file; change it or choose --to"
            )
        if self.half and self.to != OURS:
            raise WeightsError(f"--half belongs to model files of this package: leave it out with --to {self.to}")
        check_file(self.out, self.file, self.opening.config)
        network, config, provenance = self.opening.network(self.file)
        rules: dict[str, tuple[Any, Any]] = {}
        if self.to == OURS:
            save_model(self.out, network, config, provenance, half=self.half)
        elif config.image.channels:
            raise WeightsError(
                f"{self.file}: expected a model of RGB for --to {self.to}, found one of the channels "
                f"{', '.join(config.image.channel_names)}, whose stretch {self.to} does not have"
            )
        else:
            state = exporters[self.to].export_state(config, network.state_dict())
            rules = unstored_settings(exporters[self.to], state, config)
            write_tensors(self.out, state)
        for name, (there, here) in rules.items():
            console(stderr=True).print(f"not in the file: {name} is {here!r}, and {self.to}'s default is {there!r}")
        if self.json:
            print_json({"out": self.out, "model": in_words(config), "rules": rules, **provenance})
        else:
            console(stderr=False).print(f"{in_words(config)}: {self.out}")
        return 0


@dataclass(frozen=True)
class List:
    """List the models that ship with the package, and published ones: AP on COCO val2017, size, licence.

    Their names stand for their files.
    """

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Only names that contain all of these: torchvision, keypoint, R_101"""
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.weights.named import named_weights
        from maskrcnn.weights.shipped import SHIPPED, shipped_file

        shipped = {name: what for name, what in SHIPPED.items() if self._asks_for(name)}
        chosen = [entry for entry in named_weights().values() if self._asks_for(entry.name)]
        if not chosen and not shipped:
            raise WeightsError(
                f"no model has {' and '.join(self.words)} in its name; `maskrcnn weights list` shows all"
            )
        if self.json:
            own = {name: {"name": name, "finds": what, "file": shipped_file(name)} for name, what in shipped.items()}
            print_json(own | {entry.name: asdict(entry) for entry in chosen})
            return 0
        for name, what in shipped.items():
            console(stderr=False).print(f"{name}  ships with the package: {what}")
        if not chosen:
            return 0
        width = max((len(entry.name) for entry in chosen), default=4)
        lines = [f"{'name':<{width}}   box  mask  keyp    MB  licence"]
        for entry in chosen:
            figures = "  ".join(
                f"{'-' if value is None else f'{value:.1f}':>4}"
                for value in (entry.box_ap, entry.mask_ap, entry.keypoint_ap)
            )
            size = "-" if entry.megabytes is None else f"{entry.megabytes:.0f}"
            lines.append(f"{entry.name:<{width}}  {figures}  {size:>4}  {entry.licence}")
        console(stderr=False).print("\n".join(lines))
        return 0

    def _asks_for(self, name: str) -> bool:
        return all(word.lower() in name.lower() for word in self.words)


def in_words(config: Config) -> str:
    """A description of the network in one line."""
    model = config.model
    heads = [f"{len(model.box_head.cascade_ious) + 1} box stages"] if model.box_head.cascade_ious else ["boxes"]
    heads += ["masks"] if model.mask_head is not None else []
    heads += [f"{model.keypoint_head.num_keypoints} keypoints"] if model.keypoint_head is not None else []
    return f"{model.backbone.name}, {model.neck}, {model.num_classes} classes, {', '.join(heads)}"


def report(facts: dict[str, Any], config: Config) -> list[str]:
    """Lines about a model: its parts, settings that differ from the defaults, what was assumed, what did not fit."""
    from maskrcnn.config import Config, differing_settings
    from maskrcnn.weights.frameworks.importer import listed

    lines = [f"{facts['framework']}: {facts['model']}"]
    names = [category.name for category in config.categories]
    if names:
        lines.append(f"categories: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}")
    changed = {name: new for name, (_, new) in differing_settings(Config(), config).items()}
    lines += [f"  {name} {value}" for name, value in changed.items() if name.startswith(IMPORTED) and value != ()]
    lines += [f"assumed: {sentence}" for sentence in facts["assumed"]]
    lines += [f"left out: {listed(facts['dropped'])}"] if facts["dropped"] else []
    lines += [f"missing: {name} (our name)" for name in facts["new"]]
    lines += [f"unexpected: {name}" for name in facts["unused"]]
    return lines


def unstored_settings(exporter: Exporter, state: dict[str, Tensor], config: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that an export does not store, each with the default of the framework and the value of the model."""
    from maskrcnn.config import differing_settings
    from maskrcnn.files.checkpoint import Checkpoint

    defaults = exporter.import_checkpoint(Checkpoint("torch", state, {}, ()), None).config
    differing = differing_settings(defaults, config).items()
    return {name: pair for name, pair in differing if name.startswith(IMPORTED)}


def write_tensors(path: Path, state: dict[str, Tensor]) -> None:
    """Writes tensors by name with torch.save."""
    import torch

    from maskrcnn.files.atomic import atomic_write

    with atomic_write(path) as temporary:
        torch.save(state, temporary)


Command = (
    Annotated[Inspect, tyro.conf.subcommand("inspect", prefix_name=False)]
    | Annotated[Convert, tyro.conf.subcommand("convert", prefix_name=False)]
    | Annotated[List, tyro.conf.subcommand("list", prefix_name=False)]
)


def parse(argv: Sequence[str]) -> Inspect | Convert | List:
    command: Inspect | Convert | List = parse_flags(Command, "maskrcnn weights", argv)
    return command
