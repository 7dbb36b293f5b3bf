"""Dataset sources: from recordings and label tables to one table of clips.

To add a layout, write a file with a recognizer and a reader, add it to `LAYOUTS` in finding.py, and test it.
"""

from audiotag.data.sources.finding import LAYOUTS, Source, find_clips

__all__ = ["LAYOUTS", "Source", "find_clips"]
