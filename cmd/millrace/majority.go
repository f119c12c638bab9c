package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/coordinator"
	"github.com/millrace/millrace/node"
)

func (a *app) recoverMajorityCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "recover-majority --data DIR --unsafe",
		Short: "Offline: go on with one node when most voters are lost for good",
		Long: `Recover-majority makes a node the only voter of its cluster. The node must be stopped; it isn't asked over the network, its data
folder is changed. Use it when most of the cluster's voters have lost their disks, so that no leader can be elected any
more, and never while the others could come back: two clusters would go on from one. What only the lost nodes knew of
(tables and views made last, who was in sync with whom) is forgotten, and records may be lost with it that were acknowledged.

Without --unsafe it says what the folder knows and does nothing. If several nodes are left, run it on each like that and
choose the one whose Raft log has the highest term, then index. Then:

  1. millrace cluster recover-majority --data DIR --unsafe     on that node, while all are stopped
  2. start it with its usual flags, then the others that are left
  3. millrace cluster recover --partition P --node N --unsafe  for partitions that no node left has in sync
  4. millrace cluster remove NODE                              for each lost node
  5. start new nodes with --join

Never start a lost node with its old folder again.`,
		Example: `  millrace cluster recover-majority --data ./data
  millrace cluster recover-majority --data ./data --unsafe`,
		Args: cobra.NoArgs,
	}
	dir := c.Flags().String("data", "", "data folder of the stopped node")
	unsafe := c.Flags().Bool("unsafe", false, "do it, and forget what only the lost nodes knew")
	asJSON := c.Flags().Bool("json", false, "print the result as a JSON object")
	c.RunE = func(_ *cobra.Command, _ []string) error {
		if *dir == "" {
			return usagef("name the node's data folder: --data DIR")
		}
		log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		m, err := node.RecoverMajority(*dir, log, *unsafe)
		if err != nil {
			return err
		}
		if *asJSON {
			err = writeJSONLine(a.stdout, newMajorityStatus(m, *unsafe))
		} else {
			err = writeMajority(a.stdout, m, *unsafe)
		}
		if err == nil && !*unsafe {
			err = fmt.Errorf("nothing was done; with --unsafe node %s becomes the only voter, and what only others knew is forgotten", m.Node)
		}
		return err
	}
	return c
}

// majorityStatus is what recover-majority --json prints.
type majorityStatus struct {
	Cluster    string   `json:"cluster"`
	Node       string   `json:"node"`
	ID         string   `json:"id"`
	Voters     []string `json:"voters"`
	Term       uint64   `json:"term"`
	Index      uint64   `json:"index"`
	Partitions int      `json:"partitions"`
	NotInSync  []uint32 `json:"not_in_sync"` // partitions without a copy here that was in sync
	Done       bool     `json:"done"`
}

func newMajorityStatus(m *coordinator.LostMajority, done bool) majorityStatus {
	s := majorityStatus{
		Cluster: m.Cluster, Node: m.Node, ID: string(m.ID), Voters: append([]string{}, m.Voters...), Term: m.LastTerm, Index: m.LastIndex,
		Partitions: m.Partitions, NotInSync: []uint32{}, Done: done,
	}
	for _, p := range m.Elsewhere {
		s.NotInSync = append(s.NotInSync, uint32(p))
	}
	return s
}

func writeMajority(w io.Writer, m *coordinator.LostMajority, done bool) error {
	fmt.Fprintf(w, "node %s (%s) of cluster %s\n", m.Node, m.ID, m.Cluster)
	fmt.Fprintf(w, "voters were %s\n", strings.Join(m.Voters, ", "))
	fmt.Fprintf(w, "its Raft log ends at term %d, index %d\n", m.LastTerm, m.LastIndex)
	fmt.Fprintf(w, "it has %d of %d partitions in sync\n", m.Partitions-len(m.Elsewhere), m.Partitions)
	if len(m.Elsewhere) > 0 {
		var list []string
		for _, p := range m.Elsewhere {
			list = append(list, fmt.Sprint(p))
		}
		fmt.Fprintf(w, "not in sync here: %s\n", strings.Join(list, ", "))
	}
	if done {
		fmt.Fprintln(w, "it is the only voter now: start it, then remove the lost nodes")
	}
	return nil
}
