package coordinator

import (
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// A view that is to replace another one is a view of its own, with an id of its own, that has no name until SwapView lets
// it take the other's. The other one stays without a name until DropReplaced: statements that read it end meanwhile.

const sqlInUse = "55006"

// ReasonBeingReplaced says that a view can't be used by a new one until the one that replaces it has taken its place.
const ReasonBeingReplaced = "BEING_REPLACED"

// view returns the place of the view with an id; -1: there is none.
func (a *application) view(id uint64) int {
	return slices.IndexFunc(a.st.Views, func(v *internalv1.ViewDef) bool { return v.Id == id })
}

// editView returns a copy of the view at a place that may be changed, and puts it there.
func (a *application) editView(at int) *internalv1.ViewDef {
	a.changed = true
	def := proto.CloneOf(a.st.Views[at])
	a.st.Views = slices.Clone(a.st.Views)
	a.st.Views[at] = def
	return def
}

// replaceView makes a view that is to replace the one of its name; not done: there is none.
func (a *application) replaceView(c *internalv1.CreateView) (done bool, err error) {
	objs := objects(a.st)
	old, ok := objectNamed(objs, c.Def.Name)
	switch {
	case !ok:
		return false, nil
	case old.kind != kindView:
		return true, fault.SQL(fault.Invalid, sqlWrongObjectType, "%q is a %s, not a materialized view", c.Def.Name, kindWord(old.kind))
	case slices.Contains(c.Def.DependsOn, old.id):
		return true, fault.SQL(fault.Invalid, "42P17", "materialized view %q can't read the one that it replaces", c.Def.Name)
	case proto.Size(c.Def) > maxDefinition:
		return true, fault.New(fault.TooLarge, "the definition of %q has %d bytes, at most %d are kept", c.Def.Name, proto.Size(c.Def), maxDefinition)
	case len(objs) >= maxObjects:
		return true, fault.New(fault.Exhausted, "there are %d streams, tables and views, which is the limit; drop some first", len(objs))
	}
	if err := a.checkReads(c.Def, objs); err != nil {
		return true, err
	}
	if err := nobodyReads(objs, old); err != nil {
		return true, err
	}
	def := proto.CloneOf(c.Def)
	def.Id, def.CreatedTick, def.Replaces = a.st.NextObjectId, a.cmd.Tick, old.id
	def.Indexes = keptIndexes(a.st.Views[a.view(old.id)], def)
	a.st.NextObjectId++
	a.res.ObjectId = def.Id
	// One that was to replace it before is given up.
	views := slices.DeleteFunc(slices.Clone(a.st.Views), func(v *internalv1.ViewDef) bool { return v.Replaces == old.id })
	a.st.Views = append(views, def)
	a.changed = true
	return true, nil
}

// keptIndexes are the indexes of a view whose columns the one that replaces it has too.
func keptIndexes(old, def *internalv1.ViewDef) []*internalv1.IndexDef {
	var out []*internalv1.IndexDef
	for _, ix := range old.Indexes {
		if !slices.ContainsFunc(ix.Columns, func(name string) bool { return !hasColumn(def, name) }) {
			out = append(out, ix)
		}
	}
	return out
}

func hasColumn(v *internalv1.ViewDef, name string) bool {
	for _, c := range v.Columns {
		if c.Name == name {
			return true
		}
	}
	return false
}

// checkReads refuses a view over what isn't there, or is about to go.
func (a *application) checkReads(def *internalv1.ViewDef, objs []object) error {
	for _, dep := range def.DependsOn {
		at := slices.IndexFunc(objs, func(o object) bool { return o.id == dep })
		if at < 0 || objs[at].hidden() {
			return fault.SQL(fault.NotFound, sqlUndefined,
				"materialized view %q uses an object that was dropped meanwhile; run the statement again", def.Name)
		}
		if slices.ContainsFunc(objs, func(o object) bool { return o.replaces == dep }) {
			return fault.SQL(fault.Conflict, sqlInUse, "materialized view %q is being replaced; make views over it once that is done, see SHOW VIEWS", objs[at].name).
				WithReason(ReasonBeingReplaced)
		}
	}
	return nil
}

// nobodyReads refuses to replace a view that others read.
func nobodyReads(objs []object, old object) error {
	var users []string
	for _, o := range objs {
		if slices.Contains(o.dependsOn, old.id) && o.replacedBy == 0 {
			users = append(users, kindWord(o.kind)+" "+quote(o.name))
		}
	}
	if len(users) > 0 {
		return fault.SQL(fault.Conflict, sqlDependents, "cannot replace materialized view %q because of what reads it: %s; drop that first",
			old.name, strings.Join(users, ", ")).WithReason(ReasonDependents)
	}
	return nil
}

// swapView gives a view the name that it waits for.
func (a *application) swapView(c *internalv1.SwapView) error {
	at := a.view(c.Id)
	if at < 0 || a.st.Views[at].Replaces == 0 {
		return nil
	}
	was := a.view(a.st.Views[at].Replaces)
	if was < 0 {
		return fault.New(fault.Internal, "view %d replaces one that isn't there", c.Id)
	}
	objs := objects(a.st)
	for _, o := range objs {
		if o.id == a.st.Views[was].Id {
			if err := nobodyReads(objs, o); err != nil {
				return err
			}
		}
	}
	def, old := a.editView(at), a.editView(was)
	def.Replaces, def.SwapIndex = 0, a.index
	old.ReplacedBy, old.SwapIndex = c.Id, a.index
	return nil
}

func (a *application) dropReplaced(c *internalv1.DropReplaced) error {
	at := a.view(c.Id)
	if at < 0 || a.st.Views[at].ReplacedBy == 0 {
		return nil
	}
	a.st.Views = slices.Delete(slices.Clone(a.st.Views), at, at+1)
	a.changed = true
	return nil
}

// maxIndexes bounds the indexes of one view or table.
const maxIndexes = 16

// indexNamed returns the view or table that has an index; nil: none has.
func (a *application) indexNamed(name string) *internalv1.ViewDef {
	for _, v := range a.st.Views {
		if v.ReplacedBy == 0 && slices.ContainsFunc(v.Indexes, func(ix *internalv1.IndexDef) bool { return ix.Name == name }) {
			return v
		}
	}
	return nil
}

func (a *application) createIndex(c *internalv1.CreateIndex) error {
	if c.Def == nil || len(c.Def.Columns) == 0 {
		return fault.New(fault.Invalid, "an index without a definition")
	}
	name := c.Def.Name
	if name == "" || len(name) > maxName || !utf8.ValidString(name) {
		return fault.SQL(fault.Invalid, sqlInvalidName, "name %q: give 1 to %d bytes of UTF-8", oneLine(name), maxName)
	}
	at := a.view(c.Object)
	if at < 0 || a.st.Views[at].Name != c.On || a.st.Views[at].ReplacedBy != 0 {
		return fault.SQL(fault.NotFound, sqlUndefined, "%q was dropped or replaced meanwhile; run the statement again", oneLine(c.On))
	}
	o, taken := objectNamed(objects(a.st), name)
	if v := a.indexNamed(name); v != nil || taken {
		if v != nil && c.IfNotExists {
			a.res.Notice = "relation " + quote(name) + " already exists, skipping"
			return nil
		}
		kind := "index"
		if taken {
			kind = kindWord(o.kind)
		}
		return fault.SQL(fault.Exists, sqlDuplicate, "%s %q already exists", kind, name)
	}
	if len(a.st.Views[at].Indexes) >= maxIndexes {
		return fault.New(fault.Exhausted, "%q has %d indexes, which is the limit", c.On, maxIndexes)
	}
	for _, col := range c.Def.Columns {
		if !hasColumn(a.st.Views[at], col) {
			return fault.SQL(fault.NotFound, "42703", "%q has no column %q", c.On, oneLine(col))
		}
	}
	ix := proto.CloneOf(c.Def)
	ix.Id = a.st.NextObjectId
	a.st.NextObjectId++
	a.res.ObjectId = ix.Id
	for i, v := range a.st.Views { // of the one that replaces it too
		if i == at || v.Replaces == c.Object && len(keptIndexes(&internalv1.ViewDef{Indexes: []*internalv1.IndexDef{ix}}, v)) > 0 {
			def := a.editView(i)
			def.Indexes = append(def.Indexes, ix)
		}
	}
	return nil
}

func (a *application) dropIndex(c *internalv1.DropIndex) error {
	found := false
	for i, v := range a.st.Views {
		if slices.ContainsFunc(v.Indexes, func(ix *internalv1.IndexDef) bool { return ix.Name == c.Name }) {
			found = true
			def := a.editView(i)
			def.Indexes = slices.DeleteFunc(def.Indexes, func(ix *internalv1.IndexDef) bool { return ix.Name == c.Name })
		}
	}
	if !found && !c.IfExists {
		return fault.SQL(fault.NotFound, "42704", "index %q does not exist", oneLine(c.Name))
	}
	if !found {
		a.res.Notice = "index " + quote(oneLine(c.Name)) + " does not exist, skipping"
	}
	return nil
}
