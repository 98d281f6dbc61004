"""Raw material -> clean documents: readers, cleaning, duplicates, splits."""

from cutaway.text.documents import Document as Document
from cutaway.text.readers import READERS as READERS
from cutaway.text.readers import Limits as Limits
from cutaway.text.readers import Part as Part
from cutaway.text.readers import Skipped as Skipped
from cutaway.text.readers import find as find
from cutaway.text.readers import read as read
from cutaway.text.readers import read_part as read_part
