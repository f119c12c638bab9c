package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// flinkRun is what a query took on Flink, with RocksDB; wall and CPU include making the events.
type flinkRun struct {
	perSecond, perCPUSecond, rss float64
}

// besideFlink runs a query over the same events on Flink, and reports ours over Flink's.
func (b *bench) besideFlink(query string, ours nexmarkRun) error {
	theirs, err := b.flink(query, ours.events)
	if err != nil {
		return err
	}
	fmt.Printf("%-5s %-7s %9d %9.2f %11.0f %12.0f %12s %8.0f\n", query, "Flink", ours.events, float64(ours.events)/theirs.perSecond,
		theirs.perSecond, theirs.perCPUSecond, "-", theirs.rss)
	at := map[string]any{"query": query, "events": ours.events, "per": "CPU second", "millrace": ours.perCPUSecond(), "flink": theirs.perCPUSecond, "backend": "rocksdb"}
	if err := b.report("nexmark_vs_flink", ours.perCPUSecond()/theirs.perCPUSecond, "ratio", at); err != nil {
		return err
	}
	at = map[string]any{"query": query, "events": ours.events, "per": "second", "millrace": ours.perSecond(), "flink": theirs.perSecond, "backend": "rocksdb"}
	return b.report("nexmark_vs_flink_wall", ours.perSecond()/theirs.perSecond, "ratio", at)
}

// flink runs the peer's script for one query.
func (b *bench) flink(query string, events int) (run flinkRun, err error) {
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.peers, "flink", "run.sh"), query)
	cmd.Env = append(os.Environ(), "EVENTS="+strconv.Itoa(events), "REPEAT=1", "EVENT_TIME_SECONDS="+strconv.Itoa(nexmarkSpan))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return run, err
	}
	if err := cmd.Start(); err != nil {
		return run, fmt.Errorf("%s: %w (give the folder with -peers-dir)", cmd.Path, err)
	}
	found := false
	rerr := peerRows(stdout, func(row map[string]string) error {
		found = true
		for name, to := range map[string]*float64{"events_per_s": &run.perSecond, "events_per_cpu_s": &run.perCPUSecond, "peak_rss_mib": &run.rss} {
			v, err := strconv.ParseFloat(row[name], 64)
			if err != nil {
				return fmt.Errorf("%s of Flink: %w", name, err)
			}
			*to = v
		}
		run.rss *= 1.048576
		return nil
	})
	switch werr := cmd.Wait(); {
	case werr != nil:
		return run, fmt.Errorf("%s: %w", cmd.Path, werr)
	case rerr != nil:
		return run, rerr
	case !found:
		return run, fmt.Errorf("%s gave no figures for %s", cmd.Path, query)
	}
	return run, nil
}
