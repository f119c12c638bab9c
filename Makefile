GO ?= go

.PHONY: build
build: # bin/millrace
	$(GO) build -o bin/millrace ./cmd/millrace

.PHONY: run
run: build # three nodes, real flights, live views: about a minute
	bin/millrace demo

.PHONY: test
test: build lint # everything that must pass
	$(GO) test -tags invariants ./...
	$(GO) test -race ./coordinator ./partition/... ./node ./client

DURATION ?= 2m
NODES ?= 3
SEED ?= 0
RUNS ?= 1
FAULTS ?=
POWER ?=

.PHONY: chaos
chaos: # disturb a cluster and check all it says; DURATION, NODES, SEED, RUNS, FAULTS=kill,cut,..., POWER=1
	$(GO) run ./test/chaos -duration $(DURATION) -nodes $(NODES) -seed $(SEED) -runs $(RUNS) -faults "$(FAULTS)" $(if $(POWER),-power)

.PHONY: lint
lint: # formatting, vet, staticcheck
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: proto
proto: # generated code under proto/, after a change of a .proto
	$(GO) run ./internal/protogen

.PHONY: bench
bench: build # within ten minutes; writes bench.json
	$(GO) run ./test/bench

.PHONY: bench-quick
bench-quick: build # within one minute
	$(GO) run ./test/bench -quick

.PHONY: bench-failover
bench-failover: build # 50 times kill -9 under load, hangs, handovers, rolling restarts: some ten minutes; FLAGS=-peers adds Kafka
	$(GO) run ./test/bench -failover $(FLAGS)

.PHONY: bench-state
bench-state: build # how long a view of 1 GB lacks the newest tick when a node is lost; three minutes
	$(GO) run ./test/bench -state

.PHONY: bench-memory
bench-memory: build # RSS of a node with 256 MiB and 2.7 GB of state in all it does, and whether its answers are right; some ten minutes, 10 GB of disk
	$(GO) run ./test/bench -memory $(FLAGS)

.PHONY: bench-move
bench-move: build # a fourth node joins 5 GB of log and 1 GB of view state under load, then one is drained; some ten minutes, 25 GB of disk
	$(GO) run ./test/bench -move $(FLAGS)

.PHONY: bench-nexmark
bench-nexmark: build # Nexmark's queries on one node; FLAGS=-peers runs Flink beside, FLAGS="-only q5,q7 -events 2000000" sizes it
	$(GO) run ./test/bench -nexmark $(FLAGS)

.PHONY: bench-peers
bench-peers: build # beside Kafka, and Nexmark beside Flink; needs a JDK, Maven and python3; FLAGS sizes Nexmark
	$(GO) run ./test/bench -peers $(FLAGS)

.PHONY: differential
differential: # generated queries as live views against PostgreSQL 15; FLAGS="-postgres DSN -duration 1h"
	$(GO) run ./test/differential $(FLAGS)
