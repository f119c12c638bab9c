package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/ring"
)

const (
	// maxInFlight is how many batches of a partition may be unacknowledged at a node: as many results as a partition
	// remembers of a producer, so that any of them can be sent again and is recognised.
	maxInFlight = 5
	// eagerInFlight is how many of them may be unacknowledged when a batch is sent before it is full: with more, the
	// partition has enough to do, and waiting makes better batches.
	eagerInFlight = 2
	// recordOverhead is what a record takes in a batch besides its key and value, at most, with its tag and callback.
	recordOverhead = 40
	// routeInterval is how often routes are looked up without a reason to: a node that forwards hides a stale one.
	routeInterval = 10 * time.Second
	// minRouteInterval is the least time between two lookups, and about what is between them at first while lanes are paused
	// after a failure; that grows up to maxRouteInterval.
	minRouteInterval = 25 * time.Millisecond
	maxRouteInterval = 250 * time.Millisecond
	// checkInterval is how often timeouts are checked while something is unacknowledged.
	checkInterval = 100 * time.Millisecond
)

var errProducerClosed = fault.New(fault.Canceled, "the producer is closed")

// Ack tells where an acknowledged record is.
type Ack struct {
	Partition uint32
	Offset    uint64
	Tick      uint64 // the record is visible to whoever reads this tick or a later one
}

// BatchResult is the outcome of one batch.
type BatchResult struct {
	First Ack      // of the first record; the offsets of the others follow it
	Count int      // records
	Tags  []uint64 // the tags given to SendTagged, in order; valid during the call only. Empty without tags
	Err   error    // nil: acknowledged
}

// Producer appends records to one stream. It may be used by several goroutines at once; records of one key keep the
// order in which Send was called for them.
type Producer struct {
	c         *Client
	stream    string
	def       *millracev1.Stream
	opts      producerOptions
	maxRecord int
	quantum   int // bytes of the budget that a lane takes at once

	extractors sync.Pool       // of *keyExtractor; used when the stream has a key column
	lanes      []*lane         // one for each partition
	epochs     []atomic.Uint64 // of each partition, as the routes tell
	sticky     atomic.Uint32
	memory     *budget
	spare      sync.Pool // of *batch

	ctx     context.Context // ends when the producer gives up
	cancel  context.CancelFunc
	closing chan struct{} // closed first: no more records
	closed  sync.Once
	tasks   sync.WaitGroup

	ackMicros   atomic.Int64 // moving average of the time from sending to acknowledgement
	outstanding atomic.Int64 // batches not done, the open ones too
	troubled    atomic.Int64 // lanes that pause after a failure

	mu       sync.Mutex
	routes   []string // address of each partition's primary; "" unknown
	streams  map[string]*appendStream
	avoid    map[string]time.Time // addresses that failed, and until when others are preferred
	listed   []*lane              // lanes with an open batch, for the pacer
	progress chan struct{}        // closed and renewed when a batch is done, while somebody waits
	waiters  int
	firstErr error // since the last Flush
	stopped  bool

	wake    chan struct{} // for the pacer
	refresh chan struct{} // routes may be stale
}

type keyExtractor struct {
	key func(value []byte) ([]byte, bool)
}

// Producer returns a producer for a stream. Close it.
func (c *Client) Producer(ctx context.Context, stream string, opts ...ProducerOption) (*Producer, error) {
	o := defaultProducerOptions()
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	d, err := c.describeStream(ctx, stream)
	if err != nil {
		return nil, err
	}
	p := &Producer{
		c: c, stream: d.Stream.GetName(), def: d.Stream, opts: o, maxRecord: int(d.MaxRecordBytes),
		streams: map[string]*appendStream{}, avoid: map[string]time.Time{},
		closing: make(chan struct{}), progress: make(chan struct{}),
		wake: make(chan struct{}, 1), refresh: make(chan struct{}, 1),
	}
	if p.maxRecord == 0 {
		p.maxRecord = maxBatchBytes
	}
	o.bufferBytes = max(o.bufferBytes, 2*(p.maxRecord+recordOverhead))
	p.memory = newBudget(o.bufferBytes)
	// What lanes hold unused is an eighth of the budget at most.
	p.quantum = min(max(o.bufferBytes/(8*len(d.Routes)), 512), 16<<10)
	p.spare.New = func() any { return new(batch) }
	if record.HasKey(d.Stream) {
		if err := p.prepareKeys(); err != nil {
			return nil, err
		}
	}
	p.epochs = make([]atomic.Uint64, len(d.Routes))
	for i, r := range d.Routes {
		p.epochs[i].Store(r.Epoch)
		p.routes = append(p.routes, r.Primary)
		p.lanes = append(p.lanes, &lane{p: p, id: uint32(i), producer: newProducerID(), next: 1})
	}
	p.sticky.Store(rand.Uint32N(uint32(len(p.lanes))))
	p.ctx, p.cancel = context.WithCancel(c.root)
	p.tasks.Go(p.pace)
	p.tasks.Go(p.route)
	return p, nil
}

// describeStream asks for a stream's definition and routes.
func (c *Client) describeStream(ctx context.Context, stream string) (*millracev1.DescribeStreamResponse, error) {
	var d *millracev1.DescribeStreamResponse
	err := c.each(ctx, func(ctx context.Context, n *nodeConn) (err error) {
		d, err = millracev1.NewIngestClient(n.cc).DescribeStream(ctx, &millracev1.DescribeStreamRequest{Stream: stream})
		return err
	})
	if err != nil {
		return nil, err
	}
	if d.Stream == nil || len(d.Routes) == 0 {
		return nil, fault.New(fault.Internal, "stream %q: the node described it without partitions", stream)
	}
	return d, nil
}

// StreamInfo is a stream's definition as a producer sees it.
type StreamInfo struct {
	Stream         *millracev1.Stream
	Partitions     int
	MaxRecordBytes int
}

// Stream describes a stream.
func (c *Client) Stream(ctx context.Context, name string) (StreamInfo, error) {
	d, err := c.describeStream(ctx, name)
	if err != nil {
		return StreamInfo{}, err
	}
	return StreamInfo{Stream: d.Stream, Partitions: len(d.Routes), MaxRecordBytes: int(d.MaxRecordBytes)}, nil
}

func (p *Producer) prepareKeys() error {
	first, err := record.NewKeyExtractor(p.def)
	if err != nil {
		return err
	}
	p.extractors.New = func() any {
		key, err := record.NewKeyExtractor(p.def)
		if err != nil { // it was made from the same definition before
			return &keyExtractor{key: func([]byte) ([]byte, bool) { return nil, false }}
		}
		return &keyExtractor{key: key}
	}
	p.extractors.Put(&keyExtractor{key: first})
	return nil
}

// newProducerID returns a random id; 0 means "not idempotent" and isn't one.
func newProducerID() uint64 { return rand.Uint64()>>1 + 1 }

// Send appends a record. It copies key and value, returns once the record is buffered, and blocks while the buffer is
// full. done, which may be nil, is called once when the record is acknowledged or given up; it must not block. It isn't
// called when Send returns an error.
//
// The record's partition is that of its key: the value of the stream's key column where there is one (key is ignored
// then), else key. Records without a key, nil or NULL, are spread over the partitions by whole batches. To a table, a
// record with an empty value deletes the row whose primary key is key.
func (p *Producer) Send(ctx context.Context, key, value []byte, done func(Ack, error)) error {
	return p.send(ctx, key, value, done, 0, false)
}

// SendTagged is Send for high rates: instead of a callback of its own the record has a tag, which is among the Tags of
// its batch's result. See OnBatch.
func (p *Producer) SendTagged(ctx context.Context, key, value []byte, tag uint64) error {
	return p.send(ctx, key, value, nil, tag, true)
}

func (p *Producer) send(ctx context.Context, key, value []byte, done func(Ack, error), tag uint64, tagged bool) error {
	if len(key)+len(value) > p.maxRecord {
		return fault.New(fault.TooLarge, "a record of %d bytes is over the limit of %d; raise --max-record of the nodes",
			len(key)+len(value), p.maxRecord)
	}
	l, hasKey := p.laneOf(key, value)
	if record.HasKey(p.def) && !p.tombstone(value) {
		key, hasKey = nil, false // the columns have it
	}
	size := len(key) + len(value) + recordOverhead
	l.mu.Lock()
	for l.credit < size && !l.closed {
		l.mu.Unlock()
		got := max(size, p.quantum)
		if err := p.takeMemory(ctx, got); err != nil {
			return err
		}
		l.mu.Lock()
		l.credit += got
	}
	if l.closed {
		l.mu.Unlock()
		return errProducerClosed
	}
	l.add(key, hasKey, value, size, done, tag, tagged)
	l.mu.Unlock()
	return nil
}

// tombstone tells whether a record deletes the row of its key: a table's, without a value.
func (p *Producer) tombstone(value []byte) bool {
	return len(p.def.GetPrimaryKey()) > 0 && len(value) == 0
}

// laneOf returns the record's lane and whether it has a key.
func (p *Producer) laneOf(key, value []byte) (*lane, bool) {
	if record.HasKey(p.def) && !p.tombstone(value) {
		x := p.extractors.Get().(*keyExtractor)
		k, ok := x.key(value)
		var l *lane
		if ok {
			l = p.lanes[ring.Partition(k, len(p.lanes))]
		}
		p.extractors.Put(x)
		if ok {
			return l, true
		}
	} else if key != nil {
		return p.lanes[ring.Partition(key, len(p.lanes))], true
	}
	return p.lanes[p.sticky.Load()], false
}

// takeMemory takes n bytes of the budget, and waits for them. They come: open batches are sealed in time, what lanes
// hold unused is little, and every batch is acknowledged or times out.
func (p *Producer) takeMemory(ctx context.Context, n int) error {
	if err := p.memory.take(ctx, p.closing, n); err != nil {
		if ctx.Err() != nil {
			return fault.Wrap(fault.KindOfContext(ctx), err, "send to %q: the buffer is full", p.stream)
		}
		return err
	}
	return nil
}

// Flush sends everything that was given to Send before, and waits until it is acknowledged or given up. It returns the
// first error of a record since the last Flush.
func (p *Producer) Flush(ctx context.Context) error {
	targets := make([]uint64, len(p.lanes))
	for i, l := range p.lanes {
		l.mu.Lock()
		l.seal()
		targets[i] = l.sealed
		l.mu.Unlock()
	}
	p.mu.Lock()
	p.waiters++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.waiters--
		p.mu.Unlock()
	}()
	for i, l := range p.lanes {
		for {
			p.mu.Lock()
			progress := p.progress
			p.mu.Unlock()
			if l.doneBatches() >= targets[i] {
				break
			}
			select {
			case <-progress:
			case <-ctx.Done():
				return fault.Wrap(fault.KindOfContext(ctx), ctx.Err(), "flush of %q: not all records are acknowledged", p.stream)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.firstErr
	p.firstErr = nil
	return err
}

// Close takes no more records, waits until all are acknowledged or given up, and returns the first error since the last
// Flush. When ctx ends before, those that are left are given up. It may be called twice.
func (p *Producer) Close(ctx context.Context) error {
	p.refuse()
	err := p.Flush(ctx)
	if ctx.Err() != nil {
		p.Abort()
	}
	p.stop()
	return err
}

// Abort takes no more records and gives up at once those that aren't acknowledged: it is unknown whether they were
// appended.
func (p *Producer) Abort() {
	p.refuse()
	for _, l := range p.lanes {
		l.abandon(fault.New(fault.Canceled, "the producer was closed before the record was acknowledged; whether it was appended is unknown"))
	}
	p.stop()
}

// refuse makes Send fail from now on.
func (p *Producer) refuse() {
	p.closed.Do(func() { close(p.closing) })
	for _, l := range p.lanes {
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
	}
}

func (p *Producer) stop() {
	p.mu.Lock()
	p.stopped = true // no more goroutines
	p.mu.Unlock()
	p.cancel()
	p.tasks.Wait()
}

// finished accounts for a batch that left its lane's queue.
func (p *Producer) finished(err error) {
	p.outstanding.Add(-1)
	p.mu.Lock()
	if err != nil && p.firstErr == nil {
		p.firstErr = err
	}
	if p.waiters > 0 {
		close(p.progress)
		p.progress = make(chan struct{})
	}
	p.mu.Unlock()
}

// linger is how long a batch gathers now: half the time that an acknowledgement takes, as a batch sent earlier would
// only wait for the one before it; never longer than asked for.
func (p *Producer) linger() time.Duration {
	const least = time.Millisecond
	d := time.Duration(p.ackMicros.Load()) * time.Microsecond / 2
	return min(max(d, least), p.opts.linger)
}

// acknowledgedIn takes in how long an acknowledgement took.
func (p *Producer) acknowledgedIn(d time.Duration) {
	old := p.ackMicros.Load()
	p.ackMicros.Store(old + (d.Microseconds()-old)/8)
}

// list has the pacer seal the lane's open batch in time. Called with the lane's mutex held.
func (p *Producer) list(l *lane) {
	p.mu.Lock()
	p.listed = append(p.listed, l)
	first := len(p.listed) == 1
	p.mu.Unlock()
	if first {
		signal(p.wake)
	}
}

// signal wakes whoever waits on a channel with room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// pace seals batches whose time has come and gives up those whose timeout has passed.
func (p *Producer) pace() {
	timer := time.NewTimer(checkInterval)
	defer timer.Stop()
	var lanes, keep []*lane
	checked := time.Now()
	for {
		p.mu.Lock()
		lanes, p.listed = p.listed, lanes[:0]
		p.mu.Unlock()
		now := time.Now()
		due := now.Add(checkInterval)
		keep = keep[:0]
		for _, l := range lanes {
			if at, open := l.pace(now, p.linger()); open {
				keep = append(keep, l)
				if at.Before(due) {
					due = at
				}
			}
		}
		p.mu.Lock()
		p.listed = append(p.listed, keep...)
		p.mu.Unlock()
		if now.Sub(checked) >= checkInterval {
			checked = now
			for _, l := range p.lanes {
				l.expire(now)
			}
		}
		if len(keep) == 0 && p.outstanding.Load() == 0 {
			select {
			case <-p.wake:
				continue
			case <-p.ctx.Done():
				p.giveUp()
				return
			}
		}
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-p.wake:
		case <-p.ctx.Done():
			p.giveUp()
			return
		}
	}
}

// giveUp ends what is left when the client is closed under the producer.
func (p *Producer) giveUp() {
	p.refuse()
	for _, l := range p.lanes {
		l.abandon(fault.New(fault.Canceled, "the client was closed before the record was acknowledged; whether it was appended is unknown"))
	}
}

// route looks up the partitions' primaries when something failed, and now and then.
func (p *Producer) route() {
	tick := time.NewTicker(routeInterval)
	defer tick.Stop()
	again := time.NewTimer(routeInterval)
	defer again.Stop()
	wait := minRouteInterval
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.refresh:
		case <-again.C:
			if p.troubled.Load() == 0 {
				continue
			}
		case <-tick.C:
			if p.outstanding.Load() == 0 {
				continue
			}
		}
		d, err := p.c.describeStream(p.ctx, p.stream)
		if err != nil {
			again.Reset(maxRouteInterval)
			continue // appends go on through any node, and say themselves what is wrong
		}
		p.mu.Lock()
		for i, r := range d.Routes {
			if i < len(p.routes) && r.Primary != "" && r.Epoch >= p.epochs[i].Load() { // a node may be behind
				p.routes[i] = r.Primary
				p.epochs[i].Store(r.Epoch)
			}
		}
		p.mu.Unlock()
		for _, l := range p.lanes {
			l.rerouted()
		}
		if p.troubled.Load() == 0 {
			wait = minRouteInterval
		}
		again.Reset(wait/2 + rand.N(wait))
		wait = min(wait+wait/4, maxRouteInterval)
		if err := pause(p.ctx, minRouteInterval/2); err != nil {
			return
		}
	}
}

// streamFor returns the append stream for a partition: to its primary, or to any node, which forwards, while the
// primary is unknown or has just failed.
func (p *Producer) streamFor(id uint32) (*appendStream, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil, errProducerClosed
	}
	addr, now := p.routes[id], time.Now()
	if addr == "" || now.Before(p.avoid[addr]) {
		addr = p.elsewhere(addr, now)
	}
	if s := p.streams[addr]; s != nil {
		return s, nil
	}
	n, err := p.c.conn(addr)
	if err != nil {
		return nil, err
	}
	s := newAppendStream(p, n)
	p.streams[addr] = s
	p.tasks.Go(s.run)
	return s, nil
}

// primary returns the address of a partition's primary if appends should go there.
func (p *Producer) primary(id uint32) (addr string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	addr = p.routes[id]
	return addr, addr != "" && !time.Now().Before(p.avoid[addr])
}

// elsewhere returns another address than addr that hasn't just failed, the client's current node if possible.
func (p *Producer) elsewhere(addr string, now time.Time) string {
	current := p.c.node()
	if current.addr != addr && !now.Before(p.avoid[current.addr]) {
		return current.addr
	}
	for _, n := range p.c.known() {
		if n.addr != addr && !now.Before(p.avoid[n.addr]) {
			return n.addr
		}
	}
	if addr != "" {
		return addr
	}
	return current.addr
}

// streamEnded forgets a stream and prefers other nodes for a while.
func (p *Producer) streamEnded(s *appendStream) {
	p.mu.Lock()
	if p.streams[s.node.addr] == s {
		delete(p.streams, s.node.addr)
	}
	p.avoid[s.node.addr] = time.Now().Add(silence)
	p.mu.Unlock()
	p.c.leave(s.node)
}
