"""Records: audio in TFRecord shards, with a manifest and a table of clips."""

from audiotag.data.records.manifest import Manifest, read_manifest
from audiotag.data.records.writing import check_records, write_records

__all__ = ["Manifest", "check_records", "read_manifest", "write_records"]
