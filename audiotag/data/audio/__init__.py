"""Audio files: headers, decoding, trimming, and the processes that decode."""
