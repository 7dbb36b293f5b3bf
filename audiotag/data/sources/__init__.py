"""Dataset sources: from recordings and label tables to one table of clips.

To add a source, write a file with a recognizer and a reader, add it to `SOURCES` in finding.py, and test it.
"""

from audiotag.data.sources.finding import SOURCES, Source, find_clips

__all__ = ["SOURCES", "Source", "find_clips"]
