package pgwire

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// message is a client's message.
func message(t testing.TB, m pgproto3.FrontendMessage) []byte {
	b, err := m.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// greeting is how a client begins.
func greeting(t testing.TB) []byte {
	return message(t, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "u", "database": "d"}})
}

// conversations are what clients say after their greeting, one for each thing that the protocol has.
func conversations(t testing.TB) [][]byte {
	query := func(text string) []byte { return message(t, &pgproto3.Query{String: text}) }
	sync, flush := message(t, &pgproto3.Sync{}), message(t, &pgproto3.Flush{})
	array := []byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 'x', 0xff, 0xff, 0xff, 0xff}
	parse := func(name, text string, oids ...uint32) []byte {
		return message(t, &pgproto3.Parse{Name: name, Query: text, ParameterOIDs: oids})
	}
	bind := func(portal, name string, params ...[]byte) []byte {
		return message(t, &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name, ParameterFormatCodes: []int16{1}, Parameters: params, ResultFormatCodes: []int16{1}})
	}
	execute := func(portal string, rows uint32) []byte {
		return message(t, &pgproto3.Execute{Portal: portal, MaxRows: rows})
	}
	describe := func(kind byte, name string) []byte {
		return message(t, &pgproto3.Describe{ObjectType: kind, Name: name})
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	data := func(text string) []byte { return message(t, &pgproto3.CopyData{Data: []byte(text)}) }
	done := message(t, &pgproto3.CopyDone{})
	return [][]byte{
		join(query("SELECT page FROM clicks; SELECT 1"), query(""), query("SELEC"), message(t, &pgproto3.Terminate{})),
		join(parse("s", "SELECT page, ms FROM clicks WHERE ms = $1 AND tags = $2", 20, 1009), describe('S', "s"), bind("p", "s", []byte{0, 0, 0, 0, 0, 0, 0, 1}, array),
			describe('P', "p"), execute("p", 2), execute("p", 0), message(t, &pgproto3.Close{ObjectType: 'P', Name: "p"}), message(t, &pgproto3.Close{ObjectType: 'S', Name: "s"}), sync),
		join(parse("", "SELECT typname, oid FROM pg_type WHERE oid = ANY($1)", 1028), bind("", "", []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 26}), describe('P', ""), execute("", 1), flush, execute("", 0), sync),
		join(query("BEGIN"), query("DECLARE c CURSOR FOR SELECT page FROM clicks"), query("FETCH 1 FROM c"), query("SELECT nope"), query("SELECT 1"), query("MOVE 1 FROM c"), query("ROLLBACK")),
		join(query("BEGIN"), query("DECLARE c CURSOR FOR SUBSCRIBE TO clicks"), query("FETCH 0 FROM c"), query("CLOSE c"), query("COMMIT")),
		join(query("COPY clicks FROM STDIN"), data("a\t1\t{x,y}\nb\t"), data("2\t\\N\n"), done),
		join(query("COPY clicks FROM STDIN WITH (FORMAT csv, HEADER)"), data("page,ms,tags\n\"a,\"\"b\",1,{}\n"), done, query("COPY clicks FROM STDIN"), data("a\tx\n"), message(t, &pgproto3.CopyFail{Message: "no"})),
		join(query("COPY clicks FROM STDIN (FORMAT binary)"), data("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01a\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff"), done),
		join(query("COPY (SELECT page, tags FROM clicks) TO STDOUT (FORMAT binary)"), query("COPY clicks TO STDOUT CSV")),
		join(query("PREPARE q AS SELECT page FROM clicks WHERE ms = $1"), query("EXECUTE q(1)"), query("DEALLOCATE q"), query("DISCARD ALL"), query("UNLISTEN *")),
		join(query("SET application_name = 'x'"), message(t, &pgproto3.FunctionCall{Function: 1}), data("stray"), sync),
		join(parse("", "INSERT INTO clicks VALUES ($1, $2)"), bind("", "", []byte("x"), []byte{0, 0, 0, 0, 0, 0, 0, 1}), execute("", 0), sync),
		join(query(`SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname ~ '^(clicks)$'`)),
	}
}

// checkAnswers holds that what a client was told are whole messages of the protocol.
func checkAnswers(t *testing.T, told []byte) {
	for len(told) > 0 && told[0] == 'N' && (len(told) < 5 || binary.BigEndian.Uint32(told[1:]) > uint32(len(told))) {
		told = told[1:] // no encryption
	}
	if len(told) == 0 {
		return
	}
	front := pgproto3.NewFrontend(bytes.NewReader(told), nil)
	for {
		m, err := front.Receive()
		if err != nil {
			if err.Error() != "unexpected EOF" && err.Error() != "EOF" {
				t.Errorf("an answer that is no message: %v", err)
			}
			return
		}
		if z, ok := m.(*pgproto3.ReadyForQuery); ok && !bytes.ContainsRune([]byte("ITE"), rune(z.TxStatus)) {
			t.Errorf("status %q", z.TxStatus)
		}
		if e, ok := m.(*pgproto3.ErrorResponse); ok && e.Code == "XX000" {
			t.Errorf("an internal error: %s", e.Message)
		}
	}
}

// FuzzFrontend takes any bytes from a client, as its greeting or after a proper one.
func FuzzFrontend(f *testing.F) {
	hello := greeting(f)
	for _, c := range conversations(f) {
		f.Add(true, c)
		f.Add(false, append(bytes.Clone(hello), c...))
	}
	ssl := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 80877103)
	f.Add(false, append(bytes.Clone(ssl), hello...))
	f.Add(false, bytes.Repeat(ssl, 6))
	f.Add(false, message(f, &pgproto3.CancelRequest{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}}))
	f.Fuzz(func(t *testing.T, greeted bool, said []byte) {
		if len(said) > 1<<16 {
			return
		}
		if greeted {
			said = append(bytes.Clone(hello), said...)
		}
		checkAnswers(t, speak(t, said))
	})
}

// TestClientGone cuts every conversation after every byte: whatever a client was in the middle of, nothing is left of it.
func TestClientGone(t *testing.T) {
	hello := greeting(t)
	for _, c := range conversations(t) {
		whole := append(bytes.Clone(hello), c...)
		for n := range len(whole) + 1 {
			checkAnswers(t, speak(t, whole[:n]))
			if t.Failed() {
				return
			}
		}
	}
}

// TestConversations holds that the conversations reach what they are for.
func TestConversations(t *testing.T) {
	all := ""
	for _, c := range conversations(t) {
		told := speak(t, append(greeting(t), c...))
		front := pgproto3.NewFrontend(bytes.NewReader(told), nil)
		for {
			m, err := front.Receive()
			if err != nil {
				break
			}
			switch m := m.(type) {
			case *pgproto3.CommandComplete:
				all += string(m.CommandTag) + "\n"
			case *pgproto3.ErrorResponse:
				all += m.Code + "\n"
			}
		}
	}
	want := "SELECT 3\nSELECT 3\n42601\nSELECT 1\nSELECT 0\nSELECT 0\nBEGIN\nDECLARE CURSOR\nFETCH 1\n42703\n25P02\n25P02\nROLLBACK\nBEGIN\nDECLARE CURSOR\nFETCH 0\nCLOSE CURSOR\nCOMMIT\n" +
		"COPY 2\nCOPY 1\n22P02\nCOPY 1\nCOPY 3\nCOPY 3\nPREPARE\nSELECT 3\nDEALLOCATE\nDISCARD ALL\nUNLISTEN\nSET\n0A000\nINSERT 0 1\nSELECT 3\n"
	if all != want {
		t.Errorf("%q\nwant\n%q", all, want)
	}
}
