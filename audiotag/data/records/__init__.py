"""Records: audio in TFRecord shards, with a manifest and a table of clips."""
