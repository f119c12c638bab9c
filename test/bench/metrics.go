package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// fsyncSeconds is the time that each node has spent in fsync of its log so far.
func (c *nodes) fsyncSeconds(ctx context.Context) ([]float64, error) {
	out := make([]float64, len(c.procs))
	for i, p := range c.procs {
		v, err := metric(ctx, p.http, "millrace_log_fsync_seconds_total")
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// metric reads one unlabelled figure of a node's /metrics.
func metric(ctx context.Context, address, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		if v, ok := strings.CutPrefix(in.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("%s: no %s in /metrics", address, name)
}
