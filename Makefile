# Everything a developer does here.  `make help` lists it.

SHELL := /bin/bash
export LC_ALL := C.UTF-8
# An environment of the caller's must not decide what is tested.
unexport ANSIBLE_CONFIG ANSIBLE_COLLECTIONS_PATH ANSIBLE_INVENTORY ETCDCTL_API ETCDCTL_ENDPOINTS PYTHONPATH

in_venv := tests/tools/venv dev
reports := $(CURDIR)/reports
# Where `import ansible_collections.k8s_dr.etcd` finds this checkout.
collections := $(CURDIR)/playbooks/collections

NODES ?= 1
# The scenario with the fault matrix; of that with three control planes nothing else.
matrix = $(if $(filter 3,$(NODES)),PYTEST_ADDOPTS='-k "test_all_or_none or test_random"' tests/tools/molecule ha,tests/tools/molecule faults)
export NODES KUBERNETES ETCD ETCD_MOUNT ETCD_DISK_MB CGROUP_DRIVER FAULTS SHARD SAMPLE SEED N SANITY_CORES KEEP_GOING STAGES MATRIX RUNS SIZES FLEET FORKS

.DEFAULT_GOAL := help
.PHONY: help
help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: ## Make the virtual environment of requirements-dev.txt and print where it is
	@tests/tools/venv

.PHONY: sandbox
sandbox: ## Start a kubeadm cluster here (NODES=1, 3 or 5, KUBERNETES=1.36, ETCD=3.6, ETCD_MOUNT=1, ETCD_DISK_MB=1500); inventory/sandbox.yml reaches it
	tests/sandbox/up

.PHONY: sandbox-down
sandbox-down: ## Delete that cluster
	tests/sandbox/down

.PHONY: demo
demo: ## Make a cluster, take a snapshot, delete and change objects, restore, and compare
	$(in_venv) python tests/demo/demo.py

.PHONY: demo-picture
demo-picture: ## Run the demo and write its output to docs/demo.svg
	$(in_venv) python tests/demo/picture.py

.PHONY: lint
lint: ## ansible-lint (production), yamllint, ruff, changelog
	$(in_venv) ruff check .
	$(in_venv) yamllint --strict .
	$(in_venv) antsibull-changelog lint
	ANSIBLE_COLLECTIONS_PATH=$(collections) $(in_venv) ansible-lint --offline --strict

.PHONY: sanity
sanity: ## ansible-test sanity (SANITY_CORES="2.17 2.19 2.21")
	tests/tools/sanity $(SANITY_CORES)

.PHONY: unit
unit: ## Tests that need only Python: of the code, and of the rules of the project
	PYTHONPATH=$(collections) $(in_venv) pytest tests/unit tests/project -n 2 --junitxml=$(reports)/unit.xml $(PYTEST_ARGS)

.PHONY: integration
integration: ## Tests with a real etcd on loopback (ETCD_VERSIONS="3.4 3.5")
	PYTHONPATH=$(collections) $(in_venv) pytest tests/integration -n 3 --dist loadfile --junitxml=$(reports)/integration.xml $(PYTEST_ARGS)

.PHONY: molecule
molecule: ## Tests of the roles on a real cluster, with failures (SCENARIO=default; ha: three control planes; faults)
	tests/tools/molecule $(SCENARIO)

.PHONY: faults
faults: ## A sample of the fault injection: every state once, every fault once (SAMPLE=COMMIT)
	tests/tools/molecule faults

.PHONY: test-faults
test-faults: ## Every state of a restore x every fault on real nodes, docs/fault-injection.md at the end (3 hours; NODES=3, FAULTS="swapped-node ...", SHARD=2/6)
	FAULTS='$(or $(FAULTS),all)' $(matrix); result=$$?; $(MAKE) --no-print-directory fault-table && exit $$result

.PHONY: test-random
test-random: ## Faults at random moments of restores on real nodes (NODES=3, N=50, SEED=WORD for the same again)
	FAULTS=none N='$(or $(N),50)' $(matrix)

.PHONY: fault-table
fault-table: ## Write the results of cells of the fault injection to docs/fault-injection.md (RESULTS="FILE ..." of all shards)
	$(in_venv) python tests/tools/fault_cells.py $(RESULTS)

.PHONY: test-matrix
test-matrix: ## Every version of ansible-core, Python and etcd that is supported, a table at the end (3 hours; MATRIX="core-2.20 python-3.8-units etcd")
	$(in_venv) python tests/tools/matrix.py

.PHONY: test-fast
test-fast: ## Lint, unit and build, in two minutes
	@STAGES="lint unit build" $(in_venv) python tests/tools/run_all.py

.PHONY: bench-outage
bench-outage: ## The API downtime of a restore, beside the documented procedure and the restart-only baseline (RUNS=7, SIZES="small large", NODES=1)
	$(in_venv) python bench/outage.py

.PHONY: bench-snapshot
bench-snapshot: ## The cost of a snapshot beside an earlier commit and etcdctl and sha256sum alone, and many clusters in one run (RUNS=5, SIZES="3 1024", FLEET=20)
	PYTHONPATH=$(collections) $(in_venv) python bench/snapshot.py

.PHONY: bench-many
bench-many: ## What many snapshots in one place cost list, prune, metrics and a restore's choice, and how that grows (SNAPSHOTS="200 2000", RUNS=3)
	PYTHONPATH=$(collections) $(in_venv) python bench/many.py

.PHONY: bench-playbooks
bench-playbooks: ## The time that the playbooks take from the command to the prompt, beside an earlier commit (RUNS=7, BASE=97e024d, NODES=1)
	$(in_venv) python bench/playbooks.py

.PHONY: bench-browse
bench-browse: ## How long browse.yml takes to the first answer of kubectl, beside the same by hand, and recover.yml for many objects (RUNS=3, SIZES="small large", OBJECTS=500)
	$(in_venv) python bench/browse.py

.PHONY: bench-rebuild
bench-rebuild: ## How long a rebuild takes from the command to a serving cluster, beside kubeadm init of an empty one (RUNS=3)
	$(in_venv) python bench/rebuild.py

.PHONY: bench-drill
bench-drill: ## How long a drill of a large snapshot takes, beside an earlier commit and beside restore and start alone (RUNS=3, KEYS="320000", BASE=97e024d)
	PYTHONPATH=$(collections) $(in_venv) python bench/drill.py

.PHONY: bench-large
bench-large: ## How long the comparison before a restore takes with a large snapshot, beside an earlier commit (RUNS=3, KEYS="320000", BASE=97e024d, ETCD=3.7)
	PYTHONPATH=$(collections) $(in_venv) python bench/large.py

.PHONY: changelog
changelog: ## Write CHANGELOG.md from changelogs/fragments, the modules and the roles
	$(in_venv) antsibull-changelog release --update-existing --reload-plugins --refresh

.PHONY: build
build: ## Build the collection and check it with Galaxy's importer
	$(in_venv) tests/tools/build

.PHONY: reference
reference: ## Modules, roles and playbooks as a site in reports/reference, by antsibull-docs
	tests/tools/venv docs python tests/tools/reference.py

.PHONY: test
test: ## All stages, the quick ones first
	@$(in_venv) python tests/tools/run_all.py

.PHONY: clean
clean: ## Delete the files that these targets leave in the checkout (the cache outside it and the sandbox stay)
	rm -rf reports .ansible .cache .ruff_cache .pytest_cache .hypothesis tests/output k8s_dr-etcd-*.tar.gz
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
