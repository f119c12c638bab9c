package pgwire

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/node/pgcatalog"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// portal is a statement that is being executed, whose rows may be taken in parts: a portal of the extended protocol, or
// a cursor.
type portal struct {
	binding
	values int64  // bytes of its parameters
	hold   bool   // a cursor that outlives its transaction
	done   bool   // all rows were taken
	tag    string // of the statement
	run    Run    // of a query that was opened; pumped when its first rows are taken
	pump   *pump  // nil: nothing was taken, or all in one go
}

// pump runs a query and holds its rows, encoded, until they are taken.
type pump struct {
	formats formats
	limit   int64         // bytes of all pumps of the connection; a single piece of each may be over it
	shared  *atomic.Int64 // what they hold
	cancel  context.CancelCauseFunc
	ended   chan struct{} // closed when the query has come to its end

	mu     sync.Mutex
	chunks [][]byte // whole DataRow messages
	bytes  int64
	over   bool
	tag    string
	err    error
	change chan struct{} // closed and made anew with each change
}

func (p *pump) changed() {
	close(p.change)
	p.change = make(chan struct{})
}

// open begins a portal's query: what it reads is settled then.
func (c *conn) open(ctx context.Context, p *portal) error {
	if p.run != nil || p.pump != nil {
		return nil
	}
	if c.sess.Status() == 'E' {
		return fault.SQL(fault.Conflict, "25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	var err error
	switch st := p.bound().(type) {
	case *sql.Select, *sql.Subscribe:
		p.run, err = c.sess.Open(ctx, st)
	case *pgcatalog.Query:
		p.run, err = catalogRun(p, c.sess.Catalog())
	default: // few rows, which are there at once
		p.pump = newPump(p.formats, 1<<40, new(atomic.Int64))
		close(p.pump.ended)
		var tag string
		if tag, err = c.sess.Execute(ctx, st, p.pump.output(ctx)); err == nil {
			p.pump.finish(tag, nil)
		}
	}
	return err
}

// pumpUp starts the pump of an opened portal.
func (c *conn) pumpUp(p *portal) {
	if p.pump != nil {
		return
	}
	pump := newPump(p.formats, c.srv.cfg.PortalBytes, &c.pumped)
	p.pump = pump
	var ctx context.Context
	ctx, pump.cancel = context.WithCancelCause(c.ctx)
	go func() {
		defer close(pump.ended)
		tag, err := c.guard(func() (string, error) { return p.run(ctx, pump.output(ctx)) })
		if err != nil {
			err = cause(ctx, err)
		}
		pump.finish(tag, err)
	}()
}

func newPump(f formats, limit int64, shared *atomic.Int64) *pump {
	return &pump{formats: f, limit: limit, shared: shared, cancel: func(error) {}, ended: make(chan struct{}), change: make(chan struct{})}
}

// guard keeps a defect from ending the node.
func (c *conn) guard(run func() (string, error)) (tag string, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.log.Error("a query failed by a defect of ours; please report it", "panic", p, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "internal error (%v); the node's log says where", p)
		}
	}()
	return run()
}

func (p *pump) finish(tag string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over, p.tag, p.err = true, tag, err
	p.changed()
}

// catalogRun answers a question about the catalog at once, and gives the rows later.
func catalogRun(p *portal, src pgcatalog.Source) (Run, error) {
	rows, err := p.catalog.Run(src, p.args)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, out Output) (string, error) {
		o := out.(*pumpOutput)
		var chunk []byte
		for _, row := range rows {
			var err error
			if chunk, err = appendCatalogRow(chunk, p.cols, row, o.p.formats); err != nil {
				return "", err
			}
		}
		tag := fmt.Sprintf("SELECT %d", len(rows))
		if len(chunk) == 0 {
			return tag, nil
		}
		return tag, o.put(chunk)
	}, nil
}

// pumpOutput puts a query's rows in line.
type pumpOutput struct {
	p   *pump
	ctx context.Context
}

func (p *pump) output(ctx context.Context) *pumpOutput { return &pumpOutput{p, ctx} }

// Schema implements Output.
func (o *pumpOutput) Schema(record.Schema) error { return nil }

// Progress implements Output.
func (o *pumpOutput) Progress(ids.Tick) error { return nil }

// Notice implements Output. Queries have none.
func (o *pumpOutput) Notice(string, string) error { return nil }

// Rows implements Output. It waits while too much is in line.
func (o *pumpOutput) Rows(d *record.Delta) error {
	var chunk []byte
	for i := range d.N {
		for range d.Weight(i) {
			var err error
			if chunk, err = appendRow(chunk, d, i, o.p.formats); err != nil {
				return err
			}
		}
		if len(chunk) >= writeBuffer {
			if err := o.put(chunk); err != nil {
				return err
			}
			chunk = nil
		}
	}
	if len(chunk) == 0 {
		return nil
	}
	return o.put(chunk)
}

func (o *pumpOutput) put(chunk []byte) error {
	for {
		o.p.mu.Lock()
		// Others' rows being taken isn't told here, but a pump without rows goes on whatever the others hold.
		if n := int64(len(chunk)); o.p.bytes == 0 || o.p.shared.Load()+n <= o.p.limit {
			o.p.chunks = append(o.p.chunks, chunk)
			o.p.bytes += n
			o.p.shared.Add(n)
			o.p.changed()
			o.p.mu.Unlock()
			return nil
		}
		change := o.p.change
		o.p.mu.Unlock()
		select {
		case <-change:
		case <-o.ctx.Done():
			return context.Cause(o.ctx)
		}
	}
}

// next returns whole rows that are in line, at most max (0: any number); over says that there are no more.
func (p *pump) next(max int64) (rows []byte, n int64, over bool, change <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.chunks) == 0 {
		return nil, 0, p.over, p.change, p.err
	}
	chunk := p.chunks[0]
	end := 0
	for end < len(chunk) && (max == 0 || n < max) {
		end += dataRowLength(chunk[end:])
		n++
	}
	if p.chunks[0] = chunk[end:]; end == len(chunk) {
		p.chunks = p.chunks[1:]
	}
	p.bytes -= int64(end)
	p.shared.Add(-int64(end))
	p.changed()
	return chunk[:end], n, p.over && len(p.chunks) == 0 && p.err == nil, p.change, nil
}

// take sends at most max rows of a portal (0: all), and waits for them; without all it returns as soon as there are some.
func (c *conn) take(ctx context.Context, p *portal, max int64, all bool) (n int64, ended bool, err error) {
	c.pumpUp(p)
	stop := c.watch()
	defer stop()
	for {
		left := max - n
		if max == 0 {
			left = 0
		}
		rows, k, over, change, err := p.pump.next(left)
		c.copyMessages(rows)
		if n += k; c.outErr != nil {
			return n, false, errGone
		}
		switch {
		case err != nil:
			return n, false, err
		case over:
			p.tag = p.pump.tag
			return n, true, nil
		case max > 0 && n >= max, !all && n > 0 && k == 0:
			return n, false, nil
		case k > 0:
			continue
		}
		select {
		case <-change:
		case <-ctx.Done():
			return n, false, context.Cause(ctx)
		}
	}
}

// drop forgets the rows that nobody takes any more.
func (p *pump) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shared.Add(-p.bytes)
	p.chunks, p.bytes = nil, 0
}

// close ends a portal's query and waits for it.
func (p *portal) close() {
	if p.pump != nil {
		p.pump.cancel(errGone)
		<-p.pump.ended
		p.pump.drop()
	}
}

func (c *conn) closePortal(name string) {
	if p := c.portals[name]; p != nil {
		delete(c.portals, name)
		p.close()
	}
}

// closePortals closes what ends with a transaction: all but held cursors.
func (c *conn) closePortals() {
	for name := range c.portals {
		c.closePortal(name)
	}
	for name, p := range c.cursors {
		if !p.hold {
			delete(c.cursors, name)
			p.close()
		}
	}
}

func (c *conn) closeAll() {
	for name := range c.portals {
		c.closePortal(name)
	}
	for name, p := range c.cursors {
		delete(c.cursors, name)
		p.close()
	}
}

// counted is a statement's tag with the number of rows that were taken last.
func counted(tag string, n int64) string {
	if word, _, ok := strings.Cut(tag, " "); ok && word == "SELECT" {
		return fmt.Sprintf("SELECT %d", n)
	}
	return tag
}

func emptied(tag string) string { return counted(tag, 0) }
