"""Metadata are in pyproject.toml; here is what it cannot say: that configs/ travels inside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies ``configs`` to ``err_seg/configs``, where an installed package looks for it."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "err_seg" / "configs", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
