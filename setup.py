"""Build step that pyproject.toml cannot express: the start-up file."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPyAndStartupFile(build_py):
    """Puts nat_mm_startup.pth beside the packages.

    Python runs ``.pth`` files from the top of site-packages only, and setuptools has no option for
    a file there that belongs to no package.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            # An editable wheel leaves out build_lib; it is packed from the install directory.
            target = self.get_finalized_command('install').install_lib
        else:
            target = self.build_lib
        self.copy_file('nat_mm_startup.pth', target)


setup(cmdclass={'build_py': BuildPyAndStartupFile})
