# Two commands do everything on a fresh machine:
#
#     make demo    show amphora at work
#     make test    run the tests
#
# They make a .venv in this folder, with tox in it; tox does the rest. Nothing else on the machine
# changes, but that RabbitMQ, Chromium and PostgreSQL (for the tests) and graphviz (for the
# documentation) are installed when they are missing, root runs make, and apt is there.

.DEFAULT_GOAL := help
.PHONY: help demo test pythons lint types docs oldest faults instructions bench clean

TOX := .venv/bin/tox
RUN := $(TOX) run -q

# Pythons that pyenv has built count as installed, after all that is on the PATH already.
PYENV_BINS := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[1-9]*/bin)
empty :=
export PATH := $(PATH)$(subst $(empty) $(empty),,$(PYENV_BINS:%=:%))

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(TOX) ## Show amphora at work: servers, a client, calls
	@echo "Preparing the demo (the first time takes a minute)"
	@$(RUN) -e demo

test: $(TOX) ## Run the tests, and measure which branches they take (ARGS="-k name": some tests)
	@scripts/install-rabbitmq
	@scripts/install-chromium
	@scripts/install-postgresql
	@$(RUN) -e test $(if $(ARGS),-- $(ARGS))

pythons: $(TOX) ## Run the tests that need no RabbitMQ on the other Pythons that are installed
	@scripts/install-chromium
	@scripts/install-postgresql
	@others=$$(scripts/other-pythons); \
	if [ -z "$$others" ]; then echo "There is no other Python here."; exit; fi; \
	echo "Testing on all at once ($$others); the output of each comes when it is through"; \
	$(TOX) run-parallel -q -p auto -e "$$others" $(if $(ARGS),-- $(ARGS))

lint: $(TOX) ## Check the code's style and its formatting
	@$(RUN) -e lint

types: $(TOX) ## Check the types
	@$(RUN) -e types

docs: $(TOX) ## Build the documentation into docs/_build/html
	@scripts/install-graphviz
	@$(RUN) -e docs

oldest: $(TOX) ## Run the tests that need no RabbitMQ on the oldest dependencies that are allowed
	@$(RUN) -e oldest $(if $(ARGS),-- $(ARGS))

faults: $(TOX) ## Run the whole catalogue of faults, for three quarters of an hour
	@scripts/install-rabbitmq
	@$(RUN) -e faults $(if $(ARGS),-- $(ARGS))

instructions: $(TOX) ## Count with valgrind what a call costs
	@$(RUN) -e instructions $(if $(ARGS),-- $(ARGS))

bench: $(TOX) ## Compare amphora with others, for about 20 minutes (ARGS="--quick": under two)
	@scripts/install-rabbitmq
	@$(RUN) -e bench $(if $(ARGS),-- $(ARGS))

clean: ## Remove .venv, and all that the commands above have made
	rm -rf .venv .tox build dist amphora.egg-info docs/_build
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOX):
	@scripts/make-venv
