package dataflow

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestMemState compares MemState with a plain map.
func TestMemState(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 4))
		s, model := &MemState{}, map[string]string{}
		space := 1 + rng.IntN(3000)
		for step := range 3000 {
			key := fmt.Sprintf("%04d", rng.IntN(space))
			if rng.IntN(100) == 0 {
				lo, hi := fmt.Sprintf("%04d", rng.IntN(space)), fmt.Sprintf("%04d", rng.IntN(space))
				s.DeleteRange([]byte(lo), []byte(hi))
				for k := range model {
					if k >= lo && k < hi {
						delete(model, k)
					}
				}
			}
			switch rng.IntN(10) {
			case 0, 1, 2, 3, 4:
				v := strings.Repeat("v", rng.IntN(9))
				s.Set([]byte(key), []byte(v))
				model[key] = v
			case 5, 6, 7:
				s.Delete([]byte(key))
				delete(model, key)
			case 8:
				v, ok, _ := s.Get([]byte(key))
				if want, there := model[key]; ok != there || string(v) != want {
					t.Fatalf("seed %d, step %d: Get(%s) = %q, %v, want %q, %v", seed, step, key, v, ok, want, there)
				}
			case 9:
				checkScan(t, s, model, key, fmt.Sprintf("%04d", rng.IntN(space)), 1+rng.IntN(50))
			}
			if s.Len() != len(model) {
				t.Fatalf("seed %d, step %d: %d entries, want %d", seed, step, s.Len(), len(model))
			}
		}
		checkScan(t, s, model, "", "", 1<<30)
	}
}

func checkScan(t *testing.T, s *MemState, model map[string]string, lo, hi string, most int) {
	t.Helper()
	var got, want []string
	var end []byte
	if hi != "" {
		end = []byte(hi)
	}
	err := s.Scan([]byte(lo), end, func(key, value []byte) (bool, error) {
		got = append(got, string(key)+"="+string(value))
		return len(got) < most, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range model {
		if k >= lo && (hi == "" || k < hi) {
			want = append(want, k+"="+v)
		}
	}
	slices.Sort(want)
	if want = want[:min(most, len(want))]; !slices.Equal(got, want) {
		t.Fatalf("Scan(%q, %q): %v, want %v", lo, hi, got, want)
	}
}
