//! Site folders that tests write: tenants with dataflows of operators in a row.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tidegate_benches::{rig::guest_path, site::chain};

/// An operator: operation type, guest, configuration.
pub type Link<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A site folder, removed when dropped.
pub struct SiteFolder {
    dir: tempfile::TempDir,
}

impl SiteFolder {
    /// With a Host of this `spec` and one endpoint `local`, a broker at `address`.
    pub fn new(host: &str, address: &str) -> Self {
        let site = SiteFolder { dir: tempfile::tempdir().expect("a folder") };
        fs::create_dir_all(site.path().join("tenants")).expect("a folder");
        site.write(
            "platform/host.yaml",
            &format!("apiVersion: tidegate.dev/v1\nkind: Host\nmetadata: {{ name: test }}\nspec: {host}\n"),
        );
        site.write(
            "platform/local.yaml",
            &format!(
                "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\n\
                 metadata: {{ name: local }}\n\
                 spec: {{ endpointType: Mqtt, mqttSettings: {{ host: \"{address}\" }} }}\n"
            ),
        );
        site
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.place(path), text).expect("a file");
    }

    pub fn remove(&self, path: &str) {
        let path = self.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("it was there");
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("below the site")).expect("a folder");
        path
    }

    /// The standard policy with other values, or of another world: `keys` are lines of
    /// its spec.
    pub fn policy(&self, name: &str, keys: &[&str]) {
        let mut text =
            format!("apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n");
        if !keys.iter().any(|key| key.starts_with("world")) {
            text += "  world: tidegate:policy/standard@0.1.0\n";
        }
        for key in keys {
            writeln!(text, "  {key}").expect("a string takes all");
        }
        if !keys.iter().any(|key| key.starts_with("endpoints")) {
            text +=
                "  endpoints: [ { name: local, read: [ \"{tenant}/#\" ], write: [ \"{tenant}/out/#\" ] } ]\n";
        }
        self.write(&format!("platform/policy-{name}.yaml"), &text);
    }

    pub fn tenant(&self, name: &str, policy: &str) {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec: {{ policy: {policy} }}\n"
        );
        self.write(&format!("platform/tenant-{name}.yaml"), &text);
    }

    /// A dataflow from `TENANT/in/DATAFLOW` through operators in a row to
    /// `TENANT/out/DATAFLOW`, with its graph and components.
    pub fn dataflow(&self, tenant: &str, dataflow: &str, links: &[Link<'_>]) {
        let (from, to) = (format!("{tenant}/in/{dataflow}"), format!("{tenant}/out/{dataflow}"));
        self.dataflow_between(tenant, dataflow, ("local", &from), links, ("local", &to));
    }

    /// The same from and to any endpoint and topic.
    pub fn dataflow_between<'a>(
        &self,
        tenant: &str,
        dataflow: &str,
        from: (&str, &str),
        links: &[Link<'a>],
        to: (&str, &str),
    ) {
        for (_, guest, _) in links {
            let bytes = fs::read(guest_path(guest)).expect("the guests are built");
            self.component(tenant, guest, &bytes);
        }
        let link = |&(kind, module, configuration): &Link<'a>| chain::Link { kind, module, configuration };
        let graph = chain::graph(dataflow, &links.iter().map(link).collect::<Vec<_>>());
        self.write(&format!("tenants/{tenant}/artifacts/{dataflow}/1.yaml"), &graph);
        let text = chain::dataflow(dataflow, dataflow, from, to);
        self.write(&format!("tenants/{tenant}/dataflows/{dataflow}.yaml"), &text);
    }

    /// Puts a component where the tenant's graphs find it.
    pub fn component(&self, tenant: &str, name: &str, bytes: &[u8]) {
        fs::write(self.place(&format!("tenants/{tenant}/artifacts/{name}/1.wasm")), bytes).expect("a file");
    }
}

/// For tenants whose operators fail on purpose and are to go on.
pub const PATIENT: &str = "faults: { retries: 2, coolDown: 0s, quarantineAfter: 10000, within: 1ms }";
