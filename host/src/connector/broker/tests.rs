use super::*;

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind(address(0)).expect("loopback can be bound");
    let port = taken.local_addr().expect("it is bound").port();
    let error = start(Ports { v5: 0, v311: port }).expect_err("it is taken");
    assert_eq!(error.to_string(), format!("port {port} of the embedded broker cannot be used"));
}

#[test]
fn it_chooses_ports_and_listens_on_them() {
    let ports = start(Ports::default()).expect("it starts");
    assert!(ports.v5 != 0 && ports.v311 != 0 && ports.v5 != ports.v311);
    for port in [ports.v5, ports.v311] {
        TcpStream::connect(address(port)).expect("it listens");
    }
}

#[test]
fn client_ids_are_written_as_it_takes_them_and_stay_different() {
    let ids = ["tg/h/t/d/n", "tg/h/t:d/n", "tg:h:t:d:n", "a%3ab", "a:b", "a+b", "a#b", "$a", "ä"];
    let taken: std::collections::HashSet<String> = ids.iter().map(|id| client_id(id)).collect();
    assert_eq!(taken.len(), ids.len());
    assert!(taken.contains("tg:h:t:d:n"));
    assert!(taken.iter().all(|id| !id.contains(['/', '+', '#', '$'])));
}
