"""Settings of the benchmarks, which are also the flags of `maskrcnn bench`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskrcnn.errors import ConfigError

MIN_SIDE = 32  # pixels of an image: below it the deepest feature map is empty
MIN_SAMPLE_SIDE = 128  # pixels; in smaller samples, masks have too few pixels to agree after rounding


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def _require_positive(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        _require(1 <= value < 1 << 31, f"--{name.replace('_', '-')} must be 1 or more and below 2^31, found {value}")


@dataclass(frozen=True)
class Timing:
    """How often and on which device both sides are timed."""

    rounds: int = 10
    """Timed rounds. Each times both sides once, and they take turns at going first."""
    warmup: int = 1
    """Rounds before the timed ones."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of both sides; bf16 uses autocast."""
    compile: bool = False
    """Compile our side; give more --warmup with it."""
    device: str | None = None
    """cpu, cuda or cuda:N; default: the first GPU, or else the CPU."""
    memory: bool = True
    """Also measure the memory that each side needs."""

    def __post_init__(self) -> None:
        _require(self.rounds >= 1, f"--rounds must be 1 or more, found {self.rounds}")
        _require(self.warmup >= 0, f"--warmup must not be negative, found {self.warmup}")


@dataclass(frozen=True)
class PredictSettings:
    """The images, and the settings of detection."""

    size: tuple[int, int] = (480, 640)
    """Height and width of the generated images."""
    count: int = 4
    """Number of generated images; with --int8, 8 if you ask for fewer."""
    short_side: int = 800
    """Shorter side of the network input."""
    long_side: int = 1333
    """Longer side of the network input, at most."""
    batch_size: int = 1
    """Images that pass through the network together."""
    detections: int = 100
    """Detections in an image, at most."""
    score_threshold: float = 0.5
    """Minimum score of a detection. The random weights give about 360 boxes per image above 0.5."""
    backend: Literal["torch", "onnx", "openvino", "torch-package"] = "torch"
    """What computes our side: PyTorch, or the exported network in ONNX Runtime, in OpenVINO, or as a package of PyTorch
    (`maskrcnn export --format torch`)."""
    int8: bool = False
    """Our exported network multiplies numbers of 8 bits, calibrated on the images. torchvision's stays in fp32."""
    threads: int | None = None
    """Threads of both sides on the CPU; default: as many as PyTorch chooses."""

    def __post_init__(self) -> None:
        _require_positive(self, "count", "batch_size", "detections", *(["threads"] if self.threads is not None else []))
        _require(
            min(*self.size, self.short_side) >= MIN_SIDE,
            f"images need {MIN_SIDE} or more pixels a side, found --size {self.size[0]} {self.size[1]} "
            f"and --short-side {self.short_side}",
        )
        _require(
            self.short_side <= self.long_side,
            f"--short-side must not exceed --long-side, found {self.short_side} and {self.long_side}",
        )
        _require(0 <= self.score_threshold < 1, f"--score-threshold must lie in 0..1, found {self.score_threshold}")


def require_engine(settings: PredictSettings, timing: Timing) -> None:
    """Refuses what the engine of an exported network does not do, before the network is exported.

    Raises:
        ConfigError: names the flag.
    """
    _require(
        not settings.int8 or (settings.backend in ("onnx", "openvino") and timing.precision == "fp32"),
        f"--int8 needs --backend onnx or openvino, and --precision fp32 for torchvision's side; found --backend "
        f"{settings.backend} and --precision {timing.precision}",
    )
    if settings.backend == "torch":
        return
    _require(not timing.compile, f"--compile belongs to --backend torch, found --backend {settings.backend}")
    _require(
        timing.device in (None, "cpu"),
        f"--backend {settings.backend} runs on the CPU, found --device {timing.device}: choose --device cpu",
    )
    _require(
        settings.backend == "openvino" or timing.precision == "fp32",
        f"--backend {settings.backend} computes in fp32, found --precision {timing.precision}: "
        "choose --backend openvino for it",
    )


@dataclass(frozen=True)
class TrainSettings:
    """The batch of a step."""

    batch_size: int = 4
    """Generated images in a step."""
    size: int = 256
    """Side of the images in pixels. They are not resized."""

    def __post_init__(self) -> None:
        _require_positive(self, "batch_size")
        _require(
            self.size >= 2 * MIN_SIDE and self.size % MIN_SIDE == 0,
            f"--size must be a multiple of {MIN_SIDE} from {2 * MIN_SIDE} on, found {self.size}",
        )


@dataclass(frozen=True)
class KernelSettings:
    """Sizes of the random input."""

    boxes: int = 1000
    """Boxes for RoIAlign, and for each of the five levels of non-maximum suppression."""
    channels: int = 256
    """Channels of the feature map."""
    map_size: tuple[int, int] = (200, 272)
    """Height and width of the feature map."""
    masks: int = 300
    """Masks to encode."""
    image_size: tuple[int, int] = (3000, 4000)
    """Height and width of the image that the masks lie in."""

    def __post_init__(self) -> None:
        _require_positive(self, "boxes", "channels", "masks")
        for name in ("map_size", "image_size"):
            height, width = getattr(self, name)
            _require(
                min(height, width) >= MIN_SIDE,
                f"--{name.replace('_', '-')} needs {MIN_SIDE} or more a side, found {height} {width}",
            )


@dataclass(frozen=True)
class LoaderSettings:
    """Samples with large scale jitter: scaled by 0.1 to 2, cropped and padded, flipped."""

    size: int = 1024
    """Side of a sample in pixels."""
    batch_size: int = 8
    """Samples per round; each round has new ones."""
    count: int = 32
    """Number of generated images, if --data is not given."""
    workers: int = 2
    """Worker processes whose memory is measured."""
    annotations: int = 5_000
    """Memory is measured with at least this many annotations, and with four times as many, by repeating the data."""

    def __post_init__(self) -> None:
        _require_positive(self, "batch_size", "count", "workers", "annotations")
        _require(self.size >= MIN_SAMPLE_SIDE, f"--size must be {MIN_SAMPLE_SIDE} or more, found {self.size}")


@dataclass(frozen=True)
class ServeSettings:
    """The load on the server, and how it computes."""

    clients: int = 64
    """Clients that ask at the same time, each again and again."""
    seconds: float = 60.0
    """Seconds of load. Direct prediction is measured for a fifth of it before, and again after it."""
    queue: int = 32
    """As in `maskrcnn serve`."""
    processes: int = 1
    """As in `maskrcnn serve`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the network."""
    threads: int | None = None
    """Threads of the network on the CPU."""
    count: int = 8
    """Number of generated images."""
    size: tuple[int, int] = (480, 640)
    """Height and width of the generated images."""

    def __post_init__(self) -> None:
        _require_positive(self, "clients", "queue", "processes", "count")
        _require(1 <= self.seconds < 1 << 31, f"--seconds must be 1 or more and below 2^31, found {self.seconds}")
        _require(
            min(self.size) >= MIN_SIDE, f"--size needs {MIN_SIDE} or more a side, found {self.size[0]} {self.size[1]}"
        )
