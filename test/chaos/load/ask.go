package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/test/chaos/check"
	"github.com/millrace/millrace/test/chaos/cluster"
)

// askPatience is how long one statement may take.
const askPatience = 20 * time.Second

// execute runs one statement on one node and returns its rows and the tick that it read at. conn nil: over a connection
// of its own.
func execute(ctx context.Context, n *cluster.Node, conn *grpc.ClientConn, sql string, seen uint64) (rows []check.Row, tick uint64, err error) {
	rows, done, err := complete(ctx, n, conn, sql, seen)
	return rows, done.GetTick(), err
}

func complete(ctx context.Context, n *cluster.Node, conn *grpc.ClientConn, sql string, seen uint64) (rows []check.Row, done *millracev1.Complete, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	if conn == nil {
		if conn, err = direct(n); err != nil {
			return nil, nil, err
		}
		defer conn.Close()
	}
	call, err := millracev1.NewSqlClient(conn).Execute(ctx, &millracev1.ExecuteRequest{Sql: sql, SeenTick: seen})
	if err != nil {
		return nil, nil, err
	}
	for {
		m, err := call.Recv()
		if errors.Is(err, io.EOF) {
			if done == nil {
				return nil, nil, errors.New("the answer ended before it was complete")
			}
			return rows, done, nil
		}
		if err != nil {
			return nil, nil, err
		}
		switch k := m.Kind.(type) {
		case *millracev1.ExecuteResponse_Rows:
			for _, r := range k.Rows.Rows {
				rows = append(rows, rowText(r))
			}
		case *millracev1.ExecuteResponse_Complete:
			done = k.Complete
		}
	}
}

// rowText is a row as package check has it.
func rowText(r *millracev1.Row) check.Row {
	out := make([]string, len(r.Values))
	for i, v := range r.Values {
		switch k := v.Kind.(type) {
		case *millracev1.Value_Bigint:
			out[i] = strconv.FormatInt(k.Bigint, 10)
		case *millracev1.Value_Text:
			out[i] = k.Text
		case *millracev1.Value_TimestamptzUs:
			out[i] = check.FormatTime(k.TimestamptzUs)
		case nil:
			out[i] = "NULL"
		default:
			out[i] = fmt.Sprint(v)
		}
	}
	return strings.Join(out, "|")
}

func valuesText(values []record.Value) check.Row {
	row := &millracev1.Row{}
	for _, v := range values {
		row.Values = append(row.Values, record.ToProtoValue(v))
	}
	return rowText(row)
}

// ask asks one node after the other question, all in one session, and tells what it answered. Half of the time the
// session has seen the newest acknowledgement: what was written is to be read.
func (l *Load) ask(ctx context.Context, i int) {
	seen := uint64(0)
	var conn *grpc.ClientConn
	var node *cluster.Node
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for ; ctx.Err() == nil; sleep(ctx, l.cfg.AskEvery/2+rand.N(l.cfg.AskEvery)) {
		nodes := l.c.Nodes()
		if n := nodes[i%len(nodes)]; n != node || rand.IntN(200) == 0 {
			if conn != nil {
				conn.Close()
			}
			var err error
			if conn, err = direct(n); err != nil {
				l.failures.add("dial")
				return
			}
			node = n
		}
		if rand.IntN(2) == 0 {
			seen = max(seen, l.newest.Load())
		}
		if tick, ok := l.question(ctx, node, conn, l.relations[rand.IntN(len(l.relations))], seen); ok {
			seen = max(seen, tick)
		}
	}
}

func (l *Load) question(ctx context.Context, n *cluster.Node, conn *grpc.ClientConn, r check.Relation, seen uint64) (tick uint64, ok bool) {
	sql, account := r.Ask(), int64(-1)
	if r.Point != "" && rand.IntN(2) == 0 {
		account = rand.Int64N(check.TableAccounts)
		sql = r.AskPoint(account)
	}
	oldest := l.oldest()
	rows, tick, err := execute(ctx, n, conn, sql, seen)
	if err != nil {
		if ctx.Err() == nil {
			l.failures.add("query: " + status.Code(err).String())
			l.definite("node "+n.Name+": "+sql, err)
		}
		return 0, false
	}
	if tick < oldest {
		l.f.Add("stale", "node %s: %s was answered at tick %d; %v before it was asked, %d had been acknowledged", n.Name, sql, tick, maxStaleness, oldest)
	}
	if account >= 0 {
		l.Answers.Point("node "+n.Name, r.Name, account, tick, seen, rows)
	} else {
		l.Answers.Query("node "+n.Name, r.Name, tick, seen, rows)
	}
	return tick, true
}

// definite complains of an error that says that what was asked for is wrong, which it isn't.
func (l *Load) definite(what string, err error) {
	switch status.Code(err) {
	case codes.NotFound, codes.InvalidArgument, codes.AlreadyExists, codes.Internal, codes.Unknown, codes.DataLoss, codes.Unimplemented:
		l.f.Add("wrong-error", "%s: %v", what, err)
	}
}

// AskAll asks every node for every relation, after all that was acknowledged, until it is answered.
func (l *Load) AskAll(ctx context.Context, patience time.Duration) string {
	end := time.Now().Add(patience)
	for _, n := range l.c.Nodes() {
		for _, r := range l.relations {
			for {
				if _, ok := l.question(ctx, n, nil, r, l.newest.Load()); ok {
					break
				}
				if time.Now().After(end) || ctx.Err() != nil {
					return fmt.Sprintf("node %s doesn't answer %s: %v", n.Name, r.Name, l.Failures())
				}
				sleep(ctx, 200*time.Millisecond)
			}
		}
	}
	return ""
}
