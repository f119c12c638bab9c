package ring

import "testing"

// The vectors are those of Kafka's UtilsTest.testMurmur2.
func TestMurmur2(t *testing.T) {
	for _, c := range []struct {
		key  string
		want int32
	}{
		{"21", -973932308},
		{"foobar", -790332482},
		{"a-little-bit-long-string", -985981536},
		{"a-little-bit-longer-string", -1486304829},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
		{"abc", 479470107},
	} {
		if got := Murmur2([]byte(c.key)); got != c.want {
			t.Errorf("Murmur2(%q) = %d, want %d", c.key, got, c.want)
		}
		if got, want := Partition([]byte(c.key), 32), uint32(c.want)&0x7fffffff%32; uint32(got) != want {
			t.Errorf("Partition(%q, 32) = %d, want %d", c.key, got, want)
		}
	}
}
