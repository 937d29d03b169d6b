//! What each cell of the matrix is to show, written down before the first run.

use harness::Versions;

use crate::bed::Version::{self, V4, V6};

/// The MTU of the wire and of every uplink.
pub(crate) const UPLINK: u32 = 1500;

/// Containers' packets of one version of IP over an underlay that speaks some.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) inner: Version,
    pub(crate) underlay: Versions,
    /// The version on the wire: the subnet's own where the underlay speaks it.
    pub(crate) outer: Version,
    /// Bytes of outer IP, UDP, VXLAN and inner Ethernet headers.
    pub(crate) overhead: u32,
    /// The largest inner packet.
    pub(crate) mtu: u32,
    /// The MSS option of a SYN as it arrives: without the IP and TCP headers.
    pub(crate) mss: u32,
}

const fn cell(inner: Version, underlay: Versions, outer: Version, overhead: u32, mtu: u32, mss: u32) -> Cell {
    Cell { inner, underlay, outer, overhead, mtu, mss }
}

/// The matrix.
pub(crate) const CELLS: [Cell; 6] = [
    cell(V4, Versions::V4, V4, 50, 1450, 1410),
    cell(V6, Versions::V4, V4, 50, 1450, 1390),
    cell(V4, Versions::V6, V6, 70, 1430, 1390),
    cell(V6, Versions::V6, V6, 70, 1430, 1370),
    cell(V4, Versions::Both, V4, 50, 1450, 1410),
    cell(V6, Versions::Both, V6, 70, 1430, 1370),
];

/// The cells over one underlay.
pub(crate) fn cells(underlay: Versions) -> impl Iterator<Item = Cell> {
    CELLS.into_iter().filter(move |cell| cell.underlay == underlay)
}

#[test]
fn the_table_agrees_with_itself() {
    for underlay in [Versions::V4, Versions::V6, Versions::Both] {
        let inner: Vec<Version> = cells(underlay).map(|cell| cell.inner).collect();
        assert_eq!(inner, [V4, V6]);
    }
    for cell in CELLS {
        let outer_header = if cell.outer == V4 { 20 } else { 40 };
        assert_eq!(cell.overhead, outer_header + 8 + 8 + 14, "{cell:?}");
        assert_eq!(cell.mtu + cell.overhead, UPLINK, "{cell:?}");
        let headers = if cell.inner == V4 { 40 } else { 60 };
        assert_eq!(cell.mss + headers, cell.mtu, "{cell:?}");
        let spoken = if cell.outer == V4 { cell.underlay.v4() } else { cell.underlay.v6() };
        assert!(spoken, "{cell:?}");
    }
}
