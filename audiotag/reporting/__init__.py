"""HTML pages about a dataset or a run, and sheets of preprocessed images."""
