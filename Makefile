# make demo: a fresh machine to a running Fargate task. make test: everything. See CONTRIBUTING.md.
CARGO ?= cargo
VENV := .venv
PYTHON := $(VENV)/bin/python
# The command lines of the CDK and of SAM, for tests; node itself is in tests/requirements.txt. SAM's asks for other
# versions of what the tests use, so it has an environment of its own.
CDK := aws-cdk@2.1148.1
SAM := aws-sam-cli==1.170.0

.PHONY: demo test lint fuzz simulate bench build deps venv tools clean

demo: deps venv
	$(CARGO) build --release -p neargate
	PATH="$(CURDIR)/$(VENV)/bin:$$(realpath "$${CARGO_TARGET_DIR:-target}")/release:$$PATH" examples/hello/demo.sh

test: deps venv tools lint
	$(CARGO) test --workspace
	$(CARGO) build -p neargate
	$(PYTHON) -m pytest tests
	$(CARGO) xtask coverage build/served.txt

lint: deps venv
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) xtask codegen --check
	$(CARGO) xtask tidy
	$(VENV)/bin/cfn-lint patterns/*.yaml

# Every fuzz target for a while (FUZZ_SECONDS each); needs cargo-fuzz (`cargo install cargo-fuzz`).
FUZZ_SECONDS ?= 60
fuzz:
	@set -e; for target in crates/*/fuzz/fuzz_targets/*.rs crates/services/*/fuzz/fuzz_targets/*.rs; do \
		crate=$${target%/fuzz/fuzz_targets/*}; name=$$(basename $$target .rs); \
		echo "== $$crate $$name"; \
		(cd $$crate && $(CARGO) fuzz run -s none $$name -- -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -verbosity=0); \
	done

# Services, stacks, deployments, pipelines and builds in simulated worlds, SEEDS histories of each.
SEEDS ?= 10000
simulate:
	SEEDS=$(SEEDS) $(CARGO) test --release -p ecs services_come_to_rest -- --nocapture
	SEEDS=$(SEEDS) $(CARGO) test --release -p cloudformation stacks_come_to_rest
	SEEDS=$(SEEDS) $(CARGO) test --release -p codedeploy deployments_come_to_rest
	SEEDS=$(SEEDS) $(CARGO) test --release -p codepipeline executions_come_to_rest
	SEEDS=$(SEEDS) $(CARGO) test --release -p codebuild builds_come_to_rest

bench: deps venv
	$(CARGO) build --release -p neargate
	bench/run

build: deps
	$(CARGO) build --release -p neargate

# What Debian and Ubuntu call what we need; installed only when something is missing.
deps:
	@./install-deps

venv: $(VENV)/.done

$(VENV)/.done: tests/requirements.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet -r tests/requirements.txt
	touch $@

tools: $(VENV)/.tools

$(VENV)/.tools: $(VENV)/.done Makefile
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm install --silent --no-audit --no-fund --prefix $(VENV) $(CDK)
	python3 -m venv $(VENV)/sam
	$(VENV)/sam/bin/python -m pip install --quiet $(SAM)
	touch $@

clean:
	rm -rf target build $(VENV)
