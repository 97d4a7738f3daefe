package vcluster

import "testing"

func TestFirst(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		t.Logf("settled at %v", c.Now())
	})
}
