//! Tests of `enrich`.
