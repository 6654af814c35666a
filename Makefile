# Needs Python 3.11 or newer and make; everything else goes into .venv, pinned by constraints.txt.
#
#   make demo         the whole system on this machine, nothing to install beforehand
#   make test         lint, types, import rules, every test that this machine can run
#
#   make lint | unit | integration | acceptance | chaos | bench | bench-check
#                     bench measures everything and writes docs/performance.md; it takes an hour.
#                     bench-check takes some minutes and compares with benchmarks/baseline.toml:
#                     10 % worse fails with exit code 1; 3 means not measured (a busy machine)
#   make mutants      change the code in small ways, one at a time; report those no test detects
#   make fuzz         the hypothesis tests with random examples, 20 times as many. It prints its
#                     FUZZ_SEED, and `make fuzz FUZZ_SEED=...` repeats that run. All other targets
#                     use the same 100 examples of each test every time
#   make image        build the container image multcall-dialer that docker-compose.yml runs
#   make docs         write docs/schemas/*.json from the code
#   make constraints  resolve the newest versions and pin them in constraints.txt
#   make clean        remove .venv and everything that was built
#
# PYTHON=/path/to/python chooses the interpreter; PYTEST_ARGS adds arguments to pytest.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTEST := $(PY) -m pytest
PIP := $(PY) -m pip --disable-pip-version-check -qq
PYTEST_ARGS ?=
# The package is built in the environment with the pinned backend; only pinned versions are fetched.
BACKEND := hatchling editables

.DEFAULT_GOAL := help
.PHONY: help demo test bytecode test-code test-real test-hosts lint unit integration acceptance fuzz chaos mutants bench bench-check image docs constraints clean

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

# Set `found` to the interpreter, or print what is missing and fail.
define FIND_PYTHON
found=; \
for candidate in "$(PYTHON)" python3.13 python3.12 python3.11 python3 python; do \
  [ -n "$$candidate" ] || continue; \
  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
  found=$$candidate; \
  "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 && break; \
  found=; lacking=$$candidate; \
done; \
if [ -z "$$found" ]; then \
  if [ -n "$$lacking" ]; then \
    echo "make: $$lacking cannot make virtual environments; on Debian and Ubuntu install python3-venv." >&2; \
  else \
    echo "make: no Python 3.11 or newer was found; install one, or name it with PYTHON=/path/to/python." >&2; \
  fi; \
  exit 1; \
fi
endef

$(STAMP): pyproject.toml constraints.txt
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
	  $(FIND_PYTHON); \
	  echo "Making $(VENV) with $$("$$found" --version)"; \
	  rm -rf $(VENV); \
	  "$$found" -m venv $(VENV); \
	}
	@echo "Installing the versions of constraints.txt"
	@$(PIP) install -c constraints.txt $(BACKEND)
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[all]'
	@touch $@

demo: $(STAMP)
	@$(VENV)/bin/dialer demo

# The three parts wait much, for processes and for containers, so they run side by side. The first
# shows its progress, the others print their output when they end. The tests of a part with Docker
# run one after the other and without coverage, which would slow them down; those of `test-hosts`
# use no Asterisk of the lab.
test: $(STAMP)
	@$(MAKE) --no-print-directory --jobs=2 lint bytecode
	@$(MAKE) --no-print-directory --jobs=3 --keep-going test-code test-real test-hosts

test-code: $(STAMP)
	@$(PYTEST) tests/unit tests/integration -n 3 --dist loadfile --cov --cov-report=term $(PYTEST_ARGS)

HOSTS := tests/acceptance/test_systemd.py

test-real: $(STAMP)
	$(call PRINT_AT_THE_END,tests/acceptance tests/chaos --ignore=$(HOSTS))

test-hosts: $(STAMP)
	$(call PRINT_AT_THE_END,$(HOSTS))

define PRINT_AT_THE_END
@out=$$(mktemp); trap 'cat $$out; rm -f $$out' EXIT; trap 'exit 143' INT TERM; \
$(PYTEST) $(1) $(PYTEST_ARGS) >$$out 2>&1
endef

# The tests start hundreds of processes, and each would compile what it imports: so the bytecode is
# kept, even where the environment says not to. Four pytests would also rewrite the same asserts.
test bytecode test-code test-real test-hosts: export PYTHONDONTWRITEBYTECODE =

bytecode: $(STAMP)
	@$(PYTEST) tests --collect-only -qq >/dev/null 2>&1 || : # test-code says what is wrong

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

unit integration acceptance: $(STAMP)
	@$(PYTEST) tests/$@ $(PYTEST_ARGS)

# A failure prints a @reproduce_failure line besides the seed. Add the failing example to the test as
# an @example, so that `make test` includes it from now on.
FUZZ_SEED ?=
fuzz: $(STAMP)
	@seed=$(FUZZ_SEED); seed=$${seed:-$$($(PY) -c 'import secrets; print(secrets.randbits(32))')}; \
	echo "make fuzz FUZZ_SEED=$$seed"; \
	$(PYTEST) tests/unit tests/integration -m hypothesis --timeout 1200 \
	  --hypothesis-profile=fuzz --hypothesis-seed="$$seed" $(PYTEST_ARGS) || \
	{ echo "make fuzz FUZZ_SEED=$$seed repeats this run"; exit 1; }

# The long run; see tests/chaos/run.py. 1,000 faults and 11,900 calls, two of the seven runs with
# Sentinel, take about half an hour on two cores:
#   make chaos CHAOS_ARGS="--runs 7 --faults 200 --calls 1700 --rate 8 --pace 0.5 --sentinel-every 3"
# With "--pbx simulated" it needs no Docker.
CHAOS_ARGS ?=
chaos: $(STAMP)
	@$(PY) -m tests.chaos.run $(CHAOS_ARGS)

# Takes an hour and is not part of CI: MUTANTS_ARGS="--seed 7 --sample 200 --minutes 30 --jobs 2
# dialer/domain" and more, see tests/mutants/run.py.
MUTANTS_ARGS ?=
mutants: $(STAMP)
	@$(PY) -m tests.mutants.run $(MUTANTS_ARGS)

# One of them, with other options: BENCH_ARGS="real --rates 50,150 --seconds 20"; see
# docs/performance.md.
BENCH_ARGS ?= all
bench: $(STAMP)
	@$(PY) -m benchmarks $(BENCH_ARGS)

bench-check: $(STAMP)
	@$(PY) -m benchmarks check

# The build uses the proxy and the package index of the environment, if it has them.
image:
	@docker build $(foreach name,HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_EXTRA_INDEX_URL,\
	  $(if $($(name)),--build-arg $(name))) $(DOCKER_BUILD_ARGS) -t multcall-dialer .

docs: $(STAMP)
	@$(PY) -m dialer.multcall.schema docs/schemas

# redis needs async-timeout only on Python before 3.11.3, so a newer Python would not pin it.
constraints:
	@$(FIND_PYTHON); \
	tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	"$$found" -m venv "$$tmp/venv" && \
	"$$tmp/venv/bin/python" -m pip --disable-pip-version-check -qq install $(BACKEND) async-timeout '.[all]' && \
	{ echo '# The versions tested together, on Python 3.11 and 3.13. Written by `make constraints`.'; \
	  "$$tmp/venv/bin/python" -m pip --disable-pip-version-check list --format=freeze \
	    --exclude multcall-dialer --exclude pip --exclude setuptools; } >"$$tmp/constraints.txt" && \
	cp "$$tmp/constraints.txt" constraints.txt && \
	echo "constraints.txt: $$(grep -c == constraints.txt) versions pinned"

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .mutants
	find dialer workers tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || :
