use super::*;

#[test]
fn a_token_grants_its_own_tenant_and_is_known_as_somebody_elses() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "one\r\n\n  two  \n").unwrap();
    fs::write(dir.path().join("b"), "three\nboth").unwrap();
    fs::write(dir.path().join("c"), "both\n").unwrap();
    fs::write(dir.path().join(".a.swp"), "hidden\n").unwrap();
    let tokens = Tokens::read(dir.path(), &Tokens::default()).unwrap();
    let right = |authorization: &str, tenant| tokens.right(Some(authorization.as_bytes()), tenant);
    for (authorization, tenant, expected) in [
        ("Bearer one", "a", Right::Granted),
        ("bearer  two ", "a", Right::Granted),
        ("Bearer one", "b", Right::Others),
        ("Bearer one", "nobody", Right::Others),
        ("Bearer both", "b", Right::Granted),
        ("Bearer both", "c", Right::Granted),
        ("Bearer both", "a", Right::Others),
        ("Bearer hidden", ".a.swp", Right::Unknown),
        ("Bearer on", "a", Right::Unknown),
        ("Bearer ", "a", Right::Unknown),
        ("Basic one", "a", Right::Unknown),
        ("one", "a", Right::Unknown),
    ] {
        assert_eq!(right(authorization, tenant), expected, "{authorization} for {tenant}");
    }
    assert_eq!(tokens.right(None, "a"), Right::Unknown);
    assert!(!format!("{tokens:?}").contains("three"), "tokens are never shown");
}

#[test]
fn what_changed_is_read_anew_and_what_is_gone_grants_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::write(&a, "one\n").unwrap();
    fs::write(&b, "two\n").unwrap();
    let before = Tokens::read(dir.path(), &Tokens::default()).unwrap();
    fs::write(&a, "other\n").unwrap();
    fs::remove_file(&b).unwrap();
    let after = Tokens::read(dir.path(), &before).unwrap();
    for (token, tenant, was, is) in [
        ("Bearer one", "a", Right::Granted, Right::Unknown),
        ("Bearer other", "a", Right::Unknown, Right::Granted),
        ("Bearer two", "b", Right::Granted, Right::Unknown),
    ] {
        assert_eq!(before.right(Some(token.as_bytes()), tenant), was, "{token}");
        assert_eq!(after.right(Some(token.as_bytes()), tenant), is, "{token}");
    }
    assert!(Tokens::read(&dir.path().join("absent"), &after).is_err());
}
