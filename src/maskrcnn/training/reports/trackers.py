"""Programs that show runs: TensorBoard, MLflow, and Weights & Biases. Each is an extra of this package."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from maskrcnn.config import Config, config_to_dict
from maskrcnn.errors import TrainingError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.training.reports.reporters import RunTracker


class TensorBoard(RunTracker):
    """Event files in the folder `tensorboard` of the run."""

    package, extra = "tensorboard", "logs"

    def begin(self, config: Config, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard hides what an interrupted run has written after the step from which it is resumed.
        self._writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=step + 1 if step else None)
        settings = json.dumps(config_to_dict(config), indent=1).splitlines()
        self._writer.add_text("settings", "\n".join(f"    {line}" for line in settings), step)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self) -> None:
        self._writer.close()


class MLflow(RunTracker):
    """A run on the server, or in the folder, that MLFLOW_TRACKING_URI names, in the experiment MLFLOW_EXPERIMENT_NAME.

    Its id is kept in `mlflow_run.txt` beside the checkpoint, so that a resumed run continues it.
    """

    package, extra = "mlflow", "mlflow"

    def begin(self, config: Config, step: int) -> None:
        import mlflow
        from mlflow.exceptions import MlflowException

        with _in_one_line(MlflowException, "mlflow", "look at MLFLOW_TRACKING_URI"):
            self._client = mlflow.MlflowClient()
            known = self.out / "mlflow_run.txt"
            if step and known.is_file():
                self._run = known.read_text(encoding="utf-8").strip()
                self._client.update_run(self._run, "RUNNING")
            else:
                experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "maskrcnn"))
                self._run = self._client.create_run(experiment.experiment_id, run_name=self.out.name).info.run_id
                _keep(known, self._run)
            self._client.log_dict(self._run, config_to_dict(config), "settings.json")

    def write(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        metrics = [Metric(_plain(name), float(value), now, step) for name, value in figures.items()]
        with _in_one_line(MlflowException, "mlflow", "look at MLFLOW_TRACKING_URI"):
            for first in range(0, len(metrics), 1000):  # as many as MLflow takes at once
                self._client.log_batch(self._run, metrics[first : first + 1000])

    def end(self) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):  # a server that is lost was named before, and hides no other error
            self._client.set_terminated(self._run)


def _plain(name: str) -> str:
    """A name with the characters that MLflow allows. Names of categories may hold others."""
    return re.sub(r"[^\w\-. /]", "_", name)


class WandB(RunTracker):
    """A run of Weights & Biases, with the folder's name. WANDB_PROJECT, WANDB_MODE and its other variables hold.

    Its files are in the folder `wandb` of the run, or of WANDB_DIR. Its id is kept in `wandb_run.txt` beside the
    checkpoint, so that a resumed run continues it.
    """

    package, extra = "wandb", "wandb"

    def begin(self, config: Config, step: int) -> None:
        import wandb

        known = self.out / "wandb_run.txt"
        given = known.read_text(encoding="utf-8").strip() if step and known.is_file() else None
        resume: Literal["allow"] | None = "allow" if given else None
        with _in_one_line(wandb.Error, "wandb", "call `wandb login`, or set WANDB_MODE=offline"):
            self._run = wandb.init(
                name=self.out.name,
                dir=os.environ.get("WANDB_DIR", self.out),
                id=given,
                resume=resume,
                config=config_to_dict(config),
            )
        _keep(known, self._run.id)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def end(self) -> None:
        self._run.finish()


@contextmanager
def _in_one_line(errors: type[Exception], name: str, advice: str) -> Iterator[None]:
    """Turns the errors of another program into one of ours."""
    try:
        yield
    except errors as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{name} cannot be told about the run ({reason}); {advice}") from error


def _keep(path: Path, run: str) -> None:
    """Keeps the id of a run for when it is resumed."""
    with atomic_write(path) as temporary:
        temporary.write_text(f"{run}\n", encoding="utf-8")


TRACKERS: dict[str, Callable[[Path], RunTracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
