use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;

use super::*;

/// Whether prost takes it.
fn prost_takes(signal: Signal, bytes: &[u8]) -> bool {
    match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).is_ok(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).is_ok(),
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).is_ok(),
    }
}

/// A field that holds another.
fn within(number: u32, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_head(number, inner.len(), &mut out);
    out.extend_from_slice(inner);
    out
}

/// As a span's fields.
fn span(fields: &[u8]) -> Vec<u8> {
    within(1, &within(2, &within(2, fields)))
}

/// A body value that lies so deep in others.
fn nested(depth: usize) -> Vec<u8> {
    let value = (0..depth).fold(Vec::new(), |inner, _| within(5, &within(1, &inner)));
    within(1, &within(2, &within(2, &within(5, &value))))
}

#[test]
fn what_prost_refuses_is_refused_and_what_it_takes_is_taken() {
    let cases: Vec<(Signal, Vec<u8>, Result<(), Malformed>)> = vec![
        (Signal::Traces, vec![], Ok(())),
        (Signal::Traces, span(&[]), Ok(())),
        (Signal::Traces, span(&within(5, b"name")), Ok(())),
        (Signal::Traces, span(&within(5, b"\xff")), Err(Malformed::Text)),
        // Ids are bytes of any length; a time has eight.
        (Signal::Traces, span(&within(1, b"\xff")), Ok(())),
        (Signal::Traces, span(&[7 << 3 | 1, 1, 2, 3]), Err(Malformed::Short)),
        (Signal::Traces, span(&[7 << 3]), Err(Malformed::Type)),
        // What nobody knows is passed over, whole groups too.
        (Signal::Traces, within(100, b"\xff"), Ok(())),
        (Signal::Traces, vec![15 << 3 | 3, 15 << 3 | 4], Ok(())),
        (Signal::Traces, vec![15 << 3 | 3, 14 << 3 | 4], Err(Malformed::Key)),
        (Signal::Traces, vec![15 << 3 | 4], Err(Malformed::Key)),
        (Signal::Traces, vec![15 << 3 | 7], Err(Malformed::Key)),
        (Signal::Traces, vec![0], Err(Malformed::Key)),
        (Signal::Traces, vec![10, 5, 1], Err(Malformed::Short)),
        (Signal::Traces, vec![0x80; 9], Err(Malformed::Short)),
        (Signal::Traces, vec![0xff; 11], Err(Malformed::Varint)),
        (Signal::Logs, nested(20), Ok(())),
        (Signal::Logs, nested(60), Err(Malformed::Deep)),
    ];
    for (signal, bytes, expected) in cases {
        assert_eq!(check(signal, &bytes), expected, "{bytes:?}");
        assert_eq!(prost_takes(signal, &bytes), expected.is_ok(), "{bytes:?}");
    }
}

#[test]
fn numbers_are_as_long_as_they_are_said_to_be() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
        let mut out = Vec::new();
        put_varint(value, &mut out);
        assert_eq!(out.len(), varint_len(value), "{value}");
        assert_eq!(varint(&out), Ok((value, &[][..])), "{value}");
    }
}
