use super::*;
use proptest::prelude::*;

#[test]
fn quantities_need_the_units_of_their_kind() {
    let unknown = |unit: &str, example| Err(QuantityError::UnknownUnit { unit: unit.into(), example });
    for (text, expected) in [
        ("64Mi", Ok(64 << 20)),
        ("1B", Ok(1)),
        ("64", Err(QuantityError::NoUnit { example: "`64Mi`" })),
        ("64M", unknown("M", "`64Mi`")),
        ("Mi", Err(QuantityError::NoNumber { example: "`64Mi`" })),
        ("-1Mi", Err(QuantityError::NoNumber { example: "`64Mi`" })),
        ("99999999999999999999Mi", Err(QuantityError::TooLarge)),
        ("18446744073709551615Gi", Err(QuantityError::TooLarge)),
    ] {
        assert_eq!(bytes(text), expected, "{text}");
    }
    for (text, expected) in [("20M", Ok(20_000_000)), ("7", Ok(7)), ("20Mi", unknown("Mi", "`20M`"))] {
        assert_eq!(fuel(text), expected, "{text}");
    }
    for (text, expected) in [
        ("20ms", Ok(Duration::from_millis(20))),
        ("1h", Ok(Duration::from_secs(3600))),
        ("7d", Ok(Duration::from_secs(7 * 86_400))),
        ("20", Err(QuantityError::NoUnit { example: "`20ms`" })),
    ] {
        assert_eq!(time(text), expected, "{text}");
    }
    assert_eq!((cpu("100m"), cpu("2")), (Ok(100), Ok(2_000)));
    assert_eq!(count("16x"), unknown("x", "`16`"));
}

proptest! {
    #[test]
    fn no_text_makes_a_quantity_panic(text in ".{0,24}") {
        let _ = (bytes(&text), fuel(&text), time(&text), cpu(&text), count(&text));
    }

    #[test]
    fn written_bytes_are_read_back(number in 0_u64..1 << 40) {
        prop_assert_eq!(bytes(&format!("{number}B")), Ok(number));
        prop_assert_eq!(bytes(&format!("{}Ki", number >> 10)), Ok(number >> 10 << 10));
    }
}

#[test]
fn what_is_shown_is_in_the_largest_unit_without_a_rest() {
    for (shown, expected) in [
        (show_bytes(64 << 20), "64Mi"),
        (show_bytes(1500), "1500B"),
        (show_bytes(0), "0B"),
        (show_fuel(20_000_000), "20M"),
        (show_fuel(u64::MAX), "unlimited"),
        (show_count(u64::MAX), "unlimited"),
        (show_cpu(100), "100m"),
        (show_cpu(2_000), "2"),
        (show_time(Duration::from_secs(90)), "90s"),
        (show_time(Duration::from_secs(7 * 86_400)), "7d"),
        (show_time(Duration::ZERO), "0us"),
    ] {
        assert_eq!(shown, expected);
    }
}

proptest! {
    #[test]
    fn what_is_shown_is_read_as_the_same(number in 0..u64::MAX / 2) {
        prop_assert_eq!(bytes(&show_bytes(number)), Ok(number));
        prop_assert_eq!(fuel(&show_fuel(number)), Ok(number));
        prop_assert_eq!(count(&show_count(number)), Ok(number));
        prop_assert_eq!(cpu(&show_cpu(number)), Ok(number));
        prop_assert_eq!(time(&show_time(Duration::from_micros(number))), Ok(Duration::from_micros(number)));
    }
}
