package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/millrace/millrace/client"
)

// figure names an append run that both we and Kafka make.
type figure struct {
	replicas, size int
	compressed     bool
}

// kafkaRun is one of Kafka's setups: its script's selection, and what its figures are compared under.
type kafkaRun struct {
	only     string
	replicas int
	flush    string
	name     string // of the ratio
}

// besidePeers measures our appends, then Kafka's, then ours again, and reports ours (the mean of both runs) over Kafka's.
func (b *bench) besidePeers() error {
	ours := map[figure][]float64{}
	if err := b.ownAppends(ours); err != nil {
		return err
	}
	kafka := map[string]map[figure]float64{}
	runs := []kafkaRun{
		{"1/every append/throughput", 1, "every append", "append_vs_kafka_fsync"},
		{"1/page cache/throughput", 1, "page cache", "append_vs_kafka"},
		{"3/page cache/throughput", 3, "page cache", "append_vs_kafka"},
	}
	for _, k := range runs {
		got, err := b.kafka(k)
		if err != nil {
			return err
		}
		kafka[k.only] = got
	}
	if err := b.ownAppends(ours); err != nil {
		return err
	}
	for _, k := range runs {
		for _, size := range []int{100, 1024} {
			for _, compressed := range []bool{false, true} {
				f := figure{k.replicas, size, compressed}
				theirs, ok := kafka[k.only][f]
				if !ok {
					continue // the fsync runs have no compressed figures
				}
				mean := (ours[f][0] + ours[f][1]) / 2
				compression := "none"
				if compressed {
					compression = "s2 and lz4"
				}
				err := b.report(k.name, mean/theirs, "ratio", map[string]any{
					"record_bytes": size, "replicas": k.replicas, "compression": compression, "flush": k.flush,
					"millrace": ours[f], "kafka": theirs,
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ownAppends adds one run of every figure.
func (b *bench) ownAppends(to map[figure][]float64) error {
	for _, replicas := range []int{1, 3} {
		c, err := b.cluster(replicas, partitionsFor(replicas))
		if err != nil {
			return err
		}
		for _, size := range []int{100, 1024} {
			for _, compression := range []client.Compression{client.NoCompression, client.S2} {
				run, err := b.appendFigures(c, replicas, size, "json", compression)
				if err != nil {
					c.stop()
					return err
				}
				f := figure{replicas, size, compression != client.NoCompression}
				to[f] = append(to[f], run.records)
			}
		}
		c.stop()
	}
	return nil
}

// kafka runs the peer's script and returns its median records/s.
func (b *bench) kafka(k kafkaRun) (map[figure]float64, error) {
	seconds := "8"
	if b.quick {
		seconds = "4"
	}
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.peers, "kafka", "run.sh"))
	cmd.Env = append(os.Environ(), "ONLY="+k.only, "RUNS=1", "RUN_SECONDS="+seconds)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w (give the folder with -peers-dir)", cmd.Path, err)
	}
	out, err := medians(stdout, k.replicas)
	if werr := cmd.Wait(); werr != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Path, werr)
	}
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%s gave no figures for %s", cmd.Path, k.only)
	}
	return out, err
}

// medians reads the medians of throughput that the peers' scripts print.
func medians(in io.Reader, replicas int) (map[figure]float64, error) {
	out := map[figure]float64{}
	err := peerRows(in, func(row map[string]string) error {
		if row["what"] != "throughput" || row["run"] != "median" {
			return nil
		}
		size, err := strconv.Atoi(row["record_bytes"])
		if err != nil {
			return err
		}
		rate, err := strconv.ParseFloat(row["records_per_s"], 64)
		if err != nil {
			return err
		}
		out[figure{replicas, size, row["compression"] != "none"}] = rate
		return nil
	})
	return out, err
}

// peerRows reads the CSV that the peers' scripts print.
func peerRows(in io.Reader, each func(row map[string]string) error) error {
	r := csv.NewReader(in)
	header, err := r.Read()
	if err != nil {
		return err
	}
	for {
		line, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		row := map[string]string{}
		for i, name := range header {
			row[name] = line[i]
		}
		if err := each(row); err != nil {
			return err
		}
	}
}
