package load

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/test/chaos/check"
)

const (
	// sendPatience is for how long a batch is sent again: longer than any disturbance.
	sendPatience = 10 * time.Minute
	// finishPatience is how long the last records may take once the cluster is healthy.
	finishPatience = 3 * time.Minute
)

// produce sends the events of one producer. Now and then it gives up its client, in the middle of it all, and goes on
// with a new one: then it isn't known whether the last events were appended.
func (l *Load) produce(ctx context.Context, id uint32) {
	seq := uint32(0)
	for life := int(id); ctx.Err() == nil; life++ {
		c := l.dial(ctx, life)
		if c == nil {
			return
		}
		p, err := c.Producer(ctx, "ev", client.WithTimeout(sendPatience), client.WithLinger(time.Duration(life%3)*2*time.Millisecond))
		if err != nil {
			c.Close()
			l.failures.add("producer: " + client.Reason(err))
			sleep(ctx, 100*time.Millisecond)
			continue
		}
		until := time.Now().Add(20*time.Second + rand.N(30*time.Second))
		seq = l.send(ctx, c, p, id, seq, until)
		if ctx.Err() == nil && rand.IntN(2) == 0 {
			p.Abort()
		} else {
			done, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishPatience)
			if err := p.Close(done); err != nil {
				l.failures.add("close: " + client.Reason(err))
			}
			cancel()
		}
		c.Close()
	}
}

// send sends events at the configured rate and returns the number of the next.
func (l *Load) send(ctx context.Context, c *client.Client, p *client.Producer, id, seq uint32, until time.Time) uint32 {
	every := time.Second / time.Duration(l.cfg.Rate)
	next := time.Now()
	for ctx.Err() == nil && time.Now().Before(until) {
		e := check.Event{Producer: id, Seq: seq}
		seen := c.SeenTick()
		l.Ledger.Sent(e)
		seq++
		err := p.Send(ctx, []byte(e.Key()), e.JSON(), func(a client.Ack, err error) {
			if err != nil {
				l.Ledger.GaveUp(e)
				l.failures.add("send: " + client.Reason(err))
				return
			}
			l.Ledger.Acked(check.Record{Partition: a.Partition, Offset: a.Offset, Tick: a.Tick, Event: e}, seen)
			l.acked(a.Tick)
		})
		if err != nil { // it wasn't taken
			l.Ledger.GaveUp(e)
			if ctx.Err() == nil {
				l.failures.add("send: " + client.Reason(err))
				return seq
			}
		}
		if next = next.Add(every); time.Until(next) > 0 {
			sleep(ctx, time.Until(next))
		} else if time.Since(next) > time.Second {
			next = time.Now() // the cluster was away: no burst
		}
	}
	return seq
}
