package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	"github.com/millrace/millrace/plan"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/ring"
	"github.com/millrace/millrace/sql"
)

// A statement that changes a table reads it at a closed tick, works out the records that make the change, and appends
// them on the condition that the table hasn't changed since in their partitions. Where it has, the statement is
// evaluated anew for what is left. So it takes effect as a whole, and in order with all others, in each partition; not
// in all partitions at once. What it finds without appending, that a row isn't there, say, no condition checks: that is
// believed only of a tick above all that had been issued when the statement came.

// tableWriter is this node's way to change one table: a statement at a time, since two at once would only refuse each
// other's appends.
type tableWriter struct {
	turn  chan struct{} // holds one token
	lanes map[ids.PartitionID]*writeLane
}

// writeLane is an idempotent producer of one partition, so that an append whose answer was lost can be sent again.
type writeLane struct {
	producer uint64
	next     uint64
}

// tableWriters are the writers of all tables.
type tableWriters struct {
	mu sync.Mutex
	of map[ids.StreamID]*tableWriter
}

func (w *tableWriters) writer(log ids.StreamID) *tableWriter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = map[ids.StreamID]*tableWriter{}
	}
	t := w.of[log]
	if t == nil {
		t = &tableWriter{turn: make(chan struct{}, 1), lanes: map[ids.PartitionID]*writeLane{}}
		t.turn <- struct{}{}
		w.of[log] = t
	}
	return t
}

// configure forgets the tables that are gone.
func (w *tableWriters) configure(c *catalog) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for log := range w.of {
		if c.streams[log] == nil {
			delete(w.of, log)
		}
	}
}

// lane returns the producer for a partition; renew makes it a new one.
func (w *tableWriter) lane(p ids.PartitionID, renew bool) *writeLane {
	l := w.lanes[p]
	if l == nil || renew {
		l = &writeLane{producer: rand.Uint64()>>1 + 1, next: 1}
		w.lanes[p] = l
	}
	return l
}

// change runs INSERT, UPDATE, DELETE or TRUNCATE of a table, and tells out (nil: nobody) what RETURNING gives. In a
// transaction it only checks what the statement does as of the transaction's tick; COMMIT runs it.
func (s *session) change(ctx context.Context, st sql.Statement, out output) (string, error) {
	ch, err := planned(ctx, s.n, func(c sql.Catalog) (*sql.Change, error) { return sql.PlanChange(st, c) })
	if err != nil {
		return "", err
	}
	memory := s.n.queries.begin()
	defer memory.end()
	c, err := s.changeBy(ctx, ch, nil, pendingWrite{change: st}, memory)
	if err != nil {
		return "", err
	}
	return c.tag(), c.returned.tell(out)
}

// changeBy carries a change out, over the rows of its plan or those that are given, or puts what is to wait for COMMIT
// into the transaction.
func (s *session) changeBy(ctx context.Context, ch *sql.Change, given *record.Delta, pending pendingWrite, memory *holding) (*changer, error) {
	if err := s.writable(string(ch.Kind)); err != nil {
		return nil, err
	}
	ctx, cancel := withinDeadline(ctx, s.n.cfg.StatementTimeout)
	defer cancel()
	c := &changer{s: s, ch: ch, given: given, partitions: s.n.catalog().partitions(), done: map[ids.PartitionID]bool{}}
	c.returned = returnedRows{ch: ch, memory: memory}
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if s.tx.status == txOpen {
		if err := c.foresee(ctx); err != nil {
			return nil, err
		}
		s.tx.pending = append(s.tx.pending, pending)
		return c, nil
	}
	w := s.n.tables.writer(ids.StreamID(ch.Table.Stream.Id))
	select {
	case <-w.turn:
		defer func() { w.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, fault.Wrap(fault.KindOfContext(ctx), ctx.Err(), "table %q: other statements change it", ch.Table.Name)
	}
	c.w = w
	return c, c.run(ctx)
}

// insertRows is COPY's INSERT of rows into a table.
func (s *session) insertRows(ctx context.Context, table string, rows *record.Delta) error {
	ch, err := planned(ctx, s.n, func(c sql.Catalog) (*sql.Change, error) {
		o, ok := c.Lookup(table)
		if !ok || o.Kind != sql.ObjectTable {
			return nil, fault.SQL(fault.NotFound, "42P01", "unknown table %q", table)
		}
		p, err := sql.PlanDefaults(o)
		return &sql.Change{Table: o, Plan: p, Kind: sql.ChangeInsert}, err
	})
	if err != nil {
		return err
	}
	memory := s.n.queries.begin()
	defer memory.end()
	_, err = s.changeBy(ctx, ch, rows, pendingWrite{table: table, rows: rows}, memory)
	return err
}

// changer carries one statement out.
type changer struct {
	s          *session
	ch         *sql.Change
	given      *record.Delta // rows to insert instead of the plan's; nil: none
	returned   returnedRows
	w          *tableWriter
	enc        *record.Encoder
	key        []int // the primary key's columns in the order of the record's key
	partitions int
	done       map[ids.PartitionID]bool // partitions in which the statement has taken effect
	changed    int64
	want       int64 // of an INSERT: the rows that it was last found to have
}

func (c *changer) prepare() (err error) {
	for _, name := range c.ch.Table.Stream.PrimaryKey {
		c.key = append(c.key, c.ch.Table.Columns.Index(name))
	}
	c.enc, err = record.NewEncoder(c.ch.Table.Stream)
	return err
}

func (c *changer) tag() string {
	switch {
	case c.ch.Truncate:
		return "TRUNCATE TABLE"
	case c.ch.Kind == sql.ChangeInsert:
		return fmt.Sprintf("INSERT 0 %d", c.changed)
	}
	return fmt.Sprintf("%s %d", c.ch.Kind, c.changed)
}

// foresee evaluates without a change.
func (c *changer) foresee(ctx context.Context) error {
	l, err := c.s.layout(ctx, c.readPlan())
	if err != nil {
		return err
	}
	writes, err := c.evaluate(ctx, l)
	if err != nil {
		return err
	}
	size := len(c.ch.Table.Name) + 1024 // of the statement itself
	for _, w := range writes {
		c.changed += w.rows
		size += w.b.Bytes()
		if err := c.returned.add(w.returned); err != nil {
			return err
		}
	}
	return c.s.hold(size)
}

// write is what a statement appends to one partition.
type write struct {
	b        record.BatchBuilder
	rows     int64
	fresh    *record.Delta // the rows' places and the rows as they are written, where INSERT's RETURNING wants them
	returned *record.Delta // their places and what RETURNING gives
}

// run evaluates and appends until every partition has taken its part.
func (c *changer) run(ctx context.Context) error {
	current := false // what is read is no older than the statement
	for attempt := 0; ; attempt++ {
		l, err := c.s.layout(ctx, c.readPlan())
		if err != nil {
			return err
		}
		writes, err := c.evaluate(ctx, l)
		if fault.Retryable(err) {
			return err
		}
		if !current && !c.confirms(writes, err) {
			if err := c.s.catchUp(ctx); err != nil {
				return err
			}
			current = true
			continue
		}
		if err != nil {
			return err
		}
		again, err := c.append(ctx, writes, l.tick)
		if err != nil || !again {
			return err
		}
		// Whoever changed the table meanwhile is seen at the next tick.
		if err := pause(ctx, time.Duration(1+rand.IntN(4*min(attempt+1, 8)))*time.Millisecond); err != nil {
			return fault.Wrap(fault.Unavailable, err, "table %q: others change the same partitions all the time; retry", c.ch.Table.Name).
				WithReason("TABLE_BUSY")
		}
	}
}

// confirms tells whether appending the writes confirms all that the statement has read: the rows that it was to insert
// are all new, or the one row that its condition allows for is there.
func (c *changer) confirms(writes map[ids.PartitionID]*write, err error) bool {
	if err != nil || len(c.done) > 0 {
		return false
	}
	rows := int64(0)
	for _, w := range writes {
		rows += w.rows
	}
	in := inputsOf(c.ch.Plan)
	if c.ch.Kind == sql.ChangeInsert {
		return len(in) == 0 && rows == c.want
	}
	return len(in) == 1 && rows == 1 && c.fixesKey()
}

// fixesKey tells whether the statement's condition fixes the whole primary key.
func (c *changer) fixesKey() bool {
	for i := range c.ch.Plan.Stages {
		for j := range c.ch.Plan.Stages[i].Ops {
			if s := c.ch.Plan.Stages[i].Ops[j].Scan; s != nil && s.Object == c.ch.Table.ID {
				return len(s.KeyPrefix) == len(c.key)
			}
		}
	}
	return false
}

// catchUp lets what the session reads from now on be no older than now.
func (s *session) catchUp(ctx context.Context) error {
	for {
		tick, err := s.n.coord.NewestTick(ctx)
		if err == nil {
			s.seen = max(s.seen, tick)
			s.n.coord.RequestTick()
			return nil
		}
		if perr := pause(ctx, retryPause); perr != nil || !fault.Retryable(err) {
			return err
		}
	}
}

// readPlan is a plan that reads everything the statement does: its own and the table.
func (c *changer) readPlan() *plan.Plan {
	p := *c.ch.Plan
	p.Stages = append(p.Stages[:len(p.Stages):len(p.Stages)], plan.Stage{Ops: []plan.Op{{Kind: plan.OpScan, Scan: c.tableScan()}}})
	return &p
}

func (c *changer) tableScan() *plan.Scan {
	scan := &plan.Scan{Kind: plan.ScanView, Object: c.ch.Table.ID, Name: c.ch.Table.Name}
	for _, f := range c.ch.Table.Columns {
		scan.Columns = append(scan.Columns, f.Name)
	}
	return scan
}

// evaluate works out the records of the partitions that aren't done, at l's tick.
func (c *changer) evaluate(ctx context.Context, l *layout) (map[ids.PartitionID]*write, error) {
	if c.given != nil {
		c.want = int64(c.given.N)
		return c.inserts(ctx, l, c.given)
	}
	rows := record.NewDelta(c.ch.Plan.Output, 0)
	memory := c.s.n.queries.begin()
	defer memory.end()
	err := c.s.n.query(ctx, c.ch.Plan, l, func(d *record.Delta) error {
		if err := memory.add(deltaBytes(d)); err != nil {
			return err
		}
		for i := range d.N {
			for range d.Weight(i) {
				rows.AppendRow(d, i, 1)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if c.ch.Kind == sql.ChangeInsert {
		c.want = int64(rows.N)
		return c.inserts(ctx, l, rows)
	}
	return c.changes(rows)
}

// changes makes the records of UPDATE and DELETE. A row that the query finds more than once is changed once.
func (c *changer) changes(rows *record.Delta) (map[ids.PartitionID]*write, error) {
	out := map[ids.PartitionID]*write{}
	seen := map[string]bool{}
	n := len(c.ch.Table.Columns)
	returning := rows.Cols[len(rows.Cols)-len(c.ch.Returned):]
	for i := range rows.N {
		key := c.keyOf(rows, i)
		p := ring.Partition(key, c.partitions)
		if c.done[p] || seen[string(key)] {
			continue
		}
		seen[string(key)] = true
		w := writeOf(out, p)
		w.rows++
		if c.ch.Returned != nil {
			if w.returned == nil {
				w.returned = record.NewDelta(append(record.Schema{bigint("")}, c.ch.Returned...), 0)
			}
			appendOrdered(w.returned, int64(i), &returning, i)
		}
		if c.ch.Kind == sql.ChangeDelete {
			w.b.Add(key, true, nil)
			continue
		}
		if err := c.row(w, &record.Delta{N: rows.N, Cols: rows.Cols[n : 2*n]}, i, i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func writeOf(out map[ids.PartitionID]*write, p ids.PartitionID) *write {
	if out[p] == nil {
		out[p] = &write{}
	}
	return out[p]
}

// row adds the record of row i of d, whose columns are the table's. at is its place in the statement.
func (c *changer) row(w *write, d *record.Delta, i, at int) error {
	if err := c.checkNulls(d, i); err != nil {
		return err
	}
	value, err := c.enc.Encode(nil, d, i)
	if err != nil {
		return err
	}
	if c.ch.Returning != nil {
		if w.fresh == nil {
			w.fresh = record.NewDelta(c.ch.Returning.Input, 0)
		}
		appendOrdered(w.fresh, int64(at), &d.Cols, i)
	}
	if len(value) > c.s.n.cfg.MaxRecordBytes {
		return tooLarge(i, len(value), c.s.n.cfg.MaxRecordBytes)
	}
	w.b.Add(nil, false, value)
	return nil
}

func notNull(table *sql.Object, col int) error {
	return fault.SQL(fault.Invalid, "23502", "null value in column %q of table %q violates its not-null constraint", table.Columns[col].Name, table.Name)
}

// keyOf returns the key of the record of row i.
func (c *changer) keyOf(d *record.Delta, i int) []byte {
	values := make([]record.Value, len(c.key))
	for k, col := range c.key {
		values[k] = d.Cols[col].Value(i)
	}
	return record.AppendKey(nil, values)
}

// keyText shows a key as PostgreSQL does: (a, b)=(1, x).
func keyText(table *sql.Object, d *record.Delta, i int, key []int) string {
	var names, values bytes.Buffer
	for k, col := range key {
		if k > 0 {
			names.WriteString(", ")
			values.WriteString(", ")
		}
		names.WriteString(table.Columns[col].Name)
		values.Write(record.AppendText(nil, &d.Cols[col], i))
	}
	return fmt.Sprintf("(%s)=(%s)", names.Bytes(), values.Bytes())
}

// append appends each partition's records on the condition that nothing changed there since tick, and says whether
// something did.
func (c *changer) append(ctx context.Context, writes map[ids.PartitionID]*write, tick ids.Tick) (again bool, err error) {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for p, w := range writes {
		lane := c.w.lane(p, false)
		g.Go(func() error {
			stamped, err := c.send(ctx, p, w, lane, tick)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case reasonIs(err, partition.ReasonChanged):
				again = true
				return nil
			case err != nil:
				c.w.lane(p, true) // whether its last batch was appended is unknown
				return err
			}
			c.done[p] = true
			c.changed += w.rows
			c.s.seen = max(c.s.seen, stamped)
			return c.returned.add(w.returned)
		})
	}
	return again, g.Wait()
}

func reasonIs(err error, reason string) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.GetReason() == reason
}

// send appends one batch and sends it again until its answer is known.
func (c *changer) send(ctx context.Context, p ids.PartitionID, w *write, lane *writeLane, tick ids.Tick) (ids.Tick, error) {
	payload := w.b.Payload()
	if len(payload) > c.s.n.cfg.MaxMessageBytes/2 {
		return 0, fault.SQL(fault.TooLarge, "54000", "the statement changes %d bytes in partition %d, the limit is %d; change fewer rows at a time",
			len(payload), p, c.s.n.cfg.MaxMessageBytes/2)
	}
	batch := &millracev1.Batch{
		Partition: uint32(p), ProducerId: lane.producer, Sequence: lane.next, Count: uint32(w.b.Count()),
		UncompressedBytes: uint32(len(payload)), Crc32C: record.Checksum(payload), Payload: payload,
	}
	shrink(batch)
	for {
		appended, err := c.sendOnce(ctx, batch, tick)
		switch {
		case err == nil:
			lane.next++
			return ids.Tick(appended.Tick), nil
		case !fault.Retryable(err):
			return 0, err
		}
		if perr := pause(ctx, retryPause); perr != nil {
			return 0, fault.Wrap(fault.Unavailable, err, "table %q: whether partition %d has taken the change is unknown", c.ch.Table.Name, p).
				WithReason("OUTCOME_UNKNOWN")
		}
	}
}

func (c *changer) sendOnce(ctx context.Context, batch *millracev1.Batch, tick ids.Tick) (*millracev1.Appended, error) {
	type answer struct {
		appended *millracev1.Appended
		err      error
	}
	got := make(chan answer, 1)
	c.s.n.router.append(ctx, appendJob{
		stream: c.ch.Table.Stream, batch: batch, seenTick: c.s.seen, since: tick,
		done: func(a *millracev1.Appended, err error) { got <- answer{a, err} },
	})
	select {
	case a := <-got:
		return a.appended, a.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "append to partition %d", batch.Partition)
	}
}
