package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/millrace/millrace/node"
)

// serveOptions is what serve takes besides the node's own settings.
type serveOptions struct {
	config    string
	logLevel  string
	logFormat string
	ephemeral bool
}

func (a *app) serveCommand() *cobra.Command {
	cfg := node.DefaultConfig()
	cfg.DataDir = "millrace-data"
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: `Serve runs a node until it gets SIGTERM or Ctrl-C; it then hands its work over and stops. The first node, started
without --join, makes a new cluster; others join it. A node that is started again on its data folder comes back as
itself, whatever --join says. When it can serve, it prints one line on stdout:

  millrace ready name=... grpc=HOST:PORT gossip=HOST:PORT http=HOST:PORT pg=HOST:PORT

--config names a TOML file whose keys are the flags of this command without their dashes; flags win over it.`,
		Example: `  millrace serve --data ./data
  millrace serve --data ./n2 --listen 127.0.0.1:7170 --gossip 127.0.0.1:7171 --http 127.0.0.1:7180 --join 127.0.0.1:7071
  millrace serve --config millrace.toml`,
		Args: cobra.NoArgs,
	}
	serveFlags(c.Flags(), &cfg, &o)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if o.config != "" {
			if err := readConfig(o.config, c.Flags()); err != nil {
				return err
			}
		}
		if err := cfg.Validate(); err != nil {
			return &usageError{err}
		}
		log, err := newLogger(a.stderr, o)
		if err != nil {
			return err
		}
		limitArenas()
		debug.SetMemoryLimit(cfg.Budget().Heap)
		return a.serve(c.Context(), cfg, o, log)
	}
	return c
}

func serveFlags(f *pflag.FlagSet, cfg *node.Config, o *serveOptions) {
	f.SortFlags = false
	f.StringVar(&cfg.DataDir, "data", cfg.DataDir, "folder of the node's data; created if missing")
	f.StringVar(&cfg.Listen, "listen", cfg.Listen, "HOST:PORT of gRPC, for clients and peers; port 0 picks a free one")
	f.StringVar(&cfg.Gossip, "gossip", cfg.Gossip, "HOST:PORT of gossip among the nodes")
	f.StringVar(&cfg.HTTP, "http", cfg.HTTP, "HOST:PORT of /healthz, /readyz and /metrics")
	f.StringVar(&cfg.PG, "pg", cfg.PG, "HOST:PORT of PostgreSQL's protocol (default "+node.DefaultPG+", or a free port where that is taken)")
	f.StringSliceVar(&cfg.Join, "join", nil, "gossip address of any peer; may be repeated")
	f.StringVar(&cfg.Name, "name", cfg.Name, "the node's name (default: host name and port)")
	f.StringVar(&cfg.Zone, "zone", cfg.Zone, "failure domain; replicas of a partition are spread over zones")
	f.IntVar(&cfg.Partitions, "partitions", cfg.Partitions, "partitions of a cluster that is made here; fixed then")
	f.IntVar(&cfg.Replicas, "replicas", cfg.Replicas, "target number of replicas of a cluster that is made here")
	f.StringVar(&o.config, "config", "", "TOML file with the same keys as these flags")
	f.Var((*byteSize)(&cfg.MaxRecordBytes), "max-record", "largest record, such as 8MiB")
	f.Var((*byteSize)(&cfg.MaxMessageBytes), "max-message", "largest gRPC message")
	f.IntVar(&cfg.MaxConnections, "max-connections", cfg.MaxConnections, "connections on the gRPC port")
	f.IntVar(&cfg.MaxPGConnections, "pg-connections", cfg.MaxPGConnections, "clients of PostgreSQL's protocol")
	f.DurationVar(&cfg.MaxStaleness, "max-staleness", cfg.MaxStaleness, "how old an answer may be when the node is cut off")
	f.DurationVar(&cfg.StatementTimeout, "statement-timeout", cfg.StatementTimeout, "how long a statement waits for the tick that it must see")
	f.Var((*byteSize64)(&cfg.CacheBytes), "cache", "of --memory, the stores' block caches; 0: a thirty-second")
	f.Var((*byteSize64)(&cfg.CopyRate), "copy-rate", "bytes a second that the node sends for moving partitions; 0: no limit")
	f.Var((*byteSize64)(&cfg.CompactBytes), "compact", "size of a table's log in a partition from which on it is compacted by key; 0: never")
	f.Var((*byteSize64)(&cfg.ShipRate), "ship-rate", "bytes a second of views' state that the node sends to other replicas")
	f.IntVar(&cfg.CopiesPerNode, "copies", cfg.CopiesPerNode, "partitions that each node copies at once while they move")
	f.Var((*byteSize64)(&cfg.Memory), "memory", "memory that the process stays within, for everything; 0: a quarter of the machine's, 1 GiB at least")
	f.Var((*byteSize64)(&cfg.DiskReserve), "disk-reserve", "free space of the disk below which appends are refused; 0: none")
	f.Var((*byteSize64)(&cfg.InFlightBytes), "in-flight", "of --memory, appends that may wait for the disk or replicas; 0: a sixty-fourth")
	f.Var((*byteSize64)(&cfg.IngestBytes), "ingest-memory", "of --memory, appends of all clients that the node holds; 0: a sixteenth")
	f.Var((*byteSize64)(&cfg.ConnInFlightBytes), "conn-in-flight", "of --ingest-memory, one connection's; 0: 16 MiB, if it is as much")
	f.Var((*byteSize64)(&cfg.QueryMemoryBytes), "query-memory", "of --memory, rows that one ad-hoc statement may hold; 0: a tenth")
	f.Var((*byteSize64)(&cfg.QueriesBytes), "query-memory-total", "of --memory, rows that all ad-hoc statements may hold; 0: a fifth")
	f.Var((*byteSize)(&cfg.MaxStatementBytes), "max-statement", "largest text of SQL")
	f.IntVar(&cfg.MaxReaders, "max-readers", cfg.MaxReaders, "reads of streams and subscriptions at once")
	f.BoolVar(&cfg.PProf, "pprof", cfg.PProf, "serve /debug/pprof on the HTTP address")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	// For programs that start nodes for a while, such as the demo.
	f.BoolVar(&o.ephemeral, "ephemeral", false, "stop when stdin ends, and remove the data folder then, and the one above if it is empty")
	f.Lookup("ephemeral").Hidden = true
}

func newLogger(out io.Writer, o serveOptions) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, usagef("--log-level %q: use debug, info, warn or error", o.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, options)), nil
	}
	return nil, usagef("--log-format %q: use text or json", o.logFormat)
}

func (a *app) serve(ctx context.Context, cfg node.Config, o serveOptions, log *slog.Logger) error {
	if o.ephemeral {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() { // not waited for: a read from stdin can't be ended
			io.Copy(io.Discard, a.stdin)
			cancel()
		}()
	}
	err := node.Run(ctx, cfg, log, func(addr node.Addresses) error {
		_, err := fmt.Fprintf(a.stdout, "millrace ready name=%s grpc=%s gossip=%s http=%s pg=%s\n",
			addr.Name, addr.GRPC, addr.Gossip, addr.HTTP, addr.PG)
		return err
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // as asked
	}
	if o.ephemeral {
		err = errors.Join(err, os.RemoveAll(cfg.DataDir))
		os.Remove(filepath.Dir(cfg.DataDir)) // the last of several nodes takes their common folder along; it isn't empty before
	}
	return err
}
