"""Dataset sources: from recordings and label tables to one table of clips.

To add a layout, write a file with a recognizer and a reader, add it to `LAYOUTS` in finding.py, and test it. Outside
audiotag, make a `Layout` and name it: make-records SOURCE --layout package.module:NAME.
"""

from audiotag.data.sources.finding import LAYOUTS, Layout, Source, find_clips

__all__ = ["LAYOUTS", "Layout", "Source", "find_clips"]
