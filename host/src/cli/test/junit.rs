//! Test results as JUnit XML, for what collects results of builds.

use std::{borrow::Cow, io};

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

use super::{Report, Verdict};

/// One suite of all tests. A test that could not run is an error, one that ran and
/// came out wrong a failure.
pub fn document(reports: &[Report]) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let count = |of: fn(&Verdict) -> bool| reports.iter().filter(|it| of(&it.verdict)).count().to_string();
    let failures = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let errors = count(|verdict| matches!(verdict, Verdict::Broken { .. }));
    let (tests, time) =
        (reports.len().to_string(), seconds(reports.iter().map(|report| report.took.as_secs_f64()).sum()));
    let totals = [
        ("name", "tidegate test"),
        ("tests", &tests),
        ("failures", &failures),
        ("errors", &errors),
        ("time", &time),
    ];
    writer.create_element("testsuites").with_attributes(totals).write_inner_content(|writer| {
        writer
            .create_element("testsuite")
            .with_attributes(totals)
            .write_inner_content(|writer| reports.iter().try_for_each(|report| case(writer, report)))?;
        Ok(())
    })?;
    let mut xml = writer.into_inner();
    xml.push(b'\n');
    Ok(xml)
}

fn case(writer: &mut Writer<Vec<u8>>, report: &Report) -> io::Result<()> {
    let (file, time) = (report.file.display().to_string(), seconds(report.took.as_secs_f64()));
    let (name, file) = (allowed(&report.name), allowed(&file));
    let attributes = [("name", &*name), ("classname", &*file), ("file", &*file), ("time", &time)];
    let element = writer.create_element("testcase").with_attributes(attributes);
    let (kind, text) = match &report.verdict {
        Verdict::Passed if report.notes.is_empty() => {
            element.write_empty()?;
            return Ok(());
        }
        Verdict::Passed => ("system-out", report.notes.join("\n")),
        Verdict::Failed(failure) => {
            let notes = report.notes.iter().map(|note| format!("note: {note}"));
            ("failure", failure.lines().into_iter().chain(notes).collect::<Vec<_>>().join("\n"))
        }
        Verdict::Broken { text, .. } => ("error", text.clone()),
    };
    let text = allowed(&text);
    element.write_inner_content(|writer| {
        let mut element = writer.create_element(kind);
        if kind != "system-out" {
            element = element.with_attribute(("message", headline(&text)));
        }
        element.write_text_content(BytesText::new(&text))?;
        Ok(())
    })?;
    Ok(())
}

/// What a list of results shows: the first thing that is wrong.
fn headline(text: &str) -> &str {
    let error = text.lines().find_map(|line| line.strip_prefix("error: "));
    error.or_else(|| text.lines().next()).unwrap_or_default()
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

/// XML has no place for some characters, however they are written.
fn allowed(text: &str) -> Cow<'_, str> {
    let is_allowed =
        |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}') || "\t\n\r".contains(c);
    match text.chars().all(is_allowed) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(text.chars().map(|c| if is_allowed(c) { c } else { '\u{fffd}' }).collect()),
    }
}

#[cfg(test)]
mod tests;
