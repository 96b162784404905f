//! What users write: the site folder with its hosts, policies, tenants, endpoints,
//! graphs and dataflows. Control side: each raw document becomes a type that the
//! host runs on, or a list of what is wrong and where. Knows nothing of guests,
//! shards or brokers.

pub mod dataflow;
pub mod diagnostic;
pub mod endpoint;
pub mod engine;
pub mod footprint;
pub mod graph;
pub mod host;
pub mod json_path;
pub mod policy;
pub mod quantity;
pub mod schemas;
pub mod secret;
pub mod site;
pub mod tenant;
pub mod test_case;
pub mod yaml;

pub use dataflow::Dataflow;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use endpoint::{Endpoint, EndpointKind};
pub use engine::{EngineKind, PerEngine, PoolLayout};
pub use footprint::Seen;
pub use graph::{Graph, OperationKind};
pub use host::HostConfig;
pub use policy::{CompileLimits, Grants, Late, Limits, OnError, Policy};
pub use schemas::Schemas;
pub use site::Site;
