"""`maskrcnn export`: a model as one ONNX file, an OpenVINO folder, or a package of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from maskrcnn.cli.calibrating import Calibrating
from maskrcnn.cli.flags import Flag, Flags, parse_flags
from maskrcnn.cli.opening import Opening


@dataclass(frozen=True)
class Export:
    """Write a model for engines without Python: images of any size and batch, with suppression and masks inside.

    The file is compared with PyTorch before it gets its name. docs/export.md describes its inputs and outputs.
    """

    out: tyro.conf.Positional[Path]
    """File to write; with --format openvino a folder."""
    model: str
    """Model file, checkpoint of another framework, URL, or a name in `maskrcnn weights list`."""
    format: Literal["onnx", "openvino", "torch"] = "onnx"
    """onnx: one file, for ONNX Runtime and OpenVINO. openvino: a folder of model.xml and model.bin. torch: a package of
    PyTorch (.pt2), machine code for processors like this one, for libtorch and `bench predict --backend
    torch-package`."""
    masks: Literal["runs", "probs", "dense"] | None = None
    """The masks that the network returns. probs: only probabilities inside each box, usually 28 by 28, the one choice
    of --format torch. runs: also whole masks as run lengths, the default of the other formats. dense: also whole masks
    as images of 0 and 1."""
    with_resize: Flag = False
    """The graph takes one image (H, W, 3) uint8 of any size, and resizes it as PyTorch does."""
    calibrating: Annotated[Calibrating, Flags] = field(default_factory=Calibrating)
    opening: Annotated[Opening, Flags] = field(default_factory=Opening)
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from maskrcnn.cli.output import console, print_json

        self.calibrating.require_sense()
        from maskrcnn.export.int8 import gains_no_speed
        from maskrcnn.export.limits import require_exportable
        from maskrcnn.export.save import export_model, require_packages, require_writable
        from maskrcnn.predict import Predictor, TorchBackend

        require_writable(self.out, self.format, self.model, self.opening.config, self.calibrating.data)
        network, config, provenance = self.opening.network(self.model)
        int8_wanted = self.calibrating.precision == "int8"
        require_exportable(config, self.format, self.masks, resize=self.with_resize, int8=int8_wanted)
        require_packages(self.format, int8=int8_wanted)
        if int8_wanted and self.format == "onnx" and gains_no_speed(network):
            console(stderr=True).print(
                f"{self.out}: note: ONNX Runtime computes models with group norm in int8 no faster than in fp32; "
                "int8 saves only space there, and OpenVINO gains speed from it: --format openvino"
            )
        int8 = self.calibrating.start(Predictor(TorchBackend(network), config))
        console(stderr=True).print(f"{self.out}: writing it and comparing it with PyTorch takes a minute or more")
        found = export_model(
            network,
            config,
            provenance,
            self.out,
            self.format,
            masks=self.masks,
            resize=self.with_resize,
            calibration=None if int8 is None else int8.calibration,
        )
        if self.json:
            said = {"out": self.out, "format": self.format, **found._asdict()}
            print_json(said if int8 is None else {**said, "int8": int8.to_dict()})
            return 0
        compared = (
            f"{found.objects} objects in generated images agree with PyTorch's within {found.box_px:.4f} px and a "
            f"score of {found.score:.1e}"
        )
        if not found.objects:
            compared = (
                "neither it nor PyTorch finds an object in generated images; compare the two on your data: "
                f"maskrcnn evaluate --model {self.out} --data DATA"
            )
        console(stderr=False).print(f"{self.out}: {compared}")
        if int8 is not None:
            console(stderr=False).print(int8.text(self.out))
        return 0


def parse(argv: Sequence[str]) -> Export:
    command: Export = parse_flags(Export, "maskrcnn export", argv)
    return command
