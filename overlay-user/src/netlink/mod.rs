//! The kernel's links, addresses, neighbours, FDB and routes, over rtnetlink.
