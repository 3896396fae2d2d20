# make demo    trains, tests and draws the demo     make lint    checks style and types
# make test    runs the test suite                  make clean   removes .venv, builds and the demo
# make quick   runs its quick part                  make coverage   runs it and counts what it covers
# make bench   measures speed and memory here       make docs    builds the documentation in site/
# make test-gpu   tests on a GPU, measures speed there and writes work_dirs/gpu_report.md
# make wheels  builds the sdist and all wheels in dist/
# make upstream MMDET=../mmdetection   runs the tests of a checkout of mmdetection 3.3.0 with nat_mm
#                   (also MMCV, MMENGINE, MMPRETRAIN, MMSEG; ONLY=tests/test_models for a part)
# make soak    kills training runs 50 times each, in ten minutes, and counts lost checkpoints
#
# All but `make clean` create .venv with everything in it, unless it exists. Options:
#   make test PYTHON=python3.12
#   make test STACK=onedl                                           OpenMMLab's maintained forks
#   make test TORCH=2.14.0                                          another PyTorch
#   make test INDEX=https://download.pytorch.org/whl/cpu            PyTorch without CUDA

PYTHON ?= python3
STACK ?= openmmlab
TORCH ?= 2.14.1
INDEX ?=

ifeq ($(STACK),openmmlab)
VENV ?= .venv
REQUIREMENTS := --only-binary=:all: --editable '.[all,lite]'
else ifeq ($(STACK),onedl)
VENV ?= .venv-onedl
# The forks are distributed as pure Python sources.
REQUIREMENTS := --prefer-binary --editable '.[dev,onedl]'
# PyTorch and CUDA from the environment with the official packages. Hard links to them save 5 GB,
# pip regards them as installed, and either environment can be changed or removed.
SHARED := $(wildcard $(addprefix .venv/lib/python*/site-packages/,torch* functorch triton* nvidia* cuda*))
else
$(error STACK must be openmmlab or onedl, not '$(STACK)')
endif

# A torchvision binary fits only one PyTorch; without a version, pip resolves it from the metadata.
ifeq ($(TORCH),2.14.1)
TORCHVISION ?= 0.29.1
else
TORCHVISION ?=
endif

# The names of these two files tell what was installed: another interpreter means a new environment,
# other requirements mean another run of pip.
MADE := $(VENV)/.made-with-$(subst /,_,$(PYTHON))
INSTALLED := $(VENV)/.installed-$(shell { \
	cat pyproject.toml setup.py nat_mm_startup.pth nat_mm/ops/csrc/*; \
	echo '$(CURDIR) $(TORCH) $(TORCHVISION) $(INDEX)'; } | cksum | cut -d ' ' -f 1)

.PHONY: demo test quick coverage test-gpu upstream soak bench docs lint clean wheels

demo: $(INSTALLED)
	$(VENV)/bin/python tools/demo.py

# Otherwise, each test process would compile the tests, the package and the benchmarks anew.
unexport PYTHONDONTWRITEBYTECODE
# The timeout, in seconds for a test with its fixtures, turns a hang into a failure that says where.
PYTEST = $(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal \
	--timeout 900

test: $(INSTALLED)
	$(PYTEST)

# Skips tests with new processes, compilation or whole models; only these folders are imported.
quick: $(INSTALLED)
	$(PYTEST) -m 'not process and not compile and not model' \
		$(addprefix tests/,analysis backbones checkpoints compat demo layers ops training)

# Not part of `make test`, because it slows down all Python code.
coverage: $(INSTALLED)
	$(PYTEST) --cov --cov-report term:skip-covered

test-gpu: $(INSTALLED)
	@$(VENV)/bin/python -m tests.gpu

upstream: $(INSTALLED)
	$(VENV)/bin/python -m tests.upstream $(foreach package,mmcv mmdet mmengine mmpretrain mmseg,\
		$(addprefix $(package)=,$($(shell echo $(package) | tr a-z A-Z)))) $(if $(ONLY),--only $(ONLY))

soak: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -W ignore -m tests.soak

bench: $(INSTALLED)
	$(VENV)/bin/python -m benchmarks

# The variable silences an advertisement by the theme.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

# All wheels are built from the sdist. auditwheel refuses a library that needs more than
# manylinux_2_28, PyTorch's own platform, provides; for another machine it only supports `auto`, the
# oldest platform that fits. On x86-64, also builds for ARM if there is a cross compiler:
# apt-get install g++-aarch64-linux-gnu.
MACHINE := $(shell uname -m)
CROSS := $(if $(filter x86_64,$(MACHINE)),$(shell command -v aarch64-linux-gnu-g++))
build_wheel = $(VENV)/bin/python -m pip wheel --no-deps --no-cache-dir --wheel-dir
repair = PATH=$(abspath $(VENV))/bin:$$PATH $(VENV)/bin/python -m auditwheel repair \
	--only-plat --wheel-dir dist --plat

wheels: $(INSTALLED)
	rm -rf dist build/wheels
	$(VENV)/bin/python -m build --sdist
	NAT_MM_KERNEL=0 $(build_wheel) dist dist/*.tar.gz
ifneq ($(CROSS),)
	NAT_MM_KERNEL=1 _PYTHON_HOST_PLATFORM=linux-aarch64 CC=$(CROSS) CXX=$(CROSS) \
		$(build_wheel) build/wheels dist/*.tar.gz
	$(repair) auto build/wheels/*_aarch64.whl
endif
	NAT_MM_KERNEL=1 $(build_wheel) build/wheels dist/*.tar.gz
	$(repair) manylinux_2_28_$(MACHINE) build/wheels/*_$(MACHINE).whl

lint: $(INSTALLED)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

clean:
	rm -rf $(VENV) .venv-onedl build dist site *.egg-info nat_mm/ops/backends/*.so work_dirs/demo \
		.coverage .pytest_cache .ruff_cache

$(MADE):
	$(PYTHON) -m venv --clear $(VENV)
	$(if $(SHARED),cd .venv && cp --archive --link --parents $(SHARED:.venv/%=%) $(abspath $(VENV)))
	touch $@

# A single pip command, so that all requirements are resolved together: an old pip that adds openmim
# later would install a setuptools that PyTorch refuses.
$(INSTALLED): $(MADE)
	rm -f $(VENV)/.installed-*
	$(VENV)/bin/python -m pip install $(if $(INDEX),--extra-index-url $(INDEX)) \
		torch==$(TORCH) torchvision$(if $(TORCHVISION),==$(TORCHVISION)) \
		$(REQUIREMENTS)
	touch $@
