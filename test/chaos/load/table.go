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

// fillTable makes the counters.
var fillTable = fmt.Sprintf("INSERT INTO %s SELECT g, 'counter', 0 FROM generate_series(0, %d) AS x(g) ON CONFLICT DO NOTHING",
	check.TableName, check.Counters-1)

// changeTable counts counters up, and inserts, changes and deletes other rows, on any node.
func (l *Load) changeTable(ctx context.Context, id int) {
	for i := 0; ctx.Err() == nil; i++ {
		sleep(ctx, 20*time.Millisecond+rand.N(200*time.Millisecond))
		nodes := l.c.Nodes()
		n := nodes[rand.IntN(len(nodes))]
		if !n.Serving() && rand.IntN(4) > 0 {
			continue
		}
		account := int64(rand.IntN(check.TableAccounts))
		sql := tableStatement(account, rand.IntN(3), fmt.Sprintf("%d-%d", id, i))
		called := l.Catalog.Now()
		_, done, err := complete(context.WithoutCancel(ctx), n, nil, sql, 0)
		out := check.Done
		switch status.Code(err) {
		case codes.OK:
		case codes.AlreadyExists:
			out = check.Refused
		default:
			out = check.Unknown
			l.failures.add("table: " + status.Code(err).String())
			l.definite("node "+n.Name+": "+sql, err)
		}
		if account < check.Counters {
			l.Table.Counted(account, out, done.GetTag() == "UPDATE 1", fmt.Sprintf("%v to %v on %s: %s, tick %d, %v",
				called.Round(time.Millisecond), l.Catalog.Now().Round(time.Millisecond), n.Name, done.GetTag(), done.GetTick(), err))
		}
	}
}

func tableStatement(account int64, what int, name string) string {
	switch {
	case account < check.Counters:
		return fmt.Sprintf("UPDATE %s SET r = r + 1 WHERE a = %d", check.TableName, account)
	case what == 0:
		return fmt.Sprintf("INSERT INTO %s VALUES (%d, '%s', 0)", check.TableName, account, name)
	case what == 1:
		return fmt.Sprintf("UPDATE %s SET name = '%s', r = r + 1 WHERE a = %d", check.TableName, name, account)
	}
	return fmt.Sprintf("DELETE FROM %s WHERE a = %d", check.TableName, account)
}
