# Rolekey. `make` builds; `make demo` shows it at work; `make test` proves it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

PROGRAMS := noded masterd gnt-cluster gnt-node gnt-job devcluster
DAEMONS := noded masterd
COMMANDS := gnt-cluster gnt-node gnt-job

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X rolekey/internal/buildinfo.version=$(VERSION)
# Nothing here depends on GOFLAGS of the machine.
BUILD := CGO_ENABLED=0 $(GO) build -buildvcs=false -trimpath

# The race detector needs cgo, and that a C compiler.
RACE := $(shell command -v gcc >/dev/null 2>&1 && [ "$$($(GO) env CGO_ENABLED)" = 1 ] && echo -race)
# The last folder has what fetch-sshd unpacked because the system lacks it.
export PATH := $(PATH):$(CURDIR)/.cache/openssh/usr/bin
SSHD = ROLEKEY_SSHD="$$(tools/install/fetch-sshd.sh)"; export ROLEKEY_SSHD
# The tests that use Ganeti's client run where there is no network to fetch it by.
GANETI = tools/install/fetch-ganeti-client.sh >/dev/null || true

# Virtual time with thousands of goroutines now and then breaks the race
# detector's own runtime ("ThreadSanitizer: CHECK failed"): these go without it.
VIRTUAL := ./candmap/gossip ./tests/vcluster
TESTS ?= $(shell $(GO) list ./... | grep -v -e /candmap/gossip$$ -e /tests/vcluster$$)
TESTFLAGS ?=
FUZZTIME ?= 10s

GOFUMPT_VERSION := v0.12.0
STATICCHECK_VERSION := v0.8.2
LINTERS := .cache/bin/gofumpt-$(GOFUMPT_VERSION) .cache/bin/staticcheck-$(STATICCHECK_VERSION)

PREFIX ?= /usr
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
DOCDIR ?= $(PREFIX)/share/doc/rolekey
DESTDIR ?=

.PHONY: build
build: ## Build all programs into bin/, static.
	@mkdir -p bin
	$(BUILD) -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./tools/%)

.PHONY: test
test: build .cache/bin/testsum ## Run all tests; ends with the line N passed, N failed.
	@$(GANETI); $(SSHD); flags="-json -buildvcs=false -count=1 -timeout 25m $(TESTFLAGS)"; set -x; \
	{ $(GO) test $$flags $(RACE) $(TESTS) || true; $(GO) test $$flags $(VIRTUAL) || true; } | .cache/bin/testsum

.PHONY: demo
demo: build ## Start a cluster on this machine and show what Rolekey promises.
	@$(SSHD); $(GO) run -buildvcs=false ./tests/demo

.PHONY: e2e
e2e: build .cache/bin/testsum ## Run the end-to-end tests alone.
	@$(GANETI); $(SSHD); set -x; $(GO) test -json -buildvcs=false -count=1 -timeout 25m $(TESTFLAGS) ./tests/... | .cache/bin/testsum

.PHONY: bench
bench: build ## Measure how fast roles spread, and what the gate costs.
	@$(SSHD); $(GO) run -buildvcs=false ./tests/bench

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME.
	@tools/install/fuzz.sh $(FUZZTIME)

.PHONY: lint
lint: $(LINTERS) ## Check vet, staticcheck, formatting and shell scripts.
	$(GO) vet -buildvcs=false ./...
	.cache/bin/staticcheck ./...
	@bad="$$(git ls-files -co --exclude-standard '*.go' | xargs -d '\n' .cache/bin/gofumpt -l)"; \
	if [ -n "$$bad" ]; then echo "run .cache/bin/gofumpt -w on:"; echo "$$bad"; exit 1; fi
	@for f in tools/install/*.sh .ci/run; do bash -n "$$f"; done

.cache/bin/gofumpt-$(GOFUMPT_VERSION):
	GOFLAGS= GOBIN=$(CURDIR)/.cache/bin $(GO) install mvdan.cc/gofumpt@$(GOFUMPT_VERSION)
	@touch $@

.cache/bin/staticcheck-$(STATICCHECK_VERSION):
	GOFLAGS= GOBIN=$(CURDIR)/.cache/bin $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	@touch $@

.PHONY: .cache/bin/testsum
.cache/bin/testsum:
	@mkdir -p $(@D)
	@$(BUILD) -o $@ ./tools/testsum

.PHONY: install
install: build ## Install below DESTDIR; PREFIX is /usr.
	install -d $(foreach d,$(PREFIX)/sbin $(SYSCONFDIR)/rolekey $(UNITDIR) $(PREFIX)/lib/sysusers.d $(PREFIX)/lib/tmpfiles.d $(SYSCONFDIR)/logrotate.d $(DOCDIR)/man,"$(DESTDIR)$(d)")
	install -m 755 $(DAEMONS:%=bin/%) $(COMMANDS:%=bin/%) "$(DESTDIR)$(PREFIX)/sbin/"
	install -m 644 $(DAEMONS:%=tools/install/rolekey-%.service) "$(DESTDIR)$(UNITDIR)/"
	sed -i 's|@SBINDIR@|$(PREFIX)/sbin|' $(DAEMONS:%="$(DESTDIR)$(UNITDIR)/rolekey-%.service")
	install -m 644 tools/install/sysusers.conf "$(DESTDIR)$(PREFIX)/lib/sysusers.d/rolekey.conf"
	install -m 644 tools/install/tmpfiles.conf "$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/rolekey.conf"
	@# A configuration that exists is the administrator's.
	for d in $(DAEMONS); do f="$(DESTDIR)$(SYSCONFDIR)/rolekey/$$d.toml"; \
		[ -e "$$f" ] || install -m 644 "tools/install/$$d.toml" "$$f"; done
	f="$(DESTDIR)$(SYSCONFDIR)/logrotate.d/rolekey"; [ -e "$$f" ] || install -m 644 tools/install/logrotate.conf "$$f"
	install -m 644 README.rst CHANGELOG.rst LICENSE docs/*.rst "$(DESTDIR)$(DOCDIR)/"
	tools/install/manpages.sh man "$(DESTDIR)$(PREFIX)/share/man" "$(DESTDIR)$(DOCDIR)/man"
	tools/install/completions.sh bin "$(DESTDIR)$(PREFIX)/share" $(COMMANDS)

.PHONY: clean
clean: ## Remove what was built and fetched.
	rm -rf bin .cache

.PHONY: help
help: ## Show this list.
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile | expand -t 12
