"""The flags of all commands that open a model: how its file is read, and how its network computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maskrcnn.cli.flags import AllowPartial, ConfigFile, Flag, Part
from maskrcnn.config import Precision

if TYPE_CHECKING:
    from maskrcnn.config import Config
    from maskrcnn.models.mask_rcnn import MaskRCNN
    from maskrcnn.predict import Predictor


@dataclass(frozen=True)
class Computing:
    """How the network computes."""

    precision: Precision = "auto"
    """Precision of the network. auto: bf16 where it is faster, else fp32, which gives the exact results."""
    compile: Flag = False
    """Compile the network. This takes minutes and saves time on a GPU after some hundred images."""
    threads: int | None = None
    """Threads of the network on the CPU; default: one for each core."""

    def choice(self, model: Predictor) -> list[str]:
        """A line about the precision if `auto` has chosen another one than fp32, in which results differ a little."""
        if self.precision != "auto" or model.precision == "fp32":
            return []
        return [
            f"precision: {model.precision}, which is faster on this machine; --precision fp32 gives the exact results"
        ]


@dataclass(frozen=True)
class Opening:
    """How a file of weights is opened. What the import of another framework's file assumes is printed."""

    config: ConfigFile = None
    allow_partial: AllowPartial = False
    part: Part = None

    def load(self, source: str, computing: Computing) -> Predictor:
        """As `maskrcnn.load`."""
        from maskrcnn.cli.output import say_assumptions

        model = self.load_silently(source, computing)
        say_assumptions(model.provenance, source)
        return model

    def load_silently(self, source: str, computing: Computing) -> Predictor:
        """As `maskrcnn.load`, in a process that is not the first one to open this file."""
        from maskrcnn.predict import load

        return load(
            source,
            config_file=self.config,
            allow_partial=self.allow_partial,
            part=self.part,
            precision=computing.precision,
            compile=computing.compile,
            threads=computing.threads,
        )

    def network(self, source: str) -> tuple[MaskRCNN, Config, dict[str, Any]]:
        """As `open_weights`."""
        from maskrcnn.cli.output import say_assumptions
        from maskrcnn.weights.open import open_weights

        network, config, provenance = open_weights(
            source, self.config, allow_partial=self.allow_partial, part=self.part
        )
        say_assumptions(provenance, source)
        return network, config, provenance
