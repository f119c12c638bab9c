package main

import (
	"context"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/client"
)

const (
	defaultAddr = "127.0.0.1:7070"
	defaultPort = "7070"
	addrEnv     = "MILLRACE_ADDR" // taken where --addr isn't given
)

// addrFlag adds --addr and returns where its values will be.
func addrFlag(c *cobra.Command) *[]string {
	return c.Flags().StringSlice("addr", nil, "gRPC address of any node; repeat or separate by commas for alternatives (default "+defaultAddr+", or $"+addrEnv+")")
}

// addresses returns the nodes to try, in order.
func addresses(given []string) ([]string, error) {
	if len(given) == 0 {
		given = strings.FieldsFunc(os.Getenv(addrEnv), func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(given) == 0 {
		return []string{defaultAddr}, nil
	}
	var out []string
	for _, a := range given {
		a = strings.TrimSpace(a)
		if !strings.Contains(a, ":") {
			a = net.JoinHostPort(a, defaultPort)
		}
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			return nil, usagef("--addr %q: want HOST:PORT", a)
		}
		if _, err := net.LookupPort("tcp", port); err != nil || port == "" || port == "0" {
			return nil, usagef("--addr %q: %q is not a port", a, port)
		}
		if host == "" {
			a = net.JoinHostPort("127.0.0.1", port)
		}
		out = append(out, a)
	}
	return out, nil
}

// connect dials the cluster.
func connect(ctx context.Context, given []string) (*client.Client, error) {
	addrs, err := addresses(given)
	if err != nil {
		return nil, err
	}
	return client.Dial(ctx, addrs)
}
