//! A broker that asks who connects: the password comes from where the endpoint says, is
//! read anew for each attempt and shown nowhere.

use std::process::Command;

use tidegate_benches::mosquitto::{find, library_path};

use crate::{
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    site::{Flow, Site},
};

#[test]
fn mqtt_a_password_is_read_again_until_the_broker_takes_it() {
    let Some(binary) = find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let known = folder.path().join("passwords");
    let tool = binary.ancestors().nth(2).expect("it is in sbin").join("bin/mosquitto_passwd");
    let mut add = Command::new(tool);
    if let Some(path) = library_path(&binary) {
        add.env("LD_LIBRARY_PATH", path);
    }
    let added = add.args(["-b", "-c"]).arg(&known).args(["anna", "the-right-one"]).status();
    assert!(added.expect("it runs").success());
    let Some(broker) = Mosquitto::start(&[&format!("password_file {}", known.display())]) else { return };
    let spec = format!(
        "{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\", authentication: {{ method: UserPassword, \
         userPasswordSettings: {{ user: anna, passwordFile: secrets/mqtt }} }} }} }}",
        broker.address()
    );
    let site = Site::new("{ shards: 1 }", &[("local", &spec)]);
    site.flow(&Flow::passing(("local", "a/in"), ("local", "a/out")));
    let connection = || {
        let status = site.status();
        status["tenants"][0]["dataflows"][0]["sources"][0]["connection"].as_str().unwrap_or("").to_owned()
    };
    let host = site.up();
    eventually("it says where the password should be", || connection().contains("secrets/mqtt"));
    site.write("secrets/mqtt", "not-the-right-one\n");
    eventually("it says that the broker refused", || connection().contains("NotAuthorized"));
    site.write("secrets/mqtt", "the-right-one\n");
    eventually("it is connected", || connection() == "connected");
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    publish_all(broker.port, numbers("a/in", 0..5));
    eventually("they come", || subscriber.numbers() == [0, 1, 2, 3, 4]);
    assert!(!host.log().contains("right-one") && !site.status().to_string().contains("right-one"));
    host.stop();
}
