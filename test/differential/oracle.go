package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// oracle is PostgreSQL, in a transaction that is rolled back at the end of a case.
type oracle struct {
	conn *pgconn.PgConn
	ctx  context.Context
	c    *Case
	rows map[string]map[string]string // tables: rows by key
}

const (
	streamColumns = "_partition bigint, _offset bigint, _tick bigint, _time timestamptz, _key text, _wm timestamptz"
	forever       = int64(1) << 62
)

func connect(ctx context.Context, dsn string) (*pgconn.PgConn, error) {
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `SET timezone = 'UTC'; SET jit = off; SET bytea_output = 'hex'; SET intervalstyle = 'postgres'; SET datestyle = 'ISO';
		SET extra_float_digits = 1; SET statement_timeout = '5s'; SET client_min_messages = error`).ReadAll()
	return conn, err
}

func (o *oracle) exec(sql string) error {
	_, err := o.conn.Exec(o.ctx, sql).ReadAll()
	return err
}

func (o *oracle) begin(c *Case) error {
	o.c, o.rows = c, map[string]map[string]string{}
	var b strings.Builder
	b.WriteString("BEGIN; CREATE TEMP TABLE _wm (stream text, wm timestamptz);")
	for i := range c.Objects {
		t := &c.Objects[i]
		if !t.Table {
			fmt.Fprintf(&b, "CREATE TEMP TABLE %s (%s, %s); INSERT INTO _wm VALUES ('%s', NULL);", t.Name, t.PG, streamColumns, t.Name)
			continue
		}
		o.rows[t.Name] = map[string]string{}
		fmt.Fprintf(&b, "CREATE TEMP TABLE %[1]s (%[2]s, _k text); CREATE TEMP TABLE %[1]s__hist (%[2]s, _k text, _from bigint, _to bigint);", t.Name, t.PG)
	}
	return o.exec(b.String())
}

func (o *oracle) end() error { return o.exec("ROLLBACK") }

// stamp writes microseconds as a timestamp in JSON.
func stamp(us *int64) string {
	if us == nil {
		return "null"
	}
	return `"` + time.UnixMicro(*us).UTC().Format("2006-01-02T15:04:05.999999Z") + `"`
}

// with adds fields to a JSON object.
func with(object, fields string) string { return object[:len(object)-1] + "," + fields + "}" }

// apply adds the records of a tick.
func (o *oracle) apply(records []placed, l *ledger) error {
	var b strings.Builder
	streams := map[string][]string{}
	changed := map[string][]string{}
	for i := range records {
		r := &records[i]
		if r.object.Table {
			k := string(r.key)
			changed[r.Object] = append(changed[r.Object], k)
			if delete(o.rows[r.Object], k); !r.deleted {
				o.rows[r.Object][k] = r.JSON
			}
			continue
		}
		key := "null"
		if r.object.Key != "" && r.key != nil {
			if key = string(r.key); key[0] != '"' {
				key = strconv.Quote(key)
			}
		}
		tick := int64(r.tick)
		streams[r.Object] = append(streams[r.Object], with(r.JSON, fmt.Sprintf(`"_partition":%d,"_offset":%d,"_tick":%d,"_time":%s,"_key":%s,"_wm":%s`,
			r.partition, r.offset, tick, stamp(&tick), key, stamp(r.watermark))))
	}
	for i := range o.c.Objects {
		t := &o.c.Objects[i]
		if rows := streams[t.Name]; rows != nil {
			fmt.Fprintf(&b, "INSERT INTO %[1]s SELECT * FROM json_populate_recordset(NULL::%[1]s, %[2]s);", t.Name, quote("["+strings.Join(rows, ",")+"]"))
		}
		if keys := changed[t.Name]; keys != nil {
			o.change(&b, t, keys, int64(records[0].tick))
		}
		if t.Watermark {
			fmt.Fprintf(&b, "UPDATE _wm SET wm = %s WHERE stream = '%s';", strings.ReplaceAll(strings.ReplaceAll(stamp(l.watermark(t)), `"`, `'`), "null", "NULL"), t.Name)
		}
	}
	return o.exec(b.String())
}

// change puts the rows of the changed keys into a table, and into its history.
func (o *oracle) change(b *strings.Builder, t *Object, keys []string, tick int64) {
	slices.Sort(keys)
	keys = slices.Compact(keys)
	var list, rows []string
	for _, k := range keys {
		list = append(list, quote(k))
		if row, ok := o.rows[t.Name][k]; ok {
			rows = append(rows, with(row, fmt.Sprintf(`"_k":%s,"_from":%d,"_to":%d`, jsonString(k), tick, forever)))
		}
	}
	in := strings.Join(list, ", ")
	fmt.Fprintf(b, "DELETE FROM %[1]s WHERE _k IN (%[2]s); UPDATE %[1]s__hist SET _to = %[3]d WHERE _to = %[4]d AND _k IN (%[2]s);", t.Name, in, tick, forever)
	for _, into := range []string{t.Name, t.Name + "__hist"} {
		fmt.Fprintf(b, "INSERT INTO %[1]s SELECT * FROM json_populate_recordset(NULL::%[1]s, %[2]s);", into, quote("["+strings.Join(rows, ",")+"]"))
	}
}

// try runs sql so that an error leaves the transaction as it was.
func (o *oracle) try(sql string) ([]*pgconn.Result, error) {
	if err := o.exec("SAVEPOINT q"); err != nil {
		return nil, err
	}
	res, err := o.conn.Exec(o.ctx, sql).ReadAll()
	if err != nil {
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			return nil, err
		}
		if rerr := o.exec("ROLLBACK TO q"); rerr != nil {
			return nil, rerr
		}
		return nil, pg
	}
	return res, o.exec("RELEASE q")
}

// createView makes a view of the case's query.
func (o *oracle) createView(v *View) error {
	_, err := o.try("CREATE TEMP VIEW " + v.Name + " AS " + v.PG)
	return err
}

// read returns a view's rows as text, null for NULL.
func (o *oracle) read(v *View) ([][]string, error) {
	res, err := o.try("SELECT * FROM " + v.Name)
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, r := range res[len(res)-1].Rows {
		row := make([]string, len(r))
		for i, c := range r {
			if row[i] = null; c != nil {
				row[i] = string(c)
			}
		}
		out = append(out, row)
	}
	return out, nil
}

// refusal tells an error of PostgreSQL about a query from one of the connection.
func refusal(err error) (*pgconn.PgError, bool) {
	var pg *pgconn.PgError
	return pg, errors.As(err, &pg)
}
