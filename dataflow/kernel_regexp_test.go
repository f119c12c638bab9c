package dataflow

import "testing"

// TestRequired holds that what is taken to be in every match of an expression is.
func TestRequired(t *testing.T) {
	for _, x := range [][2]string{
		{"(&|^)channel_id=([^&]*)", "channel_id="}, {"abc", "abc"}, {"ab|cd", ""}, {"a(bcd)+e", "bcd"}, {"a(bcd)*ef", "ef"}, {"a(bcd)?e", "a"},
		{"(abc){0,2}d", "d"}, {"(abc){2}d", "abc"}, {"(?i)abc", ""}, {"a(?i:bcd)ef", "ef"}, {"^x.*yz$", "yz"}, {"[ab]c", "c"}, {"", ""}, {"é+ü", "é"},
	} {
		var m regexpMemo
		if _, _, err := m.of([]byte(x[0]), ""); err != nil {
			t.Fatal(err)
		}
		if string(m.need) != x[1] {
			t.Errorf("%s needs %q, not %q", x[0], m.need, x[1])
		}
		if _, _, err := m.of([]byte(x[0]), "i"); err != nil || len(m.need) > 0 {
			t.Errorf("%s in any case needs %q (%v)", x[0], m.need, err)
		}
	}
}
