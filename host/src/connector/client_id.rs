//! Whom a client says it is to a broker: the same in every run, different for each end of
//! each tenant, and readable in the broker's own logs.

/// The client of one dataflow's source.
pub fn of_source(host: &str, tenant: &str, dataflow: &str, source: &str) -> String {
    format!("tg/{host}/{tenant}/{dataflow}/{source}")
}

/// The client of one tenant's writes to one endpoint. No dataflow has such a name, or
/// its source could have the same id.
pub fn of_sink(host: &str, tenant: &str, endpoint: &str) -> String {
    format!("tg/{host}/{tenant}/_out/{endpoint}")
}

/// The client of what one tenant asks over one endpoint. No dataflow has such a name.
pub fn of_commands(host: &str, tenant: &str, endpoint: &str) -> String {
    format!("tg/{host}/{tenant}/_commands/{endpoint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_tell_tenants_and_ends_apart() {
        assert_eq!(of_source("edge-1", "weather", "frost", "in"), "tg/edge-1/weather/frost/in");
        assert_eq!(of_sink("edge-1", "weather", "local"), "tg/edge-1/weather/_out/local");
        assert_eq!(of_commands("edge-1", "weather", "local"), "tg/edge-1/weather/_commands/local");
    }
}
