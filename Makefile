# Endcap: `make demo` shows it, `make test` is what CI runs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED := 1

# make demo DIR=… PORT=… DATA=… FORMAT=…
FORMAT ?= $(if $(DATA),generic,)
DIR ?= var/$(or $(FORMAT),demo)
PORT ?= 8080
# Where pip's own index serves only CUDA builds of torch, name one with CPU builds here.
TORCH_INDEX_URL ?=

.PHONY: demo test check format lint types imports proto proto-check tests test-long judge bench-doors bench-events bench-feast-api bench-growth bench-items bench-jobs bench-locust bench-lookup bench-memory bench-open bench-overload bench-peers bench-replay bench-swap bench-traffic-log gpu-check clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Endcap needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@echo 'Installing torch (1 of 2), a download of some 200 MB: about half a minute'
	$(BIN)/pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) -c constraints.txt torch
	@echo 'Installing Endcap and its pinned packages (2 of 2): about a minute'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,test]'
	@touch $@

# Through the environment, because a name may hold any character, a quote as well.
demo: export ENDCAP_DIR = $(DIR)
demo: export ENDCAP_DATA = $(DATA)
demo: $(VENV)/.installed  ## a shop, its features, a model and the running service (DIR= PORT= DATA= FORMAT=)
	@exec $(BIN)/endcap demo --dir "$$ENDCAP_DIR" --port $(PORT) $${ENDCAP_DATA:+--data $$ENDCAP_DATA} $(if $(FORMAT),--format $(FORMAT))

test: check tests  ## everything that CI runs

check: format lint types imports proto-check  ## formatting, lint, types, import contracts

format: $(VENV)/.installed
	$(BIN)/ruff format --check .

lint: $(VENV)/.installed
	$(BIN)/ruff check .

types: $(VENV)/.installed
	$(BIN)/mypy

imports: $(VENV)/.installed
	$(BIN)/lint-imports --no-cache

proto: $(VENV)/.installed  ## Python stubs of what proto/ says, into service/rpc/stubs and load/rpc/stubs
	$(BIN)/python -m infra.make_proto

proto-check: $(VENV)/.installed
	$(BIN)/python -m infra.make_proto --check

judge: $(VENV)/judge/.installed  ## the clients that the tests judge us with and that need other packages than we have

$(VENV)/judge/.installed: tests/service/oip_judge.txt $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)/judge
	$(VENV)/judge/bin/pip install --quiet --disable-pip-version-check -r tests/service/oip_judge.txt
	@touch $@

tests: $(VENV)/.installed $(VENV)/judge/.installed
	$(BIN)/pytest -m 'not slow' --durations=10

test-long: $(VENV)/.installed  ## the tests that take minutes
	$(BIN)/pytest -m slow

bench-open: $(VENV)/.installed  ## 100 requests/s, open loop, against a demo shop of its own (RATE= DURATION=)
	$(BIN)/python -m infra.bench_open --rate $(or $(RATE),100) --duration $(or $(DURATION),30)

bench-events: $(VENV)/.installed  ## events beside requests: how soon they are in an answer, and how many one core takes
	$(BIN)/python -m infra.bench_events --duration $(or $(DURATION),30)

# make bench-doors MARKDOWN=docs/transports.md JSON=doors.json
bench-doors: $(VENV)/.installed  ## what each door costs: CPU, p50 and p99, bytes; about 6 minutes (ROUNDS= DURATION= of a measurement, QUICK=1 JSON= MARKDOWN=)
	$(BIN)/python -m infra.bench_doors --rounds $(or $(ROUNDS),3) --seconds $(or $(DURATION),1) $(if $(QUICK),--quick) $(if $(JSON),--json '$(JSON)') $(if $(MARKDOWN),--markdown '$(MARKDOWN)')

bench-feast-api: $(VENV)/.installed  ## Feast's own feature server beside Endcap, by the same requests
	$(BIN)/python -m infra.bench_feast_api

bench-replay: $(VENV)/.installed  ## how late the client of `endcap replay` is, what a pause comes to, what a long log takes (DURATION= ROWS=)
	$(BIN)/python -m infra.bench_replay --duration $(or $(DURATION),30) --rows $(or $(ROWS),100000)

bench-swap: $(VENV)/.installed  ## a promotion and a rollback under 300 requests/s, two workers; two minutes (RATE= DURATION=)
	$(BIN)/python -m infra.bench_swap --rate $(or $(RATE),300) --duration $(or $(DURATION),40)

bench-overload: $(VENV)/.installed  ## twice what the service can do, two priorities, and a spike of ten times the load
	$(BIN)/python -m infra.bench_overload --duration $(or $(DURATION),20)

# make bench-growth SIZES='10000 100000 1000000 5000000'
bench-growth: $(VENV)/.installed  ## how cost grows with items, features, candidates and batch; made in var/growth, about 10 minutes (SIZES=)
	$(BIN)/python -m infra.bench_growth $(if $(SIZES),--sizes $(SIZES))

bench-items: $(VENV)/.installed  ## what an item change costs among a million, in var/growth (SIZES=)
	$(BIN)/python -m infra.bench_items $(if $(SIZES),--sizes $(SIZES))

bench-jobs: $(VENV)/.installed  ## what shoppers notice of a job of 100,000 users: p99 with and without, in pairs (RATE= DURATION= PAIRS=)
	$(BIN)/python -m infra.bench_jobs --rate $(or $(RATE),100) --duration $(or $(DURATION),10) --pairs $(or $(PAIRS),6)

bench-lookup: $(VENV)/.installed  ## what finding one answer takes in an hour of 500,000 of the serving log (ROWS=)
	$(BIN)/python -m infra.bench_lookup --rows $(or $(ROWS),500000)

bench-memory: $(VENV)/.installed  ## the memory of each process of `endcap serve` (DIR= WORKERS= USERS= a file of user ids)
	$(BIN)/python -m infra.bench_memory --workers $(or $(WORKERS),2) --dir '$(or $(filter-out var/demo var/generic,$(DIR)),var/bench)' $(if $(USERS),--users '$(USERS)')

# make bench-peers PEERS=… ONLY=endcap,floor,mosec_server QUICK=1
bench-peers: $(VENV)/.installed  ## the reference work W1, Endcap beside its rivals (PEERS= the folder with W1's harness; ONLY= QUICK= USERS=)
	$(BIN)/python -m load.peers.run '$(PEERS)' $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) $(if $(USERS),--users $(USERS))

bench-traffic-log: $(VENV)/.installed  ## writing and reading a traffic log of a million requests, and the memory that takes
	$(BIN)/python -m infra.bench_traffic_log

bench-locust: $(VENV)/.installed  ## a traffic log played by Locust: a master and two workers, against a stub (RATE= DURATION=)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[locust]'
	$(BIN)/python -m infra.bench_locust --rate $(or $(RATE),300) --duration $(or $(DURATION),20)

# make gpu-check PYTHON=… (one whose torch reaches the GPU) JSON=… BENCH='--items 100000': no virtual environment is made
gpu-check:  ## the GPU tests and the engine benchmark on the NVIDIA GPU that is here, into JSON=; says so where there is none
	@$(PYTHON) infra/gpu_check.py $(if $(JSON),--json '$(JSON)') $(if $(BENCH),--bench='$(BENCH)')

clean:  ## removes the virtual environment and the demos
	rm -rf $(VENV) var
