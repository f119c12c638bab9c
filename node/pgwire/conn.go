package pgwire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace/millrace/internal/fault"
)

// conn is one client's connection. All of it belongs to the goroutine that runs serve, but for what mu guards.
type conn struct {
	srv    *Server
	net    net.Conn
	in     *bufio.Reader
	codec  *pgproto3.Backend // reads only
	out    []byte            // to be sent
	outErr error             // the first failure to send: the connection is lost
	id     uint32
	secret [secretBytes]byte
	ctx    context.Context
	end    context.CancelCauseFunc
	sess   Session

	statements map[string]*prepared
	portals    map[string]*portal // of the extended protocol
	cursors    map[string]*portal // of DECLARE
	skipping   bool               // after an error, until Sync
	reported   map[string]string  // settings that the client was told
	text       int                // bytes of the text that is being run
	pumped     atomic.Int64       // bytes of rows that its portals hold

	mu      sync.Mutex
	running context.CancelCauseFunc // ends the statement that runs; nil: none does
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{srv: s, net: nc, in: bufio.NewReaderSize(nc, readBuffer)}
	c.codec = pgproto3.NewBackend(c.in, io.Discard)
	c.codec.SetMaxBodyLen(s.cfg.MaxMessageBytes)
	c.ctx, c.end = context.WithCancelCause(s.ctx)
	c.statements, c.portals, c.cursors, c.reported = map[string]*prepared{}, map[string]*portal{}, map[string]*portal{}, map[string]string{}
	return c
}

// serve speaks with the client until one of both has enough.
func (c *conn) serve() {
	defer c.net.Close()
	defer c.end(errGone)
	defer func() {
		if p := recover(); p != nil {
			c.srv.log.Error("a connection failed by a defect of ours; please report it", "panic", p, "stack", string(debug.Stack()))
			c.fatal(fault.New(fault.Internal, "internal error (%v); the node's log says where", p))
		}
	}()
	greeting, err := c.greet()
	c.srv.greeted()
	if err != nil || greeting == nil {
		c.fatal(err)
		return
	}
	if err := c.srv.register(c); err != nil {
		c.fatal(err)
		return
	}
	defer c.srv.unregister(c)
	defer c.closeAll()
	c.begin(greeting)
	defer func() { c.sess.Close() }()
	c.fatal(c.loop())
}

// greet reads until the client has said who it is; nil when it only wanted to cancel.
func (c *conn) greet() (*pgproto3.StartupMessage, error) {
	if err := c.net.SetDeadline(time.Now().Add(c.srv.cfg.GreetingTimeout)); err != nil {
		return nil, errGone
	}
	for range 4 { // SSLRequest and GSSENCRequest come at most once each
		msg, err := c.codec.ReceiveStartupMessage()
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, errGone
			}
			return nil, fault.SQL(fault.Unsupported, "0A000", "unsupported greeting (%v); this is PostgreSQL's protocol, version 3.0, without TLS", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			c.out = append(c.out, 'N')
			if c.flush(); c.outErr != nil {
				return nil, errGone
			}
		case *pgproto3.CancelRequest:
			c.srv.cancel(msg)
			return nil, nil
		case *pgproto3.StartupMessage:
			return msg, c.net.SetDeadline(time.Time{})
		}
	}
	return nil, protocolError("too many requests for encryption")
}

// begin makes the session and tells the client that it is welcome.
func (c *conn) begin(m *pgproto3.StartupMessage) {
	g := Greeting{Settings: map[string]string{}, ID: c.id}
	var unknown []string
	for name, v := range m.Parameters {
		name = strings.ToLower(name)
		switch {
		case strings.HasPrefix(name, "_pq_."):
			unknown = append(unknown, name)
		case name == "user":
			g.User = v
		case name == "database":
			g.Database = v
		case name == "options":
			parseOptions(v, g.Settings)
		case name == "replication":
		default:
			g.Settings[name] = v
		}
	}
	sess, warnings := c.srv.backend.Begin(g)
	c.sess = sess
	if m.ProtocolVersion > pgproto3.ProtocolVersion30 || len(unknown) > 0 {
		c.send(&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: 0, UnrecognizedOptions: unknown})
	}
	c.send(&pgproto3.AuthenticationOk{})
	c.reportSettings()
	c.send(&pgproto3.BackendKeyData{ProcessID: c.id, SecretKey: c.secret[:]})
	for _, w := range warnings {
		c.notice("WARNING", "01000", w)
	}
	c.ready()
}

// parseOptions takes the options of a greeting: -c name=value and --name=value.
func parseOptions(text string, to map[string]string) {
	words := strings.Fields(text)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			continue
		}
		if name, v, ok := strings.Cut(w, "="); ok {
			to[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = v
		}
	}
}

// loop answers messages. It returns nil when the client ended the connection.
func (c *conn) loop() error {
	for {
		msg, err := c.receive()
		if errors.Is(err, errWoken) { // by what came too late for a statement that is over
			if err := c.net.SetReadDeadline(time.Time{}); err != nil {
				return errGone
			}
			continue
		}
		if err != nil {
			return err
		}
		if c.skipping {
			switch msg.(type) {
			case *pgproto3.Sync, *pgproto3.Terminate:
			default:
				continue
			}
		}
		if _, ends := msg.(*pgproto3.Terminate); ends {
			return nil
		}
		if err := c.answer(msg); err != nil {
			return err
		}
		if c.outErr != nil {
			return errGone
		}
	}
}

// answer does what one message asks for. An error it returns ends the connection; others are told to the client.
func (c *conn) answer(msg pgproto3.FrontendMessage) error {
	var err error
	switch msg := msg.(type) {
	case *pgproto3.Query:
		c.simpleQuery(msg.String)
		return c.ctxErr()
	case *pgproto3.Parse:
		err = c.parse(msg)
	case *pgproto3.Bind:
		err = c.bind(msg)
	case *pgproto3.Describe:
		err = c.describe(msg)
	case *pgproto3.Execute:
		err = c.execute(msg)
	case *pgproto3.Close:
		err = c.closeNamed(msg)
	case *pgproto3.Flush:
		c.flush()
	case *pgproto3.Sync:
		c.skipping = false
		if c.sess.Status() == 'I' {
			c.closePortals() // their transaction ends here
		}
		c.ready()
	case *pgproto3.CopyData, *pgproto3.CopyDone, *pgproto3.CopyFail: // of a COPY that has failed
	case *pgproto3.FunctionCall:
		c.fail(fault.SQL(fault.Unsupported, "0A000", "function calls of the protocol are not supported; call the function in a query"))
		c.ready()
	default:
		return protocolError("unexpected message %T", msg)
	}
	if err != nil {
		c.fail(err)
		c.skipping = true
		c.flush()
	}
	return c.ctxErr()
}

// ctxErr is why the connection has to end, or nil.
func (c *conn) ctxErr() error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	return nil
}

// receive reads the next message.
func (c *conn) receive() (pgproto3.FrontendMessage, error) {
	idle := c.sess.Status() != 'I' && c.sess.IdleTimeout() > 0
	if idle {
		if err := c.net.SetReadDeadline(time.Now().Add(c.sess.IdleTimeout())); err != nil {
			return nil, errGone
		}
	}
	msg, err := c.codec.Receive()
	if err == nil {
		if idle {
			if err := c.net.SetReadDeadline(time.Time{}); err != nil {
				return nil, errGone
			}
		}
		if err := c.ctxErr(); err != nil {
			return nil, err
		}
		return msg, nil
	}
	var long *pgproto3.ExceededMaxBodyLenErr
	var ne net.Error
	switch {
	case c.ctx.Err() != nil:
		return nil, context.Cause(c.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded) && idle:
		return nil, errIdle
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errWoken
	case errors.As(err, &long):
		return nil, fault.SQL(fault.TooLarge, "54000", "message of %d bytes is over the limit of %d bytes", long.ActualBodyLen, long.MaxExpectedBodyLen)
	case errors.As(err, &ne), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return nil, errGone
	}
	return nil, protocolError("%v", err)
}

// wake ends a wait for the client's next message. The server's context has ended before.
func (c *conn) wake() { _ = c.net.SetReadDeadline(time.Unix(1, 0)) } // fails only on a closed connection, which waits for nothing

// send puts a message in line.
func (c *conn) send(m pgproto3.BackendMessage) {
	out, err := m.Encode(c.out)
	if err != nil {
		c.outErr = errors.Join(c.outErr, err)
		return
	}
	c.out = out
	c.flushFull()
}

// flushFull sends what is in line once it is worth it.
func (c *conn) flushFull() {
	if len(c.out) >= writeBuffer {
		c.flush()
	}
}

// flush sends what is in line. A client that takes nothing for long loses the connection.
func (c *conn) flush() {
	if c.outErr != nil || len(c.out) == 0 {
		c.out = c.out[:0]
		return
	}
	if err := c.net.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout)); err != nil {
		c.outErr = err
	} else if _, err := c.net.Write(c.out); err != nil {
		c.outErr = err
	}
	if cap(c.out) > 4*writeBuffer {
		c.out = make([]byte, 0, writeBuffer)
	}
	c.out = c.out[:0]
}

// ready says that the next query may come.
func (c *conn) ready() {
	c.reportSettings()
	c.send(&pgproto3.ReadyForQuery{TxStatus: c.sess.Status()})
	c.flush()
}

// fail tells an error, which fails an open transaction.
func (c *conn) fail(err error) {
	c.sess.Fail()
	c.send(errorResponse("ERROR", err))
}

// fatal tells why the connection ends.
func (c *conn) fatal(err error) {
	if err == nil || errors.Is(err, errGone) {
		return
	}
	c.send(errorResponse("FATAL", err))
	c.flush()
}

func (c *conn) notice(severity, code, message string) {
	c.send(&pgproto3.NoticeResponse{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: oneLine(message)})
}

// reportedSettings are those whose changes the client is told, by the names that drivers know.
var reportedSettings = []string{
	"server_version", "server_encoding", "client_encoding", "application_name", "default_transaction_read_only", "in_hot_standby",
	"is_superuser", "session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings",
}

func (c *conn) reportSettings() {
	for _, name := range reportedSettings {
		v, ok := c.sess.Setting(strings.ToLower(name))
		if old, told := c.reported[name]; ok && (!told || old != v) {
			c.reported[name] = v
			c.send(&pgproto3.ParameterStatus{Name: name, Value: oneLine(v)})
		}
	}
}

// statement returns the context of a statement, which a cancel request ends. Call done when it is over.
func (c *conn) statement() (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	c.mu.Lock()
	c.running = cancel
	c.mu.Unlock()
	return ctx, func() {
		c.mu.Lock()
		c.running = nil
		c.mu.Unlock()
		cancel(nil)
	}
}

func (c *conn) cancelStatement(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		c.running(why)
	}
}

// watchAfter is how long a statement runs before it is watched whether its client is still there.
const watchAfter = 200 * time.Millisecond

// watch ends the statement when the client goes away meanwhile. Nothing else may read from the connection until stop
// returns.
func (c *conn) watch() (stop func()) {
	peeked := make(chan struct{})
	t := time.AfterFunc(watchAfter, func() {
		defer close(peeked)
		_, err := c.in.Peek(1)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.cancelStatement(errGone)
		}
	})
	return func() {
		if t.Stop() {
			return
		}
		c.wake()
		<-peeked
		if c.srv.ctx.Err() == nil { // else the next read is to end at once
			if err := c.net.SetReadDeadline(time.Time{}); err != nil {
				c.outErr = errors.Join(c.outErr, err)
			}
			if c.srv.ctx.Err() != nil { // between the two
				c.wake()
			}
		}
	}
}

// copyMessages appends whole DataRow messages that were encoded before.
func (c *conn) copyMessages(b []byte) {
	c.out = append(c.out, b...)
	c.flushFull()
}

// commandComplete ends a statement's answer.
func (c *conn) commandComplete(tag string) {
	c.send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
}

// dataRowLength returns the length of the message that b begins with.
func dataRowLength(b []byte) int { return 1 + int(binary.BigEndian.Uint32(b[1:])) }
