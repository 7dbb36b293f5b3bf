"""Runs the command line as `python -m audiotag`."""

from audiotag.cli import main

if __name__ == "__main__":
    main()
