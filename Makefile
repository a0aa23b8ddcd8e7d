# Two commands: `make train` and `make test`. `make help` lists the rest. Every step leaves a stamp, so that a second run
# redoes only what has changed; the full output of each is in log/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The Python that .venv is made of: 3.11 or newer, with a libboost_python of the same version in the system.
PYTHON ?= python3
SYSTEM_PACKAGES ?= yes

# What `make train` trains. SOURCE: files of a data set that are here already.
DATASET ?= fashion-mnist
ARCH ?= igcv2
WIDTH ?= 64
DEPTH ?= 8
EPOCHS ?= 6
SOURCE ?=

# GPU=1: build, train, test and gradcheck with CUDA, in build/cuda13 (docs/gpu.md). CUDA: 12 or 13. CUDA_ARCH: 80, '80;90'.
# CUDA_WHEELS=no: with the libraries of an installed toolkit instead of the nvidia-* wheels.
GPU ?=
CUDA ?= 13
CUDA_ARCH ?= 90
CUDA_WHEELS ?= yes
$(if $(filter-out 0 1,$(GPU)),$(error GPU=$(GPU) is not known: GPU=1 builds with CUDA))
$(if $(filter 12 13,$(CUDA)),,$(error CUDA=$(CUDA) is not known: it is 12 or 13))
WITH_CUDA := $(filter 1,$(GPU))

RUN := experiments/runs/$(ARCH)_c$(WIDTH)_d$(DEPTH)_$(subst -,_,$(DATASET))_e$(EPOCHS)$(if $(WITH_CUDA),_gpu)
BUILD := build$(if $(WITH_CUDA),/cuda$(CUDA))
VENV := $(if $(WITH_CUDA),$(BUILD)/venv,.venv)
BIN := $(VENV)/bin
STAMPS := $(BUILD)/stamps
SOURCES := $(shell find caffe_layers cmake prototxt_gen data_prep experiments -type f \
             -not -path '*/__pycache__/*' -not -path 'experiments/runs/*' -not -path 'experiments/results/*' \
             -not -path 'experiments/table*' -not -path 'experiments/figure*' 2>/dev/null)

# $(call logged,NAME,COMMAND[,FILTER]): COMMAND's output in log/NAME.log and, through FILTER, on the screen.
LOG := log$(if $(WITH_CUDA),/cuda$(CUDA))
logged = mkdir -p $(LOG) && { $(2); } 2>&1 | tee $(LOG)/$(1).log $(if $(3),| $(3)) || \
  { echo "error: this step failed; its full output is in $(LOG)/$(1).log" >&2; exit 1; }

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16
	@echo "options of train: DATASET=$(DATASET) ARCH=$(ARCH) WIDTH=$(WIDTH) DEPTH=$(DEPTH) EPOCHS=$(EPOCHS) SOURCE=$(SOURCE)"

.PHONY: train
train: $(RUN)/learning_curve.png ## data set, network, training, learning curve; from nothing
	@$(BIN)/python experiments/caffe_log.py log/$(notdir $(RUN)).log
	@echo "learning curve: $<"

$(RUN)/learning_curve.png: $(RUN)/solver.prototxt data/$(DATASET)/dataset.json
	@echo "== training $(RUN): $(EPOCHS) epochs of $(DATASET)"
	@mkdir -p log && $(BIN)/python experiments/train.py $(RUN)/solver.prototxt --log log/$(notdir $(RUN)).log
	@$(BIN)/python experiments/learning_curve.py log/$(notdir $(RUN)).log -o $@

$(RUN)/solver.prototxt: $(STAMPS)/installed
	@$(BIN)/python prototxt_gen/make_net.py --arch $(ARCH) --width $(WIDTH) --depth $(DEPTH) --dataset $(DATASET) \
	  --epochs $(EPOCHS) $(if $(WITH_CUDA),--gpu) --out $(RUN) --force

.PHONY: experiments
experiments: $(STAMPS)/installed ## a folder with prototxt for every training of the paper, in experiments/
	@$(BIN)/python experiments/catalogue.py

.PHONY: report
report: $(STAMPS)/installed ## the results beside the paper's tables and figures: experiments/results/report.html, .md
	@$(BIN)/python experiments/report.py

DATA_COMMAND = $(if $(filter cifar%,$(DATASET)),cifar.py --dataset $(DATASET),$(subst -,_,$(DATASET)).py)
data/$(DATASET)/dataset.json: | $(STAMPS)/installed
	@echo "== preparing $(DATASET)"
	@$(call logged,data_$(DATASET),$(BIN)/python data_prep/$(DATA_COMMAND) $(if $(SOURCE),--source '$(SOURCE)'))

# Of pip's long report, what a reader wants to see.
BUILD_PROGRESS = grep --line-buffered -E \
  '^ *(\[[0-9]+/[0-9]+\]|--  |-- (Caffe|Fetching)|CMake Error|ERROR|FAILED|Successfully)|[Ee]rror:|No space left'

.PHONY: build
build: $(STAMPS)/installed ## .venv with Caffe, pycaffe and our packages in it

$(STAMPS)/system-packages: system-packages.txt cmake/install_system_packages.sh
	@$(if $(filter yes,$(SYSTEM_PACKAGES)),$(call logged,system_packages,cmake/install_system_packages.sh $<))
	@mkdir -p $(@D) && touch $@

# setuptools: packages that come as source only (snakemake needs one) are built with the venv's, and one before 70.1
# cannot make wheels by itself.
BUILD_TOOLS := "scikit-build-core>=0.11" "numpy>=1.26" "setuptools>=70.1"

$(STAMPS)/venv: pyproject.toml $(STAMPS)/system-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is" \
	  "$$($(PYTHON) --version 2>&1), but 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "== making $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(call logged,venv,$(BIN)/python -m pip install --quiet $(BUILD_TOOLS))
	@touch $@

# Holds the path of nvcc.
$(STAMPS)/cuda: $(wildcard cmake/cuda/*.txt cmake/cuda/get_compiler.sh) $(STAMPS)/venv
	@cmake/cuda/get_compiler.sh $(CUDA) $(BUILD)/compiler $(BIN)/python > $@
	@echo "== CUDA $(CUDA) for sm_$(CUDA_ARCH): $$(cat $@)"
	@$(if $(filter yes,$(CUDA_WHEELS)),$(call logged,cuda_wheels,$(BIN)/python -m pip install --quiet --no-deps \
	  -r cmake/cuda/libraries-$(CUDA).txt))

DEFINE := -C cmake.define
BUILD_OPTIONS = -C build-dir=$(BUILD) $(DEFINE).CPU_ONLY=OFF $(DEFINE).CMAKE_CUDA_ARCHITECTURES='$(CUDA_ARCH)' \
  $(DEFINE).CMAKE_CUDA_COMPILER=$$(cat $(STAMPS)/cuda)

$(STAMPS)/installed: $(STAMPS)/venv $(if $(WITH_CUDA),$(STAMPS)/cuda) CMakeLists.txt README.md $(SOURCES)
	@echo "== building Caffe and installing it into $(VENV) ($(LOG)/build.log)"
	@$(call logged,build,$(BIN)/python -m pip install --verbose --no-build-isolation $(if $(WITH_CUDA),$(BUILD_OPTIONS)) \
	  ".[dev]",$(BUILD_PROGRESS))
	@touch $@

.PHONY: test
test: lint $(STAMPS)/tests ## everything: linters, Caffe's own suite, our C++ and Python tests
	@echo "== testing"
	@$(call logged,test,PATH="$(CURDIR)/$(BIN):$$PATH" CAFFE_BUILD=$(BUILD) $(BIN)/python -m pytest)

$(STAMPS)/tests: $(STAMPS)/installed $(shell find tests/layers -type f 2>/dev/null)
	@echo "== building the C++ tests"
	@$(call logged,build_tests,cmake --build $(BUILD))
	@touch $@

.PHONY: gradcheck
gradcheck: $(STAMPS)/tests ## gradient checks of our layers; with GPU=1 also everything that compares GPU and CPU
	@$(BUILD)/caffe/bin/caffe_layers_test --gtest_filter='*Gradient*:*Jacobian*$(if $(WITH_CUDA),:*/2.*:*/3.*:*Cuda*)'

# Emulated CUDA threads jump between stacks, which the address sanitizer does not know.
SANITIZERS := -fsanitize=address,undefined -fno-omit-frame-pointer
.PHONY: sanitize
sanitize: $(STAMPS)/venv ## our C++ tests with the address and undefined-behaviour sanitizers, in build/sanitize (an hour)
	@echo "== building the C++ tests with sanitizers"
	@$(call logged,build_sanitize,cmake -S . -B build/sanitize -G Ninja -DCPU_ONLY=ON -DBUILD_PYCAFFE=OFF \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO='-O1 -g1' -DCMAKE_CXX_FLAGS='$(SANITIZERS)' && \
	  cmake --build build/sanitize --target caffe_layers_test)
	@$(call logged,sanitize,UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  build/sanitize/caffe/bin/caffe_layers_test --gtest_filter='-Cuda*:*OnHost*:*Exhaustive*')

.PHONY: bench
bench: $(STAMPS)/installed ## every block of the paper's networks: ours, stock Caffe, PyTorch if installed, a copy
	@$(call logged,bench,$(BIN)/python benchmarks/bench_group_convolution.py)

.PHONY: bench-net
bench-net: $(STAMPS)/installed ## training steps and inference of whole networks: ours, stock Caffe, PyTorch, ONNX Runtime (half an hour)
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet torch==2.13.0
	@$(call logged,bench_net,$(BIN)/python benchmarks/bench_net.py --caffe "$(CURDIR)/$(BIN)/caffe")
	@$(call logged,bench_inference,$(BIN)/python benchmarks/bench_inference.py --caffe "$(CURDIR)/$(BIN)/caffe")

.PHONY: bench-gpu
bench-gpu: ## on a GPU: every block and whole training steps, ours, PyTorch and a copy (docs/gpu_step.md)
	@nvidia-smi -L >/dev/null 2>&1 || { echo "error: no GPU on this machine (nvidia-smi finds none): nothing measured" >&2; exit 1; }
	@$(MAKE) GPU=1 build/cuda$(CUDA)/stamps/tests
	@test -x build/torch/bin/python || $(PYTHON) -m venv build/torch
	@build/torch/bin/python -m pip install --quiet torch==2.13.0 numpy protobuf
	@test -d build/bench_gpu || build/cuda$(CUDA)/venv/bin/python benchmarks/bench_gpu.py prepare build/bench_gpu
	@$(call logged,bench_gpu,build/cuda$(CUDA)/venv/bin/python benchmarks/bench_gpu.py run build/bench_gpu \
	  --programs build/cuda$(CUDA)/caffe/bin --python build/torch/bin/python)

.PHONY: cuda-check
cuda-check: ## compile and link everything with CUDA, cuDNN and NCCL; needs no GPU (CUDA=12, CUDA_ARCH=80)
	@$(MAKE) GPU=1 build/cuda$(CUDA)/stamps/tests
	@build/cuda$(CUDA)/venv/bin/caffe --version && build/cuda$(CUDA)/venv/bin/python -W error -c 'import caffe'
	@echo "built, linked and installed: build/cuda$(CUDA)/caffe, build/cuda$(CUDA)/venv"

BUNDLE ?= bundle
.PHONY: gpu-bundle
gpu-bundle: ## a folder that runs on a machine with nothing but NVIDIA's driver and CUDA's libraries (BUNDLE=FOLDER)
	@$(MAKE) GPU=1 build/cuda$(CUDA)/stamps/tests
	@echo "== writing $(BUNDLE)"
	@$(call logged,gpu_bundle,PATH="$(CURDIR)/build/cuda$(CUDA)/venv/bin:$$PATH" \
	  python cmake/bundle/bundle.py build/cuda$(CUDA) $(BUNDLE))

SUITE ?= bookworm
.PHONY: gpu-bundle-check
gpu-bundle-check: ## tries the bundle's CPU side in a bare Debian root (SUITE=trixie); needs root and debootstrap
	@$(call logged,gpu_bundle_check,cmake/bundle/check.sh $(BUNDLE) $(CUDA) $(SUITE))

CPP_FILES = $(shell git ls-files --cached --others --exclude-standard '*.cpp' '*.hpp' '*.cu' '*.cuh' '*.h')

.PHONY: lint
lint: $(STAMPS)/installed ## ruff and clang-format, changing nothing
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && \
	  $(BIN)/clang-format --dry-run -Werror $(CPP_FILES) && echo "== linters: no complaints"

.PHONY: format
format: $(STAMPS)/installed ## ruff and clang-format, changing the files
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/clang-format -i $(CPP_FILES)

.PHONY: clean
clean: ## remove everything that was built (data, logs and runs stay)
	rm -rf build .venv
