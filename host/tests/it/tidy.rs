//! What a machine can check of how the code reads: boundaries between modules, and
//! first lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder of the project").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn host_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).expect("below src").display().to_string();
        (name, fs::read_to_string(path).expect("UTF-8"))
    };
    sources(&root).into_iter().map(read).collect()
}

/// Whether `text` names the crate outside of comments.
fn names(text: &str, krate: &str) -> bool {
    let path = format!("{krate}::");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        let mut rest = line;
        while let Some(at) = rest.find(&path) {
            let before = rest[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                return true;
            }
            rest = &rest[at + path.len()..];
        }
        false
    })
}

#[test]
fn only_the_module_that_owns_a_library_names_it() {
    for (krate, owner) in [
        ("wasmtime", "guest"),
        ("wasmtime_wasi", "guest"),
        ("timely", "dataflow"),
        ("rumqttc", "connector"),
        ("rumqttd", "connector"),
        ("tokio_rustls", "connector"),
        ("tokio_tungstenite", "connector"),
        ("tonic", "connector"),
        ("opentelemetry_proto", "connector"),
        ("prost", "connector"),
        ("sled", "store"),
        ("tract_onnx", "inference"),
    ] {
        let mut owned = false;
        for (file, text) in host_sources() {
            let is_owner = file.starts_with(&format!("{owner}/")) || file == format!("{owner}.rs");
            let named = names(&text, krate);
            assert!(is_owner || !named, "{file} names {krate}, which only {owner}/ may");
            owned |= named;
        }
        assert!(owned, "nobody names {krate}: the check looks for the wrong thing");
    }
}

#[test]
fn only_two_places_use_unsafe() {
    let uses: Vec<_> = host_sources()
        .into_iter()
        .filter(|(_, text)| {
            text.lines().any(|line| line.contains("unsafe {") && !line.trim_start().starts_with("//"))
        })
        .map(|(file, _)| file)
        .collect();
    assert_eq!(uses, ["guest/compile.rs", "guest/ticker.rs"]);
}

#[test]
fn the_path_has_no_code_that_only_tests_run() {
    for (file, text) in host_sources() {
        let path = file.starts_with("dataflow/") || file.starts_with("guest/");
        let lines: Vec<_> = text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|_| path) {
            let next = lines.get(index + 1).copied().unwrap_or_default();
            assert!(!line.contains("cfg(test)") || next.starts_with("mod tests"), "{file}:{}", index + 1);
        }
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    for (file, text) in host_sources().into_iter().filter(|(file, _)| !file.ends_with("tests.rs")) {
        assert!(text.starts_with("//!"), "{file} does not open with `//!`");
    }
}
