"""Dataset sources: from a folder of recordings and label tables to one table of clips."""
