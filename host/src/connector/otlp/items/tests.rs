use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;

use super::*;
use crate::connector::otlp::wire;

/// `names` are of the spans of each scope of each resource.
fn traces(resources: &[&[&[&str]]]) -> ExportTraceServiceRequest {
    let span = |name: &&str| Span { name: (*name).to_owned(), trace_id: vec![7; 16], ..Default::default() };
    let scope = |(number, names): (usize, &&[&str])| ScopeSpans {
        scope: Some(InstrumentationScope { name: format!("scope {number}"), ..Default::default() }),
        spans: names.iter().map(span).collect(),
        schema_url: "of the scope".to_owned(),
    };
    let resource = |(number, scopes): (usize, &&[&[&str]])| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![KeyValue { key: format!("resource {number}"), ..Default::default() }],
            ..Default::default()
        }),
        scope_spans: scopes.iter().enumerate().map(scope).collect(),
        schema_url: "of the resource".to_owned(),
    };
    ExportTraceServiceRequest { resource_spans: resources.iter().enumerate().map(resource).collect() }
}

/// Each item as the request that it became.
fn split(signal: Signal, request: &[u8]) -> Vec<Vec<u8>> {
    wire::check(signal, request).expect("prost made it");
    let items = Items::of(signal, request).expect("few");
    let mut all = 0;
    let split = (0..items.len()).map(|index| {
        let mut out = Vec::new();
        items.write(index, request, &mut out);
        assert_eq!(out.len(), items.bytes_len(index));
        wire::check(signal, &out).expect("a request");
        all += out.len() as u64;
        out
    });
    let split = split.collect();
    assert_eq!(items.bytes_len_of_all(), all);
    split
}

#[test]
fn each_span_becomes_a_request_with_its_resource_and_scope() {
    let whole = traces(&[&[&["a", "b"], &["c"]], &[&[]], &[], &[&["d"]]]);
    let requests = split(Signal::Traces, &whole.encode_to_vec());
    assert_eq!(requests.len(), 4);
    let mut names = Vec::new();
    for request in &requests {
        let request = ExportTraceServiceRequest::decode(&request[..]).expect("a request");
        let [resource] = &request.resource_spans[..] else { panic!("one resource") };
        let [scope] = &resource.scope_spans[..] else { panic!("one scope") };
        let [span] = &scope.spans[..] else { panic!("one span") };
        assert_eq!(resource.schema_url, "of the resource");
        assert_eq!(scope.schema_url, "of the scope");
        let attributes = &resource.resource.as_ref().expect("it has one").attributes;
        let of = scope.scope.as_ref().expect("it has one");
        names.push(format!("{} of {} of {}", span.name, of.name, attributes[0].key));
    }
    let expected = [
        "a of scope 0 of resource 0",
        "b of scope 0 of resource 0",
        "c of scope 1 of resource 0",
        "d of scope 0 of resource 3",
    ];
    assert_eq!(names, expected);
}

#[test]
fn each_data_point_becomes_a_request_with_its_metric() {
    let point = |time| NumberDataPoint { time_unix_nano: time, ..Default::default() };
    let sum = Sum { data_points: vec![point(1), point(2)], aggregation_temporality: 2, is_monotonic: true };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data, ..Default::default() };
    let metrics = vec![
        metric("requests", Some(Data::Sum(sum))),
        metric("nothing", None),
        metric("heat", Some(Data::Gauge(Gauge { data_points: vec![point(3)] }))),
    ];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    let whole = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
    let requests = split(Signal::Metrics, &whole);
    let read = |request: &Vec<u8>| {
        let request = ExportMetricsServiceRequest::decode(&request[..]).expect("a request");
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        match metric.data.as_ref().expect("it has some") {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2 && sum.data_points.len() == 1);
                (metric.name.clone(), sum.data_points[0].time_unix_nano)
            }
            Data::Gauge(gauge) => (metric.name.clone(), gauge.data_points[0].time_unix_nano),
            other => panic!("{other:?}"),
        }
    };
    let read: Vec<_> = requests.iter().map(read).collect();
    assert_eq!(read, [("requests".to_owned(), 1), ("requests".to_owned(), 2), ("heat".to_owned(), 3)]);
}

#[test]
fn a_request_of_more_items_than_any_has_is_refused() {
    let names = vec![""; Items::MAX];
    let request = traces(&[&[&names]]).encode_to_vec();
    assert_eq!(Items::of(Signal::Traces, &request).map(|items| items.len()), Some(Items::MAX));
    let names = vec![""; Items::MAX + 1];
    let request = traces(&[&[&names]]).encode_to_vec();
    assert!(Items::of(Signal::Traces, &request).is_none());
}
