// Command bench measures the built binary (bin/millrace) from outside: real processes on loopback ports, data in a
// temporary folder. It prints a table and writes the same to bench.json, one object a line.
//
// These machines are noisy: compare ratios within one run, with nothing else running.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	ctx    context.Context
	binary string
	dir    string // temporary
	out    *os.File
	quick  bool
	peers  string   // folder of the peers' scripts
	extra  []string // flags of the nodes that are started
}

func main() {
	quick := flag.Bool("quick", false, "within a minute: fewer figures, shorter runs")
	peers := flag.Bool("peers", false, "Kafka between two runs of our own, then Nexmark beside Flink, and the ratios")
	dir := flag.String("peers-dir", "../shared/peers", "where the peers' scripts are")
	failover := flag.Bool("failover", false, "only: how long appends stop when a node is lost; with -peers beside Kafka")
	state := flag.Bool("state", false, "only: how long a view of 1 GB lacks the newest tick when a node is lost")
	move := flag.Bool("move", false, "only: a node joins, and one is drained, with 5 GB of log and 1 GB of view state, under load")
	memory := flag.Bool("memory", false, "only: the memory of a node whose state is ten times as large as --memory, and whether its answers are right")
	kafkaRounds := flag.Int("kafka-rounds", 5, "of Kafka, with -failover -peers; some 45 seconds each")
	var nex nexmark
	queries := flag.Bool("nexmark", false, "only: Nexmark's queries on one node, from events that are made and from the log; with -peers beside Flink")
	nex.flags()
	rounds := flag.Int("rounds", 50, "of kill -9, with -failover; a fifth as many of the other faults")
	only := flag.String("only", "", "comma-separated: append, views, latency, start, idle; with -failover: kill, hang, quiet, handover, rolling, alarms; with -nexmark: q0 to q23")
	binary := flag.String("binary", "bin/millrace", "what to measure")
	file := flag.String("out", "bench.json", "where the figures go")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, func(b *bench) error {
		b.quick, b.peers = *quick, *dir
		switch {
		case *failover:
			if !*peers {
				*kafkaRounds = 0
			}
			return b.failovers(*rounds, *only, *kafkaRounds)
		case *move:
			return b.moves()
		case *memory:
			return b.memoryBounds()
		case *state:
			return b.stateLoss()
		case *queries:
			nex.flink = *peers
			return b.nexmark(nex, *only)
		case *peers:
			return errors.Join(b.besidePeers(), b.nexmark(nex.besideFlink(), *only))
		}
		return b.figures(*only)
	}, *binary, *file)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, do func(*bench) error, binary, file string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	return do(&bench{ctx: ctx, binary: binary, dir: dir, out: out})
}

// length is that of a measured append run.
func (b *bench) length() time.Duration {
	if b.quick {
		return 2 * time.Second
	}
	return 6 * time.Second
}

// figures measures what make bench shows, or the parts of it that only names.
func (b *bench) figures(only string) error {
	parts := []struct {
		name string
		run  func() error
	}{
		{"start", b.start}, {"append", b.appends}, {"views", b.views}, {"latency", b.latency}, {"idle", b.idle},
	}
	for _, p := range parts {
		if !wanted(only, p.name) {
			continue
		}
		if err := p.run(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// wanted tells whether a part is among those that a comma-separated list names; an empty one names all.
func wanted(only, part string) bool {
	return only == "" || strings.Contains(","+only+",", ","+part+",")
}

// row is one figure.
type row struct {
	Name     string         `json:"name"`
	Value    float64        `json:"value"`
	Unit     string         `json:"unit"`
	Settings map[string]any `json:"settings,omitempty"`
}

// report prints a figure and writes it to bench.json.
func (b *bench) report(name string, value float64, unit string, settings map[string]any) error {
	if err := b.write(row{name, value, unit, settings}); err != nil {
		return err
	}
	var at []string
	for _, k := range []string{"query", "record_bytes", "payload", "replicas", "compression", "keys", "rate", "flush", "state_mb", "log_mb", "acked_s", "gone_s"} {
		if v, ok := settings[k]; ok {
			at = append(at, fmt.Sprintf("%s=%v", k, v))
		}
	}
	fmt.Printf("%-34s %14s %-10s %s\n", name, number(value), unit, strings.Join(at, " "))
	return nil
}

// write writes a figure to bench.json.
func (b *bench) write(r row) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = b.out.Write(append(line, '\n'))
	return err
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
