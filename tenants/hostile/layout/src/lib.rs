//! Returns results that break the packed layout, in the way that the key `breach` names
//! (see [`Breach`]), for batches in which a payload contains `attack`; honest for all
//! others, and for all other entries of such a batch. Generated bindings instead of the
//! SDK, which could not be talked into any of this. Exports map, filter and branch.

// Attacks on a machine that is not a guest's would be attacks.
#![cfg(target_arch = "wasm32")]

use std::cell::Cell;

use serde::Deserialize;

wit_bindgen::generate!({
    inline: r#"
        package hostile:layout;
        world all {
            export tidegate:operator/%map@0.1.0;
            export tidegate:operator/filter@0.1.0;
            export tidegate:operator/branch@0.1.0;
        }
    "#,
    path: "../../../wit/tidegate-operator",
    generate_all,
});

use exports::tidegate::operator::{branch, filter, map};
use tidegate::operator::types::{Configuration, Judged, Mapped};

/// How the layout is broken. `span` below is the one that the key `span` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Breach {
    /// The span starts behind the arena.
    OffsetBeyond,
    /// The span ends behind the arena.
    LengthBeyond,
    /// Offset and length add up to little, modulo 2³².
    Wrap,
    /// The span is absent but has a length.
    AbsentLength,
    /// The span's bytes are no UTF-8.
    NotUtf8,
    /// An entry comes from one that was not taken in.
    OriginBeyond,
    /// An entry comes from an earlier one than the entry before it.
    OriginDecreasing,
    /// Properties whose last length says more than there is.
    PropertiesCut,
    /// A property whose value is no UTF-8.
    PropertiesNotUtf8,
    /// A schema of a kind that does not exist.
    SchemaTag,
    /// An inline schema whose length says more than there is.
    SchemaCut,
    /// An image whose size is cut short.
    SnapshotCut,
    /// A kind of message that does not exist.
    KindSeven,
    /// A number other than 0 where 0 belongs.
    NotZero,
    /// A list that ends outside of the guest's memory.
    ListBeyond,
    /// A list that fills most of the guest's memory.
    ListEnormous,
    /// One number less than whole entries.
    EntryCut,
    /// One number more than whole faults.
    FaultCut,
    /// A fault of an entry that was not taken in.
    FaultOriginBeyond,
    /// A fault whose text ends behind the arena.
    FaultTextBeyond,
    /// A fault whose text is no UTF-8.
    FaultNotUtf8,
    /// A fault of an entry that also has a result.
    FaultBesides,
    /// A verdict of 7. Filter and branch, as all that follow.
    VerdictSeven,
    /// One verdict too few.
    VerdictsFew,
    /// One verdict too many.
    VerdictsMany,
    /// An error that no fault explains.
    ErrorAlone,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SpanName {
    Node,
    Topic,
    ContentType,
    #[default]
    Payload,
    Properties,
    Schema,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Config {
    breach: Breach,
    #[serde(default)]
    span: SpanName,
}

thread_local! {
    static CONFIG: Cell<Option<Config>> = const { Cell::new(None) };
}

struct Layout;

fn init(configuration: &Configuration) -> Result<(), String> {
    let config = tidegate_sdk::configuration::read(&configuration.properties);
    CONFIG.set(Some(config.map_err(|error| error.to_string())?));
    Ok(())
}

fn config() -> Config {
    CONFIG.get().expect("the host calls `init` first")
}

impl map::Guest for Layout {
    fn init(configuration: Configuration) -> Result<(), String> {
        init(&configuration)
    }

    fn process(entries: Vec<u64>, mut arena: Vec<u8>) -> Mapped {
        let config = config();
        let mut entries = read(&entries);
        let mut faults = Vec::new();
        for (origin, entry) in entries.iter_mut().enumerate() {
            entry[Word::Origin as usize] &= !LOW;
            entry[Word::Origin as usize] |= origin as u64;
        }
        let guilty = guilty(&entries, &arena);
        if let Some(guilty) = guilty {
            breach_map(config, guilty, &mut entries, &mut faults, &mut arena);
        }
        let mut entries: Vec<u64> = entries.into_iter().flatten().collect();
        match config.breach {
            Breach::ListBeyond if guilty.is_some() => {
                let (start, numbers) = (entries.leak().as_mut_ptr(), 1 << 26);
                // Not sound at all: the host must find it out.
                entries = unsafe { Vec::from_raw_parts(start, numbers, numbers) };
            }
            Breach::ListEnormous if guilty.is_some() => entries = vec![0; 350_000],
            Breach::EntryCut if guilty.is_some() => _ = entries.pop(),
            Breach::FaultCut if guilty.is_some() => faults.push(0),
            _ => {}
        }
        Mapped { entries, faults, arena }
    }
}

impl filter::Guest for Layout {
    fn init(configuration: Configuration) -> Result<(), String> {
        init(&configuration)
    }

    fn process(entries: Vec<u64>, arena: Vec<u8>) -> Judged {
        judge(&read(&entries), &arena)
    }
}

impl branch::Guest for Layout {
    fn init(configuration: Configuration) -> Result<(), String> {
        init(&configuration)
    }

    fn process(entries: Vec<u64>, _times: Vec<u64>, arena: Vec<u8>) -> Judged {
        judge(&read(&entries), &arena)
    }
}

export!(Layout);

/// One message, as the contract's numbers.
type Entry = [u64; 10];

/// Where they are.
#[derive(Clone, Copy)]
enum Word {
    Origin = 0,
    Nanos = 2,
    Node = 4,
    Topic = 5,
    ContentType = 6,
    Payload = 7,
    Properties = 8,
    Schema = 9,
}

const LOW: u64 = 0xffff_ffff;

fn read(entries: &[u64]) -> Vec<Entry> {
    entries.chunks_exact(10).map(|entry| entry.try_into().expect("ten")).collect()
}

fn span(offset: u32, len: u32) -> u64 {
    u64::from(len) << 32 | u64::from(offset)
}

fn guilty(entries: &[Entry], arena: &[u8]) -> Option<usize> {
    entries.iter().position(|entry| {
        let payload = entry[Word::Payload as usize];
        let payload = &arena[(payload & LOW) as usize..][..(payload >> 32) as usize];
        payload.windows(6).any(|window| window == b"attack")
    })
}

fn breach_map(
    config: Config,
    guilty: usize,
    entries: &mut [Entry],
    faults: &mut Vec<u64>,
    arena: &mut Vec<u8>,
) {
    let (count, end) = (entries.len() as u32, arena.len() as u32);
    let entry = &mut entries[guilty];
    let mut store = |bytes: &[u8]| {
        let offset = arena.len() as u32;
        arena.extend_from_slice(bytes);
        span(offset, bytes.len() as u32)
    };
    let mut fault = |origin: u32, text| faults.extend([u64::from(origin), text]);
    let named = match config.span {
        SpanName::Node => Word::Node,
        SpanName::Topic => Word::Topic,
        SpanName::ContentType => Word::ContentType,
        SpanName::Payload => Word::Payload,
        SpanName::Properties => Word::Properties,
        SpanName::Schema => Word::Schema,
    };
    let named = named as usize;
    let properties = Word::Properties as usize;
    let schema = Word::Schema as usize;
    match config.breach {
        Breach::OffsetBeyond => entry[named] = span(end + 1, 8),
        Breach::LengthBeyond => entry[named] = span(0, end + 1),
        Breach::Wrap => entry[named] = span(u32::MAX - 15, 32),
        Breach::AbsentLength => entry[named] = span(u32::MAX, 8),
        Breach::NotUtf8 => entry[named] = store(b"\xff\xfe"),
        Breach::OriginBeyond => entry[0] = count.into(),
        Breach::OriginDecreasing => {
            entry[0] = (count - 1).into();
            if guilty + 1 == entries.len() {
                entries[0][0] = (count - 1).into();
                entries[guilty][0] = 0;
            }
        }
        Breach::PropertiesCut => entry[properties] = store(b"\x01\0\0\0k\xff\0\0\0v"),
        Breach::PropertiesNotUtf8 => entry[properties] = store(b"\x01\0\0\0k\x01\0\0\0\xff"),
        Breach::SchemaTag => entry[schema] = store(b"\x07name"),
        Breach::SchemaCut => entry[schema] = store(b"\x01\xff\0\0\0name"),
        Breach::SnapshotCut => {
            entry[Word::Origin as usize] |= 2 << 32;
            entry[properties] = store(b"\x01\0\0");
        }
        Breach::KindSeven => entry[Word::Origin as usize] |= 7 << 32,
        Breach::NotZero => entry[Word::Nanos as usize] |= 1 << 32,
        Breach::ListBeyond | Breach::ListEnormous | Breach::EntryCut | Breach::FaultCut => {}
        Breach::FaultOriginBeyond => fault(count, store(b"a fault")),
        Breach::FaultTextBeyond => fault(guilty as u32, span(end, 8)),
        Breach::FaultNotUtf8 => fault(guilty as u32, store(b"\xff\xfe")),
        Breach::FaultBesides => fault(guilty as u32, store(b"a fault")),
        Breach::VerdictSeven | Breach::VerdictsFew | Breach::VerdictsMany | Breach::ErrorAlone => {}
    }
}

fn judge(entries: &[Entry], arena: &[u8]) -> Judged {
    let mut judged = Judged { verdicts: vec![1; entries.len()], faults: Vec::new(), arena: Vec::new() };
    let Some(guilty) = guilty(entries, arena) else {
        return judged;
    };
    let fault = |origin: usize, offset, len| [origin as u64, span(offset, len)];
    match config().breach {
        Breach::VerdictSeven => judged.verdicts[guilty] = 7,
        Breach::VerdictsFew => _ = judged.verdicts.pop(),
        Breach::VerdictsMany => judged.verdicts.push(1),
        Breach::ErrorAlone => judged.verdicts[guilty] = 2,
        Breach::FaultOriginBeyond => {
            judged.verdicts[guilty] = 2;
            judged.faults.extend(fault(entries.len(), 0, 0));
        }
        Breach::FaultTextBeyond => {
            judged.verdicts[guilty] = 2;
            judged.faults.extend(fault(guilty, 4, 8));
        }
        Breach::FaultNotUtf8 => {
            judged.verdicts[guilty] = 2;
            judged.arena = b"\xff\xfe".to_vec();
            judged.faults.extend(fault(guilty, 0, 2));
        }
        Breach::FaultBesides => judged.faults.extend(fault(guilty, 0, 0)),
        _ => {}
    }
    judged
}
