package stage

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"

	"github.com/millrace/millrace/dataflow"
)

const (
	exchangeVersion = 2
	// maxMessage bounds a message of the exchange, in bytes. Steps are cut to messageBytes, but for a target's part
	// larger than that, which a chunk of the largest records can make.
	maxMessage   = 512 << 20
	messageBytes = 4 << 20
)

// link reads from another node: one stream carries the feeds of all groups and the ticks that the node has closed.
// When the stream breaks it is made again, after a pause, with new feeds at the positions reached.
type link struct {
	rt   *Runtime
	node ids.NodeID
	stop context.CancelFunc
	wake chan struct{} // buffered: something is to be sent

	mu     sync.Mutex
	feeds  map[uint64]*feed // wanted; by id
	lastID uint64
	up     bool // a stream is open
	attach []*feed
	detach []uint64
	owing  []*feed // with credit to send
	dur    []*internalv1.Durable
	again  []*feed // refused for now; attached anew after a pause
	moving int     // feeds being opened anew, which are in no list meanwhile
	pause  time.Duration
	alarm  *time.Timer
}

func newLink(rt *Runtime, node ids.NodeID) *link {
	ctx, stop := context.WithCancel(rt.ctx)
	l := &link{rt: rt, node: node, stop: stop, wake: make(chan struct{}, 1), feeds: map[uint64]*feed{}}
	rt.tasks.Go(func() { l.run(ctx) })
	return l
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// add asks for a feed.
func (l *link) add(f *feed) {
	l.mu.Lock()
	if f.closed.Load() {
		l.mu.Unlock()
		return
	}
	l.lastID++
	f.id = l.lastID
	l.feeds[f.id] = f
	if l.up {
		l.attach = append(l.attach, f)
	}
	l.mu.Unlock()
	l.signal()
}

// remove gives a feed up.
func (l *link) remove(f *feed) {
	f.closed.Store(true)
	l.mu.Lock()
	delete(l.feeds, f.id)
	if l.up {
		l.detach = append(l.detach, f.id)
	}
	l.mu.Unlock()
	l.signal()
}

// poke says that a feed owes credit.
func (l *link) poke(f *feed) {
	l.mu.Lock()
	if !l.up || l.feeds[f.id] != f {
		l.mu.Unlock()
		return
	}
	l.owing = append(l.owing, f)
	l.mu.Unlock()
	l.signal()
}

// durable says that a feed's targets need nothing below offset again.
func (l *link) durable(f *feed, offset ids.Offset) {
	l.mu.Lock()
	if l.up && l.feeds[f.id] == f {
		l.dur = append(l.dur, &internalv1.Durable{Feed: f.id, Offset: uint64(offset)})
	}
	l.mu.Unlock()
	l.signal()
}

// idle tells whether nobody wants anything of the node. A feed that is on its way to being opened anew is still wanted:
// a link that was stopped under it would leave its group without a source for ever.
func (l *link) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.feeds)+len(l.again)+l.moving == 0
}

func (l *link) run(ctx context.Context) {
	pause := l.rt.cfg.RetryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx)
		l.down()
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > l.rt.cfg.RetryMax {
			pause = l.rt.cfg.RetryMin
		}
		l.rt.log.Debug("the exchange with a node broke; trying again", "node", l.node, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, l.rt.cfg.RetryMax)
	}
}

// session opens a stream and works it until it breaks.
func (l *link) session(ctx context.Context) error {
	conn, err := l.rt.peers.Conn(l.node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := internalv1.NewExchangeClient(conn).Pull(ctx, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return fault.FromGRPC(err)
	}
	hello := &internalv1.Hello{Version: exchangeVersion, Node: string(l.rt.cfg.NodeID), ClusterId: l.rt.clusterID()}
	if err := stream.Send(&internalv1.PullRequest{Hello: hello}); err != nil {
		return fault.FromGRPC(err)
	}
	l.renew()
	received := make(chan error, 1)
	go func() {
		err := l.receive(stream)
		cancel()
		received <- err
	}()
	err = l.send(ctx, stream)
	cancel()
	if e := <-received; e != nil {
		err = e
	}
	return fault.FromGRPC(err)
}

// renew replaces every wanted feed by one at the position that its group has reached, to be attached.
func (l *link) renew() {
	l.mu.Lock()
	old := slices.Collect(maps.Values(l.feeds))
	l.feeds = map[uint64]*feed{}
	l.moving += len(old)
	l.up = true
	l.mu.Unlock()
	l.reopen(old)
}

// reopen replaces feeds that are counted as moving, but for those that were given up meanwhile.
func (l *link) reopen(feeds []*feed) {
	for _, f := range feeds {
		if !f.closed.Swap(true) {
			if n := f.group.open(f.src, f.node, f.epoch, f, l, nil); n != nil {
				l.add(n)
			}
		}
		l.mu.Lock()
		l.moving--
		l.mu.Unlock()
	}
}

func (l *link) down() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = false
	l.attach, l.detach, l.owing, l.dur = nil, nil, nil, nil
	for _, f := range l.again {
		l.feeds[f.id] = f
	}
	l.again = nil
	if l.alarm != nil {
		l.alarm.Stop()
		l.alarm = nil
	}
}

// send sends what is wanted until the stream breaks.
func (l *link) send(ctx context.Context, stream internalv1.Exchange_PullClient) error {
	for {
		if req := l.request(); req != nil {
			if err := stream.Send(req); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wake:
		}
	}
}

func (l *link) request() *internalv1.PullRequest {
	l.mu.Lock()
	attach, owing := l.attach, l.owing
	req := &internalv1.PullRequest{Detach: l.detach, Durable: l.dur}
	l.attach, l.detach, l.owing, l.dur = nil, nil, nil, nil
	l.mu.Unlock()
	for _, f := range attach {
		if !f.closed.Load() {
			req.Attach = append(req.Attach, attachOf(f))
		}
	}
	for _, f := range owing {
		if n := f.owed.Swap(0); n > 0 {
			req.Credit = append(req.Credit, &internalv1.Credit{Feed: f.id, Bytes: uint64(n)})
		}
	}
	if len(req.Attach) == 0 && len(req.Detach) == 0 && len(req.Credit) == 0 && len(req.Durable) == 0 {
		return nil
	}
	return req
}

func attachOf(f *feed) *internalv1.Attach {
	a := &internalv1.Attach{
		Feed: f.id, View: uint64(f.group.view.id), Source: uint32(f.p), Epoch: uint64(f.epoch), Position: f.pos.proto(),
		Window: uint64(f.window), Durable: uint64(f.durable),
		SourceIndex: uint32(f.input().source.index), Consumer: uint32(f.input().consumer), MarksOnly: f.input().leaf < 0,
	}
	for _, t := range f.targets {
		a.Targets = append(a.Targets, uint32(t))
	}
	for _, o := range f.stops {
		a.Stops = append(a.Stops, uint64(o))
	}
	return a
}

// receive takes what the other node sends. The steps of a feed that come in several messages are put together first.
func (l *link) receive(stream internalv1.Exchange_PullClient) error {
	pieces := map[uint64]*internalv1.Step{}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(resp.Closed) > 0 {
			for _, c := range resp.Closed {
				data := make([]lastData, len(c.Data))
				for i, d := range c.Data {
					data[i] = lastData{ids.PartitionID(d.Partition), ids.StreamID(d.Stream), ids.Tick(d.Tick)}
				}
				l.rt.board.closeThere(ids.Tick(c.Tick), c.Partitions, data)
			}
			l.rt.lookAtBoard()
		}
		for _, s := range resp.Steps {
			if old := pieces[s.Feed]; old != nil {
				old.Parts = append(old.Parts, s.Parts...)
				s.Parts = old.Parts
			}
			if s.More {
				pieces[s.Feed] = s
				continue
			}
			delete(pieces, s.Feed)
			l.mu.Lock()
			f := l.feeds[s.Feed]
			l.pause = 0
			l.mu.Unlock()
			if f == nil {
				continue
			}
			st, err := stepOf(s, f.group.view.partitions)
			if err != nil {
				return err
			}
			f.group.receive(f, st, s.Bytes)
		}
		for _, p := range resp.Passed {
			l.passed(p)
		}
		for _, r := range resp.Refused {
			l.refused(r)
		}
	}
}

// passed takes the news of how far the outputs of the other node's stages are.
func (l *link) passed(p *internalv1.Passed) {
	except := make(map[uint64]bool, len(p.Except))
	for _, id := range p.Except {
		except[id] = true
	}
	l.mu.Lock()
	feeds := make([]*feed, 0, len(l.feeds))
	for _, id := range p.Feeds {
		if f := l.feeds[id]; f != nil {
			feeds = append(feeds, f)
		}
	}
	for id, f := range l.feeds {
		if len(p.Feeds) == 0 && id <= p.Upto && !except[id] && f.input().source.log == nil {
			feeds = append(feeds, f)
		}
	}
	l.mu.Unlock()
	for _, f := range feeds {
		f.group.passed(f, ids.Tick(p.Tick))
	}
	l.rt.lookAtOutputs()
}

// refused attaches a feed anew after a while: the other node may not have applied the state that made it the source.
func (l *link) refused(r *internalv1.Refused) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.feeds[r.Feed]
	if f == nil || r.Failed {
		return
	}
	delete(l.feeds, r.Feed)
	l.again = append(l.again, f)
	if l.alarm == nil {
		l.pause = min(max(2*l.pause, l.rt.cfg.RetryMin), l.rt.cfg.RetryMax)
		l.alarm = time.AfterFunc(l.pause, l.retry)
	}
}

func (l *link) retry() {
	l.mu.Lock()
	again := l.again
	l.again, l.alarm = nil, nil
	l.moving += len(again)
	l.mu.Unlock()
	l.reopen(again)
}

func stepOf(m *internalv1.Step, partitions int) (*step, error) {
	st := &step{
		tick: ids.Tick(m.Tick), part: m.Part, through: ids.Tick(m.Through), pos: positionOf(m.Position),
		counts: dataflow.Counts{Late: m.Late, Errors: m.Errors, LastError: m.LastError},
		parts:  make([]part, 0, len(m.Parts)),
	}
	for _, p := range m.Parts {
		for i := -1; i < len(p.Also); i++ {
			target := p.Target
			if i >= 0 {
				target = p.Also[i]
			}
			if int(target) >= partitions || p.Delta == nil {
				return nil, fault.New(fault.Corrupted, "exchange: a step with rows for partition %d of %d", target, partitions)
			}
			st.parts = append(st.parts, part{target: ids.PartitionID(target), raw: p.Delta, bytes: p.Bytes})
		}
	}
	return st, nil
}
