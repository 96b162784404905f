use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message as _;

use super::*;

/// Of one span.
fn request(resource: &str, scope: &str, name: &str) -> Vec<u8> {
    let spans = vec![Span { name: name.to_owned(), ..Default::default() }];
    let scope = Some(InstrumentationScope { name: scope.to_owned(), ..Default::default() });
    let attributes = vec![KeyValue { key: resource.to_owned(), ..Default::default() }];
    let resource_spans = vec![ResourceSpans {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_spans: vec![ScopeSpans { scope, spans, ..Default::default() }],
        schema_url: "url".to_owned(),
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

#[test]
fn what_follows_of_one_resource_and_scope_is_joined_and_keeps_its_order() {
    let mut merged = Merged::default();
    for (resource, scope, name) in
        [("r1", "s1", "a"), ("r1", "s1", "b"), ("r1", "s2", "c"), ("r2", "s1", "d"), ("r1", "s1", "e")]
    {
        merged.add(&request(resource, scope, name));
    }
    let read = ExportTraceServiceRequest::decode(&merged.finish()[..]).expect("a request");
    let mut seen = Vec::new();
    for resource in &read.resource_spans {
        assert_eq!(resource.schema_url, "url");
        let of = &resource.resource.as_ref().expect("it has one").attributes[0].key;
        for scope in &resource.scope_spans {
            let names: Vec<_> = scope.spans.iter().map(|span| span.name.as_str()).collect();
            seen.push(format!(
                "{of}/{}: {}",
                scope.scope.as_ref().expect("it has one").name,
                names.join(" ")
            ));
        }
    }
    assert_eq!(seen, ["r1/s1: a b", "r1/s2: c", "r2/s1: d", "r1/s1: e"]);
}

#[test]
fn one_request_comes_out_as_it_was() {
    let mut merged = Merged::default();
    let one = request("r", "s", "a");
    merged.add(&one);
    let out = ExportTraceServiceRequest::decode(&merged.finish()[..]).expect("a request");
    assert_eq!(out, ExportTraceServiceRequest::decode(&one[..]).expect("a request"));
    assert!(Merged::default().finish().is_empty());
}
