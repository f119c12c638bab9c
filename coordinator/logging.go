package coordinator

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// The libraries' logs are quiet: what they call info is debug here, and a warning or error that repeats, such as a
// heartbeat to a dead node, is told once in a while.
const (
	repeatEvery = 10 * time.Second
	repeatKinds = 256 // messages told apart; beyond that all are told
)

// damper lets a message through once per repeatEvery.
type damper struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (d *damper) pass(msg string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t, ok := d.last[msg]; ok && now.Sub(t) < repeatEvery {
		return false
	}
	if len(d.last) >= repeatKinds {
		clear(d.last)
	}
	if d.last == nil {
		d.last = map[string]time.Time{}
	}
	d.last[msg] = now
	return true
}

// raftLogger is hclog on slog. Methods that hclog wants and Raft never calls do the plain thing.
type raftLogger struct {
	log  *slog.Logger
	damp *damper
	args []any
	name string
}

func newRaftLogger(l *slog.Logger) hclog.Logger {
	return &raftLogger{log: l.With("part", "raft"), damp: &damper{}}
}

func (r *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level < hclog.Info:
		return
	case level >= hclog.Error:
		to = slog.LevelWarn
	}
	if !r.log.Enabled(context.Background(), to) || to == slog.LevelWarn && !r.damp.pass(msg, time.Now()) {
		return
	}
	r.log.Log(context.Background(), to, msg, args...)
}

func (r *raftLogger) Trace(string, ...any)           {}
func (r *raftLogger) Debug(string, ...any)           {}
func (r *raftLogger) Info(msg string, args ...any)   { r.Log(hclog.Info, msg, args...) }
func (r *raftLogger) Warn(msg string, args ...any)   { r.Log(hclog.Warn, msg, args...) }
func (r *raftLogger) Error(msg string, args ...any)  { r.Log(hclog.Error, msg, args...) }
func (r *raftLogger) IsTrace() bool                  { return false }
func (r *raftLogger) IsDebug() bool                  { return false }
func (r *raftLogger) IsInfo() bool                   { return true }
func (r *raftLogger) IsWarn() bool                   { return true }
func (r *raftLogger) IsError() bool                  { return true }
func (r *raftLogger) ImpliedArgs() []any             { return r.args }
func (r *raftLogger) Name() string                   { return r.name }
func (r *raftLogger) Named(name string) hclog.Logger { return r.ResetNamed(name) }
func (r *raftLogger) SetLevel(hclog.Level)           {}
func (r *raftLogger) GetLevel() hclog.Level          { return hclog.Info }
func (r *raftLogger) With(args ...any) hclog.Logger {
	c := *r
	c.log, c.args = r.log.With(args...), append(append([]any(nil), r.args...), args...)
	return &c
}
func (r *raftLogger) ResetNamed(name string) hclog.Logger {
	c := *r
	c.name = name
	return &c
}
func (r *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(r.StandardWriter(nil), "", 0)
}
func (r *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return &gossipLog{log: r.log, damp: r.damp}
}

// gossipLog takes memberlist's lines: "[WARN] memberlist: text".
type gossipLog struct {
	log  *slog.Logger
	damp *damper
}

// Write implements io.Writer.
func (g *gossipLog) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	level := slog.LevelDebug
	if rest, ok := bytes.CutPrefix(text, []byte("[ERR] ")); ok {
		level, text = slog.LevelInfo, rest
	} else if i := bytes.Index(text, []byte("] ")); i > 0 && text[0] == '[' {
		text = text[i+2:]
	}
	text = bytes.TrimPrefix(text, []byte("memberlist: "))
	if g.log.Enabled(context.Background(), level) && (level == slog.LevelDebug || g.damp.pass(string(text), time.Now())) {
		g.log.Log(context.Background(), level, string(text))
	}
	return len(line), nil
}
