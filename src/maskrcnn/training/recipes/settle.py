"""The settings and data of a run before its network is built, from a recipe, data, weights and a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from maskrcnn.config import Config, differing_settings, with_settings
from maskrcnn.data.channels import measured_channels
from maskrcnn.data.editing.copies import copies
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.learnable import require_examples, with_files
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.evaluation.truth import require_objects
from maskrcnn.files.progress import track
from maskrcnn.structures.classes import match_categories
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import SavedRun
from maskrcnn.training.recipes.automatic import Start
from maskrcnn.training.recipes.budget import NOT_YET
from maskrcnn.training.recipes.hardware import Hardware, this_machine
from maskrcnn.training.recipes.hold_out import FEWEST, hold_out
from maskrcnn.training.recipes.recipe import Plan, Recipe, plan
from maskrcnn.training.world import World
from maskrcnn.weights.initialise import InitialWeights, WeightsFile, with_conventions

MOST_COMPARED = 5000  # images that are read to find equal pictures; more would take minutes


@dataclass(frozen=True)
class Sources:
    """What a run is made of, as `train` is told.

    Attributes:
        data, val, weights, strict, limit: as for `train`.
        saved: the checkpoint of a resumed run.
    """

    data: Dataset | Path | str
    val: Dataset | Path | str | None
    weights: Path | str | WeightsFile | None
    saved: SavedRun | None
    strict: bool
    limit: int | None


@dataclass(frozen=True)
class Settled:
    """The settings and data of a run.

    Attributes:
        initial: the weights that a new run begins from; None for random ones, and for a resumed run.
        plan: what a recipe has chosen; None without a recipe, and for a resumed run.
        from_weights: names of the settings that the weights have brought.
        share_held_out: share of the images that should be held out; 0 if there are validation data.
        budget: seconds of the budget with which the run began; None without one.
    """

    config: Config
    training: Dataset
    validation: Dataset | None
    initial: InitialWeights | None
    plan: Plan | None
    from_weights: Sequence[str]
    share_held_out: float
    budget: float | None


def settle(recipe: Recipe, sources: Sources, world: World) -> Settled:
    """Reads data and weights, and finds the settings of a run.

    Raises:
        ConfigError, DataError, WeightsError: as for `train`.
    """
    saved, machine = sources.saved, this_machine(world)
    if saved is not None and recipe.budget is not None:
        _require_same_budget(saved, recipe.budget)
    initial, name = (None, "") if saved is not None else recipe.read_weights(sources.weights, machine)
    given = _given_settings(recipe, machine, sources, initial)
    config = _with_rules_of_weights(given, sources, initial)
    from_weights = [setting for setting in differing_settings(given, config) if setting != "categories"]
    whole, share = _training_data(sources), _share_held_out(recipe, sources)
    pairs = world.from_leader(lambda: copies(whole) if share and FEWEST <= len(whole) <= MOST_COMPARED else [])
    dataset, validation = hold_out(whole, share, config.train.seed, pairs)
    made = None
    budget = saved.budget if saved is not None and recipe.budget is None else recipe.budget
    if (recipe.name != "none" or budget is not None) and saved is None:
        require_examples(dataset, masks=False)
        start: Start = "random" if initial is None else "detector" if initial.whole else "backbone"
        made = world.from_leader(lambda: plan(recipe, config, dataset, machine, name, start))
        config = made.config
    if budget is not None and (saved is None or "train.steps" not in recipe.given):
        steps = NOT_YET if saved is None else saved.config.train.steps  # known, or still to be found
        config = replace(config, train=replace(config.train, steps=steps))
    config = _for_categories(config, dataset)
    if sources.val is not None:
        own = sources.val
        validation = own if isinstance(own, Dataset) else read_dataset(own, strict=sources.strict)
    if validation is not None:
        validation = _usable_validation(validation, config, strict=sources.strict)
    config = _with_channels(config, dataset, saved)
    return Settled(config, dataset, validation, initial, made, from_weights, share, budget)


def _require_same_budget(saved: SavedRun, budget: float) -> None:
    """Raises ConfigError for another budget than that to which the steps of a resumed run were fitted."""
    if saved.progress.budget is None and saved.budget != budget:
        own = "without a budget" if saved.budget is None else f"with a budget of {saved.budget:g} s"
        raise ConfigError(
            f"{saved.path}: expected no --budget, or that of the run, found {budget:g} s: the run began {own}, and its "
            f"{saved.config.train.steps} steps are fixed; --train.steps N trains longer"
        )


def _given_settings(recipe: Recipe, machine: Hardware, sources: Sources, initial: InitialWeights | None) -> Config:
    """The settings that a recipe starts from with those that a person has given; for a resumed run those of the run."""
    if sources.saved is not None and recipe.name != "none":
        return with_settings(sources.saved.config, recipe.given)
    config = recipe.start(machine)
    if recipe.base is None and initial is not None and initial.backbone is not None:
        config = replace(config, model=replace(config.model, backbone=initial.backbone))
    return with_settings(config, recipe.given)


def _with_rules_of_weights(given: Config, sources: Sources, initial: InitialWeights | None) -> Config:
    """The settings with those that the weights bring."""
    if sources.saved is not None:  # the settings of the run include those of the weights
        return given if sources.weights is None else with_conventions(given, sources.saved.config)
    return given if initial is None else initial.with_conventions(given)


def _share_held_out(recipe: Recipe, sources: Sources) -> float:
    """The share of the images to hold out. A resumed run holds out what it held out before, unless told otherwise."""
    if sources.val is not None:
        return 0.0
    if sources.saved is not None and recipe.hold_out is None:
        return sources.saved.share_held_out
    return recipe.share_held_out


def _training_data(sources: Sources) -> Dataset:
    """The images whose files are there, up to the limit.

    Raises:
        ConfigError: the limit is below 1.
        DataError: there are no images.
    """
    data, limit = sources.data, sources.limit
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: expected 1 image or more to train on, found {limit}")
    dataset = data if isinstance(data, Dataset) else read_dataset(data, strict=sources.strict)
    if limit is not None:
        dataset = dataset.subset(range(min(limit, len(dataset))))
    if len(dataset) == 0:
        raise DataError(f"{dataset.path}: no images to train on")
    return with_files(dataset, strict=sources.strict)


def _for_categories(config: Config, dataset: Dataset) -> Config:
    """The config with the classes, names and numbers of keypoints of the training data.

    Raises:
        DataError: there is nothing to learn for a head.
    """
    require_examples(dataset, masks=config.model.mask_head is not None)
    model = replace(config.model, num_classes=len(dataset.categories))
    conventions = config.conventions
    if dataset.categories != config.categories:
        conventions = replace(conventions, detections=replace(conventions.detections, unused_classes=0))
    if model.keypoint_head is not None:
        model = replace(model, keypoint_head=replace(model.keypoint_head, num_keypoints=_keypoint_count(dataset)))
    return replace(config, model=model, conventions=conventions, categories=dataset.categories)


def _usable_validation(validation: Dataset, config: Config, *, strict: bool) -> Dataset:
    """The validation data with the categories of the training data. Raises DataError if they cannot judge."""
    todo = "rename or renumber the classes of one of them"
    validation = match_categories(config.categories, validation, "the training data", todo)
    validation = with_files(validation, strict=strict)
    require_objects(validation)
    if config.model.keypoint_head is not None:
        _keypoint_count(validation)
    return validation


def _keypoint_count(dataset: Dataset) -> int:
    """The number of keypoints of an object. Raises DataError if there are none, or if categories differ in it."""
    counts = {len(category.keypoints): category.name for category in dataset.categories if category.keypoints}
    if not counts:
        raise DataError(
            f"{dataset.path}: model.keypoint_head needs keypoints, and no category names any; use annotations with "
            "keypoints (COCO's person_keypoints_*.json) or a preset without them"
        )
    if len(counts) > 1:
        listed = " and ".join(f"{count} of {name}" for count, name in counts.items())
        raise DataError(
            f"{dataset.path}: expected the same number of keypoints in every category that has some, found {listed}; "
            "the network predicts the same number for every class"
        )
    return next(iter(counts))


def _with_channels(config: Config, dataset: Dataset, saved: SavedRun | None) -> Config:
    """The config with measured channels. Those of the saved run stay, unless others are asked for."""
    names = config.image.channel_names
    if saved is not None and names in ((), saved.config.image.channel_names):
        return replace(config, image=replace(config.image, channels=saved.config.image.channels))
    measured = measured_channels(config.image, dataset, lambda images, total: track(images, "channels", total))
    return replace(config, image=measured)
