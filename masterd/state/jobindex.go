package state

import (
	"iter"
	"slices"
)

// jobIndex lists the numbers of the jobs, in order, by whether they have ended.
// So that thousands of remembered jobs do not make a commit slow, nobody looks
// through all of them. It is derived from the jobs; its slices are shared with
// older states and are not written to.
type jobIndex struct {
	active, ended []int64
}

// put files a job that is new, or that may have ended.
func (x *jobIndex) put(j *Job) {
	if !j.Status.Ended() {
		x.active = withID(x.active, j.ID)
		return
	}
	x.active = withoutID(x.active, j.ID)
	x.ended = withID(x.ended, j.ID)
}

func withID(ids []int64, id int64) []int64 {
	i, ok := slices.BinarySearch(ids, id)
	if ok {
		return ids
	}
	return slices.Insert(slices.Clip(ids), i, id)
}

func withoutID(ids []int64, id int64) []int64 {
	i, ok := slices.BinarySearch(ids, id)
	switch {
	case !ok:
		return ids
	case i == 0:
		return ids[1:]
	}
	return slices.Delete(slices.Clone(ids), i, i+1)
}

// indexJobs makes the index anew.
func indexJobs(jobs map[int64]*Job) (x jobIndex) {
	for id, j := range jobs {
		if j.Status.Ended() {
			x.ended = append(x.ended, id)
		} else {
			x.active = append(x.active, id)
		}
	}
	slices.Sort(x.active)
	slices.Sort(x.ended)
	return x
}

// ActiveJobs lists the jobs that have not ended, by number.
func (s *State) ActiveJobs() iter.Seq[*Job] {
	return func(yield func(*Job) bool) {
		for _, id := range s.index.active {
			if !yield(s.Jobs[id]) {
				return
			}
		}
	}
}
