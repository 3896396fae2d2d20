"""Build steps that pyproject.toml cannot express: the CPU kernel and the startup file.

NAT_MM_KERNEL=0 skips the kernel; with NAT_MM_KERNEL=1, the build fails if the kernel does not
compile. By default, the installation continues in that case, and the portable backend is used.
"""

import os
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

SOURCES = 'nat_mm/ops/csrc'
# Of floating-point semantics, these drop only errno and traps, which the kernel never checks.
FLAGS = [
    '-std=c++17', '-O3', '-g0', '-fvisibility=hidden',
    '-fno-math-errno', '-fno-trapping-math',
    '-fno-wrapv',  # Python's own flags have -fwrapv
]  # fmt: skip
INSTRUCTION_SETS = {'generic': []}
platform = sysconfig.get_platform()  # the target's if _PYTHON_HOST_PLATFORM is set
if platform.endswith(('aarch64', 'arm64')):
    INSTRUCTION_SETS['neon'] = []
elif platform.endswith('x86_64'):
    INSTRUCTION_SETS['avx2'] = ['-mavx2', '-mfma']
    INSTRUCTION_SETS['avx512'] = [
        '-mavx512f', '-mavx512dq', '-mavx512bw', '-mavx512vl', '-mfma',
        '-mprefer-vector-width=512',
    ]  # fmt: skip
FLAGS_OF_FILE = {
    f'{SOURCES}/na2d.cpp': [],
    **{f'{SOURCES}/kernels_{name}.cpp': flags for name, flags in INSTRUCTION_SETS.items()},
}


class BuildKernel(build_ext):
    """Builds the kernel as a plain shared library, a single file for all Python versions."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace('.', '/') + '.so'

    def build_extension(self, ext: Extension) -> None:
        def compile_file(path: str) -> list[str]:
            return self.compiler.compile(
                [path], output_dir=self.build_temp, extra_postargs=FLAGS + FLAGS_OF_FILE[path]
            )

        with ThreadPoolExecutor() as pool:
            objects = sum(pool.map(compile_file, ext.sources), [])
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(ext.name),
            target_lang='c++',
        )


class BuildWheel(bdist_wheel):
    """Tags the wheel for any Python, and for this platform if the kernel was built."""

    def get_tag(self) -> tuple[str, str, str]:
        kernels = self.get_finalized_command('build_ext').get_outputs()
        self.root_is_pure = not any(Path(kernel).exists() for kernel in kernels)
        return 'py3', 'none', super().get_tag()[2]


class BuildPyAndStartupFile(build_py):
    """Installs nat_mm_startup.pth next to the packages.

    Python runs ``.pth`` files only from the top level of site-packages, and setuptools has no
    option for a file there that belongs to no package.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            # An editable wheel does not include build_lib; it is packed from the install directory.
            target = self.get_finalized_command('install').install_lib
        else:
            target = self.build_lib
        self.copy_file('nat_mm_startup.pth', target)


wanted = os.environ.get('NAT_MM_KERNEL')
kernel = Extension(
    'nat_mm.ops.backends.libna2d',
    sources=list(FLAGS_OF_FILE),
    language='c++',
    optional=wanted != '1',
)
setup(
    cmdclass={
        'bdist_wheel': BuildWheel,
        'build_ext': BuildKernel,
        'build_py': BuildPyAndStartupFile,
    },
    ext_modules=[] if wanted == '0' else [kernel],
)
