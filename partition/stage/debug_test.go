package stage

import (
	"fmt"
	"strings"
)

// dump tells what the runtime holds, for a test that got stuck.
func (rt *Runtime) dump() string {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	var b strings.Builder
	rt.board.mu.RLock()
	fmt.Fprintf(&b, "%s board %+v last %v\n", rt.cfg.NodeID, rt.board.parts, rt.board.last)
	rt.board.mu.RUnlock()
	for k, s := range rt.sources {
		s.mu.Lock()
		fmt.Fprintf(&b, " source %v epoch %d task %d pause %v stopped %v\n", k, s.epoch, s.s.Load(), s.pause, s.stopped)
		for _, sc := range s.scans {
			fmt.Fprintf(&b, "  scan %+v readTo %d readers %d tail %v started %v\n", sc.pos, sc.readTo, len(sc.readers), sc.atTail, sc.started)
		}
		for _, r := range s.readers {
			fmt.Fprintf(&b, "  reader %v pos %+v out %d window %d scan %v closed %v\n", r.targets, r.pos, r.outstanding.Load(), r.window, r.scan != nil, r.closed)
		}
		s.mu.Unlock()
	}
	for _, g := range rt.groups {
		g.mu.Lock()
		fmt.Fprintf(&b, " group %s stage %d done %d stopped %v broken %v steps %d\n", g.view.name, g.plan.index, g.front.done, g.stopped, g.broken, len(g.steps))
		for i := range g.in {
			in := &g.in[i]
			fmt.Fprintf(&b, "  in %d front %+v received %+v pending %d feed %v", i, g.front.sources[i], in.received, len(in.pending), in.feed != nil)
			if f := in.feed; f != nil {
				fmt.Fprintf(&b, " from %s id %d closed %v owed %d", f.node, f.id, f.closed.Load(), f.owed.Load())
			}
			b.WriteByte('\n')
		}
		for _, t := range g.targets {
			fmt.Fprintf(&b, "  target %d done %d queue %d (%d B) working %v building %d task %d due %d\n", t.p, t.done, len(t.queue), t.queued, t.working, t.building, t.s.Load(), t.nextDue)
		}
		g.mu.Unlock()
	}
	for n, l := range rt.links {
		l.mu.Lock()
		fmt.Fprintf(&b, " link %s up %v feeds %d again %d\n", n, l.up, len(l.feeds), len(l.again))
		l.mu.Unlock()
	}
	return b.String()
}
