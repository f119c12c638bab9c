// Command chaos runs a cluster of real processes, disturbs it at random from a seed while it is worked on, and checks all
// that it said. It exits with 1 when something was wrong, and keeps the nodes' logs and data then.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/test/chaos/faulty"
	"github.com/millrace/millrace/test/chaos/load"
	"github.com/millrace/millrace/test/chaos/nemesis"
)

func main() { os.Exit(command()) }

func command() int {
	s := settings{load: load.DefaultConfig()}
	var kinds string
	var seeds int
	var plain bool
	var build string
	flag.StringVar(&s.root, "root", ".", "source tree to build")
	flag.StringVar(&s.binary, "binary", "", "built program to use instead")
	flag.StringVar(&build, "build", "", "only build the program, with its switches, into this file")
	flag.BoolVar(&plain, "plain", false, "the program as it is: no slow or failing disks, no clock steps")
	flag.DurationVar(&s.duration, "duration", 2*time.Minute, "how long to disturb, in each run")
	flag.IntVar(&s.nodes, "nodes", 3, "nodes")
	flag.IntVar(&s.replicas, "replicas", 3, "target number of replicas")
	flag.Uint64Var(&s.seed, "seed", 0, "seed of the faults; 0: a new one")
	flag.IntVar(&seeds, "runs", 1, "runs, each with the next seed; ends at the first with violations")
	flag.StringVar(&kinds, "faults", "", "kinds of faults, by commas; all of "+strings.Join(nemesis.Kinds(), ",")+" where not given")
	flag.StringVar(&s.dir, "dir", "", "folder for the nodes (default: a temporary one)")
	flag.BoolVar(&s.keep, "keep", false, "keep the nodes' logs and data in any case")
	flag.BoolVar(&s.spaces, "spaces", true, "give each node a network namespace, where root allows, to cut networks")
	flag.BoolVar(&s.power, "power", false, "every kill is a power failure: files are in memory, and what wasn't synced is lost")
	flag.BoolVar(&s.lie, "lie", false, "disks lie about fsync, to see that the checks find what that loses; with -power")
	flag.IntVar(&s.load.Producers, "producers", s.load.Producers, "producers")
	flag.IntVar(&s.load.Views, "views", s.load.Views, "views besides the bank's, chosen by the seed; 0: all")
	flag.IntVar(&s.load.Rate, "rate", s.load.Rate, "records per second of each")
	flag.Parse()
	if build != "" {
		if err := faulty.Build(s.root, build); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if s.spaces {
		if code, done := enter(); done {
			return code
		}
	}
	s.switches = !plain
	if plain && s.power {
		fmt.Fprintln(os.Stderr, "-power needs the program with its switches; leave -plain out")
		return 2
	}
	if kinds != "" {
		s.kinds = strings.Split(kinds, ",")
		for _, k := range s.kinds {
			if !slices.Contains(nemesis.Kinds(), k) {
				fmt.Fprintf(os.Stderr, "-faults: no kind is called %q\n", k)
				return 2
			}
		}
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for range seeds {
		fmt.Printf("seed %d, %d nodes, %v\n", s.seed, s.nodes, s.duration)
		r, err := run(ctx, s, os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			return 1
		}
		r.print(os.Stdout)
		if r.violations > 0 {
			return 1
		}
		s.seed++
	}
	return 0
}
