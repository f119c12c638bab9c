package node

import (
	"context"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// responseRows bounds the rows of one answer; responseBytes (logservice.go) bounds its size, roughly.
const responseRows = 2048

// sqlService serves millrace.v1.Sql.
type sqlService struct {
	millracev1.UnimplementedSqlServer
	n *Node
}

// Execute implements millracev1.SqlServer.
func (s *sqlService) Execute(req *millracev1.ExecuteRequest, stream millracev1.Sql_ExecuteServer) error {
	sess, err := newSession(s.n, ids.Tick(req.SeenTick), req.Settings)
	if err != nil {
		return err
	}
	if len(req.Sql) > s.n.cfg.MaxStatementBytes {
		return fault.SQL(fault.TooLarge, "54000", "the text has %d bytes, the limit is %d (--max-statement)", len(req.Sql), s.n.cfg.MaxStatementBytes)
	}
	statements, err := sql.Parse(req.Sql)
	if err != nil {
		return err
	}
	for i, st := range statements {
		out := &executeOutput{stream: stream, statement: uint32(i)}
		tag, err := sess.execute(stream.Context(), st, out)
		if err != nil {
			return err
		}
		err = stream.Send(&millracev1.ExecuteResponse{Statement: uint32(i), Kind: &millracev1.ExecuteResponse_Complete{
			Complete: &millracev1.Complete{Tag: tag, Tick: uint64(sess.seen), Settings: sess.takeChanged()},
		}})
		if err != nil {
			return err
		}
	}
	if sess.tx.status != txIdle {
		return fault.SQL(fault.Invalid, "25000", "nothing between BEGIN and the end was done: a transaction must end in the text that begins it; "+
			"send BEGIN to COMMIT as one, or use PostgreSQL's protocol")
	}
	return nil
}

// output takes a statement's rows. Deltas are only read during the call.
type output interface {
	schema(record.Schema) error
	rows(*record.Delta) error
	// progress is for SUBSCRIBE: no more changes up to tick.
	progress(tick ids.Tick) error
	// notice is a warning about a statement that is done all the same.
	notice(sqlState, message string) error
}

// executeOutput sends a statement's rows as answers of Execute.
type executeOutput struct {
	stream    millracev1.Sql_ExecuteServer
	statement uint32
	count     int64
}

func (o *executeOutput) schema(s record.Schema) error {
	return o.stream.Send(&millracev1.ExecuteResponse{Statement: o.statement, Kind: &millracev1.ExecuteResponse_Schema{
		Schema: &millracev1.RowSchema{Columns: columnsOf(s)},
	}})
}

func (o *executeOutput) rows(d *record.Delta) error {
	out := &millracev1.Rows{}
	size := 0
	flush := func() error {
		if len(out.Rows) == 0 {
			return nil
		}
		err := o.stream.Send(&millracev1.ExecuteResponse{Statement: o.statement, Kind: &millracev1.ExecuteResponse_Rows{Rows: out}})
		out, size = &millracev1.Rows{}, 0
		return err
	}
	for i := range d.N {
		row := rowOf(d, i)
		for range d.Weight(i) {
			out.Rows = append(out.Rows, row)
			o.count++
			if size += rowBytes(row); len(out.Rows) >= responseRows || size >= responseBytes {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

func (o *executeOutput) progress(tick ids.Tick) error {
	return o.stream.Send(&millracev1.ExecuteResponse{Statement: o.statement, Kind: &millracev1.ExecuteResponse_Progress{Progress: uint64(tick)}})
}

// notice is left out: Complete has no place for it.
func (o *executeOutput) notice(string, string) error { return nil }

func rowOf(d *record.Delta, i int) *millracev1.Row {
	row := &millracev1.Row{Values: make([]*millracev1.Value, len(d.Cols))}
	for c := range d.Cols {
		row.Values[c] = record.ToProto(&d.Cols[c], i)
	}
	return row
}

func rowBytes(row *millracev1.Row) int {
	n := 0
	for _, v := range row.Values {
		n += 10 + len(v.GetText()) + len(v.GetBytea())
	}
	return n
}

// Subscribe implements millracev1.SqlServer.
func (s *sqlService) Subscribe(req *millracev1.SubscribeRequest, stream millracev1.Sql_SubscribeServer) error {
	ctx := stream.Context()
	view, err := s.n.view(ctx, req.View)
	if err != nil {
		return err
	}
	if err := s.n.checkSeenTick(ids.Tick(req.AfterTick)); err != nil {
		return err
	}
	return s.n.subscribe(ctx, view, ids.Tick(req.AfterTick), 0, s.n.createdTick(view), &subscribeOutput{stream: stream, view: view})
}

// view finds a view by name.
func (n *Node) view(ctx context.Context, name string) (*sql.Object, error) {
	var o *sql.Object
	_, err := n.lookup(ctx, func(c *catalog) bool {
		o = c.byName[name]
		return o != nil
	})
	switch {
	case err != nil:
		return nil, err
	case o == nil:
		return nil, fault.SQL(fault.NotFound, "42P01", "unknown view %q; SHOW VIEWS lists them", name).WithReason("UNKNOWN_VIEW")
	case o.Kind == sql.ObjectStream:
		return nil, fault.SQL(fault.Invalid, "42809", "%q is a stream; make a view of it, or read it with millrace read", name).WithReason("NOT_A_VIEW")
	}
	return o, nil
}

// createdTick is the first tick at which a view can be read.
func (n *Node) createdTick(o *sql.Object) ids.Tick {
	if v := n.catalog().views[ids.StreamID(o.ID)]; v != nil {
		return ids.Tick(v.CreatedTick)
	}
	return 0
}

// subscribeOutput sends changes as answers of Subscribe.
type subscribeOutput struct {
	stream millracev1.Sql_SubscribeServer
	view   *sql.Object
	told   bool // the schema was sent
}

func (o *subscribeOutput) send(resp *millracev1.SubscribeResponse) error {
	if !o.told {
		resp.Schema = &millracev1.RowSchema{Columns: columnsOf(o.view.Columns)}
		o.told = true
	}
	return o.stream.Send(resp)
}

func (o *subscribeOutput) change(tick ids.Tick, d *record.Delta, last bool) error {
	resp := &millracev1.SubscribeResponse{Tick: uint64(tick)}
	size := 0
	if d != nil {
		for i := range d.N {
			row := rowOf(d, i)
			resp.Rows = append(resp.Rows, &millracev1.WeightedRow{Weight: d.Weight(i), Row: row})
			if size += rowBytes(row); size >= responseBytes || len(resp.Rows) >= responseRows {
				if err := o.send(resp); err != nil {
					return err
				}
				resp, size = &millracev1.SubscribeResponse{Tick: uint64(tick)}, 0
			}
		}
	}
	if len(resp.Rows) == 0 && !last {
		return nil
	}
	resp.Last = last
	return o.send(resp)
}

func (o *subscribeOutput) progress(tick ids.Tick) error {
	return o.send(&millracev1.SubscribeResponse{Tick: uint64(tick), Last: true})
}
