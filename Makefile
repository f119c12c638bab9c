GO ?= go

.PHONY: build
build:
	$(GO) build -o bin/millrace ./cmd/millrace

.PHONY: proto
proto:
	$(GO) run ./internal/protogen
