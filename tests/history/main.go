// Copyright (c) 2026, the k8s_dr founders
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// history_checker FILE   says, as JSON, which ends fit what clients of API servers saw while a restore went on.
//
// tests/tools/history.py writes the file: a line of facts, then a line for each request. A value is words with spaces between: the side (of the snapshot,
// or of the data that a restore replaces), then what was written last, or all that was appended. "" is an object that is missing. Times are microseconds.
//
// An end fits if the requests can be put into one order, each at a moment between its call and its return, in which every answer is right. All objects are
// in that order together. In it, a restore is one moment that sets all objects to those of the snapshot, and a rollback one that sets them to what they were
// before the restore. So what was acknowledged is lost by these moments alone.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"log"
	"os"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Each after so many restores and rollbacks, which take turns, as its place says.
var ends = []string{"old", "new", "old after a rollback", "new after a rollback", "old after two rollbacks", "new after two rollbacks"}

const maxKeys = 8

type facts struct {
	Start    map[string]string `json:"start"`
	Snapshot map[string]string `json:"snapshot"`
	Restores []int64           `json:"restores"` // when each could begin
	Over     int64             `json:"over"`     // when the last had ended, or had been rolled back
	Ends     []string          `json:"ends"`     // that would be right
}

type request struct {
	Client string            `json:"client"`
	Call   int64             `json:"call"`
	Return int64             `json:"return"` // 0: no answer; it takes effect at any later time, or never
	Op     string            `json:"op"`     // read, write, append
	Key    string            `json:"key"`
	Value  string            `json:"value"`  // one word
	Before string            `json:"before"` // what an append is allowed to append to
	Answer string            `json:"answer"` // the object after the write
	Values map[string]string `json:"values"` // what was read, at one moment
	Failed bool              `json:"failed"` // refused for certain
	id     int
}

type history struct {
	facts
	requests []request
}

func read(path string) (history, error) {
	var h history
	file, err := os.Open(path)
	if err != nil {
		return h, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<24)
	for number := 0; lines.Scan(); number++ {
		if number == 0 {
			err = json.Unmarshal(lines.Bytes(), &h.facts)
		} else {
			r := request{id: number}
			err = json.Unmarshal(lines.Bytes(), &r)
			// a read without an answer says nothing
			if !r.Failed && (r.Return != 0 || r.Op != "read") {
				h.requests = append(h.requests, r)
			}
		}
		if err != nil {
			return h, fmt.Errorf("%s, line %d: %w", path, number+1, err)
		}
	}
	if len(h.Start) > maxKeys {
		return h, fmt.Errorf("%s has %d keys, and at most %d can be checked", path, len(h.Start), maxKeys)
	}
	for _, end := range h.Ends {
		if !slices.Contains(ends, end) {
			return h, fmt.Errorf("%s: there is no end %q", path, end)
		}
	}
	return h, lines.Err()
}

// -- the model --------------------------------------------------------------------------------------------------------

type data [maxKeys]int32

type state struct {
	now, kept data
	changes   int
}

type step struct {
	kind     string // write, append, read, change
	key      int
	from, to int32
	seen     []seen
}

type seen struct {
	key   int
	value int32
}

// Numbers for values, so that states are small and compared at once.
type numbers struct {
	of    map[string]int32
	sides []string
}

func (n *numbers) number(value string) int32 {
	number, known := n.of[value]
	if !known {
		number = int32(len(n.sides))
		n.of[value] = number
		side, _, _ := strings.Cut(value, " ")
		n.sides = append(n.sides, side)
	}
	return number
}

func hasWord(value, word string) bool { return strings.Contains(" "+value+" ", " "+word+" ") }

func (h history) keys() []string {
	var keys []string
	for key := range h.Start {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// When each write without an answer was first seen for certain, and in which value. It took effect before that, and one that nothing saw may as well have had
// no effect. So none of them stays open until the end, which would cost the more the longer an outage is.
func (h history) firstSeen() map[string]seenAt {
	open := map[string][]string{}
	for _, r := range h.requests {
		if r.Return == 0 {
			open[r.Key] = append(open[r.Key], r.Value)
		}
	}
	found := map[string]seenAt{}
	see := func(key, value string, at int64) {
		for _, word := range open[key] {
			if hasWord(value, word) {
				if first, known := found[key+" "+word]; !known || at < first.at {
					found[key+" "+word] = seenAt{at, value}
				}
			}
		}
	}
	for _, r := range h.requests {
		if r.Return == 0 {
			continue
		}
		if r.Op == "read" {
			for key, value := range r.Values {
				see(key, value, r.Return)
			}
		} else {
			see(r.Key, r.Answer, r.Return)
		}
	}
	return found
}

type seenAt struct {
	at    int64
	value string
}

func (h history) check(end string, timeout time.Duration) porcupine.CheckResult {
	keys, changes := h.keys(), slices.Index(ends, end)
	if changes > 0 && (changes+1)/2 > len(h.Restores) {
		return porcupine.Illegal
	}
	n := &numbers{of: map[string]int32{}}
	index := map[string]int{}
	var start, snapshot data
	for i, key := range keys {
		index[key] = i
		start[i], snapshot[i] = n.number(h.Start[key]), n.number(h.Snapshot[key])
	}
	firstSeen := h.firstSeen()
	var operations []porcupine.Operation
	add := func(s step, call, back int64) {
		operations = append(operations, porcupine.Operation{Input: s, Call: call, Return: back})
	}
	for _, r := range h.requests {
		back, after := r.Return, r.Answer
		if back == 0 {
			first, known := firstSeen[r.Key+" "+r.Value]
			if !known {
				continue
			}
			back, after = max(first.at, r.Call), first.value
			if r.Op == "append" {
				after = r.Before + " " + r.Value
			}
		}
		s := step{kind: r.Op}
		switch r.Op {
		case "read":
			for key, value := range r.Values {
				s.seen = append(s.seen, seen{index[key], n.number(value)})
			}
		case "append":
			s.key, s.from, s.to = index[r.Key], n.number(r.Before), n.number(after)
			if after != r.Before+" "+r.Value {
				s.from = -1 // it was not appended to what it was allowed for, which nothing explains
			}
		case "write":
			s.key, s.to = index[r.Key], n.number(after)
		}
		add(s, r.Call, back)
	}
	for i := range changes {
		add(step{kind: "change", key: i}, h.Restores[i/2], h.Over)
	}
	return porcupine.CheckOperationsTimeout(porcupine.Model{
		Init: func() any { return state{now: start} },
		Step: func(before, input, _ any) (bool, any) {
			st, s := before.(state), input.(step)
			switch s.kind {
			case "read":
				for _, one := range s.seen {
					if st.now[one.key] != one.value {
						return false, st
					}
				}
			case "write":
				// the answer says in which data it was written
				if n.sides[st.now[s.key]] != n.sides[s.to] {
					return false, st
				}
				st.now[s.key] = s.to
			case "append":
				if st.now[s.key] != s.from {
					return false, st
				}
				st.now[s.key] = s.to
			case "change":
				if st.changes != s.key {
					return false, st
				}
				if s.key%2 == 0 {
					st.now, st.kept = snapshot, st.now
				} else {
					st.now, st.kept = st.kept, data{}
				}
				st.changes++
			}
			return true, st
		},
		Hash: func(st any) uint64 {
			s, sum := st.(state), fnv.New64a()
			for _, values := range [2]data{s.now, s.kept} {
				for _, value := range values {
					sum.Write([]byte{byte(value), byte(value >> 8), byte(value >> 16)})
				}
			}
			return sum.Sum64() + uint64(s.changes)
		},
	}, operations, timeout)
}

// -- the smallest part that no end explains ---------------------------------------------------------------------------
//
// Each of these makes, of a history that an end explains, one that it explains too. So what is left, if none explains it, is what is wrong with the whole.

// What had returned by then. A write that had been called may have had an effect, or not.
func (h history) until(moment int64) history {
	kept := h.requests
	h.requests = nil
	for _, r := range kept {
		if r.Return > moment && r.Op != "read" {
			r.Return = 0
		}
		if r.Return <= moment && r.Call <= moment {
			h.requests = append(h.requests, r)
		}
	}
	return h
}

func (h history) withoutKey(key string) history {
	values := map[string]string{}
	for other, value := range h.Start {
		if other != key {
			values[other] = value
		}
	}
	h.Start = values
	kept := h.requests
	h.requests = nil
	for _, r := range kept {
		if r.Op == "read" {
			values := map[string]string{}
			for other, value := range r.Values {
				if other != key {
					values[other] = value
				}
			}
			r.Values = values
		}
		if r.Key != key && (r.Op != "read" || len(r.Values) > 0) {
			h.requests = append(h.requests, r)
		}
	}
	return h
}

// Reads go as they are. An append goes out of all values as well. A write goes only if none of the others saw it.
func (h history) without(ids []int) history {
	gone := map[int]bool{}
	for _, id := range ids {
		gone[id] = true
	}
	erased, inUse := map[string]map[string]bool{}, map[string]bool{}
	for _, r := range h.requests {
		switch {
		case gone[r.id] && r.Op == "append":
			if erased[r.Key] == nil {
				erased[r.Key] = map[string]bool{}
			}
			erased[r.Key][r.Value] = true
		case !gone[r.id] && r.Op == "read":
			for key, value := range r.Values {
				inUse[key+" "+lastWord(value)] = true
			}
		}
	}
	erase := func(key, value string) string {
		if len(erased[key]) == 0 {
			return value
		}
		words := strings.Split(value, " ")
		return strings.Join(slices.DeleteFunc(words, func(word string) bool { return erased[key][word] }), " ")
	}
	kept := h.requests
	h.requests = nil
	for _, r := range kept {
		if gone[r.id] && (r.Op != "write" || !inUse[r.Key+" "+r.Value]) {
			continue
		}
		r.Before, r.Answer = erase(r.Key, r.Before), erase(r.Key, r.Answer)
		if r.Op == "read" && len(erased) > 0 {
			values := map[string]string{}
			for key, value := range r.Values {
				values[key] = erase(key, value)
			}
			r.Values = values
		}
		h.requests = append(h.requests, r)
	}
	return h
}

func lastWord(value string) string { return value[strings.LastIndex(value, " ")+1:] }

func (h history) smallest(deadline time.Time) history {
	bad := func(h history) bool {
		for _, end := range h.Ends {
			left := time.Until(deadline)
			if left <= 0 || h.check(end, left) != porcupine.Illegal {
				return false
			}
		}
		return true
	}
	var moments []int64
	for _, r := range h.requests {
		if r.Return != 0 {
			moments = append(moments, r.Return)
		}
	}
	slices.Sort(moments)
	first := sort.Search(len(moments), func(i int) bool { return bad(h.until(moments[i])) })
	if first < len(moments) {
		if cut := h.until(moments[first]); bad(cut) {
			h = cut
		}
	}
	for _, key := range h.keys() {
		if smaller := h.withoutKey(key); bad(smaller) {
			h = smaller
		}
	}
	for round := 0; round < 3; round++ {
		before := len(h.requests)
		for _, isRead := range []bool{true, false} {
			var ids []int
			for _, r := range h.requests {
				if (r.Op == "read") == isRead {
					ids = append(ids, r.id)
				}
			}
			for size := len(ids); size > 0; size /= 2 {
				for chunk := range slices.Chunk(ids, size) {
					if smaller := h.without(chunk); len(smaller.requests) < len(h.requests) && bad(smaller) {
						h = smaller
					}
				}
			}
		}
		if len(h.requests) == before {
			break
		}
	}
	return h
}

func short(value string) string {
	words := strings.Split(value, " ")
	if value == "" {
		return "missing"
	}
	if len(words) > 8 {
		words = slices.Concat(words[:2], []string{"..."}, words[len(words)-4:])
	}
	return strings.Join(words, " ")
}

func (h history) explain() []string {
	slices.SortStableFunc(h.requests, func(a, b request) int { return int(a.Call - b.Call) })
	lines := []string{}
	for _, r := range h.requests {
		when := fmt.Sprintf("%8.3f to %7.3f s", float64(r.Call)/1e6, float64(r.Return)/1e6)
		if r.Return == 0 {
			when = fmt.Sprintf("%8.3f s, unknown  ", float64(r.Call)/1e6)
		}
		what := ""
		switch r.Op {
		case "read":
			for _, key := range h.keys() {
				if value, read := r.Values[key]; read {
					what += fmt.Sprintf(", %s is: %s", key, short(value))
				}
			}
			what = "read" + strings.TrimPrefix(what, ",")
		case "write":
			what = fmt.Sprintf("wrote %s to %s", r.Value, r.Key)
		case "append":
			what = fmt.Sprintf("appended %s to %s, which was: %s", r.Value, r.Key, short(r.Before))
		}
		if r.Op != "read" && r.Return != 0 {
			what += "; the answer was: " + short(r.Answer)
		}
		lines = append(lines, fmt.Sprintf("%s  %-6s %s", when, r.Client, what))
	}
	return lines
}

func main() {
	log.SetFlags(0)
	debug.SetMemoryLimit(1 << 30) // what the search has seen fills memory fast
	timeout := flag.Duration("timeout", time.Minute, "for each of the ends, and for the explanation")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("usage: history_checker [-timeout 1m] FILE")
	}
	h, err := read(flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	result := struct {
		Fits        []string `json:"fits"`
		Unknown     []string `json:"unknown"` // could not be decided in the time
		Passed      bool     `json:"passed"`
		Requests    int      `json:"requests"`
		Explanation []string `json:"explanation"`
	}{Fits: []string{}, Unknown: []string{}, Requests: len(h.requests), Explanation: []string{}}
	undecided := false
	for _, end := range ends {
		switch h.check(end, *timeout) {
		case porcupine.Ok:
			result.Fits = append(result.Fits, end)
			result.Passed = result.Passed || slices.Contains(h.Ends, end)
		case porcupine.Unknown:
			result.Unknown = append(result.Unknown, end)
			undecided = undecided || slices.Contains(h.Ends, end)
		}
	}
	if !result.Passed && !undecided {
		result.Explanation = h.smallest(time.Now().Add(*timeout)).explain()
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		log.Fatal(err)
	}
}
