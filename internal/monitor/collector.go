package monitor

import "github.com/prometheus/client_golang/prometheus"

// Desc describes a metric.
type Desc struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// Gauge describes a value that goes up and down.
func Gauge(name, help string, labels ...string) Desc {
	return Desc{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue}
}

// Counter describes a value that only grows while the daemon runs.
func Counter(name, help string, labels ...string) Desc {
	return Desc{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue}
}

// Add gives a scrape one value, with a value for each label. Label values must
// come from a small set.
type Add func(d Desc, value float64, labels ...string)

// collector asks at each scrape.
type collector struct {
	descs   []Desc
	collect func(Add)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		to <- d.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	c.collect(func(d Desc, value float64, labels ...string) {
		m, err := prometheus.NewConstMetric(d.desc, d.kind, value, labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(d.desc, err)
		}
		to <- m
	})
}

// Bool is 1 or 0.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
