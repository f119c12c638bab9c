package sql

// TransactionAction is what a Transaction does.
type TransactionAction string

const (
	Begin      TransactionAction = "BEGIN"
	Commit     TransactionAction = "COMMIT"
	Rollback   TransactionAction = "ROLLBACK"
	Savepoint  TransactionAction = "SAVEPOINT"
	Release    TransactionAction = "RELEASE"
	RollbackTo TransactionAction = "ROLLBACK TO"
)

// Transaction is BEGIN, START TRANSACTION, COMMIT, END, ROLLBACK, ABORT, SAVEPOINT, RELEASE or ROLLBACK TO. What a
// transaction means is the executor's business.
type Transaction struct {
	statement
	Action TransactionAction
	Name   string // of the savepoint
	Chain  bool   // AND CHAIN
	Modes  TransactionModes
}

// TransactionModes are the modes of BEGIN or SET TRANSACTION; the zero values stand for the session's defaults.
type TransactionModes struct {
	Isolation string // "read committed" and so on
	ReadOnly  bool
	ReadWrite bool
}

// transaction parses the statements of transactions; ok is false when it isn't one.
func (c *cursor) transaction() (t *Transaction, ok bool, err error) {
	t = &Transaction{statement: c.base()}
	switch c.word(0) {
	case "begin":
		c.i, t.Action = 1, Begin
		c.transactionWord()
		t.Modes, err = c.transactionModes()
	case "start":
		c.i, t.Action = 1, Begin
		if !c.accept("transaction") {
			return nil, true, c.expect("TRANSACTION")
		}
		t.Modes, err = c.transactionModes()
	case "commit", "end":
		c.i, t.Action = 1, Commit
		c.transactionWord()
		t.Chain = c.chain()
	case "rollback", "abort":
		c.i, t.Action = 1, Rollback
		c.transactionWord()
		if c.accept("to") {
			t.Action = RollbackTo
			c.accept("savepoint")
			t.Name, _, err = c.name("the name of a savepoint")
		} else {
			t.Chain = c.chain()
		}
	case "savepoint":
		c.i, t.Action = 1, Savepoint
		t.Name, _, err = c.name("the name of a savepoint")
	case "release":
		c.i, t.Action = 1, Release
		c.accept("savepoint")
		t.Name, _, err = c.name("the name of a savepoint")
	default:
		return nil, false, nil
	}
	if err == nil {
		err = c.finish()
	}
	return t, true, err
}

func (c *cursor) transactionWord() {
	if !c.accept("transaction") {
		c.accept("work")
	}
}

// chain takes AND [NO] CHAIN.
func (c *cursor) chain() bool {
	if c.accept("and", "no", "chain") {
		return false
	}
	return c.accept("and", "chain")
}

func (c *cursor) transactionModes() (TransactionModes, error) {
	var m TransactionModes
	for !c.done() {
		switch {
		case c.accept("isolation", "level", "read", "committed"):
			m.Isolation = "read committed"
		case c.accept("isolation", "level", "read", "uncommitted"):
			m.Isolation = "read uncommitted"
		case c.accept("isolation", "level", "repeatable", "read"):
			m.Isolation = "repeatable read"
		case c.accept("isolation", "level", "serializable"):
			m.Isolation = "serializable"
		case c.accept("read", "only"):
			m.ReadOnly, m.ReadWrite = true, false
		case c.accept("read", "write"):
			m.ReadOnly, m.ReadWrite = false, true
		case c.accept("deferrable"), c.accept("not", "deferrable"):
		default:
			return m, c.expect("a mode of a transaction, such as READ ONLY")
		}
		c.acceptToken(tokenComma)
	}
	return m, nil
}
