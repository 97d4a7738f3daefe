package verify

import (
	"testing"
	"testing/synctest"

	"rolekey/masterd/state"
)

// TestMapThatIsBeingPublished: what is committed and on its way is no fault.
func TestMapThatIsBeingPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(t)
		f.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(60))}})
		looks := 0
		f.looked = func() {
			if looks++; looks == 3 {
				f.publish()
			}
		}
		if ok, got := f.run(); !ok || len(got) > 0 {
			t.Errorf("report %q", got)
		}
	})
}
