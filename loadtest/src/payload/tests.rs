use std::time::Duration;

use rand::SeedableRng as _;

use super::*;

fn filled(template: &str, seed: u64) -> String {
    let template = Template::parse(template).expect("a template");
    let time = UNIX_EPOCH + Duration::from_millis(1_517_363_399_650);
    let mut out = Vec::new();
    template.fill(
        &Fill { id: "lt1-7", tenant: "quiet-3", time },
        &mut SmallRng::seed_from_u64(seed),
        &mut out,
    );
    String::from_utf8(out).expect("text")
}

#[test]
fn places_are_filled_in_and_json_stays() {
    assert_eq!(
        filled(r#"{"id":"{id}","at":"{time}","of":{"team":"{tenant}"},"x":{}}"#, 1),
        r#"{"id":"lt1-7","at":"2018-01-31T01:49:59.650Z","of":{"team":"quiet-3"},"x":{}}"#
    );
    assert_eq!(filled("attack {", 1), "attack {");
    assert_eq!(filled("", 1), "");
}

#[test]
fn random_numbers_are_in_range_and_of_the_seed() {
    for seed in 0..200 {
        let whole: i64 = filled("{random -3..3}", seed).parse().expect("a number");
        assert!((-3..=3).contains(&whole));
        let text = filled("{random -5.0..40.5}", seed);
        let number: f64 = text.parse().expect("a number");
        assert!((-5.0..=40.5).contains(&number) && text.contains('.'), "{text}");
    }
    assert_eq!(filled("{random 0..1000000}", 5), filled("{random 0..1000000}", 5));
    assert_ne!(filled("{random 0..1000000}", 5), filled("{random 0..1000000}", 6));
}

#[test]
fn what_cannot_be_filled_in_is_found() {
    for (text, at, len, message, help) in [
        ("é {idd}", 2, 5, "`{idd}` cannot be filled in", "did you mean `{id}`?"),
        ("{id 3}", 0, 6, "`{id 3}` cannot be filled in", "there are {id}"),
        ("x{random}", 1, 8, "`{random}` has no range", "write"),
        ("{random 9..1}", 0, 13, "`{random 9..1}` has no range", "write"),
        ("{random 0..0.5}", 0, 15, "`{random 0..0.5}` has no range", "write"),
    ] {
        let error = Template::parse(text).expect_err(text);
        assert_eq!((error.at, error.len, error.message.as_str()), (at, len, message));
        assert!(error.help.starts_with(help), "{}", error.help);
    }
}

#[test]
fn a_file_gives_its_lines_and_a_table_its_rows() {
    let Ok(Payloads::Lines(lines)) = Payloads::of_file("a.csv", "day,t\n2010-01-01,4.5\n2010-01-02,x\n")
    else {
        panic!("lines")
    };
    assert_eq!(lines, [r#"{"day":"2010-01-01","t":4.5}"#, r#"{"day":"2010-01-02","t":"x"}"#]);
    let lines = Payloads::of_file("a.jsonl", "{}\n\n[1]\n").expect("lines");
    let mut out = Vec::new();
    let fill = Fill { id: "", tenant: "", time: UNIX_EPOCH };
    (0..3).for_each(|n| lines.push(n, &fill, &mut SmallRng::seed_from_u64(1), &mut out));
    assert_eq!(out, b"{}[1]{}");
    assert!(Payloads::of_file("a.jsonl", "\n").is_err());
}
