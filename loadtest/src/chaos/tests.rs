use super::*;

fn row(connector: Connector, sent: u64, delivered: u64, duplicated: u64) -> Row {
    let figures = Figures {
        sent,
        delivered,
        duplicated,
        unexpected: 0,
        missing: (delivered..sent).collect(),
        recovered: [3, 1, 2].map(Duration::from_secs).to_vec(),
        sent_again: 0,
        took: Duration::from_secs(7),
    };
    let scenario = Scenario { connector, fault: Fault::HostKilled };
    Row { scenario, came_of_it: Came::Counted(figures) }
}

#[test]
fn a_loss_does_not_hold_and_a_duplicate_only_without_transactions() {
    for (row, holds) in [
        (row(Connector::Kafka, 10, 10, 3), true),
        (row(Connector::Transactions, 10, 10, 0), true),
        (row(Connector::Transactions, 10, 10, 1), false),
        (row(Connector::Mqtt, 10, 9, 0), false),
    ] {
        assert_eq!(row.holds(true), holds, "{row:?}");
    }
}

#[test]
fn what_cannot_be_run_holds_only_where_it_need_not() {
    let scenario = Scenario { connector: Connector::Mqtt, fault: Fault::DiskFull };
    let row = Row { scenario, came_of_it: Came::NotRun("no unshare".into()) };
    assert_eq!((row.holds(false), row.holds(true)), (true, false));
    let row = Row { scenario, came_of_it: Came::Failed("it never recovered".into()) };
    assert!(!row.holds(false));
}

#[test]
fn a_table_names_what_is_lost_and_how_long_recovery_took() {
    let text = table(&[row(Connector::Mqtt, 10, 8, 1)]);
    assert!(text.contains("mqtt: host killed") && text.contains("2.00 s, 3.00 s"), "{text}");
    assert!(text.contains("LOST, the first of them: [8, 9]"), "{text}");
}

#[test]
fn every_connector_has_its_faults_and_each_is_named_once() {
    let all = Scenario::all();
    let mut names: Vec<String> = all.iter().map(|scenario| scenario.name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len());
    for connector in Connector::ALL {
        let faults = all.iter().filter(|it| it.connector == connector).map(|it| it.fault);
        assert!(faults.clone().any(|fault| fault == Fault::HostKilled), "{connector:?}");
        assert!(faults.clone().any(|fault| fault == Fault::LinksTruncated), "{connector:?}");
    }
}
