// Command bench measures the built binary (bin/millrace) from outside: real processes on loopback ports, data in a
// temporary folder. It prints a table and writes the same to bench.json, one object a line.
//
// These machines are noisy: compare ratios within one run, with nothing else running.
package main

import (
	"context"
	"encoding/json"
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
	peers  string        // folder of the peers' scripts
	length time.Duration // of a measured append run
}

func main() {
	quick := flag.Bool("quick", false, "within a minute: fewer figures, shorter runs")
	peers := flag.Bool("peers", false, "Kafka between two runs of our own, and the ratios")
	dir := flag.String("peers-dir", "../shared/peers", "where the peers' scripts are")
	only := flag.String("only", "", "comma-separated: append, views, latency, start, idle")
	binary := flag.String("binary", "bin/millrace", "what to measure")
	file := flag.String("out", "bench.json", "where the figures go")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *quick, *peers, *dir, *only, *binary, *file)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, quick, peers bool, peersDir, only, binary, file string) error {
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
	b := &bench{ctx: ctx, binary: binary, dir: dir, out: out, quick: quick, peers: peersDir, length: 6 * time.Second}
	if quick {
		b.length = 2 * time.Second
	}
	if peers {
		return b.besidePeers()
	}
	parts := []struct {
		name string
		run  func() error
	}{
		{"start", b.start}, {"append", b.appends}, {"views", b.views}, {"latency", b.latency}, {"idle", b.idle},
	}
	for _, p := range parts {
		if only != "" && !strings.Contains(","+only+",", ","+p.name+",") {
			continue
		}
		if err := p.run(); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
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
	line, err := json.Marshal(row{name, value, unit, settings})
	if err != nil {
		return err
	}
	if _, err := b.out.Write(append(line, '\n')); err != nil {
		return err
	}
	var at []string
	for _, k := range []string{"record_bytes", "payload", "replicas", "compression", "keys", "rate", "flush"} {
		if v, ok := settings[k]; ok {
			at = append(at, fmt.Sprintf("%s=%v", k, v))
		}
	}
	fmt.Printf("%-34s %14s %-10s %s\n", name, number(value), unit, strings.Join(at, " "))
	return nil
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
