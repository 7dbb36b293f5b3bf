"""Builds wheels that also hold the files of experiments/, as audiotag/experiments."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExperiments(build_py):
    """Copies experiments/*.json into the package; a clone and an editable installation use them where they are."""

    def run(self) -> None:
        """Builds the package, then copies."""
        super().run()
        if not self.editable_mode:
            self.mkpath(str(Path(self.build_lib, "audiotag", "experiments")))
            for source, copy in self.experiments().items():
                self.copy_file(source, copy)

    def experiments(self) -> dict[str, str]:
        """The files and their copies."""
        paths = sorted(Path("experiments").glob("*.json"))
        return {str(path): str(Path(self.build_lib, "audiotag", "experiments", path.name)) for path in paths}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files that the installation writes."""
        return [*super().get_outputs(include_bytecode), *self.experiments().values()]


setup(cmdclass={"build_py": BuildWithExperiments})
