//! Which families there are: each is registered here once, with what an operator is told of it.
//!
//! Owns the list that docs/metrics.md is made from. A family is in it before its first series is, so that the page
//! and the tests also know what only some configurations show.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The values that a label can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// These, each with a series from the start on.
    Words(Vec<&'static str>),
    /// What an operator configures or allows; says what, and what bounds their number.
    Bounded(&'static str),
}

/// One family, as docs/metrics.md shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// In the order in which code names them; Prometheus sorts them.
    pub labels: Vec<(&'static str, Values)>,
    /// Only there with `[metrics] per_stream`.
    pub per_stream: bool,
}

impl Family {
    /// What one is of the family's values, as its name says.
    pub fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let ends = |end| name.ends_with(end);
        match () {
            () if ends("_timestamp_seconds") || ends("_start_time_seconds") => {
                "seconds since 1970 (UTC)"
            }
            () if ends("_seconds") => "seconds",
            () if ends("_bytes") => "bytes",
            () if ends("_units") => "hundredths of a core",
            () => "",
        }
    }
}

/// The registry, and what is in it.
#[derive(Default)]
pub(super) struct Catalogue {
    registry: Registry,
    families: Vec<Family>,
}

impl Catalogue {
    /// All families by name.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// Puts the families into the order in which they are found.
    pub fn sort(&mut self) {
        self.families.sort_by_key(|family| family.name);
    }

    /// What all registered instruments say now, by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    pub fn counter(&mut self, name: &'static str, help: &'static str) -> IntCounter {
        self.note(name, Kind::Counter, help, &[]);
        self.register(IntCounter::new(name, help))
    }

    /// A counter of fractions: seconds.
    pub fn fractions(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.note(name, Kind::Counter, help, &[]);
        self.register(Counter::new(name, help))
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> IntGauge {
        self.note(name, Kind::Gauge, help, &[]);
        self.register(IntGauge::new(name, help))
    }

    /// A gauge of fractions: seconds.
    pub fn real(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.note(name, Kind::Gauge, help, &[]);
        self.register(Gauge::new(name, help))
    }

    /// Counters, all of which read 0 at once.
    pub fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [(&'static str, &[&'static str]); N],
    ) -> IntCounterVec {
        let names = self.note(name, Kind::Counter, help, &labels);
        let vec = self.register(IntCounterVec::new(Opts::new(name, help), &names));
        for values in combinations(&labels) {
            vec.with_label_values(&values);
        }
        vec
    }

    /// Gauges, all of which read 0 at once.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [(&'static str, &[&'static str]); N],
    ) -> IntGaugeVec {
        let names = self.note(name, Kind::Gauge, help, &labels);
        let vec = self.register(IntGaugeVec::new(Opts::new(name, help), &names));
        for values in combinations(&labels) {
            vec.with_label_values(&values);
        }
        vec
    }

    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
    ) -> Histogram {
        self.note(name, Kind::Histogram, help, &[]);
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts))
    }

    /// A histogram for each value of one label, in their order.
    pub fn histograms<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
        (label, values): (&'static str, [&'static str; N]),
    ) -> [Histogram; N] {
        self.note(name, Kind::Histogram, help, &[(label, &values)]);
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let vec = self.register(HistogramVec::new(opts, &[label]));
        values.map(|value| vec.with_label_values(&[value]))
    }

    /// Counters whose label values are made at scrape; each label with what bounds it.
    pub fn bounded_counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [(&'static str, &'static str); N],
    ) -> IntCounterVec {
        let names = self.bounded(name, Kind::Counter, help, labels);
        self.register(IntCounterVec::new(Opts::new(name, help), &names))
    }

    /// Gauges, likewise; fractions too.
    pub fn bounded_gauges<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [(&'static str, &'static str); N],
    ) -> GaugeVec {
        let names = self.bounded(name, Kind::Gauge, help, labels);
        self.register(GaugeVec::new(Opts::new(name, help), &names))
    }

    /// Takes over what another one knows, whose series are gathered there.
    pub fn adopt(&mut self, families: impl IntoIterator<Item = Family>) {
        self.families.extend(families);
    }

    /// What is always 1 and says things in its labels.
    pub fn info<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [(&'static str, &'static str, &'static str); N],
    ) {
        let whats = labels.map(|(name, _, what)| (name, what));
        let names = self.bounded(name, Kind::Gauge, help, whats);
        let vec = self.register(IntGaugeVec::new(Opts::new(name, help), &names));
        vec.with_label_values(&labels.map(|(_, value, _)| value))
            .set(1);
    }

    fn bounded<const N: usize>(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        labels: [(&'static str, &'static str); N],
    ) -> [&'static str; N] {
        self.families.push(Family {
            name,
            kind,
            help,
            labels: labels
                .map(|(name, what)| (name, Values::Bounded(what)))
                .into(),
            per_stream: false,
        });
        labels.map(|(name, _)| name)
    }

    fn note(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        labels: &[(&'static str, &[&'static str])],
    ) -> Vec<&'static str> {
        let words = |values: &[&'static str]| Values::Words(values.to_vec());
        self.families.push(Family {
            name,
            kind,
            help,
            labels: labels
                .iter()
                .map(|(name, values)| (*name, words(values)))
                .collect(),
            per_stream: false,
        });
        labels.iter().map(|(name, _)| *name).collect()
    }

    /// Names, labels and buckets are literals, each used once; what `prometheus` could object to is a typing mistake,
    /// which the tests would meet at once.
    fn register<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("metric names and labels are valid literals");
        self.registry
            .register(Box::new(collector.clone()))
            .expect("each metric name is registered once");
        collector
    }
}

/// Every choice of one value for each label.
fn combinations(labels: &[(&'static str, &[&'static str])]) -> Vec<Vec<&'static str>> {
    let mut all = vec![Vec::new()];
    for (_, values) in labels {
        let longer = |chosen: Vec<&'static str>| {
            values
                .iter()
                .map(move |value| [chosen.clone(), vec![*value]].concat())
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}
