# Every target works from a fresh clone: it makes the environment that it needs. Two are kept apart:
# .venv has everything (torch, oracles, linters), .venv-lean only what the runtime needs, so that torch can't leak in.

PYTHON ?= python3
FULL := .venv
LEAN := .venv-lean
# What make demo needs is small, and no torch is in it; where everything is, that will do.
DEMO := $(if $(wildcard $(FULL)/installed),$(FULL),.venv-demo)
LEAN_TESTS := $(filter-out $(addprefix tests/,data/ export/ parity/ training/ server/ fleet/),$(wildcard tests/*/))
# The rooms that need more than the runtime, and of the others the tests that are skipped where it is alone.
FULL_TESTS := $(addprefix tests/,export parity training server fleet) $(shell grep -rl --include='test_*.py' \
	-e 'importorskip."onnx"' -e 'importorskip."matplotlib"' -e 'importorskip."torch"' -e 'importorskip."mutagen"' $(LEAN_TESTS))
TORCH ?= torch==2.13.0
WORKERS ?= 2
SOURCES = $(sort $(shell find base models stems runtime export -type f -not -name '*.pyc'))
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
EDITABLE = --config-settings editable_mode=strict --editable

.DEFAULT_GOAL := help
.PHONY: help published demo wheel sdist binary matrix export validate run test test-lean test-full test-long fuzz soak \
	lint format bench clean docs FORCE

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  for example: make export MODEL=htdemucs WEIGHTS=random"

demo: $(DEMO)/installed ## Separate a real song with the real Spleeter, prove it, and show a page of it [SONG=file]
	$(DEMO)/bin/python -m training.demo demo $(if $(SONG),--song "$(SONG)")

wheel: $(FULL)/installed ## Build dist/*.whl, install it where there is no torch, and separate a drum track with it
	rm -rf dist build/lib build/wheel-venv
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python $(PIP_INSTALL) dist/ortsep-*.whl
	$(FULL)/bin/python -m training.drum_demo --track build/wheel-venv/song
	cd build/wheel-venv && bin/ortsep run drums_mini song/mixture.wav --output song/stems
	@ls -l dist/

sdist: ## Build dist/*.tar.gz and from it dist/*.whl, hold them to twine's rules, and install the first in an empty environment
	rm -rf dist/*.whl dist/*.tar.gz build/lib build/dist-venv build/sdist-venv
	$(PYTHON) -m venv build/dist-venv
	build/dist-venv/bin/python $(PIP_INSTALL) build twine
	build/dist-venv/bin/python -m build --outdir dist . >build/dist-venv/log
	build/dist-venv/bin/python -m twine check --strict dist/ortsep-*.tar.gz dist/ortsep-*.whl
	$(PYTHON) -m venv build/sdist-venv
	build/sdist-venv/bin/python $(PIP_INSTALL) dist/ortsep-*.tar.gz
	cd build/sdist-venv && bin/ortsep doctor drums_mini
	@ls -l dist/

binary: ## A folder with an executable for machines without Python, tried where there is nothing but a C library
	PYTHON=$(PYTHON) deploy/binary
	deploy/binary_check

matrix: ## The runtime's tests on every Python there is, with the oldest promised versions and the newest [TESTS=...]
	deploy/matrix $(TESTS)

export: $(FULL)/installed ## Checkpoint to ONNX: MODEL=name [WEIGHTS=path|random[:SEED]] [OUT=dir]
	@test -n "$(MODEL)" || { echo "say which model: make export MODEL=htdemucs (ortsep models lists them)" >&2; exit 2; }
	@mkdir -p models/exported
	$(FULL)/bin/ortsep export "$(MODEL)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(OUT),--output "$(OUT)") $(ARGS)

validate: $(FULL)/installed ## Prove an export equal to its original: MODEL=name|path [WEIGHTS=path] [SONG=file]
	@test -n "$(MODEL)" || { echo "say which model: make validate MODEL=htdemucs" >&2; exit 2; }
	$(FULL)/bin/ortsep validate "$(MODEL)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(SONG),--song "$(SONG)") $(ARGS)

run: $(LEAN)/installed ## Separate a song: MODEL=name|path SONG=file
	@test -n "$(MODEL)" -a -n "$(SONG)" || { echo "say which: make run MODEL=htdemucs SONG=song.wav" >&2; exit 2; }
	$(LEAN)/bin/ortsep run "$(MODEL)" $(ARGS) -- "$(SONG)"

bench: $(FULL)/installed ## Speed and memory beside the original: MODEL=name|path
	@test -n "$(MODEL)" || { echo "say which model: make bench MODEL=htdemucs" >&2; exit 2; }
	$(FULL)/bin/ortsep bench "$(MODEL)" --against original $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(SONG),--song "$(SONG)") $(ARGS)

test: test-lean test-full ## The tests: the runtime's without torch, the exporter's with it

test-lean: $(LEAN)/installed
	$(LEAN)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not long" $(LEAN_TESTS) $(ARGS)

test-full: $(FULL)/installed
	$(FULL)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not long" $(FULL_TESTS) $(ARGS)

test-long: $(FULL)/installed ## The tests that take minutes each: whole networks against their originals, a training run
	$(FULL)/bin/python -m pytest -m long tests $(ARGS)

fuzz: $(FULL)/installed ## A million damaged files for all readers [ARGS="--seconds 600 --state FILE"]
	$(FULL)/bin/python tests/fuzz.py $(ARGS)

published: $(FULL)/installed ## Networks of published sizes beside torch: exact, fast, small; takes an hour [MSST=checkout]
	$(FULL)/bin/python benchmarks/msst_graphs.py --exact $(or $(MODELS),scnet:small mdx23c:drumsep mdx23c:vocals) $(ARGS)
	for name in $(or $(ROFORMERS),mel_roformer_kim bs_roformer_ep_317); do \
		$(FULL)/bin/python benchmarks/roformer.py $$name $(if $(MSST),--msst "$(MSST)") || exit 1; done
	$(FULL)/bin/python benchmarks/waveform.py $(or $(WAVEFORMS),drums_mini htdemucs spleeter:2stems UVR_MDXNET_9482 \
		bs_roformer_dereverb_8)

soak: $(LEAN)/installed ## An hour in one process with threads, cancels, timeouts and failures [ARGS="--seconds 600"]
	$(LEAN)/bin/python benchmarks/soak.py $(ARGS)

docs: ## The site in build/docs/index.html; opens without the network
	test -x build/docs-venv/bin/python || $(PYTHON) -m venv build/docs-venv
	build/docs-venv/bin/python $(PIP_INSTALL) '.[docs]'
	build/docs-venv/bin/python -m sphinx -q -b html docs build/docs

lint: $(FULL)/installed ## ruff and mypy
	$(FULL)/bin/ruff check .
	$(FULL)/bin/ruff format --check .
	$(FULL)/bin/mypy -p ortsep -p training

format: $(FULL)/installed ## Let ruff lay out the code
	$(FULL)/bin/ruff check --fix .
	$(FULL)/bin/ruff format .

clean: ## Remove the environments and what was built
	rm -rf $(FULL) $(LEAN) .venv-demo build *.egg-info

# Strict editable installs link the files there are: a new or removed file needs the install again, an edited one doesn't.
build/sources: FORCE
	@mkdir -p build
	@echo "$(SOURCES)" | cmp -s - $@ || echo "$(SOURCES)" > $@

$(LEAN)/installed: pyproject.toml build/sources
	test -x $(LEAN)/bin/python || $(PYTHON) -m venv $(LEAN)
	$(LEAN)/bin/python $(PIP_INSTALL) $(EDITABLE) '.[test]'
	@touch $@

.venv-demo/installed: pyproject.toml build/sources
	test -x .venv-demo/bin/python || $(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python $(PIP_INSTALL) $(EDITABLE) '.[onnx,report,test]'
	@touch $@

# torch by name and first, so that the build for CPU is taken where one is to be had; openunmix and museval are
# test oracles and declare much that they hardly use, so they come without their dependencies.
$(FULL)/installed: pyproject.toml build/sources
	test -x $(FULL)/bin/python || $(PYTHON) -m venv $(FULL)
	$(FULL)/bin/python $(PIP_INSTALL) '$(TORCH)'
	$(FULL)/bin/python $(PIP_INSTALL) $(EDITABLE) '.[export,dev]'
	$(FULL)/bin/python $(PIP_INSTALL) --no-deps openunmix==1.3.0 museval==0.4.1
	@touch $@
