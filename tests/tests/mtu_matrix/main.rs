//! The MTU matrix: containers of every MTU over uplinks of every MTU, and no traffic stalls or vanishes.

mod expected;

use expected::{
    PAIRS, ROUTER_1400, ROWS, Teller, UPLINK_1400, UPLINK_1500, UPLINK_1500_CUT, UPLINK_9000, row_of, shots,
};

#[test]
fn the_table_is_complete_and_agrees_with_itself() {
    for setting in [UPLINK_1400, UPLINK_1500, UPLINK_1500_CUT, UPLINK_9000, ROUTER_1400] {
        assert_eq!(setting.overlay, setting.router.unwrap_or(setting.uplink) - 50, "{setting:?}");
        for (here, there) in PAIRS.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            assert!(shots(&row_of(&setting, here, there)).len() > 20);
        }
    }
    for row in ROWS {
        let back = ROWS.iter().find(|r| (r.overlay, r.here, r.there) == (row.overlay, row.there, row.here));
        assert_eq!(row.path, row.here.min(row.overlay), "{row:?}");
        assert_eq!(row.mss, row.path - 40, "{row:?}");
        assert_eq!(Some(row.payload), back.map(|back| back.mss.min(row.mss) - 12), "{row:?}");
        assert_eq!(row.teller == Teller::Own, row.here <= row.overlay, "{row:?}");
    }
}
