"""PDF: the text layer, page after page, by pypdf."""

import io
import logging
from collections.abc import Iterator

from cutaway.errors import CutawayError, DamagedFile, InputError, need
from cutaway.text.documents import Document
from cutaway.text.readers.base import Input, Reader
from cutaway.text.readers.encoding import encodable


def read_pdf(source: Input) -> Iterator[Document]:
    """One document for the file, an empty line between pages.

    Raises:
        InputError: locked with a password, or there is no text in it.
        DamagedFile: not a readable PDF.
        MissingExtra: pypdf is not installed.
    """
    pypdf = need("pypdf", "documents", "reading PDF")
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it logs every oddity of a file, and most files have some
    data = source.whole()
    try:
        pdf = pypdf.PdfReader(io.BytesIO(data))
        if pdf.is_encrypted and not pdf.decrypt(""):
            raise InputError(f"{source.name} is locked with a password; save it without one")
        pages, size = [], 0
        for page in pdf.pages:
            pages.append(page.extract_text().strip())
            size += len(pages[-1])
            if size > source.limits.document:
                raise InputError(f"{source.name} unfolds to more text than one document may have; divide it")
        title = pdf.metadata.title if pdf.metadata else None
    except CutawayError:
        raise
    except Exception as error:  # pypdf meets damage with KeyError, TypeError, RecursionError and many more
        raise DamagedFile(f"{source.name} is not a PDF that can be read ({type(error).__name__}: {error})") from error
    text = encodable("\n\n".join(filter(None, pages)))
    if not text:
        raise InputError(f"{source.name} has no text layer: its {len(pages)} pages are pictures; run OCR over it first")
    yield Document(text, source.name, {"title": encodable(title)} if title else {})


PDF = Reader(read_pdf, binary=True)
