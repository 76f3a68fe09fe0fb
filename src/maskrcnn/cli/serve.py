"""`maskrcnn serve`: a model behind an HTTP address."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskrcnn.cli.flags import Flags, parse_flags
from maskrcnn.cli.opening import Computing, Opening
from maskrcnn.errors import ConfigError, MissingPackageError
from maskrcnn.serve.settings import Labelling, Limits
from maskrcnn.threads import threads_of_each

if TYPE_CHECKING:
    from maskrcnn.serve.engine import Crew

TOKEN_VARIABLE = "MASKRCNN_TOKEN"


@dataclass(frozen=True)
class Serve:
    """Answer requests for the objects of images over HTTP:

    maskrcnn serve --model runs/x/model.safetensors, then curl --data-binary @street.jpg localhost:8000/v1/predict
    """

    model: tuple[str, ...]
    """Model file, checkpoint of another framework, URL, or a name in `maskrcnn weights list`; several as name=file."""
    opening: Annotated[Opening, Flags] = field(default_factory=Opening)
    limits: Annotated[Limits, Flags] = field(default_factory=Limits)
    labelling: Annotated[Labelling, Flags] = field(default_factory=Labelling)
    processes: int = 1
    """Processes that compute each model, behind one address and one queue. The cores are divided among them."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 for requests from other machines."""
    port: int = 8000
    """Port to listen at; 0 for a free one."""
    token_file: Path | None = None
    """File with the token that requests must carry (Authorization: Bearer). Default: the variable MASKRCNN_TOKEN."""
    computing: Annotated[Computing, Flags] = field(default_factory=Computing)

    def run(self) -> int:
        if self.processes < 1:
            raise ConfigError(f"--processes: expected 1 or more, found {self.processes}")
        named = models_by_name(self.model)
        token = read_token(self.token_file)
        try:
            from maskrcnn.serve.app import build_app
            from maskrcnn.serve.server import listen, run_app
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"serve needs {error.name}: pip install 'maskrcnn[serve]'") from None

        with listen(self.host, self.port) as listener:
            crews = {name: self.crew(file) for name, file in named.items()}
            run_app(build_app(crews, self.limits, token, self.labelling), listener, self.limits)
        return 0

    def crew(self, file: str) -> Crew:
        """The model in a file, and who computes it."""
        from maskrcnn.serve.engine import InThread
        from maskrcnn.serve.processes import Processes

        if self.processes == 1:
            return InThread(self.opening.load(file, self.computing))
        threads = self.computing.threads or threads_of_each(self.processes)
        open_model = partial(self.opening.load, file, replace(self.computing, threads=threads))
        return Processes(open_model, self.processes, self.limits.batch_size)


def models_by_name(given: Sequence[str]) -> dict[str, str]:
    """The files by name. A file without a name gets that of its stem.

    Raises:
        ConfigError: there is no model, or two have one name.
    """
    if not given:
        raise ConfigError("--model: expected one or more models, found none")
    named: dict[str, str] = {}
    for text in given:
        found = None if os.path.exists(text) else re.fullmatch(r"([\w.-]+)=(.+)", text)
        name, file = found.groups() if found else (re.sub(r"[^\w.-]+", "_", Path(text).stem), text)
        if name in named:
            raise ConfigError(f"--model: {named[name]} and {file} are both named {name}; give name=file for each")
        named[name] = file
    return named


def read_token(path: Path | None) -> str | None:
    """The token in a file or in MASKRCNN_TOKEN, without the white space around it; None without both.

    Raises:
        ConfigError: the file cannot be read, or the token is empty or not of printable ASCII characters.
    """
    if path is None:
        token, where = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    else:
        where = str(path)
        try:
            token = path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: expected a file with a token, found none ({error})") from None
    if token is None:
        return None
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(f"{where}: expected a token of printable ASCII characters without spaces, found another text")
    return token


def parse(argv: Sequence[str]) -> Serve:
    command: Serve = parse_flags(Serve, "maskrcnn serve", argv)
    return command
