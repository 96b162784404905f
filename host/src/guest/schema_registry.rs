//! AIO's `schema-registry`: what its operators look up among the schemas of their
//! tenant and its platform, in the types and with the errors of its WIT. Schemas are in
//! memory, so that nothing here waits.

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, LinkerInstance, Lower},
};

use crate::{
    guest::{host_call::Interface, state::GuestState},
    resource::schemas::{LookupError, RegisteredSchema, SchemaFormat as Format},
};

#[derive(ComponentType, Lower)]
#[component(variant)]
enum SchemaFormat {
    #[component(name = "json")]
    Json,
    #[component(name = "delta")]
    Delta,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum SchemaType {
    #[component(name = "message-schema")]
    MessageSchema,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "the cases of the WIT: what is in memory fails in fewer ways")]
enum SchemaError {
    /// The id, version or time-out is none.
    #[component(name = "request")]
    Request(String),
    #[component(name = "internal")]
    Internal(String),
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "not-found")]
    NotFound,
    /// There is no site, and with it no schemas.
    #[component(name = "not-available")]
    NotAvailable,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Schema {
    description: Option<String>,
    #[component(name = "display-name")]
    display_name: Option<String>,
    format: SchemaFormat,
    hash: Option<String>,
    name: String,
    namespace: String,
    #[component(name = "schema-content")]
    schema_content: String,
    #[component(name = "schema-type")]
    schema_type: SchemaType,
    tags: Vec<(String, String)>,
    version: String,
}

impl From<&RegisteredSchema> for Schema {
    fn from(schema: &RegisteredSchema) -> Self {
        Schema {
            description: schema.description.clone(),
            display_name: schema.display_name.clone(),
            format: match schema.format {
                Format::Json => SchemaFormat::Json,
                Format::Delta => SchemaFormat::Delta,
            },
            hash: Some(schema.hash.clone()),
            name: schema.name.clone(),
            namespace: schema.namespace.clone(),
            schema_content: schema.content.clone(),
            schema_type: SchemaType::MessageSchema,
            tags: schema.tags.clone(),
            version: schema.version.clone(),
        }
    }
}

/// Adds the functions of the interface to an instance of it.
pub fn add_to(registry: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    type Params = (String, String, (u64, u32));
    registry.func_wrap_async(
        "get",
        |mut store: StoreContextMut<'_, GuestState>, (id, version, timeout): Params| {
            Box::new(async move {
                let state = store.data_mut();
                state.charge_bytes_and_yield(Interface::Schemas, (id.len() + version.len()) as u64).await?;
                let result = get(state, &id, &version, timeout);
                if let Ok(schema) = &result {
                    state.charge_more(schema.schema_content.len() as u64)?;
                }
                Ok((result,))
            })
        },
    )
}

fn get(state: &GuestState, id: &str, version: &str, (_, nanos): (u64, u32)) -> Result<Schema, SchemaError> {
    if nanos >= 1_000_000_000 {
        return Err(SchemaError::Request(format!("{nanos} nanoseconds in a time-out")));
    }
    let schemas = state.tenant.schemas().ok_or(SchemaError::NotAvailable)?;
    match schemas.find(id, version) {
        Ok(schema) => Ok(Schema::from(&**schema)),
        Err(LookupError::NotFound) => Err(SchemaError::NotFound),
        Err(error) => Err(SchemaError::Request(error.to_string())),
    }
}
