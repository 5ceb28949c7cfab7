//! Whose a drop is.

use super::*;

#[test]
fn what_the_filter_kept_from_a_node_is_none_of_what_the_node_sent() {
    let mut drops = DropCounts::default();
    drops.add(DropReason::Filtered, 5);
    assert_eq!(by_direction(&drops), (5, 0));
    drops.add(DropReason::TxFull, 2);
    drops.add(DropReason::NoFlow, 3);
    assert_eq!(by_direction(&drops), (7, 3));
}
