use super::*;

fn read(payload: &str, properties: &[(&str, &str)]) -> Result<Answer, CommandError> {
    Answer::read(payload.as_bytes(), properties.iter().copied())
}

#[test]
fn each_status_is_one_of_aios_errors_or_none() {
    const OK: &str = "ok";
    let name = |result: Result<Answer, CommandError>| match result {
        Ok(_) => OK.to_owned(),
        Err(error) => format!("{:?}", error.kind),
    };
    for (payload, properties, expected) in [
        ("x", &[("__stat", "200")][..], OK),
        ("", &[("__stat", "200")], OK),
        ("", &[("__stat", "204")], OK),
        ("x", &[("__stat", "204")], "PayloadInvalid"),
        ("x", &[], "HeaderMissing"),
        ("x", &[("k", "v"), ("__protVer", "1.0")], "HeaderMissing"),
        ("x", &[("__stat", "")], "HeaderInvalid"),
        ("x", &[("__stat", "ok")], "HeaderInvalid"),
        ("x", &[("__stat", "-200")], "HeaderInvalid"),
        ("x", &[("__stat", "70000")], "HeaderInvalid"),
        ("x", &[("__stat", "200"), ("__protVer", "1.7")], OK),
        ("x", &[("__stat", "200"), ("__protVer", "2.0")], "HeaderInvalid"),
        ("x", &[("__stat", "200"), ("__protVer", "one")], "HeaderInvalid"),
        ("x", &[("__stat", "200"), ("__ts", "yesterday")], "HeaderInvalid"),
        ("x", &[("__stat", "201")], "UnknownError"),
        ("x", &[("__stat", "400")], "PayloadInvalid"),
        ("x", &[("__stat", "400"), ("__propName", "")], "PayloadInvalid"),
        ("x", &[("__stat", "400"), ("__propName", "__ts")], "HeaderMissing"),
        ("x", &[("__stat", "400"), ("__propName", "__ts"), ("__propVal", "?")], "HeaderInvalid"),
        ("x", &[("__stat", "408")], "Timeout"),
        ("x", &[("__stat", "415")], "HeaderInvalid"),
        ("x", &[("__stat", "422")], "InvocationException"),
        ("x", &[("__stat", "500")], "UnknownError"),
        ("x", &[("__stat", "500"), ("__propName", "queue")], "InternalLogicError"),
        ("x", &[("__stat", "500"), ("__apErr", "true")], "ExecutionException"),
        ("x", &[("__stat", "500"), ("__apErr", "True"), ("__propName", "queue")], "ExecutionException"),
        ("x", &[("__stat", "500"), ("__apErr", "false")], "UnknownError"),
        ("x", &[("__stat", "503")], "StateInvalid"),
        ("x", &[("__stat", "505")], "HeaderInvalid"),
        ("x", &[("__stat", "404")], "UnknownError"),
    ] {
        assert_eq!(name(read(payload, properties)), expected, "{payload:?} {properties:?}");
    }
}

#[test]
fn an_answer_keeps_what_is_not_the_protocols() {
    let answer = read(
        "7",
        &[
            ("a", "1"),
            ("__stat", "200"),
            ("__future", "x"),
            ("a", "2"),
            ("__ts", "001700000000123:00004:pump:7"),
        ],
    );
    let expected = Answer {
        payload: b"7".to_vec(),
        user_data: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        time: Some((Point { ms: 1_700_000_000_123, counter: 4 }, "pump:7".into())),
    };
    assert_eq!(answer.as_ref(), Ok(&expected));
    assert_eq!(expected.bytes_len(), 5);
}

#[test]
fn an_error_says_what_the_other_program_said_and_no_more_than_a_line_of_it() {
    let error = read("", &[("__stat", "400"), ("__stMsg", "no"), ("__propName", "x"), ("__propVal", "y")]);
    assert_eq!(error.unwrap_err().text, "the answer has the status 400: no: property x: value y");
    let error = read("", &[("__stat", "500"), ("__stMsg", &"é".repeat(1000))]).unwrap_err();
    assert_eq!(error.text, format!("the answer has the status 500: {}", "é".repeat(128)));
}
