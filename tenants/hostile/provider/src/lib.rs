//! Attacker behind an honest map: a provider of `map:custom` that does what the payload
//! says. `spin` loops, `trap` traps, anything else comes back as it is.

use std::hint::black_box;

wit_bindgen::generate!({ path: "../../../wit/map-custom", world: "custom-provider" });

use exports::map::custom::custom::{DataModel, Error, Guest, ModuleConfiguration};

struct Provider;

impl Guest for Provider {
    fn process(message: DataModel) -> Result<DataModel, Error> {
        let says = |word: &[u8]| message.payload.windows(word.len()).any(|window| window == word);
        if says(b"spin") {
            loop {
                black_box(());
            }
        }
        assert!(!says(b"trap"), "told to");
        Ok(message)
    }

    fn init(_: ModuleConfiguration) -> bool {
        true
    }
}

export!(Provider);
