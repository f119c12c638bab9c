package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/test/chaos/check"
)

// subscribe follows a view. Now and then its client is given up, and a new one goes on behind the last tick; now and
// then it begins anew with the view's rows.
func (l *Load) subscribe(ctx context.Context, i int, relation string) {
	var sub *check.Subscription
	for life := 0; ctx.Err() == nil; life++ {
		c := l.dial(ctx, i+life)
		if c == nil {
			return
		}
		if sub == nil || rand.IntN(4) == 0 {
			sub = l.Answers.Subscription(fmt.Sprintf("subscription %d.%d", i, life), relation)
			l.subMu.Lock()
			l.subs[subscriber{i, relation}] = sub
			l.subMu.Unlock()
		}
		if reason := l.changes(ctx, c, sub, relation); reason == "TICK_NOT_RETAINED" {
			sub = nil // it was away for too long
		}
		c.Close()
	}
}

func (l *Load) changes(ctx context.Context, c *client.Client, sub *check.Subscription, relation string) (reason string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second+rand.N(30*time.Second))
	defer cancel()
	var opts []client.SubscribeOption
	if t := sub.Tick(); t != 0 {
		opts = append(opts, client.AfterTick(t))
	}
	for ch, err := range c.Subscribe(ctx, relation, opts...) {
		if err != nil {
			if ctx.Err() == nil {
				l.failures.add("subscribe: " + client.Reason(err))
				sleep(ctx, 100*time.Millisecond)
			}
			return client.Reason(err)
		}
		rows := make([]check.Changed, 0, len(ch.Rows))
		for _, r := range ch.Rows {
			rows = append(rows, check.Changed{Row: valuesText(r.Values), Weight: r.Weight})
		}
		sub.Change(ch.Tick, rows)
	}
	return ""
}
