//! `tidegate compose`: two components become one file. Nothing is written unless all
//! is well.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{print::out, print_json};
use crate::guest::{
    component::{Digest, read_bytes},
    compose::{self, ComposeError},
};

#[derive(Args)]
pub struct ComposeArgs {
    /// The component that imports: it stays what the host calls.
    #[arg(value_name = "MAP.wasm")]
    map: PathBuf,
    /// The component that exports what the map imports.
    #[arg(value_name = "PROVIDER.wasm")]
    provider: PathBuf,
    /// Where the fused component goes.
    #[arg(short, long, value_name = "OUT.wasm")]
    output: PathBuf,
}

pub fn compose(args: ComposeArgs, json: bool) -> anyhow::Result<ExitCode> {
    let ComposeArgs { map, provider, output } = args;
    let (map_bytes, provider_bytes) = (read_bytes(&map, u64::MAX)?, read_bytes(&provider, u64::MAX)?);
    let (map_name, provider_name) = (name_of(&map), name_of(&provider));
    let fused = compose::compose((&map_name, &map_bytes), (&provider_name, &provider_bytes));
    let (fusion, bytes) = fused.map_err(|error| match error {
        ComposeError::Map(error) => anyhow::anyhow!("{}: {error}", map.display()),
        ComposeError::Provider(error) => anyhow::anyhow!("{}: {error}", provider.display()),
        error => anyhow::anyhow!("{} and {}: {error}", map.display(), provider.display()),
    })?;
    write(&output, &bytes).with_context(|| format!("cannot write {}", output.display()))?;
    let digest = |bytes| format!("sha256:{}", Digest::of(bytes));
    let filled: Vec<&str> = fusion.filled().collect();
    let imports: Vec<&str> = fusion.shape.imports.iter().map(|import| import.name.as_str()).collect();
    if json {
        print_json(&json!({
            "output": output, "digest": digest(&bytes), "bytes": bytes.len(),
            "map": { "name": map_name, "digest": digest(&map_bytes) },
            "provider": { "name": provider_name, "digest": digest(&provider_bytes) },
            "fused": filled, "imports": imports,
        }));
    } else {
        out!("fused      {}", filled.join(", "));
        out!("map        {map_name:<20} {}", digest(&map_bytes));
        out!("provider   {provider_name:<20} {}", digest(&provider_bytes));
        out!("{:<31} {}", output.display(), digest(&bytes));
        out!("`tidegate inspect {}` shows what it still imports", output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// As artifacts are named: `calibrate` of `calibrate.wasm`, `calibrate:1.0.0` of
/// `calibrate/1.0.0.wasm`.
fn name_of(path: &Path) -> String {
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let stem = path.file_stem().map(text).unwrap_or_default();
    match path.parent().and_then(Path::file_name).map(text) {
        Some(name) if semver::Version::parse(&stem).is_ok() => format!("{name}:{stem}"),
        _ => stem,
    }
}

/// Beside it first, so that no half of a component ever has its name.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path).inspect_err(|_| {
        // What failed is told; the part is only litter.
        let _ = fs::remove_file(&beside);
    })
}
