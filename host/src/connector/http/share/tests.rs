use super::*;

#[test]
fn one_tenant_takes_all_where_it_is_alone_and_leaves_room_where_it_is_not() {
    for (tenants, expected) in [(1, 8), (2, 4), (3, 4)] {
        let share = Share::new(8);
        let taken: Vec<_> = std::iter::from_fn(|| share.take("a", tenants)).collect();
        assert_eq!(taken.len(), expected, "{tenants} tenants");
        assert_eq!(share.take("b", tenants).is_some(), tenants > 1);
        drop(taken);
        assert!(share.lock().is_empty(), "places come back");
    }
}

#[test]
fn a_share_of_one_place_gives_it() {
    let share = Share::new(1);
    let place = share.take("a", 2);
    assert!(place.is_some() && share.take("b", 2).is_none());
    drop(place);
    assert!(share.take("b", 2).is_some());
}
