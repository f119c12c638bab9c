package coordinator

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// SQLSTATEs of the catalog's refusals, as PostgreSQL gives them.
const (
	sqlDuplicate       = "42P07"
	sqlUndefined       = "42P01"
	sqlDependents      = "2BP01"
	sqlWrongObjectType = "42809"
	sqlInvalidName     = "42602"
)

// object is a stream, a view or a table; they share one namespace.
type object struct {
	kind      internalv1.ObjectKind
	id        uint64 // of a table: its rows'
	log       uint64 // of a table: its log's
	name      string
	dependsOn []uint64
	// Of a view: the one that it is to replace, and the one that has replaced it.
	replaces, replacedBy uint64
}

// hidden tells that the object has no name now.
func (o object) hidden() bool { return o.replaces != 0 || o.replacedBy != 0 }

const (
	kindStream = internalv1.ObjectKind_OBJECT_KIND_STREAM
	kindView   = internalv1.ObjectKind_OBJECT_KIND_VIEW
	kindTable  = internalv1.ObjectKind_OBJECT_KIND_TABLE
)

func kindWord(k internalv1.ObjectKind) string {
	switch k {
	case kindStream:
		return "stream"
	case kindView:
		return "materialized view"
	case kindTable:
		return "table"
	}
	return "relation"
}

// objects lists all, by id.
func objects(st *internalv1.ClusterState) []object {
	out := make([]object, 0, len(st.Streams)+len(st.Views))
	for _, s := range st.Streams {
		if len(s.Stream.PrimaryKey) == 0 {
			out = append(out, object{kind: kindStream, id: s.Stream.Id, name: s.Stream.Name})
		}
	}
	for _, v := range st.Views {
		o := object{kind: kindView, id: v.Id, log: v.Table, name: v.Name, dependsOn: v.DependsOn, replaces: v.Replaces, replacedBy: v.ReplacedBy}
		if v.Table != 0 {
			o.kind = kindTable
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b object) int { return cmp.Compare(a.id, b.id) })
	return out
}

func objectNamed(objs []object, name string) (object, bool) {
	for _, o := range objs {
		if o.name == name && !o.hidden() {
			return o, true
		}
	}
	return object{}, false
}

// newObject checks that the name is free and there is room. With done the caller returns at once: err, or success as the
// object exists and the statement allows that.
func (a *application) newObject(name string, size int, ifNotExists bool) (id uint64, done bool, err error) {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return 0, true, fault.SQL(fault.Invalid, sqlInvalidName, "name %q: give 1 to %d bytes of UTF-8", oneLine(name), maxName)
	}
	objs := objects(a.st)
	if o, ok := objectNamed(objs, name); ok {
		if !ifNotExists {
			return 0, true, fault.SQL(fault.Exists, sqlDuplicate, "%s %q already exists", kindWord(o.kind), name)
		}
		a.res.ObjectId = o.id
		a.res.Notice = kindWord(o.kind) + " " + quote(name) + " already exists, skipping"
		return 0, true, nil
	}
	if a.indexNamed(name) != nil {
		return 0, true, fault.SQL(fault.Exists, sqlDuplicate, "index %q already exists", name)
	}
	if len(objs) >= maxObjects {
		return 0, true, fault.New(fault.Exhausted, "there are %d streams, tables and views, which is the limit; drop some first", len(objs))
	}
	if size > maxDefinition {
		return 0, true, fault.New(fault.TooLarge, "the definition of %q has %d bytes, at most %d are kept", name, size, maxDefinition)
	}
	id = a.st.NextObjectId
	a.st.NextObjectId++
	a.res.ObjectId = id
	a.changed = true
	return id, false, nil
}

func quote(name string) string { return `"` + name + `"` }

func (a *application) createStream(c *internalv1.CreateStream) error {
	if c.Def == nil || c.Def.Stream == nil {
		return fault.New(fault.Invalid, "a stream without a definition")
	}
	id, done, err := a.newObject(c.Def.Stream.Name, proto.Size(c.Def), c.IfNotExists)
	if done {
		return err
	}
	def := proto.CloneOf(c.Def)
	def.Stream.Id, def.CreatedTick = id, a.cmd.Tick
	a.st.Streams = append(slices.Clip(a.st.Streams), def)
	return nil
}

// createTable makes a table's log and its rows.
func (a *application) createTable(c *internalv1.CreateTable) error {
	if c.Log == nil || c.Log.Stream == nil || len(c.Log.Stream.PrimaryKey) == 0 {
		return fault.New(fault.Invalid, "a table without a definition or a primary key")
	}
	log, done, err := a.newObject(c.Log.Stream.Name, proto.Size(c.Log), c.IfNotExists)
	if done {
		return err
	}
	rows := a.st.NextObjectId
	a.st.NextObjectId++
	a.res.ObjectId = rows
	def := proto.CloneOf(c.Log)
	def.Stream.Id, def.CreatedTick = log, a.cmd.Tick
	a.st.Streams = append(slices.Clip(a.st.Streams), def)
	a.st.Views = append(slices.Clip(a.st.Views), &internalv1.ViewDef{
		Id: rows, Name: def.Stream.Name, Sql: def.Sql, Columns: def.Stream.Columns, CreatedTick: a.cmd.Tick, Table: log,
	})
	return nil
}

func (a *application) createView(c *internalv1.CreateView) error {
	if c.Def == nil {
		return fault.New(fault.Invalid, "a view without a definition")
	}
	if c.Replace {
		if done, err := a.replaceView(c); done {
			return err
		}
	}
	id, done, err := a.newObject(c.Def.Name, proto.Size(c.Def), c.IfNotExists)
	if done {
		return err
	}
	if err := a.checkReads(c.Def, objects(a.st)); err != nil {
		return err
	}
	def := proto.CloneOf(c.Def)
	def.Id, def.CreatedTick = id, a.cmd.Tick
	a.st.Views = append(slices.Clip(a.st.Views), def)
	return nil
}

// restartView lets a view begin anew, unless it has since.
func (a *application) restartView(c *internalv1.RestartView) error {
	at := slices.IndexFunc(a.st.Views, func(v *internalv1.ViewDef) bool { return v.Id == c.Id })
	if at < 0 || a.st.Views[at].CreatedTick != c.CreatedTick || a.cmd.Tick <= c.CreatedTick {
		return nil
	}
	def := proto.CloneOf(a.st.Views[at])
	def.CreatedTick = a.cmd.Tick
	a.st.Views = slices.Clone(a.st.Views)
	a.st.Views[at] = def
	a.changed = true
	return nil
}

func (a *application) dropObjects(d *internalv1.DropObjects) error {
	objs := objects(a.st)
	drop := map[uint64]bool{}
	var notices []string
	for _, name := range d.Names {
		o, ok := objectNamed(objs, name)
		switch {
		case !ok && d.IfExists:
			notices = append(notices, kindWord(d.Kind)+" "+quote(oneLine(name))+" does not exist, skipping")
		case !ok:
			return fault.SQL(fault.NotFound, sqlUndefined, "%s %q does not exist", kindWord(d.Kind), oneLine(name))
		case d.Kind != internalv1.ObjectKind_OBJECT_KIND_UNSPECIFIED && o.kind != d.Kind:
			return fault.SQL(fault.Invalid, sqlWrongObjectType, "%q is a %s, not a %s; use DROP %s",
				name, kindWord(o.kind), kindWord(d.Kind), strings.ToUpper(kindWord(o.kind)))
		default:
			drop[o.id] = true
		}
	}
	for _, o := range objs { // nobody knows any more what was replaced
		if o.replacedBy != 0 && slices.ContainsFunc(o.dependsOn, func(id uint64) bool { return drop[id] }) {
			drop[o.id] = true
		}
	}
	if err := closeOverDependents(objs, drop, d.Cascade); err != nil {
		return err
	}
	a.res.Notice = strings.Join(notices, "; ")
	if len(drop) == 0 {
		return nil
	}
	// What depends on an object has a higher id than it: dependents come first.
	for _, o := range slices.Backward(objs) {
		if drop[o.id] && !o.hidden() {
			a.res.Dropped = append(a.res.Dropped, o.name)
		}
	}
	for _, o := range objs {
		if drop[o.id] && o.log != 0 {
			drop[o.log] = true
		}
		if drop[o.replaces] || drop[o.replacedBy] {
			drop[o.id] = true
		}
	}
	a.st.Streams = slices.DeleteFunc(slices.Clone(a.st.Streams), func(s *internalv1.StreamDef) bool { return drop[s.Stream.Id] })
	a.st.Views = slices.DeleteFunc(slices.Clone(a.st.Views), func(v *internalv1.ViewDef) bool { return drop[v.Id] })
	a.changed = true
	return nil
}

// closeOverDependents adds to drop what depends on its objects, or refuses when cascade isn't set. Ids grow with
// creation and a view can only use what exists, so one pass in order of ids finds them all.
func closeOverDependents(objs []object, drop map[uint64]bool, cascade bool) error {
	users := map[uint64][]string{}
	for _, o := range objs {
		for _, dep := range o.dependsOn {
			if !drop[dep] || drop[o.id] {
				continue
			}
			if cascade {
				drop[o.id] = true
				break
			}
			if user := kindWord(o.kind) + " " + quote(o.name); !slices.Contains(users[dep], user) {
				users[dep] = append(users[dep], user)
			}
			break
		}
	}
	for _, o := range objs {
		if u := users[o.id]; len(u) > 0 {
			verb := "depends"
			if len(u) > 1 {
				verb = "depend"
			}
			return fault.SQL(fault.Conflict, sqlDependents, "cannot drop %s %q because %s %s on it; drop that first, or use CASCADE",
				kindWord(o.kind), o.name, strings.Join(u, ", "), verb).WithReason(ReasonDependents)
		}
	}
	return nil
}
