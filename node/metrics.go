package node

import (
	"context"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// metrics is what /metrics tells besides the parts' own figures, which it asks for at each scrape.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.HistogramVec
}

func newMetrics(n *Node) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "millrace_grpc_call_seconds", Help: "Length of gRPC calls by method and code.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5, 30},
		}, []string{"method", "code"}),
	}
	m.registry.MustRegister(m.calls, &figures{n: n}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// figures collects the parts' figures.
type figures struct{ n *Node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("millrace_"+name, help, labels, nil)
}

var (
	descTick       = desc("tick_microseconds", "Newest tick that this node has seen.")
	descLeader     = desc("leader", "1 while this node leads the cluster.")
	descPartitions = desc("partitions", "Partitions on this node by role.", "role")
	descHeld       = desc("replicas_held", "Replicas on this node that keep acknowledged records which their primary's log lacks, and wait for an operator.")
	descEndBytes   = desc("partition_end_bytes", "Bytes in the logs of a partition whose primary is here.", "partition")
	descRecords    = desc("stream_records", "Records of a stream in the partitions whose primary is here.", "stream")
	descBytes      = desc("stream_bytes", "Bytes of a stream in the partitions whose primary is here.", "stream")
	descAppends    = desc("appends_total", "Batches taken.")
	descRefused    = desc("appends_refused_total", "Batches refused, for whatever reason.")
	descSyncs      = desc("log_fsyncs_total", "Fsyncs of the log store.")
	descSyncTime   = desc("log_fsync_seconds_total", "Time spent in fsyncs of the log store.")
	descDisk       = desc("disk_bytes", "Bytes on disk by store.", "store")
	descPending    = desc("append_pending_bytes", "Bytes of appends that wait for the disk or replicas.")
	descCompacted  = desc("compactions_total", "Compactions of a table's log in a partition.")
	descCopied     = desc("compaction_copied_records_total", "Rows that compactions appended again.")
	descCompBytes  = desc("compaction_removed_bytes_total", "Bytes of tables' logs that compactions removed.")
	descViewTick   = desc("view_tick_microseconds", "Least tick that a view has reached in the partitions here.", "view")
	descViewRows   = desc("view_rows", "Rows of a view in the partitions here.", "view")
	descViewErrors = desc("view_errors_total", "Expressions that failed in a view, in the partitions here.", "view")
	descViewLate   = desc("view_late_total", "Late rows that a view dropped, in the partitions here.", "view")
	descShipSent   = desc("ship_sent_bytes_total", "Bytes of views' state sent to other replicas.")
	descShipCopied = desc("ship_copied_bytes_total", "Of these, bytes of copies for replicas that were too far behind.")
	descShipTaken  = desc("ship_received_bytes_total", "Bytes of views' state taken from primaries.")
	descShipLag    = desc("ship_lag_seconds", "By how much the state of the furthest replica that follows lies behind the stored one here.")
	descShipBehind = desc("ship_replicas_behind", "Replicas of partitions whose primary is here that lack the state of some view.")
	descShipKept   = desc("ship_backlog_bytes", "Bytes kept in memory for replicas that are behind.")
	descIngest     = desc("ingest_held_bytes", "Bytes of clients' appends that this node holds.")
	descOverload   = desc("ingest_refused_total", "Appends refused because the node, or their connection, had too much to do.")
	descQueries    = desc("query_held_bytes", "Bytes of rows that ad-hoc statements hold here.")
	descQueriesOut = desc("query_refused_total", "Statements ended because they, or all together, held too much.")
	descMemory     = desc("memory_budget_bytes", "What a part of the node's memory may take; total: all, heap: the limit of Go's heap.", "part")
	descMemoryUsed = desc("memory_used_bytes", "What a part of the node's memory takes, where it is counted.", "part")
	descReaders    = desc("readers", "Reads of streams and subscriptions that this node serves.")
	descDiskFree   = desc("disk_free_bytes", "Free bytes of the disk of the log, when it was looked at last.")
	descDiskFull   = desc("disk_refused_total", "Appends and commits refused because the disk is nearly full, by store.", "store")
	descViewState  = desc("view_state_bytes", "Bytes of a view's state in the partitions here.", "view")
)

// Describe implements prometheus.Collector.
func (f *figures) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descTick, descLeader, descPartitions, descHeld, descEndBytes, descRecords, descBytes,
		descAppends, descRefused, descSyncs, descSyncTime, descDisk, descPending, descViewTick, descViewRows, descViewErrors, descViewLate, descViewState,
		descIngest, descOverload, descQueries, descQueriesOut, descMemory, descMemoryUsed, descReaders, descDiskFree, descDiskFull, descCompacted, descCopied, descCompBytes,
		descShipSent, descShipCopied, descShipTaken, descShipLag, descShipBehind, descShipKept} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *figures) Collect(ch chan<- prometheus.Metric) {
	n := f.n
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	tick, _ := n.coord.LastTick()
	gauge(descTick, float64(tick))
	leads := 0.0
	if n.coord.IsLeader() {
		leads = 1
	}
	gauge(descLeader, leads)
	roles, held := map[string]int{}, 0
	for _, r := range n.host.Status() {
		roles[r.Role.String()]++
		if r.Held {
			held++
		}
	}
	gauge(descHeld, float64(held))
	for role, count := range roles {
		gauge(descPartitions, float64(count), role)
	}
	load := n.host.Load()
	counter(descAppends, float64(load.Appends))
	counter(descRefused, float64(load.Refused))
	gauge(descPending, float64(load.PendingBytes))
	counter(descCompacted, float64(load.Compactions))
	counter(descCopied, float64(load.CopiedRecords))
	counter(descCompBytes, float64(load.CompactedBytes))
	log := n.logStore.Metrics()
	counter(descSyncs, float64(log.Syncs))
	counter(descSyncTime, log.SyncTime.Seconds())
	gauge(descDisk, float64(log.DiskBytes), "log")
	gauge(descDisk, float64(n.stateStore.Metrics().DiskBytes), "state")
	ship := n.runtime.ShipMetrics()
	counter(descShipSent, float64(ship.SentBytes))
	counter(descShipCopied, float64(ship.CopiedBytes))
	counter(descShipTaken, float64(ship.ReceivedBytes))
	gauge(descShipLag, ship.Lag.Seconds())
	gauge(descShipBehind, float64(ship.Behind))
	gauge(descShipKept, float64(ship.BacklogBytes))
	f.limitFigures(gauge, counter)
	f.catalogFigures(gauge, counter)
}

// limitFigures are how near the node is to its bounds.
func (f *figures) limitFigures(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	n := f.n
	gauge(descIngest, float64(n.intake.held.Load()))
	counter(descOverload, float64(n.intake.refused.Load()))
	gauge(descQueries, float64(n.queries.held.Load()))
	counter(descQueriesOut, float64(n.queries.refused.Load()))
	gauge(descReaders, float64(n.readers.now.Load()))
	f.memoryFigures(gauge)
	log := n.logStore.Metrics()
	gauge(descDiskFree, float64(log.DiskFreeBytes))
	counter(descDiskFull, float64(log.SpaceRefused), "log")
	counter(descDiskFull, float64(n.stateStore.Metrics().SpaceRefused), "state")
}

// memoryFigures are the parts of the node's memory.
func (f *figures) memoryFigures(gauge func(*prometheus.Desc, float64, ...string)) {
	n, b := f.n, f.n.budget
	for name, part := range map[string]int64{
		"total": b.Total, "heap": b.Heap, "tables": b.Tables, "block_cache": b.BlockCache, "in_flight": b.InFlight, "ingest": b.Ingest,
		"batches": b.Batches, "dirty": b.Dirty, "state": b.State, "exchange": b.Exchange, "decoded": b.Decoded, "scratch": b.Scratch,
		"changes": b.Changes, "backlog": b.Backlog, "queries": b.Queries, "statement": b.Statement,
	} {
		gauge(descMemory, float64(part), name)
	}
	log, state, views := n.logStore.Metrics(), n.stateStore.Metrics(), n.runtime.Metrics()
	for name, used := range map[string]int64{
		"tables": int64(log.MemTableBytes + state.MemTableBytes), "block_cache": log.CacheBytes + state.CacheBytes,
		"in_flight": n.host.Load().PendingBytes, "ingest": n.intake.held.Load(), "dirty": views.DirtyBytes, "state": views.StateBytes,
		"decoded": views.DecodedBytes, "scratch": views.ScratchBytes, "backlog": n.runtime.ShipMetrics().BacklogBytes, "queries": n.queries.held.Load(),
	} {
		gauge(descMemoryUsed, float64(used), name)
	}
}

// catalogFigures are those of the streams and views, in the partitions whose primary is here.
func (f *figures) catalogFigures(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	c := f.n.catalog()
	stats, err := f.n.stats(context.Background(), &internalv1.StatsRequest{})
	if err != nil {
		f.n.log.Debug("no figures of streams", "err", err) // a partition moves: next time
		return
	}
	for _, p := range stats.Partitions {
		gauge(descEndBytes, float64(p.EndBytes), strconv.Itoa(int(p.Partition)))
	}
	for _, s := range stats.Streams {
		if d := c.streams[ids.StreamID(s.Stream)]; d != nil {
			gauge(descRecords, float64(s.Records), d.Stream.Name)
			gauge(descBytes, float64(s.Bytes), d.Stream.Name)
		}
	}
	for _, v := range stats.Views {
		if d := c.views[ids.StreamID(v.View)]; d != nil && v.Partitions > 0 && !hidden(d) {
			gauge(descViewTick, float64(v.Tick), d.Name)
			gauge(descViewRows, float64(v.Rows), d.Name)
			counter(descViewErrors, float64(v.Errors), d.Name)
			counter(descViewLate, float64(v.Late), d.Name)
			gauge(descViewState, float64(v.StateBytes), d.Name)
		}
	}
}
