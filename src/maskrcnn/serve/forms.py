"""Forms (multipart/form-data) that are already in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from maskrcnn.serve.problems import RefusalError

MOST_PARTS = 20


@dataclass
class Part:
    """One field of a form: a file if its header has a filename, else a text."""

    header: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)

    @property
    def disposition(self) -> dict[bytes, bytes]:
        return parse_options_header(self.header.get(b"content-disposition", b"").decode("latin-1"))[1]

    @property
    def name(self) -> str:
        return self.disposition.get(b"name", b"").decode("utf-8", "replace")

    @property
    def is_file(self) -> bool:
        return b"filename" in self.disposition


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """The parts of a form.

    Raises:
        RefusalError: 400 for a form that is malformed or cut off, or has more than `MOST_PARTS` parts.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RefusalError(400, "expected a form of the type multipart/form-data with a boundary")
    reader = _Reader()
    try:
        MultipartParser(options[b"boundary"], reader.callbacks()).write(body)  # type: ignore[arg-type]
    except FormParserError as error:
        raise RefusalError(400, f"the form is malformed ({error})") from None
    if not reader.ended:
        raise RefusalError(400, "the form is cut off: expected its closing boundary")
    return reader.parts


class _Reader:
    """Collects what the parser calls out."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._name, self._value = bytearray(), bytearray()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, stop: self.parts[-1].data.extend(data[start:stop]),
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, stop: self._name.extend(data[start:stop]),
            "on_header_value": lambda data, start, stop: self._value.extend(data[start:stop]),
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) == MOST_PARTS:
            raise RefusalError(400, f"expected a form of up to {MOST_PARTS} parts, found more")
        self.parts.append(Part())

    def _begin_header(self) -> None:
        self._name, self._value = bytearray(), bytearray()

    def _end_header(self) -> None:
        self.parts[-1].header[bytes(self._name).lower()] = bytes(self._value)

    def _end(self) -> None:
        self.ended = True
