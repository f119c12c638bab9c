package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/test/chaos/check"
)

// change creates and drops streams and views under a few names, on any node.
func (l *Load) change(ctx context.Context, id int) {
	for ; ctx.Err() == nil; sleep(ctx, 100*time.Millisecond+rand.N(300*time.Millisecond)) {
		nodes := l.c.Nodes()
		n := nodes[rand.IntN(len(nodes))]
		if !n.Serving() && rand.IntN(4) > 0 {
			continue
		}
		k := rand.IntN(l.cfg.Names)
		op := check.CatalogOp{Name: fmt.Sprintf("thing%d", k), Create: rand.IntN(2) == 0}
		sql := catalogStatement(op, k%2 == 0)
		called := l.Catalog.Now()
		_, _, err := execute(ctx, n, nil, sql, 0)
		returned := l.Catalog.Now()
		switch status.Code(err) {
		case codes.OK:
			l.Catalog.Op(id, op, check.Done, called, returned)
		case codes.AlreadyExists, codes.NotFound:
			l.Catalog.Op(id, op, check.Refused, called, returned)
		default:
			l.failures.add("catalog: " + status.Code(err).String())
			l.Catalog.Op(id, op, check.Unknown, called, returned)
		}
	}
}

func catalogStatement(op check.CatalogOp, stream bool) string {
	switch {
	case op.Create && stream:
		return "CREATE STREAM " + op.Name + " (a BIGINT) WITH (format = 'json')"
	case stream:
		return "DROP STREAM " + op.Name
	case op.Create:
		return "CREATE MATERIALIZED VIEW " + op.Name + " AS SELECT src, count(*) AS n FROM ev GROUP BY src"
	}
	return "DROP MATERIALIZED VIEW " + op.Name
}
