package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cluster",
		Short: "Look at a cluster and change its membership",
		Example: `  millrace cluster status
  millrace cluster drain n2
  millrace cluster remove n2`,
	}
	c.AddCommand(a.statusCommand(), a.drainCommand(), a.removeCommand(), a.recoverCommand(), a.recoverMajorityCommand())
	return c
}

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, partitions and what moves between them",
		Example: `  millrace cluster status
  millrace cluster status --json | jq '.nodes[] | {name, state, primaries}'`,
		Args: cobra.NoArgs,
	}
	addr := addrFlag(c)
	asJSON := c.Flags().Bool("json", false, "print one JSON object")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cl, err := connect(c.Context(), *addr)
		if err != nil {
			return err
		}
		defer cl.Close()
		d, err := cl.Cluster().Describe(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			for _, n := range d.Notices {
				fmt.Fprintf(a.stderr, "millrace: %s\n", oneLine(n))
			}
			return writeJSONLine(a.stdout, newClusterStatus(d))
		}
		return writeStatus(a.stdout, d)
	}
	return c
}

// clusterStatus is what cluster status --json prints. Its keys are a contract; a name that isn't there is null, a list
// never is.
type clusterStatus struct {
	Cluster    string            `json:"cluster"`
	Leader     *string           `json:"leader"`
	Tick       uint64            `json:"tick"`
	Nodes      []nodeStatus      `json:"nodes"`
	Partitions []partitionStatus `json:"partitions"`
	Moves      []moveStatus      `json:"moves"`
}

type nodeStatus struct {
	Name      string `json:"name"`
	GRPC      string `json:"grpc"`
	Gossip    string `json:"gossip"`
	HTTP      string `json:"http"`
	Zone      string `json:"zone"`
	State     string `json:"state"`
	Voter     bool   `json:"voter"`
	Replicas  uint32 `json:"replicas"`
	Primaries uint32 `json:"primaries"`
	PG        string `json:"pg"`
}

type partitionStatus struct {
	ID       uint32   `json:"id"`
	Epoch    uint64   `json:"epoch"`
	Primary  *string  `json:"primary"`
	Replicas []string `json:"replicas"`
	InSync   []string `json:"in_sync"`
	EndBytes uint64   `json:"end_bytes"`
}

type moveStatus struct {
	Partition  uint32  `json:"partition"`
	From       *string `json:"from"`
	To         *string `json:"to"`
	Phase      string  `json:"phase"`
	DoneBytes  uint64  `json:"done_bytes"`
	TotalBytes uint64  `json:"total_bytes"`
	PerSecond  uint64  `json:"bytes_per_second"` // 0: not known
}

func newClusterStatus(d *millracev1.DescribeResponse) clusterStatus {
	s := clusterStatus{
		Cluster: d.Cluster, Leader: orNull(d.Leader), Tick: d.Tick,
		Nodes: []nodeStatus{}, Partitions: []partitionStatus{}, Moves: []moveStatus{},
	}
	for _, n := range d.Nodes {
		s.Nodes = append(s.Nodes, nodeStatus{Name: n.Name, GRPC: n.Grpc, Gossip: n.Gossip, HTTP: n.Http, Zone: n.Zone,
			State: n.State, Voter: n.Voter, Replicas: n.Replicas, Primaries: n.Primaries, PG: n.Pg})
	}
	for _, p := range d.Partitions {
		s.Partitions = append(s.Partitions, partitionStatus{ID: p.Id, Epoch: p.Epoch, Primary: orNull(p.Primary),
			Replicas: append([]string{}, p.Replicas...), InSync: append([]string{}, p.InSync...), EndBytes: p.EndBytes})
	}
	for _, m := range d.Moves {
		s.Moves = append(s.Moves, moveStatus{Partition: m.Partition, From: orNull(m.From), To: orNull(m.To), Phase: m.Phase,
			DoneBytes: m.DoneBytes, TotalBytes: m.TotalBytes, PerSecond: m.BytesPerSecond})
	}
	return s
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// writeJSONLine writes a value in one line, as it is: no escapes for HTML's sake.
func writeJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// writeStatus writes the status for people.
func writeStatus(w io.Writer, d *millracev1.DescribeResponse) error {
	fmt.Fprintf(w, "cluster %s   leader %s   tick %d\n\n", d.Cluster, orDash(d.Leader), d.Tick)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tZONE\tGRPC\tGOSSIP\tHTTP\tPG\tVOTER\tREPLICAS\tPRIMARIES")
	for _, n := range d.Nodes {
		voter := "no"
		if n.Voter {
			voter = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", n.Name, n.State, orDash(n.Zone), n.Grpc, n.Gossip, n.Http, orDash(n.Pg), voter, n.Replicas, n.Primaries)
	}
	t.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(t, "PARTITION\tEPOCH\tPRIMARY\tREPLICAS\tIN SYNC\tSIZE")
	for _, p := range d.Partitions {
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%s\n", p.Id, p.Epoch, orDash(p.Primary), orDash(strings.Join(p.Replicas, ",")),
			orDash(strings.Join(p.InSync, ",")), humanBytes(p.EndBytes))
	}
	t.Flush()
	if len(d.Moves) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "MOVING\tFROM\tTO\tPHASE\tDONE\tOF\tLEFT")
		for _, m := range d.Moves {
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Partition, orDash(m.From), orDash(m.To), m.Phase,
				humanBytes(m.DoneBytes), humanBytes(m.TotalBytes), timeLeft([]*millracev1.Move{m}))
		}
		t.Flush()
		fmt.Fprintf(w, "%s\n", movesLine(d.Moves))
	}
	if len(d.Notices) > 0 {
		fmt.Fprintln(w)
	}
	for _, n := range d.Notices {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	return nil
}

// movesLine sums up what is to be moved.
func movesLine(moves []*millracev1.Move) string {
	var done, total uint64
	for _, m := range moves {
		done, total = done+m.DoneBytes, total+m.TotalBytes
	}
	line := fmt.Sprintf("%d moves", len(moves))
	if len(moves) == 1 {
		line = "1 move"
	}
	if total > 0 {
		line += fmt.Sprintf(", copied %s of %s", humanBytes(done), humanBytes(total))
		if left := timeLeft(moves); left != "-" {
			line += ", about " + left + " left"
		}
	}
	return line
}

// timeLeft is how long moves take at the speed that they have together now; "-" when it isn't known.
func timeLeft(moves []*millracev1.Move) string {
	var left, speed uint64
	for _, m := range moves {
		if m.TotalBytes > m.DoneBytes {
			left += m.TotalBytes - m.DoneBytes
		}
		speed += m.BytesPerSecond
	}
	if left == 0 || speed == 0 {
		return "-"
	}
	return (time.Duration(float64(left)/float64(speed)*float64(time.Second)) + time.Second).Truncate(time.Second).String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// humanBytes writes a size with about three digits.
func humanBytes(n uint64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

func (a *app) drainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move everything off a node, so that it can be stopped",
		Long: `Drain moves all replicas and primaries off a node and waits until it can be stopped; it shows the progress on stderr.
Ctrl-C ends the waiting, not the draining.`,
		Example: `  millrace cluster drain n2
  millrace cluster drain n2 --no-wait`,
		Args: cobra.ExactArgs(1),
	}
	addr := addrFlag(c)
	asJSON := c.Flags().Bool("json", false, "print progress and result as JSON objects")
	noWait := c.Flags().Bool("no-wait", false, "return at once")
	c.RunE = func(c *cobra.Command, args []string) error {
		cl, err := connect(c.Context(), *addr)
		if err != nil {
			return err
		}
		defer cl.Close()
		if err := cl.Cluster().Drain(c.Context(), args[0]); err != nil {
			return err
		}
		state := "draining"
		if !*noWait {
			if err := a.awaitDrained(c.Context(), cl, args[0], *asJSON); err != nil {
				return err
			}
			state = "drained"
		}
		if *asJSON {
			return writeJSONLine(a.stdout, drainStatus{Node: args[0], State: state})
		}
		fmt.Fprintf(a.stdout, "node %s is %s\n", args[0], drainWords[state])
		return nil
	}
	return c
}

// drainWords is what a drain has come to.
var drainWords = map[string]string{
	"draining": "draining; see millrace cluster status",
	"drained":  "drained: nothing depends on it any more, it can be stopped",
}

// drainStatus is how far a drain is.
type drainStatus struct {
	Node      string  `json:"node"`
	State     string  `json:"state"`
	Replicas  *uint32 `json:"replicas,omitempty"` // still on it
	Primaries *uint32 `json:"primaries,omitempty"`
}

// awaitDrained waits and reports each change, and the time now and then.
func (a *app) awaitDrained(ctx context.Context, cl *client.Client, name string, asJSON bool) error {
	begun := time.Now()
	var last string
	var lastAt time.Time
	return cl.Cluster().WaitDrained(ctx, name, func(d *millracev1.DescribeResponse) {
		for _, n := range d.Nodes {
			if n.Name != name && n.Id != name {
				continue
			}
			var own []*millracev1.Move
			for _, m := range d.Moves {
				if m.From == n.Name {
					own = append(own, m)
				}
			}
			line := fmt.Sprintf("%s: %d replicas and %d primaries left", n.State, n.Replicas, n.Primaries)
			if len(own) > 0 {
				line += "; " + movesLine(own)
			}
			if line == last && time.Since(lastAt) < 5*time.Second {
				return
			}
			last, lastAt = line, time.Now()
			if asJSON {
				writeJSONLine(a.stderr, drainStatus{Node: name, State: n.State, Replicas: &n.Replicas, Primaries: &n.Primaries})
			} else {
				fmt.Fprintf(a.stderr, "%5.1f s  %s\n", time.Since(begun).Seconds(), line)
			}
		}
	})
}

func (a *app) removeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take a dead or drained node out of the cluster",
		Example: `  millrace cluster remove n2
  millrace cluster remove n2 --force`,
		Args: cobra.ExactArgs(1),
	}
	addr := addrFlag(c)
	asJSON := c.Flags().Bool("json", false, "print the result as a JSON object")
	force := c.Flags().Bool("force", false, "remove it although it lives and isn't drained")
	c.RunE = func(c *cobra.Command, args []string) error {
		cl, err := connect(c.Context(), *addr)
		if err != nil {
			return err
		}
		defer cl.Close()
		if err := cl.Cluster().Remove(c.Context(), args[0], *force); err != nil {
			return err
		}
		if *asJSON {
			return writeJSONLine(a.stdout, drainStatus{Node: args[0], State: "removed"})
		}
		fmt.Fprintf(a.stdout, "node %s is removed\n", args[0])
		return nil
	}
	return c
}

func (a *app) recoverCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "recover --partition P --node NODE --unsafe",
		Short: "Give up what lost nodes had: force a partition's primary",
		Long: `Recover makes NODE the primary of a partition whose in-sync replicas are all lost for good. What only they had is lost with
that, acknowledged records too, and views may have counted such records already: create them anew to be exact. Without
--unsafe it says what would be lost and does nothing. It is refused while any in-sync replica lives: then nothing needs
to be forced. Afterwards remove the lost nodes, which lets the replicas be made anew.

It also chooses where cluster status notes that a node keeps records which the partition's primary has lost: NODE is then one
of the two, and what only the other has is given up.`,
		Example: `  millrace cluster recover --partition 3 --node n3
  millrace cluster recover --partition 3 --node n3 --unsafe`,
		Args: cobra.NoArgs,
	}
	addr := addrFlag(c)
	partition := c.Flags().Uint32("partition", 0, "number of the partition, see millrace cluster status")
	node := c.Flags().String("node", "", "name or id of the node that shall have it")
	unsafe := c.Flags().Bool("unsafe", false, "do it, and lose what only the lost nodes had")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !c.Flags().Changed("partition") || *node == "" {
			return usagef("name the partition and the node: --partition P --node NODE")
		}
		cl, err := connect(c.Context(), *addr)
		if err != nil {
			return err
		}
		defer cl.Close()
		loss, err := cl.Cluster().Recover(c.Context(), *partition, *node, *unsafe)
		if err != nil {
			return err
		}
		if !*unsafe {
			return fmt.Errorf("nothing was done; with --unsafe: %s", loss)
		}
		fmt.Fprintf(a.stderr, "millrace: %s\n", loss)
		fmt.Fprintf(a.stdout, "node %s is the primary of partition %d\n", *node, *partition)
		return nil
	}
	return c
}
