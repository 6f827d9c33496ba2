//! The agent's metrics as those of OTLP: cumulative sums, gauges and histograms.

use std::{borrow::Cow, collections::HashMap};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value,
    },
};

use super::values::{Attributes, SCHEMA, scope};
use crate::agent::metrics::samples::{Family, Sample, Sort};

/// Since when is counted, and when it was read; nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start_ns: u64,
    pub(super) now_ns: u64,
}

/// A message with all of them.
pub(super) fn request(
    families: &[Family<'_>],
    resource: &Attributes,
    span: Span,
) -> ExportMetricsServiceRequest {
    let metrics = families
        .iter()
        // Its labels are the resource's `service.version`.
        .filter(|family| family.sort != Sort::Info && !family.samples.is_empty())
        .map(|family| metric(family, span))
        .collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone().resource()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
                schema_url: SCHEMA.to_owned(),
            }],
            schema_url: SCHEMA.to_owned(),
        }],
    }
}

fn metric(family: &Family<'_>, span: Span) -> Metric {
    let temporality = AggregationTemporality::Cumulative as i32;
    let data = match family.sort {
        Sort::Counter => Data::Sum(Sum {
            data_points: points(family, span),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Sort::Gauge | Sort::Info => Data::Gauge(Gauge {
            data_points: points(family, span),
        }),
        Sort::Histogram => Data::Histogram(Histogram {
            data_points: histograms(family, span),
            aggregation_temporality: temporality,
        }),
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(family.name).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// In the code that OTLP wants (UCUM).
fn unit(name: &str) -> &'static str {
    if name.ends_with("_seconds") {
        "s"
    } else if name.ends_with("_bytes") {
        "By"
    } else {
        "1"
    }
}

fn points(family: &Family<'_>, span: Span) -> Vec<NumberDataPoint> {
    let point = |sample: &Sample<'_>| NumberDataPoint {
        attributes: attributes(&sample.labels).0,
        start_time_unix_nano: if family.sort == Sort::Counter {
            span.start_ns
        } else {
            0
        },
        time_unix_nano: span.now_ns,
        value: Some(Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    };
    family.samples.iter().map(point).collect()
}

/// Labels by the semantic conventions, where these have a word for them.
fn attributes(labels: &[(&str, Cow<'_, str>)]) -> Attributes {
    let mut attributes = Attributes::default();
    let in_pod = labels
        .iter()
        .any(|(name, value)| *name == "pod" && !value.is_empty());
    for (name, value) in labels {
        let name = match *name {
            "process" => "process.executable.name",
            "container" if in_pod => "k8s.container.name",
            "container" => "container.name",
            "pod" => "k8s.pod.name",
            "namespace" => "k8s.namespace.name",
            other => other,
        };
        attributes.text(name, value.as_ref());
    }
    attributes
}

/// One point for each set of labels, `le` left out.
fn histograms(family: &Family<'_>, span: Span) -> Vec<HistogramDataPoint> {
    let mut points: Vec<HistogramDataPoint> = Vec::new();
    let mut known: HashMap<Vec<(&str, &str)>, usize> = HashMap::new();
    for sample in &family.samples {
        let own = |(name, _): &&(&str, Cow<'_, str>)| *name != "le";
        let labels: Vec<_> = sample.labels.iter().filter(own).cloned().collect();
        let key = sample.labels.iter().filter(own);
        let key = key.map(|(name, value)| (*name, value.as_ref())).collect();
        let at = *known.entry(key).or_insert_with(|| {
            points.push(HistogramDataPoint {
                attributes: attributes(&labels).0,
                start_time_unix_nano: span.start_ns,
                time_unix_nano: span.now_ns,
                ..HistogramDataPoint::default()
            });
            points.len() - 1
        });
        let point = &mut points[at];
        match sample.suffix {
            "_sum" => point.sum = Some(sample.value),
            "_count" => point.count = sample.value as u64,
            "_bucket" => {
                // Each holds what those below it hold: here each counts its own.
                let below: u64 = point.bucket_counts.iter().sum();
                point
                    .bucket_counts
                    .push((sample.value as u64).saturating_sub(below));
                let bound = sample.labels.iter().find(|(name, _)| *name == "le");
                let bound = bound.and_then(|(_, le)| le.parse::<f64>().ok());
                point
                    .explicit_bounds
                    .extend(bound.filter(|le| le.is_finite()));
            }
            _ => {}
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::metrics::samples::parse;

    const SPAN: Span = Span {
        start_ns: 5,
        now_ns: 9,
    };

    fn of(text: &str) -> Vec<Metric> {
        let mut request = request(&parse(text), &Attributes::default(), SPAN);
        request
            .resource_metrics
            .remove(0)
            .scope_metrics
            .remove(0)
            .metrics
    }

    #[test]
    fn sums_gauges_and_units() {
        let metrics = of(
            "# HELP observer_wait_seconds Time.\n# TYPE observer_wait_seconds counter\n\
             observer_wait_seconds_total{process=\"a\",container=\"c\",pod=\"p\",namespace=\"\"} 1.5\n\
             # HELP observer_resident_bytes M.\n# TYPE observer_resident_bytes gauge\nobserver_resident_bytes 4096\n\
             # HELP observer_build B.\n# TYPE observer_build info\nobserver_build_info{version=\"1\"} 1\n",
        );
        assert_eq!(metrics.len(), 2);
        assert_eq!((&*metrics[0].unit, &*metrics[1].unit), ("s", "By"));
        let Some(Data::Sum(sum)) = &metrics[0].data else {
            panic!("{metrics:?}");
        };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Value::AsDouble(1.5)));
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5, 9));
        let names: Vec<_> = point.attributes.iter().map(|a| &*a.key).collect();
        // What is not known is not there.
        assert_eq!(
            names,
            [
                "process.executable.name",
                "k8s.container.name",
                "k8s.pod.name"
            ]
        );
        assert!(matches!(metrics[1].data, Some(Data::Gauge(_))));
    }

    #[test]
    fn buckets_count_their_own() {
        let metrics = of("# HELP h H.\n# TYPE h histogram\n\
             h_sum{k=\"a\"} 3.0\nh_count{k=\"a\"} 6\nh_bucket{le=\"0.1\",k=\"a\"} 1\nh_bucket{le=\"1.0\",k=\"a\"} 4\n\
             h_bucket{le=\"+Inf\",k=\"a\"} 6\nh_sum{k=\"b\"} 0.0\nh_count{k=\"b\"} 0\nh_bucket{le=\"+Inf\",k=\"b\"} 0\n");
        let Some(Data::Histogram(histogram)) = &metrics[0].data else {
            panic!("{metrics:?}");
        };
        let points = &histogram.data_points;
        assert_eq!(points.len(), 2);
        assert_eq!(points[0].bucket_counts, [1, 3, 2]);
        assert_eq!(points[0].explicit_bounds, [0.1, 1.0]);
        assert_eq!((points[0].count, points[0].sum), (6, Some(3.0)));
    }
}
