package gossip

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
)

// FuzzReceive feeds messages to a node: only a proof may count as news.
func FuzzReceive(f *testing.F) {
	m := ct.Map(1, 2, 3)
	good := ct.Beacon(m, ct.Epoch0, 1, 2)
	f.Add(good.Encode())
	f.Add(ct.Beacon(m, ct.Epoch0.Add(time.Minute), 1).Encode())
	f.Add(ct.Seal(m, 1, 2).Encode())
	f.Add([]byte(`{"payloadType":"application/vnd.rolekey.beacon.v1+json","payload":"","signatures":[]}`))
	v, err := candmap.Genesis(ct.Seal(m, 1, 2), ct.Seal(m).Hash())
	if err != nil {
		f.Fatal(err)
	}
	view := &candmap.View{Map: v}
	f.Fuzz(func(t *testing.T, msg []byte) {
		h := &believer{view: view}
		g := &Gossip{cfg: Config{Holder: h}, log: zap.NewNop(), in: newMailbox()}
		told := false
		g.cfg.OnNews = func(env candmap.Envelope) {
			told = true
			if env.Signers(v.Authority().Voters) < v.Authority().Majority() {
				t.Errorf("news without a proof: %s", msg)
			}
		}
		g.out.queue.NumNodes = func() int { return 1 }
		g.out.queue.RetransmitMult = retransmits
		g.receive(msg)
		if waiting := g.in.pop(); waiting != nil {
			g.judge(waiting)
		}
		s := g.Stats()
		if sum := s.News + s.Old + s.Malformed + s.Unproven + s.Forked + s.TooLarge; sum != 1 || told != (s.News == 1) {
			t.Errorf("one message, told %v: %+v", told, s)
		}
		if b := g.current(); (b != nil) != told {
			t.Errorf("told %v, and exchanges %d bytes", told, len(b))
		}
	})
}

// believer is a Holder that takes every beacon that its map's voters signed.
type believer struct {
	view   *candmap.View
	beacon candmap.Envelope
}

func (b *believer) View() *candmap.View { return b.view }

func (b *believer) Beacon() (candmap.Envelope, bool) { return b.beacon, b.beacon.Payload != nil }

func (b *believer) DeliverBeacon(env candmap.Envelope) (bool, error) {
	_, err := candmap.VerifyBeacon(b.view.Map, env)
	if err == nil {
		b.beacon = env
	}
	return err == nil, err
}
