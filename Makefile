# make demo, make test: nothing else is needed. Everything is installed into ./.venv, with the versions of constraints.txt.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
ARGS ?=
SHARE ?= 1
FUZZ_SECONDS ?= 300
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow torture bench bench-train lint proto base clean

## demo: one real turn of the loop on the shipped model, e.g. make demo ARGS="--json"
demo: $(VENV)/.runtime
	@$(BIN)/genome demo $(ARGS)

## test: all tests, with all three trainers, on all cores; ARGS="-n0 -s" runs them one after the other
test: $(VENV)/.tests
	$(BIN)/python -m pytest -n logical --maxprocesses=8 --dist=loadfile --no-loadscope-reorder $(ARGS)

## test-slow: the circle with every trainer, and on real text beside the checkout; all benchmarks at their smallest; about 15 minutes
test-slow: $(VENV)/.tests
	GENOME_SLOW_TESTS=1 $(BIN)/python -m pytest tests/test_circle.py tests/test_benchmarks.py -k "every_trainer or real_text or test_benchmarks" $(ARGS)

## torture: every crash point, every failing call, lost writes, 1000 kills, poison, fuzzing; about an hour, SHARE=0.1 a tenth
torture: $(VENV)/.torture
	GENOME_TORTURE=$(SHARE) $(BIN)/python -m pytest tests/torture tests/genome/test_poison.py -s $(ARGS)
	$(BIN)/python tests/fuzz/fuzz_line.py -max_total_time=$(FUZZ_SECONDS)

## bench: decoding, loading and swapping against transformers and PEFT, intake, and judgement; about 25 minutes, on an idle machine
bench: $(VENV)/.tests
	$(BIN)/python -m benchmarks.serve $(ARGS)
	$(BIN)/python -m benchmarks.swap $(ARGS)
	$(BIN)/python -m benchmarks.ingest $(ARGS)
	$(BIN)/python -m benchmarks.judgement $(ARGS)

## bench-train: steps and whole jobs against PEFT, TRL, mlx-lm and Unsloth, e.g. ARGS="--models S"; long, on an idle machine
bench-train: $(VENV)/.tests
	$(BIN)/python -m benchmarks.train $(ARGS)

## lint: ruff, the type checker on genome/, and whether the gRPC stubs are current
lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m genome.v1.generate --check

## proto: makes the gRPC stubs anew
proto: $(VENV)/.tests
	$(BIN)/python -m genome.v1.generate

## base: trains the shipped base model anew, about half an hour
base: $(VENV)/.runtime
	$(BIN)/python examples/base_model/make_base.py --out daemon/demo/base

clean:
	rm -rf $(VENV)

# torch first and by its version: whatever else asks for it later is then content.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@echo "installing into $(VENV), about two minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0
	@$(PIP) -e '.[torch]'
	@touch $@

# Unsloth without its dependencies: they would pull CUDA packages, and it trains on a CPU without them.
$(VENV)/.tests: $(VENV)/.runtime
	@echo "installing what tests need"
	@$(PIP) -e '.[torch,mlx,unsloth-cpu,bitsandbytes,test]'
	@$(PIP) --no-deps unsloth unsloth_zoo
	@touch $@

$(VENV)/.torture: $(VENV)/.tests
	@$(PIP) -e '.[torch,torture]'
	@touch $@

$(VENV)/.lint: $(VENV)/.tests
	@$(PIP) -e '.[torch,lint]'
	@touch $@
