package pgwire

import (
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

var emptyQuery = &pgproto3.EmptyQueryResponse{}

// parse answers Parse.
func (c *conn) parse(m *pgproto3.Parse) error {
	if m.Name != "" && c.statements[m.Name] != nil {
		return fault.SQL(fault.Exists, "42P05", "prepared statement %q already exists", m.Name)
	}
	statements, err := c.parseText(m.Query)
	if err != nil {
		return err
	}
	if len(statements) > 1 {
		return fault.SQL(fault.Invalid, "42601", "cannot insert multiple commands into a prepared statement")
	}
	var st sql.Statement
	if len(statements) == 1 {
		st = statements[0]
	}
	if len(m.ParameterOIDs) > sql.MaxParameters {
		return fault.SQL(fault.TooLarge, "54000", "a statement can't have more than %d parameters", sql.MaxParameters)
	}
	ctx, done := c.statement()
	defer done()
	p, err := c.prepare(ctx, st, m.ParameterOIDs)
	if err != nil {
		return cause(ctx, err)
	}
	if err := c.store(m.Name, p); err != nil {
		return err
	}
	c.send(&pgproto3.ParseComplete{})
	return nil
}

// store keeps a prepared statement under a name.
func (c *conn) store(name string, p *prepared) error {
	if len(c.statements) > maxNamed {
		return fault.SQL(fault.Exhausted, "53400", "more than %d prepared statements; DEALLOCATE some", maxNamed)
	}
	p.size = int64(c.text)
	if err := c.keep(p.size); err != nil {
		return err
	}
	c.statements[name] = p
	return nil
}

// keep tells whether the connection may keep that many bytes more of statements and values.
func (c *conn) keep(size int64) error {
	for _, p := range c.statements {
		size += p.size
	}
	for _, p := range c.portals {
		size += p.values
	}
	if size > c.srv.cfg.NamedBytes {
		return fault.SQL(fault.Exhausted, "53400", "prepared statements and portals of this connection need more than %d MiB; close some", c.srv.cfg.NamedBytes>>20)
	}
	return nil
}

// bind answers Bind.
func (c *conn) bind(m *pgproto3.Bind) error {
	if m.DestinationPortal != "" && c.portals[m.DestinationPortal] != nil {
		return fault.SQL(fault.Exists, "42P03", "portal %q already exists", m.DestinationPortal)
	}
	p, err := c.named(m.PreparedStatement)
	if err != nil {
		return err
	}
	if len(m.Parameters) != len(p.params) {
		return protocolError("bind message supplies %d parameters, but prepared statement %q requires %d", len(m.Parameters), m.PreparedStatement, len(p.params))
	}
	codes := formats(m.ParameterFormatCodes)
	if len(codes) > 1 && len(codes) != len(m.Parameters) {
		return protocolError("bind message has %d parameter formats but %d parameters", len(codes), len(m.Parameters))
	}
	b := binding{prepared: p, formats: formats(m.ResultFormatCodes), args: make([]record.Value, len(m.Parameters))}
	if err := b.formats.check(len(p.cols)); err != nil {
		return err
	}
	for i, raw := range m.Parameters {
		if b.args[i], err = decodeParameter(p.params[i], codes.of(i), raw); err != nil {
			return err
		}
	}
	c.closePortal(m.DestinationPortal)
	if len(c.portals) > maxNamed {
		return fault.SQL(fault.Exhausted, "53400", "more than %d portals; close some", maxNamed)
	}
	values := int64(0)
	for _, raw := range m.Parameters {
		values += int64(len(raw))
	}
	if err := c.keep(values); err != nil {
		return err
	}
	c.portals[m.DestinationPortal] = &portal{binding: b, values: values}
	c.send(&pgproto3.BindComplete{})
	return nil
}

// describe answers Describe.
func (c *conn) describe(m *pgproto3.Describe) error {
	var p *prepared
	var f formats
	switch m.ObjectType {
	case 'S':
		var err error
		if p, err = c.named(m.Name); err != nil {
			return err
		}
		c.send(&pgproto3.ParameterDescription{ParameterOIDs: p.params})
	case 'P':
		portal, err := c.portal(m.Name)
		if err != nil {
			return err
		}
		p, f = portal.prepared, portal.formats
	default:
		return protocolError("nothing of kind %q can be described", string(m.ObjectType))
	}
	if p.cols == nil {
		c.send(&pgproto3.NoData{})
	} else {
		c.send(rowDescription(p.cols, f))
	}
	return nil
}

// portal finds a portal; a cursor is one by its name.
func (c *conn) portal(name string) (*portal, error) {
	p := c.portals[name]
	if p == nil {
		p = c.cursors[name]
	}
	if p == nil {
		return nil, fault.SQL(fault.NotFound, "34000", "portal %q does not exist", name)
	}
	return p, nil
}

// execute answers Execute: all rows at once, or as many as asked for.
func (c *conn) execute(m *pgproto3.Execute) error {
	p, err := c.portal(m.Portal)
	if err != nil {
		return err
	}
	if p.st == nil {
		c.send(emptyQuery)
		return nil
	}
	ctx, done := c.statement()
	defer done()
	if m.MaxRows == 0 && p.run == nil && p.pump == nil && !p.done {
		p.done = true
		tag, err := c.run(ctx, &p.binding, false)
		if err != nil {
			return err
		}
		p.tag = tag
		c.commandComplete(tag)
		return nil
	}
	if p.done {
		c.commandComplete(emptied(p.tag))
		return nil
	}
	if p.cols == nil { // nothing to take in parts
		p.done = true
		if p.tag, err = c.run(ctx, &p.binding, false); err == nil {
			c.commandComplete(p.tag)
		}
		return err
	}
	if err := c.open(ctx, p); err != nil {
		return cause(ctx, err)
	}
	n, ended, err := c.take(ctx, p, int64(m.MaxRows), true)
	switch {
	case err != nil:
		return err
	case ended:
		p.done = true
		c.commandComplete(counted(p.tag, n))
	default:
		c.send(&pgproto3.PortalSuspended{})
	}
	return nil
}

// closeNamed answers Close; closing what isn't there is no error.
func (c *conn) closeNamed(m *pgproto3.Close) error {
	switch m.ObjectType {
	case 'S':
		delete(c.statements, m.Name)
	case 'P':
		c.closePortal(m.Name)
	default:
		return protocolError("nothing of kind %q can be closed", string(m.ObjectType))
	}
	c.send(&pgproto3.CloseComplete{})
	return nil
}
