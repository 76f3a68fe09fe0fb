"""The settings of the server. They are flags of `maskrcnn serve`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from maskrcnn.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """What the server accepts, and how long it works on it."""

    queue: int = 32
    """Requests of one model that wait or are computed. Beyond them the answer is 503."""
    timeout: float = 60.0
    """Seconds for a request to arrive (408 beyond), and again for its answer to be computed (504 beyond)."""
    max_megabytes: float = 32.0
    """Size of a request. Beyond it the answer is 413."""
    max_megapixels: float = 50.0
    """Size of an image, read before it is decoded. Beyond it the answer is 413."""
    batch_size: int = 1
    """Images that pass through the network together, which helps on a GPU."""
    max_wait: float = 0.005
    """With --batch-size: seconds to wait for more images when there is nothing to compute."""
    drain_delay: float = 5.0
    """Seconds after SIGTERM in which requests are still accepted, because load balancers need some to notice."""
    drain_timeout: float = 30.0
    """Seconds for the accepted requests to be answered after that."""

    def __post_init__(self) -> None:
        for name, least in (("queue", 1), ("batch_size", 1), ("max_wait", 0), ("drain_delay", 0)):
            self._require(name, getattr(self, name) >= least, f"{least} or more")
        for name in ("timeout", "max_megabytes", "max_megapixels", "drain_timeout"):
            self._require(name, getattr(self, name) > 0, "more than 0")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        value = getattr(self, name)
        if not holds or not math.isfinite(value):
            raise ConfigError(f"--{name.replace('_', '-')}: expected {expected}, found {value}")

    @property
    def max_bytes(self) -> int:
        return int(self.max_megabytes * 1e6)

    @property
    def max_pixels(self) -> int:
        return int(self.max_megapixels * 1e6)


@dataclass(frozen=True)
class Labelling:
    """How labelling tools are served."""

    label_studio: str | None = None
    """Address of Label Studio, such as http://localhost:8080, whose images may be fetched. Its token comes from the
    variable LABEL_STUDIO_API_KEY."""
    image_hosts: tuple[str, ...] = ()
    """Other hosts from which images of tasks may be fetched, as name or name:port."""
    proposal_score: float | None = None
    """Labelling tools get objects with at least this score, where they name none; default: the thresholds of the
    model, as in `maskrcnn predict`."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.label_studio or "http://host")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--label-studio: expected an address such as http://host:8080, found {self.label_studio}"
            )
        if self.proposal_score is not None and not 0 <= self.proposal_score <= 1:
            raise ConfigError(f"--proposal-score: expected 0 to 1, found {self.proposal_score}")

    def least(self, thresholds: Sequence[float]) -> float | Sequence[float]:
        """The score from which on objects of a model with these thresholds are proposed."""
        return thresholds if self.proposal_score is None else self.proposal_score
