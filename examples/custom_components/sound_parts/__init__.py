"""One audiotag component of each kind, to copy from."""
