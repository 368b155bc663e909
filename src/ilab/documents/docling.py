"""PDF (scanned ones too), DOCX and HTML by docling, for those who ask for it: ``document_converter: docling``.

docling finds the layout with neural models and reads pictures by OCR; it needs torch and models that are on the
machine. Nothing is downloaded here: without its models a PDF is refused with the command that fetches them. What
docling does not tell is text that nobody sees.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from ilab.documents.converted import Converted
from ilab.errors import InputError, SetupError

MAX_PAGES = 5_000
MAX_BYTES = 512 * 2**20
_NAMES = ("docling", "docling-slim")  # of the package; the second is the first without its extras
_DOWNLOAD = "docling-tools models download"
_SUFFIXES = {".pdf": "PDF", ".docx": "DOCX", ".html": "HTML", ".htm": "HTML", ".xhtml": "HTML"}


def installed() -> str:
    """The version of docling. Raises ``SetupError`` where there is none."""
    for name in _NAMES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    raise _missing()


def read(data: bytes, name: str) -> Converted:
    """The text of a file as docling reads it, with page starts for PDF. ``name`` tells the format by its suffix.

    Raises ``SetupError`` where docling or its models are not installed, ``InputError`` for a file it cannot read.
    """
    installed()
    try:
        from docling.datamodel.base_models import ConversionStatus, DocumentStream, InputFormat
        from docling.exceptions import BaseError
    except ImportError as error:
        raise _missing() from error
    suffix = PurePosixPath(name).suffix.lower()
    kind = InputFormat[_SUFFIXES[suffix]]
    source = DocumentStream(name=f"document{suffix}", stream=io.BytesIO(data))
    try:
        made = _converter(kind).convert(source, max_num_pages=MAX_PAGES, max_file_size=MAX_BYTES)
    except ImportError as error:
        raise _missing() from error
    except FileNotFoundError as error:
        raise SetupError(f"docling lacks a model: {str(error)[:200]}", hint=_DOWNLOAD) from error
    except (BaseError, RuntimeError, ValueError, OSError, LookupError, TypeError) as error:
        message = f"cannot be read by docling: {str(error)[:200]}"
        raise InputError(message, hint="try the built-in converter: leave out `document_converter: docling`") from error
    if made.status is not ConversionStatus.SUCCESS:
        raise InputError("cannot be read by docling as a whole", hint="try the built-in converter")
    text, pages = _joined(_parts(made.document))
    return Converted(text, "", pages)


@lru_cache(maxsize=4)
def _converter(kind: Any) -> Any:
    """docling's converter for one format. It loads its models once."""
    from docling.datamodel.base_models import InputFormat
    from docling.document_converter import DocumentConverter, PdfFormatOption

    options = {}
    if kind is InputFormat.PDF:
        from docling.datamodel.pipeline_options import PdfPipelineOptions

        pipeline = PdfPipelineOptions(artifacts_path=_models(), enable_remote_services=False)
        options = {InputFormat.PDF: PdfFormatOption(pipeline_options=pipeline)}
    return DocumentConverter(allowed_formats=[kind], format_options=options)


def _models() -> Path:
    """The folder of docling's models; given to docling, it never downloads any."""
    from docling.datamodel.settings import settings

    folder = Path(settings.artifacts_path or settings.cache_dir / "models")
    if not folder.is_dir():
        message = "the models of docling are not on this machine"
        raise SetupError(message, where=str(folder), hint=_DOWNLOAD)
    return folder


def _parts(document: Any) -> Iterator[str]:
    """The Markdown of each page, or of a document without pages as a whole."""
    if not document.pages:
        yield document.export_to_markdown(image_placeholder="")
        return
    for number in range(1, max(document.pages) + 1):
        yield document.export_to_markdown(page_no=number, image_placeholder="")


def _joined(parts: Iterator[str]) -> tuple[str, tuple[int, ...]]:
    """Pages as one text, and where each begins."""
    text, starts = "", []
    for part in parts:
        page = part.strip("\n")
        text += "\n\n" if text and page else ""
        starts.append(len(text))
        text += page
    return text + "\n", tuple(starts) if len(starts) > 1 else ()


def _missing() -> SetupError:
    return SetupError("the converter `docling` is not installed", hint='pip install "ilab[docling]"')
