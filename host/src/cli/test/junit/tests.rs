use std::time::Duration;

use super::*;

#[test]
fn what_xml_cannot_hold_is_replaced_and_the_rest_escaped() {
    let report = Report {
        name: "a\u{0}b <&> \"é\"".into(),
        file: "x.test.yaml".into(),
        took: Duration::from_micros(1_500),
        last_output: Duration::ZERO,
        outputs: 0,
        notes: Vec::new(),
        verdict: Verdict::Broken {
            text: "error: \u{1b}[1m]]>\nmore".into(),
            diagnostics: serde_json::json!([]),
        },
    };
    let xml = String::from_utf8(document(&[report]).unwrap()).unwrap();
    assert!(!xml.contains(['\u{0}', '\u{1b}']), "{xml}");
    for part in [
        r#"name="a�b &lt;&amp;&gt; &quot;é&quot;""#,
        r#"tests="1" failures="0" errors="1" time="0.002""#,
        r#"<error message="�[1m]]&gt;">error: �[1m]]&gt;"#,
    ] {
        assert!(xml.contains(part), "`{part}` is not in\n{xml}");
    }
}
