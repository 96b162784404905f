//! What a broker says of hosts that are gone.

use crate::{
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    site::{Flow, Site},
};

#[test]
fn mqtt_a_broker_says_the_last_will_of_sources_that_were_killed_and_of_no_others() {
    for version in ["5", "3.1.1"] {
        let Some(broker) = Mosquitto::start(&[]) else { return };
        let spec = format!(
            "{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\", version: \"{version}\", \
             lastWill: {{ topic: \"gone/${{clientId}}\", payload: \"77\" }} }} }}",
            broker.address()
        );
        let site = Site::new("{ shards: 1 }", &[("local", &spec)]);
        site.flow(&Flow::passing(("local", "a/in"), ("local", "a/out")));
        let wills = Subscriber::named("outside-wills", broker.port, "gone/#");
        let subscriber = Subscriber::new(broker.port, "a/out");
        site.up().stop();
        let host = site.up();
        publish_all(broker.port, numbers("a/in", 0..5));
        eventually("they come", || subscriber.numbers() == [0, 1, 2, 3, 4]);
        assert_eq!(wills.len(), 0, "the first one said goodbye");
        host.kill();
        eventually("its will is said", || wills.len() == 1);
        let will = wills.received().remove(0);
        assert_eq!((&will.topic[..], &will.payload[..]), (&b"gone/tg/test/a/flow/in"[..], &b"77"[..]));
    }
}
