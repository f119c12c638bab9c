package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

func (a *app) readCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "read STREAM",
		Short: "Print the records of a stream",
		Long: `Read prints the committed records of a stream, one a line, those of a partition in the order of their offsets. It ends
with the records that were there when it started, unless --follow is given. Protobuf records are printed as JSON.`,
		Example: `  millrace read bids
  millrace read bids --json --from 10m --limit 5
  millrace read bids --from end --follow
  millrace read bids --from 2026-01-31T12:00:00Z
  millrace read bids --dead`,
		Args: cobra.ExactArgs(1),
	}
	addr := addrFlag(c)
	f := c.Flags()
	from := f.String("from", "start", "start, end, a time (RFC 3339), or how long ago, such as 90s, 10m or 2d")
	follow := f.Bool("follow", false, "go on with what is appended later")
	limit := f.Uint64("limit", 0, "end after so many records; 0: no limit")
	dead := f.Bool("dead", false, "only the dead letters: records that don't decode, with the error")
	asJSON := f.Bool("json", false, "print objects with partition, offset, tick, time, key and value")
	c.RunE = func(c *cobra.Command, args []string) error {
		options, err := readFrom(*from, time.Now())
		if err != nil {
			return err
		}
		if *follow {
			options = append(options, client.Follow())
		}
		if *limit > 0 {
			options = append(options, client.Limit(*limit))
		}
		if *dead {
			options = append(options, client.DeadLetters())
		}
		cl, err := connect(c.Context(), *addr)
		if err != nil {
			return err
		}
		defer cl.Close()
		p := &recordPrinter{asJSON: *asJSON, dead: *dead}
		return a.read(c.Context(), cl, args[0], options, p, *follow)
	}
	return c
}

// readFrom parses --from.
func readFrom(from string, now time.Time) ([]client.ReadOption, error) {
	switch from {
	case "", "start":
		return nil, nil
	case "end":
		return []client.ReadOption{client.FromEnd()}, nil
	}
	if d, ok := parseAgo(from); ok {
		return []client.ReadOption{client.FromTime(now.Add(-d))}, nil
	}
	v, err := record.ParseText(record.TimestampTZ, from)
	if err != nil {
		return nil, usagef("--from %q: use start, end, a time such as 2026-01-31T12:00:00Z, or how long ago such as 10m", from)
	}
	return []client.ReadOption{client.FromTime(time.UnixMicro(v.Int))}, nil
}

// parseAgo parses a duration, in days too.
func parseAgo(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		return time.Duration(n * 24 * float64(time.Hour)), err == nil && n >= 0
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}

func (a *app) read(ctx context.Context, cl *client.Client, stream string, options []client.ReadOption, p *recordPrinter, follow bool) error {
	info, err := cl.Stream(ctx, stream)
	if err != nil {
		return err
	}
	if err := p.prepare(info.Stream); err != nil {
		return err
	}
	out := newSteadyWriter(a.stdout)
	var buf []byte
	for r, err := range cl.Read(ctx, stream, options...) {
		if err != nil {
			if follow && ctx.Err() != nil && errors.Is(err, fault.Of(fault.Canceled)) {
				return out.close() // as asked
			}
			return errors.Join(out.close(), err)
		}
		buf = p.append(buf[:0], &r)
		if err := out.write(buf); err != nil {
			out.close()
			return err
		}
	}
	return out.close()
}

// recordPrinter writes records as lines.
type recordPrinter struct {
	asJSON bool
	dead   bool
	format string
	toJSON *transcoder                       // of protobuf
	key    func(value []byte) ([]byte, bool) // of a stream with a key column; else nil
	buf    bytes.Buffer
}

func (p *recordPrinter) prepare(def *millracev1.Stream) (err error) {
	p.format = def.Format
	if record.HasKey(def) {
		if p.key, err = record.NewKeyExtractor(def); err != nil {
			return err
		}
	}
	if def.Format == "protobuf" {
		twin := proto.Clone(def).(*millracev1.Stream)
		twin.Format, twin.DescriptorSet, twin.Message = "json", nil, ""
		p.toJSON, err = transcoderBetween(def, twin)
	}
	return err
}

func (p *recordPrinter) append(dst []byte, r *client.Record) []byte {
	value := r.Value
	isJSON := p.format == "json"
	if p.toJSON != nil && r.Error == "" {
		if out, err := p.toJSON.convert(value); err == nil {
			value, isJSON = out, true
		}
	}
	if !p.asJSON {
		if p.dead {
			dst = strconv.AppendUint(dst, uint64(r.Partition), 10)
			dst = strconv.AppendUint(append(dst, '\t'), r.Offset, 10)
			dst = append(append(dst, '\t'), oneLine(r.Error)...)
			dst = append(dst, '\t')
		}
		return append(append(dst, value...), '\n')
	}
	dst = strconv.AppendUint(append(dst, `{"partition":`...), uint64(r.Partition), 10)
	dst = strconv.AppendUint(append(dst, `,"offset":`...), r.Offset, 10)
	dst = strconv.AppendUint(append(dst, `,"tick":`...), r.Tick, 10)
	dst = r.Time.AppendFormat(append(dst, `,"time":"`...), "2006-01-02T15:04:05.000000Z")
	dst = append(dst, '"')
	key := r.Key
	if p.key != nil {
		if k, ok := p.key(r.Value); ok {
			key = k
		}
	}
	dst = appendBytes(dst, "key", key)
	if isJSON {
		dst = p.appendJSONValue(dst, value)
	} else {
		dst = appendBytes(dst, "value", value)
	}
	if p.dead || r.Error != "" {
		dst = appendJSONText(append(dst, `,"error":`...), r.Error)
	}
	return append(dst, '}', '\n')
}

// appendJSONValue appends a JSON record as it is, in one line; one that is malformed as text.
func (p *recordPrinter) appendJSONValue(dst, value []byte) []byte {
	if !utf8.Valid(value) || !json.Valid(value) {
		return appendBytes(dst, "value", value)
	}
	dst = append(dst, `,"value":`...)
	if bytes.IndexByte(value, '\n') < 0 && bytes.IndexByte(value, '\r') < 0 {
		return append(dst, value...)
	}
	p.buf.Reset()
	if err := json.Compact(&p.buf, value); err != nil {
		return appendJSONText(dst, string(value))
	}
	return append(dst, p.buf.Bytes()...)
}

// appendBytes appends a field with a text; null where there is none, and base64 beside it where it isn't text.
func appendBytes(dst []byte, name string, b []byte) []byte {
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	switch {
	case b == nil && name == "key":
		return append(dst, "null"...)
	case utf8.Valid(b):
		return appendJSONText(dst, string(b))
	}
	dst = append(append(append(dst, `null,"`...), name...), `_base64":"`...)
	return append(base64.StdEncoding.AppendEncode(dst, b), '"')
}

// steadyWriter buffers, but holds nothing back for longer than steadyDelay.
type steadyWriter struct {
	mu      sync.Mutex
	out     *bufio.Writer
	timer   *time.Timer
	pending bool
	err     error
}

const steadyDelay = 20 * time.Millisecond

func newSteadyWriter(out io.Writer) *steadyWriter {
	return &steadyWriter{out: bufio.NewWriterSize(out, outputBuffer)}
}

func (w *steadyWriter) write(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.out.Write(b); err != nil && w.err == nil {
		w.err = err
	}
	if !w.pending {
		w.pending = true
		if w.timer == nil {
			w.timer = time.AfterFunc(steadyDelay, w.flush)
		} else {
			w.timer.Reset(steadyDelay)
		}
	}
	return w.err
}

func (w *steadyWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = false
	if err := w.out.Flush(); err != nil && w.err == nil {
		w.err = err
	}
}

func (w *steadyWriter) close() error {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.flush()
	return w.err
}
