# make build | test | check | bench | demo | fuzz. Everything that is needed beyond Go is installed by the target itself where it may.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 20s
LDFLAGS  = -s -w -X main.version=$(VERSION)

.PHONY: build test check bench demo fuzz deps clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# The tests with real daemons skip with their reason where root, Linux or a package is missing; the last lines count.
test: build deps
	@.ci/test

check: build deps
	@test -z "$$(gofmt -l cmd runner transport)" || { gofmt -l cmd runner transport; echo "gofmt wants to change these"; exit 1; }
	$(GO) vet ./...
	@.ci/lint
	@.ci/test -race

bench: build deps
	@.ci/bench

demo: build
	@.ci/demo

fuzz:
	@.ci/fuzz $(FUZZTIME)

deps:
	@.ci/deps

clean:
	rm -rf bin
