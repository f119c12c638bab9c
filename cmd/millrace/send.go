package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
)

const (
	// interruptPatience is how long an interrupted send waits for what is in flight.
	interruptPatience = 3 * time.Second
	// maxReported bounds how many malformed lines are reported one by one.
	maxReported = 1000
)

// sendOptions are the flags of send.
type sendOptions struct {
	format      string
	rate        float64
	asJSON      bool
	timeout     time.Duration
	compression string
	batch       byteSize
	linger      time.Duration
	generate    generateOptions
}

func (a *app) sendCommand() *cobra.Command {
	o := sendOptions{batch: 256 << 10}
	c := &cobra.Command{
		Use:   "send STREAM [FILE|-]",
		Short: "Append the records of a file or of stdin to a stream",
		Long: `Send appends one record a line: JSON objects, or CSV whose first line names the columns. Gzip is unpacked. Each record
is acknowledged once it is on the disks of all in-sync replicas; send tries again until it is, and each is in the stream
exactly once. Records of one key keep their order. A malformed line is reported and left out, the rest goes on.

The last line on stdout says what was acknowledged; a later statement with "SET min_tick = T" sees all of it. Send exits
with 1 and the numbers of the lines when anything was rejected or not acknowledged.

--datagen makes the records instead: events of Nexmark, the benchmark of auctions and bids, of which the n-th is always the
same. Of each event the columns that the stream has are sent.`,
		Example: `  millrace send bids bids.jsonl
  millrace send bids bids.csv.gz
  tail -F app.log.json | millrace send logs - --rate 1000
  millrace send bids bids.jsonl --json --compression zstd
  millrace send bid --datagen nexmark:bid --events 1000000`,
		Args: cobra.RangeArgs(1, 2),
	}
	addr := addrFlag(c)
	f := c.Flags()
	f.StringVar(&o.format, "format", "", "json or csv (default: csv for a file called *.csv, else json)")
	f.Float64Var(&o.rate, "rate", 0, "records a second at most, evenly spread")
	f.BoolVar(&o.asJSON, "json", false, "report as JSON objects: progress each 100 ms on stderr, the result on stdout")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long a record may take to be acknowledged")
	f.StringVar(&o.compression, "compression", "s2", "of what goes to the stream: none, s2 or zstd")
	f.Var(&o.batch, "batch-bytes", "uncompressed size of a full batch")
	f.DurationVar(&o.linger, "linger", 5*time.Millisecond, "longest time that a record waits for its batch to fill")
	f.StringVar(&o.generate.what, "datagen", "", "make events instead of reading: nexmark, nexmark:person, nexmark:auction or nexmark:bid")
	f.Int64Var(&o.generate.events, "events", 1_000_000, "with --datagen: how many events, of all kinds, from which those of the kind are sent")
	f.Int64Var(&o.generate.first, "first", 0, "with --datagen: number of the first event")
	f.Int64Var(&o.generate.rate, "event-rate", 10_000, "with --datagen: events a second of event time")
	c.RunE = func(c *cobra.Command, args []string) error {
		path := "-"
		if len(args) == 2 {
			path = args[1]
		}
		if err := o.generate.validate(len(args) == 2); err != nil {
			return err
		}
		return a.send(c.Context(), *addr, args[0], path, o)
	}
	return c
}

func parseCompression(name string) (client.Compression, error) {
	switch name {
	case "none":
		return client.NoCompression, nil
	case "s2":
		return client.S2, nil
	case "zstd":
		return client.Zstd, nil
	}
	return 0, usagef("--compression %q: use none, s2 or zstd", name)
}

func (o *sendOptions) validate() error {
	switch {
	case o.rate < 0:
		return usagef("--rate %g: must be positive", o.rate)
	case o.timeout <= 0:
		return usagef("--timeout %s: must be positive", o.timeout)
	case o.linger < 0:
		return usagef("--linger %s: must not be negative", o.linger)
	case o.batch < 1<<10 || o.batch > 8<<20:
		return usagef("--batch-bytes %d: use 1KiB to 8MiB", o.batch)
	}
	return nil
}

func (a *app) send(ctx context.Context, addr []string, stream, path string, o sendOptions) error {
	format, err := inputFormat(o.format, path)
	if err != nil {
		return err
	}
	compression, err := parseCompression(o.compression)
	if err != nil {
		return err
	}
	if err := o.validate(); err != nil {
		return err
	}
	in := &input{name: o.generate.what, regular: true, size: o.generate.events, raw: &countingReader{}}
	if o.generate.what == "" {
		if in, err = a.openInput(path); err != nil {
			return err
		}
	}
	defer in.close()
	cl, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	info, err := cl.Stream(ctx, stream)
	if err != nil {
		return err
	}
	s := &sending{app: a, in: in, o: o, begun: time.Now()}
	whole := ctx
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	s.p, err = cl.Producer(ctx, stream, client.WithCompression(compression), client.WithTimeout(o.timeout),
		client.WithBatchBytes(int(o.batch)), client.WithLinger(o.linger), client.OnBatch(s.batchDone))
	if err != nil {
		return err
	}
	defer s.p.Abort()
	switch {
	case o.generate.what != "":
		s.src, err = o.generate.source(info.Stream, in.raw)
	case in.regular:
		in.start(whole) // when the cluster takes no more, the rest is counted
	default:
		in.start(ctx)
	}
	if s.src == nil && err == nil {
		s.lines = newLineReader(in.src, info.MaxRecordBytes)
		s.src, err = newLineSource(format, s.lines, info.Stream, s.warn)
	}
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// sending is one run of send.
type sending struct {
	app   *app
	in    *input
	o     sendOptions
	p     *client.Producer
	lines *lineReader
	src   lineSource
	begun time.Time
	stop  context.CancelFunc // ends the reading

	total    int64 // records read; of the sending goroutine only
	last     int64 // line of the last of them
	reported int
	acked    atomic.Int64
	tick     atomic.Uint64 // highest acknowledged

	mu       sync.Mutex
	rejected lineSet
	lost     lineSet // not acknowledged
	cause    error   // of the first that was rejected by the cluster or not acknowledged
}

// batchDone takes in the outcome of a batch, whose tags are line numbers.
func (s *sending) batchDone(b client.BatchResult) {
	if b.Err == nil {
		for old := s.tick.Load(); b.First.Tick > old && !s.tick.CompareAndSwap(old, b.First.Tick); old = s.tick.Load() {
		}
		s.acked.Add(int64(b.Count))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		s.cause = b.Err
	}
	set := &s.rejected
	if kind := fault.KindOf(b.Err); kind == fault.Deadline || kind == fault.Canceled {
		set = &s.lost
		s.stop() // the cluster doesn't take them: no use in reading on
	}
	for _, line := range b.Tags {
		set.add(int64(line))
	}
}

// reject counts a line that isn't sent, and reports it.
func (s *sending) reject(line int64, err error) {
	s.mu.Lock()
	s.rejected.add(line)
	s.mu.Unlock()
	s.reported++
	switch {
	case s.reported > maxReported+1:
	case s.reported > maxReported:
		s.warn("more lines are rejected, and named at the end")
	case s.o.asJSON:
		writeJSONLine(s.app.stderr, struct {
			Line  int64  `json:"line"`
			Error string `json:"error"`
		}{line, err.Error()})
	default:
		s.warn("line %d: %s", line, err)
	}
}

func (s *sending) warn(format string, args ...any) {
	fmt.Fprintf(s.app.stderr, "millrace: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

func (s *sending) run(ctx context.Context) error {
	report := s.startReport()
	readErr := s.readAll(ctx)
	interrupted := errors.Is(readErr, errInterrupted)
	flush, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the timeout bounds it
	if interrupted {
		readErr = nil
		flush, cancel = context.WithTimeout(flush, interruptPatience)
	}
	defer cancel()
	gaveUp := interrupted && s.lostAny()
	s.p.Close(flush) // what fails is reported to batchDone
	if gaveUp && s.in.regular {
		s.countRest()
	}
	report()
	s.result()
	switch err := s.failures(); {
	case err != nil:
		return err
	case readErr != nil:
		return fmt.Errorf("%s: %w", s.in.name, readErr)
	case interrupted:
		return fmt.Errorf("interrupted after line %d; what follows was not sent", s.last)
	}
	return nil
}

func (s *sending) lostAny() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost.count > 0
}

// readAll sends everything that is read.
func (s *sending) readAll(ctx context.Context) error {
	pace := newPacer(s.o.rate)
	var bad *lineError
	for {
		value, line, err := s.src.next()
		switch {
		case errors.As(err, &bad):
			s.count(line)
			s.reject(line, bad)
			continue
		case isEOF(err):
			return nil
		case err != nil:
			return err
		}
		if err = pace.wait(ctx); err == nil {
			err = s.p.SendTagged(ctx, nil, value, uint64(line))
		}
		if errors.Is(err, fault.Of(fault.TooLarge)) {
			s.count(line)
			s.reject(line, err)
			continue
		}
		if ctx.Err() != nil {
			if err != nil { // not taken; it counts where the cluster is to blame
				s.leaveOut(line)
			} else {
				s.count(line)
			}
			return errInterrupted
		}
		if err != nil {
			return err
		}
		s.count(line)
	}
}

func (s *sending) count(line int64) {
	s.total++
	s.last = line
}

// leaveOut counts a record that was read and not sent as not acknowledged, unless it was the user who ended the run.
func (s *sending) leaveOut(line int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost.count > 0 {
		s.total++
		s.lost.add(line)
	}
}

// countRest reads on in a file after the cluster took no more, so that the result tells of all its records.
func (s *sending) countRest() {
	var bad *lineError
	for {
		_, line, err := s.src.next()
		switch {
		case errors.As(err, &bad):
			s.total++
			s.reject(line, bad)
		case err != nil:
			return
		default:
			s.leaveOut(line)
		}
	}
}

// sendReport is what --json prints.
type sendReport struct {
	Acknowledged int64   `json:"acknowledged"`
	Rejected     int64   `json:"rejected"`
	Seconds      float64 `json:"seconds"`
	Tick         uint64  `json:"tick"`
}

func (s *sending) now() sendReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	seconds := time.Since(s.begun).Round(time.Microsecond).Seconds()
	return sendReport{Acknowledged: s.acked.Load(), Rejected: s.rejected.count, Seconds: seconds, Tick: s.tick.Load()}
}

// result prints the last line.
func (s *sending) result() {
	r := s.now()
	if s.o.asJSON {
		writeJSONLine(s.app.stdout, r)
		return
	}
	rate := 0.0
	if r.Seconds > 0 {
		rate = float64(r.Acknowledged) / r.Seconds
	}
	fmt.Fprintf(s.app.stdout, "acknowledged %d of %d records, %d rejected, in %.2f s (%.0f records/s), tick %d\n",
		r.Acknowledged, s.total, r.Rejected, r.Seconds, rate, r.Tick)
}

// failures is the error that names all lines that are not in the stream, or may not be.
func (s *sending) failures() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	if n := s.rejected.count; n > 0 {
		text = fmt.Sprintf("%d rejected (%s)", n, &s.rejected)
	}
	if n := s.lost.count; n > 0 {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%d not acknowledged (%s)", n, &s.lost)
	}
	if text == "" {
		return nil
	}
	if s.cause != nil {
		text += ": " + s.cause.Error()
	}
	return errors.New(text)
}

// pacer spreads records evenly over time.
type pacer struct {
	rate  float64 // a second; 0: no limit
	begun time.Time
	n     float64
	ahead time.Time // what was let go is due up to here
}

func newPacer(rate float64) *pacer { return &pacer{rate: rate} }

// paceGrain is how exactly records are spread: below it, waiting costs more than it evens out.
const paceGrain = time.Millisecond

// wait waits until the next record is due. After a pause of the input or of the cluster it doesn't catch up with more
// than a tenth of a second's worth.
func (p *pacer) wait(ctx context.Context) error {
	if p.rate == 0 {
		return nil
	}
	interval := time.Duration(float64(time.Second) / p.rate)
	now := time.Now()
	if p.ahead.IsZero() || now.Sub(p.ahead) > 100*time.Millisecond {
		p.begun, p.n = now, 0
	}
	p.ahead = p.begun.Add(time.Duration(p.n / p.rate * float64(time.Second)))
	p.n++
	if due := p.ahead.Sub(now); due > max(paceGrain, interval/10) {
		t := time.NewTimer(due)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
